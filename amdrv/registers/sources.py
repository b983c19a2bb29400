"""Which register table describes which block version.

A table is looked for only in blocks and versions listed here: another version may have the same names at other places,
so it is refused rather than guessed.
"""

from __future__ import annotations

from typing import NamedTuple

from amdrv.errors import Unsupported

Version = tuple[int, int, int]


class TableSource(NamedTuple):
    """Tables of one block, first match wins, and which of their names belong to it.

    ``only`` and ``without`` are name prefixes; ``{instance}`` in ``only`` stands for the block's instance number.
    """

    tables: tuple[str, ...]
    only: str = ""
    without: tuple[str, ...] = ()


# SDMA 6 lives in GC's address space and header (Linux 6.12 sdma_v6_0.c: sdma_v6_0_get_reg_offset), the PSP and the SMU
# share one header, and psp_v13_0.c uses the later header's extra mailboxes on MP0 13.0.0 too.
SOURCES: dict[tuple[str, Version], TableSource] = {
    ("GC", (11, 0, 0)): TableSource(("gc_11_0_0",), without=("SDMA0_", "SDMA1_")),
    ("SDMA0", (6, 0, 0)): TableSource(("gc_11_0_0",), only="SDMA{instance}_"),
    ("SDMA1", (6, 0, 0)): TableSource(("gc_11_0_0",), only="SDMA1_"),
    ("MMHUB", (3, 0, 0)): TableSource(("mmhub_3_0_0",)),
    ("NBIO", (4, 3, 0)): TableSource(("nbio_4_3_0",)),
    ("HDP", (6, 0, 0)): TableSource(("hdp_6_0_0",)),
    ("OSSSYS", (6, 0, 0)): TableSource(("osssys_6_0_0",)),
    ("MP0", (13, 0, 0)): TableSource(("mp_13_0_0", "mp_13_0_2"), only="MP0_"),
    ("MP1", (13, 0, 0)): TableSource(("mp_13_0_0", "mp_13_0_2"), only="MP1_"),
    ("ATHUB", (3, 0, 0)): TableSource(("athub_3_0_0",)),
    ("SMUIO", (13, 0, 6)): TableSource(("smuio_13_0_6",)),
    ("THM", (13, 0, 0)): TableSource(("thm_13_0_2",)),
}

KNOWN_BLOCKS = frozenset(block for block, _ in SOURCES)


def source_of(block: str, version: Version) -> TableSource:
    """The tables of one block version; raises Unsupported when there is none."""
    source = SOURCES.get((block, version))
    if source is None:
        known = ", ".join(_dotted(v) for name, v in SOURCES if name == block) or "none"
        raise Unsupported(f"no register table for {block} {_dotted(version)}; versions of {block} known here: {known}")
    return source


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
