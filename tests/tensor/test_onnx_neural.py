"""The ONNX operators with the most options, with random ones, against the onnx package's reference evaluator."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")

from onnx import ModelProto, TensorProto, helper
from onnx.numpy_helper import from_array
from onnx.reference import ReferenceEvaluator

from amdrv.errors import AmdrvError
from amdrv.tensor import onnx as importer

Array = NDArray[Any]
TYPES = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL, "int64": TensorProto.INT64, "int32": TensorProto.INT32}


def model(op: str, inputs: list[Array | None], outputs: int, opset: int, **attributes: Any) -> ModelProto:
    """A model of one node; inputs that are None are left out."""
    names = ["" if part is None else f"x{k}" for k, part in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{k}" for k in range(outputs)], **attributes)
    given = [
        helper.make_tensor_value_info(name, TYPES[part.dtype.name], part.shape)
        for name, part in zip(names, inputs, strict=True)
        if part is not None
    ]
    made = [helper.make_tensor_value_info(f"y{k}", TensorProto.UNDEFINED, None) for k in range(outputs)]
    graph = helper.make_graph([node], "one", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def agrees(
    op: str, inputs: list[Array | None], outputs: int = 1, opset: int = 23, tolerance: float = 2e-5, **attributes: Any
) -> None:
    """One node gives what the reference evaluator gives."""
    proto = model(op, inputs, outputs, opset, **attributes)
    feed = {f"x{k}": part for k, part in enumerate(inputs) if part is not None}
    wanted = ReferenceEvaluator(proto).run(None, feed)
    found = importer.load(proto, "CPU").run(list(feed.values()))
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape, attributes
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance, err_msg=str(attributes))


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_resize_with_random_options(seed: int) -> None:
    draw = random.Random(seed)
    mode = draw.choice(["nearest", "linear", "cubic"])
    shape = [1, 2, draw.randint(2, 7), draw.randint(2, 7)]
    ways = ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"]
    options: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": draw.choice([*ways, "tf_crop_and_resize"]),
    }
    if mode == "nearest":
        options["nearest_mode"] = draw.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    else:
        options["antialias"] = draw.randint(0, 1) if options["coordinate_transformation_mode"] in ways[:1] else 0
        options["exclude_outside"] = draw.randint(0, 1) if mode == "cubic" else 0
    roi = np.array([0, 0, 0.2, 0.1, 1, 1, 0.9, 1.2], np.float32)
    if draw.random() < 0.5:
        scales = np.array([1, 1, draw.choice([0.5, 0.6, 1.5, 2.0]), draw.choice([0.7, 2.0, 3.0])], np.float32)
        agrees("Resize", [numbers(seed, *shape), roi, scales], **options)
    else:
        sizes = np.array([draw.randint(1, 9), draw.randint(1, 9)], np.int64)
        axes = draw.choice([[2, 3], [3, 2]])
        options["keep_aspect_ratio_policy"] = draw.choice(["stretch", "not_larger", "not_smaller"])
        own = np.array([0.2, 0.1, 0.9, 1.2], np.float32)
        agrees("Resize", [numbers(seed, *shape), own, None, sizes], axes=axes, **options)


@pytest.mark.parametrize("seed", range(14))
def test_attention_with_random_options(seed: int) -> None:
    draw = random.Random(100 + seed)
    groups, kv = draw.choice([1, 2, 3]), draw.choice([1, 2])
    length, keys, width, deep = draw.randint(1, 4), draw.randint(2, 5), 4, draw.choice([4, 3])
    heads, flat = groups * kv, draw.random() < 0.4
    q, k, v = numbers(1, 2, heads, length, width), numbers(2, 2, kv, keys, width), numbers(3, 2, kv, keys, deep)
    options: dict[str, Any] = {"is_causal": draw.randint(0, 1), "qk_matmul_output_mode": draw.choice([0, 2, 3])}
    if flat:
        q, k, v = (part.transpose(0, 2, 1, 3).reshape(2, part.shape[2], -1) for part in (q, k, v))
        options |= {"q_num_heads": heads, "kv_num_heads": kv}
    if draw.random() < 0.5:
        options["softcap"] = 1.5
        options["qk_matmul_output_mode"] = draw.choice([2, 3])  # the reference's mode 0 is after the cap
    if draw.random() < 0.5:
        options["scale"] = 0.3
    past = draw.choice([0, 0, 3])
    before = [numbers(4, 2, kv, past, width), numbers(5, 2, kv, past, deep)] if past else [None, None]
    mask: Array | None = draw.choice([None, numbers(6, length, keys + past), numbers(7, 2, 1, length, keys + past) > 0])
    inputs = [q, k, v, mask, *before]
    while inputs[-1] is None:
        inputs.pop()
    agrees("Attention", inputs, 4, **options)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("length", [3, 11])  # one graph, and step by step
def test_recurrent_networks_in_all_directions(op: str, direction: str, length: int) -> None:
    draw = random.Random(f"{op} {direction} {length}")
    ways, gates, hidden = 2 if direction == "bidirectional" else 1, {"RNN": 1, "GRU": 3, "LSTM": 4}[op], 5
    layout = draw.randint(0, 1)
    x = numbers(1, 2, length, 3) if layout else numbers(1, length, 2, 3)
    state = [numbers(4 + k, 2, ways, hidden) if layout else numbers(4 + k, ways, 2, hidden) for k in range(2)]
    inputs = [x, numbers(2, ways, gates * hidden, 3), numbers(3, ways, gates * hidden, hidden)]
    bias = numbers(6, ways, 2 * gates * hidden) if draw.random() < 0.7 else None
    options = {"linear_before_reset": draw.randint(0, 1)} if op == "GRU" else {}
    inputs += [bias, None, state[0]]
    if op == "LSTM":
        inputs += [state[1], numbers(7, ways, 3 * hidden)]
    outputs = 3 if op == "LSTM" else 2
    agrees(op, inputs, outputs, 22, hidden_size=hidden, direction=direction, layout=layout, **options)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_long_recurrent_network_runs_again_on_other_sequences(op: str) -> None:
    rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[op] * 5
    w, r, bias = numbers(2, 2, rows, 3), numbers(3, 2, rows, 5), numbers(4, 2, 2 * rows)
    node = helper.make_node(op, ["x", "w", "r", "b", "n"], ["y"], hidden_size=5, direction="bidirectional")
    given = [helper.make_tensor_value_info("x", 1, ["t", "k", 3]), helper.make_tensor_value_info("n", 6, ["k"])]
    weights = [from_array(part, name) for part, name in ((w, "w"), (r, "r"), (bias, "b"))]
    graph = helper.make_graph([node], "one", given, [helper.make_tensor_value_info("y", 1, None)], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    loaded = importer.load(proto, "CPU")
    for seed, length in enumerate([20, 20, 17, 33, 20]):
        x = numbers(10 + seed, length, 2, 3)
        lengths = np.array([length, length - 9], np.int32)
        (y,) = loaded.run([x, lengths])
        for k, end in enumerate(lengths):
            plain = {"x": x[:end, k : k + 1], "n": np.array([end], np.int32)}
            (wanted,) = ReferenceEvaluator(proto).run(None, plain)
            np.testing.assert_allclose(y[:end, :, k : k + 1], wanted, atol=1e-5)
            assert not y[end:, :, k].any()


def test_sequences_of_different_lengths_end_each_at_its_own() -> None:
    x, w, r = numbers(1, 4, 2, 3), numbers(2, 2, 20, 3), numbers(3, 2, 20, 5)
    lengths = np.array([4, 2], np.int32)
    proto = model("LSTM", [x, w, r, None, lengths], 3, 22, hidden_size=5, direction="bidirectional")
    y, last, cell = importer.load(proto, "CPU").run([x, w, r, lengths])
    short = model("LSTM", [x[:2, 1:], w, r], 3, 22, hidden_size=5, direction="bidirectional")
    wanted = ReferenceEvaluator(short).run(None, {"x0": x[:2, 1:], "x1": w, "x2": r})
    np.testing.assert_allclose(y[:2, :, 1:], wanted[0], atol=1e-5)
    assert not y[2:, :, 1].any()
    np.testing.assert_allclose(last[:, 1:], wanted[1], atol=1e-5)
    np.testing.assert_allclose(cell[:, 1:], wanted[2], atol=1e-5)


@pytest.mark.parametrize("seed", range(14))
def test_pooling_with_random_options(seed: int) -> None:
    draw = random.Random(200 + seed)
    n = draw.choice([1, 2, 2, 3])
    op = draw.choice(["MaxPool", "AveragePool", "LpPool"])
    size = [draw.randint(1, 3) for _ in range(n)]
    options: dict[str, Any] = {"kernel_shape": size, "strides": [draw.randint(1, 3) for _ in range(n)]}
    if draw.random() < 0.4 and all(k >= s for k, s in zip(size, options["strides"], strict=True)):
        # With gaps between windows the reference shifts them, where other implementations do not.
        options["auto_pad"] = draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    else:
        options["pads"] = [draw.randint(0, k - 1) for k in size] + [draw.randint(0, k - 1) for k in size]
        options["dilations"] = [draw.randint(1, 2) for _ in range(n)]
        # The reference puts what ceiling adds on both sides, where the operator says at the end.
        options["ceil_mode"] = draw.randint(0, 1) if max(options["strides"]) == 1 else 0
    if op == "AveragePool":
        options["count_include_pad"] = draw.randint(0, 1)
    if op == "LpPool":
        options["p"] = draw.choice([1, 2, 3])
    agrees(op, [numbers(seed, 2, 2, *[draw.randint(5, 8) for _ in range(n)])], 1, 22, **options)


@pytest.mark.parametrize("seed", range(8))
def test_convolution_and_its_transpose_with_random_options(seed: int) -> None:
    draw = random.Random(300 + seed)
    n, groups = draw.choice([1, 2, 3]), draw.choice([1, 2])
    size, strides = [draw.randint(1, 3) for _ in range(n)], [draw.randint(1, 2) for _ in range(n)]
    options: dict[str, Any] = {"strides": strides, "dilations": [draw.randint(1, 2) for _ in range(n)]}
    lengths = [draw.randint(6, 8) for _ in range(n)]
    if draw.random() < 0.4 and all(k >= s for k, s in zip(size, strides, strict=True)):
        options["auto_pad"] = draw.choice(["SAME_UPPER", "SAME_LOWER"])
    else:
        options["pads"] = [draw.randint(0, 2) for _ in range(2 * n)]
    inputs: list[Array | None] = [numbers(1, 2, 4, *lengths), numbers(2, 6, 4 // groups, *size), numbers(3, 6)]
    agrees("Conv", inputs, 1, 22, group=groups, **options)
    transposed: list[Array | None] = [numbers(1, 2, 4, *lengths), numbers(2, 4, 3, *size), numbers(3, 3)]
    options["dilations"] = [1] * n if "auto_pad" in options else options["dilations"]
    agrees("ConvTranspose", transposed, 1, 22, group=1, **options)


def test_the_transpose_of_windows_that_do_not_overlap_is_a_product() -> None:
    inputs: list[Array | None] = [numbers(1, 2, 4, 3, 5), numbers(2, 4, 3, 2, 3), numbers(3, 3)]
    agrees("ConvTranspose", inputs, 1, 22, strides=[2, 3])
    agrees("ConvTranspose", inputs, 1, 22, strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 0])


def test_resize_repeats_elements_as_a_view() -> None:
    x = numbers(1, 1, 2, 3, 4)
    scales = np.array([1, 1, 2, 3], np.float32)
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    proto = model("Resize", [x, None, scales], 1, 11, mode="nearest", **options)
    (found,) = importer.load(proto, "CPU").run([x, scales])
    np.testing.assert_array_equal(found, x.repeat(2, 2).repeat(3, 3))


@pytest.mark.parametrize(
    ("op", "inputs", "options"),
    [
        ("Conv", [numbers(1, 1, 3, 4, 4), numbers(2, 2, 2, 3, 3)], {}),
        ("Conv", [numbers(1, 1, 3, 4, 4), numbers(2, 2, 3, 9, 9)], {}),
        ("MaxPool", [numbers(1, 1, 3, 4, 4)], {"kernel_shape": [2]}),
        ("MaxPool", [numbers(1, 1, 3, 4, 4)], {}),
        ("LSTM", [numbers(1, 3, 1, 2), numbers(2, 1, 8, 2), numbers(3, 1, 8, 2)], {"direction": "sideways"}),
        ("Attention", [numbers(1, 1, 4, 6), numbers(2, 1, 4, 6), numbers(3, 1, 4, 6)], {}),
        ("Resize", [numbers(1, 1, 1, 4, 4), None, np.ones(3, np.float32)], {}),
        ("Einsum", [numbers(1, 2, 3)], {"equation": "ijk->i"}),
    ],
)
def test_what_does_not_fit_is_refused(op: str, inputs: list[Array | None], options: dict[str, Any]) -> None:
    proto = model(op, inputs, 1, 23, **options)
    with pytest.raises(AmdrvError, match=op):
        importer.load(proto, "CPU").run([part for part in inputs if part is not None])
