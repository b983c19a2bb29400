"""Text that follows the operands: op_sel and its kin, clamp, omod, data-parallel control, cache policy, offsets."""

from __future__ import annotations

from amdrv.emulator.isa.instruction import Dpp, Instruction

OUTPUT_MODIFIERS = ("", " mul:2", " mul:4", " div:2")
_QUAD_PERM_LAST = 0xFF
_ROW_KINDS = {0x100: "row_shl", 0x110: "row_shr", 0x120: "row_ror", 0x150: "row_share", 0x160: "row_xmask"}
_ROW_SHIFTS = (0x100, 0x110, 0x120)  # a shift by zero does not exist
_MIRRORS = {0x140: "row_mirror", 0x141: "row_half_mirror"}
# Controls of older generations, which LLVM names in a comment.
_GONE = {
    0x130: "wave_shl", 0x134: "wave_rol", 0x138: "wave_shr", 0x13C: "wave_ror", 0x142: "row_bcast", 0x143: "row_bcast",
}  # fmt: skip


def bit_list(name: str, mask: int, count: int) -> str:
    """`` name:[1,0]`` of the lowest ``count`` bits, bit 0 first."""
    return f" {name}:[{','.join(str(mask >> bit & 1) for bit in range(count))}]"


def dpp_text(dpp: Dpp) -> str:
    """`` quad_perm:[…] row_mask:0xf bank_mask:0xf bound_ctrl:1 fi:1`` or `` dpp8:[…] fi:1``."""
    invalid = " fi:1" if dpp.fetch_inactive else ""
    if dpp.kind == "dpp8":
        lanes = ",".join(str(dpp.control >> 3 * lane & 7) for lane in range(8))
        return f" dpp8:[{lanes}]{invalid}"
    bound = " bound_ctrl:1" if dpp.bound_ctrl else ""
    masks = f" row_mask:{dpp.row_mask:#x} bank_mask:{dpp.bank_mask:#x}"
    return f" {dpp_control(dpp.control)}{masks}{bound}{invalid}"


def dpp_control(control: int) -> str:
    """The lane pattern of a DPP16 control (9 bits)."""
    if control <= _QUAD_PERM_LAST:
        return f"quad_perm:[{','.join(str(control >> 2 * lane & 3) for lane in range(4))}]"
    base, amount = control & ~0xF, control & 0xF
    if control in _MIRRORS:
        return _MIRRORS[control]
    if base in _ROW_KINDS and (amount or base not in _ROW_SHIFTS):
        return f"{_ROW_KINDS[base]}:{amount}"
    if control in _GONE:
        return f"/* {_GONE[control]} is not supported starting from GFX10 */"
    return "/* Invalid dpp_ctrl value */"


def cache_policy(instruction: Instruction) -> str:
    """`` glc slc dlc``, or `` th:TH_LOAD_NT scope:SCOPE_DEV`` of generations that have a hint and a scope instead."""
    fields = instruction.fields
    if "scope" not in fields:
        return "".join(f" {bit}" for bit in ("glc", "slc", "dlc") if fields.get(bit))
    hint = f" th:{_temporal_hint(instruction)}" if fields["th"] else ""
    return hint + (f" scope:{SCOPES[fields['scope']]}" if fields["scope"] else "")


SCOPES = ("SCOPE_CU", "SCOPE_SE", "SCOPE_DEV", "SCOPE_SYS")
_DEVICE, _SYSTEM = 2, 3
# Temporal hints of loads and stores by number; the third depends on the scope, the last is of stores only.
_HINTS = ("", "NT", "HT", "", "NT_RT", "RT_NT", "NT_HT", "NT_WB")
_RETURN, _NON_TEMPORAL, _CASCADE = 1, 2, 4  # of atomics


def _temporal_hint(instruction: Instruction) -> str:
    hint, scope = instruction.fields["th"], instruction.fields["scope"]
    if "atomic" in instruction.mnemonic:
        if hint & _CASCADE:
            name = "CASCADE_" + ("NT" if hint & _NON_TEMPORAL else "RT") if scope >= _DEVICE else ""
        else:
            name = "_".join(["NT"] * bool(hint & _NON_TEMPORAL) + ["RETURN"] * bool(hint & _RETURN))
        return f"TH_ATOMIC_{name or hex(hint)}"
    store = "store" in instruction.mnemonic
    if hint == 3:
        name = "BYPASS" if scope == _SYSTEM else "WB" if store else "LU"
    elif hint == 7 and not store:
        return hex(hint)
    else:
        name = _HINTS[hint]
    return f"TH_{'STORE' if store else 'LOAD'}_{name}"


def byte_select(instruction: Instruction) -> str:
    """`` byte_sel:1`` of conversions that read or write one byte of a register; op_sel holds it."""
    selected = instruction.fields.get("opsel", 0)
    if instruction.mnemonic in ("v_cvt_f32_fp8", "v_cvt_f32_bf8"):
        selected = selected >> 1 & 1 | (selected & 1) << 1  # the two bits are the other way round
    elif instruction.mnemonic in ("v_cvt_sr_fp8_f32", "v_cvt_sr_bf8_f32"):
        selected >>= 2
    else:
        return ""
    return f" byte_sel:{selected}" if selected else ""


def sparse_key(instruction: Instruction) -> str:
    """`` index_key:1`` of a sparse matrix instruction: which part of the index register it uses."""
    key = instruction.fields.get("opsel", 0) & 3
    return f" index_key:{key}" if key and instruction.mnemonic.startswith("v_swmmac") else ""


def swizzle(offset: int) -> str:
    """`` offset:swizzle(…)`` of ds_swizzle_b32: FFT, rotate, quad permutation, or masks on the lane number."""
    if not offset:
        return ""
    if offset >= 0xE000:
        return f" offset:swizzle(FFT,{offset & 0x1F})"
    if offset >= 0xC000:
        return f" offset:swizzle(ROTATE,{offset >> 10 & 1},{offset >> 5 & 0x1F})"
    if offset & 0xFF00 == 0x8000:
        lanes = ",".join(str(offset >> 2 * lane & 3) for lane in range(4))
        return f" offset:swizzle(QUAD_PERM,{lanes})"
    if offset & 0x8000:
        return f" offset:{offset}"
    return f" offset:swizzle({_mask_swizzle(offset & 0x1F, offset >> 5 & 0x1F, offset >> 10 & 0x1F)})"


def _mask_swizzle(and_mask: int, or_mask: int, xor_mask: int) -> str:
    if and_mask == 0x1F and or_mask == 0 and xor_mask.bit_count() == 1:
        return f"SWAP,{xor_mask}"
    if and_mask == 0x1F and or_mask == 0 and xor_mask and (xor_mask + 1).bit_count() == 1:
        return f"REVERSE,{xor_mask + 1}"
    group = 0x20 - and_mask
    if group > 1 and group.bit_count() == 1 and or_mask < group and xor_mask == 0:
        return f"BROADCAST,{group},{or_mask}"
    letters = []
    for bit in reversed(range(5)):
        keep, force, flip = and_mask >> bit & 1, or_mask >> bit & 1, xor_mask >> bit & 1
        if force:
            letters.append("0" if flip else "1")
        elif keep:
            letters.append("i" if flip else "p")
        else:
            letters.append("1" if flip else "0")
    return f'BITMASK_PERM,"{"".join(letters)}"'
