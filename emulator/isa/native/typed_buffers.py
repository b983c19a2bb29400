"""Library functions for buffer elements with a format, and their conversion from and to registers.

buffer_format.wN(i32 number) -> i64
    A format as ``encoded`` puts it; 0 for an invalid one.
typed_load.wN(ptr ctx, iN mask, WHERE, i64 format, i32 select, i1 short) -> {<N x i32> × 4, i1 fault}
    The components that DST_SEL picks, as f32 or 32-bit integers; ``short``: as f16 or the low 16 bits.
typed_store.wN(ptr ctx, iN mask, WHERE, i64 format, i32 select, i1 short, i32 count, <N x i32> × 4) -> i1 fault
    Stores ``count`` components; missing ones are zero.

WHERE as in ``buffer_access``. The rules are those of ``emulator.isa.buffer_formats`` and ``buffer_ops``. Formats are
data here, not code: they are nearly always known only when the program runs.
"""

from __future__ import annotations

from amdrv.emulator.isa.buffer_formats import FORMATS, BufferFormat
from amdrv.emulator.isa.buffer_ops import IDENTITY_SELECT, ONE_F32
from amdrv.emulator.isa.native.buffer_access import place, where_arguments
from amdrv.emulator.isa.native.ir_text import result, result_type, splat, vector
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.tlb import NO_SITE

IDENTITY = IDENTITY_SELECT
_KINDS = ("unorm", "snorm", "uscaled", "sscaled", "uint", "sint", "float")
_UINT, _SINT, _FLOAT = (_KINDS.index(kind) for kind in ("uint", "sint", "float"))
_WIDTH_BITS, _KIND_AT, _SIZE_AT = 6, 24, 28  # of an encoded format: four widths, the kind, bytes
_SIZES = {1: "8", 2: "16", 4: "b32", 8: "b64", 12: "b96", 16: "b128"}


def encoded(number: int) -> int:
    """A format by its number: component widths, kind and size in one integer, 0 for an invalid one."""
    layout = FORMATS.get(number)
    return 0 if layout is None else _encode(layout)


def _encode(layout: BufferFormat) -> int:
    widths = sum(width << _WIDTH_BITS * place for place, width in enumerate(layout.widths))
    return widths | _KINDS.index(layout.kind) << _KIND_AT | layout.size_bytes << _SIZE_AT


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    makers = (_format, _from_half, _to_half, _to_number, _from_number, _fetch, _put, _component, _load, _store)
    return [make(lanes) for make in makers]


def _format(lanes: int) -> Function:
    cases = " ".join(f"i32 {number}, label %f{number}" for number in FORMATS)
    blocks = "\n".join(f"f{number}:\n  ret i64 {encoded(number)}" for number in FORMATS)
    return Function(f"""define i64 @buffer_format.w{lanes}(i32 %number) {{
  switch i32 %number, label %invalid [ {cases} ]
{blocks}
invalid:
  ret i64 0
}}""")


def _field(name: str, at: str, bits: int) -> str:
    """IR for a field of %format as i32."""
    return f"""
  %{name}.up = lshr i64 %format, {at}
  %{name}.part = and i64 %{name}.up, {(1 << bits) - 1}
  %{name} = trunc i64 %{name}.part to i32"""


_HEADER = _field("kind", str(_KIND_AT), 3) + _field("size", str(_SIZE_AT), 5)


# Numbers. NaNs keep their payload, which instructions of the host would quieten.


