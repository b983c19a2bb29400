"""MES of gfx12: one image for both pipes, each of which takes the scheduler's messages.

The second pipe is there for the kernel's own queues, the scheduler's ring among them. It takes PM4 packets, as on
gfx11, when it runs the separate image that may still be loaded there.
Sources: Linux 6.12 mes_v12_0.c (mes_v12_0_queue_init, mes_v12_0_map_legacy_queue, mes_v12_0_set_hw_resources),
mes_v12_api_def.h; Linux 6.17 mes_v12_0_inv_tlbs_pasid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amdrv.emulator.mes.messages import MESSAGES, Fields, Handler, Refused, set_hw_resources
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.models.mec_11_0 import SCHEDULER_ME, Mec
from amdrv.emulator.models.mes_11_0 import IMAGES, Mes
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.vmhub import VMIDS, VmHub
from amdrv.facts import mes_v12
from amdrv.facts.later_linux import INVALIDATE_TLBS, MES_INVALIDATE_TLBS, InvalidateBy
from amdrv.facts.mes_v12 import MiscOpcode, QueueType, SchedulerOpcode
from amdrv.registers.fields import BitLayout

if TYPE_CHECKING:
    from amdrv.emulator.pm4.queue_engine import QueueEngine, QueueId

HUBS = {0: "GC", 1: "MMHUB"}


def share_hw_resources(mes: Mes, fields: Fields) -> None:
    """Both pipes are told; only the first has anything to give to processes."""
    if fields["vmid_mask_gfxhub"]:
        set_hw_resources(mes, fields)


def invalidate_tlbs(mes: Mes, fields: Fields) -> None:
    """Forget one hub's translations of a process or a VMID; a range is invalidated as a whole address space is."""
    hub_ip = HUBS.get(fields["hub_id"])
    if hub_ip is None:
        raise Refused(f"hub {fields['hub_id']}")
    identity = fields["inv_sel_id"]
    with mes.card.lock:
        if fields["inv_sel"] == InvalidateBy.PASID:
            vmids = mes.card.model(IhModel).vmids_of(identity, of_mmhub=hub_ip == "MMHUB")
        else:
            vmids = [identity % VMIDS]
        for hub in mes.card.models(VmHub):
            if hub.ip == hub_ip:
                hub.invalidate(vmids)


LAYOUTS = {layout.name: layout for layout in vars(mes_v12).values() if isinstance(layout, BitLayout)}
MESSAGES_12: Mapping[int, tuple[BitLayout, Handler]] = {
    opcode: (LAYOUTS[layout.name], handler)
    for opcode, (layout, handler) in MESSAGES.items()
    if layout.name in LAYOUTS  # no PROGRAM_GDS
} | {
    SchedulerOpcode.SET_HW_RSRC: (mes_v12.SET_HW_RESOURCES, share_hw_resources),
    MES_INVALIDATE_TLBS: (INVALIDATE_TLBS, invalidate_tlbs),
}


class Mes12(Mes):
    """The scheduler of gfx12."""

    messages = MESSAGES_12
    misc_opcodes = frozenset(MiscOpcode)
    trace_language = "mes12"

    def schedules(self, pipe: int) -> bool:
        images = [self.card.model(Psp).loaded(kind) for kind in IMAGES]
        unified = None not in images and len({image.sha256 for image in images if image is not None}) == 1
        return pipe == 0 or unified

    def engine(self, kind: int, pipe: int) -> QueueEngine:
        return self.card.model(Mec) if kind == QueueType.SCHQ else super().engine(kind, pipe)

    def legacy_slot(self, kind: int, pipe: int, number: int) -> QueueId:
        return (SCHEDULER_ME, pipe, number) if kind == QueueType.SCHQ else super().legacy_slot(kind, pipe, number)
