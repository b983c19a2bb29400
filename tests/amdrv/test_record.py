"""Contract of the boot record and the boot report."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.boot.planner import PlanKind
from amdrv.boot.record import RECORD_BYTES, BootRecord, pack, state_word, unpack
from amdrv.boot.report import BootReport, Step
from amdrv.errors import InvalidArgument, MalformedInput
from amdrv.memory.layout import BOOT_RECORD

word = st.integers(0, 0xFFFFFFFF)
records = st.builds(
    BootRecord,
    nonce=st.integers(1, 0xFFFFFFFF),
    firmware_digest=st.binary(min_size=32, max_size=32),
    map_digest=st.binary(min_size=32, max_size=32),
    vram_bytes=st.integers(0, (1 << 64) - 1),
    tmr_bytes=st.integers(0, (1 << 64) - 1),
    compute_units=word,
    smu_version=word,
    layout_version=word,
)
RECORD = BootRecord(7, bytes(32), bytes(range(32)), 1 << 30, 1 << 24, 96, 0x4E8700)


@given(records)
def test_record_comes_back_as_it_was_stored(record: BootRecord) -> None:
    assert unpack(pack(record) + bytes(100)) == record


def test_record_fits_its_place() -> None:
    assert len(pack(RECORD)) == RECORD_BYTES <= BOOT_RECORD.size_bytes


@given(st.integers(0, RECORD_BYTES * 8 - 1))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    data = bytearray(pack(RECORD))
    data[bit // 8] ^= 1 << bit % 8
    if bit < 64:  # in the magic number: then there is no record
        assert unpack(bytes(data)) is None
    else:
        with pytest.raises(MalformedInput):
            unpack(bytes(data))


@pytest.mark.parametrize("filler", [0x00, 0xFF])
def test_memory_without_a_record_has_none(filler: int) -> None:
    assert unpack(bytes([filler]) * RECORD_BYTES) is None


def test_short_data_is_malformed() -> None:
    with pytest.raises(MalformedInput):
        unpack(pack(RECORD)[:-1])


@pytest.mark.parametrize("nonce", [0, 1 << 32])
def test_nonce_must_be_a_register_value_other_than_zero(nonce: int) -> None:
    with pytest.raises(InvalidArgument):
        BootRecord(nonce, bytes(32), bytes(32), 0, 0, 0, 0)


@given(st.integers(1, 0xFFFFFFFF), st.integers(1, 0xFFFFFFFF))
def test_state_belongs_to_one_nonce_and_is_one_of_two(nonce: int, other: int) -> None:
    assert state_word(nonce, clean=True) != state_word(nonce, clean=False)
    assert (state_word(nonce, clean=True) == state_word(other, clean=True)) == (nonce == other)


def test_report_adds_its_steps_up() -> None:
    report = BootReport(PlanKind.WARM, "all is well", (Step("one", 0.5, 0.001, 3, 4), Step("two", 0.25, 0.002, 10, 20)))
    assert (report.kind, report.reads, report.writes, report.seconds) == ("warm", 13, 24, 0.75)
    assert report.virtual_s == pytest.approx(0.003)
    longer = report.with_step(Step("queue", 0.0, 0.0, 1, 1))
    assert (longer.reads, longer.writes, len(longer.steps)) == (14, 25, 3)
    assert "all is well" in str(longer) and "queue" in str(longer)


@pytest.mark.parametrize("kind", [PlanKind.FULL, PlanKind.RESET_THEN_FULL])
def test_start_that_loads_firmware_is_cold(kind: PlanKind) -> None:
    report = BootReport(kind, "", (Step("one", 0.1, None, 1, 1),))
    assert report.kind == "cold"
    assert report.virtual_s is None
