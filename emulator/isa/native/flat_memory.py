"""FLAT loads and stores: virtual memory with windows onto LDS and private memory.

inline  flat_load.F.wN(ptr ctx, iN mask, i64 base, <N x i32> lo, <N x i32> hi, i64 scratch)
            -> {<N x i32> × dwords, i1 fault}
        flat_store.F.wN(ptr ctx, iN mask, i64 base, <N x i32> lo, <N x i32> hi, i64 scratch, <N x i32> × dwords)
            -> i1 fault
            As ``global_load`` and ``global_store``; no cached extent is in a window, so these look for one only where
            the inline path fails. ``scratch`` is the virtual address of the wave's private memory.
        lds_lanes_read.wN, lds_lanes_write.wN
            (ptr ctx, iN mask, <N x i32> offset, i64 size, i64 stride, ptr buffer) -> void
            LDS lane by lane: beyond its end loads change nothing in the buffer and stores do nothing.

Windows as in ``spaces.FlatSpace`` (SH_MEM_BASES): the upper half of an address names one.
"""

from __future__ import annotations

from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.native import vector_load, vector_store
from amdrv.emulator.isa.native.address_pattern import addresses, arguments
from amdrv.emulator.isa.native.ir_text import cold_result, cold_type, interleave, result_type, splat, vector
from amdrv.emulator.isa.native.lane_transfer import lane_loop
from amdrv.emulator.isa.native.lds_scattered import loaded_type
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import context_field
from amdrv.emulator.isa.native.vector_load import LoadForm
from amdrv.emulator.isa.native.vector_store import data_arguments


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    loads = [make(lanes, name, form) for name, form in vector_load.FORMS.items() for make in (_load, _read)]
    stores = [make(lanes, name) for name in vector_store.SIZES for make in (_store, _write)]
    shared = [make(lanes, access) for access in Access if access is not Access.EXECUTE for make in (_lds, _lanes)]
    return [*shared, *loads, *stores]


def _arguments(lanes: int) -> str:
    return f"{arguments(lanes)}, i64 %scratch"


def _load(lanes: int, name: str, form: LoadForm) -> Function:
    call = f"@flat_read.{name}.w{lanes}({_arguments(lanes)})"
    return vector_load.inline_load(lanes, f"flat_load.{name}.w{lanes}({_arguments(lanes)})", form, call)


def _store(lanes: int, name: str) -> Function:
    passed = f"{_arguments(lanes)}{data_arguments(lanes, name)}"
    return vector_store.inline_store(
        lanes, f"flat_store.{name}.w{lanes}({passed})", name, f"@flat_write.{name}.w{lanes}({passed})"
    )


def _windows(lanes: int) -> str:
    """IR for %vas, and the lanes of the mask in each space: %in.lds, %in.private, %in.memory; %offset in a window.

    The blocks %plain, %private, %shared and %mixed follow.
    """
    mask, kind, wide = f"i{lanes}", vector(lanes), vector(lanes, "i64")
    lines = [
        addresses(lanes),
        context_field("shared_base", "i64"),
        context_field("private_base", "i64"),
        f"""
  %offset = trunc {wide} %vas to {kind}
  %top.wide = lshr {wide} %vas, splat (i64 32)
  %top = trunc {wide} %top.wide to {kind}""",
    ]
    for name, base in (("lds", "shared_base"), ("private", "private_base")):
        lines.append(f"""
  %{name}.up = lshr i64 %{base}, 32
  %{name}.top = trunc i64 %{name}.up to i32{splat(f"{name}.all", f"%{name}.top", lanes)}
  %{name}.eq = icmp eq {kind} %top, %{name}.all
  %{name}.bits = bitcast {vector(lanes, "i1")} %{name}.eq to {mask}
  %{name}.exists = icmp ne i64 %{base}, 0
  %{name}.real = select i1 %{name}.exists, {mask} %{name}.bits, {mask} 0
  %in.{name} = and {mask} %{name}.real, %mask""")
    lines.append(f"""
  %in.window = or {mask} %in.lds, %in.private
  %out.of.window = xor {mask} %in.window, -1
  %in.memory = and {mask} %mask, %out.of.window
  %no.window = icmp eq {mask} %in.window, 0
  br i1 %no.window, label %plain, label %window
window:
  %not.private = xor {mask} %in.private, %mask
  %all.private = icmp eq {mask} %not.private, 0
  br i1 %all.private, label %private, label %no.private
no.private:
  %not.lds = xor {mask} %in.lds, %mask
  %all.lds = icmp eq {mask} %not.lds, 0
  br i1 %all.lds, label %shared, label %mixed""")
    return "".join(lines)


