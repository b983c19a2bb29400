"""Scalar integer and bit instructions: SOP1, SOP2 and SOPK, with their SCC results."""

from __future__ import annotations

from collections.abc import Mapping

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import field, halves, magnitude, not_zero, pair
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Evaluate, Ternary, Unary, family, typed

RESULT_AND_SCC = ("dst", "scc")


def _and_scc(function: Evaluate) -> Evaluate:
    """A function's result together with SCC = result != 0."""

    def evaluate(a: Ops, *values: Value) -> tuple[Value, Value]:
        result: Value = function(a, *values)  # type: ignore[assignment]
        return result, not_zero(a, result)

    return evaluate


def _logic(width: int) -> dict[str, Binary]:
    """The two-source logic operations of SOP2."""
    return {
        f"s_and_b{width}": lambda a, x, y: x & y,
        f"s_or_b{width}": lambda a, x, y: x | y,
        f"s_xor_b{width}": lambda a, x, y: x ^ y,
        f"s_nand_b{width}": lambda a, x, y: ~(x & y),
        f"s_nor_b{width}": lambda a, x, y: ~(x | y),
        f"s_xnor_b{width}": lambda a, x, y: ~(x ^ y),
        f"s_and_not1_b{width}": lambda a, x, y: x & ~y,
        f"s_or_not1_b{width}": lambda a, x, y: x | ~y,
    }


# EXEC = operation(S0, EXEC); the _saveexec forms return the old EXEC, the _wrexec forms the new one.
EXEC_OPERATIONS: dict[str, Binary] = {
    "and": lambda a, x, e: x & e,
    "or": lambda a, x, e: x | e,
    "xor": lambda a, x, e: x ^ e,
    "nand": lambda a, x, e: ~(x & e),
    "nor": lambda a, x, e: ~(x | e),
    "xnor": lambda a, x, e: ~(x ^ e),
    "and_not0": lambda a, x, e: ~x & e,
    "or_not0": lambda a, x, e: ~x | e,
    "and_not1": lambda a, x, e: x & ~e,
    "or_not1": lambda a, x, e: x | ~e,
}


def _save_exec(operation: Binary) -> Evaluate:
    def evaluate(a: Ops, x: Value, exec_mask: Value) -> tuple[Value, Value, Value]:
        new = operation(a, x, exec_mask)
        return exec_mask, new, not_zero(a, new)

    return evaluate


def _write_exec(operation: Binary) -> Evaluate:
    def evaluate(a: Ops, x: Value, exec_mask: Value) -> tuple[Value, Value, Value]:
        new = operation(a, x, exec_mask)
        return new, new, not_zero(a, new)

    return evaluate


def _exec_family(width: int) -> list[Definition]:
    kind = f"u{width}"
    table: dict[str, Evaluate] = {
        f"s_{name}_saveexec_b{width}": _save_exec(operation) for name, operation in EXEC_OPERATIONS.items()
    }
    for name in ("and_not0", "and_not1"):
        table[f"s_{name}_wrexec_b{width}"] = _write_exec(EXEC_OPERATIONS[name])
    return family(table, kind, kind, reads=("exec",), writes=("dst", "exec", "scc"))


# Additions: SCC is the carry or the signed overflow.


def add_u32(a: Ops, x: Value, y: Value) -> tuple[Value, Value]:
    total = x + y
    return total, a.lt(total, x)


def sub_u32(a: Ops, x: Value, y: Value) -> tuple[Value, Value]:
    return x - y, a.lt(x, y)


def add_i32(a: Ops, x: Value, y: Value) -> tuple[Value, Value]:
    total = x + y
    return total, a.lt((x ^ total) & (y ^ total), 0)


def sub_i32(a: Ops, x: Value, y: Value) -> tuple[Value, Value]:
    total = x - y
    return total, a.lt((x ^ y) & (x ^ total), 0)


def add_carry(a: Ops, x: Value, y: Value, carry: Value) -> tuple[Value, Value]:
    """x + y + carry of u32; the truth value is the carry out of bit 31."""
    partial = x + y
    total = partial + a.u32(carry)
    return total, a.lt(partial, x) | a.lt(total, partial)


