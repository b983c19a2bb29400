"""Behaviour of IP blocks, keyed on block and version, and how a card gets its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.athub_3_0 import Athub
from amdrv.emulator.models.cp_gfx_11_0 import CpGfx
from amdrv.emulator.models.gc_12_0 import CpGfx12, GfxControls12, Grbm12, Mec12
from amdrv.emulator.models.gfx_controls_11_0 import GfxControls
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.gfxhub_12_0 import Gfxhub12
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.hdp_6_0 import Hdp
from amdrv.emulator.models.hdp_7_0 import Hdp7
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.models.lsdma_6_0 import Lsdma
from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.emulator.models.mes_11_0 import Mes
from amdrv.emulator.models.mes_12_0 import Mes12
from amdrv.emulator.models.mmhub_3_0 import Mmhub
from amdrv.emulator.models.mmhub_4_1 import Mmhub41
from amdrv.emulator.models.nbif_6_3 import Nbif, Pcie
from amdrv.emulator.models.nbio_4_3 import Nbio
from amdrv.emulator.models.perfmon_11_0 import Perfmon
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.psp_14_0 import Psp14
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.models.sdma_6_0 import Sdma
from amdrv.emulator.models.sdma_7_0 import Sdma7, Sdma7Second
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.models.smu_14_0_2 import Smu14
from amdrv.emulator.models.smuio_13_0 import Smuio
from amdrv.emulator.models.thm_13_0 import Thm
from amdrv.emulator.models.umc_8_10 import Umc

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
    ("UMC", (8, 10, 0)): (Umc,),
    ("GC", (11, 0, 0)): (Gfxhub, Grbm, Rlc, Mec, CpGfx, Mes, GfxControls, Perfmon),
    ("SDMA0", (6, 0, 0)): (Sdma,),
    # Navi48. What has the same class as above behaves the same in all that is modelled of it.
    ("NBIO", (6, 3, 1)): (Nbif,),
    ("PCIE", (6, 1, 0)): (Pcie,),
    ("HDP", (7, 0, 0)): (Hdp7,),
    ("ATHUB", (4, 1, 0)): (Athub,),
    ("OSSSYS", (7, 0, 0)): (IhModel,),
    ("MMHUB", (4, 1, 0)): (Mmhub41,),
    ("MP0", (14, 0, 3)): (Psp14,),
    ("MP1", (14, 0, 3)): (Smu14,),
    ("SMUIO", (14, 0, 2)): (Smuio,),
    ("THM", (14, 0, 2)): (Thm,),
    ("LSDMA", (7, 0, 1)): (Lsdma,),
    ("GC", (12, 0, 1)): (Gfxhub12, Grbm12, Rlc, Mec12, CpGfx12, Mes12, GfxControls12, Perfmon),
    ("SDMA0", (7, 0, 1)): (Sdma7,),
    ("SDMA1", (7, 0, 1)): (Sdma7Second,),
    ("LSDMA", (6, 0, 0)): (Lsdma,),
}


def build_models(card: Card, models: list[Model]) -> None:
    """Append the models of every block instance of the card's chip to ``models``, one by one.

    Blocks without a model (video, for one) have registers that are counted as unmodelled.
    """
    for block, classes in MODELS.items():
        for entry in card.chip.ip_instances:
            if (entry.ip, entry.version) == block and not entry.harvested:
                for kind in classes:
                    models.append(kind(card, entry.instance))
