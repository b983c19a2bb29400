"""Input modifiers, output modifier and clamp of the VOP3 encodings."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.generation import GFX12
from amdrv.emulator.isa.numpy_algebra import DTYPES, NumpyAlgebra, quiet
from amdrv.emulator.isa.semantics.modifiers import bind, modify_input

# Flushed output denormals and no IEEE mode: the only state in which the output modifier works.
OMOD_MODE = FloatMode(flush_outputs32=True, flush_outputs64=True, ieee=False)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def run(
    mnemonic: str, fields: dict[str, int], *values: np.ndarray, mode: FloatMode | None = None, kind: str = "f32"
) -> object:
    return bind(semantics.lookup(mnemonic), fields, kind)(NumpyAlgebra(mode), *values)


def row(kind: str, values: list[float]) -> np.ndarray:
    return np.array([values], DTYPES[kind])


@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
def test_clamp_holds_floats_in_the_unit_interval(kind: str) -> None:
    x = row(kind, [-2.0, -0.0, 0.25, 1.0, 7.0, math.inf, -math.inf])
    got = run(f"v_max_{kind}", {"clamp": 1}, x, x, kind=kind)
    assert got.ravel().tolist() == [0.0, 0.0, 0.25, 1.0, 1.0, 1.0, 0.0]
    assert not np.signbit(got).any()


def test_clamped_nan_is_zero_only_with_dx10_clamp() -> None:
    x = row("f32", [math.nan])
    assert run("v_add_f32", {"clamp": 1}, x, x).item() == 0.0
    assert math.isnan(run("v_add_f32", {"clamp": 1}, x, x, mode=FloatMode(dx10_clamp=False)).item())


@pytest.mark.parametrize(("omod", "factor"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 0.5)])
@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
def test_output_modifier_scales_when_denormals_are_flushed_and_ieee_is_off(kind: str, omod: int, factor: float) -> None:
    x, one = row(kind, [3.0, -1.5]), row(kind, [1.0])
    got = run(f"v_mul_{kind}", {"omod": omod}, x, one, mode=OMOD_MODE, kind=kind)
    assert got.ravel().tolist() == [3.0 * factor, -1.5 * factor]


@pytest.mark.parametrize("mode", [
    FloatMode(),
    FloatMode(flush_outputs32=True, flush_outputs64=True, ieee=True),
    FloatMode(ieee=False),
])  # fmt: skip
def test_output_modifier_is_ignored_in_ieee_mode_and_when_denormals_are_kept(mode: FloatMode) -> None:
    x = row("f32", [3.0, -0.0])
    got = run("v_mul_f32", {"omod": 1}, x, row("f32", [1.0]), mode=mode)
    assert got.ravel().tolist() == [3.0, 0.0]
    assert np.signbit(got).tolist() == [[False, True]]


# What is zero or denormal before it is scaled becomes +0; what halving makes too small keeps its sign.
@pytest.mark.parametrize(
    ("omod", "value", "want"),
    [(1, -0.0, 0), (3, -0.0, 0), (2, -(2.0**-127), 0), (3, -(2.0**-126), 0x80000000), (3, 2.0**-126, 0)],
)
def test_output_modifier_of_what_is_or_becomes_zero(omod: int, value: float, want: int) -> None:
    got = run("v_mul_f32", {"omod": omod}, row("f32", [value]), row("f32", [1.0]), mode=OMOD_MODE)
    assert got.view(np.uint32).item() == want


@pytest.mark.parametrize("value", [0x80FFFFFF, 0x80800000])
def test_halving_does_not_round_up_to_the_smallest_normal_number(value: int) -> None:
    x = np.array([[value]], np.uint32).view(np.float32)
    assert run("v_mul_f32", {"omod": 3}, x, row("f32", [1.0]), mode=OMOD_MODE).view(np.uint32).item() == 0x80000000


@pytest.mark.parametrize(("omod", "value", "want"), [(1, 3.0, 6.0), (3, 2.0**-126, 0.0), (2, 2.0**-127, 0.0)])
def test_gfx12_scales_results_in_every_mode(omod: int, value: float, want: float) -> None:
    mode = FloatMode.from_bits(GFX12.mode_always | 0xF0)  # denormals kept
    assert run("v_mul_f32", {"omod": omod}, row("f32", [value]), row("f32", [1.0]), mode=mode).item() == want


def test_clamp_comes_after_the_output_modifier() -> None:
    got = run("v_mul_f32", {"omod": 3, "clamp": 1}, row("f32", [1.5]), row("f32", [1.0]), mode=OMOD_MODE)
    assert got.item() == 0.75


def test_integer_results_are_not_scaled_and_saturate_with_clamp() -> None:
    x = np.array([[0xFFFFFFFF]], np.uint32)
    assert run("v_add_nc_u32", {"omod": 1}, x, x, mode=OMOD_MODE, kind="u32").item() == 0xFFFFFFFE
    assert run("v_add_nc_u32", {"clamp": 1}, x, x, kind="u32").item() == 0xFFFFFFFF


CARRIES = [
    ("v_add_co_u32", (0xFFFFFFFF, 2), 0xFFFFFFFF, True),
    ("v_add_co_u32", (5, 2), 7, False),
    ("v_sub_co_u32", (1, 2), 0, True),
    ("v_subrev_co_u32", (2, 1), 0, True),
    ("v_subrev_co_u32", (1, 2), 1, False),
    ("v_add_co_ci_u32", (0xFFFFFFFF, 0, True), 0xFFFFFFFF, True),
    ("v_add_co_ci_u32", (0xFFFFFFFE, 0, True), 0xFFFFFFFF, False),
    ("v_sub_co_ci_u32", (3, 3, True), 0, True),
    ("v_subrev_co_ci_u32", (3, 4, True), 0, False),
]


@pytest.mark.parametrize(("mnemonic", "sources", "result", "carry"), CARRIES)
def test_sums_with_a_carry_saturate_and_still_tell_the_carry(
    mnemonic: str, sources: tuple[int, ...], result: int, carry: bool
) -> None:
    values = [np.array([[v]], bool if isinstance(v, bool) else np.uint32) for v in sources]
    total, flag = run(mnemonic, {"clamp": 1}, *values, kind="u32")
    assert (total.item(), flag.item()) == (result, carry)


@pytest.mark.parametrize(
    ("mnemonic", "sources", "result"),
    [
        ("v_mad_u64_u32", (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF), 0xFFFFFFFFFFFFFFFF),
        ("v_mad_u64_u32", (3, 5, 7), 22),
        ("v_mad_i64_i32", (0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFFFFFFFFFF), 0x7FFFFFFFFFFFFFFF),
        ("v_mad_i64_i32", (0x80000000, 0x7FFFFFFF, 0x8000000000000000), -0x8000000000000000),
        ("v_mad_i64_i32", (0xFFFFFFFF, 5, 2), -3),
    ],
)
def test_wide_multiply_add_saturates(mnemonic: str, sources: tuple[int, int, int], result: int) -> None:
    x, y, z = (np.array([[v]], dtype) for v, dtype in zip(sources, ("u4", "u4", "u8"), strict=True))
    total, _ = run(mnemonic, {"clamp": 1}, x, y, z, kind=mnemonic[6:9])
    assert total.item() == result


def test_clamp_of_a_float_dot_product_changes_nothing() -> None:
    two, zero = np.array([[0x00004000]], np.uint32), row("f32", [0.0])
    fields = {"clamp": 1, "opsel_hi": 7}
    assert run("v_dot2_f32_f16", fields, two, two, zero, fields).item() == 4.0


def test_clamp_of_a_compare_or_a_bit_operation_changes_nothing() -> None:
    x, y = row("f32", [2.0]), row("f32", [3.0])
    assert run("v_cmp_lt_f32", {"clamp": 1}, x, y, kind="mask").item() is True
    word = np.array([[5]], np.uint32)
    assert run("v_and_b32", {"clamp": 1}, word, word, kind="b32").item() == 5


def test_only_the_first_result_is_modified() -> None:
    tiny, huge = row("f32", [3.0]), row("f32", [2.0**-120])
    result, flag = run("v_div_scale_f32", {"clamp": 1}, tiny, huge, tiny)
    assert result.item() == 1.0
    assert flag.dtype == np.bool_
    assert flag.item()


@pytest.mark.parametrize("width", [16, 32, 64])
def test_input_modifiers_touch_only_the_sign_bit_of_any_type(width: int) -> None:
    a, sign = NumpyAlgebra(), 1 << (width - 1)
    pattern = (0x7FF0_0000_0000_0001 >> (64 - width)) | sign | 1
    x = np.array([[pattern]], f"u{width // 8}")

    def bits(*, neg: bool, magnitude: bool) -> int:
        return modify_input(a, x, width, neg=neg, magnitude=magnitude).view(x.dtype).item()

    assert bits(neg=True, magnitude=False) == pattern ^ sign
    assert bits(neg=False, magnitude=True) == pattern & ~sign
    assert bits(neg=True, magnitude=True) == pattern | sign
    assert bits(neg=False, magnitude=False) == pattern
