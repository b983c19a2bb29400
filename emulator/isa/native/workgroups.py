"""The loop over workgroups and their waves, in IR, and the memory through which Python steers it.

Functions, for N = 32 or 64 lanes:

    run_groups.wN(ptr ctx, ptr job) -> i32
        Take workgroups from the plan's counter and run each to its end, until there is none left, the plan says stop,
        or the job has executed its budget of instructions. Returns END then; when a workgroup cannot go on by itself,
        why (an Outcome), and ``resume_group`` goes on with it.
    run_own_groups.wN(ptr ctx, ptr job) -> i32
        The same for units that end at once (``Unit.ends_at_once``). They leave the states of their waves as they were:
        every wave of a workgroup has its own, the next workgroup's differ in its id only, and one call of the unit runs
        all waves of a workgroup.
    resume_group.wN(ptr ctx, ptr job) -> i32
        Go on with the job's workgroup. Returns END when all its waves have ended; POLL when each of them is waiting for
        something that others must do; YIELD when a wave, or all of them from barrier to barrier, have used up the
        budget; and what a wave function returned otherwise, with the wave's number in the job's ``cursor``.
    tlb_miss.wN(ptr ctx, i64 va, i32 access) -> i32
        Fill the TLB from the thread's extents (Context.miss); asks Context.find_extent for one that is not among them.

A job is one workgroup's place on a thread: the memory of its waves' states and of its LDS. A plan is what all jobs of a
dispatch share. A wave gets its state when it is first run, and most waves run to their end at once: one state, which
stays in the host's closest cache, then does for all.
"""

from __future__ import annotations

import ctypes

from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.layout import Barrier, Extent, Outcome, TlbEntry
from amdrv.emulator.isa.native.library import Function

KINDS = 8  # workgroups by whether they are the last, partial one in x (1), y (2) and z (4)
POLL_ROUNDS = 4  # rounds in which all waves of a workgroup just wait, before other workgroups get their turn
ROUNDS_MAX = 1024  # rounds of a workgroup whose waves go from barrier to barrier, before its thread looks up
EXPECTED_MXCSR = 0x1F80  # round to nearest, keep denormals, no traps
RESTORE_MXCSR = "  call void @llvm.x86.sse.ldmxcsr(ptr %mxcsr)\n"


class Kind(ctypes.Structure):
    """The waves of one kind of workgroup as they start: their states up to VGPR 0, one behind the other."""

    _fields_ = (("waves", ctypes.c_uint64), ("templates", ctypes.c_uint64))


class Plan(ctypes.Structure):
    """A dispatch: read by all threads, which change ``next`` and ``stop`` only."""

    _fields_ = (
        ("next", ctypes.c_uint64),  # number of the workgroup to be taken next
        ("total", ctypes.c_uint64),
        ("stop", ctypes.c_uint32),  # no more workgroups are to be taken
        ("groups_x", ctypes.c_uint32),
        ("groups_y", ctypes.c_uint32),
        ("start", ctypes.c_uint32 * 3),  # first workgroup id
        ("last", ctypes.c_uint64 * 3),  # number of the partial workgroup in each dimension, or all ones
        # Where in a wave's state each of its workgroup's ids goes: which bits of it, and how far up in the register.
        ("id_places", ctypes.c_uint64 * 3),
        ("id_masks", ctypes.c_uint32 * 3),
        ("id_shifts", ctypes.c_uint32 * 3),
        ("id_keeps", ctypes.c_uint32 * 3),  # bits of the register that an id further down has set
        ("own_states", ctypes.c_uint32),  # the dispatch is one for ``run_own_groups``
        ("kinds", Kind * KINDS),
        ("state_bytes", ctypes.c_uint64),
        ("clear_bytes", ctypes.c_uint64),  # of VGPRs from number 1 on that are zeroed when a wave starts
        ("lds_bytes", ctypes.c_uint64),
        ("scratch_wave_bytes", ctypes.c_uint64),
    )


