"""Text of the graphics encodings (image, export, LDS direct), straight from their bit fields.

The emulated card refuses these by name, so they have no decoded operands; a listing of a shader shows them in full.
"""

from __future__ import annotations

import re

from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.print_modifiers import cache_policy
from amdrv.emulator.isa.print_operand import register_range, scalar_register

# Image dimensions by their code: (name, coordinates, gradients).
DIMENSIONS = (
    ("1D", 1, 2),
    ("2D", 2, 4),
    ("3D", 3, 6),
    ("CUBE", 3, 4),
    ("1D_ARRAY", 2, 2),
    ("2D_ARRAY", 3, 4),
    ("2D_MSAA", 3, 4),
    ("2D_MSAA_ARRAY", 4, 4),
)
# Bits shown behind an image instruction, in the order of the listing, with the field that holds each.
IMAGE_BITS = (
    ("unorm", "unrm"), ("glc", "glc"), ("slc", "slc"), ("dlc", "dlc"), ("r128", "r128"),
    ("a16", "a16"), ("tfe", "tfe"), ("lwe", "lwe"), ("d16", "d16"),
)  # fmt: skip
EXPORT_TARGETS = {
    **{number: f"mrt{number}" for number in range(8)},
    8: "mrtz",
    **{12 + number: f"pos{number}" for number in range(5)},
    20: "prim",
    21: "dual_src_blend0",
    22: "dual_src_blend1",
}
_SCALARS = 0x7F  # of the nine bits that number a scalar register from gfx12 on
_LISTED_ADDRESSES = 5  # an image instruction with an address list names at most so many registers


def image_data_dwords(instruction: Instruction) -> int:
    """Registers of an image instruction's data: by dmask, four for gathers, halved by d16, one more for tfe."""
    fields = instruction.fields
    wide = "gather4" in instruction.mnemonic or instruction.mnemonic == "image_msaa_load"
    count = 4 if wide else max(1, fields["dmask"].bit_count())
    if fields["d16"]:
        count = (count + 1) // 2
    return count + fields["tfe"]


