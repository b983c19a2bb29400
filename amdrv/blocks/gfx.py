"""GFX 11 and 12: the graphics core, of which only the compute side is used: RLC, the compute engine (MEC), its queues.

A compute queue is a hardware queue descriptor (HQD): a bank of registers that GRBM_GFX_CNTL selects by micro engine,
pipe and queue. The memory queue descriptor (MQD) is its image in device memory. Queues are started by writing the
registers directly; no scheduler firmware takes part.

Source: Linux 6.12 gfx_v11_0.c, amdgpu_amdkfd_gfx_v11.c (hqd_load_v11, hqd_destroy_v11), soc21.c (soc21_grbm_select);
gfx_v12_0.c does the same but for what ``GfxDesign`` tells apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from amdrv.discovery import GcInfo
from amdrv.errors import InvalidArgument, Timeout
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.layout import StructLayout
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD
from amdrv.facts.mqd_v12 import V12_COMPUTE_MQD
from amdrv.mmio import Mmio
from amdrv.registers import RegisterBlock

log = logging.getLogger(__name__)

AUTOLOAD_TIMEOUT_S = 1.0  # ten times adev->usec_timeout
DEQUEUE_TIMEOUT_S = 0.5
SAFE_MODE_TIMEOUT_S = 0.1
MEC_START_DELAY_S = 50e-6  # gfx_v11_0_cp_compute_enable
SOFT_RESET_S = 1e-3

COMPUTE_ENGINE = 1  # GRBM_GFX_CNTL.MEID: 0 is the graphics engine
PIPE = 0  # queues share one pipe; the others stay off
DOORBELL_BYTES = 8
REGISTER_TIMEOUT = 0xFF  # GRBM_CNTL: clocks that a register read may take
SPM_NO_VMID = 0xF  # gfx_v11_0_rlc_init: the performance monitor streams nowhere
ALIGNMENT_UNALIGNED = 3
PREFETCH = 3  # DEFAULT_SH_MEM_CONFIG
# Windows of the flat address space, bits 63:48: LDS and scratch where the compute driver of the kernel has them.
SHARED_WINDOW = 0x1
PRIVATE_WINDOW = 0x2
DRAIN, RESET_WAVES = 1, 2  # CP_HQD_DEQUEUE_REQUEST
MQD_HEADER = 0xC0310800
EVERY_CU = 0xFFFFFFFF
MAX_EOP_SIZE_FIELD = 0xA  # kfd_mqd_manager_v11.c: update_mqd: a larger end-of-pipe ring is not clamped by the hardware


@dataclass(frozen=True, slots=True)
class GfxDesign:
    """What tells generations of the graphics core apart."""

    mqd: StructLayout  # of a compute queue
    static_masks: int  # compute_static_thread_mgmt_se0 and following that are set
    mqd_values: Mapping[str, int] = field(default_factory=dict)  # members that this generation sets besides
    golden_bits: Mapping[str, int] = field(default_factory=dict)  # register → bits to set for correct compute
    # Whether the bus manager resets the compute engine: Linux 6.12 does so on gfx11 only (gfx_v11_0_soft_reset). The
    # reset of its pipe, which every start of the engine does, has to be enough elsewhere.
    resets_through_grbm: bool = False


# By the version of GC. gfx12 has golden values for the graphics pipes only (golden_settings_gc_12_0).
DESIGNS: dict[tuple[int, int, int], GfxDesign] = {
    (11, 0, 0): GfxDesign(
        mqd=V11_COMPUTE_MQD,
        static_masks=8,
        golden_bits={"TCP_CNTL": 0x20000000},  # golden_settings_gc_11_0
        resets_through_grbm=True,
    ),
    (12, 0, 1): GfxDesign(
        mqd=V12_COMPUTE_MQD,
        static_masks=4,  # gfx_v12_0_compute_mqd_init
        mqd_values={"compute_misc_reserved": 0x7},
    ),
}
GFX11 = DESIGNS[11, 0, 0]

# HQD registers in the order in which gfx_v11_0_kiq_init_register writes them, with what hqd_load_v11 adds, and their
# MQD members.
HQD_REGISTERS: tuple[tuple[str, str], ...] = (
    ("CP_HQD_EOP_BASE_ADDR", "cp_hqd_eop_base_addr_lo"),
    ("CP_HQD_EOP_BASE_ADDR_HI", "cp_hqd_eop_base_addr_hi"),
    ("CP_HQD_EOP_CONTROL", "cp_hqd_eop_control"),
    ("CP_MQD_BASE_ADDR", "cp_mqd_base_addr_lo"),
    ("CP_MQD_BASE_ADDR_HI", "cp_mqd_base_addr_hi"),
    ("CP_MQD_CONTROL", "cp_mqd_control"),
    ("CP_HQD_PQ_BASE", "cp_hqd_pq_base_lo"),
    ("CP_HQD_PQ_BASE_HI", "cp_hqd_pq_base_hi"),
    ("CP_HQD_PQ_CONTROL", "cp_hqd_pq_control"),
    ("CP_HQD_PQ_RPTR_REPORT_ADDR", "cp_hqd_pq_rptr_report_addr_lo"),
    ("CP_HQD_PQ_RPTR_REPORT_ADDR_HI", "cp_hqd_pq_rptr_report_addr_hi"),
    ("CP_HQD_PQ_WPTR_POLL_ADDR", "cp_hqd_pq_wptr_poll_addr_lo"),
    ("CP_HQD_PQ_WPTR_POLL_ADDR_HI", "cp_hqd_pq_wptr_poll_addr_hi"),
    ("CP_HQD_PQ_DOORBELL_CONTROL", "cp_hqd_pq_doorbell_control"),
    ("CP_HQD_PQ_RPTR", "cp_hqd_pq_rptr"),
    ("CP_HQD_PQ_WPTR_LO", "cp_hqd_pq_wptr_lo"),
    ("CP_HQD_PQ_WPTR_HI", "cp_hqd_pq_wptr_hi"),
    ("CP_HQD_VMID", "cp_hqd_vmid"),
    ("CP_HQD_PERSISTENT_STATE", "cp_hqd_persistent_state"),
    ("CP_HQD_PIPE_PRIORITY", "cp_hqd_pipe_priority"),
    ("CP_HQD_QUEUE_PRIORITY", "cp_hqd_queue_priority"),
    ("CP_HQD_QUANTUM", "cp_hqd_quantum"),
    ("CP_HQD_IB_CONTROL", "cp_hqd_ib_control"),
    ("CP_HQD_EOP_RPTR", "cp_hqd_eop_rptr"),
    ("CP_HQD_ACTIVE", "cp_hqd_active"),
)


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """What a compute queue is made of. Sizes are powers of two, addresses GPU virtual addresses of VMID 0."""

    ring_va: int
    ring_bytes: int
    rptr_va: int  # where the engine reports how far it has read
    wptr_va: int  # where the engine may look how far the ring is written
    eop_va: int  # the engine's own list of events at the end of the pipe
    eop_bytes: int
    mqd_address: int
    doorbell: int  # number of a 64-bit doorbell

    def __post_init__(self) -> None:
        for what, size_bytes, least in (("ring", self.ring_bytes, 1024), ("event list", self.eop_bytes, 1024)):
            if size_bytes < least or size_bytes & (size_bytes - 1):
                raise InvalidArgument(f"queue {what} of {size_bytes} bytes: a power of two from {least} on is needed")
        for what, va, align in (
            ("ring", self.ring_va, 256),
            ("event list", self.eop_va, 256),
            ("read pointer", self.rptr_va, 4),
            ("write pointer", self.wptr_va, 8),
        ):
            if va % align:
                raise InvalidArgument(f"queue {what} at {va:#x} is not aligned to {align} bytes")


# gfx_v11_0_compute_mqd_init; shader masks and quantum as kfd_mqd_manager_v11.c: init_mqd
def compute_mqd(gc: RegisterBlock, spec: QueueSpec, design: GfxDesign = GFX11) -> bytearray:
    """The memory queue descriptor of a PM4 queue."""
    doorbell_dword = spec.doorbell * DOORBELL_BYTES // 4
    eop_field = min((spec.eop_bytes // 4).bit_length() - 2, MAX_EOP_SIZE_FIELD)

    def starting_from_reset(name: str, **fields: int) -> int:
        register = gc[name]
        return int(register.decode(register.reset_value).replace(**fields))

    return design.mqd.pack(
        header=MQD_HEADER,
        compute_pipelinestat_enable=1,
        **{f"compute_static_thread_mgmt_se{se}": EVERY_CU for se in range(design.static_masks)},
        **design.mqd_values,
        cp_mqd_base_addr_lo=spec.mqd_address & 0xFFFFFFFC,
        cp_mqd_base_addr_hi=spec.mqd_address >> 32,
        cp_mqd_control=starting_from_reset("CP_MQD_CONTROL", VMID=0),
        cp_hqd_vmid=0,
        cp_hqd_persistent_state=starting_from_reset("CP_HQD_PERSISTENT_STATE", PRELOAD_SIZE=0x55),
        cp_hqd_pipe_priority=2,  # AMDGPU_GFX_PIPE_PRIO_HIGH
        cp_hqd_queue_priority=15,  # AMDGPU_GFX_QUEUE_PRIORITY_MAXIMUM
        cp_hqd_quantum=gc.CP_HQD_QUANTUM.encode(QUANTUM_EN=1, QUANTUM_SCALE=1, QUANTUM_DURATION=1),
        cp_hqd_pq_base_lo=spec.ring_va >> 8 & 0xFFFFFFFF,
        cp_hqd_pq_base_hi=spec.ring_va >> 40,
        cp_hqd_pq_rptr_report_addr_lo=spec.rptr_va & 0xFFFFFFFC,
        cp_hqd_pq_rptr_report_addr_hi=spec.rptr_va >> 32 & 0xFFFF,
        cp_hqd_pq_wptr_poll_addr_lo=spec.wptr_va & 0xFFFFFFFC,
        cp_hqd_pq_wptr_poll_addr_hi=spec.wptr_va >> 32 & 0xFFFF,
        cp_hqd_pq_doorbell_control=gc.CP_HQD_PQ_DOORBELL_CONTROL.encode(DOORBELL_OFFSET=doorbell_dword, DOORBELL_EN=1),
        cp_hqd_pq_control=starting_from_reset(
            "CP_HQD_PQ_CONTROL",
            QUEUE_SIZE=(spec.ring_bytes // 4).bit_length() - 2,  # 2 << field dwords
            RPTR_BLOCK_SIZE=5,  # the read pointer is reported every 64 dwords
            UNORD_DISPATCH=1,
            TUNNEL_DISPATCH=0,
            PRIV_STATE=1,
            KMD_QUEUE=1,
        ),
        cp_hqd_ib_control=starting_from_reset("CP_HQD_IB_CONTROL", MIN_IB_AVAIL_SIZE=3),
        cp_hqd_eop_base_addr_lo=spec.eop_va >> 8 & 0xFFFFFFFF,
        cp_hqd_eop_base_addr_hi=spec.eop_va >> 40,
        cp_hqd_eop_control=starting_from_reset("CP_HQD_EOP_CONTROL", EOP_SIZE=eop_field),
        cp_hqd_eop_rptr=gc.CP_HQD_EOP_RPTR.encode(INIT_FETCHER=1),
        cp_hqd_active=1,
    )


class Gfx:
    """The compute side of one card's graphics core."""

    def __init__(self, mmio: Mmio, design: GfxDesign = GFX11) -> None:
        self._mmio = mmio
        self._regs = mmio.registers.block("GC")
        self.design = design

    # gfx_v11_0_wait_for_rlc_autoload_complete
    def wait_for_autoload(self) -> None:
        """Wait until the RLC has given every engine its firmware."""
        regs = self._regs
        self._mmio.wait_fields(
            regs.RLC_RLCS_BOOTLOAD_STATUS, AUTOLOAD_TIMEOUT_S, "RLC autoload to complete", BOOTLOAD_COMPLETE=1
        )
        self._mmio.wait(regs.CP_STAT, 0xFFFFFFFF, 0, AUTOLOAD_TIMEOUT_S, "the command processor to be idle")

    # gfx_v11_0_hw_init: golden registers, constants_init, rlc_resume, cp_set_doorbell_range; gfx_v11_0_late_init
    def configure(self) -> None:
        """What holds until the next reset.

        Left out of the kernel's sequence: everything of the graphics engine (clear state, render backends, its
        doorbells), other VMIDs, and clock gating, which saves power and changes nothing else.
        """
        regs = self._regs
        mmio = self._mmio
        for name, bits in self.design.golden_bits.items():
            mmio.write(regs[name], int(mmio.read(regs[name])) | bits)
        mmio.write(regs.GRBM_CNTL, READ_TIMEOUT=REGISTER_TIMEOUT)
        with self._selected():
            mmio.write(
                regs.SH_MEM_CONFIG, ALIGNMENT_MODE=ALIGNMENT_UNALIGNED, INITIAL_INST_PREFETCH=PREFETCH, ADDRESS_MODE=0
            )
            mmio.write(regs.SH_MEM_BASES, SHARED_BASE=SHARED_WINDOW, PRIVATE_BASE=PRIVATE_WINDOW)
        mmio.update(regs.RLC_SRM_CNTL, SRM_ENABLE=1, AUTO_INCR_ADDR=1)
        mmio.write(regs.RLC_SPM_MC_CNTL, RLC_SPM_VMID=SPM_NO_VMID)
        mmio.write(regs.CP_MEC_DOORBELL_RANGE_LOWER, Doorbell.KIQ * DOORBELL_BYTES)
        mmio.write(regs.CP_MEC_DOORBELL_RANGE_UPPER, Doorbell.USERQUEUE_END * DOORBELL_BYTES)
        mmio.write(regs.CP_PQ_STATUS, DOORBELL_ENABLE=1)
        mmio.write(
            regs.CP_ME1_PIPE0_INT_CNTL,
            TIME_STAMP_INT_ENABLE=1,
            GENERIC0_INT_ENABLE=1,
            PRIV_REG_INT_ENABLE=1,
            OPCODE_ERROR_INT_ENABLE=1,
        )

    # gfx_v11_0_config_gfx_rs64, gfx_v11_0_cp_compute_enable
    def start_mec(self, start_address: int) -> None:
        """Let the compute engine run its firmware from ``start_address``.

        The kernel starts four pipes. Here only pipe 0 has queues and, with the shorter firmware plan, a data image.
        The control register is wholly ours, so it is written without being read.
        """
        regs, mmio = self._regs, self._mmio
        with self._selected(engine=COMPUTE_ENGINE, pipe=PIPE):
            mmio.write_pair(
                regs.CP_MEC_RS64_PRGRM_CNTR_START, regs.CP_MEC_RS64_PRGRM_CNTR_START_HI, start_address >> 2
            )
        mmio.write(regs.CP_MEC_RS64_CNTL, MEC_HALT=1, MEC_PIPE0_RESET=1)
        mmio.write(regs.CP_MEC_RS64_CNTL, MEC_HALT=1)
        mmio.write(regs.CP_MEC_RS64_CNTL, MEC_PIPE0_ACTIVE=1)
        mmio.function.sleep(MEC_START_DELAY_S)

    def mec_runs(self) -> bool:
        """Whether the compute engine is started and its firmware was loaded; two reads."""
        control = self._mmio.read(self._regs.CP_MEC_RS64_CNTL)
        if not control.MEC_PIPE0_ACTIVE or control.MEC_HALT or control.MEC_PIPE0_RESET:
            return False
        return bool(self._mmio.read(self._regs.RLC_RLCS_BOOTLOAD_STATUS).BOOTLOAD_COMPLETE)

    # gfx_v11_0_get_cu_info, gfx_v11_0_get_sa_active_bitmap, gfx_v11_0_get_wgp_active_bitmap_per_sh
    def count_compute_units(self, info: GcInfo) -> int:
        """Compute units that are not fused off.

        The registers with which a driver switches more of them off are zero after a reset and not read.
        """
        regs, mmio = self._regs, self._mmio
        disabled_arrays = mmio.read(regs.CC_GC_SA_UNIT_DISABLE).SA_DISABLE
        wgps = info.cus_per_array // 2
        active = 0
        for engine in range(info.shader_engines):
            for array in range(info.arrays_per_engine):
                if disabled_arrays >> (engine * info.arrays_per_engine + array) & 1:
                    continue
                mmio.write(regs.GRBM_GFX_INDEX, SE_INDEX=engine, SA_INDEX=array, INSTANCE_BROADCAST_WRITES=1)
                inactive = mmio.read(regs.CC_GC_SHADER_ARRAY_CONFIG).INACTIVE_WGPS
                active += 2 * (wgps - (inactive & ((1 << wgps) - 1)).bit_count())
        mmio.write(
            regs.GRBM_GFX_INDEX, SE_BROADCAST_WRITES=1, SA_BROADCAST_WRITES=1, INSTANCE_BROADCAST_WRITES=1
        )
        return active

    # gfx_v11_0_kiq_init_register, hqd_load_v11
    def load_queue(self, queue: int, mqd: bytes | bytearray) -> None:
        """Load a queue's registers from its descriptor; the last of them makes it live."""
        with self._selected(engine=COMPUTE_ENGINE, pipe=PIPE, queue=queue):
            for name, member in HQD_REGISTERS:
                self._mmio.write(self._regs[name], self.design.mqd.get(mqd, member))

    # hqd_destroy_v11, mes_v11_0_kiq_dequeue
    def unload_queue(self, queue: int) -> None:
        """Let a queue finish what runs and take it off the hardware. Raises Timeout when it does not end."""
        with self._selected(engine=COMPUTE_ENGINE, pipe=PIPE, queue=queue):
            self._dequeue(queue, DRAIN)

    # gfx_v11_0_reset_kcq
    def reset_queue(self, queue: int) -> None:
        """Kill a queue's waves and take it off the hardware. Raises Timeout when even that does not end it."""
        with self._safe_mode(), self._selected(engine=COMPUTE_ENGINE, pipe=PIPE, queue=queue):
            self._dequeue(queue, RESET_WAVES)
        log.info("compute queue %d was reset", queue)

    # gfx_v11_0_soft_reset, the part for the compute engine
    def reset_mec(self, start_address: int) -> None:
        """Reset the command processor's compute side and start it again; every queue on it is gone."""
        regs, mmio = self._regs, self._mmio
        if self.design.resets_through_grbm:
            mmio.write(regs.GRBM_SOFT_RESET, SOFT_RESET_CP=1, SOFT_RESET_CPC=1)
            mmio.read(regs.GRBM_SOFT_RESET)  # posts the write before the delay begins
            mmio.function.sleep(SOFT_RESET_S)
            mmio.write(regs.GRBM_SOFT_RESET, 0)
            mmio.read(regs.GRBM_SOFT_RESET)
        mmio.update(regs.CP_SOFT_RESET_CNTL, CMP_HQD_REG_RESET=1)
        self.start_mec(start_address)

    def _dequeue(self, queue: int, how: int) -> None:
        regs, mmio = self._regs, self._mmio
        if mmio.read(regs.CP_HQD_ACTIVE).ACTIVE:
            mmio.write(regs.CP_HQD_DEQUEUE_REQUEST, how)
            if how == RESET_WAVES:
                mmio.write(regs.SPI_COMPUTE_QUEUE_RESET, 1)
            mmio.wait_fields(
                regs.CP_HQD_ACTIVE,
                DEQUEUE_TIMEOUT_S,
                f"compute queue {queue} to leave the hardware",
                hint="its waves do not end",
                ACTIVE=0,
            )
        mmio.write(regs.CP_HQD_PQ_DOORBELL_CONTROL, 0)
        mmio.write(regs.CP_HQD_PQ_RPTR, 0)
        mmio.write(regs.CP_HQD_PQ_WPTR_LO, 0)
        mmio.write(regs.CP_HQD_PQ_WPTR_HI, 0)

    # soc21_grbm_select
    @contextmanager
    def _selected(self, engine: int = 0, pipe: int = 0, queue: int = 0, vmid: int = 0) -> Iterator[None]:
        """Select which bank the banked registers show; bank 0 again afterwards."""
        control = self._regs.GRBM_GFX_CNTL
        self._mmio.write(control, MEID=engine, PIPEID=pipe, QUEUEID=queue, VMID=vmid)
        try:
            yield
        finally:
            self._mmio.write(control, 0)

    # gfx_v11_0_set_safe_mode, gfx_v11_0_unset_safe_mode
    @contextmanager
    def _safe_mode(self) -> Iterator[None]:
        """Keep the RLC from gating clocks and power meanwhile. Its answer is waited for, but not depended on."""
        regs, mmio = self._regs, self._mmio
        mmio.write(regs.RLC_SAFE_MODE, CMD=1, MESSAGE=1)
        try:
            mmio.wait_fields(regs.RLC_SAFE_MODE, SAFE_MODE_TIMEOUT_S, "the RLC to enter safe mode", CMD=0)
        except Timeout as error:
            log.warning("%s", error)
        try:
            yield
        finally:
            mmio.write(regs.RLC_SAFE_MODE, CMD=1)