class Job(ctypes.Structure):
    """A workgroup's place on a thread."""

    _anonymous_ = ("barrier",)
    _fields_ = (
        ("plan", ctypes.c_uint64),
        ("states", ctypes.c_uint64),
        ("lds", ctypes.c_uint64),
        ("scratch", ctypes.c_uint64),  # virtual address of the private memory of the place
        ("slot", ctypes.c_uint32),
        ("waves", ctypes.c_uint32),
        ("barrier", Barrier),
        ("started", ctypes.c_uint32),  # waves that have been given a state
        ("states_used", ctypes.c_uint32),  # states in use: those of waves that ended last are used again
        ("cursor", ctypes.c_uint32),  # the state of the wave that runs, or is to be run next
        ("group", ctypes.c_uint32 * 3),  # id of the workgroup
        ("templates", ctypes.c_uint64),  # of its kind
        ("number", ctypes.c_uint64),  # of the workgroup
        ("left", ctypes.c_int64),  # budget of instructions
        # For ``run_own_groups``: the templates that the first states are copies of, and how many are.
        ("held", ctypes.c_uint64),
        ("held_waves", ctypes.c_uint32),
        # Totals of ended waves.
        ("waves_ended", ctypes.c_uint64),
        ("instructions", ctypes.c_uint64),
    )


def _place(structure: type[ctypes.Structure], name: str) -> int:
    descriptor: int = getattr(structure, name).offset
    return descriptor


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    return [
        *(_run_groups(lanes), _run_own_groups(lanes), _start_group(lanes), _run_own_group(lanes)),
        *(_start_wave(lanes), _resume_group(lanes), _run_group(lanes), _tlb_miss(lanes)),
    ]


def _at(target: str, base: str, offset: int | str) -> str:
    return f"  %{target}.at = getelementptr i8, ptr {base}, i64 {offset}\n"


def _load(target: str, kind: str, base: str, offset: int | str) -> str:
    """IR that loads %<target> from a pointer plus an offset; its address is %<target>.at."""
    return f"{_at(target, base, offset)}  %{target} = load {kind}, ptr %{target}.at\n"


def _store(name: str, value: str, base: str, offset: int | str) -> str:
    return f"{_at(name, base, offset)}  store {value}, ptr %{name}.at\n"


def _job(target: str, kind: str) -> str:
    return _load(target, kind, "%job", _place(Job, target))


def _plan(target: str, kind: str) -> str:
    return _load(target, kind, "%plan", _place(Plan, target))


def _run_groups(lanes: int) -> Function:
    return Function(_take_groups(f"run_groups.w{lanes}", f"run_group.w{lanes}", lanes))


def _run_own_groups(lanes: int) -> Function:
    return Function(_take_groups(f"run_own_groups.w{lanes}", f"run_own_group.w{lanes}", lanes))


def _take_groups(name: str, runs: str, lanes: int) -> str:
    """A function that takes workgroups from the plan and lets another one run each of them."""
    return f"""define i32 @{name}(ptr %ctx, ptr %job) {{
{_set_mxcsr()}{_job("plan", "ptr")}{_plan("total", "i64")}{_at("next", "%plan", _place(Plan, "next"))}\
{_at("stop", "%plan", _place(Plan, "stop"))}{_at("left", "%job", _place(Job, "left"))}  br label %again
again:
  %stop = load atomic i32, ptr %stop.at monotonic, align 4
  %stopped = icmp ne i32 %stop, 0
  %left = load i64, ptr %left.at
  %spent = icmp slt i64 %left, 0
  %enough = or i1 %stopped, %spent
  br i1 %enough, label %end, label %take
take:
  %number = atomicrmw add ptr %next.at, i64 1 monotonic
  %over = icmp uge i64 %number, %total
  br i1 %over, label %end, label %start
start:
  call void @start_group.w{lanes}(ptr %job, i64 %number)
  %outcome = call i32 @{runs}(ptr %ctx, ptr %job)
  %ended = icmp eq i32 %outcome, {int(Outcome.END)}
  br i1 %ended, label %again, label %end
end:
  %result = phi i32 [{int(Outcome.END)}, %again], [{int(Outcome.END)}, %take], [%outcome, %start]
{RESTORE_MXCSR}  ret i32 %result
}}"""


