"""Atomics of all address spaces: the translator's side of ``emulator.isa.atomics``, with the same results.

Lanes take their turns in order. In memory that other threads reach, each turn is an atomic operation of the host; LDS
belongs to the thread. Each operation that a unit uses is written as a function of its own:

    atomic.OP.BITS.SPACE[.void].wN(ptr ctx, iN mask, <N x i64> address, i64 scratch, <N x iBITS> data[, second])
        -> {<N x iBITS> old, i1 fault}
"""

from __future__ import annotations

import re

from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.atomics import ATOMICS, NAMES, AtomicOp, in_mode
from amdrv.emulator.isa.instruction import Instruction, Operand
from amdrv.emulator.isa.memory_ops import atomic_form
from amdrv.emulator.isa.native import atomic_places, layout
from amdrv.emulator.isa.native.atomic_places import placed_type
from amdrv.emulator.isa.native.buffers import locate
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.frame import Frame
from amdrv.emulator.isa.native.global_memory import flat_offset
from amdrv.emulator.isa.native.ir_text import splat, vector
from amdrv.emulator.isa.native.lane_transfer import lane_loop
from amdrv.emulator.isa.native.lds import lds_address
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import read, resize
from amdrv.emulator.isa.operands import find

# What the manual's RDNA3 names of DS instructions are called elsewhere.
_DS_VERBS = {"storexchg": "swap", "cmpstore": "cmpswap"}

# Operations that the host has, as LLVM calls them.
_RMW = {
    "swap": "xchg",
    "add": "add",
    "sub": "sub",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "min_i": "min",
    "max_i": "max",
    "min_u": "umin",
    "max_u": "umax",
}
# Of those whose result nobody wants, these may be done for all lanes of an address at once.
_REDUCE = {
    "add": "add",
    "sub": "add",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "min_i": "smin",
    "max_i": "smax",
    "min_u": "umin",
    "max_u": "umax",
}


def _extremum_number(better: str, negative: str, positive: str) -> str:
    """minimumNumber or maximumNumber: of two zeroes the data win by their sign, two NaNs are quieted."""
    return f"""%u = fcmp uno F %mf, %mf
  %v = fcmp uno F %df, %df
  %b = fcmp {better} F %df, %mf
  %q = fcmp oeq F %mf, %df
  %n = icmp slt T {negative}, 0
  %p = icmp sge T {positive}, 0
  %o = and i1 %n, %p
  %z = and i1 %q, %o
  %e = or i1 %b, %z
  %k = select i1 %e, T %d, T %m
  %l = select i1 %u, T %d, T %k
  %h = select i1 %v, T %m, T %l
  %w = and i1 %u, %v
  %s = or T %d, QUIET
  %new = select i1 %w, T %s, T %h"""


def _extremum(better: str, negative: str, positive: str) -> str:
    """Minimum or maximum of gfx11: a signalling NaN, the data's first, wins and is made quiet."""
    number = _extremum_number(better, negative, positive).replace("%new =", "%t =")
    return f"""{number}
  %mb = and T %m, QUIET
  %mz = icmp eq T %mb, 0
  %ms = and i1 %u, %mz
  %mq = or T %m, QUIET
  %r = select i1 %ms, T %mq, T %t
  %db = and T %d, QUIET
  %dz = icmp eq T %db, 0
  %ds = and i1 %v, %dz
  %new = select i1 %ds, T %s, T %r"""


_BRAIN_SUMS = """%x = bitcast T %m to <2 x i16>
  %y = bitcast T %d to <2 x i16>
  %xw = zext <2 x i16> %x to <2 x i32>
  %yw = zext <2 x i16> %y to <2 x i32>
  %xs = shl <2 x i32> %xw, splat (i32 16)
  %ys = shl <2 x i32> %yw, splat (i32 16)
  %xf = bitcast <2 x i32> %xs to <2 x float>
  %yf = bitcast <2 x i32> %ys to <2 x float>
  %s = fadd <2 x float> %xf, %yf
  %u = fcmp uno <2 x float> %s, %s
  %b = bitcast <2 x float> %s to <2 x i32>
  %h = lshr <2 x i32> %b, splat (i32 16)
  %o = and <2 x i32> %h, splat (i32 1)
  %k = add <2 x i32> %b, splat (i32 32767)
  %r = add <2 x i32> %k, %o
  %q = or <2 x i32> %b, splat (i32 4194304)
  %w = select <2 x i1> %u, <2 x i32> %q, <2 x i32> %r
  %c = lshr <2 x i32> %w, splat (i32 16)
  %n = trunc <2 x i32> %c to <2 x i16>
  %new = bitcast <2 x i16> %n to T"""
