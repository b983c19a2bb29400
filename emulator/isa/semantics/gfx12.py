"""What gfx12 adds that is no family of its own: new names of old instructions, 64-bit scalars, dot products of fp8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from amdrv.emulator.isa.semantics import scalar, vector_integer
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Unary, family
from amdrv.emulator.isa.semantics.transcendental import FUNCTIONS, ONE_ULP

Fields: TypeAlias = Mapping[str, int]

# New name -> the name that the instruction had: carries are told apart from plain additions.
RENAMED = {
    "s_add_co_u32": "s_add_u32",
    "s_sub_co_u32": "s_sub_u32",
    "s_add_co_i32": "s_add_i32",
    "s_sub_co_i32": "s_sub_i32",
    "s_add_co_ci_u32": "s_addc_u32",
    "s_sub_co_ci_u32": "s_subb_u32",
    "s_addk_co_i32": "s_addk_i32",
    "v_mad_co_u64_u32": "v_mad_u64_u32",
    "v_mad_co_i64_i32": "v_mad_i64_i32",
}

SCALAR_U64: dict[str, Binary] = {
    "s_add_nc_u64": lambda a, x, y: x + y,
    "s_sub_nc_u64": lambda a, x, y: x - y,
    "s_mul_u64": lambda a, x, y: x * y,
}


def _renamed() -> list[Definition]:
    known = {item.mnemonic: item for module in (scalar, vector_integer) for item in module.DEFINITIONS}
    return [replace(known[old], mnemonic=new) for new, old in RENAMED.items()]


def _on_scalars(kind: str) -> dict[str, Unary]:
    """V_S_EXP_F32 and its neighbours: the vector unit's function of a scalar register."""
    return {f"v_s_{name}_{kind}": FUNCTIONS[name] for name in ("exp", "log", "rcp", "rsq", "sqrt")}


DEFINITIONS: list[Definition] = [
    *_renamed(),
    *family(SCALAR_U64, "u64", "u64"),
    *(definition for kind in ("f16", "f32") for definition in family(_on_scalars(kind), kind, accuracy=ONE_ULP)),
]
