"""Machine code of code objects as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from amdrv.runtime.code_object import DESCRIPTOR_SUFFIX, CodeObject

PADDING = "s_code_end"  # what LLVM fills the end of a code section with


def functions(code: CodeObject) -> dict[str, tuple[int, int]]:
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


def lines(code: CodeObject, name: str, start: int, end: int) -> Iterator[str]:
    """One instruction a line: offset in the image, machine code, text as llvm-objdump prints it."""
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
