"""Loads and stores lane by lane: any addresses, elements that cross pages, lanes in different extents.

lanes_read.wN(ptr ctx, iN mask, <N x i64> va, i64 size, i64 stride, ptr buffer) -> i1 fault
    Copies ``size`` bytes (1, 2, or a multiple of 4) of each lane of the mask to ``buffer`` + lane × ``stride``.
lanes_write.wN(ptr ctx, iN mask, <N x i64> va, i64 size, i64 stride, ptr buffer) -> i1 fault
    The other way round. All lanes are translated before the first byte is written.
lanes_place_A.wN(ptr ctx, iN mask, <N x i64> va, i64 size, ptr places) -> i1 fault
    Where the lanes' elements are: {i64 host, i64 rest, i64 count}[N], ``count`` bytes at ``host`` and the others, which
    are on the next page, at ``rest``.
copy_element.wN(ptr to, ptr from, i64 size) -> void
    1, 2 or a multiple of 4 bytes, no dword in more than one piece.

Which of several faults is reported follows ``memory_path``: the least offset in the element, then the lowest lane.
"""

from __future__ import annotations

from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.native.ir_text import vector
from amdrv.emulator.isa.native.layout import Detail
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import ACCESSES, EXTENT, probe

_PLACE = "{i64, i64, i64}"


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    places = [_place(lanes, access) for access in ACCESSES]
    return [_copy(lanes), *places, _transfer(lanes, Access.READ), _transfer(lanes, Access.WRITE)]


def _arguments(lanes: int) -> str:
    return f"ptr %ctx, i{lanes} %mask, {vector(lanes, 'i64')} %va, i64 %size"


def lane_loop(lanes: int) -> str:
    """IR of a loop's head: for each lane of %mask its number as %lane (i32) and %index (i64).

    Blocks: %next (the head, reached from %0), %one (follows here), and the caller's %over. %fewer goes on.
    """
    mask = f"i{lanes}"
    names = (
        "\n  %lane = add i32 %number, 0\n  %index = zext i32 %number to i64"
        if lanes == 32
        else "\n  %lane = trunc i64 %number to i32\n  %index = add i64 %number, 0"
    )
    return f"""
  %finished = icmp eq {mask} %rest, 0
  br i1 %finished, label %over, label %one
one:
  %number = call {mask} @llvm.cttz.{mask}({mask} %rest, i1 true){names}
  %less = sub {mask} %rest, 1
  %fewer = and {mask} %rest, %less"""


def each_probed(lanes: int, size_bytes: int, access: str, before: str) -> str:
    """IR of a loop over the lanes of %mask, whose addresses are in %places: each in an extent that is cached?

    Blocks: ``before`` (whence it comes), %turn, and the caller's %hit (a lane's element is at %lane.at; goes to %turn),
    %strange (one is not cached, or not in one piece) and %over.
    """
    mask = f"i{lanes}"
    return f"""
  br label %turn
turn:
  %rest = phi {mask} [%mask, %{before}], [%fewer, %hit]{lane_loop(lanes)}
  %from = getelementptr i64, ptr %places, i64 %index
  %address = load i64, ptr %from{probe(access, "%address", "lane.")}
  %lane.room = sub i64 %lane.end, %address
  %lane.fits = icmp uge i64 %lane.room, {size_bytes}
  %lane.ok = and i1 %lane.fits, %lane.tag.ok
  %lane.host = add i64 %address, %lane.delta
  %lane.at = inttoptr i64 %lane.host to ptr
  br i1 %lane.ok, label %hit, label %strange"""


