"""Private memory: a lane's byte offset becomes a place where the dwords of a wave's lanes alternate.

inline  scratch_load.F.wN(ptr ctx, iN mask, i64 scratch, <N x i32> offset) -> {<N x i32> × dwords, i1 fault}
        scratch_store.F.wN(ptr ctx, iN mask, i64 scratch, <N x i32> offset, <N x i32> × dwords) -> i1 fault
            ``scratch`` is the virtual address of the wave's private memory. Where all active lanes have the same
            offset, as spilled registers do, each dword is one vector: the inline path.
        scratch_read.F.wN, scratch_write.F.wN
            The same for any offsets.
        scratch_lanes_read.wN, scratch_lanes_write.wN
            (ptr ctx, iN mask, i64 scratch, <N x i32> offset, i64 size, i64 stride, ptr buffer) -> i1 fault
            The same byte by byte, for any alignment (compare ``lane_transfer``).

Bounds and swizzle as in ``spaces.ScratchSpace``.
"""

from __future__ import annotations

from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.native import vector_load, vector_store
from amdrv.emulator.isa.native.address_pattern import agree
from amdrv.emulator.isa.native.ir_text import (
    cold_result,
    cold_type,
    constants,
    interleave,
    result,
    result_type,
    splat,
    vector,
)
from amdrv.emulator.isa.native.layout import Detail
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import NO_SITE, context_field, probe
from amdrv.emulator.isa.native.vector_load import LoadForm
from amdrv.emulator.isa.native.vector_store import data_arguments


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    loads = [make(lanes, name, form) for name, form in vector_load.FORMS.items() for make in (_load, _read)]
    stores = [make(lanes, name) for name in vector_store.SIZES for make in (_store, _write)]
    return [_bounds(lanes), *(_lanes(lanes, access) for access in ("read", "write")), *loads, *stores]


def arguments(lanes: int) -> str:
    """What every function is called with first."""
    return f"ptr %ctx, i{lanes} %mask, i64 %scratch, {vector(lanes)} %offset"


def _shift(lanes: int) -> int:
    return lanes.bit_length() - 1


def _bounds(lanes: int) -> Function:
    """Report the lowest active lane whose element does not lie in its private memory."""
    mask, kind = f"i{lanes}", vector(lanes)
    detail = int(Detail.PRIVATE_BOUNDS)
    return Function(f"""define i1 @scratch_bounds.w{lanes}({arguments(lanes)}, i64 %size, i32 %access) {{{
        context_field("scratch_lane_bytes", "i32")
    }{context_field("private_base", "i64")}
  %bytes = zext i32 %scratch_lane_bytes to i64
  %limit = sub i64 %bytes, %size{splat("limit.all", "%limit", lanes, "i64")}
  %wide = zext {kind} %offset to {vector(lanes, "i64")}
  %beyond = icmp sgt {vector(lanes, "i64")} %wide, %limit.all
  %beyond.bits = bitcast {vector(lanes, "i1")} %beyond to {mask}
  %bad = and {mask} %beyond.bits, %mask
  %fine = icmp eq {mask} %bad, 0
  br i1 %fine, label %good, label %failed
good:
  ret i1 false
failed:
  %number = call {mask} @llvm.cttz.{mask}({mask} %bad, i1 true)
  %lane = {"add i32 %number, 0" if lanes == 32 else "trunc i64 %number to i32"}
  %at = extractelement {vector(lanes, "i64")} %wide, i32 %lane
  %va = or i64 %at, %private_base
  call void @record_fault.w{lanes}(ptr %ctx, i32 %lane, i64 %va, i32 %access, i32 {detail}, i64 %bytes)
  ret i1 true
}}""")


