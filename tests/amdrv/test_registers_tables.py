"""Register tables: the text format, the committed tables as a whole, and the generator that writes them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.errors import MalformedInput, NotFound
from amdrv.registers import SOURCES, Field, RegisterTable

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted({table for source in SOURCES.values() for table in source.tables})


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_registers", ROOT / "tools" / "generate_registers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


def test_a_table_line_gives_place_reset_value_and_fields() -> None:
    table = RegisterTable("t", "# head\nA 1 2f0!8000 LOW:0:4 FLAG:31\nB 0 10\nC 0 11 =A\n")
    assert list(table) == ["A", "B", "C"]
    assert table.place("A") == (1, 0x2F0)
    assert table.reset_value("A") == 0x8000
    assert table.fields("A") == {"LOW": Field(0, 4), "FLAG": Field(31, 1)}
    assert (table.fields("B"), table.reset_value("B")) == ({}, 0)
    assert table.fields("C") == table.fields("A")


@pytest.mark.parametrize("line", ["A", "A x 10", "A 0 zz"])
def test_a_line_without_a_place_is_malformed(line: str) -> None:
    with pytest.raises(MalformedInput, match="place of A"):
        RegisterTable("t", line).place("A")


def test_a_reset_value_that_is_no_number_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="reset value of A"):
        RegisterTable("t", "A 0 10!zz").reset_value("A")


@pytest.mark.parametrize("fields", ["LOW", "LOW:x", "LOW:0:"])
def test_a_field_without_a_bit_is_malformed(fields: str) -> None:
    with pytest.raises(MalformedInput, match="fields of A"):
        RegisterTable("t", f"A 0 10 {fields}").fields("A")


def test_a_table_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match="gc_0_0_0"):
        RegisterTable.load("gc_0_0_0")


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_register_parses_and_its_fields_fit(name: str) -> None:
    table = RegisterTable.load(name)
    assert len(table) > 50
    for register in table:
        segment, offset = table.place(register)
        assert 0 <= segment <= 7 and 0 <= offset < 1 << 28
        assert all(field.width > 0 and field.lo + field.width <= 32 for field in table.fields(register).values())


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_table_says_where_it_comes_from(name: str) -> None:
    text = (ROOT / "amdrv" / "facts" / "registers" / f"{name}.txt").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert re.search(r"generate_registers\.py from linux-source-6\.12 6\.12\.\d+", head[1])
    assert f"{name}_offset.h" in head[2]


def test_every_committed_table_file_serves_some_block() -> None:
    files = {path.stem for path in (ROOT / "amdrv" / "facts" / "registers").glob("*.txt")}
    assert files == set(COMMITTED)


def test_the_generator_joins_places_and_fields() -> None:
    offsets = """
// addressBlock: gc_kept
#define regA                                    0x0010
#define regA_BASE_IDX                           1
#define regHOMELESS                             0x0011
#define ixINDEXED                               0x0012
// addressBlock: gc_epf0_vf3_dropped
#define regA_VF3                                0x0020
#define regA_VF3_BASE_IDX                       1
"""
    places, homeless = GENERATOR.parse_offsets(offsets, GENERATOR.FUNCTION_COPIES)
    assert [(place.name, place.segment, place.offset) for place in places] == [("A", 1, 0x10)]
    assert homeless == ["HOMELESS"]
    masks = "#define A__TOP_MASK 0xF0000000L\n#define A__ON__SHIFT 0x0\n#define A__ON_MASK 0x00000001L\n"
    assert GENERATOR.parse_fields(masks) == {"A": {"TOP": (28, 4), "ON": (0, 1)}}


def test_the_generator_refuses_a_mask_with_holes() -> None:
    with pytest.raises(SystemExit, match=r"A\.HOLED"):
        GENERATOR.parse_fields("#define A__HOLED_MASK 0x00000005L\n")


NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,12}", fullmatch=True)
FIELDS = st.dictionaries(
    NAMES, st.integers(0, 31).flatmap(lambda lo: st.tuples(st.just(lo), st.integers(1, 32 - lo))), max_size=4
)


@settings(max_examples=50)
@given(st.dictionaries(NAMES, st.tuples(st.integers(0, 5), st.integers(0, 0xFFFFFF), FIELDS), max_size=6), st.data())
def test_what_the_generator_writes_the_table_reads_back(
    registers: dict[str, tuple[int, int, dict[str, tuple[int, int]]]], data: st.DataObject
) -> None:
    places = [GENERATOR.Place(name, segment, offset) for name, (segment, offset, _) in registers.items()]
    fields = {name: fields for name, (_, _, fields) in registers.items()}
    resets = {name: data.draw(st.integers(0, 0xFFFFFFFF)) for name in registers}
    table = RegisterTable("t", "\n".join(GENERATOR.table_lines(places, fields, resets)))
    assert sorted(table) == sorted(registers)
    for name, (segment, offset, expected) in registers.items():
        assert table.place(name) == (segment, offset)
        assert table.reset_value(name) == resets[name]
        assert table.fields(name) == {field: Field(*bits) for field, bits in expected.items()}
