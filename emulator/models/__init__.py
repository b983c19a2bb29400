"""Behaviour of IP blocks, keyed on block and version, and how a card gets its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.athub_3_0 import Athub
from amdrv.emulator.models.cp_gfx_11_0 import CpGfx
from amdrv.emulator.models.gfx_controls_11_0 import GfxControls
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.hdp_6_0 import Hdp
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.emulator.models.mes_11_0 import Mes
from amdrv.emulator.models.mmhub_3_0 import Mmhub
from amdrv.emulator.models.nbio_4_3 import Nbio
from amdrv.emulator.models.perfmon_11_0 import Perfmon
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.models.sdma_6_0 import Sdma
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.models.smuio_13_0 import Smuio
from amdrv.emulator.models.thm_13_0 import Thm

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

# (block, version) → models, in the order in which they are built: a model may look up those before it.
MODELS: dict[tuple[str, tuple[int, int, int]], tuple[type[Model], ...]] = {
    ("NBIO", (4, 3, 0)): (Nbio,),
    ("HDP", (6, 0, 0)): (Hdp,),
    ("ATHUB", (3, 0, 0)): (Athub,),
    ("OSSSYS", (6, 0, 0)): (IhModel,),
    ("MMHUB", (3, 0, 0)): (Mmhub,),
    ("MP0", (13, 0, 0)): (Psp,),
    ("MP1", (13, 0, 0)): (Smu,),
    ("SMUIO", (13, 0, 6)): (Smuio,),
    ("THM", (13, 0, 0)): (Thm,),
    ("GC", (11, 0, 0)): (Gfxhub, Grbm, Rlc, Mec, CpGfx, Mes, GfxControls, Perfmon),
    ("SDMA0", (6, 0, 0)): (Sdma,),
}


def build_models(card: Card, models: list[Model]) -> None:
    """Append the models of every block instance of the card's chip to ``models``, one by one.

    Blocks without a model (memory controllers, video) have registers that are counted as unmodelled.
    """
    for block, classes in MODELS.items():
        for entry in card.chip.ip_instances:
            if (entry.ip, entry.version) == block and not entry.harvested:
                for kind in classes:
                    models.append(kind(card, entry.instance))
