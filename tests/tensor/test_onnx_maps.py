"""Maps, support vector machines and words of texts give what ONNX Runtime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="classic models are compared with the package onnxruntime")

from onnx import ModelProto, TensorProto, TypeProto, helper  # noqa: E402

from amdrv.errors import InvalidArgument, MalformedInput  # noqa: E402
from amdrv.tensor import onnx as importer  # noqa: E402

ML = "ai.onnx.ml"
KEY_TYPES = {str: TensorProto.STRING, int: TensorProto.INT64}
X = np.random.default_rng(3).standard_normal((17, 4)).astype(np.float32)
Array = NDArray[Any]


def model(op_type: str, given: TypeProto, results: int = 1, domain: str = ML, **attributes: Any) -> ModelProto:
    outputs = [f"y{k}" for k in range(results)]
    node = helper.make_node(op_type, ["x"], outputs, domain=domain, **attributes)
    infos = [onnx_info(name) for name in outputs]
    graph = helper.make_graph([node], "one", [helper.make_value_info("x", given)], infos)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def onnx_info(name: str) -> Any:
    """An output whose type is left to whoever reads the model."""
    info = helper.make_empty_tensor_value_info(name)
    info.ClearField("type")
    return info


def tensor_type(kind: int, shape: tuple[int, ...]) -> TypeProto:
    return helper.make_tensor_type_proto(kind, shape)


def map_type(key: type, value: int) -> TypeProto:
    return helper.make_map_type_proto(KEY_TYPES[key], helper.make_tensor_type_proto(value, []))


def both(proto: ModelProto, given: Any) -> tuple[list[Any], list[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    theirs = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return importer.load(proto, "CPU").run([given]), theirs.run(None, {"x": given})


def machine(classes: int, kernel: str, probable: bool = False) -> dict[str, Any]:
    """A random classifier with vectors for each class."""
    draw = np.random.default_rng(classes)
    owned = draw.integers(2, 5, classes)
    pairs, total = classes * (classes - 1) // 2, int(owned.sum())
    made: dict[str, Any] = {
        "classlabels_ints": list(range(3, 3 + classes)),
        "kernel_type": kernel,
        "kernel_params": [0.3, 0.1, 2.0],
        "vectors_per_class": owned.tolist(),
        "support_vectors": draw.standard_normal(total * 4).tolist(),
        "coefficients": draw.standard_normal(total * (classes - 1)).tolist(),
        "rho": draw.standard_normal(pairs).tolist(),
    }
    if probable:
        made |= {name: (-draw.random(pairs) - 0.5).tolist() for name in ("prob_a", "prob_b")}
    return made


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize(("classes", "probable"), [(2, False), (2, True), (4, False), (4, True)])
def test_a_machine_classifies_as_onnx_runtime_does(kernel: str, classes: int, probable: bool) -> None:
    proto = model("SVMClassifier", tensor_type(1, X.shape), 2, **machine(classes, kernel, probable))
    mine, theirs = both(proto, X)
    assert np.array_equal(mine[0], theirs[0])
    assert len(set(mine[0].tolist())) > 1
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("post", ["LOGISTIC", "SOFTMAX"])
def test_results_of_duels_go_through_a_function(post: str) -> None:
    proto = model("SVMClassifier", tensor_type(1, X.shape), 2, **machine(3, "RBF"), post_transform=post)
    mine, theirs = both(proto, X)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("extra", [{}, {"one_class": 1}, {"n_supports": 0}])
def test_a_machine_regresses_as_onnx_runtime_does(extra: dict[str, Any]) -> None:
    given = machine(2, "RBF")
    total = sum(given["vectors_per_class"])
    whole = {"n_supports": total, "coefficients": given["coefficients"][: 4 if "n_supports" in extra else total]}
    kept = {name: given[name] for name in ("kernel_type", "kernel_params", "support_vectors", "rho")} | whole | extra
    mine, theirs = both(model("SVMRegressor", tensor_type(1, X.shape), **kept), X)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["coefficients", "rho", "support_vectors", "vectors_per_class", "prob_a"])
def test_a_machine_whose_attributes_do_not_fit_is_malformed(name: str) -> None:
    given = machine(3, "RBF", probable=True)
    given[name] = given[name][:-1]
    with pytest.raises((MalformedInput, InvalidArgument), match="SVMClassifier"):
        importer.load(model("SVMClassifier", tensor_type(1, X.shape), 2, **given), "CPU").run([X])


@pytest.mark.parametrize("labels", [{"classlabels_int64s": [4, 2, 9, 7]}, {"classlabels_strings": list("abcd")}])
def test_each_row_becomes_a_map_of_labels(labels: dict[str, Any]) -> None:
    mine, theirs = both(model("ZipMap", tensor_type(1, X.shape), **labels), X)
    assert mine == theirs


def test_labels_and_columns_must_be_as_many() -> None:
    with pytest.raises(InvalidArgument, match="3 labels for float32"):
        importer.load(model("ZipMap", tensor_type(1, X.shape), classlabels_int64s=[1, 2, 3]), "CPU").run([X])


@pytest.mark.parametrize(
    ("given", "key", "value", "attributes"),
    [
        ({"b": 2.0, "z": 9.0}, str, TensorProto.FLOAT, {"string_vocabulary": ["a", "b", "c"]}),
        ({4: 1.5, 8: 2.5}, int, TensorProto.FLOAT, {"int64_vocabulary": [3, 4]}),
    ],
)
def test_a_map_becomes_a_row(given: dict[Any, Any], key: type, value: int, attributes: dict[str, Any]) -> None:
    mine, theirs = both(model("DictVectorizer", map_type(key, value), **attributes), given)
    assert mine[0].tolist() == theirs[0].tolist()
    assert mine[0].dtype == theirs[0].dtype


def test_a_map_keeps_the_type_of_its_values() -> None:
    strings = model("DictVectorizer", map_type(int, TensorProto.STRING), int64_vocabulary=[3, 4])
    assert importer.load(strings, "CPU").run([{4: "x"}])[0].tolist() == [["", "x"]]
    whole = model("DictVectorizer", map_type(str, TensorProto.INT64), string_vocabulary=["a", "b"])
    (found,) = importer.load(whole, "CPU").run([{"b": 2}])
    assert found.tolist() == [[0, 2]]
    assert found.dtype == np.int64


SPARSE = {"map_form": "SPARSE", "max_map": 6}


@pytest.mark.parametrize(
    "attributes",
    [
        {"cast_to": "TO_FLOAT"},
        {"cast_to": "TO_INT64"},
        {"cast_to": "TO_FLOAT", **SPARSE},
        {"cast_to": "TO_INT64", **SPARSE},
    ],
)
def test_a_map_becomes_a_row_in_the_order_of_its_keys(attributes: dict[str, Any]) -> None:
    mine, theirs = both(model("CastMap", map_type(int, TensorProto.FLOAT), **attributes), {5: 1.5, 1: -2.0})
    assert mine[0].tolist() == theirs[0].tolist()
    assert mine[0].dtype == theirs[0].dtype


def test_the_values_of_a_map_become_strings() -> None:
    proto = model("CastMap", map_type(int, TensorProto.FLOAT), cast_to="TO_STRING")
    assert importer.load(proto, "CPU").run([{5: 1.5, 1: -2.0}])[0].tolist() == [["-2", "1.5"]]


def test_a_map_where_a_tensor_is_wanted_is_named() -> None:
    proto = model("ZipMap", tensor_type(1, X.shape), classlabels_int64s=[1, 2, 3, 4])
    with pytest.raises(InvalidArgument, match="a map of 1"):
        importer.load(proto, "CPU").run([{1: 2.0}])
    proto = model("DictVectorizer", map_type(str, TensorProto.FLOAT), string_vocabulary=["a"])
    with pytest.raises(InvalidArgument, match=r"x: .* was given float32"):
        importer.load(proto, "CPU").run([X])


@pytest.mark.parametrize(
    "attributes",
    [
        {"mark": 0, "separators": [" ", ","], "mincharnum": 1},
        {"mark": 1, "separators": [" ", ","], "mincharnum": 2},
        {"mark": 1, "separators": [""], "mincharnum": 1},
        {"mark": 0, "tokenexp": "[a-z]+", "mincharnum": 2},
    ],
)
@pytest.mark.parametrize("texts", [["ab cd,e ", "", ",, é"], ["", ""]])
def test_texts_are_cut_into_words(attributes: dict[str, Any], texts: list[str]) -> None:
    given = np.array(texts, object)
    proto = model(
        "Tokenizer", tensor_type(TensorProto.STRING, given.shape), 1, "com.microsoft", pad_value="#", **attributes
    )
    mine, theirs = both(proto, given)
    assert mine[0].tolist() == theirs[0].tolist()


def test_columns_of_strings_are_picked() -> None:
    words = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    node = helper.make_node("ArrayFeatureExtractor", ["x", "at"], ["y"], domain=ML)
    infos = [helper.make_tensor_value_info(name, TensorProto.STRING, None) for name in "xy"]
    at = helper.make_tensor("at", TensorProto.INT64, [2], [2, 0])
    graph = helper.make_graph([node], "one", infos[:1], infos[1:], [at])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid(ML, 1)], ir_version=8)
    mine, theirs = both(proto, words)
    assert mine[0].tolist() == theirs[0].tolist() == [["c", "a"], ["f", "d"]]
