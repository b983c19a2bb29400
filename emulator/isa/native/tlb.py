"""The software TLB of compiled code: from virtual addresses to host addresses.

Functions, for N = 32 or 64 lanes and A = "read" or "write" (which of the context's two caches):

inline    tlb_hit_A.wN(ptr ctx, i64 va, i64 size) -> {i64 delta, i1 hit}
              Whether [va, va + size) lies in one cached extent; its host address is va + delta.
          tlb_extent_A.wN(ptr ctx, i64 va, i32 lane) -> {i64 first, i64 end, i64 delta, i1 fault}
              The extent of a lane's address, through Context.miss when it is not cached: host address = va + delta.
              After a fault the Context is complete.
          lane_address_A.wN(ptr ctx, i64 va, i64 size, i32 lane) -> {i64 host, i1 fault}
              One lane's element, which must not cross a page. After a fault the Context is complete.
          lane_addresses_A.wN(ptr ctx, iN mask, <N x i64> va, i64 size, ptr hosts) -> i1 fault
              The same for all lanes of the mask: host addresses to i64[N] at ``hosts`` (only theirs are written). The
              lowest lane that faults is reported; nothing else happens to memory.
          record_fault.wN(ptr ctx, i32 lane, i64 va, i32 access, i32 detail, i64 argument) -> void
              Fill in a fault of kind MEMORY.

Vector loads and stores on top of them are in ``global_memory``:

inline    global_load.F.wN(ptr ctx, iN mask, i64 base, <N x i32> lo, <N x i32> hi, i64 site)
              -> {<N x i32> × dwords, i1 fault}
              F = u8, i8, u16, i16, b32, b64, b96, b128: elements at base + (hi:lo) of each lane of the mask.
inline    global_store.F.wN(ptr ctx, iN mask, i64 base, <N x i32> lo, <N x i32> hi, i64 site, <N x i32> × dwords)
              -> i1 fault
              F = b8, b16, b32, b64, b96, b128.

``site`` is the offset of a layout.SiteEntry in the cache: an instruction mostly finds its data in the extent where it
found them last, and needs no look-up then.

Extents begin and end at multiples of 4 KiB, so an address in the page of a matching tag is in the extent.
"""

from __future__ import annotations

from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.layout import (
    TLB_ENTRIES,
    TLB_HASH,
    TLB_HASH_SHIFT,
    TLB_PAGE_SHIFT,
    Detail,
    FaultKind,
    SiteEntry,
    TlbEntry,
)
from amdrv.emulator.isa.native.library import Function

ACCESSES = {"read": Access.READ, "write": Access.WRITE}
EXTENT = "{i64, i64, i64, i1}"
PAGE_BYTES = 1 << TLB_PAGE_SHIFT
NO_SITE = f"i64 {layout.site_offset(0)}"
_ENTRY_SHIFT = 5  # log2 of the size of an entry
# The bits of the hashed page (see ``layout.tlb_slot``) that are the offset of an entry's slot.
_SLOT_MASK = (TLB_ENTRIES - 1) << _ENTRY_SHIFT


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    result = [_record_fault(lanes)]
    for access in ACCESSES:
        result += [_hit(lanes, access), _extent(lanes, access), _lane(lanes, access), _lanes(lanes, access)]
    return result


def context_field(name: str, kind: str, prefix: str = "") -> str:
    """IR that loads a field of %ctx, which must not change while a wave runs, into %<prefix><name>."""
    target = f"%{prefix}{name}"
    return f"""
  {target}.at = getelementptr i8, ptr %ctx, i64 {layout.offset(name)}
  {target} = load {kind}, ptr {target}.at, !invariant.load !1"""