def copy(size_bytes: int, source: str, target: str, name: str) -> str:
    """IR that copies an element from one pointer to another, as %<name>."""
    kind = f"i{8 * size_bytes}" if size_bytes < 4 else vector(size_bytes // 4)
    return f"""
  %{name} = load {kind}, ptr {source}, align 1
  store {kind} %{name}, ptr {target}, align 1"""


def _place(lanes: int, access: str) -> Function:
    mask, reason = f"i{lanes}", f"i32 {int(ACCESSES[access])}, i32 {int(Detail.TRANSLATION)}, i64 0"
    return Function(f"""define i1 @lanes_place_{access}.w{lanes}({_arguments(lanes)}, ptr %places) {{
  %all = alloca {vector(lanes, "i64")}
  store {vector(lanes, "i64")} %va, ptr %all
  br label %next
next:
  %rest = phi {mask} [%mask, %0], [%fewer, %put]
  %worst = phi i64 [16, %0], [%worse, %put]
  %worst.lane = phi i32 [0, %0], [%worse.lane, %put]
  %worst.va = phi i64 [0, %0], [%worse.va, %put]{lane_loop(lanes)}
  %from = getelementptr i64, ptr %all, i64 %index
  %address = load i64, ptr %from
  %extent = call {EXTENT} @tlb_extent_{access}.w{lanes}(ptr %ctx, i64 %address, i32 %lane)
  %fault = extractvalue {EXTENT} %extent, 3
  br i1 %fault, label %failed, label %found
found:
  %end = extractvalue {EXTENT} %extent, 1
  %delta = extractvalue {EXTENT} %extent, 2
  %host = add i64 %address, %delta
  %room = sub i64 %end, %address
  %fits = icmp ule i64 %size, %room
  br i1 %fits, label %put, label %cross
cross:
  %extent.2 = call {EXTENT} @tlb_extent_{access}.w{lanes}(ptr %ctx, i64 %end, i32 %lane)
  %fault.2 = extractvalue {EXTENT} %extent.2, 3
  %delta.2 = extractvalue {EXTENT} %extent.2, 2
  %rest.host = add i64 %end, %delta.2
  %sooner = icmp ult i64 %room, %worst
  %report = and i1 %fault.2, %sooner
  %worst.new = select i1 %report, i64 %room, i64 %worst
  %worst.lane.new = select i1 %report, i32 %lane, i32 %worst.lane
  %worst.va.new = select i1 %report, i64 %end, i64 %worst.va
  br label %put
put:
  %worse = phi i64 [%worst, %found], [%worst.new, %cross]
  %worse.lane = phi i32 [%worst.lane, %found], [%worst.lane.new, %cross]
  %worse.va = phi i64 [%worst.va, %found], [%worst.va.new, %cross]
  %second = phi i64 [0, %found], [%rest.host, %cross]
  %count = phi i64 [%size, %found], [%room, %cross]
  %place = getelementptr {_PLACE}, ptr %places, i64 %index
  store i64 %host, ptr %place
  %place.rest = getelementptr i64, ptr %place, i64 1
  store i64 %second, ptr %place.rest
  %place.count = getelementptr i64, ptr %place, i64 2
  store i64 %count, ptr %place.count
  br label %next
over:
  %fine = icmp eq i64 %worst, 16
  br i1 %fine, label %done, label %record
record:
  call void @record_fault.w{lanes}(ptr %ctx, i32 %worst.lane, i64 %worst.va, {reason})
  br label %failed
failed:
  ret i1 true
done:
  ret i1 false
}}""")


def _copy(lanes: int) -> Function:
    return Function(f"""define void @copy_element.w{lanes}(ptr %to, ptr %from, i64 %size) {{
  %rest = and i64 %size, 3
  %dwords = icmp eq i64 %rest, 0
  br i1 %dwords, label %dword, label %small
dword:
  %at = phi i64 [0, %0], [%next, %dword]
  %from.at = getelementptr i8, ptr %from, i64 %at
  %to.at = getelementptr i8, ptr %to, i64 %at
  %value = load i32, ptr %from.at, align 1
  store i32 %value, ptr %to.at, align 1
  %next = add i64 %at, 4
  %over = icmp eq i64 %next, %size
  br i1 %over, label %done, label %dword
small:
  %pair = icmp eq i64 %size, 2
  br i1 %pair, label %half, label %byte
half:
  %value.2 = load i16, ptr %from, align 1
  store i16 %value.2, ptr %to, align 1
  br label %done
byte:
  %value.1 = load i8, ptr %from
  store i8 %value.1, ptr %to
  br label %done
done:
  ret void
}}""")


def _transfer(lanes: int, access: Access) -> Function:
    """Copy between memory and a buffer: whole, or byte by byte where an element is in two pieces."""
    mask, name = f"i{lanes}", access.name.lower()
    ends = ("ptr %own", "ptr %memory") if access is Access.READ else ("ptr %memory", "ptr %own")
    bytes_ = ("%piece.at", "%own.byte") if access is Access.READ else ("%own.byte", "%piece.at")
    return Function(f"""define i1 @lanes_{name}.w{lanes}({_arguments(lanes)}, i64 %stride, ptr %buffer) {{
  %places = alloca [{lanes} x {_PLACE}]
  %fault = call i1 @lanes_place_{name}.w{lanes}({_arguments(lanes)}, ptr %places)
  br i1 %fault, label %failed, label %next
next:
  %rest = phi {mask} [%mask, %0], [%fewer, %again]{lane_loop(lanes)}
  %place = getelementptr {_PLACE}, ptr %places, i64 %index
  %host = load i64, ptr %place
  %place.count = getelementptr i64, ptr %place, i64 2
  %count = load i64, ptr %place.count
  %skip = mul i64 %index, %stride
  %own = getelementptr i8, ptr %buffer, i64 %skip
  %memory = inttoptr i64 %host to ptr
  %one.piece = icmp eq i64 %count, %size
  br i1 %one.piece, label %whole, label %two
whole:
  call void @copy_element.w{lanes}({ends[0]}, {ends[1]}, i64 %size)
  br label %again
two:
  %place.rest = getelementptr i64, ptr %place, i64 1
  %rest.host = load i64, ptr %place.rest
  %rest.0 = sub i64 %rest.host, %count
  br label %byte
byte:
  %at = phi i64 [0, %two], [%at.next, %byte]
  %before = icmp ult i64 %at, %count
  %piece = select i1 %before, i64 %host, i64 %rest.0
  %piece.host = add i64 %piece, %at
  %piece.at = inttoptr i64 %piece.host to ptr
  %own.byte = getelementptr i8, ptr %own, i64 %at
  %value = load i8, ptr {bytes_[0]}
  store i8 %value, ptr {bytes_[1]}
  %at.next = add i64 %at, 1
  %byte.end = icmp eq i64 %at.next, %size
  br i1 %byte.end, label %again, label %byte
again:
  br label %next
over:
  ret i1 false
failed:
  ret i1 true
}}""")