# The new value %new from the old one %m, the data %d and the second operand %c; T is the integer type, F the float one,
# QUIET the bit that makes a NaN quiet.
_APPLY = {
    "swap": "%new = freeze T %d",
    "cmpswap": "%e = icmp eq T %m, %c\n  %new = select i1 %e, T %d, T %m",
    "cmpswap_f": "%e = fcmp oeq F %mf, %cf\n  %new = select i1 %e, T %d, T %m",
    "add": "%new = add T %m, %d",
    "sub": "%new = sub T %m, %d",
    "rsub": "%new = sub T %d, %m",
    "csub": "%e = icmp ult T %m, %d\n  %s = sub T %m, %d\n  %new = select i1 %e, T 0, T %s",
    "min_i": "%e = icmp slt T %d, %m\n  %new = select i1 %e, T %d, T %m",
    "min_u": "%e = icmp ult T %d, %m\n  %new = select i1 %e, T %d, T %m",
    "max_i": "%e = icmp sge T %d, %m\n  %new = select i1 %e, T %d, T %m",
    "max_u": "%e = icmp uge T %d, %m\n  %new = select i1 %e, T %d, T %m",
    "and": "%new = and T %m, %d",
    "or": "%new = or T %m, %d",
    "xor": "%new = xor T %m, %d",
    "inc": "%e = icmp uge T %m, %d\n  %s = add T %m, 1\n  %new = select i1 %e, T 0, T %s",
    "dec": """%z = icmp eq T %m, 0
  %g = icmp ugt T %m, %d
  %e = or i1 %z, %g
  %s = sub T %m, 1
  %new = select i1 %e, T %d, T %s""",
    "mskor": "%n = xor T %d, -1\n  %k = and T %m, %n\n  %new = or T %k, %c",
    "wrap": "%e = icmp uge T %m, %d\n  %s = sub T %m, %d\n  %a = add T %m, %c\n  %new = select i1 %e, T %s, T %a",
    # Bit 31 of each dword of the data says whether the dword is written.
    "condxchg32": f"""%h = lshr T %d, 31
  %f = and T %h, {1 << 32 | 1}
  %k = mul T %f, {0xFFFF_FFFF}
  %n = xor T %k, -1
  %o = and T %m, %n
  %w = and T %d, {0x7FFF_FFFF_7FFF_FFFF}
  %x = and T %w, %k
  %new = or T %o, %x""",
    "min_f": _extremum("olt", "%d", "%m"),
    "max_f": _extremum("ogt", "%m", "%d"),
    "add_f": "%s = fadd F %mf, %df\n  %new = bitcast F %s to T",
    "sub_clamp": "%e = icmp ult T %m, %d\n  %s = sub T %m, %d\n  %new = select i1 %e, T 0, T %s",
    "cond_sub": "%e = icmp uge T %m, %d\n  %s = sub T %m, %d\n  %new = select i1 %e, T %s, T %m",
    "min_num_f": _extremum_number("olt", "%d", "%m"),
    "max_num_f": _extremum_number("ogt", "%m", "%d"),
    # Two sums in a dword; the host adds halves as floats, which gives the same.
    "pk_add_f16": """%x = bitcast T %m to <2 x half>
  %y = bitcast T %d to <2 x half>
  %s = fadd <2 x half> %x, %y
  %new = bitcast <2 x half> %s to T""",
    "pk_add_bf16": _BRAIN_SUMS,
}