def _set_mxcsr() -> str:
    """IR that sets the host's float modes as compiled code expects them; RESTORE_MXCSR undoes it."""
    return f"""  %mxcsr = alloca i32
  %usual = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %mxcsr)
  store i32 {EXPECTED_MXCSR}, ptr %usual
  call void @llvm.x86.sse.ldmxcsr(ptr %usual)
"""


def _start_group(lanes: int) -> Function:
    """Id and kind of the workgroup from its number; none of its waves has begun."""
    ids = "".join(
        f"""{_load(f"start.{axis}", "i32", "%plan", _place(Plan, "start") + 4 * number)}\
{_load(f"last.{axis}", "i64", "%plan", _place(Plan, "last") + 8 * number)}\
  %narrow.{axis} = trunc i64 %number.{axis} to i32
  %id.{axis} = add i32 %narrow.{axis}, %start.{axis}
  %partial.{axis} = icmp eq i64 %number.{axis}, %last.{axis}
  %kind.{axis} = select i1 %partial.{axis}, i64 {1 << number}, i64 0
{_store(f"group.{axis}", f"i32 %id.{axis}", "%job", _place(Job, "group") + 4 * number)}"""
        for number, axis in enumerate("xyz")
    )
    stores = "".join(
        _store(f"job.{name}", f"i32 {value}", "%job", _place(Job, name))
        for name, value in (
            *(("waves", "%waves"), ("alive", "%waves"), ("signals", 0), ("phase", 0)),
            *(("started", 0), ("states_used", 0), ("cursor", 0)),
        )
    )
    return Function(
        f"""define void @start_group.w{lanes}(ptr %job, i64 %number) {{
{_job("plan", "ptr")}{_plan("groups_x", "i32")}{_plan("groups_y", "i32")}  %wide.x = zext i32 %groups_x to i64
  %wide.y = zext i32 %groups_y to i64
  %row.first = icmp ult i64 %number, %wide.x
  br i1 %row.first, label %found, label %divide
divide:
  %rem.x = urem i64 %number, %wide.x
  %rest = udiv i64 %number, %wide.x
  %rem.y = urem i64 %rest, %wide.y
  %div.z = udiv i64 %rest, %wide.y
  br label %found
found:
  %number.x = phi i64 [%number, %0], [%rem.x, %divide]
  %number.y = phi i64 [0, %0], [%rem.y, %divide]
  %number.z = phi i64 [0, %0], [%div.z, %divide]
{ids}  %kind.xy = or i64 %kind.x, %kind.y
  %kind = or i64 %kind.xy, %kind.z
  %kind.scaled = mul i64 %kind, {ctypes.sizeof(Kind)}
{_at("kind", "%plan", _place(Plan, "kinds"))}{_at("row", "%kind.at", "%kind.scaled")}\
{_load("wide.waves", "i64", "%row.at", 0)}{_load("templates", "i64", "%row.at", 8)}\
  %waves = trunc i64 %wide.waves to i32
{stores}{_store("job.number", "i64 %number", "%job", _place(Job, "number"))}\
{_store("job.templates", "i64 %templates", "%job", _place(Job, "templates"))}\
{_plan("lds_bytes", "i64")}  %has.lds = icmp ne i64 %lds_bytes, 0
  br i1 %has.lds, label %clear, label %done
clear:
{_job("lds", "ptr")}  call void @llvm.memset.p0.i64(ptr align 64 %lds, i8 0, i64 %lds_bytes, i1 false)
  br label %done
done:
  ret void
}}"""
    )


def _id_loads(axis: str, number: int) -> str:
    """IR for %id, %place (of it in a state), %keep and %part (its bits there) of the workgroup in one dimension."""
    return f"""{_load(f"id.{axis}", "i32", "%job", _place(Job, "group") + 4 * number)}\
{_load(f"place.{axis}", "i64", "%plan", _place(Plan, "id_places") + 8 * number)}\
{_load(f"mask.{axis}", "i32", "%plan", _place(Plan, "id_masks") + 4 * number)}\
{_load(f"up.{axis}", "i32", "%plan", _place(Plan, "id_shifts") + 4 * number)}\
{_load(f"keep.{axis}", "i32", "%plan", _place(Plan, "id_keeps") + 4 * number)}\
  %cut.{axis} = and i32 %id.{axis}, %mask.{axis}
  %part.{axis} = shl i32 %cut.{axis}, %up.{axis}
"""


