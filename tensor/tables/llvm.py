"""LLVM's names of types and instructions."""

from __future__ import annotations

from collections.abc import Mapping

from amdrv.tensor import dtypes
from amdrv.tensor.ir import Op

# LLVM's names of types in registers; what is narrower than it computes in is bytes until it is decoded.
TYPES = {
    dtypes.bool_: "i1",
    dtypes.float16: "half",
    dtypes.float32: "float",
    dtypes.float64: "double",
    dtypes.bfloat16: "i16",
    dtypes.float8_e4m3fn: "i8",
    dtypes.float8_e5m2: "i8",
    **{dtype: f"i{dtype.bits}" for dtype in dtypes.ALL if dtype.is_int},
}
# Operation → instruction for (floats, signed, unsigned and bool).
INSTRUCTIONS: Mapping[Op, tuple[str | None, str | None, str | None]] = {
    Op.ADD: ("fadd", "add", "add"),
    Op.SUB: ("fsub", "sub", "sub"),
    Op.MUL: ("fmul", "mul", "mul"),
    Op.DIV: ("fdiv", None, None),
    Op.TRUNCDIV: (None, "sdiv", "udiv"),
    Op.REM: (None, "srem", "urem"),
    Op.NEG: ("fneg", None, None),
    Op.AND: (None, "and", "and"),
    Op.OR: (None, "or", "or"),
    Op.XOR: (None, "xor", "xor"),
    Op.SHL: (None, "shl", "shl"),
    Op.SHR: (None, "ashr", "lshr"),
    Op.LT: ("fcmp olt", "icmp slt", "icmp ult"),
    Op.EQ: ("fcmp oeq", "icmp eq", "icmp eq"),
}
INTRINSICS: Mapping[Op, tuple[str | None, str | None, str | None]] = {
    Op.MAX: ("maximum", "smax", "umax"),
    Op.MIN: ("minimum", "smin", "umin"),
    Op.SQRT: ("sqrt", None, None),
    Op.FLOOR: ("floor", None, None),
    Op.RINT: ("rint", None, None),
    Op.MULADD: ("fma", None, None),
}
HORIZONTAL = {
    Op.ADD: ("fadd", "add", "add"),
    Op.MUL: ("fmul", "mul", "mul"),
    Op.MAX: ("fmaximum", "smax", "umax"),
    Op.MIN: ("fminimum", "smin", "umin"),
}