def _uniform(lanes: int, size_bytes: int, access: str) -> str:
    """IR for %row.ok: all active lanes have one offset, and its dword rows, which begin at %row, are in one extent.

    %byte is the offset in the dword.
    """
    mask, kind = f"i{lanes}", vector(lanes)
    small = size_bytes < 4
    narrow = "add i32 %k, 0" if lanes == 32 else "trunc i64 %k to i32"
    return f"""{context_field("scratch_lane_bytes", "i32")}
  %k.or = call {mask} @llvm.cttz.{mask}({mask} %mask, i1 false)
  %k = and {mask} %k.or, {lanes - 1}
  %k.lane = {narrow}
  %idle = xor {mask} %mask, -1
  %offset.k = extractelement {kind} %offset, i32 %k.lane{splat("offset.all", "%offset.k", lanes)}{
        agree("same", "%offset", "%offset.all", lanes)
    }
  %offset.wide = zext i32 %offset.k to i64
  %bytes = zext i32 %scratch_lane_bytes to i64
  %offset.end = add i64 %offset.wide, {size_bytes}
  %in.bounds = icmp ule i64 %offset.end, %bytes
  %byte = and i32 %offset.k, 3
  %aligned = icmp ule i32 %byte, {4 - size_bytes if small else 0}
  %dword = and i64 %offset.wide, -4
  %row.skip = shl i64 %dword, {_shift(lanes)}
  %va = add i64 %scratch, %row.skip{probe(access, "%va")}
  %room = sub i64 %end, %va
  %row.near = icmp uge i64 %room, {4 * lanes * max(1, size_bytes // 4)}
  %row.known = and i1 %tag.ok, %row.near
  %row.legal = and i1 %aligned, %in.bounds
  %row.found = and i1 %row.known, %row.legal
  %row.ok = and i1 %row.found, %same.ok
  %row.host = add i64 %va, %delta
  %row = inttoptr i64 %row.host to ptr"""


def _row(lanes: int, dword: int) -> str:
    return f"\n  %row{dword} = getelementptr i8, ptr %row, i64 {4 * lanes * dword}"


def _load(lanes: int, name: str, form: LoadForm) -> Function:
    kind, dwords, returned = vector(lanes), form.dwords, result_type(lanes, form.dwords)
    rows = "".join(
        f"{_row(lanes, dword)}\n  %raw{dword} = load {kind}, ptr %row{dword}, align 1" for dword in range(dwords)
    )
    raw = [f"%raw{dword}" for dword in range(dwords)]
    if form.size_bytes < 4:
        rows += _extract(lanes, form)
        raw = ["%part"]
    cold = cold_type(lanes, dwords)
    slow = "".join(f"\n  %slow{dword} = extractvalue {cold} %found, {dword + 1}" for dword in range(dwords))
    merged = "".join(
        f"\n  %v{dword} = phi {kind} [{raw[dword]}, %fast], [%slow{dword}, %slow]" for dword in range(dwords)
    )
    text = f"""define {returned} @scratch_load.{name}.w{lanes}({arguments(lanes)}) {{{
        _uniform(lanes, form.size_bytes, "read")
    }
  br i1 %row.ok, label %fast, label %slow
fast:{rows}
  br label %done
slow:
  %found = call {cold} @scratch_read.{name}.w{lanes}({arguments(lanes)}) cold noinline{slow}
  %fault.slow = extractvalue {cold} %found, 0
  br label %done
done:
  %fault = phi i1 [false, %fast], [%fault.slow, %slow]{merged}{
        result(lanes, [f"%v{dword}" for dword in range(dwords)], "%fault")
    }
}}"""
    return Function(text, inline=True)


def _extract(lanes: int, form: LoadForm) -> str:
    """IR for %part: the byte or halfword at %byte of each dword of %raw0, extended."""
    kind, rest = vector(lanes), 32 - 8 * form.size_bytes
    extend = "ashr" if form.signed else "lshr"
    return f"""
  %up.bytes = sub i32 {4 - form.size_bytes}, %byte
  %up = shl i32 %up.bytes, 3{splat("up.all", "%up", lanes)}
  %raised = shl {kind} %raw0, %up.all
  %part = {extend} {kind} %raised, splat (i32 {rest})"""


def _swizzled(lanes: int) -> str:
    """IR for %place: where a lane's byte at %offset is, from %scratch on; %loose: the offsets' lowest two bits."""
    kind = vector(lanes)
    return f"""
  %dword.offset = and {kind} %offset, splat (i32 -4)
  %rows = shl {kind} %dword.offset, splat (i32 {_shift(lanes)})
  %columns = add {kind} %rows, {constants(range(0, 4 * lanes, 4))}
  %bytes = and {kind} %offset, splat (i32 3)
  %place = add {kind} %columns, %bytes
  %active = bitcast i{lanes} %mask to {vector(lanes, "i1")}
  %active.bytes = select {vector(lanes, "i1")} %active, {kind} %bytes, {kind} zeroinitializer
  %loose = call i32 @llvm.vector.reduce.or.v{lanes}i32({kind} %active.bytes)"""


