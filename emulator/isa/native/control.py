"""Instructions that are neither computations nor memory: what the wave is, what it asks of the card, where it goes on.

The translator's side of ``emulator.isa.control``, with the same rules. ``translate`` writes those that just go on;
``describe`` says how a block's last instruction goes on, which flow control then writes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from amdrv.emulator.isa import barriers
from amdrv.emulator.isa.code import SCOPE_DEVICE
from amdrv.emulator.isa.control import (
    IGNORED,
    MODE_REGISTER,
    MSG_INTERRUPT,
    MSG_RTN_GET_REALTIME,
    TERMINATORS,
    barrier_number,
    register_field,
)
from amdrv.emulator.isa.instruction import Instruction, Kind
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.frame import EXEC_HI, EXEC_LO, M0, VCC, Frame
from amdrv.emulator.isa.native.layout import Detail, Outcome, Service
from amdrv.emulator.isa.native.operands import is_zero, read, resize, write_scalar

OFFSET_MASK = (1 << 64) - 1
# Compiled code for the host must not keep what it has read before: other waves may have written it since.
FENCE = 'fence syncscope("singlethread") seq_cst'
_INVALIDATIONS = ("buffer_gl0_inv", "buffer_gl1_inv", "global_inv")
_IMMEDIATE_MODES = {"s_round_mode": 0, "s_denorm_mode": 4}


class Way(enum.Enum):
    """How a block goes on."""

    NEXT = enum.auto()  # behind it
    BRANCH = enum.auto()  # at ``target``
    CONDITION = enum.auto()  # at ``target`` if ``condition`` holds, else behind it
    JUMP = enum.auto()  # at the address ``value``
    EXIT = enum.auto()  # behind it, after leaving with ``outcome``
    WAIT = enum.auto()  # behind it, after leaving with ``outcome`` unless ``condition`` holds
    MODE = enum.auto()  # behind it, with the MODE register ``value``
    FAULT = enum.auto()  # nowhere: a fault has been written


@dataclass(slots=True)
class Ending:
    """The end of a block; offsets are from the unit's base."""

    way: Way
    target: int = 0
    condition: Val | None = None
    value: Val | None = None
    outcome: Outcome = Outcome.END


def is_terminator(instruction: Instruction) -> bool:
    """Whether a block ends with the instruction."""
    mnemonic = instruction.mnemonic
    if mnemonic in _IMMEDIATE_MODES or mnemonic == "s_setreg_imm32_b32":
        return False  # the new mode is known here
    if mnemonic == "s_setreg_b32":
        return register_field(instruction)[0] == MODE_REGISTER
    return mnemonic in TERMINATORS and mnemonic not in _SIGNALS


def sees_others(instruction: Instruction) -> bool:
    """Whether an instruction is a load of what other workgroups may have written meanwhile."""
    fields = instruction.fields
    return "_load_" in instruction.mnemonic and bool(fields.get("glc") or fields.get("scope", 0) >= SCOPE_DEVICE)


