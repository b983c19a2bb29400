#!/usr/bin/env python3
"""Writes compact register tables from the kernel's AMD register headers.

usage: generate_registers.py --source "linux-source-6.12 6.12.95-1~bpo12+1" [--chip gfx1100] LINUX_TREE OUTPUT_FOLDER

One table per header pair (``*_offset.h`` gives places, ``*_sh_mask.h`` gives fields). One register a line:

    NAME SEGMENT OFFSET[!RESET] FIELD:LO[:WIDTH] ...        a field without WIDTH is one bit wide
    NAME SEGMENT OFFSET[!RESET] =OTHER                      the same fields as the register OTHER of this table

SEGMENT indexes the block's base addresses in the discovery table, OFFSET (hex) counts dwords from that base, RESET
(hex) is the value after reset where a ``*_default.h``, or the driver itself, gives one that is not zero. Registers
reached only through an index/data pair (``ix``) and configuration-space copies (``cfg``) have no such place and are
left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DRIVER = Path("drivers/gpu/drm/amd")
HEADERS = DRIVER / "include/asic_reg"

# Header pairs that describe each chip's blocks. Another chip is another row.
CHIPS: dict[str, tuple[str, ...]] = {
    "gfx1100": (
        "gc/gc_11_0_0",
        "mmhub/mmhub_3_0_0",
        "nbio/nbio_4_3_0",
        "hdp/hdp_6_0_0",
        "oss/osssys_6_0_0",
        "mp/mp_13_0_0",
        "mp/mp_13_0_2",
        "athub/athub_3_0_0",
        "smuio/smuio_13_0_6",
        "lsdma/lsdma_6_0_0",
        "thm/thm_13_0_2",
    ),
    "gfx1201": (
        "gc/gc_12_0_0",
        "mmhub/mmhub_4_1_0",
        "nbif/nbif_6_3_1",
        "pcie/pcie_6_1_0",
        "hdp/hdp_7_0_0",
        "oss/osssys_7_0_0",
        "mp/mp_14_0_2",
        "athub/athub_4_1_0",
        "smuio/smuio_14_0_2",
        "thm/thm_14_0_2",
        "lsdma/lsdma_7_0_0",
    ),
    "gfx942": (
        "gc/gc_9_4_3",
        "mmhub/mmhub_1_8_0",
        "nbio/nbio_7_9_0",
        "hdp/hdp_4_4_2",
        "oss/osssys_4_4_2",
        "sdma/sdma_4_4_2",
        "mp/mp_13_0_6",
        "mp/mp_13_0_2",
        "athub/athub_1_8_0",
        "smuio/smuio_13_0_3",
        "thm/thm_13_0_2",
    ),
}

# Where the kernel has no default header for a version, its driver gives the values of some registers itself.
DRIVER_DEFAULTS: dict[str, tuple[str, ...]] = {
    "gc/gc_12_0_0": ("amdgpu/gfx_v12_0.c", "amdgpu/gfxhub_v12_0.c"),
    "mmhub/mmhub_4_1_0": ("amdgpu/mmhub_v4_1_0.c",),
}

# Bus interface headers repeat one function's registers for every physical and virtual function. The driver owns
# function 0; virtual function 0 stays for the registers that an SR-IOV guest flushes through.
FUNCTION_COPIES = re.compile(
    r"epf0_vf([1-9]|[12]\d|3[01])_"  # virtual functions 1 and up, every block
    r"|bif_cfg_dev\d_epf0_vf"  # configuration space of any virtual function
    r"|bif_cfg_dev\d_epf[1-9]"  # configuration space of the other physical functions (audio, USB)
    r"|bif_cfg_dev[1-9]"
)
DROPPED_BLOCKS: dict[str, re.Pattern[str]] = {"nbio": FUNCTION_COPIES, "nbif": FUNCTION_COPIES}

BLOCK_LINE = re.compile(r"//\s*addressBlock:\s*(\S+)")
DEFINE_LINE = re.compile(r"#define\s+(?:reg|mm)(\w+)\s+(0x[0-9a-fA-F]+|\d+)\s*$")
DEFAULT_LINE = re.compile(r"^#define\s+(?:reg|mm)(\w+)_DEFAULT\s+(0x[0-9a-fA-F]+)", re.MULTILINE)
MASK_LINE = re.compile(r"^#define\s+(\w+?)__(\w+)_MASK\s+(0x[0-9a-fA-F]+)", re.MULTILINE)


class Place(NamedTuple):
    """Where one register is: index of the block's base address and dword offset from it."""

    name: str
    segment: int
    offset: int