def functions(lanes: int) -> list[Function]:
    """Library functions for one wave size."""
    return atomic_places.functions(lanes)


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write an atomic; False for other instructions."""
    if instruction.encoding == "DS":
        return _translate_ds(frame, instruction)
    _, verb, name = (*instruction.mnemonic.split("_", 2), "")[:3]
    form = atomic_form(name) if verb == "atomic" else None
    if form is None:
        return False
    op, size_bytes = form
    buffer = instruction.encoding == "MUBUF"
    data = find(instruction.src, "vdata" if buffer else "data")
    if data is None:
        return False
    count = size_bytes // 4
    operands = [_element(frame, data.index, count)]
    if op.sources > 1:  # the comparand follows the data in consecutive registers
        operands.append(_element(frame, data.index + count, count))
    if buffer:
        space, (address, mask) = "global", locate(frame, instruction, size_bytes)
    else:
        space, address, mask = instruction.encoding.lower(), _flat_address(frame, instruction), frame.exec_bits()
    target = find(instruction.dst, "vdata" if buffer else "vdst")
    _call(frame, (op, size_bytes, space), address, mask, operands, target)
    return True


def _translate_ds(frame: Frame, instruction: Instruction) -> bool:
    name = instruction.mnemonic.removeprefix("ds_")
    verb = name.partition("_")[0]
    form = atomic_form(name.replace(verb, _DS_VERBS.get(verb, verb), 1).replace("_rtn", ""))
    data, second = find(instruction.src, "data0"), find(instruction.src, "data1")
    if form is None or data is None:
        return False
    op, size_bytes = form
    count = size_bytes // 4
    operands = [_element(frame, data.index, count)]
    if op.sources > 1:
        operands.append(_element(frame, (second or data).index, count))
    offset = instruction.fields["offset0"] | instruction.fields["offset1"] << 8
    address = resize(lds_address(frame, find(instruction.src, "addr")) + offset, "u64")
    _call(frame, (op, size_bytes, "lds"), address, frame.exec_bits(), operands, find(instruction.dst, "vdst"))
    return True


def _element(frame: Frame, index: int, count: int) -> Val:
    return frame.vgpr(index) if count == 1 else frame.vgpr64(index)


def _flat_address(frame: Frame, instruction: Instruction) -> Val:
    """Virtual address of each lane of a FLAT or GLOBAL instruction, u64."""
    vector_part, scalar = find(instruction.src, "addr"), find(instruction.src, "saddr")
    offset = flat_offset(frame, instruction)
    if vector_part is None:
        return frame.builder.constant("u64", offset)
    if scalar is None:
        return read(frame, vector_part, "u64") + offset
    return resize(read(frame, vector_part, "u32"), "u64") + (read(frame, scalar, "u64") + offset)


def _call(
    frame: Frame,
    what: tuple[AtomicOp, int, str],
    address: Val,
    mask: Val,
    operands: list[Val],
    target: Operand | None,
) -> None:
    """Do it for the lanes of a mask; lanes of EXEC that are not in it get zero."""
    op, size_bytes, space = what
    op = in_mode(op, size_bytes, space == "lds", FloatMode.from_bits(frame.mode), frame.generation.name)
    builder, lanes, bits = frame.builder, frame.lanes, 8 * size_bytes
    function = _function(builder, NAMES[id(op)], bits, space, target is None)
    scratch = frame.state(layout.STATE_SCRATCH, "u64") if space == "flat" else builder.constant("u64", 0)
    values = [builder.spread(operand).typed for operand in operands]
    returned = f"{{{vector(lanes, f'i{bits}')}, i1}}"
    arguments = ["ptr %ctx", mask.typed, builder.spread(address).typed, scratch.typed, *values]
    result = builder.call(function, returned, arguments)
    frame.fault_if(builder.emit(f"extractvalue {returned} {result}, 1"))
    if target is None:
        return
    old = builder.value(f"u{bits}", builder.emit(f"extractvalue {returned} {result}, 0"), True)
    if bits == 32:
        frame.set_vgpr(target.index, old)
    else:
        frame.set_vgpr64(target.index, old)


# The functions.


def _function(builder: Builder, op: str, bits: int, space: str, void: bool) -> str:
    """Name of the function of an operation, which the module has from now on."""
    lanes = builder.lanes
    name = f"atomic.{op}.{bits}.{space}{'.void' if void else ''}.w{lanes}"
    if name not in builder.functions:
        builder.functions[name] = _text(name, op, bits, space, void, lanes)
        builder.uses.add(f"atomic_place_{space}.w{lanes}")
    return name


def _text(name: str, op: str, bits: int, space: str, void: bool, lanes: int) -> str:
    kind, mask, wide = vector(lanes, f"i{bits}"), f"i{lanes}", vector(lanes, "i64")
    two = ATOMICS[op].sources > 1
    second = f", {kind} %second" if two else ""
    keep_second = f"\n  %seconds = alloca {kind}\n  store {kind} %second, ptr %seconds" if two else ""
    placed = placed_type(lanes)
    arguments = f"ptr %ctx, {mask} %mask, {wide} %address, i64 {bits // 8}, i64 %scratch, ptr %hosts"
    operand = _load_lane("c", f"i{bits}", "%seconds") if two else ""
    reduced = _reduced(op, bits, space, lanes) if void and op in _REDUCE else "\n  br label %turns"
    return f"""define internal {{{kind}, i1}} @{name}(ptr %ctx, {mask} %mask, {wide} %address, i64 %scratch, \
{kind} %data{second}) nounwind {{
  %hosts = alloca {wide}
  %datas = alloca {kind}
  %olds = alloca {kind}
  store {wide} zeroinitializer, ptr %hosts
  store {kind} %data, ptr %datas
  store {kind} zeroinitializer, ptr %olds{keep_second}
  %placed = call {placed} @atomic_place_{space}.w{lanes}({arguments})
  %lanes = extractvalue {placed} %placed, 0
  %fault = extractvalue {placed} %placed, 1
  br i1 %fault, label %failed, label %start
start:{reduced}
turns:
  br label %next
next:
  %rest = phi {mask} [%lanes, %turns], [%fewer, %done]{lane_loop(lanes)}
  %host.at = getelementptr i64, ptr %hosts, i64 %index
  %host = load i64, ptr %host.at
  %at = inttoptr i64 %host to ptr{_load_lane("d", f"i{bits}", "%datas")}{operand}{_turn(op, bits, space)}
done:
  %old.at = getelementptr i{bits}, ptr %olds, i64 %index
  store i{bits} %old, ptr %old.at
  br label %next
over:
  %found = load {kind}, ptr %olds
  %result = insertvalue {{{kind}, i1}} {{{kind} poison, i1 false}}, {kind} %found, 0
  ret {{{kind}, i1}} %result
failed:
  ret {{{kind}, i1}} {{{kind} zeroinitializer, i1 true}}
}}"""


def _load_lane(name: str, kind: str, vector_at: str) -> str:
    """IR that loads the current lane's element."""
    return f"""
  %{name}.at = getelementptr {kind}, ptr {vector_at}, i64 %index
  %{name} = load {kind}, ptr %{name}.at"""


