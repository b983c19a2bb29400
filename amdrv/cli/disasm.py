"""``amdrv disasm``: machine code as text."""

from __future__ import annotations

from pathlib import Path

import click

from amdrv.cli.code_file import load_code
from amdrv.errors import NotFound
from amdrv.runtime import code_object, listing, offload_bundle
from amdrv.runtime.code_object import CodeObject

DEFAULT_ARCH = "gfx1100"


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
    functions = [listing.functions(code) for code in codes]
    if kernel is not None and not any(kernel in names for names in functions):
        there_are = ", ".join(name for names in functions for name in names) or "none"
        raise NotFound(f"{file}: no function {kernel!r}; there are {there_are}")
    for number, (code, names) in enumerate(zip(codes, functions, strict=True), 1):
        if bundles and kernel is None:
            click.echo(f"bundle {number} of {len(bundles)}, code for {code.target}\n")
        for name, (start, end) in names.items():
            if kernel in (None, name):
                click.echo(f"{start:#x} <{name}>:")
                for line in listing.lines(code, name, start, end):
                    click.echo(f"  {line}")
                click.echo()


def _parse(data: bytes, arch: str | None) -> CodeObject:
    if arch is None and not offload_bundle.is_bundle(data):
        return code_object.parse(data)
    return code_object.parse(data, arch or DEFAULT_ARCH)
