"""Loops and scans: those that never turn leave results of the right shape, and long ones stay fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="loops are compared with the package onnxruntime")

from onnx import ModelProto, TensorProto, helper, parser  # noqa: E402

from amdrv.errors import InvalidArgument, MalformedInput  # noqa: E402
from amdrv.tensor import onnx as importer  # noqa: E402

Array = NDArray[Any]
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def both(text: str | ModelProto, *inputs: Array) -> tuple[list[Any], list[Any]]:
    proto = parser.parse_model(HEADER + text) if isinstance(text, str) else text
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    feed = {port.name: value for port, value in zip(session.get_inputs(), inputs, strict=True)}
    return importer.load(proto, "CPU").run(list(inputs)), session.run(None, feed)


def same(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


LOOP = """
main (int64 n, float[3] x) => (float[3] last, float[t, 3, 1] all, int64[t] numbers) {
  last, all, numbers = Loop (n, , x) <body = one (int64 turn, bool go, float[3] before)
      => (bool again, float[3] after, float[3, 1] row, int64 number) {
    again = Identity (go)
    after = Add (before, before)
    axes = Constant <value_ints = [1]> ()
    row = Unsqueeze (after, axes)
    number = Identity (turn)
  }>
}"""


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_a_loop_leaves_rows_for_its_turns(turns: int) -> None:
    same(*both(LOOP, np.array(turns), np.array([1, 2, 3], np.float32)))


COUNTING = """
main (int64 n, float[6] x) => (float[6] last, int64 count, float[t, 6] all, float[u] parts) {
  zero = Constant <value_int = 0> ()
  empty = Constant <value_floats = [0.5]> ()
  last, count, parts, all = Loop (n, , x, zero, empty) <body = one
      (int64 turn, bool go, float[6] before, int64 k, float[p] grown)
      => (bool again, float[6] after, int64 following, float[q] more, float[6] row) {
    one = Constant <value_int = 1> ()
    six = Constant <value_int = 6> ()
    limit = Constant <value_float = LIMIT> ()
    following = Add (k, one)
    at = Mod (k, six)
    picked = Gather (before, at)
    after = Add (before, picked)
    row = Mul (after, after)
    PART
    more = Concat <axis = 0> (grown, part)
    sum = ReduceSum <keepdims = 0> (after)
    again = Less (sum, limit)
  }>
}"""
# What a turn adds to what grows: nothing that must be known, or as many elements as the counter says.
PARTS = {
    "fixed": "none = Constant <value_ints = [0]> () part = Gather (after, none)",
    "counted": "start = Constant <value_ints = [0]> () axes = Constant <value_ints = [0]> () "
    "end = Reshape (at, start1) part = Slice (after, start, end, axes)",
}


@pytest.mark.parametrize("limit", ["1e30", "60.0"])
@pytest.mark.parametrize("part", ["fixed", "counted"])
def test_a_long_loop_counts_and_grows_and_stops_as_it_says(part: str, limit: str) -> None:
    text = COUNTING.replace("LIMIT", limit).replace("PART", PARTS[part])
    text = text.replace("start1", "one_axis").replace("end =", "one_axis = Constant <value_ints = [1]> () end =")
    same(*both(text, np.array(12), np.arange(6, dtype=np.float32) / 8))


def scan(axis: int) -> ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "part"], ["sum"]),
            helper.make_node("Concat", ["sum", "part"], ["both"], axis=0),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("state", "part")],
        [helper.make_tensor_value_info("sum", 1, [2]), helper.make_tensor_value_info("both", 1, [4])],
    )
    node = helper.make_node("Scan", ["s", "x"], ["y", "z"], body=body, num_scan_inputs=1, scan_output_axes=[axis])
    given = [helper.make_tensor_value_info("s", 1, [2]), helper.make_tensor_value_info("x", 1, ["t", 2])]
    left = [helper.make_tensor_value_info("y", 1, [2]), helper.make_tensor_value_info("z", 1, None)]
    graph = helper.make_graph([node], "one", given, left)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("turns", [0, 3, 9])
def test_a_scan_leaves_rows_for_its_turns(axis: int, turns: int) -> None:
    state, given = np.ones(2, np.float32), np.arange(2 * turns, dtype=np.float32).reshape(turns, 2)
    found = importer.load(scan(axis), "CPU").run([state, given])
    if turns:  # ONNX Runtime has no scans of nothing
        same(*both(scan(axis), state, given))
    else:
        np.testing.assert_array_equal(found[0], state)
    assert found[1].shape == ((turns, 4) if axis == 0 else (4, turns))


def test_a_turn_that_is_not_possible_leaves_no_shape() -> None:
    text = """
main (int64 n, float[3] x) => (float[a, b] all) {
  all = Loop (n, ) <body = one (int64 turn, bool go) => (bool again, float[k] row) {
    again = Identity (go)
    shape = Constant <value_ints = [7]> ()
    row = Reshape (x, shape)
  }>
}"""
    model = importer.load(parser.parse_model(HEADER + text), "CPU")
    (found,) = model.run([np.array(0), np.zeros(3, np.float32)])
    assert found.shape == (0,)
    with pytest.raises(InvalidArgument, match="Reshape"):
        model.run([np.array(1), np.zeros(3, np.float32)])


def test_what_is_made_twice_is_malformed() -> None:
    proto = parser.parse_model(HEADER + "main (float[2] x) => (float[2] y) { y = Relu (x) y = Neg (x) }")
    with pytest.raises(MalformedInput, match="made twice: 'y'"):
        importer.load(proto, "CPU")


@pytest.mark.parametrize("index", [[4], [-5], [0, 4]])
def test_known_indices_are_checked(index: list[int]) -> None:
    values = ", ".join(map(str, index))
    text = f"main (float[4] x) => (float[n] y) {{ at = Constant <value_ints = [{values}]> () y = Gather (x, at) }}"
    with pytest.raises(InvalidArgument, match="of 4 elements"):
        importer.load(parser.parse_model(HEADER + text), "CPU").run([np.zeros(4, np.float32)])


@pytest.mark.parametrize(
    ("op", "inputs", "missing"), [("Add", ["x"], "1"), ("IsNaN", [], "0"), ("Conv", ["", "x"], "0")]
)
def test_inputs_that_an_operator_needs_are_named(op: str, inputs: list[str], missing: str) -> None:
    proto = parser.parse_model(f"{HEADER} main (float[2] x) => (float[2] y) {{ y = Relu (x) }}")
    proto.graph.node[0].CopyFrom(helper.make_node(op, inputs, ["y"]))
    with pytest.raises(InvalidArgument, match=f"input {missing} is missing"):
        importer.load(proto, "CPU").run([np.zeros(2, np.float32)])