def _turn(op: str, bits: int, space: str) -> str:
    """IR of one lane's turn on %at, with %d and perhaps %c; leaves the value found in %old, goes to %done."""
    kind = f"i{bits}"
    if space == "lds":
        return f"""
  %m = load {kind}, ptr %at{_apply(op, bits)}
  store {kind} %new, ptr %at
  %old = freeze {kind} %m
  br label %done"""
    if op in _RMW:
        return f"\n  %old = atomicrmw {_RMW[op]} ptr %at, {kind} %d acq_rel\n  br label %done"
    if op == "cmpswap":
        return f"""
  %pair = cmpxchg ptr %at, {kind} %c, {kind} %d acq_rel acquire
  %old = extractvalue {{{kind}, i1}} %pair, 0
  br label %done"""
    return f"""
  %before = load atomic {kind}, ptr %at monotonic, align {bits // 8}
  br label %try
try:
  %m = phi {kind} [%before, %one], [%old, %try]{_apply(op, bits)}
  %pair = cmpxchg ptr %at, {kind} %m, {kind} %new acq_rel acquire
  %old = extractvalue {{{kind}, i1}} %pair, 0
  %won = extractvalue {{{kind}, i1}} %pair, 1
  br i1 %won, label %done, label %try"""


def _apply(op: str, bits: int) -> str:
    """IR for %new."""
    name, _, flags = op.partition(".")
    kind, number = f"i{bits}", "float" if bits == 32 else "double"
    text = _APPLY[name].replace("QUIET", str(1 << {32: 22, 64: 51}[bits]))
    before = after = ""
    if "i" in flags:
        text = re.sub(r"%([mdc])(f?)\b", r"%\1.x\2", text)
        before = "".join(_flush(x, f"{x}.x", bits) for x in "mdc" if re.search(rf"%{x}\.xf?\b", text))
    if flags and name in ("min_f", "max_f"):  # what is picked keeps its bits
        after = """
  %is.m = icmp eq T %raw, %m.x
  %is.d = icmp eq T %raw, %d.x
  %pick.d = select i1 %is.d, T %d, T %raw
  %new = select i1 %is.m, T %m, T %pick.d"""
    elif "o" in flags:
        after = _flush("raw", "new", bits)
    if after:
        text = re.sub(r"%new\b", "%raw", text)
    casts = re.findall(r"%([mdc](?:\.x)?f)\b", text)
    before += "".join(f"\n  %{cast} = bitcast {kind} %{cast[:-1]} to {number}" for cast in dict.fromkeys(casts))
    return before + "\n  " + re.sub(r"\bF\b", number, re.sub(r"\bT\b", kind, text + after))


