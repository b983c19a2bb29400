"""MES of gfx12: one image for both pipes, each of which takes the scheduler's messages.

The second pipe is there for the kernel's own queues, the scheduler's ring among them. It takes PM4 packets, as on
gfx11, when it runs the separate image that may still be loaded there.
Sources: Linux 6.12 mes_v12_0.c (mes_v12_0_queue_init, mes_v12_0_map_legacy_queue, mes_v12_0_set_hw_resources),
mes_v12_api_def.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amdrv.emulator.mes.messages import MESSAGES, Fields, Handler, set_hw_resources
from amdrv.emulator.models.mec_11_0 import SCHEDULER_ME, Mec
from amdrv.emulator.models.mes_11_0 import IMAGES, Mes
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.facts import mes_v12
from amdrv.facts.mes_v12 import MiscOpcode, QueueType, SchedulerOpcode
from amdrv.registers.fields import BitLayout

if TYPE_CHECKING:
    from amdrv.emulator.pm4.queue_engine import QueueEngine, QueueId
    from amdrv.emulator.shell import Card

# Which doorbells wake the scheduler that belong to no mapped queue. It has no effect here: a place is given away when
# a message leaves one free.
PLAIN = (
    "CP_UNMAPPED_DOORBELL",
    "CP_MES_DOORBELL_CONTROL1",
    "CP_MES_DOORBELL_CONTROL2",
    "CP_MES_DOORBELL_CONTROL3",
    "CP_MES_DOORBELL_CONTROL4",
    "CP_MES_DOORBELL_CONTROL5",
)


def share_hw_resources(mes: Mes, fields: Fields) -> None:
    """Both pipes are told; only the first has anything to give to processes."""
    if fields["vmid_mask_gfxhub"]:
        set_hw_resources(mes, fields)


LAYOUTS = {layout.name: layout for layout in vars(mes_v12).values() if isinstance(layout, BitLayout)}
MESSAGES_12: Mapping[int, tuple[BitLayout, Handler]] = {
    opcode: (LAYOUTS[layout.name], handler)
    for opcode, (layout, handler) in MESSAGES.items()
    if layout.name in LAYOUTS  # no PROGRAM_GDS
} | {SchedulerOpcode.SET_HW_RSRC: (mes_v12.SET_HW_RESOURCES, share_hw_resources)}


class Mes12(Mes):
    """The scheduler of gfx12."""

    messages = MESSAGES_12
    misc_opcodes = frozenset(MiscOpcode)
    trace_language = "mes12"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in PLAIN:
            self.claim(name, reset=self.register(name).reset_value)

    def schedules(self, pipe: int) -> bool:
        images = [self.card.model(Psp).loaded(kind) for kind in IMAGES]
        unified = None not in images and len({image.sha256 for image in images if image is not None}) == 1
        return pipe == 0 or unified

    def engine(self, kind: int, pipe: int) -> QueueEngine:
        return self.card.model(Mec) if kind == QueueType.SCHQ else super().engine(kind, pipe)

    def legacy_slot(self, kind: int, pipe: int, number: int) -> QueueId:
        return (SCHEDULER_ME, pipe, number) if kind == QueueType.SCHQ else super().legacy_slot(kind, pipe, number)