def _id_stores(axis: str, number: int, state: str) -> str:
    """IR that puts them into a state."""
    return f"""{_store(f"group.{axis}", f"i32 %id.{axis}", state, layout.STATE_GROUP + 4 * number)}\
{_load(f"sgpr.{axis}", "i32", state, f"%place.{axis}")}  %kept.{axis} = and i32 %sgpr.{axis}, %keep.{axis}
  %whole.{axis} = or i32 %kept.{axis}, %part.{axis}
  store i32 %whole.{axis}, ptr %sgpr.{axis}.at
"""


def _copy_template(lanes: int) -> str:
    """IR that fills %state, of wave %number, from its template, and says where the wave is."""
    template_bytes = layout.STATE_VGPR + 4 * lanes
    template = f"<{template_bytes // 4} x i32>"
    return f"""  %row = mul i64 %number, {template_bytes}
{_at("template", "%templates", "%row")}  %words = load {template}, ptr %template.at, align 64
  store {template} %words, ptr %state, align 64
{_store("slot.of", "i32 %slot", "%state", layout.STATE_SLOT)}\
  %private.shift = mul i64 %number, %scratch_wave_bytes
  %private = add i64 %scratch, %private.shift
{_store("private", "i64 %private", "%state", layout.STATE_SCRATCH)}"""


def _start_wave(lanes: int) -> Function:
    """The state of wave number %wave from its template."""
    return Function(
        f"""define void @start_wave.w{lanes}(ptr %job, ptr %plan, i32 %wave, ptr %state) {{
{_job("templates", "ptr")}{_job("slot", "i32")}{_job("scratch", "i64")}{_plan("clear_bytes", "i64")}\
{_plan("scratch_wave_bytes", "i64")}\
  %number = zext i32 %wave to i64
{_copy_template(lanes)}{"".join(_id_loads(axis, i) + _id_stores(axis, i, "%state") for i, axis in enumerate("xyz"))}\
  %clears = icmp ne i64 %clear_bytes, 0
  br i1 %clears, label %clear, label %done
clear:
{_at("vgpr", "%state", layout.STATE_VGPR + 4 * lanes)}\
  call void @llvm.memset.p0.i64(ptr align 64 %vgpr.at, i8 0, i64 %clear_bytes, i1 false)
  br label %done
done:
  ret void
}}""",
        inline=True,
    )


