"""Instructions that the shader engine refuses by name, and why: none of them is one that compute work can use."""

from __future__ import annotations

import re

IMAGE = "image instruction: compute queues of the emulated card have no texture unit"
RAY_TRACING = "ray tracing: the emulated card has no ray accelerator"
EXPORT = "export: compute work has no pixels and positions to hand on"
INTERPOLATION = "interpolation: compute work has no parameters"
PARAMETERS = "parameter load: compute work has no parameters"
GEOMETRY = "geometry shader register: not of compute work"
GLOBAL_RESOURCE = "global wave sync and ordered counting: no queue of the emulated card is given any"
TRAP_RETURN = "privileged: only a trap handler returns with it, and there is none"
END_OF_CODE = "no instruction: marks memory behind the end of a program"
# AMD's machine-readable description numbers them; nothing describes what they do, and no assembler knows them.
UNLISTED = "reserved: known to neither the RDNA3 ISA manual nor LLVM 22"

NAMED_BARRIER = "named barriers: a workgroup has its own barrier only"
DYNAMIC_REGISTERS = "dynamic VGPRs: no dispatch of the emulated card is given any"
STREAMOUT = "ordered streamout count: not of compute work"

_BY_ENCODING = {
    "MIMG": IMAGE,
    "VIMAGE": IMAGE,
    "VSAMPLE": IMAGE,
    "EXP": EXPORT,
    "VINTERP": INTERPOLATION,
    "LDSDIR": PARAMETERS,
}
_BY_MNEMONIC = (
    (re.compile(r"image_bvh|ds_bvh_stack"), RAY_TRACING),
    (re.compile(r"ds_(add|sub)_gs_reg"), GEOMETRY),
    (re.compile(r"s_barrier_(init|join)"), NAMED_BARRIER),
    (re.compile(r"s_alloc_vgpr"), DYNAMIC_REGISTERS),
    (re.compile(r"global_atomic_ordered_add"), STREAMOUT),
    (re.compile(r"ds_gws_|ds_ordered_count"), GLOBAL_RESOURCE),
    (re.compile(r"s_rfe_b64"), TRAP_RETURN),
    (re.compile(r"s_code_end"), END_OF_CODE),
    (re.compile(r"(global|scratch|buffer)_load_lds_|flat_atomic_csub_u32"), UNLISTED),
)


def refusal(encoding: str, mnemonic: str) -> str:
    """Why an instruction is refused; "" for one that is not."""
    for pattern, reason in _BY_MNEMONIC:
        if pattern.match(mnemonic):
            return reason
    return _BY_ENCODING.get(encoding, "")
