"""Loading ONNX models: what the model says of itself, wrong inputs, what is unsupported, malformed files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from amdrv.errors import AmdrvError, InvalidArgument, MalformedInput
from amdrv.tensor import Tensor, ir, jit
from amdrv.tensor.onnx import Model, UnsupportedOperators, load

ROOM = (TensorProto.FLOAT, ["n", 2])


def graph(nodes: list[NodeProto], inputs: dict[str, Any], outputs: dict[str, Any], **more: Any) -> GraphProto:
    def ports(given: dict[str, Any]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, *kind) for name, kind in given.items()]

    return helper.make_graph(nodes, "graph", ports(inputs), ports(outputs), **more)


def model(made: GraphProto, **more: Any) -> ModelProto:
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], **more)


def with_weight(weight: TensorProto) -> ModelProto:
    return model(graph([helper.make_node("Add", ["x", "w"], ["y"])], {"x": ROOM}, {"y": ROOM}, initializer=[weight]))


W = np.array([[10.0, 20.0]], np.float32)
WEIGHT = numpy_helper.from_array(W, "w")
X = np.arange(6, dtype=np.float32).reshape(3, 2)


def cpu(proto: ModelProto | bytes | Path) -> Model:
    return load(proto, "CPU")


# -- what a model is ---------------------------------------------------------------------------------------------------


def test_ports_have_names_types_and_shapes() -> None:
    loaded = cpu(with_weight(WEIGHT))
    (port,) = loaded.inputs
    assert (port.name, port.dtype, port.shape) == ("x", np.float32, ("n", 2))
    assert [str(port) for port in loaded.outputs] == ["y: float32[n, 2]"]


def test_calling_gives_lazy_tensors_by_name_and_run_gives_arrays_in_order() -> None:
    loaded = cpu(with_weight(WEIGHT).SerializeToString())
    lazy = loaded(x=Tensor(X, device="CPU"))["y"]
    assert isinstance(lazy, Tensor) and "lazy" in repr(lazy)
    np.testing.assert_array_equal(lazy.numpy(), X + W)
    (found,) = loaded.run([X])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X + W)


def test_gradients_go_through_a_model() -> None:
    x = Tensor(X, device="CPU", requires_grad=True)
    (cpu(with_weight(WEIGHT))(x=x)["y"].square().sum()).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 2 * (X + W))


def test_a_model_is_repeated_from_a_recording() -> None:
    loaded = cpu(parser.parse_model(FUNCTIONS))
    again = jit(lambda x: loaded(x=x)["y"])
    for k in range(4):
        np.testing.assert_array_equal(again(Tensor(X + k, device="CPU")).numpy(), (X + k) * 9)


def test_every_wrong_input_is_named_at_once() -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    loaded = cpu(model(graph([node], {"a": ROOM, "b": ROOM, "c": ROOM}, {"y": ROOM})))
    with pytest.raises(InvalidArgument) as caught:
        loaded(a=X.astype(np.int32), b=X[:, :1], d=X)
    for part in ("a: float32[n, 2] was given int32[3, 2]", "b: float32[n, 2] was given float32[3, 1]"):
        assert part in str(caught.value)
    assert "no input 'd'" in str(caught.value) and "c: float32[n, 2] is missing" in str(caught.value)
    with pytest.raises(InvalidArgument, match="4 inputs for"):
        loaded.run([X] * 4)


def test_an_error_while_running_names_the_node_and_its_inputs() -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"], name="product")
    with pytest.raises(InvalidArgument, match=r"MatMul 'product' of float32\[3, 2\], float32\[3, 2\]"):
        cpu(model(graph([node], {"x": ROOM}, {"y": ROOM}))).run([X])


def test_initialisers_among_the_inputs_are_no_inputs() -> None:
    made = graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], {"x": ROOM, "w": ROOM}, {"y": ROOM}, initializer=[WEIGHT]
    )
    assert [port.name for port in cpu(model(made)).inputs] == ["x"]


# -- functions and graphs in graphs ------------------------------------------------------------------------------------

FUNCTIONS = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
agraph (float[n, 2] x) => (float[n, 2] y) { y = own.twice <by: float = 3.0> (x) }
<domain: "own", opset_import: ["" : 21, "own" : 1]>
twice <by: float> (x) => (y) { a = own.scaled <factor: float = @by> (x)  y = own.scaled <factor: float = @by> (a) }
<domain: "own", opset_import: ["" : 21]>
scaled <factor: float> (x) => (y) { f = Constant <value_float: float = @factor> ()  y = Mul (x, f) }
"""


