"""Library functions with many registers, again for registers in memory.

A call that passes or returns four registers or more by value moves each of them through the stack; the same function
with pointers to the registers costs one instruction, in time as in code. Given ``NAME.wN``:

    NAME.to.wN(ARGUMENTS, ptr registers)      a load: its results go to the registers, in the lanes of the mask
    NAME.from.wN(ARGUMENTS, ptr registers)    a store: its data come from the registers

ARGUMENTS are those of NAME without data; the second is the lane mask. What NAME says of faults is returned.
"""

from __future__ import annotations

from collections.abc import Sequence

from amdrv.emulator.isa.native.ir_text import vector
from amdrv.emulator.isa.native.library import Function

CLEAR = "clear_registers"  # NAME.wN(ptr to, i64 registers)
MANY = 3  # registers from which on memory is better


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    kind = vector(lanes)
    return [
        Function(f"""define void @{CLEAR}.w{lanes}(ptr %to, i64 %registers) {{
  br label %one
one:
  %i = phi i64 [0, %0], [%next, %one]
  %target = getelementptr {kind}, ptr %to, i64 %i
  store {kind} zeroinitializer, ptr %target, align 64
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %registers
  br i1 %more, label %one, label %done
done:
  ret void
}}""")
    ]


def load_to(base: str, arguments: Sequence[str], registers: int, lanes: int, *, faults: bool) -> Function:
    """``base``.to.wN for a load. ``arguments`` are its argument types, the mask's second."""
    kind = vector(lanes)
    returned = ", ".join([kind] * registers + (["i1"] if faults else []))
    names = [f"{text} %a{number}" for number, text in enumerate(arguments)]
    result = "i1" if faults else "void"
    lines = [
        f"define {result} @{base}.to.w{lanes}({', '.join([*names, 'ptr %registers'])}) {{",
        f"  %found = call {{{returned}}} @{base}.w{lanes}({', '.join(names)})",
    ]
    if faults:
        lines += [
            f"  %fault = extractvalue {{{returned}}} %found, {registers}",
            "  br i1 %fault, label %failed, label %write",
            "failed:",
            "  ret i1 true",
            "write:",
        ]
    for number in range(registers):
        lines += [
            f"  %at.{number} = getelementptr {kind}, ptr %registers, i64 {number}",
            f"  %new.{number} = extractvalue {{{returned}}} %found, {number}",
        ]
    end = "ret i1 false" if faults else "ret void"
    lines += [f"  %all = icmp eq i{lanes} %a1, -1", "  br i1 %all, label %whole, label %some", "whole:"]
    lines += [f"  store {kind} %new.{number}, ptr %at.{number}, align 64" for number in range(registers)]
    lines += [f"  {end}", "some:", f"  %active = bitcast i{lanes} %a1 to <{lanes} x i1>"]
    for number in range(registers):
        lines += [
            f"  %old.{number} = load {kind}, ptr %at.{number}, align 64",
            f"  %value.{number} = select <{lanes} x i1> %active, {kind} %new.{number}, {kind} %old.{number}",
            f"  store {kind} %value.{number}, ptr %at.{number}, align 64",
        ]
    lines += [f"  {end}", "}"]
    return Function("\n".join(lines))


def store_from(base: str, arguments: Sequence[str], registers: int, lanes: int, *, faults: bool) -> Function:
    """``base``.from.wN for a store. ``arguments`` are its argument types before the data."""
    kind = vector(lanes)
    names = [f"{text} %a{number}" for number, text in enumerate(arguments)]
    result = "i1" if faults else "void"
    lines = [f"define {result} @{base}.from.w{lanes}({', '.join([*names, 'ptr %registers'])}) {{"]
    for number in range(registers):
        lines += [
            f"  %at.{number} = getelementptr {kind}, ptr %registers, i64 {number}",
            f"  %data.{number} = load {kind}, ptr %at.{number}, align 64",
        ]
    data = [f"{kind} %data.{number}" for number in range(registers)]
    call = f"call {result} @{base}.w{lanes}({', '.join([*names, *data])})"
    lines += [f"  %fault = {call}", "  ret i1 %fault"] if faults else [f"  {call}", "  ret void"]
    return Function("\n".join([*lines, "}"]))