def _mixed(lanes: int, size_bytes: int) -> str:
    """What the lane by lane way is called with."""
    mask = f"i{lanes}"
    return (
        f"ptr %ctx, {mask} %in.lds, {mask} %in.private, {mask} %in.memory, {vector(lanes, 'i64')} %vas, "
        f"i64 %scratch, i64 {size_bytes}, ptr %buffer"
    )


def _read(lanes: int, name: str, form: LoadForm) -> Function:
    dwords, returned, rows = form.dwords, cold_type(lanes, form.dwords), vector(lanes * form.dwords)
    hot = result_type(lanes, dwords)
    parts = "".join(f"\n  %p{dword} = extractvalue {hot} %from.private, {dword}" for dword in range(dwords))
    own = f"ptr %ctx, i{lanes} %mask, i64 %scratch, {vector(lanes)} %offset"
    shared = f"ptr %ctx, i{lanes} %mask, {vector(lanes)} %offset, i32 0"
    return Function(f"""define {returned} @flat_read.{name}.w{lanes}({_arguments(lanes)}) {{
  %buffer = alloca {rows}{_windows(lanes)}
plain:
  %from.memory = call {returned} @gather.{name}.w{lanes}({arguments(lanes)}) noinline
  ret {returned} %from.memory
private:
  %from.private = call {hot} @scratch_load.{name}.w{lanes}({own}) noinline{parts}
  %private.fault = extractvalue {hot} %from.private, {dwords}{
        cold_result(lanes, [f"%p{dword}" for dword in range(dwords)], "%private.fault")
    }
shared:
  %from.lds = call {loaded_type(lanes, dwords)} @lds_load.{8 * form.size_bytes}.w{lanes}({shared}) noinline{
        _shared_parts(lanes, form)
    }{cold_result(lanes, [f"%s{dword}" for dword in range(dwords)], "false", "shared.")}
mixed:
  store {rows} zeroinitializer, ptr %buffer
  %failed = call i1 @flat_lanes_read.w{lanes}({_mixed(lanes, form.size_bytes)}) noinline
  %raw = load {rows}, ptr %buffer{vector_load.extended("v", "%raw", lanes, form)}{
        cold_result(lanes, [f"%v{dword}" for dword in range(dwords)], "%failed", "mixed.")
    }
}}""")


def _shared_parts(lanes: int, form: LoadForm) -> str:
    """IR for %s0, …: what lds_load gave, which is zero-extended, as the form wants it."""
    kind, loaded = vector(lanes), loaded_type(lanes, form.dwords)
    if not form.signed:
        return "".join(f"\n  %s{dword} = extractvalue {loaded} %from.lds, {dword}" for dword in range(form.dwords))
    shift = f"splat (i32 {32 - 8 * form.size_bytes})"
    return f"""
  %shared.raw = extractvalue {loaded} %from.lds, 0
  %shared.up = shl {kind} %shared.raw, {shift}
  %s0 = ashr {kind} %shared.up, {shift}"""


