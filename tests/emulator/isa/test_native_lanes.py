"""Compiled instructions that move values between lanes and registers do what the interpreter does.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

import numpy as np
import pytest
from native_bench import LDS_BYTES, VGPRS, Bench, Wave, library_of, masks
from native_harness import evaluate

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dpp import exchange_of
from amdrv.emulator.isa.instruction import Dpp
from amdrv.emulator.isa.native import atomics, lane_exchange, tlb
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.dpp import dpp_exchange
from amdrv.emulator.isa.native.frame import EXEC_LO, Exits, Frame, Shape
from amdrv.emulator.isa.native.layout import Detail

LISTING = """
    d7600004 00010b01  v_readlane_b32 s4, v1, 5
    d7600004 00000b01  v_readlane_b32 s4, v1, s5
    d760006a 0000fb01  v_readlane_b32 vcc_lo, v1, m0
    7e080501  v_readfirstlane_b32 s4, v1
    d7610002 00010e04  v_writelane_b32 v2, s4, 7
    d7610002 00000a89  v_writelane_b32 v2, 9, s5
    d65b0002 00140901  v_permlane16_b32 v2, v1, s4, s5
    d65b0002 03050701  v_permlane16_b32 v2, v1, 3, -1
    d65b0802 00140901  v_permlane16_b32 v2, v1, s4, s5 op_sel:[1,0]
    d65b1002 00140901  v_permlane16_b32 v2, v1, s4, s5 op_sel:[0,1]
    d65c0002 00140901  v_permlanex16_b32 v2, v1, s4, s5
    d65c0002 03058301  v_permlanex16_b32 v2, v1, -1, -1
    d65c1002 02150101  v_permlanex16_b32 v2, v1, 0, 5 op_sel:[0,1]
    7e04cf01  v_permlane64_b32 v2, v1
    d8d48087 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(QUAD_PERM, 3,1,0,2)
    d8d4401f 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(SWAP, 16)
    d8d4c0a3 02000001  ds_swizzle_b32 v2, v1 offset:0xC0A3
    d8d4e005 02000001  ds_swizzle_b32 v2, v1 offset:0xE005
    dacc0000 02000103  ds_bpermute_b32 v2, v3, v1
    dacc000c 02000103  ds_bpermute_b32 v2, v3, v1 offset:12
    dac80008 02000103  ds_permute_b32 v2, v3, v1 offset:8
    d8f80004 02000000  ds_append v2 offset:4
    d8f40000 02000000  ds_consume v2
    7e048703  v_movrels_b32 v2, v3
    7e048503  v_movreld_b32 v2, v3
    7e048406  v_movreld_b32 v2, s6
    7e048903  v_movrelsd_b32 v2, v3
    7e049103  v_movrelsd_2_b32 v2, v3
    7e04d103  v_swaprel_b32 v2, v3
    7e0486fa ff00b103  v_movrels_b32 v2, v3 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
    7e0484fa f7091103  v_movreld_b32 v2, v3 row_shr:1 row_mask:0xf bank_mask:0x7 bound_ctrl:1
    7e0488e9 05397703  v_movrelsd_b32 v2, v3 dpp8:[7,6,5,4,3,2,1,0]
    7e0490fa 5f052303  v_movrelsd_2_b32 v2, v3 row_ror:3 row_mask:0x5 bank_mask:0xf fi:1
    be844009  s_movrels_b32 s4, s9
    be84410a  s_movrels_b64 s[4:5], s[10:11]
    be864207  s_movreld_b32 s6, s7
    be86430a  s_movreld_b64 s[6:7], s[10:11]
    be864407  s_movrelsd_2_b32 s6, s7
    befe4009  s_movrels_b32 exec_lo, s9