def _checked(lanes: int, size_bytes: int, access: Access) -> str:
    """IR that checks bounds, then goes to %straight or, for elements that are not aligned, to %odd."""
    return f"""
  %outside = call i1 @scratch_bounds.w{lanes}({arguments(lanes)}, i64 {size_bytes}, i32 {int(access)}) noinline
  br i1 %outside, label %bad, label %inside
inside:{_swizzled(lanes)}
  %odd.bits = and i32 %loose, {min(size_bytes, 4) - 1}
  %even = icmp eq i32 %odd.bits, 0
  br i1 %even, label %straight, label %odd"""


def _pieces(lanes: int, size_bytes: int) -> list[str]:
    """IR for the element's %place<dword>."""
    kind = vector(lanes)
    return [
        f"\n  %place{dword} = add {kind} %place, splat (i32 {4 * lanes * dword})"
        for dword in range(max(1, size_bytes // 4))
    ]


def _read(lanes: int, name: str, form: LoadForm) -> Function:
    kind, dwords, returned = vector(lanes), form.dwords, cold_type(lanes, form.dwords)
    single, part = cold_type(lanes, 1), name if form.size_bytes < 4 else "b32"
    lines, failed = [], "false"
    for dword, place in enumerate(_pieces(lanes, form.size_bytes)):
        where = f"ptr %ctx, i{lanes} %mask, i64 %scratch, {kind} %place{dword}, {kind} zeroinitializer, {NO_SITE}"
        lines.append(f"""{place}
  %loaded{dword} = call {single} @gather.{part}.w{lanes}({where}) noinline
  %s{dword} = extractvalue {single} %loaded{dword}, 1
  %f{dword} = extractvalue {single} %loaded{dword}, 0
  %failed{dword} = or i1 {failed}, %f{dword}""")
        failed = f"%failed{dword}"
        if dword + 1 < dwords:
            lines.append(f"\n  br i1 {failed}, label %bad, label %straight{dword + 1}\nstraight{dword + 1}:")
    last = f"straight{dwords - 1}" if dwords > 1 else "straight"
    merged = "".join(
        f"\n  %v{dword} = phi {kind} [zeroinitializer, %bad], [%s{dword}, %{last}], [%o{dword}, %odd]"
        for dword in range(dwords)
    )
    text = f"""define {returned} @scratch_read.{name}.w{lanes}({arguments(lanes)}) {{
  %buffer = alloca {vector(lanes * dwords)}{_checked(lanes, form.size_bytes, Access.READ)}
straight:{"".join(lines)}
  br label %done
odd:
  store {vector(lanes * dwords)} zeroinitializer, ptr %buffer
  %odd.fault = call i1 @scratch_lanes_read.w{lanes}({_odd(lanes, form.size_bytes)}) noinline
  %odd.raw = load {vector(lanes * dwords)}, ptr %buffer{vector_load.extended("o", "%odd.raw", lanes, form)}
  br label %done
bad:
  br label %done
done:
  %fault = phi i1 [true, %bad], [{failed}, %{last}], [%odd.fault, %odd]{merged}{
        cold_result(lanes, [f"%v{dword}" for dword in range(dwords)], "%fault")
    }
}}"""
    return Function(text)


def _odd(lanes: int, size_bytes: int) -> str:
    stride = 4 * -(-size_bytes // 4)
    return f"{arguments(lanes)}, i64 {size_bytes}, i64 {stride}, ptr %buffer"


def _lanes(lanes: int, access: str) -> Function:
    """Byte by byte; the bounds have been checked."""
    mask, kind, wide = f"i{lanes}", vector(lanes), vector(lanes, "i64")
    rest = "i64 %size, i64 %stride, ptr %buffer"
    return Function(f"""define i1 @scratch_lanes_{access}.w{lanes}({arguments(lanes)}, {rest}) {{
  %columns = add {kind} zeroinitializer, {constants(range(0, 4 * lanes, 4))}{splat("base", "%scratch", lanes, "i64")}
  br label %next
next:
  %at = phi i64 [0, %0], [%at.next, %good]
  %at.narrow = trunc i64 %at to i32{splat("at.all", "%at.narrow", lanes)}
  %where = add {kind} %offset, %at.all
  %dword = and {kind} %where, splat (i32 -4)
  %row = shl {kind} %dword, splat (i32 {_shift(lanes)})
  %byte = and {kind} %where, splat (i32 3)
  %in.row = or {kind} %row, %byte
  %place = add {kind} %in.row, %columns
  %place.wide = zext {kind} %place to {wide}
  %va = add {wide} %base, %place.wide
  %own = getelementptr i8, ptr %buffer, i64 %at
  %fault = call i1 @lanes_{access}.w{lanes}(ptr %ctx, {mask} %mask, {wide} %va, i64 1, i64 %stride, ptr %own)
  br i1 %fault, label %done, label %good
good:
  %at.next = add i64 %at, 1
  %over = icmp eq i64 %at.next, %size
  br i1 %over, label %done, label %next
done:
  ret i1 %fault
}}""")


def _store(lanes: int, name: str) -> Function:
    kind, size, flags = vector(lanes), vector_store.SIZES[name], vector(lanes, "i1")
    rows = f"\n  %active = bitcast i{lanes} %mask to {flags}"
    for dword in range(-(-size // 4)):
        rows += _row(lanes, dword)
        value = f"%data{dword}"
        if size < 4:
            rows += _insert(lanes, size)
            value = "%merged"
        stored = f"{kind} {value}, ptr align 1 %row{dword}, {flags} %active"
        rows += f"\n  call void @llvm.masked.store.v{lanes}i32.p0({stored})"
    text = f"""define i1 @scratch_store.{name}.w{lanes}({arguments(lanes)}{data_arguments(lanes, name)}) {{{
        _uniform(lanes, size, "write")
    }
  br i1 %row.ok, label %fast, label %slow
fast:{rows}
  br label %done
slow:
  %fault.slow = call i1 @scratch_write.{name}.w{lanes}({arguments(lanes)}{data_arguments(lanes, name)}) cold noinline
  br label %done
done:
  %fault = phi i1 [false, %fast], [%fault.slow, %slow]
  ret i1 %fault
}}"""
    return Function(text, inline=True)


def _insert(lanes: int, size_bytes: int) -> str:
    """IR for %merged: the dwords of %row0 with the byte or halfword at %byte replaced. Nobody else writes them."""
    kind, ones = vector(lanes), (1 << 8 * size_bytes) - 1
    return f"""
  %up = shl i32 %byte, 3{splat("up.all", "%up", lanes)}
  %place.bits = shl {kind} splat (i32 {ones}), %up.all
  %raised = shl {kind} %data0, %up.all
  %new = and {kind} %raised, %place.bits
  %other.bits = xor {kind} %place.bits, splat (i32 -1)
  %old = load {kind}, ptr %row0, align 1
  %kept = and {kind} %old, %other.bits
  %merged = or {kind} %kept, %new"""


def _write(lanes: int, name: str) -> Function:
    kind, size = vector(lanes), vector_store.SIZES[name]
    part, dwords = name if size < 4 else "b32", -(-size // 4)
    lines = []
    for dword, place in enumerate(_pieces(lanes, size)):
        where = f"ptr %ctx, i{lanes} %mask, i64 %scratch, {kind} %place{dword}, {kind} zeroinitializer, {NO_SITE}"
        lines.append(f"""{place}
  %f{dword} = call i1 @scatter.{part}.w{lanes}({where}, {kind} %data{dword}) noinline
  br i1 %f{dword}, label %bad, label %{f"straight{dword + 1}" if dword + 1 < dwords else "good"}
{f"straight{dword + 1}" if dword + 1 < dwords else "good"}:""")
    data = interleave("odd.rows", [f"%data{dword}" for dword in range(dwords)], lanes)
    return Function(f"""define i1 @scratch_write.{name}.w{lanes}({arguments(lanes)}{data_arguments(lanes, name)}) {{
  %buffer = alloca {vector(lanes * dwords)}{_checked(lanes, size, Access.WRITE)}
straight:{"".join(lines)}
  ret i1 false
odd:{data}
  store {vector(lanes * dwords)} %odd.rows, ptr %buffer
  %odd.fault = call i1 @scratch_lanes_write.w{lanes}({_odd(lanes, size)}) noinline
  ret i1 %odd.fault
bad:
  ret i1 true
}}""")
