"""Linear models, trees and encoders (ai.onnx.ml) give what ONNX Runtime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="classic models are compared with the package onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from amdrv.errors import AmdrvError  # noqa: E402
from amdrv.tensor import onnx as importer  # noqa: E402

Array = NDArray[Any]
X = np.random.default_rng(5).standard_normal((20, 3)).astype(np.float32)
CATEGORIES = np.array([[2], [5], [9]], np.int64)


def forest(votes: str, targets: int, seed: int = 1) -> dict[str, Any]:
    """Random trees of depth three; the nodes of a tree are numbered like a heap, and the last four are leaves."""
    draw = np.random.default_rng(seed)
    trees, nodes, inner = 4, 7, 3
    shared: dict[str, Any] = {
        "nodes_treeids": [t for t in range(trees) for _ in range(nodes)],
        "nodes_nodeids": list(range(nodes)) * trees,
        "nodes_featureids": draw.integers(0, 3, nodes * trees).tolist(),
        "nodes_values": draw.standard_normal(nodes * trees).astype(np.float32).tolist(),
        "nodes_modes": [
            "LEAF" if k >= inner else str(draw.choice(["BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT", "BRANCH_GTE"]))
            for _ in range(trees)
            for k in range(nodes)
        ],
        "nodes_truenodeids": [2 * k + 1 if k < inner else 0 for k in range(nodes)] * trees,
        "nodes_falsenodeids": [2 * k + 2 if k < inner else 0 for k in range(nodes)] * trees,
    }
    leaves = [(t, k, target) for t in range(trees) for k in range(inner, nodes) for target in range(targets)]
    for name, column in zip(("treeids", "nodeids", "ids"), zip(*leaves, strict=True), strict=True):
        shared[f"{votes}_{name}"] = list(column)
    shared[f"{votes}_weights"] = draw.standard_normal(len(leaves)).astype(np.float32).tolist()
    return shared


# Operator, inputs, attributes, number of results.
CASES: dict[str, tuple[str, Array, dict[str, Any], int]] = {
    "scaler": ("Scaler", X, {"offset": [0.5, 1.0, 2.0], "scale": [2.0, 0.5, 1.0]}, 1),
    **{f"normalizer {norm}": ("Normalizer", np.abs(X), {"norm": norm}, 1) for norm in ("L1", "L2", "MAX")},
    "imputer": (
        "Imputer",
        np.where(X > 1, np.nan, X),
        {"imputed_value_floats": [7.0], "replaced_value_float": np.nan},
        1,
    ),
    "encoder": ("OneHotEncoder", CATEGORIES, {"cats_int64s": [2, 9, 4], "zeros": 1}, 1),
    "linear": ("LinearRegressor", X, {"coefficients": [1.0, 2, 3, 4, 5, 6], "intercepts": [1.0, -1], "targets": 2}, 1),
    "classes": (
        "LinearClassifier",
        X,
        {
            "coefficients": [1.0, 2, 3, -1, 0.5, 2, 0, 1, -2],
            "intercepts": [1.0, -1, 0],
            "classlabels_strings": ["a", "b", "c"],
            "post_transform": "SOFTMAX",
        },
        2,
    ),
    "sum of trees": ("TreeEnsembleRegressor", X, {**forest("target", 2), "n_targets": 2, "base_values": [0.5, 1.0]}, 1),
    "mean of trees": ("TreeEnsembleRegressor", X, {**forest("target", 1), "aggregate_function": "AVERAGE"}, 1),
    "least of trees": ("TreeEnsembleRegressor", X, {**forest("target", 1), "aggregate_function": "MIN"}, 1),
    "voting trees": (
        "TreeEnsembleClassifier",
        X,
        {**forest("class", 3), "classlabels_int64s": [3, 5, 8], "post_transform": "SOFTMAX"},
        2,
    ),
    "trees of one class": (
        "TreeEnsembleClassifier",
        X,
        {**forest("class", 1), "classlabels_int64s": [0, 1], "post_transform": "LOGISTIC"},
        2,
    ),
}


def model(op: str, x: Array, options: dict[str, Any], outputs: int) -> Any:
    if op == "TreeEnsembleRegressor":
        options = {"n_targets": 1, **options}
    node = helper.make_node(op, ["x"], [f"y{k}" for k in range(outputs)], domain="ai.onnx.ml", **options)
    kind = TensorProto.INT64 if x.dtype == np.int64 else TensorProto.FLOAT
    results = [helper.make_tensor_value_info(f"y{k}", TensorProto.UNDEFINED, None) for k in range(outputs)]
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info("x", kind, x.shape)], results)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    for output in made.graph.output:
        output.ClearField("type")
    return made


@pytest.mark.parametrize("name", CASES)
def test_a_classic_model_gives_what_onnx_runtime_gives(name: str) -> None:
    op, x, options, outputs = CASES[name]
    proto = model(op, x, options, outputs)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for mine, theirs in zip(importer.load(proto, "CPU").run([x]), session.run(None, {"x": x}), strict=True):
        if mine.dtype == object or mine.dtype == np.int64:
            assert mine.tolist() == np.asarray(theirs).tolist()
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_trees_that_go_round_are_refused() -> None:
    options = forest("target", 1)
    options["nodes_truenodeids"] = [0] * len(options["nodes_truenodeids"])
    with pytest.raises(AmdrvError, match="lead back"):
        importer.load(model("TreeEnsembleRegressor", X, options, 1), "CPU").run([X])