def image_address_dwords(instruction: Instruction) -> int:
    """Registers of an image instruction's address: extra arguments, gradients, coordinates and level of detail."""
    name, fields = instruction.mnemonic, instruction.fields
    _, coordinates, gradients = DIMENSIONS[fields["dim"]]
    parts = name.split("_")[2:] if name.startswith(("image_sample", "image_gather4")) else []
    extra = sum(part in ("c", "b", "o") for part in parts)
    level = bool({"l", "cl"} & set(parts)) or re.search(r"_mip\b|_mip_", name) is not None
    components = coordinates + level
    if name == "image_get_resinfo":
        components = 1
    words = extra + ((components + 1) // 2 if fields["a16"] else components)
    if "d" in parts:
        words += (gradients // 2 + 1) // 2 * 2 if "g16" in parts else gradients
    return words


def image_text(instruction: Instruction) -> str:
    """``image_sample v[0:3], v[4:5], s[0:7], s[8:11] dmask:0xf dim:SQ_RSRC_IMG_2D``."""
    fields = instruction.fields
    samples = instruction.mnemonic.startswith(("image_sample", "image_gather4", "image_get_lod"))
    if "bvh" in instruction.mnemonic:
        return _ray_text(instruction)
    parts = [
        register_range("v", fields["vdata"], 32 * image_data_dwords(instruction)),
        _address(instruction, image_address_dwords(instruction)),
        scalar_register(fields["srsrc"] * 4, 256),
    ]
    if samples:
        parts.append(scalar_register(fields["ssamp"] * 4, 128))
    tail = f" dmask:{fields['dmask']:#x}" if fields["dmask"] else ""
    tail += f" dim:SQ_RSRC_IMG_{DIMENSIONS[fields['dim']][0]}"
    tail += "".join(f" {name}" for name, field in IMAGE_BITS if fields[field])
    return f"{instruction.mnemonic} {', '.join(parts)}{tail}"


def _address(instruction: Instruction, count: int) -> str:
    first = instruction.fields["vaddr"]
    if not instruction.fields["nsa"]:
        return register_range("v", first, 32 * (16 if count > 12 else count))
    registers = _listed(instruction)[:count]
    names = [f"v{number}" for number in registers]
    if count > _LISTED_ADDRESSES:  # the last of the list stands for what is left
        names[-1] = register_range("v", registers[-1], 32 * (count - _LISTED_ADDRESSES + 1))
    return f"[{', '.join(names)}]"


def _listed(instruction: Instruction) -> list[int]:
    more = instruction.words[2]
    return [instruction.fields["vaddr"], *(more >> shift & 0xFF for shift in (0, 8, 16, 24))]


def _ray_text(instruction: Instruction) -> str:
    """image_bvh_intersect_ray: node pointer, extent, and three vectors (two when they are halves)."""
    fields = instruction.fields
    wide = "bvh64" in instruction.mnemonic
    if fields["nsa"]:
        counts = (2 if wide else 1, 1, 3, 3) if fields["a16"] else (2 if wide else 1, 1, 3, 3, 3)
        registers = zip(_listed(instruction), counts, strict=False)
        address = f"[{', '.join(register_range('v', number, 32 * count) for number, count in registers)}]"
    else:
        address = register_range("v", fields["vaddr"], 32 * ((8 if fields["a16"] else 11) + wide))
    data = register_range("v", fields["vdata"], 128)
    tail = " a16" if fields["a16"] else ""
    return f"{instruction.mnemonic} {data}, {address}, {scalar_register(fields['srsrc'] * 4, 128)}{tail}"


def unsampled_image_text(instruction: Instruction) -> str:
    """``image_load v[0:3], [v4, v5], s[0:7] dmask:0xf dim:SQ_RSRC_IMG_2D`` (VIMAGE)."""
    fields = instruction.fields
    if "bvh" in instruction.mnemonic:
        return _ray_text_12(instruction)
    parts = [
        register_range("v", fields["vdata"], 32 * image_data_dwords(instruction)),
        _address_12(instruction, image_address_dwords(instruction), 5),
        scalar_register(fields["srsrc"] & _SCALARS, 256),
    ]
    return f"{instruction.mnemonic} {', '.join(parts)}{_image_tail(instruction)}"


def sampled_image_text(instruction: Instruction) -> str:
    """``image_sample v[0:3], [v4, v5], s[0:7], s[8:11] dmask:0xf dim:SQ_RSRC_IMG_2D`` (VSAMPLE)."""
    fields = instruction.fields
    parts = [
        register_range("v", fields["vdata"], 32 * image_data_dwords(instruction)),
        _address_12(instruction, image_address_dwords(instruction), 4),
        scalar_register(fields["srsrc"] & _SCALARS, 256),
    ]
    if instruction.mnemonic != "image_msaa_load":
        parts.append(scalar_register(fields["ssamp"] & _SCALARS, 128))
    return f"{instruction.mnemonic} {', '.join(parts)}{_image_tail(instruction)}"


def _image_tail(instruction: Instruction) -> str:
    fields = instruction.fields
    tail = f" dmask:{fields['dmask']:#x}" if fields["dmask"] else ""
    tail += f" dim:SQ_RSRC_IMG_{DIMENSIONS[fields['dim']][0]}"
    tail += " unorm" if fields.get("unrm") else ""
    tail += cache_policy(instruction)
    return tail + "".join(f" {name}" for name in ("r128", "a16", "tfe", "lwe", "d16") if fields.get(name))


def _address_12(instruction: Instruction, count: int, listed: int) -> str:
    """Address registers, all named but for the last of the list, which stands for what is left."""
    registers = [instruction.fields[f"vaddr{number}"] for number in range(listed)]
    if count <= 1:
        return f"v{registers[0]}"
    names = [f"v{number}" for number in registers[:count]]
    if count > listed:
        names[-1] = register_range("v", registers[-1], 32 * (count - listed + 1))
    return f"[{', '.join(names)}]"


# Registers of each address of a ray instruction, without and with a16.
_RAY_ADDRESSES = {
    "image_bvh_intersect_ray": ((1, 1, 3, 3, 3), (1, 1, 3, 3)),
    "image_bvh64_intersect_ray": ((2, 1, 3, 3, 3), (2, 1, 3, 3)),
    "image_bvh_dual_intersect_ray": ((2, 2, 3, 3, 2), (2, 2, 3, 3, 2)),
    "image_bvh8_intersect_ray": ((2, 2, 3, 3, 1), (2, 2, 3, 3, 1)),
}


def _ray_text_12(instruction: Instruction) -> str:
    fields = instruction.fields
    counts = _RAY_ADDRESSES[instruction.mnemonic][fields["a16"]]
    names = [register_range("v", fields[f"vaddr{n}"], 32 * count) for n, count in enumerate(counts)]
    wide = instruction.mnemonic in ("image_bvh_dual_intersect_ray", "image_bvh8_intersect_ray")
    data = register_range("v", fields["vdata"], 320 if wide else 128)
    parts = [data, f"[{', '.join(names)}]", scalar_register(fields["srsrc"] & _SCALARS, 128)]
    return f"{instruction.mnemonic} {', '.join(parts)}{' a16' if fields['a16'] else ''}"


def export_text(instruction: Instruction) -> str:
    """``exp mrt0 v0, v1, off, off done row_en``."""
    fields = instruction.fields
    target = EXPORT_TARGETS.get(fields["target"], f"invalid_target_{fields['target']}")
    parts = [f"v{fields[f'vsrc{index}']}" if fields["en"] >> index & 1 else "off" for index in range(4)]
    tail = (" done" if fields["done"] else "") + (" row_en" if fields["row"] else "")
    return f"{instruction.mnemonic} {target} {', '.join(parts)}{tail}"


def lds_direct_text(instruction: Instruction) -> str:
    """``lds_param_load v0, attr0.x wait_vdst:15``."""
    fields = instruction.fields
    attribute = f", attr{fields['attr']}.{'xyzw'[fields['attr_chan']]}" if "param" in instruction.mnemonic else ""
    waits = "".join(f" {name}:{value}" for name, value in fields.items() if name.startswith("wait_"))
    return f"{instruction.mnemonic} v{fields['vdst']}{attribute}{waits}"
