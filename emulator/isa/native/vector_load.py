"""Loads of a wave from virtual memory: an inline path for contiguous and uniform addresses, and a gather.

``global_load.F.wN`` (see ``tlb``) looks at the first active lane. If the active lanes' addresses are one element apart,
or all the same, and the wave's whole run lies in that lane's extent, one vector or scalar load does it; inactive lanes
may be read along, which nobody sees. Everything else goes to ``gather.F.wN``, which has the same arguments and result:
one translation if all lanes are in one extent, else ``lane_transfer``.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.emulator.isa.native.address_pattern import addresses, arguments, lane_pointer, pattern, uniform, window
from amdrv.emulator.isa.native.ir_text import (
    cold_result,
    cold_type,
    constants,
    deinterleave,
    result,
    result_type,
    shuffle,
    splat,
    vector,
)
from amdrv.emulator.isa.native.lane_transfer import copy, each_probed
from amdrv.emulator.isa.native.library import Function

ROW_BYTES = 64  # tiles of matrices are often narrower than a wave, but seldom narrower than this
ROW_DWORDS = ROW_BYTES // 4


@dataclass(frozen=True, slots=True)
class LoadForm:
    """An element in memory; ``signed`` elements are extended to a dword with their sign."""

    size_bytes: int
    signed: bool = False

    @property
    def dwords(self) -> int:
        """Registers that it fills."""
        return -(-self.size_bytes // 4)


FORMS = {
    "u8": LoadForm(1),
    "i8": LoadForm(1, signed=True),
    "u16": LoadForm(2),
    "i16": LoadForm(2, signed=True),
    "b32": LoadForm(4),
    "b64": LoadForm(8),
    "b96": LoadForm(12),
    "b128": LoadForm(16),
}


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    result = [_load(lanes, name, form) for name, form in FORMS.items()]
    return result + [_gather(lanes, name, form) for name, form in FORMS.items()]


def _load(lanes: int, name: str, form: LoadForm) -> Function:
    head, call = (f"{verb}.{name}.w{lanes}({arguments(lanes)})" for verb in ("global_load", "gather"))
    return inline_load(lanes, head, form, f"@{call}")


def inline_load(lanes: int, head: str, form: LoadForm, slow_call: str) -> Function:
    """A load with the inline path, "NAME(ARGUMENTS)", that leaves other addresses to a call, "@NAME(ARGUMENTS)"."""
    size, dwords, kind = form.size_bytes, form.dwords, vector(lanes)
    returned = result_type(lanes, dwords)
    merged = "".join(
        f"\n  %v{dword} = phi {kind} [%wide{dword}, %wide], [%single{dword}, %single], [%slow{dword}, %slow]"
        for dword in range(dwords)
    )
    cold = cold_type(lanes, dwords)
    slow = "".join(f"\n  %slow{dword} = extractvalue {cold} %gathered, {dword + 1}" for dword in range(dwords))
    text = f"""define {returned} @{head} {{{pattern(lanes, size, "read")}
  br i1 %wide.ok, label %wide, label %other
wide:
  %wide.host = add i64 %start, %delta
  %wide.at = inttoptr i64 %wide.host to ptr{_load_wide(lanes, form)}
  br label %done
other:{uniform(lanes)}
  %single.above = sub i64 %va, %first
  %single.near = icmp ult i64 %single.above, %limit
  %single.ok = and i1 %single.near, %same.ok
  br i1 %single.ok, label %single, label %slow
single:
  %single.host = add i64 %va, %delta
  %single.at = inttoptr i64 %single.host to ptr{_load_single(lanes, form)}
  br label %done
slow:
  %gathered = call {cold} {slow_call} cold noinline{slow}
  %fault.slow = extractvalue {cold} %gathered, 0
  br label %done
done:
  %fault = phi i1 [false, %wide], [false, %single], [%fault.slow, %slow]{merged}{_returned(lanes, dwords)}
}}"""
    return Function(text, inline=True)


def _returned(lanes: int, dwords: int) -> str:
    return result(lanes, [f"%v{dword}" for dword in range(dwords)], "%fault")


def _load_wide(lanes: int, form: LoadForm) -> str:
    """One load of all lanes' elements from %wide.at to %wide0, …"""
    if form.size_bytes < 4:
        bits = 8 * form.size_bytes
        return f"""
  %wide.raw = load {vector(lanes, f"i{bits}")}, ptr %wide.at, align 1
  %wide0 = {"sext" if form.signed else "zext"} {vector(lanes, f"i{bits}")} %wide.raw to {vector(lanes)}"""
    load = f"\n  %wide.raw = load {vector(lanes * form.dwords)}, ptr %wide.at, align 1"
    return load + deinterleave("wide", "%wide.raw", lanes, form.dwords)