def parse_offsets(text: str, dropped: re.Pattern[str] | None) -> tuple[list[Place], list[str]]:
    """Registers of an ``*_offset.h`` header in header order, without those in address blocks matching ``dropped``.

    The second result names the registers whose header line has no base index: they cannot be placed.
    """
    offsets: dict[str, int] = {}
    segments: dict[str, int] = {}
    block = ""
    for line in text.splitlines():
        if found := BLOCK_LINE.match(line):
            block = found[1]
        elif found := DEFINE_LINE.match(line):
            name, value = found[1], int(found[2], 0)
            if name.endswith("_BASE_IDX"):
                segments[name.removesuffix("_BASE_IDX")] = value
            elif dropped is None or not dropped.search(block):
                offsets.setdefault(name, value)
    places = [Place(name, segments[name], offset) for name, offset in offsets.items() if name in segments]
    return places, sorted(offsets.keys() - segments.keys())


def parse_fields(text: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Fields of a ``*_sh_mask.h`` header: register → field → (lowest bit, width in bits).

    The mask alone gives both numbers; a few fields have a shift and no mask, and are left out for want of a width.
    """
    fields: dict[str, dict[str, tuple[int, int]]] = {}
    for found in MASK_LINE.finditer(text):
        register, field, mask = found[1], found[2], int(found[3], 16)
        lo = (mask & -mask).bit_length() - 1
        width = (mask >> lo).bit_length()
        if mask != ((1 << width) - 1) << lo:
            raise SystemExit(f"{register}.{field}: mask {mask:#x} is not one run of bits")
        fields.setdefault(register, {})[field] = (lo, width)
    return fields


def parse_defaults(path: Path) -> dict[str, int]:
    """Reset values of a ``*_default.h`` header; empty where the kernel has none for this version."""
    if not path.exists():
        return {}
    return {found[1]: int(found[2], 16) for found in DEFAULT_LINE.finditer(path.read_text(errors="replace"))}


def field_text(fields: dict[str, tuple[int, int]]) -> str:
    ordered = sorted(fields.items(), key=lambda item: item[1])
    return " ".join(f"{name}:{lo}" if width == 1 else f"{name}:{lo}:{width}" for name, (lo, width) in ordered)


def table_lines(
    places: list[Place], fields: dict[str, dict[str, tuple[int, int]]], defaults: dict[str, int]
) -> Iterator[str]:
    """Register lines by segment and offset; long field lists that repeat point to the first register with them."""
    first_with: dict[str, str] = {}
    for place in sorted(places, key=lambda p: (p.segment, p.offset)):
        text = field_text(fields.get(place.name, {}))
        owner = first_with.setdefault(text, place.name)
        if owner != place.name and len(owner) + 1 < len(text):
            text = f"={owner}"
        reset = defaults.get(place.name)
        at = f"{place.offset:x}!{reset:x}" if reset else f"{place.offset:x}"
        yield f"{place.name} {place.segment} {at} {text}".rstrip()


def write_table(linux: Path, header: str, source: str, folder: Path) -> str:
    """Generate one table; returns a line that says what was written."""
    family, name = header.split("/")
    offset_path = linux / HEADERS / f"{header}_offset.h"
    mask_path = linux / HEADERS / f"{header}_sh_mask.h"
    dropped = DROPPED_BLOCKS.get(family)
    places, homeless = parse_offsets(offset_path.read_text(errors="replace"), dropped)
    fields = parse_fields(mask_path.read_text(errors="replace"))
    default_path = linux / HEADERS / f"{header}_default.h"
    defaults = parse_defaults(default_path)
    read = [offset_path.name, mask_path.name, *([default_path.name] if defaults else [])]
    for path in DRIVER_DEFAULTS.get(header, ()):
        defaults |= parse_defaults(linux / DRIVER / path)
    head = [
        f"# {name}: NAME SEGMENT OFFSET[!RESET] FIELD:LO[:WIDTH]...",
        f"# generated by tools/generate_registers.py from {source},",
        f"# {HEADERS / family}: {', '.join(read)}",
    ]
    if header in DRIVER_DEFAULTS:
        head.append(f"# reset values: {DRIVER}: {', '.join(DRIVER_DEFAULTS[header])}")
    if dropped is not None:
        head.append(f"# left out: address blocks that match {dropped.pattern}")
    if homeless:
        head.append(f"# left out: no base index in the header: {' '.join(homeless)}")
    target = folder / f"{name}.txt"
    target.write_text("\n".join([*head, *table_lines(places, fields, defaults)]) + "\n")
    return f"{target}: {len(places)} registers, {target.stat().st_size} bytes"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("linux", type=Path, help="top of a Linux source tree")
    parser.add_argument("output", type=Path, help="folder for the tables, amdrv/facts/registers")
    parser.add_argument("--chip", choices=sorted(CHIPS), default="gfx1100")
    parser.add_argument("--source", required=True, help="package and version that the tree came from")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for header in CHIPS[arguments.chip]:
        print(write_table(arguments.linux, header, arguments.source, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