def probe(access: str, va: str, prefix: str = "") -> str:
    """IR that looks at the slot of an address: %tag.ok, %first, %end and %delta (to the host address, if it is ok)."""
    return f"""{context_field(f"tlb_{access}", "ptr", prefix)}{context_field("arena", "i64", prefix)}
  %{prefix}page = lshr i64 {va}, {TLB_PAGE_SHIFT}
  %{prefix}hash = mul i64 %{prefix}page, {TLB_HASH}
  %{prefix}slot.bits = lshr i64 %{prefix}hash, {TLB_HASH_SHIFT - _ENTRY_SHIFT}
  %{prefix}slot.offset = and i64 %{prefix}slot.bits, {_SLOT_MASK}
  %{prefix}slot = getelementptr i8, ptr %{prefix}tlb_{access}, i64 %{prefix}slot.offset
  %{prefix}tag = load i64, ptr %{prefix}slot
  %{prefix}tag.ok = icmp eq i64 %{prefix}tag, %{prefix}page
  %{prefix}first.at = getelementptr i8, ptr %{prefix}slot, i64 {TlbEntry.first.offset}
  %{prefix}first = load i64, ptr %{prefix}first.at
  %{prefix}end.at = getelementptr i8, ptr %{prefix}slot, i64 {TlbEntry.end.offset}
  %{prefix}end = load i64, ptr %{prefix}end.at
  %{prefix}shift.at = getelementptr i8, ptr %{prefix}slot, i64 {TlbEntry.delta.offset}
  %{prefix}shift = load i64, ptr %{prefix}shift.at
  %{prefix}delta = add i64 %{prefix}shift, %{prefix}arena"""


def site_probe(access: str, start: str, size_bytes: int) -> str:
    """IR for %near, whether ``size_bytes`` from an address on are where %site found data last, and %delta.

    The host address of what is near is its virtual one plus %delta; %limit serves other addresses.
    """
    limit = SiteEntry.near_limit if size_bytes <= layout.NEAR_BYTES else SiteEntry.far_limit
    return f"""{context_field(f"tlb_{access}", "ptr")}
  %site.at = getelementptr i8, ptr %tlb_{access}, i64 %site
  %first = load i64, ptr %site.at
  %limit.at = getelementptr i8, ptr %site.at, i64 {limit.offset}
  %limit = load i64, ptr %limit.at
  %delta.at = getelementptr i8, ptr %site.at, i64 {SiteEntry.delta.offset}
  %delta = load i64, ptr %delta.at
  %above = sub i64 {start}, %first
  %near = icmp ult i64 %above, %limit"""


def site_fill(access: str, first: str, end: str, delta: str) -> str:
    """IR that remembers an extent, ``delta`` from host addresses, as the one of %site."""
    values = [("first", first)]
    lines = [f"\n  %site.span = sub i64 {end}, {first}"]
    for name, size_bytes in (("near_limit", layout.NEAR_BYTES), ("far_limit", layout.FAR_BYTES)):
        lines.append(f"\n  %site.{name} = call i64 @llvm.usub.sat.i64(i64 %site.span, i64 {size_bytes - 1})")
        values.append((name, f"%site.{name}"))
    lines.append(context_field(f"tlb_{access}", "ptr", "site."))
    lines.append(f"\n  %site.at = getelementptr i8, ptr %site.tlb_{access}, i64 %site")
    for name, value in (*values, ("delta", delta)):
        place = getattr(SiteEntry, name).offset
        lines.append(f"\n  %site.{name}.at = getelementptr i8, ptr %site.at, i64 {place}")
        lines.append(f"\n  store i64 {value}, ptr %site.{name}.at")
    return "".join(lines)


def _hit(lanes: int, access: str) -> Function:
    return Function(
        f"""define {{i64, i1}} @tlb_hit_{access}.w{lanes}(ptr %ctx, i64 %va, i64 %size) {{{probe(access, "%va")}
  %room = sub i64 %end, %va
  %fits = icmp ule i64 %size, %room
  %hit = and i1 %tag.ok, %fits
  %r.0 = insertvalue {{i64, i1}} poison, i64 %delta, 0
  %r.1 = insertvalue {{i64, i1}} %r.0, i1 %hit, 1
  ret {{i64, i1}} %r.1
}}""",
        inline=True,
    )


def _extent(lanes: int, access: str) -> Function:
    number = int(ACCESSES[access])
    return Function(
        f"""define {EXTENT} @tlb_extent_{access}.w{lanes}(ptr %ctx, i64 %va, i32 %lane) {{{context_field("miss", "ptr")}
  br label %look
look:
  %again = phi i1 [false, %0], [true, %miss.call]{probe(access, "%va")}
  br i1 %tag.ok, label %found, label %missed
missed:
  br i1 %again, label %failed, label %miss.call
miss.call:
  %filled = call i32 %miss(ptr %ctx, i64 %va, i32 {number})
  %failure = icmp eq i32 %filled, 0
  br i1 %failure, label %failed, label %look
failed:
  call void @record_fault.w{lanes}(ptr %ctx, i32 %lane, i64 %va, i32 {number}, i32 {int(Detail.TRANSLATION)}, i64 0)
  ret {EXTENT} {{i64 0, i64 0, i64 0, i1 true}}
found:
  %r.0 = insertvalue {EXTENT} poison, i64 %first, 0
  %r.1 = insertvalue {EXTENT} %r.0, i64 %end, 1
  %r.2 = insertvalue {EXTENT} %r.1, i64 %delta, 2
  %r.3 = insertvalue {EXTENT} %r.2, i1 false, 3
  ret {EXTENT} %r.3
}}"""
    )


