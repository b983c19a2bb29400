"""A card whose engines run, set up through registers, memory and doorbells as Linux does it, without any driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.config_space import CAP_MSI
from amdrv.emulator.models.mec_11_0 import MQD_HEADER, Mec
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.psp_images import LoadedImage
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.shell import Card
from amdrv.facts import mes_v11, mes_v12, pm4
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.ih import ENTRY, ENTRY_BYTES
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD
from amdrv.facts.psp import FwType
from amdrv.registers import Register
from amdrv.registers.fields import BitLayout

WAIT_S = 10.0
IH_RING_BYTES = 4096
ENGINE_IMAGES = (
    FwType.CP_MES,
    FwType.CP_MES_KIQ,
    FwType.RS64_PFP,
    FwType.RS64_ME,
    FwType.RS64_MEC,
    FwType.SDMA_UCODE_TH0,
    FwType.SDMA_UCODE_TH1,
)
MES_VERSION = 0x80
KIQ, SCHEDULER = (3, 1, 0), (3, 0, 0)


class Memory:
    """Places in device memory, one page or more each, handed out once."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._next = 0x10_0000

    def take(self, size_bytes: int = 4096) -> int:
        """VRAM offset of cleared memory, aligned to 64 KiB."""
        offset, self._next = self._next, self._next + (size_bytes + 0xFFFF & ~0xFFFF)
        return offset

    def put(self, offset: int, words: Iterable[int]) -> None:
        data = b"".join(word.to_bytes(4, "little") for word in words)
        self._card.vram_view(offset, len(data))[:] = data

    def word(self, offset: int, size_bytes: int = 4) -> int:
        return int.from_bytes(self._card.vram_view(offset, size_bytes), "little")


class RingBuffer:
    """A ring as a driver keeps it: buffer, write pointer in memory, doorbell."""

    def __init__(self, rig: Rig, doorbell_dword: int, size_dwords: int = 256, unit_bytes: int = 1) -> None:
        self.rig = rig
        self.doorbell_dword = doorbell_dword
        self.size_dwords = size_dwords
        self.unit_bytes = unit_bytes  # of the write pointer: 1 for dwords, 4 where it counts bytes
        self.ring = rig.memory.take(4 * size_dwords)
        self.rptr = rig.memory.take()
        self.wptr_copy = rig.memory.take()
        self.wptr = 0  # dwords

    def write(self, *packets: Iterable[int]) -> None:
        """Packets into the ring, and the write pointer into its place in memory; no doorbell."""
        for packet in packets:
            for word in packet:
                self.rig.memory.put(self.ring + 4 * (self.wptr % self.size_dwords), (word,))
                self.wptr += 1
        pointer = self.wptr * self.unit_bytes
        self.rig.memory.put(self.wptr_copy, (pointer & 0xFFFF_FFFF, pointer >> 32))

    def ring_doorbell(self) -> None:
        self.rig.card.write_doorbell(4 * self.doorbell_dword, 8, self.wptr * self.unit_bytes)

    def submit(self, *packets: Iterable[int]) -> None:
        self.write(*packets)
        self.ring_doorbell()