"""
M0 = 125


@pytest.fixture(scope="module", params=[32, 64])
def bench(request: pytest.FixtureRequest) -> Bench:
    lanes = request.param
    library = library_of(tlb, atomics, lane_exchange, lanes=lanes)
    return Bench(lanes, lane_exchange.translate, library, LISTING, level=int(lanes == 32))


def m0_values(rng: np.random.Generator, name: str) -> list[int]:
    """Values of M0 that an instruction may care about."""
    if "rel" in name:
        small = [int(value) for value in rng.integers(0, VGPRS + 4, 2)]
        return [0, small[0], small[0] << 16 | small[1], 90, 0xFFFF_FFFF]
    if name.startswith(("ds_append", "ds_consume")):
        return [0, 4 * int(rng.integers(0, LDS_BYTES // 4)), LDS_BYTES - 4, 0xFFFC, 0x1234_0008]
    return [int(rng.integers(0, 1 << 32))]


@pytest.mark.parametrize("name", [line.strip().partition("  ")[2] for line in LISTING.strip().splitlines()])
def test_instruction_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    for mask in masks(rng, bench.lanes):
        for m0 in m0_values(rng, name):
            wave = Wave.random(rng, bench.lanes).set_exec(mask)
            wave.sgpr[M0] = m0
            assert bench.check(name, wave, (f"exec {mask:#x}, m0 {m0:#x}")) is None


def test_append_to_a_misaligned_counter_faults(bench: Bench) -> None:
    wave = Wave.random(np.random.default_rng(3), bench.lanes)
    wave.sgpr[M0] = 6
    fault = bench.check("ds_append v2 offset:4", wave)
    assert fault is not None
    assert (fault.detail, fault.va) == (Detail.MISALIGNED_ATOMIC, 10)
    assert bench.check("ds_append v2 offset:4", wave.set_exec(0)) is None


CONTROLS = [
    Dpp("dpp8", 0o70615243),
    Dpp("dpp8", 0o01234567, fetch_inactive=True),
    Dpp("dpp16", 0x1B),
    Dpp("dpp16", 0x103),
    Dpp("dpp16", 0x105, bound_ctrl=True),
    Dpp("dpp16", 0x111, row_mask=0xA),
    Dpp("dpp16", 0x118, bank_mask=0x3, bound_ctrl=True),
    Dpp("dpp16", 0x125, fetch_inactive=True),
    Dpp("dpp16", 0x140, row_mask=0x5, bank_mask=0xC),
    Dpp("dpp16", 0x141),
    Dpp("dpp16", 0x159, fetch_inactive=True),
    Dpp("dpp16", 0x166, bound_ctrl=True),
]


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("full", [False, True])
def test_dpp_exchange_agrees_with_the_interpreter(lanes: int, full: bool) -> None:
    """Of the value only lanes that write matter."""

    def body(builder: Builder, value: Val, mask: Val) -> list[Val]:
        for code in (EXEC_LO, EXEC_LO + 1):
            builder.do(f"%s{code} = alloca i32")
        frame = Frame(builder, Shape(lanes, 8), Exits(), full=full)
        if not full:
            frame.set_mask(EXEC_LO, mask)
        results = []
        for control in CONTROLS:
            moved, writes = dpp_exchange(frame, control, value)
            results += [moved, builder.spread(writes)]
        return results

    rng = np.random.default_rng(lanes)
    chosen = [(1 << lanes) - 1] if full else masks(rng, lanes)
    values = rng.integers(0, 1 << 32, (len(chosen), lanes), np.uint32)
    active = np.array([[mask >> lane & 1 for lane in range(lanes)] for mask in chosen], bool)
    bits = np.array(chosen, np.uint32 if lanes == 32 else np.uint64)[:, None]
    results = evaluate(lanes, body, [values, bits])
    for number, control in enumerate(CONTROLS):
        expected, writes = exchange_of(control, lanes).apply(_group(active, full), values)
        writes = np.broadcast_to(writes, active.shape)
        np.testing.assert_array_equal(results[2 * number + 1], writes, err_msg=str(control))
        np.testing.assert_array_equal(results[2 * number][writes], expected[writes], err_msg=str(control))


def test_reserved_dpp_control_is_refused() -> None:
    frame = Frame(Builder(32), Shape(32, 8), Exits(), full=True)
    with pytest.raises(ValueError, match="reserved"):
        dpp_exchange(frame, Dpp("dpp16", 0x150 - 1), frame.builder.constant("u32", 1))


def test_lane_selectors_must_be_scalar() -> None:
    # v_readlane_b32 s4, v1, v5: llvm-mc encodes only scalar selectors, so src1 is made a VGPR by hand.
    instruction = Decoder("gfx1100").decode([0xD7600004, 0x00000101 | (256 + 5) << 9])
    frame = Frame(Builder(32), Shape(32, 8), Exits(), full=True)
    with pytest.raises(ValueError, match="vector register"):
        lane_exchange.translate(frame, instruction)


class _Lanes:
    """As much of a Group as DPP looks at."""

    def __init__(self, active: np.ndarray[tuple[int, int], np.dtype[np.bool_]], full: bool) -> None:
        self._active, self.count, self._full = active, len(active), full

    def lane_mask(self) -> object:
        return None if self._full else self._active


def _group(active: np.ndarray[tuple[int, int], np.dtype[np.bool_]], full: bool) -> _Lanes:
    return _Lanes(active, full)