def _flush(value: str, flushed: str, bits: int) -> str:
    """IR that makes a zero of a denormal's bits."""
    exponent = {32: 0x7F800000, 64: 0x7FF << 52}[bits]
    return f"""
  %{value}.e = and i{bits} %{value}, {exponent}
  %{value}.z = icmp eq i{bits} %{value}.e, 0
  %{value}.s = and i{bits} %{value}, {1 << bits - 1}
  %{flushed} = select i1 %{value}.z, i{bits} %{value}.s, i{bits} %{value}"""


def _reduced(op: str, bits: int, space: str, lanes: int) -> str:
    """IR that does the lanes' work at once when they all have one address, or goes to %turns."""
    kind, mask, wide, flags = vector(lanes, f"i{bits}"), f"i{lanes}", vector(lanes, "i64"), vector(lanes, "i1")
    reduction = _REDUCE[op]
    return f"""
  %nobody = icmp eq {mask} %lanes, 0
  br i1 %nobody, label %turns, label %somebody
somebody:
  %members = bitcast {mask} %lanes to {flags}
  %first = call {mask} @llvm.cttz.{mask}({mask} %lanes, i1 true)
  %all.hosts = load {wide}, ptr %hosts
  %host.0 = extractelement {wide} %all.hosts, {mask} %first{splat("same.hosts", "%host.0", lanes, "i64")}
  %differs = icmp ne {wide} %all.hosts, %same.hosts
  %different = and {flags} %differs, %members
  %different.bits = bitcast {flags} %different to {mask}
  %one.address = icmp eq {mask} %different.bits, 0
  br i1 %one.address, label %at.once, label %turns
at.once:
  %parts = select {flags} %members, {kind} %data, {kind} splat (i{bits} {_neutral(reduction, bits)})
  %sum = call i{bits} @llvm.vector.reduce.{reduction}.v{lanes}i{bits}({kind} %parts)
  %shared.at = inttoptr i64 %host.0 to ptr{_once(op, bits, space)}
  ret {{{kind}, i1}} zeroinitializer"""


def _neutral(reduction: str, bits: int) -> int:
    """What changes no result of a reduction."""
    if reduction in ("and", "umin"):
        return -1
    if reduction == "smin":
        return (1 << (bits - 1)) - 1
    return -(1 << (bits - 1)) if reduction == "smax" else 0


def _once(op: str, bits: int, space: str) -> str:
    """IR of the one turn of all lanes on %shared.at, with %sum."""
    kind = f"i{bits}"
    if space != "lds":
        return f"\n  %shared.old = atomicrmw {_RMW[op]} ptr %shared.at, {kind} %sum acq_rel"
    turn = re.sub(r"%(\w+)", r"%shared.\1", _apply(op, bits))
    return f"""
  %shared.m = load {kind}, ptr %shared.at
  %shared.d = freeze {kind} %sum{turn}
  store {kind} %shared.new, ptr %shared.at"""
