"""SMEM: scalar loads, one address a wave. The translator's side of ``emulator.isa.scalar_memory``.

inline  scalar_load.C.wN(ptr ctx, i64 va, i64 site) -> {<C x i32>, i1 fault}
            C = 1, 2, 4, 8, 16 dwords from an address that is a multiple of 4; ``site`` as in ``tlb``.
        scalar_load_apart.C.wN
            The same, dword by dword.
        scalar_part.B.wN(ptr ctx, i64 va, i64 at, i64 limit) -> {i32, i1 fault}
            B = 1, 2 bytes from an address that is a multiple of them, zero-extended; zero if at + B exceeds the limit.
        buffer_load.C.wN(ptr ctx, i64 start, i64 at, i64 limit, i64 site) -> {<C x i32>, i1 fault}
            C dwords from start + at; those that end behind offset ``limit`` are zero.
"""

from __future__ import annotations

from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.memory_ops import Form
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.control import FENCE, sees_others
from amdrv.emulator.isa.native.frame import EXEC_HI, NULL, Frame
from amdrv.emulator.isa.native.ir_text import vector
from amdrv.emulator.isa.native.lds import extended
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import read, resize
from amdrv.emulator.isa.native.tlb import EXTENT, site_fill, site_probe
from amdrv.emulator.isa.operands import find
from amdrv.emulator.isa.scalar_memory import LAST_DESCRIPTOR, PARTS, SIZES, WITHOUT_DATA

_BUFFER_BASE = (1 << 48) - 1
_STRIDE_MASK = 0x3FFF


