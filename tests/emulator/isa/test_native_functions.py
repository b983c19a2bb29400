"""The float functions that compiled code calls, on all halves and on many floats, and the code of the usual mode."""

from __future__ import annotations

import math

import numpy as np
import pytest
from native_harness import AVX2, Batch, compile_ir, evaluate, library_module

from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.native import definition_functions, extrema, math_functions, matrix_functions
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet
from amdrv.emulator.isa.numpy_rounding import fma64

APPROXIMATED = ("exp2", "log2", "sin_turns", "cos_turns", "rcp", "rsq", "sqrt")


def batch(*names: tuple[str, str, int]) -> Batch:
    """Operations of the algebra (name, kind, number of operands) as functions called NAME_KIND."""
    result = Batch(32, [*math_functions.functions(32), *extrema.functions(32)], 1)
    for name, kind, count in names:

        def body(builder: Builder, *values: Val, name: str = name) -> list[Val]:
            return [getattr(LlvmAlgebra(builder, FloatMode()), name)(*values)]

        result.add(f"{name}_{kind}", body, [(kind, True)] * count)
    return result


def distance(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many representable numbers lie between; NaNs are one value."""
    signed = [a.view(f"i{a.itemsize}").astype(np.int64) for a in (got, wanted)]
    ordered = [np.where(s < 0, -(1 << 8 * got.itemsize - 1) - s, s) for s in signed]
    return np.where(np.isnan(got) & np.isnan(wanted), 0, np.abs(ordered[0] - ordered[1]))


def floats(random: np.random.Generator, count: int) -> np.ndarray:
    """Any bits, numbers of moderate size, numbers near one."""
    parts = (
        random.integers(0, 1 << 32, count, dtype=np.uint32).view("f4"),
        (random.random(count) * 300 - 150).astype("f4"),
        (1 + random.normal(0, 1e-3, count)).astype("f4"),
    )
    return np.concatenate(parts).reshape(-1, 32)


def test_functions_of_every_half_are_those_of_numpy() -> None:
    functions = batch(*((name, "f16", 1) for name in APPROXIMATED))
    x = np.arange(1 << 16, dtype=np.uint16).view("f2").reshape(-1, 32)
    for name in APPROXIMATED:
        with quiet():
            wanted = getattr(NumpyAlgebra(), name)(x)
        assert not distance(functions.call(f"{name}_f16", x)[0], wanted).any(), name


def test_functions_of_floats_differ_from_numpy_by_one_ulp_at_most() -> None:
    functions = batch(*((name, "f32", 1) for name in APPROXIMATED))
    x = floats(np.random.default_rng(5), 1 << 15)
    for name in APPROXIMATED:
        with quiet():
            wanted = getattr(NumpyAlgebra(), name)(x)
        apart = distance(functions.call(f"{name}_f32", x)[0], wanted)
        assert apart.max() <= 1, name
        assert apart.mean() < 1e-4, name


@pytest.mark.parametrize(
    ("name", "function", "low", "high"),
    [
        ("exp2", lambda x: 2.0**x, -126.0, 127.9),
        ("log2", math.log2, 1e-30, 1e30),
        ("sin_turns", lambda x: math.sin(2 * math.pi * x), -0.124, 0.124),
        ("cos_turns", lambda x: math.cos(2 * math.pi * x), -0.124, 0.124),
    ],
)
def test_functions_are_within_one_ulp_of_the_true_value(name: str, function: object, low: float, high: float) -> None:
    x = np.random.default_rng(6).uniform(low, high, (16, 32)).astype("f4")
    (got,) = batch((name, "f32", 1)).call(f"{name}_f32", x)
    true = np.array([[function(float(v)) for v in row] for row in x])  # type: ignore[operator]
    assert (np.abs(got - true) <= np.spacing(np.abs(true).astype("f4"))).all()


def test_fused_halves_are_rounded_once() -> None:
    random = np.random.default_rng(7)
    near = random.normal(0, 8, (3, 4096, 32)).astype("f2")
    anything = random.integers(0, 1 << 16, (3, 4096, 32), dtype=np.uint16).view("f2")
    x, y, z = np.concatenate([near, anything], axis=1)
    with quiet():
        wanted = NumpyAlgebra().fma(x, y, z)
    assert not distance(batch(("fma", "f16", 3)).call("fma_f16", x, y, z)[0], wanted).any()


def test_an_infinite_addend_wins_over_a_product_that_overflows() -> None:
    x, y, z = (np.full((1, 32), value) for value in (1e300, 1e300, -np.inf))
    with quiet():
        assert (NumpyAlgebra().fma(x, y, z) == -np.inf).all()
        assert (fma64(x, y, z, NumpyAlgebra().mode.round64) == -np.inf).all()
    zero = np.zeros((1, 32), np.int32)
    (got,) = evaluate(
        32,
        lambda builder, *v: [LlvmAlgebra(builder, FloatMode()).scaled_fma(*v)],
        [x, y, z, zero],
        library=math_functions.functions(32),
    )
    assert (got == -np.inf).all()


@pytest.mark.parametrize(
    ("name", "count", "line"),
    [
        ("add", 2, "fadd <32 x float> %x, %x"),
        ("sub", 2, "fsub <32 x float> %x, %x"),
        ("mul", 2, "fmul <32 x float> %x, %x"),
        ("fma", 3, "call <32 x float> @llvm.fma.v32f32(<32 x float> %x, <32 x float> %x, <32 x float> %x)"),
        ("lt", 2, "fcmp olt <32 x float> %x, %x"),
        ("exp2", 1, "call <32 x float> @exp2_f32.w32(<32 x float> %x)"),
    ],
)
def test_an_operation_in_the_usual_mode_is_one_plain_instruction(name: str, count: int, line: str) -> None:
    builder = Builder(32)
    x = builder.value("f32", "%x", True)
    getattr(LlvmAlgebra(builder, FloatMode()), name)(*[x] * count)
    assert builder.lines == [f"%t1 = {line}"]


def test_casts_between_integers_of_one_width_write_nothing() -> None:
    builder = Builder(32)
    algebra = LlvmAlgebra(builder, FloatMode())
    assert algebra.i32(builder.value("u32", "%x", True)).text == "%x"
    assert builder.lines == []


def test_operations_on_constants_write_nothing() -> None:
    builder = Builder(32)
    algebra = LlvmAlgebra(builder, FloatMode())
    x, y = builder.constant("i32", -7), builder.value("u32", "%y", True)
    assert algebra.cast(x, "u64").bits == (1 << 64) - 7
    assert (algebra.lt(x, 3).bits, algebra.eq(x, 3).bits, algebra.le(x, -7).bits) == (1, 0, 1)
    assert (algebra.min(x, 3).bits, algebra.max(x, 3).bits) == ((1 << 32) - 7, 3)
    assert algebra.select(algebra.lt(x, 3), y, 0) is y
    assert builder.lines == []


@pytest.mark.parametrize("cpu", ["", AVX2])
@pytest.mark.parametrize("lanes", [32, 64])
def test_library_functions_need_nothing_that_is_not_in_the_library(lanes: int, cpu: str) -> None:
    functions = [
        *math_functions.functions(lanes),
        *extrema.functions(lanes, "+avx2" if cpu else None),
        *definition_functions.functions(lanes),
        *matrix_functions.functions(lanes),
    ]
    code = compile_ir(library_module(functions), level=0, cpu=cpu)
    assert all(code.address(function.name) for function in functions)
