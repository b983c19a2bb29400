"""ALU instructions: fetch the sources, evaluate the definition, write what comes back under EXEC.

The translator's side of ``emulator.isa.alu``, with the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from amdrv.emulator.isa.generation import GFX11, GFX12
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand
from amdrv.emulator.isa.native import matrix_gfx12
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.definition_functions import call_definition
from amdrv.emulator.isa.native.dpp import dpp_exchange
from amdrv.emulator.isa.native.frame import EXEC_LO, VCC, Frame
from amdrv.emulator.isa.native.matrix_functions import call_matrix
from amdrv.emulator.isa.native.operands import (
    in_range,
    modified,
    operand_kind,
    read,
    read_registers,
    write_mask,
    write_scalar,
    write_vector,
)
from amdrv.emulator.isa.native.stack import Stack
from amdrv.emulator.isa.operands import is_packed
from amdrv.emulator.isa.semantics import lookup
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.modifiers import bind, own_mode

_MATRICES = ("v_wmma", "v_swmmac")
# Of each generation: its matrices lie differently in registers.
_CALL_MATRIX = {GFX11.name: call_matrix, GFX12.name: matrix_gfx12.call_matrix}

Results: TypeAlias = "tuple[Val, ...]"


class IllegalOperand(Exception):
    """An operand that the instruction cannot have."""


@dataclass(frozen=True, slots=True)
class _Output:
    """One value that a definition returns, and where it goes."""

    name: str  # as in Definition.writes
    operand: Operand | None


def translate(frame: Frame, instruction: Instruction, algebra: LlvmAlgebra) -> bool:
    """Write an instruction that has a definition; False for others. Raises IllegalOperand."""
    if instruction.dual is not None:
        if frame.lanes != 32:  # RDNA3 ISA manual, "Dual issue VALU"
            raise IllegalOperand("dual instructions exist for wave32 only")
        return _translate_dual(frame, instruction.dual, algebra)
    definition = lookup(instruction.mnemonic, frame.generation.name)
    if definition is None:
        return False
    if instruction.mnemonic.startswith(_MATRICES):
        _CALL_MATRIX[frame.generation.name](frame, instruction, _in_own_mode(definition, algebra))
        return True
    if not in_range(instruction, frame.vgprs):
        return True
    outputs = [_output(name, instruction) for name in definition.writes]
    if instruction.dpp is not None:
        _translate_dpp(frame, instruction, definition, algebra, outputs)
        return True
    results = _evaluate(frame, instruction, definition, algebra)
    for output, value in zip(outputs, results, strict=True):
        _store(frame, instruction, output, value, None)
    return True


def _translate_dual(frame: Frame, halves: tuple[Instruction, Instruction], algebra: LlvmAlgebra) -> bool:
    """A VOPD instruction: both halves read before either writes."""
    definitions = [lookup(half.mnemonic, frame.generation.name) for half in halves]
    if definitions[0] is None or definitions[1] is None:
        return False
    if not all(in_range(half, frame.vgprs) for half in halves):
        return True
    results = [
        _evaluate(frame, half, cast(Definition, definition), algebra)
        for half, definition in zip(halves, definitions, strict=True)
    ]
    for half, result in zip(halves, results, strict=True):
        _store(frame, half, _output("dst", half), result[0], None)
    return True


def _translate_dpp(
    frame: Frame, instruction: Instruction, definition: Definition, algebra: LlvmAlgebra, outputs: list[_Output]
) -> None:
    dpp = instruction.dpp
    if dpp is None:
        return
    first, *rest = instruction.src
    values = _inputs(frame, replace(instruction, src=(replace(first, neg=False, abs=False), *rest)), definition)
    try:
        moved, mask = dpp_exchange(frame, dpp, cast(Val, values[0]))
        values[0] = moved if is_packed(first) else modified(moved, first)  # modifiers see the zero of bound_ctrl
    except ValueError as error:  # a reserved control
        raise IllegalOperand(str(error)) from error
    results = _call(instruction, definition, algebra, values)
    for output, value in zip(outputs, results, strict=True):
        _store(frame, instruction, output, value, mask)


def _evaluate(frame: Frame, instruction: Instruction, definition: Definition, algebra: LlvmAlgebra) -> Results:
    return _call(instruction, definition, algebra, _inputs(frame, instruction, definition))


def _in_own_mode(definition: Definition, algebra: LlvmAlgebra) -> LlvmAlgebra:
    mode = own_mode(definition, algebra.mode)
    return algebra if mode is algebra.mode else LlvmAlgebra(algebra.builder, mode)


def _call(instruction: Instruction, definition: Definition, algebra: LlvmAlgebra, values: list[Any]) -> Results:
    algebra = _in_own_mode(definition, algebra)
    evaluate = bind(definition, instruction.fields, instruction.dst[0].type if instruction.dst else "")
    if evaluate is definition.evaluate:
        results = call_definition(algebra, definition, values)
        if results is not None:
            return results
    result = evaluate(algebra, *values)
    return cast(Results, result if len(definition.writes) > 1 else (result,))


def _inputs(frame: Frame, instruction: Instruction, definition: Definition) -> list[Any]:
    values: list[Any] = [source(frame, operand) for operand in instruction.src]
    values += [_implicit(frame, name, instruction) for name in definition.reads]
    return values


def source(frame: Frame, operand: Operand) -> Val:
    """One explicit source as its definition wants it. Raises IllegalOperand."""
    if operand.type == "mask":
        if operand.kind == Kind.VGPR:
            raise IllegalOperand(f"{operand.name} is a lane mask and cannot be a vector register")
        return frame.lanes_of(read(frame, operand, frame.mask_kind()))
    if operand.bits > 64:
        return Stack(read_registers(frame, operand, operand.bits // 32))
    value = read(frame, operand, operand_kind(operand))
    return value if is_packed(operand) else modified(value, operand)


def _implicit(frame: Frame, name: str, instruction: Instruction) -> Any:
    """One of the implicit inputs that a definition names."""
    if name in ("vcc", "exec"):
        code = VCC if name == "vcc" else EXEC_LO
        if instruction.encoding.startswith("SOP"):
            return frame.sgpr64(code) if instruction.dst[0].bits == 64 else frame.sgpr(code)
        return frame.exec_lanes() if name == "exec" else frame.lanes_of(frame.mask(VCC))
    if name == "old":
        operand = instruction.dst[0]
        return read(frame, operand, operand_kind(operand))
    if name == "lane":
        numbers = ", ".join(f"i32 {lane}" for lane in range(frame.lanes))
        return frame.builder.value("u32", f"<{numbers}>", True)
    if name == "fields":
        return instruction.fields
    return frame.scc()


def _output(name: str, instruction: Instruction) -> _Output:
    """Raises IllegalOperand for a vector result whose destination is not a vector register."""
    if name == "scc":
        return _Output(name, None)
    if name == "exec":
        return _Output(name, None)
    operand = instruction.dst[1 if name == "dst1" else 0]
    of_scalars = instruction.encoding.startswith("SOP") or instruction.mnemonic.startswith("v_s_")
    if operand.type != "mask" and operand.kind != Kind.VGPR and not of_scalars:
        raise IllegalOperand(f"{operand.name} must be a vector register")
    return _Output(name, operand)


def _store(frame: Frame, instruction: Instruction, output: _Output, value: Val, mask: Val | None) -> None:
    operand = output.operand
    if output.name == "scc":
        frame.set_scc(value)
    elif output.name == "exec":
        if instruction.encoding.startswith("SOP"):
            write_scalar(frame, EXEC_LO, value)
        else:
            write_mask(frame, EXEC_LO, value, mask)
    elif operand is None:
        return
    elif operand.type == "mask":
        write_mask(frame, operand.index, value, mask)
    elif isinstance(value, Stack):
        for number, register in enumerate(value.values):
            frame.set_vgpr(operand.index + number, register, mask)
    elif operand.kind == Kind.VGPR:
        write_vector(frame, operand, value, mask)
    else:
        write_scalar(frame, operand.index, value)
