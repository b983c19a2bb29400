"""Moves whose register numbers are moved by M0: V_MOVREL*, V_SWAPREL, S_MOVREL*.

The translator's side of the relative moves of ``emulator.isa.crosslane``, with the same rules. The registers are laid
out on the stack for the length of the instruction: such code is rare, and nearly always old.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from amdrv.emulator.isa.crosslane import SGPRS
from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.dpp import dpp_exchange
from amdrv.emulator.isa.native.frame import M0, Frame
from amdrv.emulator.isa.native.operands import read

Translate: TypeAlias = Callable[[Frame, Instruction], None]


class _File:
    """Registers on the stack."""

    def __init__(self, frame: Frame, registers: list[Val]) -> None:
        self._builder = frame.builder
        self._vector = registers[0].vector
        self._type = self._builder.type("u32", self._vector)
        self._size_bytes = 4 * frame.lanes if self._vector else 4
        self._saved = self._builder.emit("call ptr @llvm.stacksave.p0()")
        self._space = self._builder.emit(f"alloca [{len(registers)} x {self._type}], align 64")
        self._count = len(registers)
        for number, register in enumerate(registers):
            place = self._place(self._builder.constant("u32", number))
            self._builder.do(f"store {register.typed}, ptr {place}, align 4")

    def _place(self, number: Val) -> str:
        wide = self._builder.emit(f"zext {number.typed} to i64")
        return self._builder.emit(f"getelementptr {self._type}, ptr {self._space}, i64 {wide}")

    def load(self, number: Val) -> Val:
        """The register of a number in range."""
        text = self._builder.emit(f"load {self._type}, ptr {self._place(number)}, align 4")
        return self._builder.value("u32", text, self._vector)

    def store(self, number: Val, value: Val) -> None:
        """Write the register of a number in range."""
        value = self._builder.spread(value) if self._vector else value
        self._builder.do(f"store {value.typed}, ptr {self._place(number)}, align 4")

    def close(self, *, changed: bool) -> list[Val]:
        """Give the stack back; the registers as they now are, if any can have changed."""
        numbers = range(self._count) if changed else ()
        registers = [self.load(self._builder.constant("u32", number)) for number in numbers]
        self._builder.do(f"call void @llvm.stackrestore.p0(ptr {self._saved})")
        return registers


def _number(frame: Frame, base: int, by: Val | None, limit: int) -> tuple[Val, Val]:
    """(register number, whether it is below ``limit``); out of range the number is 0."""
    builder = frame.builder
    if by is None:
        return builder.constant("u32", base if base < limit else 0), builder.constant("bool", int(base < limit))
    inside = builder.value("bool", builder.emit(f"icmp ult {by.typed}, {max(limit - base, 0)}"), False)
    return frame.select(inside, by + base, builder.constant("u32", 0)), inside


def _offsets(frame: Frame, source_moves: bool, target_moves: bool, split: bool) -> tuple[Val | None, Val | None]:
    """By how much M0 moves the source and the destination."""
    m0 = frame.sgpr(M0)
    by_source, by_target = (m0 & 0x3FF, m0 >> 16 & 0x3FF) if split else (m0, m0)
    return by_source if source_moves else None, by_target if target_moves else None


def _relative_vector(source_moves: bool, target_moves: bool, split: bool, swap: bool = False) -> Translate:
    def write(frame: Frame, instruction: Instruction) -> None:
        by_source, by_target = _offsets(frame, source_moves, target_moves, split)
        source, source_exists = _number(frame, instruction.src[0].index, by_source, frame.vgprs)
        target, happens = _number(frame, instruction.dst[0].index, by_target, frame.vgprs)
        plain = read(frame, instruction.src[0], "u32")
        registers = _File(frame, [frame.vgpr(number) for number in range(frame.vgprs)])
        row, lanes = registers.load(source) if source_moves else plain, frame.exec_lanes()
        if instruction.dpp is not None:
            row, lanes = dpp_exchange(frame, instruction.dpp, row)
        if not target_moves:
            registers.close(changed=False)
            frame.set_vgpr(instruction.dst[0].index, row, lanes)
            return
        if swap:
            happens = happens & source_exists
        lanes = frame.builder.spread(happens) & lanes
        old = registers.load(target)
        registers.store(target, frame.select(lanes, row, old))
        if swap:
            registers.store(source, frame.select(lanes, old, registers.load(source)))
        for number, register in enumerate(registers.close(changed=True)):
            frame.set_vgpr_all(number, register)

    return write


def _relative_scalar(source_moves: bool, target_moves: bool, split: bool, size: int) -> Translate:
    """Numbers beyond the SGPRs move nothing."""

    def write(frame: Frame, instruction: Instruction) -> None:
        by_source, by_target = _offsets(frame, source_moves, target_moves, split)
        limit, base = SGPRS - size + 1, instruction.dst[0].index
        source, source_fits = _number(frame, instruction.src[0].index, by_source, limit)
        target, target_fits = _number(frame, base, by_target, limit)
        happens = frame.builder.constant("bool", 1)
        for fits in (*([source_fits] if source_moves else []), *([target_fits] if target_moves else [])):
            happens = happens & fits
        plain = read(frame, instruction.src[0], "u64" if size == 2 else "u32")
        words = list(frame.split(plain)) if size == 2 else [plain]
        olds = [frame.sgpr(base + word) for word in range(size)]
        file = _File(frame, [frame.sgpr(number) for number in range(SGPRS)])
        if source_moves:
            words = [file.load(source + word) for word in range(size)]
        if not target_moves:
            file.close(changed=False)
            for word, value in enumerate(words):
                frame.set_sgpr(base + word, frame.select(happens, value, olds[word]))
            return
        for word, value in enumerate(words):
            place = target + word
            file.store(place, frame.select(happens, value, file.load(place)))
        for number, register in enumerate(file.close(changed=True)):
            frame.set_sgpr(number, register)

    return write


RELATIVE: dict[str, Translate] = {
    "v_movrels_b32": _relative_vector(True, False, False),
    "v_movreld_b32": _relative_vector(False, True, False),
    "v_movrelsd_b32": _relative_vector(True, True, False),
    "v_movrelsd_2_b32": _relative_vector(True, True, True),
    "v_swaprel_b32": _relative_vector(True, True, True, swap=True),
    "s_movrels_b32": _relative_scalar(True, False, False, 1),
    "s_movrels_b64": _relative_scalar(True, False, False, 2),
    "s_movreld_b32": _relative_scalar(False, True, False, 1),
    "s_movreld_b64": _relative_scalar(False, True, False, 2),
    "s_movrelsd_2_b32": _relative_scalar(True, True, True, 1),
}