def _run_own_group(lanes: int) -> Function:
    """One call runs all waves. If it comes back early, ``resume_group`` can go on with what it finds.

    Workgroups that follow one another mostly differ in x only, which shares its register with nothing.
    """
    end, start = int(Outcome.END), int(Outcome.YIELD)
    counters = "".join(
        _store(f"job.{name}", f"i32 {value}", "%job", _place(Job, name))
        for name, value in (("alive", "%alive"), ("started", "%waves"), ("states_used", "%waves"), ("cursor", "%k"))
    )
    return Function(
        f"""define i32 @run_own_group.w{lanes}(ptr %ctx, ptr %job) {{
{_job("plan", "ptr")}{_plan("state_bytes", "i64")}{_job("waves", "i32")}{_job("states", "ptr")}{_job("lds", "i64")}\
{_store("ctx.lds", "i64 %lds", "%ctx", layout.offset("lds"))}{_at("barrier", "%job", _place(Job, "alive"))}\
{_store("ctx.barrier", "ptr %barrier.at", "%ctx", layout.offset("barrier"))}\
{_job("templates", "ptr")}{_job("held", "ptr")}{_job("held_waves", "i32")}  %same = icmp eq ptr %held, %templates
  %copied = select i1 %same, i32 %held_waves, i32 0
  %copied.wide = zext i32 %copied to i64
  %waves.wide = zext i32 %waves to i64
  %lack = icmp ult i32 %copied, %waves
{"".join(_id_loads(axis, i) for i, axis in enumerate("xyz"))}  br i1 %lack, label %copies, label %ids
copies:
{_job("slot", "i32")}{_job("scratch", "i64")}{_plan("scratch_wave_bytes", "i64")}\
  store ptr %templates, ptr %held.at
  store i32 %waves, ptr %held_waves.at
  br label %copy
copy:
  %number = phi i64 [%copied.wide, %copies], [%number.next, %copy]
  %shift = mul i64 %number, %state_bytes
  %state = getelementptr i8, ptr %states, i64 %shift
{_copy_template(lanes)}  %number.next = add i64 %number, 1
  %copy.more = icmp ult i64 %number.next, %waves.wide
  br i1 %copy.more, label %copy, label %ids
ids:
{_load("last.y", "i32", "%states", layout.STATE_GROUP + 4)}{_load("last.z", "i32", "%states", layout.STATE_GROUP + 8)}\
  %other.y = icmp ne i32 %id.y, %last.y
  %other.z = icmp ne i32 %id.z, %last.z
  %other = or i1 %other.y, %other.z
  %all.ids = or i1 %lack, %other
  br i1 %all.ids, label %every, label %only
every:
  %w = phi i64 [0, %ids], [%w.next, %every]
  %every.shift = mul i64 %w, %state_bytes
  %its = getelementptr i8, ptr %states, i64 %every.shift
{"".join(_id_stores(axis, i, "%its") for i, axis in enumerate("xyz"))}\
  %w.next = add i64 %w, 1
  %w.more = icmp ult i64 %w.next, %waves.wide
  br i1 %w.more, label %every, label %go
only:
  %v = phi i64 [0, %ids], [%v.next, %only]
  %only.shift = mul i64 %v, %state_bytes
  %own = getelementptr i8, ptr %states, i64 %only.shift
{_store("only.group", "i32 %id.x", "%own", layout.STATE_GROUP)}{_store("only.sgpr", "i32 %part.x", "%own", "%place.x")}\
  %v.next = add i64 %v, 1
  %v.more = icmp ult i64 %v.next, %waves.wide
  br i1 %v.more, label %only, label %go
go:
{_store("count.first", "i64 0", "%states", layout.STATE_COUNT)}\
{_load("cell", "ptr", "%states", layout.STATE_CELL)}{_load("base", "i64", "%states", layout.STATE_BASE)}\
  %unit = load atomic ptr, ptr %cell monotonic, align 8
  %result = call i32 %unit(ptr %ctx, ptr %states, i64 %base, i32 %waves)
  %count = load i64, ptr %count.first.at
{_job("left", "i64")}{_job("waves_ended", "i64")}{_job("instructions", "i64")}  %left.less = sub i64 %left, %count
  store i64 %left.less, ptr %left.at
  %instructions.more = add i64 %instructions, %count
  store i64 %instructions.more, ptr %instructions.at
  %done = icmp eq i32 %result, {end}
  br i1 %done, label %all, label %some
all:
  %ended.all = add i64 %waves_ended, %waves.wide
  store i64 %ended.all, ptr %waves_ended.at
{_store("none.alive", "i32 0", "%job", _place(Job, "alive"))}  ret i32 {end}
some:
{_load("stopped", "i64", "%ctx", layout.offset("stopped_state"))}  %from = ptrtoint ptr %states to i64
  %distance = sub i64 %stopped, %from
  %k.wide = udiv i64 %distance, %state_bytes
  %k = trunc i64 %k.wide to i32
  %alive = sub i32 %waves, %k
  %ended.some = add i64 %waves_ended, %k.wide
  store i64 %ended.some, ptr %waves_ended.at
{counters}  store ptr null, ptr %held.at
  br label %mark
mark:
  %m = phi i64 [0, %some], [%m.next, %mark]
  %m.shift = mul i64 %m, %state_bytes
  %m.state = getelementptr i8, ptr %states, i64 %m.shift
  %m.ended = icmp ult i64 %m, %k.wide
  %m.outcome = select i1 %m.ended, i32 {end}, i32 {start}
{_store("m.count", "i64 0", "%m.state", layout.STATE_COUNT)}\
{_store("outcome", "i32 %m.outcome", "%m.state", layout.STATE_OUTCOME)}  %m.next = add i64 %m, 1
  %m.more = icmp ult i64 %m.next, %waves.wide
  br i1 %m.more, label %mark, label %leave
leave:
  ret i32 %result
}}"""
    )


