"""How the addresses of a wave's lanes lie: one behind the other, all the same, or anywhere in one extent.

Addresses come as base + (hi:lo): a scalar and two VGPRs, of which ``hi`` is zero where the instruction has 32-bit
offsets. The tests are on 32 bits, with one high half for all active lanes.
"""

from __future__ import annotations

from amdrv.emulator.isa.native.ir_text import constants, splat, vector
from amdrv.emulator.isa.native.tlb import EXTENT, probe, site_fill, site_probe


def arguments(lanes: int) -> str:
    """What loads and gathers are called with."""
    return f"ptr %ctx, i{lanes} %mask, i64 %base, {vector(lanes)} %lo, {vector(lanes)} %hi, i64 %site"


def pattern(lanes: int, size_bytes: int, access: str) -> str:
    """IR that classifies addresses.

    %wide.ok: the addresses of the lanes in %mask are one element apart, and %start, where lane 0's element is or would
    be, is the first of ``lanes`` elements in the site's extent; add %delta for the host address. %va is the virtual
    address of the first active lane. ``uniform`` asks whether it is that of all of them.
    """
    kind, mask = vector(lanes), f"i{lanes}"
    first = "%k" if lanes == 32 else "%k.narrow"
    convert = "zext i32 %k to i64" if lanes == 32 else "add i64 %k, 0"
    narrow = "" if lanes == 32 else "\n  %k.narrow = trunc i64 %k to i32"
    return f"""
  %k.or = call {mask} @llvm.cttz.{mask}({mask} %mask, i1 false)
  %k = and {mask} %k.or, {lanes - 1}{narrow}
  %k.wide = {convert}
  %lo.k = extractelement {kind} %lo, i32 {first}
  %hi.k = extractelement {kind} %hi, i32 {first}{splat("lo.all", "%lo.k", lanes)}{splat("hi.all", "%hi.k", lanes)}
  %skip = mul i32 {first}, {size_bytes}
  %low.0 = sub i32 %lo.k, %skip{splat("low.all", "%low.0", lanes)}
  %line = add {kind} %low.all, {constants(range(0, lanes * size_bytes, size_bytes))}
  %idle = xor {mask} %mask, -1{agree("line", "%lo", "%line", lanes)}{agree("high", "%hi", "%hi.all", lanes)}
  %no.wrap = icmp ule i32 %lo.k, {(1 << 32) - lanes * size_bytes}
  %lo.k.wide = zext i32 %lo.k to i64
  %hi.k.wide = zext i32 %hi.k to i64
  %hi.k.up = shl i64 %hi.k.wide, 32
  %index = or i64 %lo.k.wide, %hi.k.up
  %va = add i64 %base, %index
  %skip.wide = mul i64 %k.wide, {size_bytes}
  %start = sub i64 %va, %skip.wide{site_probe(access, "%start", lanes * size_bytes)}
  %level = and i1 %line.ok, %high.ok
  %straight = and i1 %level, %no.wrap
  %wide.ok = and i1 %straight, %near"""


def uniform(lanes: int) -> str:
    """IR for %same.ok: the active lanes have one address."""
    return f"""{agree("equal", "%lo", "%lo.all", lanes)}
  %same.ok = and i1 %equal.ok, %high.ok"""


def agree(name: str, x: str, y: str, lanes: int) -> str:
    """IR for %<name>.ok: x and y are equal in all lanes but the %idle ones."""
    kind, mask = vector(lanes), f"i{lanes}"
    return f"""
  %{name}.eq = icmp eq {kind} {x}, {y}
  %{name}.bits = bitcast {vector(lanes, "i1")} %{name}.eq to {mask}
  %{name}.any = or {mask} %{name}.bits, %idle
  %{name}.ok = icmp eq {mask} %{name}.any, -1"""