def test_functions_of_the_model_are_expanded_with_their_attributes() -> None:
    (found,) = cpu(parser.parse_model(FUNCTIONS)).run([X])
    np.testing.assert_array_equal(found, X * 9)


LOOP = """<ir_version: 10, opset_import: ["" : 21]>
agraph (float[n, 2] x, int64 turns, bool big) => (float[n, 2] last, float[t, n, 2] all) {
    step = If (big) <
        then_branch: graph = yes () => (float a) { a = Constant <value_float: float = 10.0> () },
        else_branch: graph = no () => (float b) { b = Identity (one) } >
    one = Constant <value_float: float = 1.0> ()
    go = Constant <value: tensor = bool {1}> ()
    last, all = Loop (turns, go, x) <
        body: graph = body (int64 i, bool c, float[n, 2] v) => (bool d, float[n, 2] w, float[n, 2] out) {
            d = Identity (c)  n = Cast <to: int = 1> (i)  s = Mul (n, step)  w = Add (v, s)  out = Identity (w) } >
}"""


def test_loops_and_branches_see_the_values_around_them() -> None:
    loaded = cpu(parser.parse_model(LOOP.replace("one = Con", "two = Con").replace("Identity (one)", "Neg (go_)")
                 .replace("step = If", "go_ = Constant <value_float: float = -1.0> ()  step = If")))  # fmt: skip
    last, each = loaded.run([X, np.int64(4), np.bool_(False)])
    np.testing.assert_array_equal(last, X + 6)
    np.testing.assert_array_equal(each, np.stack([X, X + 1, X + 3, X + 6]))
    last, _ = loaded.run([X, np.int64(3), np.bool_(True)])
    np.testing.assert_array_equal(last, X + 30)


def test_a_value_that_is_used_before_it_is_made_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="'one'"):
        cpu(parser.parse_model(LOOP))


def test_shapes_are_computed_without_kernels() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    agraph (float[a, b, c] x) => (float[d, c] y) <int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}> {
        s = Shape (x)  ends = Slice (s, two, three)  minus = Constant <value_ints: ints = [-1]> ()
        shape = Concat <axis: int = 0> (minus, ends)  y = Reshape (x, shape) }"""
    x = Tensor(np.zeros((2, 3, 4), np.float32), device="CPU")
    found = cpu(parser.parse_model(text))(x=x)["y"]
    assert found.shape == (6, 4)
    assert found.node.src == (x.node,)


def test_what_a_value_was_looked_at_through_is_not_computed_again() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    agraph (float[n, 2] x) => (float[n, 2] y, int64[r, k] places) {
        one = Constant <value_float: float = 1.0> ()  e = Exp (x)  b = Greater (x, one)  places = NonZero (b)
        y = Add (e, e) }"""
    lazy = cpu(parser.parse_model(text))(x=Tensor(X, device="CPU"))["y"]
    left = [node.op for node in ir.toposort([lazy.node], lambda node: node.buffer is not None)]
    assert ir.Op.ADD in left and ir.Op.EXP not in left


# -- what is not supported ---------------------------------------------------------------------------------------------


