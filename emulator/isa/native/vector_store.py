"""Stores of a wave to virtual memory: an inline path for contiguous addresses, and a scatter.

``global_store.F.wN`` (see ``tlb``) stores one vector where the active lanes' addresses are one element apart and the
wave's whole run lies in one extent: under the mask for 4 and 8 bytes, only for a full mask otherwise. Everything else
goes to ``scatter.F.wN``, which has the same arguments and result: one translation if all lanes are in one extent, else
``lane_transfer``. Of equal addresses the last lane's value stays; nothing is written when a lane faults.
"""

from __future__ import annotations

from amdrv.emulator.isa.native.address_pattern import addresses, arguments, lane_pointer, pattern, window
from amdrv.emulator.isa.native.ir_text import interleave, vector
from amdrv.emulator.isa.native.lane_transfer import copy, each_probed
from amdrv.emulator.isa.native.library import Function

SIZES = {"b8": 1, "b16": 2, "b32": 4, "b64": 8, "b96": 12, "b128": 16}
_UNDER_MASK = ("b32", "b64")  # hosts without AVX-512 have masked stores for these only


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    stores = [_store(lanes, name) for name in SIZES]
    return stores + [_scatter(lanes, name) for name in SIZES]


def _dwords(name: str) -> int:
    return -(-SIZES[name] // 4)


def data_arguments(lanes: int, name: str) -> str:
    """The data registers of a form, as they follow the address."""
    return "".join(f", {vector(lanes)} %data{dword}" for dword in range(_dwords(name)))


def _arguments(lanes: int, name: str) -> str:
    return arguments(lanes) + data_arguments(lanes, name)


def _store(lanes: int, name: str) -> Function:
    head, call = (f"{verb}.{name}.w{lanes}({_arguments(lanes, name)})" for verb in ("global_store", "scatter"))
    return inline_store(lanes, head, name, f"@{call}")


def inline_store(lanes: int, head: str, name: str, slow_call: str) -> Function:
    """A store with the inline path, "NAME(ARGUMENTS)", that leaves other addresses to a call, "@NAME(ARGUMENTS)"."""
    condition = "%wide.ok"
    tests = pattern(lanes, SIZES[name], "write")
    if name not in _UNDER_MASK:
        condition = "%full.ok"
        tests += f"\n  %full = icmp eq i{lanes} %mask, -1\n  %full.ok = and i1 %wide.ok, %full"
    text = f"""define i1 @{head} {{{tests}
  br i1 {condition}, label %wide, label %slow
wide:
  %wide.host = add i64 %start, %delta
  %wide.at = inttoptr i64 %wide.host to ptr{_store_wide(lanes, name)}
  br label %done
slow:
  %fault.slow = call i1 {slow_call} cold noinline
  br label %done
done:
  %fault = phi i1 [false, %wide], [%fault.slow, %slow]
  ret i1 %fault
}}"""
    return Function(text, inline=True)


def _store_wide(lanes: int, name: str) -> str:
    """One store of all lanes' elements to %wide.at."""
    size, dwords = SIZES[name], _dwords(name)
    if size < 4:
        kind = vector(lanes, f"i{8 * size}")
        return f"""
  %wide.raw = trunc {vector(lanes)} %data0 to {kind}
  store {kind} %wide.raw, ptr %wide.at, align 1"""
    joined = interleave("wide.raw", [f"%data{dword}" for dword in range(dwords)], lanes)
    if name not in _UNDER_MASK:
        return f"{joined}\n  store {vector(lanes * dwords)} %wide.raw, ptr %wide.at, align 1"
    element, kind, flags = f"i{8 * size}", vector(lanes, f"i{8 * size}"), vector(lanes, "i1")
    return f"""{joined}
  %wide.element = bitcast {vector(lanes * dwords)} %wide.raw to {kind}
  %wide.mask = bitcast i{lanes} %mask to {flags}
  call void @llvm.masked.store.v{lanes}{element}.p0({kind} %wide.element, ptr align 1 %wide.at, {flags} %wide.mask)"""


def _scatter(lanes: int, name: str) -> Function:
    size, dwords, mask, wide = SIZES[name], _dwords(name), f"i{lanes}", vector(lanes, "i64")
    data = [f"%data{dword}" for dword in range(dwords)]
    rows = vector(lanes * dwords)
    transfer = f"ptr %ctx, {mask} %mask, {wide} %vas, i64 {size}, i64 {4 * dwords}, ptr %buffer"
    near_pointer = """
  %few.lo.at = getelementptr i32, ptr %places, i64 %few.index
  %few.lo = load i32, ptr %few.lo.at
  %few.offset = zext i32 %few.lo to i64
  %few.to = getelementptr i8, ptr %near.base, i64 %few.offset"""
    far_pointer = """
  %over.host = getelementptr i64, ptr %places, i64 %over.index
  %over.to = load ptr, ptr %over.host"""
    apart = "[%apart.fault, %strange], [false, %over.turn]"
    text = f"""define i1 @scatter.{name}.w{lanes}({_arguments(lanes, name)}) {{
  %buffer = alloca {rows}
  %places = alloca {wide}{window(lanes, size, "write")}
near:{interleave("rows", data, lanes)}
  %full = icmp eq {mask} %mask, -1
  br i1 %full, label %all, label %few
all:{_scatter_lanes(lanes, name)}
  br label %done
few:
  store {rows} %rows, ptr %buffer
  store {vector(lanes)} %near.lo, ptr %places{_each(lanes, name, "few", near_pointer)}
apart:{addresses(lanes)}{interleave("apart.rows", data, lanes)}
  store {rows} %apart.rows, ptr %buffer
  store {wide} %vas, ptr %places{each_probed(lanes, size, "write", "apart")}
hit:
  store i64 %lane.host, ptr %from
  br label %turn
strange:
  %apart.fault = call i1 @lanes_write.w{lanes}({transfer}) noinline
  br label %done
over:{_each(lanes, name, "over", far_pointer)}
none:
  br label %done
bad:
  br label %done
done:
  %stored = phi i1 [false, %none], [true, %bad], [false, %all], [false, %few.turn], {apart}
  ret i1 %stored
}}"""
    return Function(text)


def _each(lanes: int, name: str, label: str, pointer: str) -> str:
    """IR of a loop that stores each active lane's element from %buffer; goes to %done from %<label>.turn.

    ``pointer`` computes %<label>.to, where the element of lane %<label>.index goes.
    """
    mask = f"i{lanes}"
    index = f"zext i32 %{label}.number to i64" if lanes == 32 else f"add i64 %{label}.number, 0"
    return f"""
  br label %{label}.turn
{label}.turn:
  %{label}.rest = phi {mask} [%mask, %{label}], [%{label}.less, %{label}.turn]
  %{label}.number = call {mask} @llvm.cttz.{mask}({mask} %{label}.rest, i1 true)
  %{label}.index = {index}
  %{label}.minus = sub {mask} %{label}.rest, 1
  %{label}.less = and {mask} %{label}.rest, %{label}.minus
  %{label}.from = getelementptr [{_dwords(name)} x i32], ptr %buffer, i64 %{label}.index{pointer}{
        copy(SIZES[name], f"%{label}.from", f"%{label}.to", f"{label}.value")
    }
  %{label}.last = icmp eq {mask} %{label}.less, 0
  br i1 %{label}.last, label %done, label %{label}.turn"""


def _scatter_lanes(lanes: int, name: str) -> str:
    """IR that stores each lane's element from %rows."""
    size, dwords = SIZES[name], _dwords(name)
    lines = []
    for lane in range(lanes):
        lines.append(lane_pointer(lanes, lane))
        value = f"%row.{lane}"
        if dwords == 1:
            kind = f"i{8 * size}"
            lines.append(f"\n  {value} = extractelement {vector(lanes)} %rows, i64 {lane}")
            if size < 4:
                lines.append(f"\n  {value}.part = trunc i32 {value} to {kind}")
                value += ".part"
        else:
            kind, whole = vector(dwords), vector(lanes * dwords)
            order = ", ".join(f"i32 {lane * dwords + dword}" for dword in range(dwords))
            shuffled = f"shufflevector {whole} %rows, {whole} poison, {vector(dwords)} <{order}>"
            lines.append(f"\n  {value} = {shuffled}")
        lines.append(f"\n  store {kind} {value}, ptr %at.{lane}, align 1")
    return "".join(lines)
