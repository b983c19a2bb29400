"""SMEM: scalar loads, one address a wave. The translator's side of ``emulator.isa.scalar_memory``.

inline  scalar_load.C.wN(ptr ctx, i64 va) -> {<C x i32>, i1 fault}
            C = 1, 2, 4, 8, 16 dwords from an address that is a multiple of 4.
        scalar_load_apart.C.wN
            The same, dword by dword.
        buffer_load.C.wN(ptr ctx, i64 start, i64 at, i64 limit) -> {<C x i32>, i1 fault}
            C dwords from start + at; those that end behind offset ``limit`` are zero.
"""

from __future__ import annotations

from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.control import FENCE
from amdrv.emulator.isa.native.frame import EXEC_HI, NULL, Frame
from amdrv.emulator.isa.native.ir_text import vector
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import read, resize
from amdrv.emulator.isa.native.tlb import probe
from amdrv.emulator.isa.operands import find
from amdrv.emulator.isa.scalar_memory import SIZES

# Vector and scalar caches are not modelled: memory is always coherent.
_INVALIDATIONS = ("s_gl1_inv", "s_dcache_inv", "s_atc_probe", "s_atc_probe_buffer")
_BUFFER_BASE = (1 << 48) - 1
_STRIDE_MASK = 0x3FFF


def functions(lanes: int) -> list[Function]:
    """The library functions of scalar loads."""
    return [make(lanes, count) for count in SIZES.values() for make in (_load, _load_apart, _load_buffer)]


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write a scalar load or a cache invalidation; False for anything else."""
    if instruction.encoding != "SMEM":
        return False
    if instruction.mnemonic in _INVALIDATIONS:
        frame.builder.do(FENCE)
        return True
    count = SIZES.get(instruction.mnemonic.rpartition("_")[2])
    base = find(instruction.src, "sbase")
    if count is None or base is None:
        return False
    if instruction.fields.get("glc"):
        frame.builder.do(FENCE)
    at = _offset(frame, instruction)
    if instruction.mnemonic.startswith("s_buffer"):
        found = _call_buffer(frame, base.index, at, count)
    else:
        start = read(frame, base, "u64")
        address = (start & -4) + at
        found = frame.builder.call(f"scalar_load.{count}.w{frame.lanes}", _result(count), ["ptr %ctx", address.typed])
    _write(frame, found, count, instruction.dst[0].index)
    return True


def _result(count: int) -> str:
    return f"{{{vector(count)}, i1}}"


def _offset(frame: Frame, instruction: Instruction) -> Val:
    """Immediate (21 bits, signed) plus scalar offset, rounded down to a dword."""
    raw = instruction.fields["offset"]
    immediate = raw - (1 << 21) if raw >> 20 else raw
    soffset = find(instruction.src, "soffset")
    if soffset is None or soffset.index == NULL:
        return frame.builder.constant("u64", immediate & -4)
    return (resize(read(frame, soffset, "u32"), "u64") + immediate) & -4


def _call_buffer(frame: Frame, descriptor: int, at: Val, count: int) -> str:
    """The base is 48 bits of the descriptor; beyond num_records (in strides, if there is one) there are zeroes."""
    builder = frame.builder
    start = frame.sgpr64(descriptor) & (_BUFFER_BASE & -4)
    stride = frame.sgpr(descriptor + 1) >> 16 & _STRIDE_MASK
    records = frame.sgpr(descriptor + 2)
    unstructured = builder.value("bool", builder.emit(f"icmp eq {stride.typed}, 0"), False)
    unit = frame.select(unstructured, builder.constant("u32", 1), stride)
    limit = resize(records, "u64") * resize(unit, "u64")
    arguments = ["ptr %ctx", start.typed, at.typed, limit.typed]
    return builder.call(f"buffer_load.{count}.w{frame.lanes}", _result(count), arguments)


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
    text = f"""define {kind} @scalar_load.{count}.w{lanes}(ptr %ctx, i64 %va) {{{probe("read", "%va")}
  %room = sub i64 %end, %va
  %fits = icmp uge i64 %room, {4 * count}
  %ok = and i1 %tag.ok, %fits
  br i1 %ok, label %fast, label %slow
fast:
  %host = add i64 %va, %delta
  %at = inttoptr i64 %host to ptr
  %here = load {vector(count)}, ptr %at, align 4
  br label %done
slow:
  %found = call {kind} @scalar_load_apart.{count}.w{lanes}(ptr %ctx, i64 %va) cold noinline
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


def _load_apart(lanes: int, count: int) -> Function:
    return Function(f"""define {_result(count)} @scalar_load_apart.{count}.w{lanes}(ptr %ctx, i64 %va) {{
  br label %one
one:{_one_dword(lanes, count, "%va", "true")}
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
    arguments = "ptr %ctx, i64 %start, i64 %offset, i64 %limit"
    return Function(f"""define {kind} @buffer_load.{count}.w{lanes}({arguments}) {{
  %va = add i64 %start, %offset
  %last = add i64 %offset, {4 * count}
  %forward = icmp ugt i64 %last, %offset
  %inside = icmp ule i64 %last, %limit
  %plain = and i1 %forward, %inside
  br i1 %plain, label %all, label %some
all:
  %found = call {kind} @scalar_load.{count}.w{lanes}(ptr %ctx, i64 %va)
  ret {kind} %found
some:
  br label %one
one:{_one_dword(lanes, count, "%va", "%wanted").replace("%0]", "%some]")}
}}""")
