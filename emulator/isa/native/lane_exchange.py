"""Instructions that move values between lanes: reads and writes of one lane, row permutations, the LDS crossbar.

The translator's side of ``emulator.isa.crosslane`` and ``lds_ops``, with the same rules. What is known at
translation becomes a constant shuffle; other permutations are calls of ``permute``.

permute.R.wN(<N x i32> data, <N x i32> index) -> <N x i32>
    Lane i gets lane ``index[i] % R`` of the R lanes (32, or 64) to which it belongs.
collect.R.wN(iN mask, <N x i32> data, <N x i32> index) -> <N x i32>
    The inverse: lane i of the mask gives its value to lane ``index[i] % R`` of its R lanes, in order; lanes that are
    given none are zero.
lds_append.wN(ptr ctx, iN mask, i32 address, i32 sign) -> {i32, i1 fault}
    The counter at an LDS address moves by ``sign`` times the lanes of the mask; its old value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from amdrv.emulator.isa.instruction import Instruction, Kind
from amdrv.emulator.isa.lds_ops import swizzle_sources
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.dpp import moved
from amdrv.emulator.isa.native.frame import M0, Frame
from amdrv.emulator.isa.native.ir_text import constants, vector
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import in_range, read, resize
from amdrv.emulator.isa.native.relative_moves import RELATIVE
from amdrv.emulator.isa.native.tlb import context_field
from amdrv.emulator.isa.operands import find

Translate: TypeAlias = Callable[[Frame, Instruction], None]
HALF = 32
ROW = 16


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write an instruction of this module; False for others. Raises ValueError for a bad operand."""
    write = _TRANSLATE.get(instruction.mnemonic) or RELATIVE.get(instruction.mnemonic)
    if write is None:
        return False
    if in_range(instruction, frame.vgprs):
        write(frame, instruction)
    return True


def permuted(value: Val, index: Val, reach: int = HALF) -> Val:
    """Lane i of the result is lane ``index[i] % reach`` of the ``reach`` lanes to which it belongs."""
    builder = value.builder
    arguments = [builder.spread(value).typed, builder.spread(index).typed]
    text = builder.call(f"permute.{reach}.w{builder.lanes}", vector(builder.lanes), arguments)
    return builder.value("u32", text, True)


def _is_in(frame: Frame, mask: Val, index: Val, reach: int = HALF) -> Val:
    """Whether the lane that each lane names (of its ``reach`` lanes) is in a mask."""
    builder = frame.builder
    if frame.lanes == reach:
        return _odd(builder.spread(mask) >> resize(builder.spread(index) & reach - 1, frame.mask_kind()))
    low, high = (builder.spread(half) for half in frame.split(mask))
    order = constants([*range(HALF), *range(64 + HALF, 128)])
    bits = builder.emit(f"shufflevector {low.typed}, {high.typed}, <64 x i32> {order}")
    return _odd(builder.value("u32", bits, True) >> (index & 31))


def _odd(value: Val) -> Val:
    builder = value.builder
    text = builder.emit(f"trunc {builder.spread(value).typed} to {builder.type('bool', True)}")
    return builder.value("bool", text, True)


def _selector(frame: Frame, instruction: Instruction, position: int) -> Val:
    """A lane number or lane numbers, which have to be scalar; raises ValueError."""
    operand = instruction.src[position]
    if operand.kind == Kind.VGPR:
        raise ValueError(f"{operand.name} selects lanes and cannot be a vector register")
    return read(frame, operand, "u32")


def _pick(frame: Frame, value: Val, lane: Val) -> Val:
    """One lane of a value, by a number below the number of lanes."""
    if not value.vector:
        return value
    builder = frame.builder
    return builder.value("u32", builder.emit(f"extractelement {value.typed}, {lane.typed}"), False)


def _readlane(frame: Frame, instruction: Instruction) -> None:
    value, lane = read(frame, instruction.src[0], "u32"), _selector(frame, instruction, 1)
    frame.set_sgpr(instruction.dst[0].index, _pick(frame, value, lane & frame.lanes - 1))


def _readfirstlane(frame: Frame, instruction: Instruction) -> None:
    value = read(frame, instruction.src[0], "u32")
    builder, mask = frame.builder, frame.exec_bits()
    if frame.full or not value.vector:
        first = builder.constant("u32", 0)
    else:  # with no lane active it is lane 0
        count = builder.emit(f"call i{frame.lanes} @llvm.cttz.i{frame.lanes}({mask.typed}, i1 false)")
        first = builder.value(mask.kind, count, False) & frame.lanes - 1
    frame.set_sgpr(instruction.dst[0].index, _pick(frame, value, first))


