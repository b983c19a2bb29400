"""Library functions for memory through a buffer descriptor.

inline    buffer_load.F.wN(ptr ctx, iN mask, WHERE) -> {<N x i32> × dwords, i1 fault}
              F as for global_load. Zero where out of bounds.
inline    buffer_store.F.wN(ptr ctx, iN mask, WHERE, <N x i32> × dwords) -> i1 fault
              F as for global_store. Nothing is stored out of bounds.
          buffer_load_any.F.wN, buffer_store_any.F.wN: the same for any descriptor and offsets.
          buffer_where.wN(WHERE, i32 first, i32 last) -> {i64 base, <N x i32> lo, <N x i32> hi, iN, iN}
              The elements are at base + (hi:lo); the masks say in which lanes the first ``first`` and the first
              ``last`` bytes of them are in bounds.
          buffer_within.wN(WHERE) -> {<N x i32> lo, <N x i32> hi}
              Offsets of the elements in the buffer, linear or swizzled.
          buffer_fits.wN(WHERE, i32 end) -> iN
              In which lanes the first ``end`` bytes of the element are in bounds.

WHERE = i32 d0, d1, d2, d3 (the descriptor, without a swizzle when there is no index), <N x i32> index (or the thread's
number), <N x i32> offset, i32 scalar, i32 immediate.

The inline part is for raw buffers, that is without stride, swizzle and structured bounds, and for lanes that are all in
bounds. The rules are those of ``emulator.isa.buffer_ops``.
"""

from __future__ import annotations

