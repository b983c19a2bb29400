"""The shape and timing of a real driver load, and register addresses that were seen on real cards.

The load is that of a Vega 10 by the Linux kernel (gem5-resources src/gpu-fs/vega_mmio.log): which values its mailboxes
take one after another, and how long each takes. The same mailboxes of the emulated card are driven by this project's
driver and watched in a trace; what they answer must be the same sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from amdrv import emulator
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import Card
from amdrv.emulator.trace import Entry
from amdrv.facts.mailboxes import READY
from amdrv.facts.psp import ControlCommand
from amdrv.gpu import Gpu
from amdrv.ioctl import connect
from amdrv.registers import RegisterMap

numbers = itertools.count(7700)
MS = 1_000_000
SYSDRV, SOSDRV = 0x10000, 0x20000


@pytest.fixture(scope="module")
def load() -> Iterator[tuple[Card, list[Entry]]]:
    """A cold start, traced."""
    name = f"emu:gfx1100#{next(numbers)}"
    card = emulator.card(name, vram_bytes=1 << 30)
    card.trace.start()
    Gpu.open(connect(name)).close()
    yield card, card.trace.stop()
    emulator.unplug(name)


def accesses(load: tuple[Card, list[Entry]], register: str) -> list[Entry]:
    card, entries = load
    address = card.registers.named(register).address
    return [entry for entry in entries if entry.space == "register" and entry.offset == address]


def test_bootloader_takes_a_stage_and_is_ready_with_exactly_its_ready_value_within_20_ms(
    load: tuple[Card, list[Entry]],
) -> None:
    mailbox = accesses(load, "MP0.MP0_SMN_C2PMSG_35")
    (at,) = [number for number, entry in enumerate(mailbox) if entry.is_write and entry.value == SYSDRV]
    assert mailbox[at - 1].value == READY  # before, too
    ready = next(entry for entry in mailbox[at + 1 :] if entry.value & READY)
    assert ready.value == READY
    assert 19 * MS < ready.time_ns - mailbox[at].time_ns < 21 * MS


def test_secure_os_changes_its_sign_of_life_from_1_to_2_after_108_ms() -> None:
    timings = CHIPS["gfx1100"].timings
    assert (timings.sos_ready, timings.bootloader_stage) == (pytest.approx(0.108), pytest.approx(0.0199))


def test_secure_os_of_the_driver_s_own_load_lives_when_that_of_the_trace_does(load: tuple[Card, list[Entry]]) -> None:
    started = next(e for e in accesses(load, "MP0.MP0_SMN_C2PMSG_35") if e.is_write and e.value == SOSDRV)
    signs = [e for e in accesses(load, "MP0.MP0_SMN_C2PMSG_81") if e.time_ns > started.time_ns]
    values = [value for value, _ in itertools.groupby(entry.value for entry in signs)]
    assert values[0] == 0 and values == sorted(values) and values[-1] in (1, 2)
    alive = next(entry for entry in signs if entry.value == values[-1])
    assert alive.time_ns - started.time_ns < 110 * MS


def test_ring_control_is_answered_with_the_command_and_bit_31(load: tuple[Card, list[Entry]]) -> None:
    control = accesses(load, "MP0.MP0_SMN_C2PMSG_64")
    (created,) = [n for n, e in enumerate(control) if e.is_write and e.value == ControlCommand.INIT_GPCOM_RING]
    assert next(entry.value for entry in control[created + 1 :] if entry.value & READY) == 0x8002_0000


def test_control_command_0x80000_is_answered_as_in_the_trace(load: tuple[Card, list[Entry]]) -> None:
    card, _ = load
    control = card.registers.named("MP0.MP0_SMN_C2PMSG_64").address
    card.write_register(control, 0x80000)
    card.sleep(0.02)
    assert card.read_register(control) == 0x8008_0000


def test_every_ring_frame_moves_the_write_pointer_by_16_dwords(load: tuple[Card, list[Entry]]) -> None:
    pointers = [entry.value for entry in accesses(load, "MP0.MP0_SMN_C2PMSG_67") if entry.is_write]
    assert len(pointers) > 13  # the trace has 13 submissions; this chip has more images
    assert all((after - before) % 1024 == 16 for before, after in itertools.pairwise(pointers))


def test_smu_answers_the_median_message_in_18_us(load: tuple[Card, list[Entry]]) -> None:
    card, entries = load
    message, response = (card.registers.named(f"MP1.MP1_SMN_C2PMSG_{number}").address for number in (66, 90))
    took = []
    for number, entry in enumerate(entries):
        if entry.is_write and entry.offset == message:
            answer = next(e for e in entries[number:] if not e.is_write and e.offset == response and e.value)
            took.append((answer.time_ns - entry.time_ns) / 1000)
    took.sort()
    assert len(took) >= 4
    assert took[0] >= 18 and took[len(took) // 2] < 22  # the polls themselves cost


def test_responses_are_cleared_before_a_message_and_one_afterwards(load: tuple[Card, list[Entry]]) -> None:
    responses = accesses(load, "MP1.MP1_SMN_C2PMSG_90")
    assert {entry.value for entry in responses if entry.is_write} == {0}
    assert {entry.value for entry in responses if not entry.is_write} <= {0, 1}


# Dword addresses: public tests of drivers that run on such cards, and AMD umr's dumps (hardware notes).
ADDRESSES = {
    "GC.GRBM_GFX_CNTL": 0xA000 + 0x900,
    "OSSSYS.IH_RB_CNTL": 0x10A0 + 0x80,
    "MP1.MP1_SMN_C2PMSG_90": 0x16000 + 0x29A,
    "NBIO.BIF_BX_PF0_RSMU_INDEX": 0x14,
    "HDP.HDP_MEM_POWER_CTRL": 0xF20 + 0xD4,
    "GC.CC_GC_SHADER_ARRAY_CONFIG": 0x1260 + 0x100F,
    "NBIO.RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE": 0xDE3,
    "MP0.MP0_SMN_C2PMSG_33": 0x16061,
}


@pytest.mark.parametrize(("name", "dword"), ADDRESSES.items(), ids=ADDRESSES)
def test_register_is_where_real_cards_have_it(name: str, dword: int) -> None:
    chip = CHIPS["gfx1100"]
    registers = RegisterMap(chip.bases, chip.versions)
    assert registers.named(name).dword == dword
    assert registers.at(4 * dword) is not None
