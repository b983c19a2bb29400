"""Library functions that find what atomics work on.

atomic_place_S.wN(ptr ctx, iN mask, <N x i64> address, i64 size, i64 scratch, ptr hosts) -> {iN lanes, i1 fault}
    S = global, lds, flat: host addresses of the elements of the mask's lanes, to i64[N] at ``hosts`` (only theirs are
    written); the lanes that have an element (in LDS, addresses beyond the end have none). ``scratch`` is the virtual
    address of the wave's private memory. Misaligned elements and whatever cannot be translated fault.
record_misaligned.wN(ptr ctx, i32 lane, i64 va, i64 size) -> void
    Fill in the fault of a misaligned atomic.

Rules and the order of checks: ``emulator.isa.spaces``.
"""

from __future__ import annotations

from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.ir_text import constants, splat, vector
from amdrv.emulator.isa.native.layout import Detail, FaultKind
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import EXTENT, context_field

SPACES = ("global", "lds", "flat")


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    makers = (_record_misaligned, _check, _record_first, _place_global, _place_lds, _place_scratch, _place_flat)
    return [make(lanes) for make in makers]


def arguments(lanes: int) -> str:
    """What places are asked with."""
    return f"ptr %ctx, i{lanes} %mask, {vector(lanes, 'i64')} %address, i64 %size, i64 %scratch, ptr %hosts"


def placed_type(lanes: int) -> str:
    """What places are given as."""
    return f"{{i{lanes}, i1}}"


def _record_misaligned(lanes: int) -> Function:
    kind, detail = int(FaultKind.MISALIGNED), int(Detail.MISALIGNED_ATOMIC)
    return Function(f"""define void @record_misaligned.w{lanes}(ptr %ctx, i32 %lane, i64 %va, i64 %size) {{
  call void @record_fault.w{lanes}(ptr %ctx, i32 %lane, i64 %va, i32 {int(Access.WRITE)}, i32 {detail}, i64 %size)
  %kind.at = getelementptr i8, ptr %ctx, i64 {layout.offset("fault_kind")}
  store i32 {kind}, ptr %kind.at
  ret void
}}""")


def _lane_of(name: str, mask: str, lanes: int) -> str:
    """IR for the number (i32) of the lowest lane of a mask."""
    convert = f"add i32 %{name}.number, 0" if lanes == 32 else f"trunc i64 %{name}.number to i32"
    return f"""
  %{name}.number = call i{lanes} @llvm.cttz.i{lanes}(i{lanes} {mask}, i1 false)
  %{name}.all = {convert}
  %{name} = and i32 %{name}.all, {lanes - 1}"""


def _lanes_where(name: str, condition: str, lanes: int) -> str:
    """IR for the lanes of the mask where a vector condition holds, and whether there is one (%<name>.any)."""
    return f"""
  %{name}.true = icmp {condition}
  %{name}.bits = bitcast {vector(lanes, "i1")} %{name}.true to i{lanes}
  %{name} = and i{lanes} %{name}.bits, %mask
  %{name}.any = icmp ne i{lanes} %{name}, 0"""


def _check(lanes: int) -> Function:
    """atomic_aligned.wN: a fault for the lowest lane that is not naturally aligned."""
    wide = vector(lanes, "i64")
    return Function(f"""define i1 @atomic_aligned.w{lanes}(ptr %ctx, i{lanes} %mask, {wide} %address, i64 %size) {{
  %low = sub i64 %size, 1{splat("lows", "%low", lanes, "i64")}
  %odd = and {wide} %address, %lows{_lanes_where("bad", f"ne {wide} %odd, zeroinitializer", lanes)}
  br i1 %bad.any, label %misaligned, label %aligned
aligned:
  ret i1 false
misaligned:{_lane_of("lane", "%bad", lanes)}
  %va = extractelement {wide} %address, i32 %lane
  call void @record_misaligned.w{lanes}(ptr %ctx, i32 %lane, i64 %va, i64 %size)
  ret i1 true
}}""")