def _writelane(frame: Frame, instruction: Instruction) -> None:
    builder = frame.builder
    value, lane = read(frame, instruction.src[0], "u32"), _selector(frame, instruction, 1)
    index = instruction.dst[0].index
    single = _pick(frame, value, builder.constant("u32", 0))
    place = lane & frame.lanes - 1
    text = builder.emit(f"insertelement {frame.vgpr(index).typed}, {single.typed}, {place.typed}")
    frame.set_vgpr_all(index, builder.value("u32", text, True))


def _permlane16(frame: Frame, instruction: Instruction) -> None:
    """v_permlane16 and v_permlanex16; op_sel says what becomes of fetches from inactive lanes."""
    builder, lanes = frame.builder, frame.lanes
    value = read(frame, instruction.src[0], "u32")
    low, high = (_selector(frame, instruction, position) for position in (1, 2))
    other_row = ROW if "permlanex16" in instruction.mnemonic else 0
    opsel = instruction.fields.get("opsel", 0)
    fetch_inactive, zero_inactive = bool(opsel & 1), bool(opsel & 2)
    target = instruction.dst[0].index
    rows = [lane & ~15 ^ other_row for lane in range(lanes)]
    guarded = not (frame.full or fetch_inactive)
    if low.bits is not None and high.bits is not None:
        selectors = low.bits | high.bits << 32
        sources = [row | selectors >> 4 * (lane & 15) & 15 for lane, row in enumerate(rows)]
        result = moved(value, sources)
        present = moved(frame.exec_lanes(), sources) if guarded else None
    else:
        index = _row_places(frame, low, high) | builder.value("u32", constants(rows), True)
        result = permuted(value, index)
        present = _is_in(frame, frame.exec_bits(), index) if guarded else None
    if present is not None:
        absent = builder.constant("u32", 0) if zero_inactive else frame.vgpr(target)
        result = frame.select(present, result, absent)
    frame.set_vgpr(target, result)


def _permlane16_var(frame: Frame, instruction: Instruction) -> None:
    """As ``_permlane16``, each lane's selector in its own register."""
    builder, lanes = frame.builder, frame.lanes
    value, selector = (builder.spread(read(frame, instruction.src[position], "u32")) for position in range(2))
    other_row = ROW if "permlanex16" in instruction.mnemonic else 0
    opsel = instruction.fields.get("opsel", 0)
    target = instruction.dst[0].index
    rows = builder.value("u32", constants([lane & ~15 ^ other_row for lane in range(lanes)]), True)
    index = selector & 15 | rows
    result = permuted(value, index)
    if not (frame.full or opsel & 1):
        absent = builder.constant("u32", 0) if opsel & 2 else frame.vgpr(target)
        result = frame.select(_is_in(frame, frame.exec_bits(), index), result, absent)
    frame.set_vgpr(target, result)


def _row_places(frame: Frame, low: Val, high: Val) -> Val:
    """The four bits that each lane has in 64 bits of selectors."""
    builder, lanes = frame.builder, frame.lanes
    order = constants([lane & 8 and lanes for lane in range(lanes)])
    halves = f"{builder.spread(low).typed}, {builder.spread(high).typed}"
    words = builder.value("u32", builder.emit(f"shufflevector {halves}, {vector(lanes)} {order}"), True)
    shifts = builder.value("u32", constants([4 * (lane & 7) for lane in range(lanes)]), True)
    return words >> shifts & 15


def _permlane64(frame: Frame, instruction: Instruction) -> None:
    if frame.lanes == 64:
        value = read(frame, instruction.src[0], "u32")
        frame.set_vgpr(instruction.dst[0].index, moved(value, [lane ^ 32 for lane in range(64)]))


# The LDS crossbar.


def _crossbar_offset(instruction: Instruction) -> int:
    return instruction.fields["offset0"] | instruction.fields["offset1"] << 8


def _swizzle(frame: Frame, instruction: Instruction) -> None:
    sources = swizzle_sources(_crossbar_offset(instruction), frame.lanes)
    result = moved(read(frame, instruction.src[0], "u32"), sources)
    if not frame.full:
        present = moved(frame.exec_lanes(), sources)
        result = frame.select(present, result, frame.builder.constant("u32", 0))
    frame.set_vgpr(instruction.dst[0].index, result)


def _reach(frame: Frame) -> int:
    """Of the crossbar, in lanes."""
    return min(frame.lanes, frame.generation.crossbar_lanes)


def _partner(frame: Frame, instruction: Instruction) -> Val:
    """The lane (of those in reach) that each lane's address names."""
    address = read(frame, instruction.src[0], "u32")
    return address + _crossbar_offset(instruction) >> 2


