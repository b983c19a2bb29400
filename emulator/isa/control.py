"""Program control: branches, calls, barriers, messages, hardware registers. What ends a block is a ``Terminator``.

Rules: RDNA3 ISA manual, SOPP, SOP1 and SOPK pseudo code. Register layouts: Linux 6.12 gc_11_0_0_sh_mask.h, SQ_WAVE_*.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa import barriers
from amdrv.emulator.isa.instruction import Instruction, Kind
from amdrv.emulator.isa.operands import Op, Place, constant, fetch, nothing, store_scalar
from amdrv.emulator.isa.spaces import LaneFault
from amdrv.emulator.isa.wave import EXEC32, EXEC64, EXEC_HI, M0_KEY, U32, U64, VCC32, VCC64, Group, view_key


class Event(enum.Enum):
    """Why a group of waves stops running, other than a branch."""

    END = enum.auto()
    BARRIER = enum.auto()
    SIGNAL = enum.auto()  # at a split barrier, which may let others go on
    WAIT = enum.auto()  # at a split barrier
    YIELD = enum.auto()  # s_sleep: let others run
    REFETCH = enum.auto()  # s_icache_inv


@dataclass(frozen=True, slots=True)
class Fork:
    """The waves of a group go on at different places or in different modes.

    ``ways`` are (pc, MODE), each of which some wave takes; ``way_of`` is the number of the one that each wave takes.
    """

    ways: list[tuple[int, int]]
    way_of: NDArray[np.int64]


# Sets the group's pc, or says why it can't go on as it is.
Terminator: TypeAlias = Callable[[Group], "Event | Fork | None"]

# What s_waitcnt and s_waitcnt_depctr are from gfx12 on.
_SPLIT_COUNTERS = (
    "s_wait_alu", "s_wait_loadcnt", "s_wait_storecnt", "s_wait_samplecnt", "s_wait_bvhcnt", "s_wait_expcnt",
    "s_wait_dscnt", "s_wait_kmcnt", "s_wait_loadcnt_dscnt", "s_wait_storecnt_dscnt",
)  # fmt: skip
IGNORED = frozenset(
    (
        "s_nop",
        "s_clause",
        "s_delay_alu",
        "s_waitcnt",
        "s_waitcnt_depctr",
        "s_waitcnt_vscnt",
        "s_waitcnt_vmcnt",
        "s_waitcnt_expcnt",
        "s_waitcnt_lgkmcnt",
        *_SPLIT_COUNTERS,
        "s_wait_idle",
        "s_wait_event",
        "s_set_inst_prefetch_distance",
        "s_setprio",
        "s_setkill",
        "s_version",
        "s_wakeup",
        "s_incperflevel",
        "s_decperflevel",
        "s_ttracedata",
        "s_ttracedata_imm",
        "v_nop",
        "v_pipeflush",
        "buffer_gl0_inv",
        "buffer_gl1_inv",
        "global_inv",
        "global_wb",
        "global_wbinv",
        "s_barrier_leave",  # of a named barrier
    )
)
# Not counted as executed instructions.
FREE = frozenset(
    name for name in IGNORED if name.startswith(("s_nop", "s_clause", "s_delay_alu", "s_waitcnt", *_SPLIT_COUNTERS))
)

MSG_INTERRUPT = 1
MSG_RTN_GET_REALTIME = 131
MODE_REGISTER = 1
_EXEC_HI = view_key(False, EXEC_HI, U32)


def _target(instruction: Instruction, place: Place) -> int:
    offset = instruction.fields["simm16"]
    offset -= (offset & 0x8000) << 1
    return place.next_pc + 4 * offset & 0xFFFF_FFFF_FFFF_FFFF


def _fork(group: Group, taken: NDArray[Any], target: int, other: int) -> Fork:
    """Some waves, but not all, branch to ``target``."""
    return Fork([(other, group.mode), (target, group.mode)], taken.astype(np.int64))


def _branch_on(condition: Callable[[Group], NDArray[Any]], wanted: bool) -> Callable[[Instruction, Place], Terminator]:
    """A branch taken by the waves whose ``condition`` (non-zero or zero, one value a wave) is ``wanted``."""

    def build(instruction: Instruction, place: Place) -> Terminator:
        target, after = _target(instruction, place), place.next_pc
        on_true, on_false = (target, after) if wanted else (after, target)

        def branch(group: Group) -> Fork | None:
            flags = condition(group)
            true = np.count_nonzero(flags)
            if true == group.count:
                group.pc = on_true
            elif not true:
                group.pc = on_false
            else:
                return _fork(group, flags[:, 0] != 0, on_true, on_false)
            return None

        return branch

    return build


def _mask_condition(keys: tuple[int, int]) -> Callable[[Group], NDArray[Any]]:
    narrow, wide = keys
    return lambda group: group.views[narrow if group.state.lanes == 32 else wide]


def _always(instruction: Instruction, place: Place) -> Terminator:
    target = _target(instruction, place)

    def branch(group: Group) -> None:
        group.pc = target

    return branch


def _never(instruction: Instruction, place: Place) -> Terminator:
    return fall_through(place.next_pc)


def fall_through(pc: int) -> Terminator:
    """Go on at ``pc``."""

    def go_on(group: Group) -> None:
        group.pc = pc

    return go_on


def _jump(group: Group, targets: NDArray[Any]) -> Fork | None:
    pcs = targets[:, 0] & ~np.uint64(3)
    if (pcs == pcs[0]).all():
        group.pc = int(pcs[0])
        return None
    targets, way_of = np.unique(pcs, return_inverse=True)
    return Fork([(pc, group.mode) for pc in targets.tolist()], way_of)


def _setpc(instruction: Instruction, place: Place) -> Terminator:
    source = fetch(instruction.src[0], U64, place)
    return lambda group: _jump(group, source(group))


def _swappc(instruction: Instruction, place: Place) -> Terminator:
    source = fetch(instruction.src[0], U64, place)
    store = store_scalar(instruction.dst[0], U64)
    after = constant(place.next_pc, U64)

    def swap(group: Group) -> Fork | None:
        targets = source(group).copy()
        store(group, after)
        return _jump(group, targets)

    return swap


def _call(instruction: Instruction, place: Place) -> Terminator:
    target, after = _target(instruction, place), constant(place.next_pc, U64)
    store = store_scalar(instruction.dst[0], U64)

    def call(group: Group) -> None:
        store(group, after)
        group.pc = target

    return call


def _event(event: Event) -> Callable[[Instruction, Place], Terminator]:
    def build(instruction: Instruction, place: Place) -> Terminator:
        def stop(group: Group) -> Event:
            group.pc = place.next_pc
            return event

        return stop

    return build


def _trap(instruction: Instruction, place: Place) -> Terminator:
    number = instruction.fields["simm16"] & 0xFF

    def trap(group: Group) -> None:
        raise LaneFault("trap", f"s_trap {number}", 0)

    return trap


def _halt(instruction: Instruction, place: Place) -> Terminator:
    if not instruction.fields["simm16"] & 1 and instruction.mnemonic == "s_sethalt":
        return fall_through(place.next_pc)

    def halt(group: Group) -> None:
        raise LaneFault("trap", f"{instruction.mnemonic} halted the wave, and nobody is there to resume it", 0)

    return halt


def _loop_begin(instruction: Instruction, place: Place) -> Terminator:
    """S_SUBVECTOR_LOOP_BEGIN: run the loop for the low half of EXEC first, or only for the half that has lanes."""
    saved = instruction.dst[0] if instruction.dst else instruction.src[0]
    store = store_scalar(saved, U32)
    exit_pc = _target(instruction, place)

    def begin(group: Group) -> Fork | None:
        low, high = group.views[EXEC32].copy(), group.views[_EXEC_HI].copy()
        none = (low | high) == 0
        store(group, np.where(none, group.views[view_key(False, saved.index, U32)], np.where(low == 0, low, high)))
        group.views[_EXEC_HI][...] = np.where(low == 0, high, 0)
        group.stale = True
        return _uniform_or_fork(group, none, exit_pc, place.next_pc)

    return begin


def _loop_end(instruction: Instruction, place: Place) -> Terminator:
    """S_SUBVECTOR_LOOP_END: go round again for the high half, or restore EXEC."""
    saved = instruction.dst[0] if instruction.dst else instruction.src[0]
    source, store = fetch(saved, U32, place), store_scalar(saved, U32)
    start_pc = _target(instruction, place)

    def end(group: Group) -> Fork | None:
        low, high, kept = group.views[EXEC32].copy(), group.views[_EXEC_HI].copy(), source(group).copy()
        second = high != 0  # the high half has just run: its partner comes back from the saved register
        again = ~second & (kept != 0)
        group.views[EXEC32][...] = np.where(second, kept, np.where(again, np.uint32(0), low))
        group.views[_EXEC_HI][...] = np.where(again, kept, high)
        store(group, np.where(again, low, kept))
        group.stale = True
        return _uniform_or_fork(group, again, start_pc, place.next_pc)

    return end


def _uniform_or_fork(group: Group, flags: NDArray[Any], on_true: int, on_false: int) -> Fork | None:
    true = np.count_nonzero(flags)
    if true not in (0, group.count):
        return _fork(group, flags[:, 0], on_true, on_false)
    group.pc = on_true if true else on_false
    return None


def _mode_field(shift: int) -> Callable[[Instruction, Place], Terminator]:
    def build(instruction: Instruction, place: Place) -> Terminator:
        mode = place.mode & ~(0xF << shift) | (instruction.fields["simm16"] & 0xF) << shift

        def set_mode(group: Group) -> None:
            group.mode, group.pc = mode, place.next_pc

        return set_mode

    return build


def register_field(instruction: Instruction) -> tuple[int, int, int]:
    """(register, first bit, mask of the shifted value) of S_GETREG and S_SETREG."""
    code = instruction.fields["simm16"]
    return code & 63, code >> 6 & 31, (1 << (code >> 11 & 31) + 1) - 1


def _setreg(instruction: Instruction, place: Place) -> Terminator:
    register, shift, field = register_field(instruction)
    if register != MODE_REGISTER:
        return fall_through(place.next_pc)  # the others are read-only for user code
    source = fetch(instruction.src[0], U32, place)
    writable = field << shift & place.generation.mode_writable

    def set_mode(group: Group) -> Fork | None:
        values = np.broadcast_to(source(group), (group.count, 1))[:, 0].astype(np.int64)
        modes = (values << shift & writable) | (group.mode & ~writable)
        if (modes == modes[0]).all():
            group.mode, group.pc = int(modes[0]), place.next_pc
            return None
        kinds, way_of = np.unique(modes, return_inverse=True)
        return Fork([(place.next_pc, mode) for mode in kinds.tolist()], way_of)

    return set_mode


def barrier_number(instruction: Instruction) -> int:
    """The number of the barrier that is meant; raises ValueError for one that nobody has."""
    source = instruction.src[0] if instruction.src else None
    if source is not None and source.kind != Kind.CONSTANT:
        raise ValueError("M0 names a named barrier, and a workgroup has none")
    code = source.value if source is not None else instruction.fields["simm16"]
    number = (code & 0xFFFF) - ((code & 0x8000) << 1)
    if number > 0:
        raise ValueError(f"there is no named barrier {number}: a workgroup has none")
    return number


def _signal(instruction: Instruction, place: Place) -> Terminator:
    counts = barrier_number(instruction) == barriers.WORKGROUP  # the trap handler's is privileged, and 0 is no barrier
    tells_first = instruction.mnemonic.endswith("isfirst")

    def signal(group: Group) -> Event | None:
        group.pc = place.next_pc
        first = group.machine.barriers.signal(group.start, group.stop) if counts else np.zeros(group.count, np.bool_)
        if tells_first:
            group.scc[...] = first[:, None]
        return Event.SIGNAL if counts else None

    return signal


def _wait(instruction: Instruction, place: Place) -> Terminator:
    if barrier_number(instruction) == barriers.WORKGROUP:
        return _event(Event.WAIT)(instruction, place)
    raise ValueError("a wait that never ends: no wave may signal at that barrier")


TERMINATORS: dict[str, Callable[[Instruction, Place], Terminator]] = {
    "s_branch": _always,
    "s_cbranch_scc0": _branch_on(lambda group: group.scc, False),
    "s_cbranch_scc1": _branch_on(lambda group: group.scc, True),
    "s_cbranch_vccz": _branch_on(_mask_condition((VCC32, VCC64)), False),
    "s_cbranch_vccnz": _branch_on(_mask_condition((VCC32, VCC64)), True),
    "s_cbranch_execz": _branch_on(_mask_condition((EXEC32, EXEC64)), False),
    "s_cbranch_execnz": _branch_on(_mask_condition((EXEC32, EXEC64)), True),
    # No debugger sets the conditional-debug bits of STATUS.
    "s_cbranch_cdbgsys": _never,
    "s_cbranch_cdbguser": _never,
    "s_cbranch_cdbgsys_or_user": _never,
    "s_cbranch_cdbgsys_and_user": _never,
    "s_setpc_b64": _setpc,
    "s_swappc_b64": _swappc,
    "s_call_b64": _call,
    "s_endpgm": _event(Event.END),
    "s_endpgm_saved": _event(Event.END),
    "s_endpgm_ordered_ps_done": _event(Event.END),
    "s_barrier": _event(Event.BARRIER),
    "s_barrier_signal": _signal,
    "s_barrier_signal_isfirst": _signal,
    "s_barrier_wait": _wait,
    "s_sleep": _event(Event.YIELD),
    "s_sleep_var": _event(Event.YIELD),
    "s_icache_inv": _event(Event.REFETCH),
    "s_trap": _trap,
    "s_sethalt": _halt,
    "s_sendmsghalt": _halt,
    "s_subvector_loop_begin": _loop_begin,
    "s_subvector_loop_end": _loop_end,
    "s_round_mode": _mode_field(0),
    "s_denorm_mode": _mode_field(4),
    "s_setreg_b32": _setreg,
    "s_setreg_imm32_b32": _setreg,
}


def _getpc(instruction: Instruction, place: Place) -> Op:
    store, value = store_scalar(instruction.dst[0], U64), constant(place.next_pc, U64)
    return lambda group: store(group, value)


def _sendmsg(instruction: Instruction, place: Place) -> Op:
    if instruction.fields["simm16"] & 0xFF != MSG_INTERRUPT:
        return nothing

    def interrupt(group: Group) -> None:
        for value in group.views[M0_KEY][:, 0].tolist():
            group.machine.interrupt(value)

    return interrupt


def _sendmsg_return(instruction: Instruction, place: Place) -> Op:
    """The 100 MHz counter; doorbell, trap handler and trap memory addresses are zero: there is no trap handler."""
    wide = instruction.mnemonic.endswith("b64")
    dtype = U64 if wide else U32
    store = store_scalar(instruction.dst[0], dtype)
    message = instruction.src[0].value & 0xFF

    def answer(group: Group) -> None:
        store(group, constant(group.machine.realtime() if message == MSG_RTN_GET_REALTIME else 0, dtype))

    return answer


def _status(group: Group, place: Place) -> NDArray[Any]:
    wide = place.lanes == 64
    execz = group.views[EXEC64 if wide else EXEC32] == 0
    vccz = group.views[VCC64 if wide else VCC32] == 0
    scratch = 1 << 29 if group.machine.launch.scratch_wave_bytes else 0
    fixed = np.uint32(1 << 16 | 1 << 11 | scratch)  # VALID, IN_TG, SCRATCH_EN
    zeroes = execz.astype(np.uint32) << 9 | vccz.astype(np.uint32) << 10
    status: NDArray[Any] = group.scc.astype(np.uint32) | zeroes | fixed
    return status


def _status_12(group: Group, place: Place) -> NDArray[Any]:
    """STATUS of gfx12: SCC and SCRATCH_EN are in STATE_PRIV, WAVE64 is new."""
    moved = np.uint32(1 | 1 << 29)
    wave64 = np.uint32(1 << 29 if place.lanes == 64 else 0)
    status: NDArray[Any] = _status(group, place) & ~moved | wave64
    return status


def _state_private(group: Group) -> NDArray[Any]:
    scratch = np.uint32(1 << 18 if group.machine.launch.scratch_wave_bytes else 0)
    complete = group.state.barrier_complete[group.start : group.stop, None].astype(np.uint32)
    value: NDArray[Any] = group.scc.astype(np.uint32) << 9 | complete << 2 | scratch
    return value


def _hardware_register(register: int, group: Group, place: Place) -> NDArray[Any]:
    """The value of a hardware register in each wave; those that are not modelled read zero."""
    machine, state = group.machine, group.state
    waves = slice(group.start, group.stop)
    dispatch = machine.launch.dispatch
    match place.generation.hardware_registers.get(register):
        case "mode":
            return constant(group.mode & place.generation.mode_shown, U32)
        case "status":
            return _status(group, place)
        case "status_12":
            return _status_12(group, place)
        case "state_priv":
            return _state_private(group)
        case "gpr_alloc":
            return constant(machine.launch.vgprs // (8 if place.lanes == 32 else 4) - 1 << 12, U32)
        case "lds_alloc":
            return constant(machine.launch.lds_bytes // 512 << 12, U32)
        case "sh_mem_bases":
            return constant(dispatch.shared_base >> 48 << 16 | dispatch.private_base >> 48, U32)
        case "scratch_lo" | "scratch_hi":
            words: NDArray[Any] = state.scratch_base[waves].view(np.uint32)
            return words[:, register - 20 : register - 19]
        case "hw_id1":  # HW_ID1: WAVE_ID 4:0, SIMD_ID 9:8, WGP_ID 13:10, SA_ID 16, SE_ID 20:18
            slot, number = state.slot[waves, None], state.number[waves, None]
            engine = (slot & 7) << 10 | (slot >> 3 & 1) << 16 | (slot >> 4) % 6 << 18
            return (number >> 2 & 15 | (number & 3) << 8 | engine).astype(np.uint32)
        case "hw_id2":  # HW_ID2: WG_ID 20:16
            return ((state.slot[waves, None] & 31) << 16).astype(np.uint32)
        case "cycles":
            return constant(machine.cycles & place.generation.cycles_mask, U32)
        case "cycles_hi":
            return constant(machine.cycles >> 32 & 0xFFFF_FFFF, U32)
    return constant(0, U32)


def _getreg(instruction: Instruction, place: Place) -> Op:
    register, shift, field = register_field(instruction)
    store = store_scalar(instruction.dst[0], U32)

    def read(group: Group) -> None:
        store(group, _hardware_register(register, group, place) >> np.uint32(shift) & np.uint32(field))

    return read


def _barrier_state(instruction: Instruction, place: Place) -> Op:
    """S_GET_BARRIER_STATE; a barrier that a workgroup does not have is invalid."""
    store = store_scalar(instruction.dst[0], U32)
    source = instruction.src[0]
    if source.kind != Kind.CONSTANT or source.value != barriers.WORKGROUP & 0xFFFF_FFFF:
        return lambda group: store(group, constant(0, U32))
    return lambda group: store(group, group.machine.barriers.report(group.start, group.stop))


SIMPLE: dict[str, Callable[[Instruction, Place], Op]] = {
    "s_getpc_b64": _getpc,
    "s_sendmsg": _sendmsg,
    "s_sendmsg_rtn_b32": _sendmsg_return,
    "s_sendmsg_rtn_b64": _sendmsg_return,
    "s_getreg_b32": _getreg,
    "s_get_barrier_state": _barrier_state,
}


def prepare_simple(instruction: Instruction, place: Place) -> Op | None:
    """The operation of a control instruction that just goes on; None for others."""
    if instruction.mnemonic in IGNORED:
        return nothing
    build = SIMPLE.get(instruction.mnemonic)
    return build(instruction, place) if build is not None else None


def prepare_terminator(instruction: Instruction, place: Place) -> Terminator | None:
    """What a block-ending instruction does; None for others."""
    build = TERMINATORS.get(instruction.mnemonic)
    return build(instruction, place) if build is not None else None