def _record_first(lanes: int) -> Function:
    """atomic_private_fault.wN: a fault in private memory of the lowest lane of a mask."""
    arguments = f"ptr %ctx, i{lanes} %mask, i64 %va, i32 %detail, i64 %size"
    return Function(f"""define void @atomic_private_fault.w{lanes}({arguments}) {{\
{_lane_of("lane", "%mask", lanes)}
  call void @record_fault.w{lanes}(ptr %ctx, i32 %lane, i64 %va, i32 {int(Access.WRITE)}, i32 %detail, i64 %size)
  ret void
}}""")


def _head(space: str, lanes: int) -> str:
    """The beginning of a place function, up to what follows the check of alignment."""
    wide = vector(lanes, "i64")
    return f"""define {placed_type(lanes)} @atomic_place_{space}.w{lanes}({arguments(lanes)}) {{
  %misaligned = call i1 @atomic_aligned.w{lanes}(ptr %ctx, i{lanes} %mask, {wide} %address, i64 %size)
  br i1 %misaligned, label %failed, label %aligned"""


def _merge(lanes: int, found: str, members: str) -> str:
    """IR that writes the host addresses of some lanes."""
    wide, flags = vector(lanes, "i64"), vector(lanes, "i1")
    return f"""
  %members = bitcast i{lanes} {members} to {flags}
  %others = load {wide}, ptr %hosts, align 8
  %merged = select {flags} %members, {wide} {found}, {wide} %others
  store {wide} %merged, ptr %hosts, align 8"""


def _tail(lanes: int, doing: str) -> str:
    kind = placed_type(lanes)
    return f"""
  %placed = insertvalue {kind} {{i{lanes} poison, i1 false}}, i{lanes} {doing}, 0
  ret {kind} %placed
failed:
  ret {kind} {{i{lanes} 0, i1 true}}
}}"""


def _place_global(lanes: int) -> Function:
    """One translation when all elements are in the extent of the first."""
    wide, mask = vector(lanes, "i64"), f"i{lanes}"
    parts = "".join(
        f"\n  %{name} = extractvalue {EXTENT} %extent, {number}"
        for number, name in enumerate(("first", "end", "delta", "fault"))
    )
    return Function(f"""{_head("global", lanes)}
aligned:
  %nobody = icmp eq {mask} %mask, 0
  br i1 %nobody, label %done, label %some
some:{_lane_of("lane", "%mask", lanes)}
  %va = extractelement {wide} %address, i32 %lane
  %extent = call {EXTENT} @tlb_extent_write.w{lanes}(ptr %ctx, i64 %va, i32 %lane){parts}
  br i1 %fault, label %failed, label %near
near:{splat("firsts", "%first", lanes, "i64")}
  %span = sub i64 %end, %first{splat("spans", "%span", lanes, "i64")}
  %above = sub {wide} %address, %firsts{_lanes_where("out", f"uge {wide} %above, %spans", lanes)}
  br i1 %out.any, label %apart, label %together
together:{splat("deltas", "%delta", lanes, "i64")}
  %found = add {wide} %address, %deltas{_merge(lanes, "%found", "%mask")}
  br label %done
apart:
  %each = call i1 @lane_addresses_write.w{lanes}(ptr %ctx, {mask} %mask, {wide} %address, i64 %size, ptr %hosts)
  br i1 %each, label %failed, label %done
done:{_tail(lanes, "%mask")}""")


def _place_lds(lanes: int) -> Function:
    wide = vector(lanes, "i64")
    return Function(f"""{_head("lds", lanes)}
aligned:{context_field("lds", "i64")}{context_field("lds_bytes", "i32")}
  %bytes = zext i32 %lds_bytes to i64
  %low = sub i64 %size, 1
  %limit = call i64 @llvm.usub.sat.i64(i64 %bytes, i64 %low){splat("limits", "%limit", lanes, "i64")}\
{_lanes_where("inside", f"ult {wide} %address, %limits", lanes)}{splat("bases", "%lds", lanes, "i64")}
  %found = add {wide} %address, %bases{_merge(lanes, "%found", "%inside")}{_tail(lanes, "%inside")}""")


