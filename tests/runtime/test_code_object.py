"""Code objects: what is taken, what is found in them, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, MalformedInput, NotFound, Unsupported
from amdrv.runtime import code_object
from amdrv.runtime.compile import compile_llvm

ARCH = "gfx1100"
EXPLICIT = [
    ("y", 0, 8, "global_buffer"),
    ("x", 8, 8, "global_buffer"),
    ("a", 16, 4, "by_value"),
    ("n", 20, 4, "by_value"),
]
E_IDENT_OSABI, E_IDENT_ABIVERSION, E_TYPE, E_MACHINE, E_FLAGS = 7, 8, 16, 18, 48


def patched(data: bytes, offset: int, layout: str, value: int) -> bytes:
    """``data`` with one number changed."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, offset, value)
    return bytes(changed)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_a_linked_object_of_each_version_describes_the_same_kernel(data: Path, version: int) -> None:
    parsed = code_object.parse((data / f"saxpy_v{version}.hsaco").read_bytes(), ARCH)
    assert (parsed.version, str(parsed.target), list(parsed.kernels)) == (version, "gfx1100", ["saxpy"])
    kernel = parsed.kernel("saxpy")
    assert kernel.arguments is not None
    explicit = [(a.name, a.offset, a.size_bytes, a.kind) for a in kernel.arguments if not a.hidden]
    assert explicit == EXPLICIT
    assert kernel.descriptor.wavefront_size == 32
    assert kernel.entry_offset % 256 == 0
    start, end = parsed.image.executable[0]
    assert start <= kernel.entry_offset < kernel.entry_offset + kernel.code_bytes <= end


def symbol_tables(data: bytes) -> dict[int, tuple[int, int]]:
    """(where its header is in the file, where its contents are) of the symbol tables, by section type."""
    table, count = int.from_bytes(data[40:48], "little"), int.from_bytes(data[60:62], "little")
    headers = {int.from_bytes(data[at + 4 : at + 8], "little"): at for at in range(table, table + 64 * count, 64)}
    return {kind: (at, int.from_bytes(data[at + 24 : at + 32], "little")) for kind, at in headers.items()}


def test_a_linked_object_without_dynamic_symbols_has_its_other_ones(data: Path) -> None:
    linked = (data / "saxpy_v5.hsaco").read_bytes()
    dynamic, _ = symbol_tables(linked)[11]  # SHT_DYNSYM
    parsed = code_object.parse(patched(linked, dynamic + 4, "<I", 2), ARCH)  # SHT_SYMTAB
    assert parsed.kernel("saxpy").entry_offset == code_object.parse(linked, ARCH).kernel("saxpy").entry_offset


def test_a_misaligned_descriptor_is_refused_with_what_to_do() -> None:
    kernels = [f"define amdgpu_kernel void @{name}() {{\n  ret void\n}}\n" for name in "kl"]
    code = bytearray(compile_llvm("".join(kernels)))
    _, symbols = symbol_tables(bytes(code))[2]
    for at in range(symbols, symbols + 24 * 16, 24):
        if struct.unpack_from("<Q", code, at + 16) == (64,):  # st_size of a descriptor
            struct.pack_into("<Q", code, at + 8, 4)
    with pytest.raises(MalformedInput, match=r"misaligned; put \.p2align 6"):
        code_object.parse(bytes(code), ARCH)


def test_version_3_is_version_4_with_another_version_number(data: Path) -> None:
    version_3 = patched((data / "saxpy_v4.hsaco").read_bytes(), E_IDENT_ABIVERSION, "B", 1)
    parsed = code_object.parse(version_3, ARCH)
    assert parsed.version == 3
    assert str(parsed.target) == "gfx1100"
    assert "saxpy" in parsed.kernels


def test_hidden_arguments_of_version_4_are_its_own(data: Path) -> None:
    arguments = code_object.parse((data / "saxpy_v4.hsaco").read_bytes()).kernel("saxpy").arguments
    assert arguments is not None
    assert [a.kind for a in arguments if a.hidden][:3] == [f"hidden_global_offset_{axis}" for axis in "xyz"]


def test_a_relocatable_object_describes_what_its_linked_form_does(saxpy: bytes, data: Path) -> None:
    # The passes differ between llvmlite and llc, so hidden arguments and registers may; the signature may not.
    loose, linked = code_object.parse(saxpy, ARCH), code_object.parse((data / "saxpy_v6.hsaco").read_bytes(), ARCH)
    for kernel in (loose.kernel("saxpy"), linked.kernel("saxpy")):
        assert kernel.arguments is not None
        assert [(a.name, a.offset, a.size_bytes, a.kind) for a in kernel.arguments if not a.hidden] == EXPLICIT
        assert any(a.kind == "hidden_group_size_x" and a.offset == 36 for a in kernel.arguments)
        assert kernel.kernarg_bytes == 24 + 256


