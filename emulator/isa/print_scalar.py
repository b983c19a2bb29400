"""Text of the immediates that scalar instructions carry: counters, delays, messages, hardware registers."""

from __future__ import annotations

from collections.abc import Mapping

DELAY_KINDS = (
    "", "VALU_DEP_1", "VALU_DEP_2", "VALU_DEP_3", "VALU_DEP_4", "TRANS32_DEP_1", "TRANS32_DEP_2", "TRANS32_DEP_3",
    "FMA_ACCUM_CYCLE_1", "SALU_CYCLE_1", "SALU_CYCLE_2", "SALU_CYCLE_3",
)  # fmt: skip
DELAY_SKIPS = ("", "NEXT", "SKIP_1", "SKIP_2", "SKIP_3", "SKIP_4")

# s_waitcnt of gfx11: (name, low bit, mask); a counter at its maximum is not waited for.
WAIT_COUNTERS = (("vmcnt", 10, 0x3F), ("expcnt", 0, 0x7), ("lgkmcnt", 4, 0x3F))

# s_waitcnt_depctr: (name, low bit, mask, value that means no wait).
DEPENDENCY_COUNTERS = (
    ("depctr_hold_cnt", 7, 0x1, 1),
    ("depctr_sa_sdst", 0, 0x1, 1),
    ("depctr_va_vdst", 12, 0xF, 15),
    ("depctr_va_sdst", 9, 0x7, 7),
    ("depctr_va_ssrc", 8, 0x1, 1),
    ("depctr_va_vcc", 1, 0x1, 1),
    ("depctr_vm_vsrc", 2, 0x7, 7),
)


# s_version: the assembler's names of generations and of the wave sizes that code was written for.
VERSIONS = {0: "UC_VERSION_GFX7", 4: "UC_VERSION_GFX10", 6: "UC_VERSION_GFX11", 9: "UC_VERSION_GFX12"}
VERSION_BITS = ((13, "UC_VERSION_W64_BIT"), (14, "UC_VERSION_W32_BIT"), (15, "UC_VERSION_MDP_BIT"))


def code_version(immediate: int) -> str:
    """``UC_VERSION_GFX11|UC_VERSION_W32_BIT``; hexadecimal when other bits are set."""
    if immediate & 0x1F00:
        return hex(immediate)
    number = immediate & 0xFF
    text = VERSIONS.get(number, str(number))
    for bit, name in VERSION_BITS:
        if immediate >> bit & 1:
            text = f"({text})|{name}" if "|" in text else f"{text}|{name}"
    return text


def wait_counters(immediate: int) -> str:
    """``vmcnt(0) lgkmcnt(1)``: the counters that are waited for, or all when none is."""
    values = [(name, immediate >> low & mask, mask) for name, low, mask in WAIT_COUNTERS]
    waited = [item for item in values if item[1] != item[2]] or values
    return " ".join(f"{name}({value})" for name, value, _ in waited)


def delay(immediate: int) -> str:
    """``instid0(VALU_DEP_1) | instskip(NEXT) | instid1(SALU_CYCLE_1)``."""
    parts = []
    fields = (
        ("instid0", immediate & 0xF, DELAY_KINDS, "instid"),
        ("instskip", immediate >> 4 & 0x7, DELAY_SKIPS, "instskip"),
        ("instid1", immediate >> 7 & 0xF, DELAY_KINDS, "instid"),
    )
    for name, value, names, kind in fields:
        if value:
            shown = names[value] if value < len(names) else f"/* invalid {kind} value */"
            parts.append(f"{name}({shown})")
    return " | ".join(parts) or "0"


def dependency_counters(immediate: int) -> str:
    """``depctr_va_vdst(0)``; hexadecimal when a bit outside the counters is set."""
    used = 0
    parts = []
    for name, low, mask, idle in DEPENDENCY_COUNTERS:
        used |= mask << low
        parts.append((name, immediate >> low & mask, idle))
    if immediate & ~used:
        return hex(immediate)
    waited = [item for item in parts if item[1] != item[2]] or parts
    return " ".join(f"{name}({value})" for name, value, _ in waited)


def hardware_register(immediate: int, names: Mapping[int, str]) -> str:
    """``hwreg(NAME, offset, size)`` of s_getreg and s_setreg; offset and size are left out when they mean all bits."""
    number, offset, size = immediate & 0x3F, immediate >> 6 & 0x1F, (immediate >> 11 & 0x1F) + 1
    whole = offset == 0 and size == 32
    return f"hwreg({names.get(number, number)}{'' if whole else f', {offset}, {size}'})"


def message(immediate: int, names: Mapping[int, str]) -> str:
    """``sendmsg(NAME)``, numbers when the message has no name, plain when bits are set that no message has."""
    number = immediate & 0xFF
    if number in names:
        return f"sendmsg({names[number]})"
    return f"sendmsg({number}, 0, 0)" if number == immediate else str(immediate)
