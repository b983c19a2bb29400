"""NBIF 6.3.1, the bus interface of Navi4x, and PCIE 6.1.0, the link's controller, which is a block of its own here.

Source: Linux 6.12 nbif_v6_3_1.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.nbio_4_3 import PLAIN, Nbio

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

# Link power management: nbif_v6_3_1_program_aspm.
LINK_CONTROLS = (
    "PCIE_LC_CNTL",
    "PCIE_LC_CNTL2",
    "PCIE_LC_CNTL3",
    "PCIE_LC_CNTL4",
    "PCIE_LC_CNTL7",
    "PCIE_LC_RXRECOVER_RXSTANDBY_CNTL",
)


class Nbif(Nbio):
    """The bus interface of Navi4x."""

    plain = tuple(name for name in PLAIN if not name.startswith(("PCIE_", "CPM_", "PSWUSP")))


class Pcie(Model):
    """The controller of the link."""

    ip = "PCIE"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in LINK_CONTROLS:
            self.claim(name)
