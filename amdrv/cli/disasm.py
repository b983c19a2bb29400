"""``amdrv disasm``: machine code as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from amdrv.cli.code_file import load_code
from amdrv.errors import NotFound
from amdrv.runtime import code_object, offload_bundle
from amdrv.runtime.code_object import DESCRIPTOR_SUFFIX, CodeObject

DEFAULT_ARCH = "gfx1100"
PADDING = "s_code_end"  # what LLVM fills the end of a code section with


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--kernel", help="Only this function.")
@click.option("--arch", help="Architecture to compile for, or to pick from a bundle: gfx1100 unless said; "
                             "a code object says itself what it is for.")  # fmt: skip
def command(file: Path, kernel: str | None, arch: str | None) -> None:
    """Disassemble FILE: a code object (.co, .hsaco, .o), an offload bundle, a HIP library (.so) or LLVM IR (.ll).

    One instruction a line: offset in the image, machine code, text as llvm-objdump prints it.
    """
    data = load_code(file, arch or DEFAULT_ARCH)
    bundles = offload_bundle.in_library(data)
    codes = [_parse(code, arch) for code in bundles or (data,)]
    functions = [_functions(code) for code in codes]
    if kernel is not None and not any(kernel in names for names in functions):
        there_are = ", ".join(name for names in functions for name in names) or "none"
        raise NotFound(f"{file}: no function {kernel!r}; there are {there_are}")
    for number, (code, names) in enumerate(zip(codes, functions, strict=True), 1):
        if bundles and kernel is None:
            click.echo(f"bundle {number} of {len(bundles)}, code for {code.target}\n")
        for name, (start, end) in names.items():
            if kernel in (None, name):
                click.echo(f"{start:#x} <{name}>:")
                for line in _lines(code, name, start, end):
                    click.echo(f"  {line}")
                click.echo()


def _parse(data: bytes, arch: str | None) -> CodeObject:
    if arch is None and not offload_bundle.is_bundle(data):
        return code_object.parse(data)
    return code_object.parse(data, arch or DEFAULT_ARCH)


def _functions(code: CodeObject) -> dict[str, tuple[int, int]]:
    """(start, end) offsets of every function, by address."""
    image = code.image
    starts = sorted(
        (symbol.value, symbol.size_bytes, name)
        for name, symbol in image.symbols.items()
        if not symbol.absolute and not name.endswith(DESCRIPTOR_SUFFIX) and _section_end(code, symbol.value)
    )
    found: dict[str, tuple[int, int]] = {}
    for number, (start, size_bytes, name) in enumerate(starts):
        limit = min(_section_end(code, start), starts[number + 1][0] if number + 1 < len(starts) else 1 << 62)
        found[name] = start, start + size_bytes if size_bytes else limit
    return found


def _section_end(code: CodeObject, offset: int) -> int:
    return next((end for start, end in code.image.executable if start <= offset < end), 0)


def _lines(code: CodeObject, name: str, start: int, end: int) -> Iterator[str]:
    from amdrv.emulator.isa.disassembler import disassemble

    kernel = code.kernels.get(name) or next(iter(code.kernels.values()), None)
    wave32 = kernel is None or kernel.descriptor.wavefront_size == 32
    machine_code = bytes(code.image.relocate(0)[start:end])
    padded = 0
    for address, instruction, text in disassemble(machine_code, start, code.target.processor, wave32):
        if text == PADDING:
            padded += 1
            continue
        size_bytes = getattr(instruction, "size_bytes", 4)
        words = machine_code[address - start :][:size_bytes]
        shown = " ".join(f"{int.from_bytes(words[i : i + 4], 'little'):08x}" for i in range(0, len(words), 4))
        yield f"{address:#06x}  {shown:<26}  {text}"
    if padded:
        yield f"... {padded} times {PADDING}"