class Rig:
    """A card past firmware loading."""

    def __init__(self, arch: str = "gfx1100") -> None:
        self.card = Card("test", CHIPS[arch], vram_bytes=64 << 20)
        self.fb = self.card.chip.fb_base
        self.memory = Memory(self.card)
        psp = self.card.model(Psp)
        for kind in ENGINE_IMAGES:
            psp._commands.images[kind] = LoadedImage(kind, kind.name, MES_VERSION, 4096, bytes(32), 0)
        self.card.model(Rlc).autoload()
        self.card.sleep(0.1)
        self.card.write_config(4, 2, 0x6)
        self._route_doorbells()
        self._start_interrupts()

    # -- access -------------------------------------------------------------------------------------------------------

    def register(self, name: str) -> Register:
        """A register by name ("CP_HQD_ACTIVE" of GC, or "OSSSYS.IH_RB_CNTL")."""
        block, _, short = name.rpartition(".")
        return self.card.registers.block(block or "GC")[short]

    def sdma(self, instance: int, name: str) -> Register:
        return self.card.registers.block("SDMA0", instance)[f"SDMA{instance}_{name}"]

    def write(self, name: str, value: int) -> None:
        self.card.write_register(self.register(name).address, value)

    def read(self, name: str) -> int:
        return self.card.read_register(self.register(name).address)

    def select(self, me: int, pipe: int, queue: int = 0, vmid: int = 0) -> None:
        """GRBM_GFX_CNTL, as soc21_grbm_select."""
        value = self.register("GRBM_GFX_CNTL").encode(MEID=me, PIPEID=pipe, QUEUEID=queue, VMID=vmid)
        self.write("GRBM_GFX_CNTL", value)

    def mc(self, offset: int) -> int:
        """MC address of a VRAM offset."""
        return self.fb + offset

    def wait(self, check: Callable[[], bool]) -> bool:
        """Whether a condition came true within a few seconds of wall time."""
        deadline = time.monotonic() + WAIT_S
        while not check():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        failure = self.card.worker.failure
        if failure is not None:
            raise failure
        return True

    def idle(self) -> bool:
        """Whether every queue came to rest."""
        return self.wait(lambda: not self.card.worker.busy)

    # -- set-up -------------------------------------------------------------------------------------------------------

    def _route_doorbells(self) -> None:
        """nbio_v4_3.c: aperture, graphics core, copy engines, interrupt handler."""
        self.write("NBIO.RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN", 1)
        for entry, awid in ((0, 0x3), (3, 0x6)):
            self._route(entry, awid, 0, 0)
        self._route(2, 0xE, 2 * Doorbell.SDMA_ENGINE0, 40)
        self._route(1, 0x0, 2 * Doorbell.IH, 8)
        self.write("CP_MEC_DOORBELL_RANGE_LOWER", 8 * Doorbell.KIQ)
        self.write("CP_MEC_DOORBELL_RANGE_UPPER", 8 * Doorbell.USERQUEUE_END)
        self.write("CP_RB_DOORBELL_RANGE_LOWER", 8 * Doorbell.GFX_RING0)
        self.write("CP_RB_DOORBELL_RANGE_UPPER", 8 * Doorbell.GFX_USERQUEUE_END)

    def _route(self, entry: int, awid: int, first: int, count: int) -> None:
        port = f"S2A_DOORBELL_PORT{entry}"
        register = self.register(f"NBIO.S2A_DOORBELL_ENTRY_{entry}_CTRL")
        fields = {f"{port}_ENABLE": 1, f"{port}_AWID": awid, f"{port}_RANGE_OFFSET": first, f"{port}_RANGE_SIZE": count}
        self.write(f"NBIO.S2A_DOORBELL_ENTRY_{entry}_CTRL", register.encode(**fields))

    def _start_interrupts(self) -> None:
        """ih_v6_0.c: ring 0 in device memory, MSI."""
        self.ih_ring = self.memory.take(IH_RING_BYTES)
        self.ih_read = 0
        self.write("OSSSYS.IH_RB_BASE", self.mc(self.ih_ring) >> 8 & 0xFFFF_FFFF)
        self.write("OSSSYS.IH_RB_BASE_HI", self.mc(self.ih_ring) >> 40)
        control = self.register("OSSSYS.IH_RB_CNTL").encode(
            RB_ENABLE=1, ENABLE_INTR=1, RB_SIZE=(IH_RING_BYTES // 4).bit_length() - 1, MC_SPACE=4, RPTR_REARM=1
        )
        self.write("OSSSYS.IH_RB_CNTL", control)
        self.card.write_config(CAP_MSI + 2, 2, 0x81)

    def interrupts(self) -> list[dict[str, int]]:
        """Entries since the last call."""
        wptr = self.read("OSSSYS.IH_RB_WPTR") & ~3
        found = []
        while self.ih_read != wptr:
            data = bytes(self.card.vram_view(self.ih_ring + self.ih_read, ENTRY_BYTES))
            found.append(ENTRY.decode([int.from_bytes(data[at : at + 4], "little") for at in range(0, ENTRY_BYTES, 4)]))
            self.ih_read = (self.ih_read + ENTRY_BYTES) % IH_RING_BYTES
        return found

    def start_mes(self) -> None:
        """mes_v11_0_enable: both pipes."""
        encode = self.register("CP_MES_CNTL").encode
        self.write("CP_MES_CNTL", encode(MES_PIPE0_RESET=1, MES_PIPE1_RESET=1))
        for pipe in range(2):
            self.select(3, pipe)
            self.write("CP_MES_PRGRM_CNTR_START", 0x400)
        self.select(0, 0)
        self.write("CP_MES_CNTL", encode(MES_PIPE0_ACTIVE=1, MES_PIPE1_ACTIVE=1))

    def start_mec(self) -> None:
        """gfx_v11_0_cp_compute_enable."""
        self.select(1, 0)
        self.write("CP_MEC_RS64_PRGRM_CNTR_START", 0x1000)
        self.select(0, 0)
        for pipe in range(self.card.model(Mec).pipes):
            self.enable_interrupts(f"CP_ME1_PIPE{pipe}_INT_CNTL")
        self.write("CP_MEC_RS64_CNTL", self.register("CP_MEC_RS64_CNTL").encode(MEC_PIPE0_ACTIVE=1))

    def enable_interrupts(self, name: str) -> None:
        """End of pipe, bad packets, forbidden registers (gfx_v11_0_set_compute_eop_interrupt_state and its like)."""
        encode = self.register(name).encode
        self.write(name, encode(TIME_STAMP_INT_ENABLE=1, OPCODE_ERROR_INT_ENABLE=1, PRIV_REG_INT_ENABLE=1))

    def compute_mqd(self, ring: RingBuffer, *, base: int | None = None, **changed: int) -> int:
        """VRAM offset of a descriptor for a ring, as gfx_v11_0_compute_mqd_init makes it."""
        offset = self.memory.take(V11_COMPUTE_MQD.size_bytes)
        start = (self.mc(ring.ring) if base is None else base) >> 8
        report = self.mc(ring.rptr)
        control = self.register("CP_HQD_PQ_CONTROL").encode(
            QUEUE_SIZE=ring.size_dwords.bit_length() - 2, UNORD_DISPATCH=1, PRIV_STATE=1, KMD_QUEUE=1
        )
        doorbell = self.register("CP_HQD_PQ_DOORBELL_CONTROL")
        values = {
            "header": MQD_HEADER,
            "compute_static_thread_mgmt_se0": 0xFFFF_FFFF,
            "cp_mqd_base_addr_lo": self.mc(offset) & 0xFFFF_FFFF,
            "cp_mqd_base_addr_hi": self.mc(offset) >> 32,
            "cp_hqd_pq_base_lo": start & 0xFFFF_FFFF,
            "cp_hqd_pq_base_hi": start >> 32,
            "cp_hqd_pq_rptr_report_addr_lo": report & 0xFFFF_FFFF,
            "cp_hqd_pq_rptr_report_addr_hi": report >> 32,
            "cp_hqd_pq_control": control,
            "cp_hqd_pq_doorbell_control": doorbell.encode(DOORBELL_OFFSET=ring.doorbell_dword, DOORBELL_EN=1),
            "cp_hqd_active": 1,
        }
        self.card.vram_view(offset, V11_COMPUTE_MQD.size_bytes)[:] = V11_COMPUTE_MQD.pack(**(values | changed))
        return offset

    def activate(self, queue: tuple[int, int, int], mqd: int) -> None:
        """mes_v11_0_queue_init_register: a queue connected through registers."""
        data = bytes(self.card.vram_view(mqd, V11_COMPUTE_MQD.size_bytes))
        self.select(*queue)
        for register, member in (
            ("CP_HQD_VMID", "cp_hqd_vmid"),
            ("CP_MQD_BASE_ADDR", "cp_mqd_base_addr_lo"),
            ("CP_MQD_BASE_ADDR_HI", "cp_mqd_base_addr_hi"),
            ("CP_HQD_PQ_BASE", "cp_hqd_pq_base_lo"),
            ("CP_HQD_PQ_BASE_HI", "cp_hqd_pq_base_hi"),
            ("CP_HQD_PQ_RPTR_REPORT_ADDR", "cp_hqd_pq_rptr_report_addr_lo"),
            ("CP_HQD_PQ_RPTR_REPORT_ADDR_HI", "cp_hqd_pq_rptr_report_addr_hi"),
            ("CP_HQD_PQ_CONTROL", "cp_hqd_pq_control"),
            ("CP_HQD_PQ_DOORBELL_CONTROL", "cp_hqd_pq_doorbell_control"),
            ("CP_HQD_ACTIVE", "cp_hqd_active"),
        ):
            self.write(register, V11_COMPUTE_MQD.get(data, member))
        self.select(0, 0)

    def start_kiq(self) -> RingBuffer:
        """The kernel interface queue on the scheduler's second pipe (mes_v11_0_kiq_hw_init)."""
        self.start_mes()
        me, pipe, number = KIQ
        self.write("RLC_CP_SCHEDULERS", 0x80 | me << 5 | pipe << 3 | number)
        ring = RingBuffer(self, 2 * Doorbell.MES_RING1)
        self.activate(KIQ, self.compute_mqd(ring))
        return ring

    def start_scheduler(self) -> Scheduler:
        """The scheduler's ring, mapped by the kernel interface queue (mes_v11_0_kiq_enable_queue)."""
        kiq = self.start_kiq()
        ring = RingBuffer(self, 2 * Doorbell.MES_RING0, 1024)
        kiq.submit(map_queues(self, ring, self.compute_mqd(ring), me=2, engine=5))
        if not self.idle():
            raise TimeoutError("the kernel interface queue does not come to rest")
        return self.scheduler(ring)

    def scheduler(self, ring: RingBuffer) -> Scheduler:
        """A ring that takes the scheduler's messages."""
        return Scheduler(self, ring)


class Scheduler:
    """The scheduler's messages, sent as mes_v11_0_submit_pkt_and_poll_completion does: in pairs, each with a fence."""

    def __init__(self, rig: Rig, ring: RingBuffer) -> None:
        self.rig, self.ring = rig, ring
        self._query = (mes_v12 if rig.card.chip.arch == "gfx1201" else mes_v11).QUERY_MES_STATUS
        self._fences = rig.memory.take()
        self._sequence = 0

    def frame(self, layout: BitLayout, message: int, fence: int, value: int, **fields: int) -> tuple[int, ...]:
        status = {"api_status_api_completion_fence_addr": fence, "api_status_api_completion_fence_value": value}
        return layout.encode(header_type=1, header_opcode=message, header_dwsize=64, **status, **fields)

    def send(self, layout: BitLayout, message: int, **fields: int) -> bool:
        """Whether the message and the query behind it were answered."""
        self._sequence += 1
        status, ring_fence = self._fences, self._fences + 8
        self.rig.memory.put(status, (0, 0))
        query = mes_v11.SchedulerOpcode.QUERY_SCHEDULER_STATUS
        self.ring.submit(
            self.frame(layout, message, self.rig.mc(status), 1, **fields),
            self.frame(self._query, query, self.rig.mc(ring_fence), self._sequence),
        )
        memory, worker = self.rig.memory, self.rig.card.worker
        self.rig.wait(lambda: memory.word(ring_fence, 8) == self._sequence or not worker.busy)
        return memory.word(ring_fence, 8) == self._sequence and memory.word(status, 8) == 1


def map_queues(rig: Rig, ring: RingBuffer, mqd: int, *, me: int, engine: int) -> tuple[int, ...]:
    """gfx11_kiq_map_queues for the first queue of the first pipe."""
    return pm4.MAP_QUEUES.build(
        ME=me,
        ENGINE_SEL=engine,
        NUM_QUEUES=1,
        DOORBELL_OFFSET=ring.doorbell_dword,
        MQD_ADDR=rig.mc(mqd),
        WPTR_ADDR=rig.mc(ring.wptr_copy),
    )


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The parameter, when there is one, is the chip."""
    rig = Rig(getattr(request, "param", "gfx1100"))
    yield rig
    with rig.card.lock:
        rig.card.worker.stop_all()


@pytest.fixture
def ring_type() -> type[RingBuffer]:
    """What a driver keeps of a ring."""
    return RingBuffer


class EagerHost:
    """Stores a byte through BAR0 the moment an engine's write of the word that it watches can be seen.

    Nothing here depends on which thread is faster.
    """

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self.watched, self.probe = rig.memory.take(), rig.memory.take()
        self.stored = 0
        told = rig.card.host_path.engine_wrote

        def seen(index: int, size_bytes: int) -> None:
            told(index, size_bytes)
            if index <= self.watched < index + size_bytes:
                self.store()

        monkeypatch.setattr(rig.card.host_path, "engine_wrote", seen)

    def store(self) -> None:
        """The next byte."""
        self.stored += 1
        self.rig.card.bar0_view(self.probe, 1)[0] = self.stored

    def held_back(self) -> bool:
        """Whether its last byte waits for a flush, now that all work is done."""
        assert self.rig.idle()
        assert self.stored
        return self.rig.memory.word(self.probe) & 0xFF != self.stored


@pytest.fixture
def eager_host(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> EagerHost:
    return EagerHost(rig, monkeypatch)
