"""What a trace holds, how it reads, and what can be done with a recording: keep, compare, replay."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amdrv
from amdrv import emulator
from amdrv.emulator import trace_file
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import Card
from amdrv.emulator.trace import HOST_SPACES, PACKET, SPIN_READS, Entry
from amdrv.emulator.trace_diff import diff
from amdrv.emulator.trace_file import MAGIC, load, save
from amdrv.emulator.trace_packets import describe_packet
from amdrv.emulator.trace_replay import replay
from amdrv.errors import InvalidArgument, MalformedInput
from amdrv.registers import RegisterMap

MIB = 1 << 20
MEMSIZE = 0x378C
STORE = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @store(ptr addrspace(1) %to) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %to.at = getelementptr i32, ptr addrspace(1) %to, i32 %i
  store i32 77, ptr addrspace(1) %to.at
  ret void
}
"""
numbers = itertools.count(7400)


@pytest.fixture
def card() -> Card:
    return Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)


@pytest.fixture
def plugged() -> Iterator[Card]:
    """A card that a driver can open."""
    name = f"emu:gfx1100#{next(numbers)}"
    yield emulator.card(name, vram_bytes=1024 * MIB)
    emulator.unplug(name)


def test_line_has_time_register_value_and_fields(card: Card) -> None:
    control = card.registers.gc.CP_MEC_RS64_CNTL
    card.trace.start()
    card.write_register(control.address, control.encode(MEC_HALT=1))
    card.read_config(4, 2)
    (first, second) = card.trace.text().splitlines()
    assert "us  GC.CP_MEC_RS64_CNTL" in first and "<- 0x40000000  {MEC_HALT=0x1}" in first
    assert "config+0x4 COMMAND" in second and "->" in second
    assert "{" not in card.trace.text(fields=False)


def test_moved_flush_register_has_its_name(card: Card) -> None:
    card.trace.start()
    card.write_register(0x7F000, 0)
    assert "HDP_MEM_COHERENCY_FLUSH_CNTL" in card.trace.text()


def test_packets_of_a_launch_are_there_with_registers_and_fields(plugged: Card) -> None:
    with amdrv.open(plugged.name) as dev:
        buffer = dev.array(np.zeros(32, np.int32))
        kernel = dev.load(amdrv.compile_llvm(STORE))["store"]
        plugged.trace.start()
        kernel.launch(1, 32, (buffer,)).wait()
        entries = plugged.trace.stop()
    packets = [entry for entry in entries if entry.space == PACKET]
    assert {tuple(entry.source.split()[:2]) for entry in packets} == {("pm4", "Mec")}
    text = plugged.trace.text()
    assert ":: ACQUIRE_MEM {" in text and "GL2_INV=0x1" in text
    assert ":: DISPATCH_DIRECT {DIM_X=0x1 DIM_Y=0x1 DIM_Z=0x1" in text
    assert "SET_SH_REG COMPUTE_PGM_LO=0x" in text
    assert [entry.space for entry in entries if entry.space in HOST_SPACES].count("doorbell") >= 1


def test_nothing_is_recorded_while_it_is_off(card: Card) -> None:
    card.read_register(MEMSIZE)
    assert card.trace.entries == []


# -- spinning ---------------------------------------------------------------------------------------------------------


def test_register_that_is_read_again_and_again_is_named_once(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "amdrv.emulator.trace"):
        for _ in range(SPIN_READS + 50):
            card.read_register(MEMSIZE)
    (record,) = caplog.records
    assert "RCC_CONFIG_MEMSIZE was read 200 times in a row and is still 0x40" in record.getMessage()
    assert list(card.spinning.spins.items()) == [("NBIO.RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE", SPIN_READS + 50)]


