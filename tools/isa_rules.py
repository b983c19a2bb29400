"""What the wheel's operand tables leave out, restored by rule: directions, implicit operands, literals, widths.

An operand in the table is ``[>]name[=field][?flag]:class:type[/bits]``: ``>`` marks a destination; ``field`` is the
encoding's bit field where it is not called like the operand, or an implicit register (vcc, exec); ``?flag`` makes the
operand depend on a bit of the encoding; classes and types are explained in emulator/isa/table.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# Listed in the wheel but not instructions of that encoding: ADDTID operations exist in the GLOBAL segment only.
EXCLUDED = {
    ("FLAT", "global_load_addtid_b32"),
    ("FLAT", "global_store_addtid_b32"),
    ("FLAT", "global_load_lds_addtid_b32"),
}

# What hardware does and LLVM does not know (RDNA3 ISA manual 7.2.2.1: input modifiers of moves).
UNLISTED_MODIFIERS = {
    "gfx11": {(encoding, move) for encoding in ("VOP1", "VOP3") for move in ("v_mov_b32", "v_mov_b16")}
}
# Sources 0 and 1 whose inline floats fill both halves, or are single-precision (7.2.1 and 7.5.1).
INLINE_FLOATS = {
    "gfx11": {
        "v_dot2_f16_f16": "d",
        "v_dot2_bf16_bf16": "d",
        "v_dot2_f32_bf16": "d",
        "v_dot2acc_f32_f16": "d",
        "v_dot2acc_f32_bf16": "d",
        "v_dot2_f32_f16": "w",
    }
}

MEMORY = ("DS", "FLAT", "GLOBAL", "SCRATCH", "MUBUF", "MTBUF", "SMEM")
FIELD_CLASSES = {
    "vdst": "v", "vdata": "v", "vaddr": "v", "addr": "v", "data": "v", "data0": "v", "data1": "v",
    "vsrc0": "a", "src0": "a", "src1": "a", "src2": "a", "vsrc1": "v", "srcy0": "a", "vsrcy1": "v", "vdsty": "v",
    "ssrc0": "c", "ssrc1": "c", "sdst": "s", "sdata": "s", "saddr": "s", "soffset": "s",
    "sbase": "p", "srsrc": "q", "ssamp": "q", "simm16": "i",
}  # fmt: skip


@dataclass(slots=True)
class Operand:
    """One operand of a table line."""

    name: str
    cls: str
    type: str
    bits: int
    dst: bool = False
    field: str = ""
    flag: str = ""

    def text(self) -> str:
        width = int(re.sub(r"\D", "", self.type) or 64)
        bits = "" if self.bits == width else f"/{self.bits}"
        source = f"={self.field}" if self.field and self.field != self.name else ""
        flag = f"?{self.flag}" if self.flag else ""
        return f"{'>' if self.dst else ''}{self.name}{source}{flag}:{self.cls}:{self.type}{bits}"


@dataclass(slots=True)
class Op:
    """One opcode; ``flags`` are what isa_probe learns about it."""

    encoding: str
    opcode: int
    mnemonic: str
    operands: list[Operand]
    flags: list[str] = field(default_factory=list)

    def line(self) -> str:
        parts = [f"{self.encoding} {self.opcode} {self.mnemonic}"]
        parts += [operand.text() for operand in self.operands]
        parts += [f"+{flag}" for flag in self.flags]
        return " ".join(parts)


def operand_of(encoding: str, name: str, fmt: str, bits: int, kind: str) -> Operand:
    """One operand as the wheel describes it: field name, data format, size in bits, operand class."""
    base = re.sub(r"^FMT_(NUM_)?", "", fmt)
    if match := re.match(r"(?:PK\d*|WMMA_(?:AB|DC)(?:_\d+X\d+)?)_([A-Z]+\d+)$", base):
        kind_type = match.group(1).lower()
    elif base == "M64":
        kind_type = "mask"
    elif match := re.match(r"[A-Z]+\d+$", base):
        kind_type = base.lower()
    else:
        kind_type = f"b{bits}"
    if bits == 24:  # the instruction looks at 24 bits of a 32-bit register
        kind_type, bits = kind_type[0] + "32", 32
    if bits == 8 and encoding not in MEMORY:  # a byte that op_sel picks
        kind_type, bits = "b32", 32
    if encoding in MEMORY and (bits < 32 or base.startswith("PK")):  # a narrow access still names a whole register
        kind_type, bits = "b32", 32
    cls = FIELD_CLASSES.get(name, "n")
    if name == "vdst" and kind in ("OPR_SREG", "OPR_SDST"):
        cls = "s"
    elif name == "sdata" and kind == "OPR_SIMM5":
        cls = "i"
    elif kind == "OPR_SENDMSG_RTN":
        cls = "m"
    elif name == "soffset" and encoding in ("MUBUF", "MTBUF"):
        cls = "c"
    return Operand(name, cls, kind_type, bits, field=name)


ORDER = (
    "vdst", "vdsty", "sdst", "sdata", "src0", "vsrc0", "srcy0", "src1", "vsrc1", "vsrcy1", "src2", "ssrc0", "ssrc1",
    "simm16", "vdata", "addr", "vaddr", "data", "data0", "data1", "saddr", "sbase", "srsrc", "ssamp", "soffset",
)  # fmt: skip


def apply_rules(op: Op, returns: str) -> Op:
    """Order the operands, mark destinations, add what the wheel leaves out.

    ``returns`` is the field that makes an atomic return the old value.
    """
    rule = {
        "SOPK": _sopk, "SMEM": _smem, "VOP1": _vector, "VOP2": _vector, "VOPC": _vector, "VOP3": _vector,
        "VOP3SD": _vector, "VOP3P": _vector, "VOPD": _vector, "VINTERP": _vector,
        "SOP1": _scalar, "SOP2": _scalar, "SOPC": _scalar,
        "DS": _ds, "FLAT": _flat, "GLOBAL": _flat, "SCRATCH": _flat, "MUBUF": _buffer, "MTBUF": _buffer,
    }.get(op.encoding, _nothing)  # fmt: skip
    op.operands = [item for item in op.operands if item.name in ORDER]
    op.operands.sort(key=lambda item: ORDER.index(item.name))
    rule(op)
    for item in op.operands:
        item.flag = returns if item.flag == "glc" else item.flag
    op.operands.sort(key=lambda item: not item.dst)
    return op


def _nothing(op: Op) -> None:
    """SOPP carries only its immediate; graphics instructions are decoded by name and refused."""
    op.operands = []


def _by_name(op: Op, name: str) -> Operand | None:
    return next((item for item in op.operands if item.name == name), None)


# Barriers are named by a constant or by M0; the description leaves these operands out.
BARRIERS = {
    "s_get_barrier_state": ("sdst", "ssrc0"),
    "s_barrier_init": ("ssrc0",),
    "s_barrier_join": ("ssrc0",),
}


def _scalar(op: Op) -> None:
    op.operands += [Operand(name, FIELD_CLASSES[name], "b32", 32) for name in BARRIERS.get(op.mnemonic, ())]
    for item in op.operands:
        item.dst = item.name == "sdst"
        if item.bits == 16 and item.type != "f16":  # s_pack and s_sext look at parts of a 32-bit operand
            item.type, item.bits = item.type[0] + "32", 32
        elif op.mnemonic == "s_cvt_hi_f32_f16" and not item.dst:
            item.type, item.bits = "b32", 32  # it looks at the upper half
        elif op.mnemonic == "s_cvt_pk_rtz_f16_f32" and item.dst:
            item.bits = 32  # both halves
    if op.mnemonic in ("s_fmaak_f32", "s_fmamk_f32"):
        _add_literal(op, "f32")


def _sopk(op: Op) -> None:
    reads_sdst = op.mnemonic.startswith(("s_cmpk", "s_setreg", "s_waitcnt"))
    for item in op.operands:
        item.dst = item.name == "sdst" and not reads_sdst
    if "subvector" in op.mnemonic:
        op.operands.append(Operand("sdst", "s", "b32", 32, dst=True))
    immediate = _by_name(op, "simm16")
    if immediate is not None:
        # Only arithmetic takes the immediate as a value; register ids, counts and branch distances stay raw fields.
        if re.match(r"s_(movk|cmovk|cmpk|addk|mulk)", op.mnemonic):
            immediate.type, immediate.bits = immediate.type[0] + "32", 32
        else:
            op.operands.remove(immediate)
    if op.mnemonic == "s_setreg_imm32_b32":
        op.operands.append(Operand("literal", "k", "b32", 32))


def _smem(op: Op) -> None:
    for item in op.operands:
        if op.mnemonic.startswith("s_atc_probe") and item.name == "sdata":
            item.cls, item.type, item.bits = "i", "u32", 32  # says what is probed for, no register
        item.dst = item.name == "sdata" and item.cls == "s"


def _add_literal(op: Op, kind: str) -> None:
    """fmaak is a*b+K and fmamk is a*K+b: the literal goes where the arithmetic has it."""
    literal = Operand("literal", "k", kind, int(kind[1:]))
    sources = [index for index, item in enumerate(op.operands) if not item.dst]
    op.operands.insert(sources[1] if "fmamk" in op.mnemonic else len(op.operands), literal)


def _vector(op: Op) -> None:
    rename = {"vsrc0": "src0", "vsrc1": "src1", "srcy0": "src0", "vsrcy1": "src1", "vdsty": "vdst"}
    for item in op.operands:
        item.dst = item.name in ("vdst", "sdst", "vdsty")
        if item.name in rename and op.encoding in ("VOP3", "VOP3P", "VOP3SD"):
            item.field = rename[item.name]
        item.name = rename.get(item.name, item.name)
        if op.mnemonic.startswith("v_s_"):  # a transcendental of the vector unit for scalar registers
            item.cls, item.bits = "s" if item.dst else "c", int(item.type[1:])
        if op.encoding == "VINTERP":
            item.cls = "v"  # its source fields have nine bits, but only vector registers can be named
    if op.mnemonic == "v_pk_fmac_f16" and op.encoding == "VOP2":
        op.operands[1].cls = "d"  # without op_sel its inline floats fill both halves (LLVM: getPKFMACF16InlineEncoding)
    _fix_types(op)
    compare = re.match(r"v_(cmpx?)_", op.mnemonic)
    if compare:
        exec_written = compare.group(1) == "cmpx"
        implicit = "exec" if exec_written else "vcc"
        target = _by_name(op, "vdst")
        if target is None or exec_written:
            if target is not None:
                op.operands.remove(target)
            op.operands.insert(0, Operand("sdst", "x", "mask", 64, dst=True, field=implicit))
        else:
            target.name = "sdst"
    if op.encoding == "VOPD":
        op.mnemonic = op.mnemonic.replace("v_dual_", "v_")
    if op.encoding in ("VOP2", "VOPD"):
        if op.mnemonic in ("v_cndmask_b32", "v_add_co_ci_u32", "v_sub_co_ci_u32", "v_subrev_co_ci_u32"):
            op.operands.append(Operand("src2", "x", "mask", 64, field="vcc"))
        if "_co_ci_" in op.mnemonic:
            op.operands.insert(1, Operand("sdst", "x", "mask", 64, dst=True, field="vcc"))
        if re.match(r"v_fma[am]k_", op.mnemonic):
            _add_literal(op, op.mnemonic[-3:])
    if op.mnemonic.startswith("v_swap"):  # both registers are read and written; dst and src name them crosswise
        first, second = op.operands
        op.operands = [
            first,
            Operand(second.name, second.cls, second.type, second.bits, dst=True, field=second.field),
            second,
            Operand(first.name, first.cls, first.type, first.bits, field=first.field),
        ]


def _fix_types(op: Op) -> None:
    """Formats that the description states loosely."""
    for item in op.operands:
        if op.mnemonic.startswith("v_fma_mix") and not item.dst:
            item.type = "mix"  # f32 or half of a register, chosen per source by op_sel_hi
            item.bits = 32
        if "cmp_class" in op.mnemonic or "cmpx_class" in op.mnemonic:
            if item.name == "src1":
                item.type = f"b{item.bits}"
        elif op.mnemonic == "v_ldexp_f16" and item.name == "src1":
            item.type = "i16"


def _ds(op: Op) -> None:
    width = int(op.mnemonic[-2:]) if "2addr" in op.mnemonic else 0
    for item in op.operands:
        item.dst = item.name == "vdst"
        if item.dst and width:  # two elements come back
            item.type, item.bits = f"b{2 * width}", 2 * width


def _flat(op: Op) -> None:
    atomic = "_atomic_" in op.mnemonic
    for item in op.operands:
        if item.name == "vdst":
            item.dst = True
            item.flag = "glc" if atomic else ""
            if "cmpswap" in op.mnemonic:  # data holds new value and comparand, the old value alone comes back
                item.bits = int(op.mnemonic[-2:])
                item.type = f"b{item.bits}"
    if "_lds_" in op.mnemonic:  # the data goes to LDS, no register is written
        op.operands = [item for item in op.operands if item.name != "vdst"]


def _buffer(op: Op) -> None:
    data = _by_name(op, "vdata")
    if data is None:
        return
    if "_lds_" in op.mnemonic or op.mnemonic.endswith("_lds"):
        op.operands.remove(data)
    elif "load" in op.mnemonic:
        data.dst = True
    elif "atomic" in op.mnemonic:
        bits = data.bits // 2 if "cmpswap" in op.mnemonic else data.bits
        op.operands.insert(0, Operand("vdata", "v", f"b{bits}", bits, dst=True, field="vdata", flag="glc"))


def refine(ops: Iterable[Op], generation: str) -> None:
    """Add what the manual of a generation says beyond its operand tables and LLVM."""
    for op in ops:
        if (op.encoding, op.mnemonic) in UNLISTED_MODIFIERS.get(generation, ()):
            op.flags += ["neg=1", "abs=1"]
        cls = INLINE_FLOATS.get(generation, {}).get(op.mnemonic)
        for item in op.operands:
            if cls and item.name in ("src0", "src1") and item.cls == "a":
                item.cls = cls