def functions(lanes: int) -> list[Function]:
    """The library functions of scalar loads."""
    whole = [make(lanes, count) for count in SIZES.values() for make in (_load, _load_apart, _load_buffer)]
    return [*whole, *(_load_part(lanes, size_bytes) for size_bytes in (1, 2))]


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write a scalar load, a prefetch or a cache invalidation; False for anything else."""
    if instruction.encoding != "SMEM":
        return False
    if instruction.mnemonic in WITHOUT_DATA:  # caches are not modelled: memory is always coherent
        frame.builder.do(FENCE)
        return True
    kind = instruction.mnemonic.rpartition("_")[2]
    count = 1 if kind in PARTS else SIZES.get(kind)
    base = find(instruction.src, "sbase")
    buffer = instruction.mnemonic.startswith("s_buffer")
    if count is None or base is None or (buffer and base.index > LAST_DESCRIPTOR):
        return False
    if sees_others(instruction):
        frame.builder.do(FENCE)
    at = _offset(frame, instruction)
    if kind in PARTS:
        _translate_part(frame, instruction, *PARTS[kind], at)
        return True
    at = at & -4
    if buffer:
        start, limit = _descriptor(frame, base.index)
        arguments = ["ptr %ctx", (start & -4).typed, at.typed, limit.typed, frame.site()]
        found = frame.builder.call(f"buffer_load.{count}.w{frame.lanes}", _result(count), arguments)
    else:
        start = read(frame, base, "u64")
        address = (start & -4) + at
        arguments = ["ptr %ctx", address.typed, frame.site()]
        found = frame.builder.call(f"scalar_load.{count}.w{frame.lanes}", _result(count), arguments)
    _write(frame, found, count, instruction.dst[0].index)
    return True


def _result(count: int) -> str:
    return f"{{{vector(count)}, i1}}"


def _offset(frame: Frame, instruction: Instruction) -> Val:
    """Immediate plus scalar offset."""
    immediate = frame.generation.offset(instruction)
    soffset = find(instruction.src, "soffset")
    if soffset is None or soffset.index == NULL:
        return frame.builder.constant("u64", immediate)
    return resize(read(frame, soffset, "u32"), "u64") + immediate


def _translate_part(frame: Frame, instruction: Instruction, size_bytes: int, signed: bool, at: Val) -> None:
    """A byte or two: with their sign, in one register."""
    builder, base = frame.builder, instruction.src[0]
    if instruction.mnemonic.startswith("s_buffer"):
        start, limit = _descriptor(frame, base.index)
        within = at
    else:  # nothing is out of range
        start, limit = read(frame, base, "u64"), builder.constant("u64", -1)
        within = builder.constant("u64", 0)
    address = start + at & -size_bytes
    arguments = ["ptr %ctx", address.typed, within.typed, limit.typed]
    found = builder.call(f"scalar_part.{size_bytes}.w{frame.lanes}", "{i32, i1}", arguments)
    frame.fault_if(builder.emit(f"extractvalue {{i32, i1}} {found}, 1"))
    value = builder.value("u32", builder.emit(f"extractvalue {{i32, i1}} {found}, 0"), False)
    target = instruction.dst[0].index
    if target != NULL and target <= EXEC_HI:
        frame.set_sgpr(target, extended(value, Form(size_bytes, signed)))


def _descriptor(frame: Frame, descriptor: int) -> tuple[Val, Val]:
    """(48 bits of base, num_records in bytes): beyond these (in strides, if there is one) there are zeroes."""
    builder = frame.builder
    start = frame.sgpr64(descriptor) & _BUFFER_BASE
    stride = frame.sgpr(descriptor + 1) >> 16 & _STRIDE_MASK
    records = frame.sgpr(descriptor + 2)
    unstructured = builder.value("bool", builder.emit(f"icmp eq {stride.typed}, 0"), False)
    unit = frame.select(unstructured, builder.constant("u32", 1), stride)
    return start, resize(records, "u64") * resize(unit, "u64")


def _write(frame: Frame, found: str, count: int, first: int) -> None:
    """Consecutive scalar registers; those beyond the register file, and NULL, are left out."""
    builder = frame.builder
    frame.fault_if(builder.emit(f"extractvalue {_result(count)} {found}, 1"))
    if first == NULL:
        return
    data = builder.emit(f"extractvalue {_result(count)} {found}, 0")
    for dword in range(count):
        if first + dword <= EXEC_HI and first + dword != NULL:
            text = builder.emit(f"extractelement {vector(count)} {data}, i64 {dword}")
            frame.set_sgpr(first + dword, builder.value("u32", text, False))


def _load(lanes: int, count: int) -> Function:
    kind = _result(count)
    text = f"""define {kind} @scalar_load.{count}.w{lanes}(ptr %ctx, i64 %va, i64 %site) {{\
{site_probe("read", "%va", 4 * count)}
  br i1 %near, label %fast, label %slow
fast:
  %host = add i64 %va, %delta
  %at = inttoptr i64 %host to ptr
  %here = load {vector(count)}, ptr %at, align 4
  br label %done
slow:
  %found = call {kind} @scalar_load_apart.{count}.w{lanes}(ptr %ctx, i64 %va, i64 %site) cold noinline
  %there = extractvalue {kind} %found, 0
  %fault.there = extractvalue {kind} %found, 1
  br label %done
done:
  %data = phi {vector(count)} [%here, %fast], [%there, %slow]
  %fault = phi i1 [false, %fast], [%fault.there, %slow]
  %r.0 = insertvalue {kind} poison, {vector(count)} %data, 0
  %r = insertvalue {kind} %r.0, i1 %fault, 1
  ret {kind} %r
}}"""
    return Function(text, inline=True)


def _load_part(lanes: int, size_bytes: int) -> Function:
    kind = f"i{8 * size_bytes}"
    return Function(f"""define {{i32, i1}} @scalar_part.{size_bytes}.w{lanes}(ptr %ctx, i64 %va, i64 %at, i64 %limit) {{
  %end = add i64 %at, {size_bytes}
  %inside = icmp ule i64 %end, %limit
  br i1 %inside, label %look, label %outside
outside:
  ret {{i32, i1}} zeroinitializer
look:
  %place = call {{i64, i1}} @lane_address_read.w{lanes}(ptr %ctx, i64 %va, i64 {size_bytes}, i32 0)
  %fault = extractvalue {{i64, i1}} %place, 1
  br i1 %fault, label %failed, label %good
failed:
  ret {{i32, i1}} {{i32 0, i1 true}}
good:
  %host = extractvalue {{i64, i1}} %place, 0
  %from = inttoptr i64 %host to ptr
  %part = load {kind}, ptr %from, align {size_bytes}
  %whole = zext {kind} %part to i32
  %result = insertvalue {{i32, i1}} {{i32 poison, i1 false}}, i32 %whole, 0
  ret {{i32, i1}} %result
}}""")


def _load_apart(lanes: int, count: int) -> Function:
    found = "".join(
        f"\n  %{name} = extractvalue {EXTENT} %extent, {number}"
        for number, name in enumerate(("first", "end", "delta", "strange"))
    )
    return Function(f"""define {_result(count)} @scalar_load_apart.{count}.w{lanes}(ptr %ctx, i64 %va, i64 %site) {{
  %extent = call {EXTENT} @tlb_extent_read.w{lanes}(ptr %ctx, i64 %va, i32 0){found}
  br i1 %strange, label %failed, label %known
known:{site_fill("read", "%first", "%end", "%delta")}
  br label %one
one:{_one_dword(lanes, count, "%va", "true").replace("%0]", "%known]")}
}}""")


def _one_dword(lanes: int, count: int, start: str, wanted: str) -> str:
    """The rest of a function in the block %one, a loop over dwords; those not ``wanted`` are zero."""
    kind, data = _result(count), vector(count)
    return f"""
  %number = phi i64 [0, %0], [%number.next, %join]
  %data = phi {data} [zeroinitializer, %0], [%data.next, %join]
  %skip = shl i64 %number, 2
  %address = add i64 {start}, %skip{_wanted_text(wanted)}
  br i1 {wanted}, label %look, label %join