def _resume_group(lanes: int) -> Function:
    return Function(
        f"""define i32 @resume_group.w{lanes}(ptr %ctx, ptr %job) {{
{_set_mxcsr()}  %outcome = call i32 @run_group.w{lanes}(ptr %ctx, ptr %job)
{RESTORE_MXCSR}  ret i32 %outcome
}}"""
    )


def _run_group(lanes: int) -> Function:
    """Rounds over the states, then over waves that have none yet.

    STATE_OUTCOME says whether a wave can run: END and BARRIER say that it cannot, WAIT that it can once the phase of
    the split barrier has moved. A split barrier at which nobody signals is waited at as for other workgroups.
    """
    end, barrier, poll, start, wait = (int(Outcome[name]) for name in ("END", "BARRIER", "POLL", "YIELD", "WAIT"))
    return Function(
        f"""define i32 @run_group.w{lanes}(ptr %ctx, ptr %job) {{
{_job("plan", "ptr")}{_plan("state_bytes", "i64")}{_job("waves", "i32")}{_job("states", "ptr")}\
{_job("lds", "i64")}{_job("cursor", "i32")}{_at("alive", "%job", _place(Job, "alive"))}\
{_at("started", "%job", _place(Job, "started"))}{_at("states_used", "%job", _place(Job, "states_used"))}\
{_store("ctx.lds", "i64 %lds", "%ctx", layout.offset("lds"))}\
{_store("ctx.barrier", "ptr %alive.at", "%ctx", layout.offset("barrier"))}\
{_load("budget", "i32", "%ctx", layout.offset("budget"))}\
{_at("signals", "%job", _place(Job, "signals"))}{_at("phase", "%job", _place(Job, "phase"))}  br label %round
round:
  %first = phi i32 [%cursor, %0], [0, %go.on], [0, %go.past]
  %idle.before = phi i32 [0, %0], [%idle.now, %go.on], [0, %go.past]
  %rounds = phi i32 [1, %0], [%rounds.more, %go.on], [%rounds.more, %go.past]
  %count.first = phi i64 [-1, %0], [%count.first, %go.on], [%count.base, %go.past]
  %rounds.more = add i32 %rounds, 1
  %long = icmp ugt i32 %rounds, {ROUNDS_MAX}
  br label %wave
wave:
  %i = phi i32 [%first, %round], [%i.next, %next], [%i, %free]
  %progress = phi i1 [false, %round], [%progress.now, %next], [true, %free]
  %i.wide = zext i32 %i to i64
  %shift = mul i64 %i.wide, %state_bytes
  %state = getelementptr i8, ptr %states, i64 %shift
{_at("outcome", "%state", layout.STATE_OUTCOME)}  %used = load i32, ptr %states_used.at
  %within = icmp ult i32 %i, %used
  br i1 %within, label %look, label %more
look:
  %outcome = load i32, ptr %outcome.at
  %waits = icmp ule i32 %outcome, {barrier}
  br i1 %waits, label %next, label %able
able:
  %splits = icmp eq i32 %outcome, {wait}
  br i1 %splits, label %split, label %run
split:
{_load("seen", "i32", "%state", layout.STATE_PHASE)}  %phase = load i32, ptr %phase.at
  %closed = icmp eq i32 %seen, %phase
  br i1 %closed, label %next, label %open
open:
  store i32 %phase, ptr %seen.at
  br label %run
more:
  %started = load i32, ptr %started.at
  %all.started = icmp uge i32 %started, %waves
  br i1 %all.started, label %round.end, label %begin
begin:
  call void @start_wave.w{lanes}(ptr %job, ptr %plan, i32 %started, ptr %state)
  %started.more = add i32 %started, 1
  store i32 %started.more, ptr %started.at
  %used.more = add i32 %i, 1
  store i32 %used.more, ptr %states_used.at
  br label %run
run:
{_load("cell", "ptr", "%state", layout.STATE_CELL)}{_load("base", "i64", "%state", layout.STATE_BASE)}\
  %unit = load atomic ptr, ptr %cell monotonic, align 8
  %result = call i32 %unit(ptr %ctx, ptr %state, i64 %base, i32 1)
  store i32 %result, ptr %outcome.at
  switch i32 %result, label %leave [ i32 {end}, label %ended i32 {barrier}, label %stopped i32 {poll}, label %polled \
i32 {start}, label %yielded i32 {wait}, label %stopped ]
ended:
  %alive.before = load i32, ptr %alive.at
  %alive.less = sub i32 %alive.before, 1
  store i32 %alive.less, ptr %alive.at
  %signals = load i32, ptr %signals.at
  %signalled = icmp ne i32 %signals, 0
  %enough = icmp uge i32 %signals, %alive.less
  %completes = and i1 %signalled, %enough
  %phase.old = load i32, ptr %phase.at
  %phase.step = zext i1 %completes to i32
  %phase.new = add i32 %phase.old, %phase.step
  store i32 %phase.new, ptr %phase.at
  %signals.new = select i1 %completes, i32 0, i32 %signals
  store i32 %signals.new, ptr %signals.at
{_load("count", "i64", "%state", layout.STATE_COUNT)}{_job("left", "i64")}{_job("waves_ended", "i64")}\
{_job("instructions", "i64")}  %left.less = sub i64 %left, %count
  store i64 %left.less, ptr %left.at
  %ended.more = add i64 %waves_ended, 1
  store i64 %ended.more, ptr %waves_ended.at
  %instructions.more = add i64 %instructions, %count
  store i64 %instructions.more, ptr %instructions.at
  %used.now = load i32, ptr %states_used.at
  %behind = add i32 %i, 1
  %is.last = icmp eq i32 %behind, %used.now
  br i1 %is.last, label %free, label %next
free:
  store i32 %i, ptr %states_used.at
  br label %wave
next:
  %progress.now = phi i1 [%progress, %look], [%progress, %split], [true, %stopped], [%progress, %polled], \
[true, %ended]
  %i.next = add i32 %i, 1
  br label %wave
yielded:
  %after = add i32 %i, 1
  br label %leave
leave:
  %stop = phi i32 [%i, %run], [%after, %yielded]
{_store("job.cursor", "i32 %stop", "%job", _place(Job, "cursor"))}  ret i32 %result
stopped:
  br label %next
polled:
  br label %next
round.end:
  %alive = load i32, ptr %alive.at
  %none = icmp eq i32 %alive, 0
  br i1 %none, label %all.ended, label %count.blocked
all.ended:
  ret i32 {end}
count.blocked:
  %held = load i32, ptr %states_used.at
  br label %check
check:
  %k = phi i32 [0, %count.blocked], [%k.next, %check.next]
  %count.sum = phi i64 [0, %count.blocked], [%count.next, %check.next]
  %k.within = icmp ult i32 %k, %held
  br i1 %k.within, label %check.one, label %release
check.one:
  %k.wide = zext i32 %k to i64
  %k.shift = mul i64 %k.wide, %state_bytes
  %k.state = getelementptr i8, ptr %states, i64 %k.shift
{_load("k.outcome", "i32", "%k.state", layout.STATE_OUTCOME)}  %k.runs = icmp ugt i32 %k.outcome, {barrier}
  br i1 %k.runs, label %round.over, label %check.next
check.next:
{_load("k.count", "i64", "%k.state", layout.STATE_COUNT)}  %count.next = add i64 %count.sum, %k.count
  %k.next = add i32 %k, 1
  br label %check
release:
  br label %release.one
release.one:
  %r = phi i32 [0, %release], [%r.next, %release.next]
  %r.within = icmp ult i32 %r, %held
  br i1 %r.within, label %release.look, label %released
release.look:
  %r.wide = zext i32 %r to i64
  %r.shift = mul i64 %r.wide, %state_bytes
  %r.state = getelementptr i8, ptr %states, i64 %r.shift
{_load("r.outcome", "i32", "%r.state", layout.STATE_OUTCOME)}  %r.blocked = icmp eq i32 %r.outcome, {barrier}
  br i1 %r.blocked, label %release.store, label %release.next
release.store:
  store i32 {start}, ptr %r.outcome.at
  br label %release.next
release.next:
  %r.next = add i32 %r, 1
  br label %release.one
released:
  %unknown = icmp eq i64 %count.first, -1
  %count.base = select i1 %unknown, i64 %count.sum, i64 %count.first
  %spent = sub i64 %count.sum, %count.base
  %budget.wide = zext i32 %budget to i64
  %dear = icmp ugt i64 %spent, %budget.wide
  %pause = or i1 %dear, %long
  br i1 %pause, label %look.up, label %go.past
go.past:
  br label %round
round.over:
  %idle.more = add i32 %idle.before, 1
  %idle.now = select i1 %progress, i32 0, i32 %idle.more
  %waiting = icmp uge i32 %idle.now, {POLL_ROUNDS}
  br i1 %waiting, label %others, label %go.further
go.further:
  br i1 %long, label %look.up, label %go.on
go.on:
  br label %round
look.up:
{_store("cursor.again", "i32 0", "%job", _place(Job, "cursor"))}  ret i32 {start}
others:
{_store("cursor.first", "i32 0", "%job", _place(Job, "cursor"))}  ret i32 {poll}
}}"""
    )