def _load_single(lanes: int, form: LoadForm) -> str:
    """One element from %single.at to all lanes of %single0, …"""
    if form.size_bytes < 4:
        small = f"i{8 * form.size_bytes}"
        load = f"""
  %single.raw = load {small}, ptr %single.at, align 1
  %single.dword = {"sext" if form.signed else "zext"} {small} %single.raw to i32"""
        return load + splat("single0", "%single.dword", lanes)
    lines = []
    for dword in range(form.dwords):
        load = f"""
  %single.at{dword} = getelementptr i32, ptr %single.at, i64 {dword}
  %single.raw{dword} = load i32, ptr %single.at{dword}, align 1"""
        lines.append(load + splat(f"single{dword}", f"%single.raw{dword}", lanes))
    return "".join(lines)


def _gather(lanes: int, name: str, form: LoadForm) -> Function:
    size, dwords, mask, wide = form.size_bytes, form.dwords, f"i{lanes}", vector(lanes, "i64")
    returned = cold_type(lanes, dwords)
    transfer = f"ptr %ctx, {mask} %mask, {wide} %vas, i64 {size}, i64 {4 * dwords}, ptr %buffer"
    in_rows = ROW_BYTES % size == 0 and size >= 4
    merged = "".join(
        f"\n  %v{dword} = phi {vector(lanes)} [zeroinitializer, %none], [zeroinitializer, %bad], "
        f"[%quick{dword}, %each], [%part{dword}, %over]" + (f", [%row{dword}, %rows]" if in_rows else "")
        for dword in range(dwords)
    )
    text = f"""define {returned} @gather.{name}.w{lanes}({arguments(lanes)}) {{
  %buffer = alloca {vector(lanes * dwords)}
  %places = alloca {wide}{window(lanes, size, "read")}
near:{_test_rows(lanes, form) if in_rows else f"{chr(10)}  br label %each"}
each:{_gather_lanes(lanes, form)}
  br label %done
apart:{addresses(lanes)}
  store {wide} %vas, ptr %places
  store {vector(lanes * dwords)} zeroinitializer, ptr %buffer{each_probed(lanes, size, "read", "apart")}
hit:
  %own = getelementptr [{dwords} x i32], ptr %buffer, i64 %index{copy(size, "%lane.at", "%own", "moved")}
  br label %turn
strange:
  %strange.fault = call i1 @lanes_read.w{lanes}({transfer}) noinline
  br label %over
over:
  %apart.fault = phi i1 [false, %turn], [%strange.fault, %strange]
  %apart.raw = load {vector(lanes * dwords)}, ptr %buffer{extended("part", "%apart.raw", lanes, form)}
  br label %done
none:
  br label %done
bad:
  br label %done
done:
  %failed = phi i1 [false, %none], [true, %bad], [false, %each], [%apart.fault, %over]{
        ", [false, %rows]" if in_rows else ""
    }{merged}{cold_result(lanes, [f"%v{dword}" for dword in range(dwords)], "%failed")}
}}"""
    return Function(text)


