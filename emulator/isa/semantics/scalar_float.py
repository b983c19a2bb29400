"""Scalar float instructions. gfx1150 was the first to have them; the operations are those of the vector unit."""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Rounding
from amdrv.emulator.isa.semantics.bits import field, pair
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Ternary, Unary, family


def _unary(kind: str) -> dict[str, Unary]:
    return {
        f"s_ceil_{kind}": lambda a, x: a.ceil(x),
        f"s_floor_{kind}": lambda a, x: a.floor(x),
        f"s_trunc_{kind}": lambda a, x: a.trunc(x),
        f"s_rndne_{kind}": lambda a, x: a.rndne(x),
    }


def _binary(kind: str) -> dict[str, Binary]:
    return {
        f"s_add_{kind}": lambda a, x, y: a.add(x, y),
        f"s_sub_{kind}": lambda a, x, y: a.sub(x, y),
        f"s_mul_{kind}": lambda a, x, y: a.mul(x, y),
        f"s_min_{kind}": lambda a, x, y: a.min_num(x, y),
        f"s_max_{kind}": lambda a, x, y: a.max_num(x, y),
    }


FUSED: dict[str, Ternary] = {
    "s_fmaak_f32": lambda a, x, y, z: a.fma(x, y, z),
    "s_fmamk_f32": lambda a, x, y, z: a.fma(x, y, z),
}
CONVERT_F32: dict[str, Unary] = {
    "s_cvt_i32_f32": lambda a, x: a.to_int(x, "i32"),
    "s_cvt_u32_f32": lambda a, x: a.to_int(x, "u32"),
    "s_cvt_f16_f32": lambda a, x: a.to_float(x, "f16"),
}
CONVERT_U32: dict[str, Unary] = {
    "s_cvt_f32_u32": lambda a, x: a.to_float(x, "f32"),
    "s_cvt_hi_f32_f16": lambda a, x: a.to_float(a.f16(field(x, 31, 16)), "f32"),
}
PACK: dict[str, Binary] = {
    "s_cvt_pk_rtz_f16_f32": lambda a, x, y: pair(
        a, a.to_float(x, "f16", Rounding.ZERO), a.to_float(y, "f16", Rounding.ZERO)
    ),
}

DEFINITIONS: list[Definition] = [
    *(definition for kind in ("f32", "f16") for definition in family(_unary(kind), kind)),
    *(definition for kind in ("f32", "f16") for definition in family(_binary(kind), kind, kind)),
    *family(FUSED, "f32", "f32", "f32"),
    *family({"s_fmac_f32": lambda a, x, y, old: a.fma(x, y, old)}, "f32", "f32", "f32", reads=("old",)),
    *family({"s_fmac_f16": lambda a, x, y, old: a.fma(x, y, old)}, "f16", "f16", "f16", reads=("old",)),
    *family(CONVERT_F32, "f32"),
    *family(CONVERT_U32, "u32"),
    *family({"s_cvt_f32_i32": lambda a, x: a.to_float(x, "f32")}, "i32"),
    *family({"s_cvt_f32_f16": lambda a, x: a.to_float(x, "f32")}, "f16"),
    *family(PACK, "f32", "f32"),
]