look:
  %place = call {{i64, i1}} @lane_address_read.w{lanes}(ptr %ctx, i64 %address, i64 4, i32 0)
  %fault = extractvalue {{i64, i1}} %place, 1
  br i1 %fault, label %failed, label %good
good:
  %host = extractvalue {{i64, i1}} %place, 0
  %at = inttoptr i64 %host to ptr
  %dword = load i32, ptr %at, align 4
  br label %join
join:
  %value = phi i32 [0, %one], [%dword, %good]
  %data.next = insertelement {data} %data, i32 %value, i64 %number
  %number.next = add i64 %number, 1
  %over = icmp eq i64 %number.next, {count}
  br i1 %over, label %done, label %one
failed:
  ret {kind} {{{data} zeroinitializer, i1 true}}
done:
  %r = insertvalue {kind} {{{data} poison, i1 false}}, {data} %data.next, 0
  ret {kind} %r"""


def _wanted_text(wanted: str) -> str:
    if wanted == "true":
        return ""
    return f"""
  %at.begin = add i64 %offset, %skip
  %at.end = add i64 %at.begin, 4
  {wanted} = icmp ule i64 %at.end, %limit"""


def _load_buffer(lanes: int, count: int) -> Function:
    kind = _result(count)
    arguments = "ptr %ctx, i64 %start, i64 %offset, i64 %limit, i64 %site"
    return Function(f"""define {kind} @buffer_load.{count}.w{lanes}({arguments}) {{
  %va = add i64 %start, %offset
  %last = add i64 %offset, {4 * count}
  %forward = icmp ugt i64 %last, %offset
  %inside = icmp ule i64 %last, %limit
  %plain = and i1 %forward, %inside
  br i1 %plain, label %all, label %some
all:
  %found = call {kind} @scalar_load.{count}.w{lanes}(ptr %ctx, i64 %va, i64 %site)
  ret {kind} %found
some:
  br label %one
one:{_one_dword(lanes, count, "%va", "%wanted").replace("%0]", "%some]")}
}}""")
