"""Which processor a code object is for: the e_flags of an ELF header and target ids such as ``gfx90a:xnack+``.

Source: LLVM 22 BinaryFormat/ELF.h (EF_AMDGPU_*), AMDGPUUsage "Target ID" and "ELF Header".
"""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.errors import MalformedInput, Unsupported

MACH_MASK = 0xFF
XNACK_V3, SRAMECC_V3 = 0x100, 0x200
XNACK_SHIFT_V4, SRAMECC_SHIFT_V4 = 8, 10  # two bits each: 0 not supported, 1 any, 2 off, 3 on

# EF_AMDGPU_MACH_AMDGCN_*
MACH_NAMES: dict[int, str] = {
    0x020: "gfx600",
    0x021: "gfx601",
    0x022: "gfx700",
    0x023: "gfx701",
    0x024: "gfx702",
    0x025: "gfx703",
    0x026: "gfx704",
    0x028: "gfx801",
    0x029: "gfx802",
    0x02A: "gfx803",
    0x02B: "gfx810",
    0x02C: "gfx900",
    0x02D: "gfx902",
    0x02E: "gfx904",
    0x02F: "gfx906",
    0x030: "gfx908",
    0x031: "gfx909",
    0x032: "gfx90c",
    0x033: "gfx1010",
    0x034: "gfx1011",
    0x035: "gfx1012",
    0x036: "gfx1030",
    0x037: "gfx1031",
    0x038: "gfx1032",
    0x039: "gfx1033",
    0x03A: "gfx602",
    0x03B: "gfx705",
    0x03C: "gfx805",
    0x03D: "gfx1035",
    0x03E: "gfx1034",
    0x03F: "gfx90a",
    0x040: "gfx940",
    0x041: "gfx1100",
    0x042: "gfx1013",
    0x043: "gfx1150",
    0x044: "gfx1103",
    0x045: "gfx1036",
    0x046: "gfx1101",
    0x047: "gfx1102",
    0x048: "gfx1200",
    0x049: "gfx1250",
    0x04A: "gfx1151",
    0x04B: "gfx941",
    0x04C: "gfx942",
    0x04E: "gfx1201",
    0x04F: "gfx950",
    0x051: "gfx9-generic",
    0x052: "gfx10-1-generic",
    0x053: "gfx10-3-generic",
    0x054: "gfx11-generic",
    0x055: "gfx1152",
    0x058: "gfx1153",
    0x059: "gfx12-generic",
    0x05A: "gfx1251",
    0x05F: "gfx9-4-generic",
}

# A generic code object runs on every processor of its row.
GENERIC_TARGETS: dict[str, frozenset[str]] = {
    "gfx9-generic": frozenset({"gfx900", "gfx902", "gfx904", "gfx906", "gfx909", "gfx90c"}),
    "gfx9-4-generic": frozenset({"gfx940", "gfx941", "gfx942", "gfx950"}),
    "gfx10-1-generic": frozenset({"gfx1010", "gfx1011", "gfx1012", "gfx1013"}),
    "gfx10-3-generic": frozenset({"gfx1030", "gfx1031", "gfx1032", "gfx1033", "gfx1034", "gfx1035", "gfx1036"}),
    "gfx11-generic": frozenset(
        {"gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"}
    ),
    "gfx12-generic": frozenset({"gfx1200", "gfx1201"}),
}

# Processors whose page faults can be replayed (XNACK) and whose SRAM has error correction that code depends on.
XNACK_CAPABLE = frozenset(
    {"gfx801", "gfx810", "gfx900", "gfx902", "gfx904", "gfx906", "gfx908", "gfx909", "gfx90a", "gfx90c"}
    | {"gfx940", "gfx941", "gfx942", "gfx950", "gfx1010", "gfx1011", "gfx1012", "gfx1013"}
)
SRAMECC_CAPABLE = frozenset({"gfx906", "gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx950"})


@dataclass(frozen=True, slots=True)
class Target:
    """A processor with the two settings that machine code can depend on; None means "works with either"."""

    processor: str
    xnack: bool | None = None
    sramecc: bool | None = None

    def __str__(self) -> str:
        text = self.processor
        if self.sramecc is not None:
            text += f":sramecc{'+' if self.sramecc else '-'}"
        if self.xnack is not None:
            text += f":xnack{'+' if self.xnack else '-'}"
        return text

    @property
    def generic(self) -> bool:
        """Whether this stands for a family of processors."""
        return self.processor in GENERIC_TARGETS

    def runs_on(self, arch: str) -> bool:
        """Whether code for this target runs on a device of architecture ``arch`` with XNACK and SRAM-ECC off."""
        if (self.xnack and arch not in XNACK_CAPABLE) or (self.sramecc and arch not in SRAMECC_CAPABLE):
            return False
        return arch == self.processor or arch in GENERIC_TARGETS.get(self.processor, frozenset())


def from_flags(e_flags: int, code_object_version: int) -> Target:
    """Target of an ELF header. Raises MalformedInput for a machine number that no LLVM release assigned."""
    name = MACH_NAMES.get(e_flags & MACH_MASK)
    if name is None:
        raise MalformedInput(f"code object: e_flags {e_flags:#x} name no AMD processor (mach {e_flags & MACH_MASK:#x})")
    if code_object_version == 3:
        # Version 3 has one bit each, and absence says "off" only for a processor that has the feature.
        xnack = bool(e_flags & XNACK_V3) if name in XNACK_CAPABLE or e_flags & XNACK_V3 else None
        sramecc = bool(e_flags & SRAMECC_V3) if name in SRAMECC_CAPABLE or e_flags & SRAMECC_V3 else None
        return Target(name, xnack, sramecc)
    settings = (None, None, False, True)
    return Target(name, settings[e_flags >> XNACK_SHIFT_V4 & 3], settings[e_flags >> SRAMECC_SHIFT_V4 & 3])


def from_text(text: str) -> Target:
    """Parse a target id such as ``gfx942:sramecc+:xnack-``. Raises MalformedInput for an unknown feature."""
    processor, *features = text.split(":")
    found: dict[str, bool] = {}
    for feature in features:
        name, sign = feature[:-1], feature[-1:]
        if name not in ("xnack", "sramecc") or sign not in ("+", "-"):
            raise MalformedInput(f"target id {text!r}: {feature!r} is not xnack+/- or sramecc+/-")
        found[name] = sign == "+"
    return Target(processor, found.get("xnack"), found.get("sramecc"))


def require(target: Target, arch: str, what: str) -> None:
    """Raise Unsupported, naming both sides, unless ``target`` runs on ``arch``."""
    if not target.runs_on(arch):
        raise Unsupported(f"{what} is for {target}, the device is {arch}; compile it for {arch}")