from amdrv.emulator.isa.native import vector_load, vector_store
from amdrv.emulator.isa.native.ir_text import result, result_type, splat, vector
from amdrv.emulator.isa.native.library import Function


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    made = [_where(lanes), _within(lanes), _fits(lanes)]
    for name, form in vector_load.FORMS.items():
        made += [_load(lanes, name, form.dwords), _load_any(lanes, name, form.dwords)]
    for name, size in vector_store.SIZES.items():
        made += [_store(lanes, name, -(-size // 4)), _store_any(lanes, name, -(-size // 4))]
    return made


def where_arguments(lanes: int) -> str:
    """WHERE as arguments."""
    words = ", ".join(f"i32 %d{word}" for word in range(4))
    return f"{words}, {vector(lanes)} %index, {vector(lanes)} %offset, i32 %scalar, i32 %immediate"


def place_type(lanes: int) -> str:
    """What ``buffer_where`` returns."""
    return f"{{i64, {vector(lanes)}, {vector(lanes)}, i{lanes}, i{lanes}}}"


def place(lanes: int, first: str, last: str) -> str:
    """IR that calls ``buffer_where``: %base, %lo, %hi, %first.fit, %last.fit."""
    kind = place_type(lanes)
    parts = "".join(
        f"\n  %{name} = extractvalue {kind} %place, {number}"
        for number, name in enumerate(("base", "lo", "hi", "first.fit", "last.fit"))
    )
    arguments = f"{where_arguments(lanes)}, i32 {first}, i32 {last}"
    return f"\n  %place = call {kind} @buffer_where.w{lanes}({arguments}){parts}"


def _raw(lanes: int, size_bytes: int) -> str:
    """IR for %quick: the buffer is raw and the mask's lanes are in bounds; %base then is where offsets count from."""
    mask, kind = f"i{lanes}", vector(lanes)
    return f"""
  %shape = lshr i32 %d1, 16
  %select.bits = and i32 %d3, {3 << 28}
  %bounds = xor i32 %select.bits, {3 << 28}
  %special = or i32 %shape, %bounds
  %is.raw = icmp eq i32 %special, 0
  %scalar.wide = zext i32 %scalar to i64
  %immediate.wide = zext i32 %immediate to i64
  %behind = add i64 %scalar.wide, %immediate.wide
  %records = zext i32 %d2 to i64
  %beyond = sub i64 %records, %behind
  %room = sub i64 %beyond, {size_bytes}
  %some = icmp sge i64 %room, 0
  %limit = trunc i64 %room to i32{splat("limits", "%limit", lanes)}
  %in = icmp ule {kind} %offset, %limits
  %in.bits = bitcast {vector(lanes, "i1")} %in to {mask}
  %out.bits = xor {mask} %in.bits, -1
  %out = and {mask} %out.bits, %mask
  %all.in = icmp eq {mask} %out, 0
  %fits = and i1 %all.in, %some
  %quick = and i1 %fits, %is.raw
  %base.lo = zext i32 %d0 to i64
  %base.wide = zext i32 %d1 to i64
  %base.up = shl i64 %base.wide, 32
  %start = or i64 %base.up, %base.lo
  %base = add i64 %start, %behind"""


def _where(lanes: int) -> Function:
    mask, kind = f"i{lanes}", vector(lanes)
    returned, within = place_type(lanes), f"{{{kind}, {kind}}}"
    results = ("i64 %base", f"{kind} %lo", f"{kind} %hi", f"{mask} %fit.first", f"{mask} %fit.last")
    text = "".join(
        f"\n  %r.{number} = insertvalue {returned} {'poison' if not number else f'%r.{number - 1}'}, {value}, {number}"
        for number, value in enumerate(results)
    )
    return Function(f"""define {returned} @buffer_where.w{lanes}({where_arguments(lanes)}, i32 %first, i32 %last) {{
  %base.lo = zext i32 %d0 to i64
  %base.bits = and i32 %d1, 65535
  %base.hi = zext i32 %base.bits to i64
  %base.up = shl i64 %base.hi, 32
  %start = or i64 %base.up, %base.lo
  %scalar.wide = zext i32 %scalar to i64
  %base = add i64 %start, %scalar.wide
  %found = call {within} @buffer_within.w{lanes}({where_arguments(lanes)})
  %lo = extractvalue {within} %found, 0
  %hi = extractvalue {within} %found, 1
  %fit.first = call {mask} @buffer_fits.w{lanes}({where_arguments(lanes)}, i32 %first)
  %fit.last = call {mask} @buffer_fits.w{lanes}({where_arguments(lanes)}, i32 %last){text}
  ret {returned} %r.4
}}""")


def _wide_parts(lanes: int) -> str:
    """IR for %index.all and %offset.all, which has the immediate offset, in 64 bits."""
    wide = vector(lanes, "i64")
    return f"""
  %index.all = zext {vector(lanes)} %index to {wide}{splat("immediates", "%immediate", lanes)}
  %offset.sum = add {vector(lanes)} %offset, %immediates
  %offset.all = zext {vector(lanes)} %offset.sum to {wide}
  %stride.up = lshr i32 %d1, 16
  %stride.bits = and i32 %stride.up, {0x3FFF}
  %stride = zext i32 %stride.bits to i64{splat("strides", "%stride", lanes, "i64")}
  %swizzle = lshr i32 %d1, 30
  %swizzled = icmp ne i32 %swizzle, 0"""


def _within(lanes: int) -> Function:
    kind, wide = vector(lanes), vector(lanes, "i64")
    returned = f"{{{kind}, {kind}}}"
    return Function(f"""define {returned} @buffer_within.w{lanes}({where_arguments(lanes)}) {{{_wide_parts(lanes)}
  %structs = mul {wide} %strides, %index.all
  %linear = add {wide} %offset.all, %structs
  %code.up = lshr i32 %d3, 21
  %code = and i32 %code.up, 3
  %index.shift.bits = add i32 %code, 3
  %index.shift = zext i32 %index.shift.bits to i64{splat("index.shifts", "%index.shift", lanes, "i64")}
  %element.large = icmp eq i32 %swizzle, 3
  %element.some = select i1 %element.large, i32 4, i32 2
  %element.bits = select i1 %swizzled, i32 %element.some, i32 0
  %element.shift = zext i32 %element.bits to i64{splat("element.shifts", "%element.shift", lanes, "i64")}
  %index.high = lshr {wide} %index.all, %index.shifts
  %index.back = shl {wide} %index.high, %index.shifts
  %index.low = sub {wide} %index.all, %index.back
  %offset.high = lshr {wide} %offset.all, %element.shifts
  %offset.back = shl {wide} %offset.high, %element.shifts
  %offset.low = sub {wide} %offset.all, %offset.back
  %blocks = mul {wide} %index.high, %strides
  %rows = add {wide} %blocks, %offset.back
  %spread = shl {wide} %rows, %index.shifts
  %columns = shl {wide} %index.low, %element.shifts
  %row.start = add {wide} %spread, %columns
  %swizzled.at = add {wide} %row.start, %offset.low
  %at = select i1 %swizzled, {wide} %swizzled.at, {wide} %linear
  %lo = trunc {wide} %at to {kind}
  %up = lshr {wide} %at, splat (i64 32)
  %hi = trunc {wide} %up to {kind}
  %r.0 = insertvalue {returned} poison, {kind} %lo, 0
  %r.1 = insertvalue {returned} %r.0, {kind} %hi, 1
  ret {returned} %r.1
}}""")


def _fits(lanes: int) -> Function:
    """By OOB_SELECT: 0 index and offset in the structure; 1 index; 2 anything but an empty buffer; 3 raw, or as 0 when
    swizzled."""
    mask, wide, flags = f"i{lanes}", vector(lanes, "i64"), vector(lanes, "i1")
    return Function(f"""define {mask} @buffer_fits.w{lanes}({where_arguments(lanes)}, i32 %end) {{{_wide_parts(lanes)}
  %end.wide = zext i32 %end to i64{splat("end.all", "%end.wide", lanes, "i64")}
  %ends = add {wide} %offset.all, %end.all
  %records = zext i32 %d2 to i64{splat("records.all", "%records", lanes, "i64")}
  %index.in = icmp ult {wide} %index.all, %records.all
  %index.bits = bitcast {flags} %index.in to {mask}
  %offset.in = icmp ule {wide} %ends, %strides
  %offset.bits = bitcast {flags} %offset.in to {mask}
  %structured = and {mask} %index.bits, %offset.bits
  %scalar.wide = zext i32 %scalar to i64{splat("scalars", "%scalar.wide", lanes, "i64")}
  %raw.ends = add {wide} %ends, %scalars
  %raw.in = icmp ule {wide} %raw.ends, %records.all
  %raw.bits = bitcast {flags} %raw.in to {mask}
  %empty = icmp eq i64 %records, 0
  %unchecked = select i1 %empty, {mask} 0, {mask} -1
  %has.stride = icmp ne i64 %stride, 0
  %struct.swizzled = and i1 %swizzled, %has.stride
  %raw = select i1 %struct.swizzled, {mask} %structured, {mask} %raw.bits
  %bounds.up = lshr i32 %d3, 28
  %bounds = and i32 %bounds.up, 3
  switch i32 %bounds, label %raw.done [ i32 0, label %struct.done i32 1, label %index.done i32 2, label %any.done ]
struct.done:
  ret {mask} %structured
index.done:
  ret {mask} %index.bits
any.done:
  ret {mask} %unchecked
raw.done:
  ret {mask} %raw
}}""")


def _arguments(lanes: int, data: int = 0) -> str:
    values = "".join(f", {vector(lanes)} %data{dword}" for dword in range(data))
    return f"ptr %ctx, i{lanes} %mask, {where_arguments(lanes)}, i64 %site{values}"


def _load(lanes: int, name: str, dwords: int) -> Function:
    kind, returned = vector(lanes), result_type(lanes, dwords)
    arguments = f"ptr %ctx, i{lanes} %mask, i64 %base, {kind} %offset, {kind} zeroinitializer, i64 %site"
    return Function(
        f"""define {returned} @buffer_load.{name}.w{lanes}({_arguments(lanes)}) {{\
{_raw(lanes, vector_load.FORMS[name].size_bytes)}
  br i1 %quick, label %raw, label %any
raw:
  %loaded = call {returned} @global_load.{name}.w{lanes}({arguments})
  ret {returned} %loaded
any:
  %found = call {returned} @buffer_load_any.{name}.w{lanes}({_arguments(lanes)}) cold
  ret {returned} %found
}}""",
        inline=True,
    )


def _load_any(lanes: int, name: str, dwords: int) -> Function:
    """Lanes whose element is partly in bounds are served dword by dword, and so are all others then."""
    kind, returned, size = vector(lanes), result_type(lanes, dwords), vector_load.FORMS[name].size_bytes
    arguments = f"ptr %ctx, i{lanes} %all, i64 %base, {kind} %lo, {kind} %hi, i64 %site"
    return Function(f"""define {returned} @buffer_load_any.{name}.w{lanes}({_arguments(lanes)}) {{\
{_choose(lanes, size)}
whole:
  %loaded = call {returned} @global_load.{name}.w{lanes}({arguments})
  %inside = bitcast i{lanes} %all to {vector(lanes, "i1")}{_kept(lanes, dwords, "loaded")}
parts:{_load_parts(lanes, dwords)}
}}""")


def _choose(lanes: int, size_bytes: int) -> str:
    """IR for %all, the lanes to be served whole; branches to %whole, or to %parts where some fit in part."""
    mask = f"i{lanes}"
    return f"""{place(lanes, str(min(size_bytes, 4)), str(size_bytes))}
  %all = and {mask} %mask, %last.fit
  %any = and {mask} %mask, %first.fit
  %same = icmp eq {mask} %all, %any
  br i1 %same, label %whole, label %parts"""


def _kept(lanes: int, dwords: int, source: str) -> str:
    """IR that returns what was loaded, with zero out of bounds."""
    kind, returned = vector(lanes), result_type(lanes, dwords)
    lines = [f"\n  %fault = extractvalue {returned} %{source}, {dwords}"]
    for dword in range(dwords):
        lines.append(f"""
  %raw{dword} = extractvalue {returned} %{source}, {dword}
  %v{dword} = select {vector(lanes, "i1")} %inside, {kind} %raw{dword}, {kind} zeroinitializer""")
    return "".join(lines) + result(lanes, [f"%v{dword}" for dword in range(dwords)], "%fault")


def _part(lanes: int, dword: int) -> str:
    """IR for one dword of the elements: %fit.d, the lanes of the mask where it is in bounds, and %base.d."""
    return f"""
  %in.{dword} = call i{lanes} @buffer_fits.w{lanes}({where_arguments(lanes)}, i32 {4 * dword + 4})
  %fit.{dword} = and i{lanes} %mask, %in.{dword}
  %base.{dword} = add i64 %base, {4 * dword}"""


def _load_parts(lanes: int, dwords: int) -> str:
    kind, returned, single = vector(lanes), result_type(lanes, dwords), result_type(lanes, 1)
    lines = []
    for dword in range(dwords):
        arguments = f"ptr %ctx, i{lanes} %fit.{dword}, i64 %base.{dword}, {kind} %lo, {kind} %hi, i64 %site"
        lines.append(f"""{_part(lanes, dword)}
  %loaded.{dword} = call {single} @global_load.b32.w{lanes}({arguments})
  %fault.{dword} = extractvalue {single} %loaded.{dword}, 1
  br i1 %fault.{dword}, label %failed, label %good.{dword}
good.{dword}:
  %raw.{dword} = extractvalue {single} %loaded.{dword}, 0
  %inside.{dword} = bitcast i{lanes} %fit.{dword} to {vector(lanes, "i1")}
  %part.{dword} = select {vector(lanes, "i1")} %inside.{dword}, {kind} %raw.{dword}, {kind} zeroinitializer""")
    values = [f"%part.{dword}" for dword in range(dwords)]
    zeros = ", ".join([f"{kind} zeroinitializer"] * dwords)
    end = result(lanes, values, "false").replace("%result", "%parts.result")
    return f"""{"".join(lines)}{end}
failed:
  ret {returned} {{{zeros}, i1 true}}"""


def _store(lanes: int, name: str, dwords: int) -> Function:
    kind = vector(lanes)
    data = "".join(f", {kind} %data{dword}" for dword in range(dwords))
    arguments = f"ptr %ctx, i{lanes} %mask, i64 %base, {kind} %offset, {kind} zeroinitializer, i64 %site{data}"
    return Function(
        f"""define i1 @buffer_store.{name}.w{lanes}({_arguments(lanes, dwords)}) {{\
{_raw(lanes, vector_store.SIZES[name])}
  br i1 %quick, label %raw, label %any
raw:
  %fault = call i1 @global_store.{name}.w{lanes}({arguments})
  ret i1 %fault
any:
  %fault.any = call i1 @buffer_store_any.{name}.w{lanes}({_arguments(lanes, dwords)}) cold
  ret i1 %fault.any
}}""",
        inline=True,
    )


def _store_any(lanes: int, name: str, dwords: int) -> Function:
    """As for loads."""
    kind, lines = vector(lanes), []
    data = "".join(f", {kind} %data{dword}" for dword in range(dwords))
    arguments = f"ptr %ctx, i{lanes} %all, i64 %base, {kind} %lo, {kind} %hi, i64 %site{data}"
    for dword in range(dwords):
        place = f"ptr %ctx, i{lanes} %fit.{dword}, i64 %base.{dword}, {kind} %lo, {kind} %hi"
        part = f"{place}, i64 %site, {kind} %data{dword}"
        lines.append(f"""{_part(lanes, dword)}
  %fault.{dword} = call i1 @global_store.b32.w{lanes}({part})
  br i1 %fault.{dword}, label %failed, label %good.{dword}
good.{dword}:""")
    return Function(f"""define i1 @buffer_store_any.{name}.w{lanes}({_arguments(lanes, dwords)}) {{\
{_choose(lanes, vector_store.SIZES[name])}
whole:
  %fault = call i1 @global_store.{name}.w{lanes}({arguments})
  ret i1 %fault
parts:{"".join(lines)}
  ret i1 false
failed:
  ret i1 true
}}""")
