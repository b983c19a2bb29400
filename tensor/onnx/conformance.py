"""ONNX's own tests of operators, the "node tests" that come with the package onnx: which pass on a device.

``node_exclusions.txt`` names the tests that cannot pass, each with its reason.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx.backend.test.case import node
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner, _normalize_tensor

from amdrv.errors import AmdrvError
from amdrv.tensor.onnx.backend import AmdrvBackend


def exclusions() -> Mapping[str, str]:
    """The tests that cannot pass, and why."""
    lines = Path(__file__).with_name("node_exclusions.txt").read_text().splitlines()
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


def cases(modules: Iterable[str] | None = None) -> list[TestCase]:
    """All node tests, or those of some modules of ``onnx.backend.test.case.node``. Making all takes seconds."""
    if modules is None:
        found = pkgutil.walk_packages(node.__path__, f"{node.__name__}.")
        modules = (module.name.removeprefix(f"{node.__name__}.") for module in found)
    return [case for module in modules for case in _of_module(module)]


@functools.cache
def _of_module(name: str) -> list[TestCase]:
    """The tests that importing a module makes; what they warn of does not matter."""
    before = len(node._NodeTestCases)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        importlib.import_module(f"{node.__name__}.{name}")
    return node._NodeTestCases[before:]


def problem(case: TestCase, device: str = "CPU") -> str | None:
    """What is wrong with the results of a test on a device, or None when it passes."""
    if case.model is None or case.data_sets is None:
        return "the test has no model or no data"
    try:
        prepared = AmdrvBackend.prepare(case.model, device)
        for given, wanted in case.data_sets:
            found = prepared.run([_normalize_tensor(value) for value in given])
            expected = [_normalize_tensor(value) for value in wanted]
            Runner.assert_similar_outputs(expected, list(found), rtol=case.rtol, atol=case.atol)
    except (AmdrvError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def passing(chosen: Sequence[TestCase], device: str = "CPU") -> int:
    """How many tests pass; excluded ones do not."""
    skipped = exclusions()
    return sum(case.name not in skipped and problem(case, device) is None for case in chosen)