def _place_scratch(lanes: int) -> Function:
    """Private memory, where the dwords of the lanes alternate: elements of one dword only."""
    wide, mask, kind = vector(lanes, "i64"), f"i{lanes}", placed_type(lanes)
    own = constants(range(0, 4 * lanes, 4), "i64")
    fault = f"call void @atomic_private_fault.w{lanes}(ptr %ctx, {mask}"
    return Function(f"""define {kind} @atomic_place_scratch.w{lanes}({arguments(lanes)}) {{\
{context_field("scratch_lane_bytes", "i32")}{context_field("private_base", "i64")}
  %nobody = icmp eq {mask} %mask, 0
  br i1 %nobody, label %done, label %some
some:
  %big = icmp ugt i64 %size, 4
  br i1 %big, label %too.wide, label %bounded
too.wide:
  {fault} %mask, i64 0, i32 {int(Detail.PRIVATE_WIDE_ATOMIC)}, i64 0)
  br label %failed
bounded:
  %bytes = zext i32 %scratch_lane_bytes to i64
  %low = sub i64 %size, 1
  %limit = call i64 @llvm.usub.sat.i64(i64 %bytes, i64 %low){splat("limits", "%limit", lanes, "i64")}\
{_lanes_where("out", f"uge {wide} %address, %limits", lanes)}
  br i1 %out.any, label %outside, label %inside
outside:{_lane_of("lane", "%out", lanes)}
  %offset = extractelement {wide} %address, i32 %lane
  %va = or i64 %private_base, %offset
  {fault} %out, i64 %va, i32 {int(Detail.PRIVATE_BOUNDS)}, i64 %bytes)
  br label %failed
inside:
  %misaligned = call i1 @atomic_aligned.w{lanes}(ptr %ctx, {mask} %mask, {wide} %address, i64 %size)
  br i1 %misaligned, label %failed, label %aligned
aligned:
  %rows = shl {wide} %address, splat (i64 {lanes.bit_length() - 1})
  %dwords = add {wide} %rows, {own}{splat("bases", "%scratch", lanes, "i64")}
  %vas = add {wide} %dwords, %bases
  %result = call {kind} @atomic_place_global.w{lanes}(ptr %ctx, {mask} %mask, {wide} %vas, i64 %size, i64 0, ptr %hosts)
  ret {kind} %result
done:
  ret {kind} zeroinitializer
failed:
  ret {kind} {{{mask} 0, i1 true}}
}}""")


def _place_flat(lanes: int) -> Function:
    """Windows onto LDS and private memory, then the rest."""
    wide, mask, kind = vector(lanes, "i64"), f"i{lanes}", placed_type(lanes)

    def window(name: str) -> str:
        """IR for the lanes whose addresses are in an aperture that there is."""
        return f"""{context_field(name, "i64")}
  %{name}.high = lshr i64 %{name}, 32{splat(f"{name}.highs", f"%{name}.high", lanes, "i64")}
  %{name}.there = icmp ne i64 %{name}, 0
  %{name}.may = select i1 %{name}.there, {mask} %mask, {mask} 0\
{_lanes_where(f"{name}.in", f"eq {wide} %highs, %{name}.highs", lanes)}
  %{name}.lanes = and {mask} %{name}.in, %{name}.may"""

    def part(name: str, lanes_of: str, address: str) -> str:
        call = f"ptr %ctx, {mask} {lanes_of}, {wide} {address}, i64 %size, i64 %scratch, ptr %hosts"
        return f"""
  %in.{name} = call {kind} @atomic_place_{name}.w{lanes}({call})
  %{name}.fault = extractvalue {kind} %in.{name}, 1
  %{name}.done = extractvalue {kind} %in.{name}, 0"""

    return Function(f"""define {kind} @atomic_place_flat.w{lanes}({arguments(lanes)}) {{
  %highs = lshr {wide} %address, splat (i64 32)
  %offsets = and {wide} %address, splat (i64 4294967295){window("shared_base")}{window("private_base")}
  %windows = or {mask} %shared_base.lanes, %private_base.lanes
  %outside = xor {mask} %windows, -1
  %rest = and {mask} %mask, %outside{part("lds", "%shared_base.lanes", "%offsets")}
  br i1 %lds.fault, label %failed, label %private
private:{part("scratch", "%private_base.lanes", "%offsets")}
  br i1 %scratch.fault, label %failed, label %others
others:{part("global", "%rest", "%address")}
  br i1 %global.fault, label %failed, label %good
good:
  %some = or {mask} %lds.done, %scratch.done
  %all = or {mask} %some, %global.done{_tail(lanes, "%all")}""")
