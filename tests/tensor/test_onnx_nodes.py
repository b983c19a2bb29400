"""A sample of ONNX's own operator tests, and the table of those left out. ``tools/test onnx`` runs them all."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")

from amdrv.tensor.onnx import conformance, load
from amdrv.tensor.onnx.operators import FAMILIES, OPERATORS

# Modules of onnx.backend.test.case.node: some of each family. The first tests of each are run.
SAMPLE = (
    *("add", "bitcast", "bitshift", "cast", "clip", "compress", "concat", "conv", "cumprod", "dequantizelinear", "elu"),
    *("gathernd", "gemm", "if_", "isinf", "layernormalization", "loop", "lstm", "mod", "onehot", "pad", "prelu"),
    *("quantizelinear", "reducemax", "reducesum", "regex_full_match", "reshape", "resize", "reversesequence", "scan"),
    *("scatternd", "sequence_map", "slice", "softmax", "split", "string_split", "topk", "trilu", "unique", "where"),
)
EACH = 2


@pytest.mark.parametrize("module", SAMPLE)
def test_first_node_tests_of_a_module_pass(module: str) -> None:
    left_out = conformance.exclusions()
    chosen = [case for case in conformance.cases([module]) if case.name not in left_out][:EACH]
    assert chosen
    assert {case.name: conformance.problem(case) for case in chosen} == {case.name: None for case in chosen}


def test_a_wrong_result_is_a_problem() -> None:
    case = conformance.cases(["add"])[0]
    assert case.model is not None
    case.model.graph.node[0].op_type = "Sub"
    try:
        assert "Not equal" in str(conformance.problem(case))
    finally:
        case.model.graph.node[0].op_type = "Add"


def test_excluded_tests_fail_and_say_why() -> None:
    left_out = conformance.exclusions()
    drawn = [case for case in conformance.cases(["bernoulli"]) if case.name in left_out]
    assert drawn and all(left_out[case.name] and conformance.problem(case) for case in drawn)


def test_values_that_the_node_tests_cannot_compare_are_right() -> None:
    (case,) = (case for case in conformance.cases(["loop"]) if case.name == "test_loop16_seq_none")
    assert case.model is not None and case.data_sets is not None
    (given, (wanted,)) = case.data_sets[0]
    (found,) = load(case.model, "CPU").run(list(given))
    assert [part.tolist() for part in found] == [part.tolist() for part in wanted]


def test_no_operator_is_in_two_families() -> None:
    assert sum(map(len, FAMILIES.values())) == len(OPERATORS)