def sub_borrow(a: Ops, x: Value, y: Value, borrow: Value) -> tuple[Value, Value]:
    """x - y - borrow of u32; the truth value says that it went below zero."""
    partial, lent = x - y, a.u32(borrow)
    return partial - lent, a.lt(x, y) | a.lt(partial, lent)


def _shifted_add(shift: int) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value) -> tuple[Value, Value]:
        total = (a.u64(x) << shift) + a.u64(y)
        return a.u32(total), not_zero(a, total >> 32)

    return evaluate


def _addk(a: Ops, constant: Value, old: Value) -> tuple[Value, Value]:
    return add_i32(a, old, a.i32(a.i16(constant)))


def _absdiff(a: Ops, x: Value, y: Value) -> Value:
    return magnitude(a, x - y)


# Bit fields: offset in S1[4:0] (or 5:0), width in S1[22:16].


def _bfe(kind: str, bits: int) -> Evaluate:
    offset_mask = bits - 1

    def unsigned(a: Ops, x: Value, y: Value) -> Value:
        control = a.u32(y)
        width = a.min(field(control, 22, 16), bits)
        value = x >> a.cast(control & offset_mask, kind)
        # A full-width mask must not be made by a full-width shift.
        kept = a.cast(a.max(width, 1) - 1, kind)
        mask = (a.constant(kind, 2) << kept) - 1
        return a.select(a.eq(width, 0), 0, value & mask)

    def signed(a: Ops, x: Value, y: Value) -> Value:
        control = a.u32(y)
        width = a.min(field(control, 22, 16), bits)
        up = a.cast(bits - a.max(width, 1), kind)
        value = (x >> a.cast(control & offset_mask, kind)) << up >> up
        return a.select(a.eq(width, 0), 0, value)

    return signed if kind.startswith("i") else unsigned


def bit_field_mask(a: Ops, width: Value, offset: Value, kind: str, count_mask: int) -> Value:
    """((1 << width) - 1) << offset, both counts taken modulo the register's width."""
    one = a.constant(kind, 1)
    return ((one << (width & count_mask)) - 1) << (offset & count_mask)


def find(a: Ops, x: Value, position: Value) -> Value:
    """A found bit's position, or -1 when there is none to find."""
    return a.select(a.eq(x, 0), -1, position)


def sign_run(a: Ops, x: Value) -> Value:
    """Position below the top of the first bit that differs from the sign, or -1 (V_CLS_I32)."""
    differing = a.select(a.lt(x, 0), ~x, x)
    return find(a, differing, a.clz(differing))


def _quad_mask(groups: int) -> Unary:
    """One bit for every group of four that is not zero."""

    def evaluate(a: Ops, x: Value) -> Value:
        any_of_four = (x | x >> 1 | x >> 2 | x >> 3) & 0x1111111111111111 % (1 << 4 * groups)
        result = any_of_four & 1
        for group in range(1, groups):
            result = result | any_of_four >> 3 * group & 1 << group
        return result

    return evaluate


def _whole_quad_mode(groups: int) -> Unary:
    """All four bits of every group of four that is not zero."""

    def evaluate(a: Ops, x: Value) -> Value:
        any_of_four = (x | x >> 1 | x >> 2 | x >> 3) & 0x1111111111111111 % (1 << 4 * groups)
        return any_of_four * 15

    return evaluate


def _bit_replicate(a: Ops, x: Value) -> Value:
    """Every bit twice: the halves of the word are spread apart by ever smaller steps."""
    wide = a.u64(x)
    for step, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        wide = (wide | wide << step) & mask
    return wide | wide << 1


def _pack(low: int, high: int) -> Evaluate:
    """S_PACK: half ``low`` of the first source below half ``high`` of the second."""
    return lambda a, x, y: pair(a, halves(a, x, "u16")[low], halves(a, y, "u16")[high])


