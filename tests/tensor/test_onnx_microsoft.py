"""The operators of ONNX Runtime itself give what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="its own operators are compared with the package onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from amdrv.tensor import onnx as importer  # noqa: E402

Array = NDArray[Any]
RANDOM = np.random.default_rng(3)
TYPES = {name: getattr(TensorProto, name.upper()) for name in ("int8", "uint8", "int32", "int64")}
TYPES["float32"] = TensorProto.FLOAT


def floats(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def bytes_(*shape: int) -> Array:
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


def signed(*shape: int) -> Array:
    return RANDOM.integers(-128, 128, shape).astype(np.int8)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


ZERO, MIDDLE = np.array(0, np.uint8), np.array(120, np.uint8)
NONE = None
CASES: dict[str, tuple[list[Array | None], dict[str, Any]]] = {
    "Gelu": ([floats(3, 5)], {}),
    "BiasGelu": ([floats(3, 5), floats(5)], {}),
    "FastGelu": ([floats(3, 5), floats(5)], {}),
    "QuickGelu": ([floats(3, 5)], {"alpha": 1.5}),
    "FusedMatMul": ([floats(2, 3, 4), floats(2, 5, 3)], {"transA": 1, "transB": 1, "alpha": 0.5}),
    "FusedGemm": ([floats(3, 4), floats(4, 5), floats(5)], {"activation": "LeakyRelu", "activation_alpha": 0.2}),
    "FusedConv": ([floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "SkipLayerNormalization": ([floats(2, 3, 8), floats(2, 3, 8), floats(8), floats(8), floats(8)], {}),
    "SkipSimplifiedLayerNormalization": ([floats(2, 3, 8), floats(2, 3, 8), floats(8)], {"epsilon": 1e-6}),
    "MultiHeadAttention": (
        [
            floats(2, 3, 8),
            floats(2, 4, 8),
            floats(2, 4, 8),
            floats(24),
            np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32),
        ],
        {"num_heads": 2},
    ),
    "MatMulNBits": (
        [floats(2, 40), bytes_(6, 3, 8), np.abs(floats(6 * 3)), bytes_(6 * 2)],
        {"bits": 4, "block_size": 16, "K": 40, "N": 6},
    ),
    "QLinearAdd": ([bytes_(3, 4), scale(0.1), MIDDLE, bytes_(3, 4), scale(0.2), ZERO, scale(0.3), MIDDLE], {}),
    "QLinearMul": ([bytes_(3, 4), scale(0.1), MIDDLE, bytes_(4), scale(0.2), ZERO, scale(3.0), MIDDLE], {}),
    "QLinearSigmoid": ([bytes_(3, 4), scale(0.05), MIDDLE, scale(1 / 256), ZERO], {}),
    "QLinearLeakyRelu": ([bytes_(3, 4), scale(0.05), MIDDLE, scale(0.05), MIDDLE], {"alpha": 0.1}),
    "QLinearGlobalAveragePool": ([bytes_(1, 3, 4, 4), scale(0.05), MIDDLE, scale(0.04), MIDDLE], {}),
    "QLinearConcat": (
        [scale(0.1), MIDDLE, bytes_(2, 3), scale(0.1), ZERO, bytes_(2, 3), scale(0.2), MIDDLE],
        {"axis": 1},
    ),
    "QGemm": (
        [bytes_(3, 4), scale(0.1), MIDDLE, signed(5, 4), scale(0.2), np.array(0, np.int8), NONE, scale(6.0), MIDDLE],
        {"transB": 1},
    ),
    "MatMulIntegerToFloat": ([bytes_(3, 4), signed(4, 5), scale(0.1), scale(0.2), MIDDLE, NONE, floats(5)], {}),
    "DynamicQuantizeMatMul": ([floats(3, 4), signed(4, 5), scale(0.2)], {}),
    "DynamicQuantizeLSTM": (
        [
            floats(12, 1, 4),
            signed(1, 4, 24),
            signed(1, 6, 24),
            floats(1, 48),
            NONE,
            floats(1, 1, 6),
            floats(1, 1, 6),
            NONE,
            np.full(1, 0.01, np.float32),
            np.zeros(1, np.int8),
            np.full(1, 0.01, np.float32),
            np.zeros(1, np.int8),
        ],
        {"hidden_size": 6},
    ),
}


@pytest.mark.parametrize("op", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(op: str) -> None:
    inputs, options = CASES[op]
    names = ["" if part is None else f"x{k}" for k, part in enumerate(inputs)]
    node = helper.make_node(op, names, ["y"], domain="com.microsoft", **options)
    feed = {name: part for name, part in zip(names, inputs, strict=True) if part is not None}
    given = [helper.make_tensor_value_info(n, TYPES[part.dtype.name], part.shape) for n, part in feed.items()]
    # Weights, scales and zero points are constants: ONNX Runtime wants some of them so.
    constants = [helper.make_tensor(n, TYPES[p.dtype.name], p.shape, p.tobytes(), raw=True) for n, p in feed.items()]
    graph = helper.make_graph(
        [node], "one", given[:1], [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)], constants[1:]
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    first = {given[0].name: feed[given[0].name]}
    wanted = session_outputs(model, first)
    (found,) = importer.load(model, "CPU").run(list(first.values()))
    assert found.dtype == wanted.dtype
    if wanted.dtype.kind in "iu":
        # Where a value stands between two integers, either is right.
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert (found == wanted).mean() > 0.8
    else:
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5 if "Quick" not in op else 1e-4)


def session_outputs(model: Any, feed: dict[str, Array]) -> Array:
    output = model.graph.output[0]
    output.ClearField("type")
    found: Array = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, feed
    )[0]
    return found