def _from_half(lanes: int) -> Function:
    kind, flags = vector(lanes), vector(lanes, "i1")
    return Function(f"""define {kind} @half_to_float.w{lanes}({kind} %value) {{
  %bits = trunc {kind} %value to {vector(lanes, "i16")}
  %half = bitcast {vector(lanes, "i16")} %bits to {vector(lanes, "half")}
  %float = fpext {vector(lanes, "half")} %half to {vector(lanes, "float")}
  %plain = bitcast {vector(lanes, "float")} %float to {kind}
  %magnitude = and {kind} %value, splat (i32 32767)
  %is.nan = icmp ugt {kind} %magnitude, splat (i32 31744)
  %mantissa = and {kind} %value, splat (i32 1023)
  %payload = shl {kind} %mantissa, splat (i32 13)
  %sign = and {kind} %value, splat (i32 32768)
  %sign.up = shl {kind} %sign, splat (i32 16)
  %signed = or {kind} %payload, %sign.up
  %nan = or {kind} %signed, splat (i32 {0x7F80_0000})
  %result = select {flags} %is.nan, {kind} %nan, {kind} %plain
  ret {kind} %result
}}""")


def _to_half(lanes: int) -> Function:
    kind, flags = vector(lanes), vector(lanes, "i1")
    return Function(f"""define {kind} @float_to_half.w{lanes}({kind} %value) {{
  %float = bitcast {kind} %value to {vector(lanes, "float")}
  %half = fptrunc {vector(lanes, "float")} %float to {vector(lanes, "half")}
  %bits = bitcast {vector(lanes, "half")} %half to {vector(lanes, "i16")}
  %plain = zext {vector(lanes, "i16")} %bits to {kind}
  %magnitude = and {kind} %value, splat (i32 {0x7FFF_FFFF})
  %is.nan = icmp ugt {kind} %magnitude, splat (i32 {0x7F80_0000})
  %mantissa = and {kind} %value, splat (i32 {0x7F_FFFF})
  %kept = lshr {kind} %mantissa, splat (i32 13)
  %lost = icmp eq {kind} %kept, zeroinitializer
  %payload = select {flags} %lost, {kind} splat (i32 1), {kind} %kept
  %sign.down = lshr {kind} %value, splat (i32 16)
  %sign = and {kind} %sign.down, splat (i32 32768)
  %signed = or {kind} %payload, %sign
  %nan = or {kind} %signed, splat (i32 {0x7C00})
  %result = select {flags} %is.nan, {kind} %nan, {kind} %plain
  ret {kind} %result
}}""")


def _widths(lanes: int) -> str:
    """IR for %ones (of the width), %largest and %largest.signed of a component, as doubles for all lanes."""
    return f"""
  %width.wide = zext i32 %width to i64
  %power = shl i64 1, %width.wide
  %ones.wide = sub i64 %power, 1
  %ones.bits = trunc i64 %ones.wide to i32{splat("ones", "%ones.bits", lanes)}
  %half.power = lshr i64 %power, 1
  %largest.bits = sub i64 %half.power, 1
  %largest.u = uitofp i64 %ones.wide to double{splat("largest", "%largest.u", lanes, "double")}
  %largest.s = uitofp i64 %largest.bits to double{splat("largest.signed", "%largest.s", lanes, "double")}"""


def _to_number(lanes: int) -> Function:
    """number_of.wN(<N x i32> value, i32 width, i32 kind): a component, whose lowest bit is bit 0, as a register."""
    kind, double, flags = vector(lanes), vector(lanes, "double"), vector(lanes, "i1")
    cases = " ".join(f"i32 {number}, label %k.{name}" for number, name in enumerate(_KINDS))

    def done(value: str) -> str:
        return f"""
  {value}.float = fptrunc {double} {value} to {vector(lanes, "float")}
  {value}.bits = bitcast {vector(lanes, "float")} {value}.float to {kind}
  ret {kind} {value}.bits"""

    return Function(f"""define {kind} @number_of.w{lanes}({kind} %value, i32 %width, i32 %kind) {{{_widths(lanes)}
  %unsigned = and {kind} %value, %ones
  %shift = sub i32 32, %width{splat("shifts", "%shift", lanes)}
  %up = shl {kind} %unsigned, %shifts
  %signed = ashr {kind} %up, %shifts
  switch i32 %kind, label %k.uint [ {cases} ]
k.uint:
  ret {kind} %unsigned
k.sint:
  ret {kind} %signed
k.unorm:
  %unorm.n = uitofp {kind} %unsigned to {double}
  %unorm.q = fdiv {double} %unorm.n, %largest{done("%unorm.q")}
k.snorm:
  %snorm.n = sitofp {kind} %signed to {double}
  %snorm.q = fdiv {double} %snorm.n, %largest.signed
  %below = fcmp olt {double} %snorm.q, splat (double -1.0)
  %snorm.r = select {flags} %below, {double} splat (double -1.0), {double} %snorm.q{done("%snorm.r")}
k.uscaled:
  %uscaled.n = uitofp {kind} %unsigned to {double}{done("%uscaled.n")}
k.sscaled:
  %sscaled.n = sitofp {kind} %signed to {double}{done("%sscaled.n")}
k.float:
  %whole = icmp eq i32 %width, 32
  br i1 %whole, label %k.uint, label %small
small:
  %is.half = icmp eq i32 %width, 16
  %missing = sub i32 15, %width
  %raised = select i1 %is.half, i32 0, i32 %missing{splat("raises", "%raised", lanes)}
  %half = shl {kind} %unsigned, %raises
  %float.bits = call {kind} @half_to_float.w{lanes}({kind} %half)
  ret {kind} %float.bits
}}""")