UNARY_32: dict[str, Unary] = {
    "s_mov_b32": lambda a, x: x,
    "s_brev_b32": lambda a, x: a.bitreverse(x),
    "s_ctz_i32_b32": lambda a, x: find(a, x, a.ctz(x)),
    "s_clz_i32_u32": lambda a, x: find(a, x, a.clz(x)),
    "s_sext_i32_i8": lambda a, x: a.i32(x << 24) >> 24,
    "s_sext_i32_i16": lambda a, x: a.i32(a.i16(x)),
    "s_bitreplicate_b64_b32": _bit_replicate,
    "s_movk_i32": lambda a, x: a.i32(a.i16(x)),
}
UNARY_64: dict[str, Unary] = {
    "s_mov_b64": lambda a, x: x,
    "s_brev_b64": lambda a, x: a.bitreverse(x),
    "s_ctz_i32_b64": lambda a, x: find(a, x, a.ctz(x)),
    "s_clz_i32_u64": lambda a, x: find(a, x, a.clz(x)),
}
UNARY_SCC_32: dict[str, Unary] = {
    "s_not_b32": lambda a, x: ~x,
    "s_wqm_b32": _whole_quad_mode(8),
    "s_quadmask_b32": _quad_mask(8),
    "s_bcnt0_i32_b32": lambda a, x: a.popcount(~x),
    "s_bcnt1_i32_b32": lambda a, x: a.popcount(x),
}
UNARY_SCC_64: dict[str, Unary] = {
    "s_not_b64": lambda a, x: ~x,
    "s_wqm_b64": _whole_quad_mode(16),
    "s_quadmask_b64": _quad_mask(16),
    "s_bcnt0_i32_b64": lambda a, x: a.popcount(~x),
    "s_bcnt1_i32_b64": lambda a, x: a.popcount(x),
}
BITSET_32: dict[str, Binary] = {
    "s_bitset0_b32": lambda a, n, old: old & ~(a.constant("u32", 1) << (n & 31)),
    "s_bitset1_b32": lambda a, n, old: old | a.constant("u32", 1) << (n & 31),
}
BITSET_64: dict[str, Binary] = {
    "s_bitset0_b64": lambda a, n, old: old & ~(a.constant("u64", 1) << (n & 63)),
    "s_bitset1_b64": lambda a, n, old: old | a.constant("u64", 1) << (n & 63),
}
CONDITIONAL_MOVES: dict[str, Ternary] = {
    "s_cmov_b32": lambda a, x, old, scc: a.select(scc, a.u32(x), a.u32(old)),
    "s_cmov_b64": lambda a, x, old, scc: a.select(scc, a.u64(x), a.u64(old)),
    "s_cmovk_i32": lambda a, x, old, scc: a.select(scc, a.i32(a.i16(x)), a.i32(old)),
}
SELECTS: dict[str, Ternary] = {
    "s_cselect_b32": lambda a, x, y, scc: a.select(scc, a.u32(x), a.u32(y)),
    "s_cselect_b64": lambda a, x, y, scc: a.select(scc, a.u64(x), a.u64(y)),
}
PACKS: dict[str, Evaluate] = {
    "s_pack_ll_b32_b16": _pack(0, 0),
    "s_pack_lh_b32_b16": _pack(0, 1),
    "s_pack_hh_b32_b16": _pack(1, 1),
    "s_pack_hl_b32_b16": _pack(1, 0),
}
ADD_UNSIGNED: dict[str, Evaluate] = {
    "s_add_u32": add_u32,
    "s_sub_u32": sub_u32,
    **{f"s_lshl{shift}_add_u32": _shifted_add(shift) for shift in (1, 2, 3, 4)},
}
EXTREMA: dict[str, dict[str, Evaluate]] = {
    "i32": {
        "s_min_i32": lambda a, x, y: (a.min(x, y), a.lt(x, y)),
        "s_max_i32": lambda a, x, y: (a.max(x, y), a.le(y, x)),
    },
    "u32": {
        "s_min_u32": lambda a, x, y: (a.min(x, y), a.lt(x, y)),
        "s_max_u32": lambda a, x, y: (a.max(x, y), a.le(y, x)),
    },
}
SHIFTS: dict[str, dict[str, Binary]] = {
    "u32": {
        "s_lshl_b32": lambda a, x, n: x << (n & 31),
        "s_lshr_b32": lambda a, x, n: x >> (n & 31),
    },
    "i32": {"s_ashr_i32": lambda a, x, n: x >> (n & 31)},
    "u64": {
        "s_lshl_b64": lambda a, x, n: x << (n & 63),
        "s_lshr_b64": lambda a, x, n: x >> (n & 63),
    },
    "i64": {"s_ashr_i64": lambda a, x, n: x >> (n & 63)},
}
MULTIPLICATIONS: dict[str, dict[str, Binary]] = {
    "i32": {
        "s_mul_i32": lambda a, x, y: x * y,
        "s_mul_hi_i32": lambda a, x, y: a.i32(a.i64(x) * a.i64(y) >> 32),
    },
    "u32": {
        "s_mul_hi_u32": lambda a, x, y: a.u32(a.u64(x) * a.u64(y) >> 32),
        "s_bfm_b32": lambda a, x, y: bit_field_mask(a, x, y, "u32", 31),
    },
    "u64": {"s_bfm_b64": lambda a, x, y: bit_field_mask(a, x, y, "u64", 63)},
}