def _lane(lanes: int, access: str) -> Function:
    return Function(
        f"""define {{i64, i1}} @lane_address_{access}.w{lanes}(ptr %ctx, i64 %va, i64 %size, i32 %lane) {{
  %quick = call {{i64, i1}} @tlb_hit_{access}.w{lanes}(ptr %ctx, i64 %va, i64 %size)
  %hit = extractvalue {{i64, i1}} %quick, 1
  %delta = extractvalue {{i64, i1}} %quick, 0
  br i1 %hit, label %found, label %miss
miss:
  %extent = call {EXTENT} @tlb_extent_{access}.w{lanes}(ptr %ctx, i64 %va, i32 %lane)
  %fault = extractvalue {EXTENT} %extent, 3
  %new = extractvalue {EXTENT} %extent, 2
  br i1 %fault, label %failed, label %found
failed:
  ret {{i64, i1}} {{i64 0, i1 true}}
found:
  %at = phi i64 [%delta, %0], [%new, %miss]
  %host = add i64 %at, %va
  %r = insertvalue {{i64, i1}} {{i64 poison, i1 false}}, i64 %host, 0
  ret {{i64, i1}} %r
}}"""
    )


def _lanes(lanes: int, access: str) -> Function:
    mask = f"i{lanes}"
    lane = "%number" if lanes == 32 else "%lane"
    narrow = "" if lanes == 32 else "\n  %lane = trunc i64 %number to i32"
    wide = "\n  %index = zext i32 %number to i64" if lanes == 32 else "\n  %index = add i64 %number, 0"
    arguments = f"ptr %ctx, {mask} %mask, <{lanes} x i64> %va, i64 %size, ptr %hosts"
    return Function(
        f"""define i1 @lane_addresses_{access}.w{lanes}({arguments}) {{
  %all = alloca <{lanes} x i64>
  store <{lanes} x i64> %va, ptr %all
  br label %next
next:
  %rest = phi {mask} [%mask, %0], [%fewer, %good]
  %over = icmp eq {mask} %rest, 0
  br i1 %over, label %done, label %one
one:
  %number = call {mask} @llvm.cttz.{mask}({mask} %rest, i1 true){wide}{narrow}
  %less = sub {mask} %rest, 1
  %fewer = and {mask} %rest, %less
  %from = getelementptr i64, ptr %all, i64 %index
  %address = load i64, ptr %from
  %found = call {{i64, i1}} @lane_address_{access}.w{lanes}(ptr %ctx, i64 %address, i64 %size, i32 {lane})
  %fault = extractvalue {{i64, i1}} %found, 1
  br i1 %fault, label %done, label %good
good:
  %host = extractvalue {{i64, i1}} %found, 0
  %to = getelementptr i64, ptr %hosts, i64 %index
  store i64 %host, ptr %to
  br label %next
done:
  %failed = phi i1 [false, %next], [true, %one]
  ret i1 %failed
}}"""
    )


def _record_fault(lanes: int) -> Function:
    values = (
        ("kind", f"i32 {int(FaultKind.MEMORY)}"),
        ("lane", "i32 %lane"),
        ("va", "i64 %va"),
        ("access", "i32 %access"),
        ("detail", "i32 %detail"),
        ("argument", "i64 %argument"),
    )
    lines = "".join(
        f"""
  %{name}.at = getelementptr i8, ptr %ctx, i64 {layout.offset(f"fault_{name}")}
  store {value}, ptr %{name}.at"""
        for name, value in values
    )
    arguments = "ptr %ctx, i32 %lane, i64 %va, i32 %access, i32 %detail, i64 %argument"
    return Function(f"define void @record_fault.w{lanes}({arguments}) {{{lines}\n  ret void\n}}")
