"""The machine code of a kernel as text: of the host by capstone, of a GPU by this project's disassembler."""

from __future__ import annotations

import io
import platform

import capstone
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from amdrv.runtime import code_object
from amdrv.runtime import listing as code_listing
from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.host_code import compile_object
from amdrv.tensor.gpu import GpuBackend
from amdrv.tensor.host import HostBackend
from amdrv.tensor.storage import Backend

MACHINES = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}


def listing(backend: Backend, ir: str) -> str:
    """One instruction a line; empty for a device that nothing here knows."""
    if isinstance(backend, HostBackend):
        return _host(compile_object(ir))
    return _gpu(compile_llvm(ir, backend.device.arch)) if isinstance(backend, GpuBackend) else ""


def _gpu(code: bytes) -> str:
    parsed = code_object.parse(code)
    lines: list[str] = []
    for name, (start, end) in code_listing.functions(parsed).items():
        lines += [f"{name}:", *(f"  {line}" for line in code_listing.lines(parsed, name, start, end))]
    return "\n".join(lines)


def _host(code: bytes) -> str:
    """The functions of an object file."""
    kind = MACHINES.get(platform.machine())
    if kind is None:
        return f"no disassembler for {platform.machine()}"
    machine = capstone.Cs(*kind)
    machine.skipdata = True
    elf = ELFFile(io.BytesIO(code))
    lines: list[str] = []
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return "the object has no symbols"
    symbols = [s for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"]
    for symbol in sorted(symbols, key=lambda symbol: (symbol["st_shndx"], symbol["st_value"])):
        start = symbol["st_value"]
        contents = elf.get_section(symbol["st_shndx"]).data()[start : start + symbol["st_size"]]
        lines.append(f"{symbol.name}:")
        for at, _, mnemonic, operands in machine.disasm_lite(contents, start):
            lines.append(f"  {at:#06x}  {mnemonic:<14} {operands}".rstrip())
    return "\n".join(lines)
