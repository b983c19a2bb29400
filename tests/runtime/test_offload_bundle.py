"""Offload bundles: choosing the right code object, and refusing damaged files."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import MalformedInput, Unsupported
from amdrv.runtime import code_object, offload_bundle, targets

HOST = ("host-x86_64-unknown-linux--", b"")


def bundle(*entries: tuple[str, bytes]) -> bytes:
    """A plain bundle as clang-offload-bundler lays it out (ClangOffloadBundler.rst, "Bundled Code Object Layout")."""
    table_bytes = sum(24 + len(name) for name, _ in entries)
    header, payload = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(entries)), b""
    start = 32 + table_bytes
    for name, data in entries:
        header += struct.pack("<QQQ", start + len(payload), len(data), len(name)) + name.encode()
        payload += data
    return header + payload


def compressed(plain: bytes, version: int, method: int) -> bytes:
    """A compressed bundle (OffloadBundler.cpp: RawCompressedBundleHeader)."""
    body = zlib.compress(plain) if method == 0 else zstandard.ZstdCompressor().compress(plain)
    digest = hashlib.md5(plain).digest()[:8]
    head = struct.pack("<4sHH", b"CCOB", version, method)
    if version == 1:
        return head + struct.pack("<I", len(plain)) + digest + body
    sizes = "<II" if version == 2 else "<QQ"
    total = len(head) + struct.calcsize(sizes) + 8 + len(body)
    return head + struct.pack(sizes, total, len(plain)) + digest + body


FOUR = bundle(
    HOST,
    ("hipv4-amdgcn-amd-amdhsa--gfx90a:xnack+", b"for gfx90a"),
    ("hipv4-amdgcn-amd-amdhsa--gfx11-generic", b"for any gfx11"),
    ("hipv4-amdgcn-amd-amdhsa--gfx1100", b"for gfx1100"),
)


def test_the_entry_for_the_processor_comes_before_a_generic_one() -> None:
    assert offload_bundle.select(FOUR, "gfx1100") == b"for gfx1100"
    assert offload_bundle.select(FOUR, "gfx1103") == b"for any gfx11"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_compressed_bundle_whose_hash_is_another_is_damaged(version: int) -> None:
    good = compressed(FOUR, version, 1)
    at = good.index(hashlib.md5(FOUR).digest()[:8])
    without = good[:at] + bytes(8) + good[at + 8 :]
    assert offload_bundle.decompress(good) == offload_bundle.decompress(without) == FOUR
    with pytest.raises(MalformedInput, match="damaged, its hash is"):
        offload_bundle.decompress(good[:at] + b"\x01" * 8 + good[at + 8 :])


def test_no_fitting_entry_names_what_there_is() -> None:
    with pytest.raises(Unsupported, match=r"gfx11-generic, gfx1100, gfx90a:xnack\+.*device is gfx942"):
        offload_bundle.select(FOUR, "gfx942")


@pytest.mark.parametrize("method", [0, 1])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_compressed_form_is_opened(version: int, method: int) -> None:
    assert offload_bundle.select(compressed(FOUR, version, method), "gfx1100") == b"for gfx1100"


def test_a_bundle_loads_like_the_object_inside(data: Path) -> None:
    code = (data / "saxpy_v6.hsaco").read_bytes()
    packed = compressed(bundle(HOST, ("hipv4-amdgcn-amd-amdhsa--gfx1100", code)), 3, 1)
    assert code_object.parse(packed, "gfx1100").kernels.keys() == code_object.parse(code, "gfx1100").kernels.keys()


def test_an_unpacked_size_that_is_wrong_is_malformed() -> None:
    packed = bytearray(compressed(FOUR, 2, 0))
    struct.pack_into("<I", packed, 12, len(FOUR) - 1)
    with pytest.raises(MalformedInput, match="header says"):
        offload_bundle.read(bytes(packed))


def test_an_unknown_compressed_version_is_unsupported() -> None:
    packed = bytearray(compressed(FOUR, 3, 1))
    struct.pack_into("<H", packed, 4, 9)
    with pytest.raises(Unsupported, match="version 9"):
        offload_bundle.read(bytes(packed))


def test_damaged_compressed_data_is_malformed() -> None:
    for method in (0, 1):
        packed = compressed(FOUR, 3, method)
        with pytest.raises(MalformedInput):
            offload_bundle.read(packed[:-20] + bytes(20))


@given(st.integers(0, len(FOUR) - 1))
def test_truncation_is_refused_or_leaves_a_shorter_payload_out(size: int) -> None:
    with pytest.raises(MalformedInput):
        offload_bundle.read(FOUR[:size])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_behind_the_magic_are_refused(tail: bytes) -> None:
    for magic in (offload_bundle.PLAIN_MAGIC, offload_bundle.COMPRESSED_MAGIC):
        try:
            offload_bundle.select(magic + tail, "gfx1100")
        except (MalformedInput, Unsupported):
            continue
        pytest.fail("nothing in these bytes is code for gfx1100")


@pytest.mark.parametrize(
    ("text", "arch", "runs"),
    [
        ("gfx1100", "gfx1100", True),
        ("gfx1100", "gfx1101", False),
        ("gfx11-generic", "gfx1151", True),
        ("gfx11-generic", "gfx1200", False),
        ("gfx90a:sramecc+:xnack-", "gfx90a", True),
        ("gfx1100:xnack+", "gfx1100", False),
    ],
)
def test_target_ids_say_where_they_run(text: str, arch: str, runs: bool) -> None:
    target = targets.from_text(text)
    assert str(target) == text
    assert target.runs_on(arch) is runs


def test_an_unknown_target_feature_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="turbo"):
        targets.from_text("gfx1100:turbo+")


@pytest.mark.parametrize(
    ("flags", "version", "text"),
    [
        (0x41, 6, "gfx1100"),
        (0x3F | 0x300 | 0x800, 4, "gfx90a:sramecc-:xnack+"),
        (0x3F | 0x100 | 0x400, 5, "gfx90a"),
        (0x3F | 0x100, 3, "gfx90a:sramecc-:xnack+"),
        (0x54 | 1 << 24, 6, "gfx11-generic"),
    ],
)
def test_header_flags_are_read_by_version(flags: int, version: int, text: str) -> None:
    assert str(targets.from_flags(flags, version)) == text


# -- libraries -----------------------------------------------------------------------------------------------------


def host_library(section: str, contents: bytes) -> bytes:
    """A host ELF file with one section beside the table of names (ELF gABI)."""
    names = b"\0" + section.encode() + b"\0.shstrtab\0"
    start = 64
    names_at = start + len(contents)
    table_at = names_at + len(names) + -(names_at + len(names)) % 8

    def header(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    table = bytes(64) + header(1, 1, start, len(contents)) + header(len(section) + 2, 3, names_at, len(names))
    return (elf + contents + names).ljust(table_at, b"\0") + table


@pytest.mark.parametrize("version", [2, 3])
def test_a_librarys_bundles_are_found_one_behind_the_other(version: int) -> None:
    other = bundle(HOST, ("hipv4-amdgcn-amd-amdhsa--gfx1100", b"CCOB in the code does not matter"))
    packed = compressed(FOUR, version, 1)
    contents = packed.ljust(4096, b"\0") + other.ljust(4096, b"\0") + packed
    found = offload_bundle.in_library(host_library(".hip_fatbin", contents))
    assert found == [packed, other, packed]
    assert [offload_bundle.select(one, "gfx1100") for one in found] == [
        b"for gfx1100",
        b"CCOB in the code does not matter",
        b"for gfx1100",
    ]


def test_files_without_a_fat_binary_hold_no_bundles(data: Path) -> None:
    assert offload_bundle.in_library(FOUR) == []
    assert offload_bundle.in_library(host_library(".data", FOUR)) == []
    assert offload_bundle.in_library((data / "saxpy_v6.hsaco").read_bytes()) == []


def test_a_damaged_library_is_refused() -> None:
    library = host_library(".hip_fatbin", FOUR)
    with pytest.raises(MalformedInput, match="host library"):
        offload_bundle.in_library(library[:40])
    with pytest.raises(MalformedInput, match="offload bundle"):
        offload_bundle.in_library(host_library(".hip_fatbin", FOUR[:60]))


@given(st.binary(max_size=200))
def test_any_fat_binary_is_taken_apart_or_refused(contents: bytes) -> None:
    try:
        found = offload_bundle.in_library(host_library(".hip_fatbin", b"CCOB" + contents))
    except (MalformedInput, Unsupported):
        return
    assert all(offload_bundle.is_bundle(one) for one in found)