def _test_rows(lanes: int, form: LoadForm) -> str:
    """IR that goes to %each, or loads whole rows, each of which neighbouring lanes share, to %row0, … in %rows."""
    group = ROW_BYTES // form.size_bytes
    kind, mask = vector(lanes), f"i{lanes}"
    firsts = [lane // group * group for lane in range(lanes)]
    steps = constants([lane % group * form.size_bytes for lane in range(lanes)])
    lines = [
        shuffle("row.starts", "i32", lanes, ("%near.lo", "poison"), firsts),
        f"""
  %row.line = add {kind} %row.starts, {steps}
  %row.differ = icmp ne {kind} %near.lo, %row.line
  %row.bits = bitcast {vector(lanes, "i1")} %row.differ to {mask}
  %row.ok = icmp eq {mask} %row.bits, 0
  br i1 %row.ok, label %rows, label %each
rows:""",
    ]
    for number in range(lanes // group):
        lines.append(f"""
  %row.lo.{number} = extractelement {kind} %near.lo, i64 {number * group}
  %row.wide.{number} = zext i32 %row.lo.{number} to i64
  %row.at.{number} = getelementptr i8, ptr %near.base, i64 %row.wide.{number}
  %part{ROW_DWORDS}.{number} = load {vector(ROW_DWORDS)}, ptr %row.at.{number}, align 1""")
    width = ROW_DWORDS
    while width < lanes * form.dwords:
        for number in range(0, lanes * form.dwords // width, 2):
            pair = (f"%part{width}.{number}", f"%part{width}.{number + 1}")
            lines.append(shuffle(f"part{2 * width}.{number // 2}", "i32", width, pair, range(2 * width)))
        width *= 2
    lines.append(deinterleave("row", f"%part{width}.0", lanes, form.dwords))
    return "".join([*lines, "\n  br label %done"])


def _gather_lanes(lanes: int, form: LoadForm) -> str:
    """IR that loads each lane's element to %quick0, …"""
    if form.size_bytes in (8, 16):
        return _gather_wide(lanes, form)
    element = f"i{min(8 * form.size_bytes, 32)}"
    lines, previous = [], ["poison"] * form.dwords
    for lane in range(lanes):
        lines.append(lane_pointer(lanes, lane))
        for dword in range(form.dwords):
            at, name = f"%at.{lane}", f"%g{dword}.{lane}"
            if dword:
                lines.append(f"\n  {at}.{dword} = getelementptr i32, ptr {at}, i64 {dword}")
                at = f"{at}.{dword}"
            lines.append(f"\n  {name}.raw = load {element}, ptr {at}, align 1")
            value = f"{name}.raw"
            if form.size_bytes < 4:
                lines.append(f"\n  {name}.ext = {'sext' if form.signed else 'zext'} {element} {value} to i32")
                value = f"{name}.ext"
            lines.append(f"\n  {name} = insertelement {vector(lanes)} {previous[dword]}, i32 {value}, i64 {lane}")
            previous[dword] = name
    for dword, name in enumerate(previous):
        lines.append(f"\n  %quick{dword} = bitcast {vector(lanes)} {name} to {vector(lanes)}")
    return "".join(lines)


def _gather_wide(lanes: int, form: LoadForm) -> str:
    """8 or 16 bytes of each lane: put side by side, then taken apart."""
    lines = []
    for lane in range(lanes):
        lines.append(lane_pointer(lanes, lane))
        lines.append(f"\n  %row{form.dwords}.{lane} = load {vector(form.dwords)}, ptr %at.{lane}, align 1")
    width = form.dwords
    while width < lanes * form.dwords:
        for number in range(0, lanes * form.dwords // width, 2):
            pair = (f"%row{width}.{number}", f"%row{width}.{number + 1}")
            lines.append(shuffle(f"row{2 * width}.{number // 2}", "i32", width, pair, range(2 * width)))
        width *= 2
    return "".join(lines) + deinterleave("quick", f"%row{width}.0", lanes, form.dwords)


def extended(prefix: str, source: str, lanes: int, form: LoadForm) -> str:
    """IR that takes elements, zero-extended to dwords, apart and extends the signed ones."""
    if not form.signed:
        return deinterleave(prefix, source, lanes, form.dwords)
    shift = f"splat (i32 {32 - 8 * form.size_bytes})"
    return f"""
  %{prefix}.up = shl {vector(lanes)} {source}, {shift}
  %{prefix}0 = ashr {vector(lanes)} %{prefix}.up, {shift}"""