def writes_exec(instruction: Instruction) -> bool:
    """Whether EXEC may have changed behind the instruction."""
    if "saveexec" in instruction.mnemonic or "wrexec" in instruction.mnemonic:
        return True
    if instruction.mnemonic.startswith("v_cmpx"):
        return True
    return any(
        operand.kind in (Kind.SGPR, Kind.SPECIAL)
        and operand.index <= EXEC_HI
        and operand.index + -(-operand.bits // 32) > EXEC_LO
        for operand in instruction.dst
    )


def branch_target(instruction: Instruction, next_pc: int) -> int:
    """Offset of a branch's target from the unit's base (modulo 2**64)."""
    offset = instruction.fields["simm16"]
    offset -= (offset & 0x8000) << 1
    return next_pc + 4 * offset & OFFSET_MASK


def has_target(instruction: Instruction) -> bool:
    """Whether the instruction names another place in the code."""
    name = instruction.mnemonic
    return name.startswith(("s_cbranch_", "s_branch", "s_call", "s_subvector_loop")) and "cdbg" not in name


# Instructions that just go on.


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write an instruction of this family that is no terminator; False for others. Raises ValueError."""
    name = instruction.mnemonic
    if name in IGNORED:
        if name in _INVALIDATIONS:
            frame.builder.do(FENCE)
        return True
    if name in _IMMEDIATE_MODES:
        shift = _IMMEDIATE_MODES[name]
        frame.mode = frame.mode & ~(0xF << shift) | (instruction.fields["simm16"] & 0xF) << shift
        return True
    write = _SIMPLE.get(name)
    if write is None:
        return False
    write(frame, instruction)
    return True


def _set_mode_immediate(frame: Frame, instruction: Instruction) -> None:
    register, shift, field = register_field(instruction)
    if register == MODE_REGISTER:
        writable = field << shift & frame.generation.mode_writable
        frame.mode = (instruction.src[0].value << shift & writable) | (frame.mode & ~writable)


def _ignored_register(frame: Frame, instruction: Instruction) -> None:
    """S_SETREG of a register that user code cannot write."""


def _getpc(frame: Frame, instruction: Instruction) -> None:
    write_scalar(frame, instruction.dst[0].index, frame.address(frame.next_pc))


def _service(frame: Frame, what: Service, argument: Val) -> Val:
    builder = frame.builder
    function = frame.context("service", "u64")
    pointer = builder.emit(f"inttoptr i64 {function.text} to ptr")
    arguments = f"ptr %ctx, i32 {int(what)}, i64 {resize(argument, 'u64').text}"
    return builder.value("u64", builder.emit(f"call i64 {pointer}({arguments})"), False)


def _sendmsg(frame: Frame, instruction: Instruction) -> None:
    if instruction.fields["simm16"] & 0xFF == MSG_INTERRUPT:
        _service(frame, Service.INTERRUPT, frame.sgpr(M0))


def _sendmsg_return(frame: Frame, instruction: Instruction) -> None:
    kind = "u64" if instruction.mnemonic.endswith("b64") else "u32"
    value = frame.builder.constant("u64", 0)
    if instruction.src[0].value & 0xFF == MSG_RTN_GET_REALTIME:
        value = _service(frame, Service.REALTIME, value)
    write_scalar(frame, instruction.dst[0].index, resize(value, kind))


def _flag(value: Val, bit: int) -> Val:
    """A scalar truth value as a bit of a u32."""
    return resize(value, "u32") << bit


def _has_scratch(frame: Frame) -> Val:
    scratch = frame.context("scratch_lane_bytes", "u32")
    return frame.builder.value("bool", frame.builder.emit(f"icmp ne i32 {scratch.text}, 0"), False)


def _status(frame: Frame) -> Val:
    """VALID, IN_TG, SCRATCH_EN where there is scratch, EXECZ, VCCZ, SCC."""
    return _status_zeroes(frame) | _flag(_has_scratch(frame), 29) | _flag(frame.scc(), 0)


def _status_zeroes(frame: Frame) -> Val:
    """VALID, IN_TG, EXECZ, VCCZ."""
    return _flag(is_zero(frame.exec_bits()), 9) | _flag(is_zero(frame.mask(VCC)), 10) | (1 << 16 | 1 << 11)


def _status_12(frame: Frame) -> Val:
    """STATUS of gfx12: SCC and SCRATCH_EN are in STATE_PRIV, WAVE64 is new."""
    return _status_zeroes(frame) | (1 << 29 if frame.lanes == 64 else 0)


def _state_private(frame: Frame) -> Val:
    complete = _inverted(_is_equal(frame.state(layout.STATE_PHASE, "u32"), _barrier(frame, "phase")))
    return _flag(frame.scc(), 9) | _flag(complete, 2) | _flag(_has_scratch(frame), 18)


def _identity(frame: Frame) -> Val:
    """HW_ID1: WAVE_ID 4:0, SIMD_ID 9:8, WGP_ID 13:10, SA_ID 16, SE_ID 20:18."""
    slot, number = frame.state(layout.STATE_SLOT, "u32"), frame.state(layout.STATE_NUMBER, "u32")
    text = frame.builder.emit(f"urem i32 {(slot >> 4).text}, 6")
    engine = (slot & 7) << 10 | (slot >> 3 & 1) << 16 | frame.builder.value("u32", text, False) << 18
    return (number >> 2 & 15) | (number & 3) << 8 | engine


def _memory_bases(frame: Frame) -> Val:
    shared, private = (frame.context(name, "u64") >> 48 for name in ("shared_base", "private_base"))
    return resize(shared << 16 | private, "u32")


def _scratch_base(frame: Frame, shift: int) -> Val:
    return resize(frame.state(layout.STATE_SCRATCH, "u64") >> shift, "u32")


def _cycles(frame: Frame, shift: int) -> Val:
    count = frame.builder.value("u64", frame.builder.emit("load i64, ptr %count"), False)
    return resize(count >> shift, "u32")


# By the names of ``Generation.hardware_registers``.
_HARDWARE_REGISTERS: dict[str, Callable[[Frame], Val]] = {
    "mode": lambda frame: frame.builder.constant("u32", frame.mode & frame.generation.mode_shown),
    "status": _status,
    "status_12": _status_12,
    "state_priv": _state_private,
    "gpr_alloc": lambda frame: frame.builder.constant("u32", frame.vgprs // (8 if frame.lanes == 32 else 4) - 1 << 12),
    "lds_alloc": lambda frame: (frame.context("lds_bytes", "u32") >> 9) << 12,
    "sh_mem_bases": _memory_bases,
    "scratch_lo": lambda frame: _scratch_base(frame, 0),
    "scratch_hi": lambda frame: _scratch_base(frame, 32),
    "hw_id1": _identity,
    "hw_id2": lambda frame: (frame.state(layout.STATE_SLOT, "u32") & 31) << 16,
    "cycles": lambda frame: _cycles(frame, 0) & frame.generation.cycles_mask,
    "cycles_hi": lambda frame: _cycles(frame, 32),
}


def _getreg(frame: Frame, instruction: Instruction) -> None:
    """Registers that are not modelled read zero."""
    register, shift, field = register_field(instruction)
    value = _HARDWARE_REGISTERS.get(frame.generation.hardware_registers.get(register, ""))
    found = value(frame) if value is not None else frame.builder.constant("u32", 0)
    write_scalar(frame, instruction.dst[0].index, found >> shift & field)


# Split barriers, as ``emulator.isa.barriers`` has them.


def _barrier_at(frame: Frame, name: str) -> str:
    """A pointer to a field of the workgroup's layout.Barrier."""
    field: int = getattr(layout.Barrier, name).offset
    barrier = frame.builder.emit(f"inttoptr i64 {frame.context('barrier', 'u64').text} to ptr")
    return frame.builder.emit(f"getelementptr i8, ptr {barrier}, i64 {field}")


def _barrier(frame: Frame, name: str) -> Val:
    return frame.builder.value("u32", frame.builder.emit(f"load i32, ptr {_barrier_at(frame, name)}"), False)


def _is_equal(x: Val, y: Val) -> Val:
    return x.builder.value("bool", x.builder.emit(f"icmp eq {x.typed}, {y.text}"), False)


def _signal(frame: Frame, instruction: Instruction) -> None:
    """Count this wave; the last one opens the barrier. One that is not the workgroup's does nothing."""
    builder = frame.builder
    counts = barrier_number(instruction) == barriers.WORKGROUP
    first = builder.constant("bool", 0)
    if counts:
        signals, phase = _barrier(frame, "signals"), _barrier(frame, "phase")
        first, more = is_zero(signals), signals + 1
        opens = builder.value("bool", builder.emit(f"icmp uge {more.typed}, {_barrier(frame, 'alive').text}"), False)
        left = frame.select(opens, builder.constant("u32", 0), more)
        builder.do(f"store {left.typed}, ptr {_barrier_at(frame, 'signals')}")
        builder.do(f"store {(phase + resize(opens, 'u32')).typed}, ptr {_barrier_at(frame, 'phase')}")
    if instruction.mnemonic.endswith("isfirst"):
        frame.set_scc(first)


def _barrier_state(frame: Frame, instruction: Instruction) -> None:
    """S_GET_BARRIER_STATE: valid, members, signals; a barrier that a workgroup does not have is invalid."""
    source, state = instruction.src[0], frame.builder.constant("u32", 0)
    if source.kind == Kind.CONSTANT and source.value == barriers.WORKGROUP & 0xFFFF_FFFF:
        state = _barrier(frame, "alive") << 4 | _barrier(frame, "signals") << 16 | 1
    write_scalar(frame, instruction.dst[0].index, state)


_SIGNALS = ("s_barrier_signal", "s_barrier_signal_isfirst")


_SIMPLE: dict[str, Callable[[Frame, Instruction], None]] = {
    "s_setreg_imm32_b32": _set_mode_immediate,
    "s_setreg_b32": _ignored_register,
    "s_getpc_b64": _getpc,
    "s_sendmsg": _sendmsg,
    "s_sendmsg_rtn_b32": _sendmsg_return,
    "s_sendmsg_rtn_b64": _sendmsg_return,
    "s_getreg_b32": _getreg,
    "s_get_barrier_state": _barrier_state,
    **dict.fromkeys(_SIGNALS, _signal),
}


# Terminators.


def _inverted(value: Val) -> Val:
    return value ^ 1 if value.bits is None else value.builder.constant("bool", 1 - value.bits)


_CONDITIONS: dict[str, Callable[[Frame], Val]] = {
    "s_cbranch_scc0": lambda frame: _inverted(frame.scc()),
    "s_cbranch_scc1": lambda frame: frame.scc(),
    "s_cbranch_vccz": lambda frame: is_zero(frame.mask(VCC)),
    "s_cbranch_vccnz": lambda frame: _inverted(is_zero(frame.mask(VCC))),
    "s_cbranch_execz": lambda frame: is_zero(frame.exec_bits()),
    "s_cbranch_execnz": lambda frame: _inverted(is_zero(frame.exec_bits())),
}
_OUTCOMES = {
    "s_endpgm": Outcome.END,
    "s_endpgm_saved": Outcome.END,
    "s_endpgm_ordered_ps_done": Outcome.END,
    "s_barrier": Outcome.BARRIER,
    "s_sleep": Outcome.POLL,
    "s_sleep_var": Outcome.POLL,
    "s_icache_inv": Outcome.REFETCH,
}


def describe(frame: Frame, instruction: Instruction) -> Ending:
    """Write what a terminator computes and say how the block goes on."""
    name = instruction.mnemonic
    if name in _OUTCOMES:
        return Ending(Way.EXIT, outcome=_OUTCOMES[name])
    if name in _CONDITIONS:
        return Ending(Way.CONDITION, branch_target(instruction, frame.next_pc), _CONDITIONS[name](frame))
    if name == "s_branch":
        return Ending(Way.BRANCH, branch_target(instruction, frame.next_pc))
    if name in ("s_setpc_b64", "s_swappc_b64"):
        target = read(frame, instruction.src[0], "u64") & ~3
        if name == "s_swappc_b64":
            write_scalar(frame, instruction.dst[0].index, frame.address(frame.next_pc))
        return Ending(Way.JUMP, value=target)
    if name == "s_call_b64":
        write_scalar(frame, instruction.dst[0].index, frame.address(frame.next_pc))
        return Ending(Way.BRANCH, branch_target(instruction, frame.next_pc))
    if name == "s_setreg_b32":
        return _set_mode(frame, instruction)
    if name == "s_barrier_wait":
        return _wait(frame, instruction)
    if name == "s_subvector_loop_begin":
        return _loop_begin(frame, instruction)
    if name == "s_subvector_loop_end":
        return _loop_end(frame, instruction)
    if name == "s_trap":
        frame.fault(layout.FaultKind.TRAP, Detail.TRAP, instruction.fields["simm16"] & 0xFF)
        return Ending(Way.FAULT)
    if name == "s_sendmsghalt" or (name == "s_sethalt" and instruction.fields["simm16"] & 1):
        frame.fault(layout.FaultKind.TRAP, Detail.HALT)
        return Ending(Way.FAULT)
    return Ending(Way.NEXT)


def _set_mode(frame: Frame, instruction: Instruction) -> Ending:
    """S_SETREG of MODE from a register."""
    _, shift, field = register_field(instruction)
    writable = field << shift & frame.generation.mode_writable
    value = read(frame, instruction.src[0], "u32")
    return Ending(Way.MODE, value=(value << shift & writable) | (frame.mode & ~writable))


def _wait(frame: Frame, instruction: Instruction) -> Ending:
    """S_BARRIER_WAIT: goes on when the barrier has opened since the last wait. Who is let in later has waited, too."""
    try:
        waits_for_ever = barrier_number(instruction) != barriers.WORKGROUP
    except ValueError:
        waits_for_ever = True
    if waits_for_ever:
        frame.fault(layout.FaultKind.ILLEGAL, Detail.NOT_IMPLEMENTED)
        return Ending(Way.FAULT)
    seen, phase = frame.state(layout.STATE_PHASE, "u32"), _barrier(frame, "phase")
    at = frame.builder.emit(f"getelementptr i8, ptr %state, i64 {layout.STATE_PHASE}")
    frame.builder.do(f"store {phase.typed}, ptr {at}")
    return Ending(Way.WAIT, condition=_inverted(_is_equal(seen, phase)), outcome=Outcome.WAIT)


def _choose(frame: Frame, condition: Val, x: Val, y: Val) -> Val:
    return frame.select(condition, x, y)


def _saved(instruction: Instruction) -> int:
    return (instruction.dst[0] if instruction.dst else instruction.src[0]).index


def _loop_begin(frame: Frame, instruction: Instruction) -> Ending:
    """S_SUBVECTOR_LOOP_BEGIN: run the loop for the low half of EXEC first, or only for the half that has lanes."""
    saved = _saved(instruction)
    low, high, kept = frame.sgpr(EXEC_LO), frame.sgpr(EXEC_HI), frame.sgpr(saved)
    none, low_empty, zero = is_zero(low | high), is_zero(low), frame.builder.constant("u32", 0)
    frame.set_sgpr(saved, _choose(frame, none, kept, _choose(frame, low_empty, low, high)))
    frame.set_sgpr(EXEC_HI, _choose(frame, low_empty, high, zero))
    return Ending(Way.CONDITION, branch_target(instruction, frame.next_pc), none)


def _loop_end(frame: Frame, instruction: Instruction) -> Ending:
    """S_SUBVECTOR_LOOP_END: go round again for the high half, or restore EXEC."""
    saved = _saved(instruction)
    low, high, kept = frame.sgpr(EXEC_LO), frame.sgpr(EXEC_HI), frame.sgpr(saved)
    second = _inverted(is_zero(high))  # the high half has just run: its partner comes back from the saved register
    again = _inverted(second) & _inverted(is_zero(kept))
    zero = frame.builder.constant("u32", 0)
    frame.set_sgpr(EXEC_LO, _choose(frame, second, kept, _choose(frame, again, zero, low)))
    frame.set_sgpr(EXEC_HI, _choose(frame, again, kept, high))
    frame.set_sgpr(saved, _choose(frame, again, low, kept))
    return Ending(Way.CONDITION, branch_target(instruction, frame.next_pc), again)
