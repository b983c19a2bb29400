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
    ``renamed`` are (prefix elsewhere, prefix here) pairs for registers that other versions of the block know by another
    name: asked for by that name, they are found under the one that this version's header gives them.
    """

    tables: tuple[str, ...]
    only: str = ""
    without: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


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
    ("LSDMA", (6, 0, 0)): TableSource(("lsdma_6_0_0",)),
    # Navi48. Linux 6.12 gfx_v12_0.c, gfxhub_v12_0.c, mmhub_v4_1_0.c, psp_v14_0.c, nbif_v6_3_1.c and sdma_v7_0.c use the
    # names on the right where their predecessors use those on the left.
    ("GC", (12, 0, 1)): TableSource(
        ("gc_12_0_0",),
        without=("SDMA0_", "SDMA1_"),
        renamed=(
            ("GCVM_L2_PROTECTION_FAULT_STATUS", "GCVM_L2_PROTECTION_FAULT_STATUS_LO32"),
            ("CC_GC_SA_UNIT_DISABLE", "GRBM_CC_GC_SA_UNIT_DISABLE"),
            ("GC_USER_SA_UNIT_DISABLE", "GRBM_GC_USER_SA_UNIT_DISABLE"),
            ("CP_PERFMON_CNTL", "CP_PERFMON_CNTL_1"),
        ),
    ),
    ("SDMA0", (7, 0, 1)): TableSource(("gc_12_0_0",), only="SDMA0_", renamed=(("SDMA0_F32_CNTL", "SDMA0_MCU_CNTL"),)),
    ("SDMA1", (7, 0, 1)): TableSource(("gc_12_0_0",), only="SDMA1_", renamed=(("SDMA1_F32_CNTL", "SDMA1_MCU_CNTL"),)),
    ("MMHUB", (4, 1, 0)): TableSource(
        ("mmhub_4_1_0",), renamed=(("MMVM_L2_PROTECTION_FAULT_STATUS", "MMVM_L2_PROTECTION_FAULT_STATUS_LO32"),)
    ),
    ("NBIO", (6, 3, 1)): TableSource(
        ("nbif_6_3_1",), renamed=(("S2A_DOORBELL_ENTRY_", "GDC_S2A0_S2A_DOORBELL_ENTRY_"),)
    ),
    ("PCIE", (6, 1, 0)): TableSource(("pcie_6_1_0",)),
    ("HDP", (7, 0, 0)): TableSource(("hdp_7_0_0",)),
    ("OSSSYS", (7, 0, 0)): TableSource(("osssys_7_0_0",)),
    ("MP0", (14, 0, 3)): TableSource(("mp_14_0_2",), only="MPASP_", renamed=(("MP0_SMN_", "MPASP_SMN_"),)),
    ("MP1", (14, 0, 3)): TableSource(("mp_14_0_2",), only="MP1_"),
    ("ATHUB", (4, 1, 0)): TableSource(("athub_4_1_0",)),
    ("SMUIO", (14, 0, 2)): TableSource(("smuio_14_0_2",)),
    ("THM", (14, 0, 2)): TableSource(("thm_14_0_2",)),
    ("LSDMA", (7, 0, 1)): TableSource(("lsdma_7_0_0",)),
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