def _bpermute(frame: Frame, instruction: Instruction) -> None:
    index, data = _partner(frame, instruction), read(frame, instruction.src[1], "u32")
    result = permuted(data, index, _reach(frame))
    if not frame.full and instruction.mnemonic != "ds_bpermute_fi_b32":
        present = _is_in(frame, frame.exec_bits(), index, _reach(frame))
        result = frame.select(present, result, frame.builder.constant("u32", 0))
    frame.set_vgpr(instruction.dst[0].index, result)


def _permute(frame: Frame, instruction: Instruction) -> None:
    builder = frame.builder
    index, data = _partner(frame, instruction), read(frame, instruction.src[1], "u32")
    arguments = [frame.exec_bits().typed, builder.spread(data).typed, builder.spread(index).typed]
    text = builder.call(f"collect.{_reach(frame)}.w{frame.lanes}", vector(frame.lanes), arguments)
    frame.set_vgpr(instruction.dst[0].index, builder.value("u32", text, True))


def _append(frame: Frame, instruction: Instruction) -> None:
    builder = frame.builder
    address = (frame.sgpr(M0) & 0xFFFF) + _crossbar_offset(instruction)
    sign = 1 if instruction.mnemonic == "ds_append" else -1
    arguments = ["ptr %ctx", frame.exec_bits().typed, address.typed, f"i32 {sign}"]
    result = builder.call(f"lds_append.w{frame.lanes}", "{i32, i1}", arguments)
    old = builder.value("u32", builder.emit(f"extractvalue {{i32, i1}} {result}, 0"), False)
    frame.fault_if(builder.emit(f"extractvalue {{i32, i1}} {result}, 1"))
    target = find(instruction.dst, "vdst")
    if target is not None:
        frame.set_vgpr(target.index, old)


_TRANSLATE: dict[str, Translate] = {
    "v_readlane_b32": _readlane,
    "v_readfirstlane_b32": _readfirstlane,
    "v_writelane_b32": _writelane,
    "v_permlane16_b32": _permlane16,
    "v_permlanex16_b32": _permlane16,
    "v_permlane16_var_b32": _permlane16_var,
    "v_permlanex16_var_b32": _permlane16_var,
    "v_permlane64_b32": _permlane64,
    "ds_swizzle_b32": _swizzle,
    "ds_permute_b32": _permute,
    "ds_bpermute_b32": _bpermute,
    "ds_bpermute_fi_b32": _bpermute,
    "ds_append": _append,
    "ds_consume": _append,
}


# Library functions.


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    reaches = [reach for reach in (HALF, 2 * HALF) if reach <= lanes]
    exchanges = [make(lanes, reach) for reach in reaches for make in (_permute_function, _collect_function)]
    return [*exchanges, _append_function(lanes)]


def _permute_function(lanes: int, reach: int) -> Function:
    """Written for 16 lanes at a time as selected elements, which LLVM makes one instruction of where there is one."""
    kind, row = vector(lanes), vector(ROW)
    lines = []
    for start in range(0, lanes, ROW):
        span = constants(range(start, start + ROW))
        lines.append(f"  %data.{start} = shufflevector {kind} %data, {kind} poison, {row} {span}")
    for start in range(0, lanes, ROW):
        span = constants(range(start, start + ROW))
        lines += [
            f"  %index.{start} = shufflevector {kind} %index, {kind} poison, {row} {span}",
            f"  %place.{start} = and {row} %index.{start}, splat (i32 15)",
        ]
        first = start & ~(reach - 1)
        for half in range(first, first + reach, ROW):
            picked = "poison"
            for lane in range(ROW):
                name = f"{start}.{half}.{lane}"
                lines += [
                    f"  %from.{name} = extractelement {row} %place.{start}, i64 {lane}",
                    f"  %one.{name} = extractelement {row} %data.{half}, i32 %from.{name}",
                    f"  %picked.{name} = insertelement {row} {picked}, i32 %one.{name}, i64 {lane}",
                ]
                picked = f"%picked.{name}"
            lines.append(f"  %all.{start}.{half} = freeze {row} {picked}")
        _choose_row(lines, start, [f"%all.{start}.{half}" for half in range(first, first + reach, ROW)])
    result = _join(lines, [f"%part.{start}" for start in range(0, lanes, ROW)])
    body = "\n".join(lines)
    head = f"define {kind} @permute.{reach}.w{lanes}({kind} %data, {kind} %index)"
    return Function(f"{head} {{\n{body}\n  ret {kind} {result}\n}}")