def _write(lanes: int, name: str) -> Function:
    size, data = vector_store.SIZES[name], data_arguments(lanes, name)
    dwords = -(-size // 4)
    rows = vector(lanes * dwords)
    own = f"ptr %ctx, i{lanes} %mask, i64 %scratch, {vector(lanes)} %offset{data}"
    joined = interleave("rows", [f"%data{dword}" for dword in range(dwords)], lanes)
    return Function(f"""define i1 @flat_write.{name}.w{lanes}({_arguments(lanes)}{data}) {{
  %buffer = alloca {rows}{_windows(lanes)}
plain:
  %to.memory = call i1 @scatter.{name}.w{lanes}({arguments(lanes)}{data}) noinline
  ret i1 %to.memory
private:
  %to.private = call i1 @scratch_store.{name}.w{lanes}({own}) noinline
  ret i1 %to.private
shared:
  call void @lds_store.{8 * size}.w{lanes}(ptr %ctx, i{lanes} %mask, {vector(lanes)} %offset, i32 0{data}) noinline
  ret i1 false
mixed:{joined}
  store {rows} %rows, ptr %buffer
  %failed = call i1 @flat_lanes_write.w{lanes}({_mixed(lanes, size)}) noinline
  ret i1 %failed
}}""")


def _lanes(lanes: int, access: Access) -> Function:
    """Each space in turn: LDS, private memory, memory."""
    mask, name, kind, wide = f"i{lanes}", access.name.lower(), vector(lanes), vector(lanes, "i64")
    arguments_ = f"ptr %ctx, {mask} %lds, {mask} %private, {mask} %memory, {wide} %vas, i64 %scratch, i64 %size"
    place = f"{kind} %offset, i64 %size"
    own = f"ptr %ctx, {mask} %private, i64 %scratch, {place}"
    return Function(f"""define i1 @flat_lanes_{name}.w{lanes}({arguments_}, ptr %buffer) {{
  %up = add i64 %size, 3
  %stride = and i64 %up, -4
  %offset = trunc {wide} %vas to {kind}
  call void @lds_lanes_{name}.w{lanes}(ptr %ctx, {mask} %lds, {place}, i64 %stride, ptr %buffer)
  %beyond = call i1 @scratch_bounds.w{lanes}({own}, i32 {int(access)})
  br i1 %beyond, label %failed, label %inside
inside:
  %none = icmp eq {mask} %private, 0
  br i1 %none, label %memory.part, label %private.part
private.part:
  %bad = call i1 @scratch_lanes_{name}.w{lanes}({own}, i64 %stride, ptr %buffer)
  br i1 %bad, label %failed, label %memory.part
memory.part:
  %fault = call i1 @lanes_{name}.w{lanes}(ptr %ctx, {mask} %memory, {wide} %vas, i64 %size, i64 %stride, ptr %buffer)
  ret i1 %fault
failed:
  ret i1 true
}}""")


def _lds(lanes: int, access: Access) -> Function:
    mask, name, kind = f"i{lanes}", access.name.lower(), vector(lanes)
    ends = ("ptr %own", "ptr %there") if access is Access.READ else ("ptr %there", "ptr %own")
    passed = f"ptr %ctx, {mask} %mask, {kind} %offset, i64 %size, i64 %stride, ptr %buffer"
    return Function(f"""define void @lds_lanes_{name}.w{lanes}({passed}) {{
  %all = alloca {kind}
  store {kind} %offset, ptr %all{context_field("lds", "ptr")}{context_field("lds_bytes", "i32")}
  %bytes = zext i32 %lds_bytes to i64
  br label %next
next:
  %rest = phi {mask} [%mask, %0], [%fewer, %again]{lane_loop(lanes)}
  %from = getelementptr i32, ptr %all, i64 %index
  %at = load i32, ptr %from
  %at.wide = zext i32 %at to i64
  %behind = add i64 %at.wide, %size
  %inside = icmp ule i64 %behind, %bytes
  br i1 %inside, label %copy, label %again
copy:
  %there = getelementptr i8, ptr %lds, i64 %at.wide
  %skip = mul i64 %index, %stride
  %own = getelementptr i8, ptr %buffer, i64 %skip
  call void @copy_element.w{lanes}({ends[0]}, {ends[1]}, i64 %size)
  br label %again
again:
  br label %next
over:
  ret void
}}""")