def test_the_entry_point_of_a_relocatable_object_comes_from_its_relocation(saxpy: bytes) -> None:
    parsed = code_object.parse(saxpy, ARCH)
    kernel = parsed.kernel("saxpy")
    stored = parsed.image.contents[kernel.descriptor_offset + 0x10 : kernel.descriptor_offset + 0x18]
    assert stored == bytes(8)  # nothing until R_AMDGPU_REL64 is applied
    symbol = parsed.image.symbols["saxpy"]
    assert kernel.entry_offset == symbol.value == kernel.descriptor_offset + kernel.descriptor.entry_offset


def test_code_that_refers_to_itself_is_the_same_at_every_address(saxpy: bytes) -> None:
    image = code_object.parse(saxpy, ARCH).image
    assert image.relocate(0) == image.relocate(0x2000_0000_1000)


def pointer(memory: bytes, at: int) -> int:
    """A 64-bit address in memory."""
    return int.from_bytes(memory[at : at + 8], "little")


def pc_relative(memory: bytes, at: int) -> int:
    """Distance in an s_getpc_b64, s_add_u32, s_addc_u32 sequence whose literals are at ``at`` and ``at + 8``."""
    low, high = (int.from_bytes(memory[at + step : at + step + 4], "little") for step in (0, 8))
    value = high << 32 | low
    return value - (1 << 64) if value >> 63 else value


def test_a_relocatable_object_gets_a_global_offset_table(data: Path) -> None:
    base = 0x2000_0000_3000
    image = code_object.parse(compile_llvm((data / "globals.ll").read_text()), ARCH).image
    memory = image.relocate(base)
    got = [r for r in image.relocations if r.kind.name == "GOTPCREL32_LO"]
    assert len(got) == 4  # pointer, ext, zero, helper
    named = {image.symbols[name].value: name for name in ("pointer", "ext", "zero", "helper")}
    reached = set()
    for relocation in got:
        # The sequence adds to the address behind s_getpc_b64, 4 bytes before the first literal's field.
        slot = relocation.offset - 4 + pc_relative(memory, relocation.offset)
        reached.add(named[pointer(memory, slot) - base])
    assert reached == {"pointer", "ext", "zero", "helper"}


def test_initialised_pointers_are_absolute_addresses(data: Path) -> None:
    base = 0x1234_5678_0000
    for code in (compile_llvm((data / "globals.ll").read_text()), (data / "globals.hsaco").read_bytes()):
        image = code_object.parse(code, ARCH).image
        memory = image.relocate(base)
        assert pointer(memory, image.symbols["pointer"].value) == base + image.symbols["ext"].value


def test_memory_without_contents_counts_in_the_size(data: Path) -> None:
    image = code_object.parse((data / "globals.hsaco").read_bytes(), ARCH).image
    zero = image.symbols["zero"]
    assert zero.size_bytes == 256
    assert len(image.contents) < zero.value + zero.size_bytes <= image.size_bytes


def test_a_generic_object_runs_on_its_family_only(data: Path) -> None:
    generic = (data / "saxpy_gfx11_generic.hsaco").read_bytes()
    assert str(code_object.parse(generic, "gfx1100").target) == "gfx11-generic"
    with pytest.raises(Unsupported, match=r"gfx11-generic.*gfx1201"):
        code_object.parse(generic, "gfx1201")


def test_another_architecture_is_refused_naming_both(data: Path) -> None:
    with pytest.raises(Unsupported, match="for gfx1201, the device is gfx1100"):
        code_object.parse((data / "saxpy_gfx1201.hsaco").read_bytes(), ARCH)