def _clip(lanes: int, name: str, value: str, low: str, high: str) -> str:
    """IR that holds doubles between two bounds."""
    double, flags = vector(lanes, "double"), vector(lanes, "i1")
    return f"""
  %{name}.low = fcmp olt {double} {value}, {low}
  %{name}.up = select {flags} %{name}.low, {double} {low}, {double} {value}
  %{name}.high = fcmp ogt {double} %{name}.up, {high}
  %{name} = select {flags} %{name}.high, {double} {high}, {double} %{name}.up"""


def _encode_kind(lanes: int, name: str, low: str, high: str) -> str:
    """A block that makes the bits of a normalised or scaled component from %number and returns them."""
    kind, double = vector(lanes), vector(lanes, "double")
    if name.endswith("norm"):
        rounded = f"""{_clip(lanes, f"{name}.c", "%number", "splat (double -1.0)", "splat (double 1.0)")}
  %{name}.s = fmul {double} %{name}.c, {high}
  %{name}.r = call {double} @llvm.roundeven.v{lanes}f64({double} %{name}.s)"""
    else:
        rounded = f"\n  %{name}.r = call {double} @llvm.trunc.v{lanes}f64({double} %number)"
    return f"""
k.{name}:{rounded}{_clip(lanes, f"{name}.k", f"%{name}.r", low, high)}
  %{name}.i = fptosi {double} %{name}.k to {kind}
  %{name}.bits = and {kind} %{name}.i, %ones
  ret {kind} %{name}.bits"""


def _from_number(lanes: int) -> Function:
    """bits_of.wN(<N x i32> value, i32 width, i32 kind): the bits of a component from a register."""
    kind, double, flags = vector(lanes), vector(lanes, "double"), vector(lanes, "i1")
    cases = " ".join(f"i32 {number}, label %k.{name}" for number, name in enumerate(_KINDS))
    bounds = {
        "unorm": ("zeroinitializer", "%largest"),
        "snorm": ("%negative", "%largest.signed"),
        "uscaled": ("zeroinitializer", "%largest"),
        "sscaled": ("%least", "%largest.signed"),
    }
    numbers = "".join(_encode_kind(lanes, name, low, high) for name, (low, high) in bounds.items())
    return Function(f"""define {kind} @bits_of.w{lanes}({kind} %value, i32 %width, i32 %kind) {{{_widths(lanes)}
  %negative = fneg {double} %largest.signed
  %least = fsub {double} %negative, splat (double 1.0)
  %float = bitcast {kind} %value to {vector(lanes, "float")}
  %is.nan = fcmp uno {vector(lanes, "float")} %float, %float
  %exact = fpext {vector(lanes, "float")} %float to {double}
  %number = select {flags} %is.nan, {double} zeroinitializer, {double} %exact
  switch i32 %kind, label %k.uint [ {cases} ]
k.uint:
  %bits = and {kind} %value, %ones
  ret {kind} %bits
k.sint:
  br label %k.uint{numbers}
k.float:
  %whole = icmp eq i32 %width, 32
  br i1 %whole, label %k.uint, label %small
small:
  %half = call {kind} @float_to_half.w{lanes}({kind} %value)
  %is.half = icmp eq i32 %width, 16
  br i1 %is.half, label %as.half, label %tiny
as.half:
  ret {kind} %half
tiny:
  %sign = and {kind} %half, splat (i32 32768)
  %below.zero = icmp ne {kind} %sign, zeroinitializer
  %positive = select {flags} %below.zero, {kind} zeroinitializer, {kind} %half
  %dropped = sub i32 15, %width{splat("drops", "%dropped", lanes)}
  %short = lshr {kind} %positive, %drops
  ret {kind} %short
}}""")


