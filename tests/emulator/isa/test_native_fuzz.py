"""Random programs leave the same registers, memory and faults behind on both engines."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from conftest import Bench
from test_interpreter_fuzz import DATA_BYTES, S_ENDPGM, program

from amdrv.emulator.isa.dispatch import Dispatch, ShaderFault
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.emulator.isa.native.engine import Translator
from amdrv.emulator.isa.table import generation_of, load_table

LOADS = {
    "gfx1100": """
    dc5e0200 04000001  global_load_b128 v[4:7], v1, s[0:1] offset:512
    dc5e0400 08000001  global_load_b128 v[8:11], v1, s[0:1] offset:1024
    bf8903f7           s_waitcnt vmcnt(0)""",
    "gfx1201": """
    ee05c000 00000004 00020001  global_load_b128 v[4:7], v1, s[0:1] offset:512
    ee05c000 00000008 00040001  global_load_b128 v[8:11], v1, s[0:1] offset:1024
    bfc00000           s_wait_loadcnt 0x0""",
}
PROGRAMS = 60
MODES = 0xFF << 12 | 1 << 21 | 1 << 23 | 1 << 26  # FLOAT_MODE, DX10_CLAMP, IEEE and FP16_OVFL of COMPUTE_PGM_RSRC1
OUT = 0x8000  # where in the data the registers go
# s[40:41] = s[0:1]; v4..v11 random, v16 and v17 from them, v2 and v20 the lane number as float, v21 = 1.0.
PROLOGUE = """
    bea80100           s_mov_b64 s[40:41], s[0:1]
    30020083           v_lshlrev_b32_e32 v1, 3, v0
    7e040d00           v_cvt_f32_u32_e32 v2, v0
    {loads}
    7e200304           v_mov_b32_e32 v16, v4
    7e220309           v_mov_b32_e32 v17, v9
    7e280302           v_mov_b32_e32 v20, v2
    7e2a02f2           v_mov_b32_e32 v21, 1.0
"""


def words(listing: str) -> list[int]:
    return [int(word, 16) for line in listing.strip().splitlines() for word in line.strip().split("  ")[0].split()]


def store(arch: str, register: int, offset: int) -> list[int]:
    """global_store_b32 v31, register, s[40:41] offset"""
    if arch == "gfx1100":
        return [0xDC6A0000 | offset, 40 << 16 | register << 8 | 31]
    return [0xEE068028, register << 23, offset << 8 | 31]


def epilogue(lanes: int, arch: str) -> list[int]:
    """Store v0..v30, s4..s30, VCC and M0 to s[40:41] + OUT, a row of all lanes each."""
    code = [0xBEFE01C1, 0xD71F001F, 0x000100C1]  # s_mov_b64 exec, -1; v_mbcnt_lo_u32_b32 v31, -1, 0
    if lanes == 64:
        code += [0xD720001F, 0x00023EC1]  # v_mbcnt_hi_u32_b32 v31, -1, v31
    code += [0x303E3E82]  # v_lshlrev_b32 v31, 2, v31
    code += [0x8028FF28, OUT, 0x82298029]  # s_add_u32 s40, s40, OUT; s_addc_u32 s41, s41, 0
    kept = [([], register) for register in range(31)]
    kept += [([0x7E400200 | scalar], 32) for scalar in (*range(4, 31), 106, 107, 125)]  # v_mov_b32 v32, scalar
    for number, (moves, register) in enumerate(kept):
        code += [*moves, *store(arch, register, number % 8 * 256)]
        if number % 8 == 7:
            code += [0x8028FF28, 0x800, 0x82298029]
    return [*code, S_ENDPGM]


def run(bench: Bench, dispatch: Dispatch) -> object:
    slices = iter(range(20))
    try:
        stats = bench.engine.run(
            dispatch,
            bench.memory,
            cancelled=lambda: next(slices, None) is None,
            realtime=lambda: 1,
            interrupt=lambda value: None,
        )
    except ShaderFault as fault:
        return fault.kind, fault.detail, fault.pc, fault.mnemonic, fault.lane, fault.va, fault.access
    # An endless loop is cancelled at different places, and shows only that it is endless.
    return stats if next(slices, None) is not None else "endless"


@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("lanes", [32, 64])
def test_random_programs_end_alike(translator, seed: int, lanes: int) -> None:
    compare("gfx1100", translator, seed, lanes)


@pytest.mark.parametrize(("seed", "lanes"), [(1, 32), (2, 64), (3, 32)])
def test_random_programs_of_gfx12_end_alike(gfx1201_translator, seed: int, lanes: int) -> None:
    compare("gfx1201", gfx1201_translator, seed, lanes)


def compare(arch: str, translator: Translator, seed: int, lanes: int) -> None:
    rng = random.Random(seed)
    table = load_table(generation_of(arch))
    benches = Bench(engine=Interpreter(arch)), Bench(engine=translator)
    prologue = words(PROLOGUE.format(loads=LOADS[arch].strip()))
    for bench in benches:
        data, code = bench.memory.allocate(DATA_BYTES), bench.memory.allocate(4096)
    translator.interpreted = 0
    initial = rng.randbytes(DATA_BYTES)
    ends = 0
    for _ in range(PROGRAMS):
        body = [word for word in program(rng, table) if word != S_ENDPGM]
        whole = prologue + body + epilogue(lanes, arch)
        dispatch = Dispatch(
            pc=code,
            rsrc1=(3 if lanes == 32 else 11) | rng.getrandbits(32) & MODES,
            rsrc2=1 | 16 << 1 | 2 << 15,
            rsrc3=0,
            user_data=(data & 0xFFFFFFFF, data >> 32) * 4 + tuple(rng.choice((0, 4, 0x3F80_1234)) for _ in range(8)),
            initiator=1 | (1 << 15 if lanes == 32 else 0),
            start=(0, 0, 0),
            groups=(1, 1, 1),
            threads=(rng.choice((lanes, 20)), 1, 1),
            tmpring_size=64 | 4 << 12,
            scratch_base=data,
            shared_base=1 << 48,
            private_base=2 << 48,
        )
        results = []
        for bench in benches:
            bench.memory.write(data, initial)
            bench.memory.write(code, struct.pack(f"<{len(whole)}I", *whole) + bytes(64))
            bench.engine.invalidate_code()
            results.append(run(bench, dispatch))
        shown = " ".join(f"{word:08x}" for word in body)
        assert results[0] == results[1], shown
        if results[0] != "endless":
            memories = [bench.read(data, "u4", DATA_BYTES // 4) for bench in benches]
            np.testing.assert_array_equal(memories[0], memories[1], shown)
            ends += 1
    assert ends > PROGRAMS // 2
    assert not translator.interpreted