def test_an_object_that_needs_replayable_faults_is_refused(saxpy: bytes) -> None:
    with_xnack = patched(saxpy, E_FLAGS, "<I", 0x41 | 0x300)
    with pytest.raises(Unsupported, match="gfx1100:xnack\\+"):
        code_object.parse(with_xnack, ARCH)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (E_MACHINE, "<H", 62, "ELF machine 62"),
        (E_IDENT_OSABI, "B", 66, "Mesa 3D"),
        (E_IDENT_OSABI, "B", 0, "none"),
        (E_IDENT_ABIVERSION, "B", 0, "ABI version 0"),
        (E_IDENT_ABIVERSION, "B", 5, "ABI version 5"),
    ],
)
def test_a_well_formed_file_of_another_kind_is_unsupported(
    saxpy: bytes, offset: int, layout: str, value: int, message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        code_object.parse(patched(saxpy, offset, layout, value), ARCH)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (0, "B", 0, "neither ELF nor an offload bundle"),
        (4, "B", 1, "64-bit"),
        (E_TYPE, "<H", 4, "ELF type 4"),
        (E_FLAGS, "<I", 0x0D, "mach 0xd"),
    ],
)
def test_a_damaged_header_is_malformed(saxpy: bytes, offset: int, layout: str, value: int, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        code_object.parse(patched(saxpy, offset, layout, value), ARCH)


def test_an_undefined_symbol_is_named() -> None:
    code = compile_llvm(
        "@elsewhere = external addrspace(1) global i32\n"
        "define amdgpu_kernel void @k() {\n store i32 1, ptr addrspace(1) @elsewhere\n ret void\n}"
    )
    with pytest.raises(Unsupported, match="'elsewhere'"):
        code_object.parse(code, ARCH)


def test_a_weak_undefined_symbol_is_null() -> None:
    code = compile_llvm(
        "@maybe = extern_weak addrspace(1) global i32\n"
        "@holder = addrspace(1) global ptr addrspace(1) @maybe\n"
        "define amdgpu_kernel void @k() {\n store ptr addrspace(1) null, ptr addrspace(1) @holder\n ret void\n}"
    )
    image = code_object.parse(code, ARCH).image
    assert pointer(image.relocate(0x1000), image.symbols["holder"].value) == 0


def test_a_missing_kernel_lists_those_there_are(saxpy: bytes) -> None:
    parsed = code_object.parse(saxpy, ARCH)
    with pytest.raises(NotFound, match=r"no kernel 'daxpy'.*saxpy"):
        parsed.kernel("daxpy")
    with pytest.raises(KeyError):
        parsed.kernel("daxpy")


def test_metadata_carry_limits_of_the_launch() -> None:
    code = compile_llvm(
        "define amdgpu_kernel void @k() #0 !reqd_work_group_size !0 {\n ret void\n}\n"
        '!0 = !{i32 8, i32 4, i32 2}\nattributes #0 = { "amdgpu-flat-work-group-size"="64,64" }'
    )
    kernel = code_object.parse(code, ARCH).kernel("k")
    assert (kernel.max_flat_workgroup_size, kernel.reqd_workgroup_size) == (64, (8, 4, 2))


def without_metadata(code: bytes) -> bytes:
    """The object with its metadata note's type changed to one that nobody knows."""
    at = code.index(struct.pack("<I", 32) + b"AMDGPU\0\0")
    return patched(code, at, "<I", 99)


def test_an_object_without_metadata_is_described_by_its_kernel_descriptors(saxpy: bytes) -> None:
    kernel = code_object.parse(without_metadata(saxpy), ARCH).kernel("saxpy")
    assert kernel.arguments is None
    assert kernel.kernarg_bytes == code_object.parse(saxpy, ARCH).kernel("saxpy").kernarg_bytes


def test_a_descriptor_that_enables_more_registers_than_it_loads_is_malformed(saxpy: bytes) -> None:
    parsed = code_object.parse(saxpy, ARCH)
    descriptor = parsed.image.contents[parsed.kernel("saxpy").descriptor_offset :][:64]
    at = saxpy.index(descriptor)
    rsrc2 = parsed.kernel("saxpy").descriptor.rsrc2
    with pytest.raises(MalformedInput, match="user SGPRs"):
        code_object.parse(patched(saxpy, at + 52, "<I", rsrc2 & ~0x3E), ARCH)


def test_text_is_not_a_code_object() -> None:
    with pytest.raises(MalformedInput):
        code_object.parse(b"", ARCH)
    with pytest.raises(MalformedInput):
        code_object.parse(b"#include <hip/hip_runtime.h>", ARCH)


def survives(data: bytes) -> None:
    """Damaged input is either harmless or refused in the family's words."""
    try:
        parsed = code_object.parse(data, ARCH)
        parsed.image.relocate(0x2000_0000_0000)
    except (MalformedInput, Unsupported):
        pass


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("source", ["loose", "linked"])
def test_truncation_is_harmless_or_refused(saxpy: bytes, data: Path, source: str, draw: st.DataObject) -> None:
    code = saxpy if source == "loose" else (data / "globals.hsaco").read_bytes()
    survives(code[: draw.draw(st.integers(0, len(code) - 1))])


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("source", ["loose", "linked"])
def test_flipped_bits_are_harmless_or_refused(saxpy: bytes, data: Path, source: str, draw: st.DataObject) -> None:
    code = bytearray(saxpy if source == "loose" else (data / "globals.hsaco").read_bytes())
    for _ in range(draw.draw(st.integers(1, 4))):
        bit = draw.draw(st.integers(0, 8 * len(code) - 1))
        code[bit // 8] ^= 1 << bit % 8
    survives(bytes(code))


def test_parsing_needs_bytes_for_a_bundle_of_an_unknown_architecture() -> None:
    with pytest.raises((MalformedInput, InvalidArgument)):
        code_object.parse(b"__CLANG_OFFLOAD_BUNDLE__")