# Memory.


def _fetch(lanes: int) -> Function:
    """typed_fetch.wN: elements of a size known at run time, as four dwords; lanes not in the mask get zero."""
    kind, returned = vector(lanes), result_type(lanes, 4)
    cases = " ".join(f"i32 {size}, label %s{size}" for size in _SIZES)
    blocks, sources = [], [[] for _ in range(5)]  # type: ignore[var-annotated]
    arguments = f"ptr %ctx, i{lanes} %mask, i64 %base, {kind} %lo, {kind} %hi"
    for size, name in _SIZES.items():
        count = -(-size // 4)
        one = result_type(lanes, count)
        prefix = "u" if size < 4 else ""
        lines = [f"s{size}:\n  %r{size} = call {one} @global_load.{prefix}{name}.w{lanes}({arguments}, {NO_SITE})"]
        lines += [f"  %v{size}.{number} = extractvalue {one} %r{size}, {number}" for number in range(count + 1)]
        blocks.append("\n".join([*lines, "  br label %done"]))
        for dword in range(4):
            sources[dword].append(f"[{f'%v{size}.{dword}' if dword < count else 'zeroinitializer'}, %s{size}]")
        sources[4].append(f"[%v{size}.{count}, %s{size}]")
    merged = "".join(
        f"\n  %raw.{dword} = phi {kind} [zeroinitializer, %0], {', '.join(sources[dword])}" for dword in range(4)
    )
    kept = "".join(
        f"\n  %v{dword} = select {vector(lanes, 'i1')} %inside, {kind} %raw.{dword}, {kind} zeroinitializer"
        for dword in range(4)
    )
    body = "\n".join(blocks)
    return Function(f"""define {returned} @typed_fetch.w{lanes}({arguments}, i32 %size) {{
  %inside = bitcast i{lanes} %mask to {vector(lanes, "i1")}
  switch i32 %size, label %done [ {cases} ]
{body}
done:{merged}
  %fault = phi i1 [false, %0], {", ".join(sources[4])}{kept}{result(lanes, [f"%v{n}" for n in range(4)], "%fault")}
}}""")


def _put(lanes: int) -> Function:
    """typed_put.wN: the inverse of typed_fetch."""
    kind = vector(lanes)
    cases = " ".join(f"i32 {size}, label %s{size}" for size in _SIZES)
    arguments = f"ptr %ctx, i{lanes} %mask, i64 %base, {kind} %lo, {kind} %hi"
    blocks = []
    for size, name in _SIZES.items():
        data = "".join(f", {kind} %data{dword}" for dword in range(-(-size // 4)))
        prefix = "b" if size < 4 else ""
        call = f"call i1 @global_store.{prefix}{name}.w{lanes}({arguments}, {NO_SITE}{data})"
        blocks.append(f"s{size}:\n  %r{size} = {call}\n  ret i1 %r{size}")
    body = "\n".join(blocks)
    data = "".join(f", {kind} %data{dword}" for dword in range(4))
    return Function(f"""define i1 @typed_put.w{lanes}({arguments}, i32 %size{data}) {{
  switch i32 %size, label %done [ {cases} ]
{body}
done:
  ret i1 false
}}""")


def _component(lanes: int) -> Function:
    """typed_component.wN(<N x i32> × 4 dwords, i32 at, i32 width, i32 kind): the component at a bit of the element."""
    kind = vector(lanes)
    data = ", ".join(f"{kind} %data{dword}" for dword in range(4))
    return Function(f"""define {kind} @typed_component.w{lanes}({data}, i32 %at, i32 %width, i32 %kind) {{
  %dword = lshr i32 %at, 5
  %bit = and i32 %at, 31{splat("bits", "%bit", lanes)}
  %is.1 = icmp eq i32 %dword, 1
  %is.2 = icmp eq i32 %dword, 2
  %is.3 = icmp eq i32 %dword, 3
  %to.1 = select i1 %is.1, {kind} %data1, {kind} %data0
  %to.2 = select i1 %is.2, {kind} %data2, {kind} %to.1
  %to.3 = select i1 %is.3, {kind} %data3, {kind} %to.2
  %moved = lshr {kind} %to.3, %bits
  %number = call {kind} @number_of.w{lanes}({kind} %moved, i32 %width, i32 %kind)
  ret {kind} %number
}}""")


def _layout(component: int) -> str:
    """IR for %width.c and %at.c, where the component is in the element."""
    at = "add i32 0, 0" if not component else f"add i32 %at.{component - 1}, %width.{component - 1}"
    return _field(f"width.{component}", str(_WIDTH_BITS * component), _WIDTH_BITS) + f"\n  %at.{component} = {at}"


def _located(lanes: int) -> str:
    """IR for where the elements are and %inside.mask, the lanes to be served."""
    return f"""{_HEADER}
  %small = icmp ult i32 %size, 4
  %first = select i1 %small, i32 %size, i32 4{place(lanes, "%first", "%size")}
  %inside.mask = and i{lanes} %mask, %last.fit"""


def _load(lanes: int) -> Function:
    kind, returned, flags = vector(lanes), result_type(lanes, 4), vector(lanes, "i1")
    arguments = f"ptr %ctx, i{lanes} %mask, {where_arguments(lanes)}, i64 %format, i32 %select, i1 %short"
    fetch = f"ptr %ctx, i{lanes} %inside.mask, i64 %base, {kind} %lo, {kind} %hi, i32 %size"
    raw = "".join(f"\n  %raw{dword} = extractvalue {returned} %fetched, {dword}" for dword in range(4))
    words = ", ".join(f"{kind} %raw{dword}" for dword in range(4))
    lines = []
    for c in range(4):
        missing = "%one" if c == 3 else "zeroinitializer"
        lines.append(f"""{_layout(c)}
  %there.{c} = icmp ne i32 %width.{c}, 0
  %number.{c} = call {kind} @typed_component.w{lanes}({words}, i32 %at.{c}, i32 %width.{c}, i32 %kind)
  %component.{c} = select i1 %there.{c}, {kind} %number.{c}, {kind} {missing}""")
    for c in range(4):
        lines.append(f"\n  %choice.up.{c} = lshr i32 %select, {3 * c}\n  %choice.{c} = and i32 %choice.up.{c}, 7")
        previous = "zeroinitializer"
        for code, value in ((1, "%ones"), *((4 + other, f"%component.{other}") for other in range(4))):
            lines.append(f"""
  %is.{c}.{code} = icmp eq i32 %choice.{c}, {code}
  %pick.{c}.{code} = select i1 %is.{c}.{code}, {kind} {value}, {kind} {previous}""")
            previous = f"%pick.{c}.{code}"
        lines.append(f"""
  %half.{c} = call {kind} @float_to_half.w{lanes}({kind} {previous})
  %low.{c} = and {kind} {previous}, splat (i32 65535)
  %cut.{c} = select i1 %integer, {kind} %low.{c}, {kind} %half.{c}
  %v{c} = select i1 %short, {kind} %cut.{c}, {kind} {previous}""")
    zeros = ", ".join([f"{kind} zeroinitializer"] * 4)
    return Function(f"""define {returned} @typed_load.w{lanes}({arguments}) {{
  %invalid = icmp eq i64 %format, 0
  br i1 %invalid, label %none, label %valid
none:
  ret {returned} zeroinitializer
valid:{_located(lanes)}
  %fetched = call {returned} @typed_fetch.w{lanes}({fetch})
  %fault = extractvalue {returned} %fetched, 4
  br i1 %fault, label %failed, label %good
failed:
  ret {returned} {{{zeros}, i1 true}}
good:{raw}
  %is.uint = icmp eq i32 %kind, {_UINT}
  %is.sint = icmp eq i32 %kind, {_SINT}
  %integer = or i1 %is.uint, %is.sint
  %one.bits = select i1 %integer, i32 1, i32 {ONE_F32}{splat("ones", "%one.bits", lanes)}
  %inside = bitcast i{lanes} %inside.mask to {flags}
  %one = select {flags} %inside, {kind} %ones, {kind} zeroinitializer{"".join(lines)}\
{result(lanes, [f"%v{c}" for c in range(4)], "false")}
}}""")


def _store(lanes: int) -> Function:
    kind = vector(lanes)
    data = "".join(f", {kind} %data{c}" for c in range(4))
    extra = f"i64 %format, i32 %select, i1 %short, i32 %count{data}"
    arguments = f"ptr %ctx, i{lanes} %mask, {where_arguments(lanes)}, {extra}"
    lines = []
    previous = ["zeroinitializer"] * 4
    for c in range(4):
        lines.append(f"""{_layout(c)}
  %given.{c} = icmp ugt i32 %count, {c}
  %has.{c} = icmp ne i32 %width.{c}, 0
  %there.{c} = and i1 %given.{c}, %has.{c}
  %signed.up.{c} = shl {kind} %data{c}, splat (i32 16)
  %signed.{c} = ashr {kind} %signed.up.{c}, splat (i32 16)
  %float.{c} = call {kind} @half_to_float.w{lanes}({kind} %data{c})
  %as.sint.{c} = select i1 %is.sint, {kind} %signed.{c}, {kind} %float.{c}
  %as.uint.{c} = select i1 %is.uint, {kind} %data{c}, {kind} %as.sint.{c}
  %value.{c} = select i1 %short, {kind} %as.uint.{c}, {kind} %data{c}
  %bits.{c} = call {kind} @bits_of.w{lanes}({kind} %value.{c}, i32 %width.{c}, i32 %kind)
  %kept.{c} = select i1 %there.{c}, {kind} %bits.{c}, {kind} zeroinitializer
  %bit.{c} = and i32 %at.{c}, 31{splat(f"place.{c}", f"%bit.{c}", lanes)}
  %moved.{c} = shl {kind} %kept.{c}, %place.{c}
  %dword.{c} = lshr i32 %at.{c}, 5""")
        for dword in range(4):
            name = f"{c}.{dword}"
            lines.append(f"""
  %here.{name} = icmp eq i32 %dword.{c}, {dword}
  %part.{name} = select i1 %here.{name}, {kind} %moved.{c}, {kind} zeroinitializer
  %sum.{name} = or {kind} {previous[dword]}, %part.{name}""")
            previous[dword] = f"%sum.{name}"
    words = "".join(f", {kind} {value}" for value in previous)
    put = f"ptr %ctx, i{lanes} %inside.mask, i64 %base, {kind} %lo, {kind} %hi, i32 %size{words}"
    return Function(f"""define i1 @typed_store.w{lanes}({arguments}) {{
  %invalid = icmp eq i64 %format, 0
  br i1 %invalid, label %none, label %valid
none:
  ret i1 false
valid:{_located(lanes)}
  %is.uint = icmp eq i32 %kind, {_UINT}
  %is.sint = icmp eq i32 %kind, {_SINT}{"".join(lines)}
  %fault = call i1 @typed_put.w{lanes}({put})
  ret i1 %fault
}}""")