def _with_scc(table: dict[str, Unary] | dict[str, Binary]) -> dict[str, Evaluate]:
    return {mnemonic: _and_scc(function) for mnemonic, function in table.items()}


def _by_kind(tables: Mapping[str, Mapping[str, Evaluate]], writes: tuple[str, ...]) -> list[Definition]:
    """Two-source definitions from tables by the kind of both sources."""
    return [definition for kind, table in tables.items() for definition in family(table, kind, kind, writes=writes)]


def _bfe_family() -> list[Definition]:
    return [
        Definition(f"s_bfe_{kind}", typed(_and_scc(_bfe(kind, width)), kind), writes=RESULT_AND_SCC)
        for kind, width in (("u32", 32), ("i32", 32), ("u64", 64), ("i64", 64))
    ]


DEFINITIONS = [
    *family(UNARY_32, "u32"),
    *family(UNARY_64, "u64"),
    *family({"s_cls_i32": sign_run}, "i32"),
    *family({"s_cls_i32_i64": sign_run}, "i64"),
    *family(_with_scc(UNARY_SCC_32), "u32", writes=RESULT_AND_SCC),
    *family(_with_scc(UNARY_SCC_64), "u64", writes=RESULT_AND_SCC),
    *family({"s_abs_i32": _and_scc(magnitude)}, "i32", writes=RESULT_AND_SCC),
    *family({"s_absdiff_i32": _and_scc(_absdiff)}, "i32", "i32", writes=RESULT_AND_SCC),
    *family(BITSET_32, "u32", "u32", reads=("old",)),
    *family(BITSET_64, "u64", "u64", reads=("old",)),
    *family(CONDITIONAL_MOVES, reads=("old", "scc")),
    *family(SELECTS, reads=("scc",)),
    *family(PACKS, "u32", "u32"),
    *family(_with_scc(_logic(32)), "u32", "u32", writes=RESULT_AND_SCC),
    *family(_with_scc(_logic(64)), "u64", "u64", writes=RESULT_AND_SCC),
    *_exec_family(32),
    *_exec_family(64),
    *family(ADD_UNSIGNED, "u32", "u32", writes=RESULT_AND_SCC),
    *family({"s_add_i32": add_i32, "s_sub_i32": sub_i32}, "i32", "i32", writes=RESULT_AND_SCC),
    *family({"s_addc_u32": add_carry, "s_subb_u32": sub_borrow}, "u32", "u32", reads=("scc",), writes=RESULT_AND_SCC),
    *family({"s_addk_i32": _addk}, "i32", "i32", reads=("old",), writes=RESULT_AND_SCC),
    *family({"s_mulk_i32": lambda a, k, old: old * a.i32(a.i16(k))}, "i32", "i32", reads=("old",)),
    *_by_kind(EXTREMA, RESULT_AND_SCC),
    *_by_kind({kind: _with_scc(table) for kind, table in SHIFTS.items()}, RESULT_AND_SCC),
    *_by_kind(MULTIPLICATIONS, ("dst",)),
    *_bfe_family(),
]