def test_reader_that_lets_time_pass_does_not_spin(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(SPIN_READS + 50):
        card.read_register(MEMSIZE)
        card.relax(1e-6)
    assert not card.spinning.spins
    assert not caplog.records


# -- files ------------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 2**64 - 1)
ENTRY = st.builds(
    Entry,
    st.integers(0, 2**60),
    st.sampled_from(trace_file.SPACES),
    st.booleans(),
    NUMBERS,
    st.sampled_from([1, 2, 4, 8, 4096]),
    NUMBERS,
    st.binary(max_size=64),
    st.sampled_from(["", "Mec me1 pipe0 queue0"]),
)


@settings(deadline=None)
@given(st.lists(ENTRY, max_size=20))
def test_file_gives_back_what_was_saved(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    entries.sort(key=lambda entry: entry.time_ns)
    path = tmp_path_factory.mktemp("trace") / "a.trace"
    save(path, entries, "gfx1100", 64 * MIB)
    recording = load(path)
    assert (recording.entries, recording.arch, recording.vram_bytes) == (entries, "gfx1100", 64 * MIB)


@given(st.binary(max_size=64), st.booleans())
def test_damaged_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, marked: bool) -> None:
    path = tmp_path_factory.mktemp("trace") / "a.trace"
    path.write_bytes(MAGIC * marked + data)
    with pytest.raises(MalformedInput, match=r"a\.trace"):
        load(path)


def test_file_cut_short_is_refused(card: Card, tmp_path: Path) -> None:
    card.trace.start()
    for _ in range(50):
        card.read_register(MEMSIZE)
    card.trace.save(tmp_path / "a.trace")
    whole = (tmp_path / "a.trace").read_bytes()
    assert len(whole) < 200
    for size in range(len(MAGIC), len(whole)):
        (tmp_path / "a.trace").write_bytes(whole[:size])
        with pytest.raises(MalformedInput):
            load(tmp_path / "a.trace")


# -- comparing --------------------------------------------------------------------------------------------------------


def read(time_ns: int, value: int) -> Entry:
    return Entry(time_ns, "register", False, MEMSIZE, 4, value)


def test_traces_that_differ_in_times_and_in_the_length_of_waits_are_alike(card: Card) -> None:
    first = [read(1, 0), read(2, 0), read(3, 1)]
    second = [read(10, 0), *(read(20 + n, 0) for n in range(50)), read(90, 1)]
    assert not list(diff(("a", first), ("b", second), card.registers))


def test_difference_is_shown_by_name(card: Card) -> None:
    lines = list(diff(("a", [read(1, 0x40)]), ("b", [read(1, 0x80)]), card.registers))
    assert lines[:2] == ["--- a", "+++ b"]
    assert any(line.startswith("-NBIO.RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE") and line.endswith("-> 0x40") for line in lines)
    assert any(line.startswith("+") and line.endswith("-> 0x80") for line in lines)


# -- replaying --------------------------------------------------------------------------------------------------------


def test_boot_and_launch_replay_to_a_new_card_with_the_same_answers_and_the_same_result(
    plugged: Card, tmp_path: Path
) -> None:
    plugged.trace.start(memory=True)
    with amdrv.open(plugged.name) as dev:
        buffer = dev.array(np.zeros(32, np.int32))
        dev.load(amdrv.compile_llvm(STORE))["store"].launch(1, 32, (buffer,)).wait()
        index = plugged.graphics_hub.look(0, buffer.va).delta + buffer.va
        plugged.trace.stop()
    plugged.trace.save(tmp_path / "boot.trace")
    recording = load(tmp_path / "boot.trace")
    again = Card("again", CHIPS["gfx1100"], vram_bytes=recording.vram_bytes)
    assert replay(recording.entries, again) == []
    assert np.frombuffer(again.vram_view(index, 128), np.int32).tolist() == [77] * 32


def test_replay_names_the_read_that_differs(card: Card) -> None:
    card.trace.start()
    card.read_register(MEMSIZE)
    entries = card.trace.stop()
    other = Card("other", CHIPS["gfx1100"], vram_bytes=128 * MIB)
    (mismatch,) = replay(entries, other)
    assert (mismatch.number, mismatch.entry.value, mismatch.value) == (0, 64, 128)


def test_replay_of_a_boot_with_damaged_firmware_in_memory_is_refused_by_the_card(plugged: Card) -> None:
    plugged.trace.start(memory=True)
    with amdrv.open(plugged.name):
        entries = plugged.trace.stop()
    damaged = [
        Entry(e.time_ns, e.space, e.is_write, e.offset, e.width, e.value, bytes(len(e.data)), e.source)
        if e.space == "vram" and len(e.data) > 4096
        else e
        for e in entries
    ]
    assert damaged != entries
    again = Card("again", CHIPS["gfx1100"], vram_bytes=1024 * MIB)
    assert replay(damaged, again)


def test_memory_of_a_relaxed_card_is_not_recorded(card: Card) -> None:
    card.relaxed = True
    with pytest.raises(InvalidArgument, match="relaxed"):
        card.trace.start(memory=True)


# -- packets of the other queues --------------------------------------------------------------------------------------


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


@pytest.mark.parametrize(
    ("language", "data", "expected"),
    [
        # SDMA_PKT_FENCE and SDMA_PKT_TRAP, as sdma_v6_0_ring_emit_fence writes them
        ("sdma", words(5, 0x1000, 0x80, 0x2A), "FENCE {op=0x5 addr=0x8000001000 data=0x2a}"),
        ("sdma", words(6, 7), "TRAP {op=0x6 int_context=0x7}"),
        ("sdma", words(0xEE, 1), "000000ee 00000001"),
        # The pitch of a rectangle has its place by version: ROCr's two packets.
        *(
            (language, words(0x401, 0, 0, 0, 7 << at, *[0] * 8), "COPY_LINEAR_SUBWIN {op=0x1 sub_op=0x4 src_pitch=0x7}")
            for language, at in (("sdma", 13), ("sdma7", 16))
        ),
        (
            "mes",
            words(0x1 | 11 << 4 | 64 << 12, *[0] * 63),
            "QUERY_SCHEDULER_STATUS {header_type=0x1 header_opcode=0xb header_dwsize=0x40}",
        ),
        ("aql", (3).to_bytes(2, "little") + bytes(62), "BARRIER_AND"),
        ("pm4", words(0xC0001000, 0), "NOP"),
        ("pm4", words(0x4000_0000), "40000000"),
        ("pm4", b"", ""),
        ("unheard of", words(1, 2), "00000001 00000002"),
    ],
)
def test_packet_is_said_in_the_words_of_its_queue(card: Card, language: str, data: bytes, expected: str) -> None:
    assert describe_packet(language, data, card.registers, fields=True) == expected


@given(st.sampled_from(["pm4", "sdma", "sdma7", "mes", "aql"]), st.binary(max_size=80))
def test_any_bytes_have_a_description(language: str, data: bytes) -> None:
    registers = RegisterMap(CHIPS["gfx1100"].bases, CHIPS["gfx1100"].versions)
    assert isinstance(describe_packet(language, data, registers, fields=True), str)
