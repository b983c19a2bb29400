"""The operators that ONNX Runtime's optimisers make of transformers give what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="its own operators are compared with the package onnxruntime")

from onnx import helper  # noqa: E402

from amdrv.errors import Unsupported  # noqa: E402
from amdrv.tensor import onnx as importer  # noqa: E402

Array = NDArray[Any]
RANDOM = np.random.default_rng(7)
BATCH, LENGTH, WIDTH, HEADS = 2, 5, 8, 2


def floats(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*values: Any) -> Array:
    return np.array(values, np.int32)


def angles(count: int, width: int) -> list[Array]:
    turns = np.arange(count)[:, None] / 10.0 ** np.arange(width)
    return [np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)]


X, W, B = floats(BATCH, LENGTH, WIDTH), floats(WIDTH, 3 * WIDTH) / 2, floats(3 * WIDTH)
PAST = floats(2, BATCH, HEADS, 3, WIDTH // HEADS)
ONES = np.ones((BATCH, LENGTH), np.int32)
ONES[1, 3:] = 0
IDS = RANDOM.integers(0, 9, (BATCH, LENGTH)).astype(np.int32)
TABLES = [floats(9, WIDTH), floats(7, WIDTH), floats(2, WIDTH), floats(WIDTH), floats(WIDTH)]
QUANTISED = [
    RANDOM.integers(0, 256, X.shape).astype(np.uint8),
    RANDOM.integers(-128, 128, W.shape).astype(np.int8),
    B,
    np.array(0.01, np.float32),
    np.array(0.02, np.float32),
]
ATTENTION = {"num_heads": HEADS}
# Four heads of the query share two of the keys; the cache holds four places.
GROUPS: dict[str, Any] = {"num_heads": 4, "kv_num_heads": 2}
Q, K, V = floats(2, 3, 64), floats(2, 3, 32), floats(2, 3, 32)
CACHE = [floats(2, 2, 4, 16), floats(2, 2, 4, 16)]
STEP = [floats(2, 1, 64), floats(2, 1, 32), floats(2, 1, 32)]

# Operator, inputs, attributes, and which outputs are compared.
CASES: dict[str, tuple[str, list[Array | None], dict[str, Any], list[int]]] = {
    "attention": ("Attention", [X, W, B], ATTENTION, [0]),
    "attention with lengths": ("Attention", [X, W, B, whole(5, 3)], ATTENTION, [0]),
    "attention from and to": ("Attention", [X, W, B, whole(5, 4, 1, 2)], ATTENTION, [0]),
    "attention of some words": ("Attention", [X, W, B, ONES], ATTENTION, [0]),
    "attention with a past": ("Attention", [X, W, B, None, PAST], {**ATTENTION, "unidirectional": 1}, [0, 1]),
    "attention with a bias": (
        "Attention",
        [X, W, B, None, None, floats(BATCH, HEADS, LENGTH, LENGTH)],
        {**ATTENTION, "scale": 0.3},
        [0],
    ),
    "quantised attention": ("QAttention", [*QUANTISED, None, np.array(3, np.uint8)], ATTENTION, [0]),
    "embeddings": ("EmbedLayerNormalization", [IDS, IDS % 2, *TABLES, ONES], {}, [0, 1]),
    "embeddings without segments": (
        "EmbedLayerNormalization",
        [IDS, None, *TABLES[:2], None, *TABLES[3:]],
        {"epsilon": 1e-5},
        [0],
    ),
    "turned by one place": ("RotaryEmbedding", [X, np.array([2]), *angles(9, 2)], {}, [0]),
    "turned by places": (
        "RotaryEmbedding",
        [floats(2, 3, 4, 8), np.array([[0, 1, 2, 3], [4, 3, 2, 1]]), *angles(9, 4)],
        {"interleaved": 1},
        [0],
    ),
    "groups": ("GroupQueryAttention", [Q, K, V, None, None, whole(2, 2), whole(3)], GROUPS, [0, 1, 2]),
    "groups, packed": (
        "GroupQueryAttention",
        [np.concatenate([Q, K, V], -1), None, None, None, None, whole(2, 2), whole(3)],
        {**GROUPS, "softcap": 5.0},
        [0, 1, 2],
    ),
    "groups, one step more": (
        "GroupQueryAttention",
        [*STEP, *CACHE, whole(4, 4), whole(5), *angles(16, 8)],
        {**GROUPS, "do_rotary": 1},
        [0, 1, 2],
    ),
    "groups of unlike lengths": (
        "GroupQueryAttention",
        [*STEP, *CACHE, whole(4, 2), whole(5), *angles(16, 8)],
        {**GROUPS, "do_rotary": 1, "rotary_interleaved": 1, "local_window_size": 3},
        [0],
    ),
    "distances": ("CDist", [floats(4, 3), floats(6, 3)], {"metric": "euclidean"}, [0]),
    "rows before batches": ("FusedMatMul", [floats(3, 2, 4, 5), floats(2, 4, 5, 6)], {"transBatchA": 1}, [0]),
    "rows before batches, turned": (
        "FusedMatMul",
        [floats(2, 3, 4, 5), floats(6, 2, 3, 5)],
        {"transBatchB": 1, "transB": 1},
        [0],
    ),
}


def one_node(
    op: str, inputs: list[Array | None], options: dict[str, Any], outputs: int
) -> tuple[Any, dict[str, Array]]:
    """A model of one operator whose outputs have no type, and its inputs by name."""
    names = ["" if part is None else f"x{k}" for k, part in enumerate(inputs)]
    results = [f"y{k}" for k in range(outputs)]
    feed = {name: part for name, part in zip(names, inputs, strict=True) if part is not None}
    types = {n: helper.np_dtype_to_tensor_dtype(part.dtype) for n, part in feed.items()}
    given = [helper.make_tensor_value_info(n, types[n], part.shape) for n, part in feed.items()]
    left = [helper.make_empty_tensor_value_info(name) for name in results]
    for info in left:
        info.ClearField("type")
    node = helper.make_node(op, names, results, domain="com.microsoft", **options)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "one", given, left)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feed


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(name: str) -> None:
    op, inputs, options, compared = CASES[name]
    model, feed = one_node(op, inputs, options, 3 if op == "GroupQueryAttention" else max(compared) + 1)
    if op == "EmbedLayerNormalization" and len(compared) == 1:
        model, feed = one_node(op, inputs, options, 2)
    wanted = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
    found = importer.load(model, "CPU").run(list(feed.values()))
    for k in compared:
        assert found[k].dtype == wanted[k].dtype
        np.testing.assert_allclose(found[k], wanted[k], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"axis": -1, "opset": 13}, {"axis": 1, "opset": 11}])
def test_a_quantised_softmax_is_as_that_of_onnx_runtime(options: dict[str, int]) -> None:
    given = RANDOM.integers(0, 256, (2, 3, 4)).astype(np.uint8)
    scale, zero = np.array(0.05, np.float32), np.array(7, np.uint8)
    inputs: list[Array | None] = [given, scale, zero, np.array(1 / 256, np.float32), np.array(0, np.uint8)]
    model, feed = one_node("QLinearSoftmax", inputs, options, 1)
    (wanted,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    (found,) = importer.load(model, "CPU").run(list(feed.values()))
    assert np.abs(found.astype(int) - wanted).max() <= 1  # where a value stands between two integers, either is right


def test_a_mask_that_is_not_known_is_refused() -> None:
    model, feed = one_node("Attention", [X, W, B, whole(1, 2, 3, 4, 5, 6, 7)], ATTENTION, 1)
    with pytest.raises(Unsupported, match="a mask of"):
        importer.load(model, "CPU").run(list(feed.values()))