def test_all_unsupported_operators_are_listed_before_anything_runs() -> None:
    branch = graph([helper.make_node("Third", [], ["t"], domain="else.where")], {}, {"t": ROOM})
    nodes = [
        helper.make_node("Second", ["x"], ["a"]),
        helper.make_node("First", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("Second", ["b"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    with pytest.raises(UnsupportedOperators) as caught:
        cpu(model(graph(nodes, {"x": ROOM}, {"y": ROOM})))
    assert caught.value.operators == ("Second", "com.microsoft.First", "else.where.Third")
    assert "Second, com.microsoft.First, else.where.Third" in str(caught.value)


# -- malformed files ---------------------------------------------------------------------------------------------------


def changed(**fields: Any) -> TensorProto:
    made = TensorProto()
    made.CopyFrom(WEIGHT)
    for name, value in fields.items():
        if name == "dims":
            del made.dims[:]
            made.dims.extend(value)
        else:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "weight",
    [
        changed(dims=[2, 2]),
        changed(dims=[-1, 2]),
        changed(dims=[1 << 40, 1 << 40]),
        changed(dims=[1 << 62, 4]),
        changed(raw_data=WEIGHT.raw_data[:-1]),
        changed(data_type=99),
        changed(raw_data=b"", dims=[1 << 38]),
    ],
    ids=["more elements", "negative", "huge", "overflowing", "short", "unknown type", "no data"],
)
def test_weights_whose_bytes_are_not_their_shape_are_refused(weight: TensorProto) -> None:
    with pytest.raises(MalformedInput, match="tensor 'w'"):
        cpu(with_weight(weight))


def stored_beside(folder: Path, **entries: str) -> Path:
    weight = changed(raw_data=b"", data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(with_weight(weight).SerializeToString())
    return path


def test_weights_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"before" + WEIGHT.raw_data)
    path = stored_beside(tmp_path, location="weights", offset="6", length="8")
    np.testing.assert_array_equal(cpu(path).run([X])[0], X + W)
    with pytest.raises(MalformedInput, match="by its path"):
        cpu(path.read_bytes())


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../secret"},
        {"location": "{absolute}"},
        {"location": "link"},
        {"location": "absent"},
        {"location": "inside/../../secret"},
        {"location": "weights", "offset": "1"},
        {"location": "weights", "offset": "-8"},
        {"location": "weights", "offset": "x"},
        {"location": "weights", "length": "4"},
        {},
    ],
    ids=lambda entries: ",".join(f"{key}={value}" for key, value in entries.items()) or "nothing",
)
def test_files_outside_the_folder_and_ranges_outside_the_file_are_refused(
    tmp_path: Path, entries: dict[str, str]
) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "models"
    secret.write_bytes(WEIGHT.raw_data)
    folder.mkdir()
    (folder / "weights").write_bytes(WEIGHT.raw_data)
    (folder / "link").symlink_to(secret)
    path = stored_beside(folder, **{key: value.format(absolute=secret) for key, value in entries.items()})
    with pytest.raises(MalformedInput, match="tensor 'w'"):
        cpu(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not a model", b"\x08\x0a", b"\xff" * 50])
def test_what_is_no_model_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedInput, match="no ONNX model"):
        cpu(data)


def test_a_function_that_calls_itself_is_malformed() -> None:
    text = FUNCTIONS.replace("a = own.scaled <factor: float = @by> (x)", "a = own.twice <by: float = @by> (x)")
    with pytest.raises(MalformedInput, match="deep"):
        cpu(parser.parse_model(text))


def test_functions_that_expand_without_end_are_malformed() -> None:
    parts = [f"a{k} (x) => (y) {{ b = own.a{k + 1} (x)  y = own.a{k + 1} (b) }}" for k in range(40)]
    parts.append("a40 (x) => (y) { y = Neg (x) }")
    head = '<domain: "own", opset_import: ["" : 21, "own" : 1]>\n'
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[n, 2] x) => (float[n, 2] y) { y = own.a0 (x) }
    """ + "\n".join(head + part for part in parts)
    with pytest.raises(MalformedInput, match="expanded"):
        cpu(parser.parse_model(text))


def test_a_result_larger_than_the_machine_is_refused_and_not_allocated() -> None:
    node = helper.make_node("ConstantOfShape", ["x"], ["y"])
    loaded = cpu(model(graph([node], {"x": (TensorProto.INT64, ["n"])}, {"y": (TensorProto.FLOAT, None)})))
    for shape in ([1 << 39], [1 << 62, 1 << 62], [-1]):
        with pytest.raises(AmdrvError):
            loaded.run([np.array(shape)])


SMALL: list[Callable[[], ModelProto]] = [
    lambda: with_weight(WEIGHT),
    lambda: parser.parse_model(FUNCTIONS),
    lambda: parser.parse_model(LOOP.replace("Identity (one)", "Constant <value_float: float = 1.0> ()")),
]


@given(st.sampled_from(SMALL), st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_load_and_run_or_raise_errors_of_this_package(made: Callable[[], ModelProto], data: Any) -> None:
    content = bytearray(made().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    given_values = {"x": X, "turns": np.int64(2), "big": np.bool_(True)}
    try:
        loaded = cpu(bytes(content))
        loaded.run([given_values.get(port.name, X) for port in loaded.inputs])
    except AmdrvError:
        pass