def _tlb_miss(lanes: int) -> Function:
    scale = ctypes.sizeof(Extent)
    write = int(Access.WRITE)

    def chosen(target: str, kind: str, name: str) -> str:
        places = [layout.offset(name.format(access)) for access in ("write", "read")]
        return f"  %{target}.place = select i1 %writes, i64 {places[0]}, i64 {places[1]}\n" + _load(
            target, kind, "%ctx", f"%{target}.place"
        )

    return Function(
        f"""define i32 @tlb_miss.w{lanes}(ptr %ctx, i64 %va, i32 %access) {{
  %writes = icmp eq i32 %access, {write}
{chosen("extents", "ptr", "extents_{}")}{chosen("count", "i32", "extents_{}_count")}{chosen("tlb", "ptr", "tlb_{}")}\
  br label %look
look:
  %i = phi i32 [0, %0], [%i.next, %other]
  %within = icmp ult i32 %i, %count
  br i1 %within, label %one, label %ask
one:
  %i.wide = zext i32 %i to i64
  %shift = mul i64 %i.wide, {scale}
  %extent = getelementptr i8, ptr %extents, i64 %shift
{_load("first", "i64", "%extent", 0)}{_load("end", "i64", "%extent", 8)}  %above = icmp uge i64 %va, %first
  %below = icmp ult i64 %va, %end
  %inside = and i1 %above, %below
  br i1 %inside, label %fill, label %other
other:
  %i.next = add i32 %i, 1
  br label %look
fill:
{_load("delta", "i64", "%extent", 16)}  %page = lshr i64 %va, {layout.TLB_PAGE_SHIFT}
  %hash = mul i64 %page, {layout.TLB_HASH}
  %index = lshr i64 %hash, {layout.TLB_HASH_SHIFT}
  %place = mul i64 %index, {ctypes.sizeof(TlbEntry)}
  %entry = getelementptr i8, ptr %tlb, i64 %place
  store i64 %page, ptr %entry
{_store("entry.first", "i64 %first", "%entry", 8)}{_store("entry.end", "i64 %end", "%entry", 16)}\
{_store("entry.delta", "i64 %delta", "%entry", 24)}  ret i32 1
ask:
{_load("find", "ptr", "%ctx", layout.offset("find_extent"))}\
  %found = call i32 %find(ptr %ctx, i64 %va, i32 %access)
  ret i32 %found
}}"""
    )