def window(lanes: int, size_bytes: int, access: str) -> str:
    """IR for the way of all lanes through one extent, which blocks %none, %bad, %apart and %near follow.

    %none: no lane is active. %bad: the first active lane faults, and that is recorded. %apart: the lanes are not known
    to be in one extent. %near: they are; the host address of a lane is %near.base plus its element of %near.lo, which
    in idle lanes is that of the first active one.
    """
    mask, kind, flags = f"i{lanes}", vector(lanes), vector(lanes, "i1")
    narrow = "add i32 %k, 0" if lanes == 32 else "trunc i64 %k to i32"
    parts = "".join(
        f"\n  %{name}.missed = extractvalue {EXTENT} %extent, {number}"
        for number, name in enumerate(("first", "end", "delta", "fault"))
    )
    bounds = "".join(
        f"\n  %{name}.near = phi i64 [%{name}, %some], [%{name}.missed, %missed]" for name in ("first", "end", "delta")
    )
    return f"""
  %nobody = icmp eq {mask} %mask, 0
  br i1 %nobody, label %none, label %some
some:
  %k = call {mask} @llvm.cttz.{mask}({mask} %mask, i1 true)
  %k.lane = {narrow}
  %idle = xor {mask} %mask, -1
  %active = bitcast {mask} %mask to {flags}
  %lo.k = extractelement {kind} %lo, i32 %k.lane
  %hi.k = extractelement {kind} %hi, i32 %k.lane{splat("hi.all", "%hi.k", lanes)}{
        agree("high", "%hi", "%hi.all", lanes)
    }
  %hi.k.wide = zext i32 %hi.k to i64
  %hi.k.up = shl i64 %hi.k.wide, 32
  %origin = add i64 %base, %hi.k.up
  %lo.k.wide = zext i32 %lo.k to i64
  %va = add i64 %origin, %lo.k.wide{probe(access, "%va")}
  br i1 %tag.ok, label %known, label %missed
missed:
  %extent = call {EXTENT} @tlb_extent_{access}.w{lanes}(ptr %ctx, i64 %va, i32 %k.lane){parts}
  br i1 %fault.missed, label %bad, label %known
known:{bounds}{site_fill(access, "%first.near", "%end.near", "%delta.near")}{splat("lo.all", "%lo.k", lanes)}
  %near.lo = select {flags} %active, {kind} %lo, {kind} %lo.all
  %low = sub i64 %first.near, %origin
  %low.0 = call i64 @llvm.smax.i64(i64 %low, i64 0)
  %high.end = sub i64 %end.near, %origin
  %high.last = sub i64 %high.end, {size_bytes}
  %high.0 = call i64 @llvm.smin.i64(i64 %high.last, i64 {(1 << 32) - 1})
  %span = sub i64 %high.0, %low.0
  %span.narrow = trunc i64 %span to i32
  %low.narrow = trunc i64 %low.0 to i32{splat("low.all", "%low.narrow", lanes)}{
        splat("span.all", "%span.narrow", lanes)
    }
  %above = sub {kind} %near.lo, %low.all
  %near.eq = icmp ugt {kind} %above, %span.all
  %near.bits = bitcast {flags} %near.eq to {mask}
  %all.near = icmp eq {mask} %near.bits, 0
  %fit = icmp sge i64 %span, 0
  %near.high = and i1 %all.near, %high.ok
  %near.ok = and i1 %near.high, %fit
  %near.origin = add i64 %origin, %delta.near
  %near.base = inttoptr i64 %near.origin to ptr
  br i1 %near.ok, label %near, label %apart"""


def addresses(lanes: int) -> str:
    """IR for %vas, the virtual addresses of all lanes."""
    wide = vector(lanes, "i64")
    return f"""
  %lo.wide = zext {vector(lanes)} %lo to {wide}
  %hi.wide = zext {vector(lanes)} %hi to {wide}
  %hi.up = shl {wide} %hi.wide, splat (i64 32)
  %spots = or {wide} %lo.wide, %hi.up{splat("bases", "%base", lanes, "i64")}
  %vas = add {wide} %bases, %spots"""


def lane_pointer(lanes: int, lane: int) -> str:
    """IR for %at.<lane>, behind %near."""
    return f"""
  %lo.{lane} = extractelement {vector(lanes)} %near.lo, i64 {lane}
  %offset.{lane} = zext i32 %lo.{lane} to i64
  %at.{lane} = getelementptr i8, ptr %near.base, i64 %offset.{lane}"""
