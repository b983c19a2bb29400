"""Whatever bits are run, the outcome is an end or a ShaderFault: no other exception, no hang, no stray write."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest

from amdrv.emulator.isa.dispatch import Dispatch, ShaderFault
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.emulator.isa.table import IsaTable, generation_of, load_table

S_ENDPGM = 0xBFB00000
GRAPHICS = ("MIMG", "VIMAGE", "VSAMPLE", "EXP", "VINTERP", "LDSDIR")
DATA_BYTES = 1 << 16


def instruction(rng: random.Random, table: IsaTable) -> list[int]:
    """Words that match an encoding, with registers that a wave has more often than not."""
    encoding = rng.choice([spec for spec in table.encodings.values() if spec.name not in GRAPHICS])
    raw = encoding.value
    for name, low, mask in encoding.fields:
        value = rng.randint(0, mask)
        if name == "op" and table.ops[encoding.name]:
            value = rng.choice(list(table.ops[encoding.name]))
        elif mask >= 511 and name.startswith("src"):
            value = rng.choice((256 + rng.randint(0, 30), rng.randint(0, 20), rng.randint(128, 208), 106, 126, value))
        elif name.startswith(("vdst", "vsrc")):
            value = rng.randint(0, 30)
        elif name in ("sdst", "sdata"):
            value = rng.choice((rng.randint(0, 30), 106, 126, 124, 125))
        elif name == "srsrc" and mask > 31:
            value = 4 * rng.randint(0, 5)
        elif name == "saddr":
            value = rng.choice((124, 2, 4))
        raw |= (value & mask) << low
    return [raw >> 32 * word & 0xFFFFFFFF for word in range(encoding.dwords)]


def program(rng: random.Random, table: IsaTable) -> list[int]:
    if rng.random() < 0.15:
        return [rng.getrandbits(32) for _ in range(20)]
    return [word for _ in range(rng.randint(1, 8)) for word in instruction(rng, table)] + [S_ENDPGM]


@pytest.mark.parametrize("seed", range(6))
def test_random_code_ends_or_faults(compiling_bench: Any, seed: int) -> None:
    bench = compiling_bench
    rng = random.Random(seed)
    table = load_table(generation_of(bench.arch))
    data = bench.memory.allocate(DATA_BYTES)
    guard = bench.array(np.full(1024, 0xA5A5A5A5, np.uint32), writable=False)
    code = bench.memory.allocate(4096)
    outcomes: set[str] = set()
    for _ in range(400 if isinstance(bench.engine, Interpreter) else 60):  # compiling takes longer
        words = program(rng, table)
        bench.memory.write(code, struct.pack(f"<{len(words)}I", *words) + bytes(64))
        bench.engine.invalidate_code()
        pointer = (data & 0xFFFFFFFF, data >> 32)
        dispatch = Dispatch(
            pc=code,
            rsrc1=3 | rng.getrandbits(8) << 12 | rng.getrandbits(1) << 21 | rng.getrandbits(1) << 23,
            rsrc2=1 | 16 << 1 | rng.randint(0, 4) << 15,
            rsrc3=0,
            user_data=pointer * 4 + tuple(rng.choice((0, 4, rng.getrandbits(32))) for _ in range(8)),
            initiator=1 | rng.choice((0, 1 << 15)),
            start=(0, 0, 0),
            groups=(rng.choice((1, 3)), 1, 1),
            threads=(rng.choice((32, 40, 64)), 1, 1),
            tmpring_size=64 | 4 << 12,
            scratch_base=data,
            shared_base=1 << 48,
            private_base=2 << 48,
        )
        slices = iter(range(20))
        try:
            bench.engine.run(
                dispatch,
                bench.memory,
                cancelled=lambda slices=slices: next(slices, None) is None,
                realtime=lambda: 1,
                interrupt=lambda value: None,
            )
            outcomes.add("end")
        except ShaderFault as fault:
            assert fault.pc >= 0
            outcomes.add(fault.kind)
    assert {"end", "illegal instruction", "memory violation"} <= outcomes
    assert (bench.read(guard, "u4", 1024) == 0xA5A5A5A5).all()