def _choose_row(lines: list[str], start: int, candidates: list[str]) -> None:
    """Write %part.START: what 16 lanes get, by the bits of their index that name a row."""
    row, bit = vector(ROW), ROW
    while len(candidates) > 1:
        lines += [
            f"  %row.{bit}.{start} = and {row} %index.{start}, splat (i32 {bit})",
            f"  %low.{bit}.{start} = icmp eq {row} %row.{bit}.{start}, zeroinitializer",
        ]
        chosen = []
        for number, (low, high) in enumerate(zip(candidates[::2], candidates[1::2], strict=True)):
            name = f"%part.{start}" if len(candidates) == 2 else f"%part.{start}.{bit}.{number}"
            lines.append(f"  {name} = select <{ROW} x i1> %low.{bit}.{start}, {row} {low}, {row} {high}")
            chosen.append(name)
        candidates, bit = chosen, 2 * bit


def _join(lines: list[str], parts: list[str]) -> str:
    """Write the concatenation of vectors of 16 lanes; returns its name."""
    width = ROW
    while len(parts) > 1:
        joined = []
        for number in range(0, len(parts), 2):
            name = f"%joined.{width}.{number}"
            halves = f"{vector(width)} {parts[number]}, {vector(width)} {parts[number + 1]}"
            lines.append(f"  {name} = shufflevector {halves}, {vector(2 * width)} {constants(range(2 * width))}")
            joined.append(name)
        parts, width = joined, 2 * width
    return parts[0]


def _collect_function(lanes: int, reach: int) -> Function:
    mask, kind = f"i{lanes}", vector(lanes)
    return Function(
        f"""define {kind} @collect.{reach}.w{lanes}({mask} %mask, {kind} %data, {kind} %index) {{
  %result.at = alloca {kind}
  %data.at = alloca {kind}
  %index.at = alloca {kind}
  store {kind} zeroinitializer, ptr %result.at
  store {kind} %data, ptr %data.at
  store {kind} %index, ptr %index.at
  br label %next
next:
  %rest = phi {mask} [%mask, %0], [%fewer, %one]
  %over = icmp eq {mask} %rest, 0
  br i1 %over, label %done, label %one
one:
  %lane = call {mask} @llvm.cttz.{mask}({mask} %rest, i1 true)
  %less = sub {mask} %rest, 1
  %fewer = and {mask} %rest, %less
  %value.at = getelementptr i32, ptr %data.at, {mask} %lane
  %value = load i32, ptr %value.at
  %named.at = getelementptr i32, ptr %index.at, {mask} %lane
  %named = load i32, ptr %named.at
  %place = and i32 %named, {reach - 1}
  %wide = zext i32 %place to i64
  %own = and {mask} %lane, {-reach}
  %half = getelementptr i32, ptr %result.at, {mask} %own
  %to = getelementptr i32, ptr %half, i64 %wide
  store i32 %value, ptr %to
  br label %next
done:
  %result = load {kind}, ptr %result.at
  ret {kind} %result
}}"""
    )


def _append_function(lanes: int) -> Function:
    mask = f"i{lanes}"
    narrow = "%lanes.in" if lanes == 32 else "%lanes.narrow"
    cut = "" if lanes == 32 else "\n  %lanes.narrow = trunc i64 %lanes.in to i32"
    return Function(
        f"""define {{i32, i1}} @lds_append.w{lanes}(ptr %ctx, {mask} %mask, i32 %address, i32 %sign) {{\
{context_field("lds", "ptr")}{context_field("lds_bytes", "i32")}
  %none = icmp eq {mask} %mask, 0
  br i1 %none, label %nothing, label %aligned
aligned:
  %low = and i32 %address, 3
  %odd = icmp ne i32 %low, 0
  br i1 %odd, label %misaligned, label %bounded
bounded:
  %end = call i32 @llvm.usub.sat.i32(i32 %lds_bytes, i32 3)
  %inside = icmp ult i32 %address, %end
  br i1 %inside, label %count, label %nothing
count:
  %offset = zext i32 %address to i64
  %at = getelementptr i8, ptr %lds, i64 %offset
  %old = load i32, ptr %at
  %lanes.in = call {mask} @llvm.ctpop.{mask}({mask} %mask){cut}
  %amount = mul i32 {narrow}, %sign
  %new = add i32 %old, %amount
  store i32 %new, ptr %at
  %result = insertvalue {{i32, i1}} {{i32 poison, i1 false}}, i32 %old, 0
  ret {{i32, i1}} %result
nothing:
  ret {{i32, i1}} zeroinitializer
misaligned:
  %va = zext i32 %address to i64
  call void @record_misaligned.w{lanes}(ptr %ctx, i32 0, i64 %va, i64 4)
  ret {{i32, i1}} {{i32 0, i1 true}}
}}"""
    )
