"""One GPU, from open to close: the driver as its user sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from amdrv import discovery, faults, pci_config
from amdrv import log as log_setup
from amdrv.asic import product_name
from amdrv.blocks.gfx import (
    DOORBELL_BYTES,
    PRIVATE_WINDOW,
    SHARED_WINDOW,
    QueueSpec,
    compute_mqd,
)
from amdrv.blocks.smu import ANY_FREQUENCY, Metrics
from amdrv.blocks.waves import HaltedWave
from amdrv.boot.executor import Executor, StepClock, mec_start_address, mode1_reset, observe, scratch
from amdrv.boot.planner import PlanKind, Wanted, plan
from amdrv.boot.record import STATE_REGISTER, BootRecord, state_word
from amdrv.boot.report import BootReport
from amdrv.errors import DeviceLost, InvalidArgument, MalformedInput, OutOfMemory, Refused, Timeout
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.pci import Command
from amdrv.facts.smu_v13_0_0 import Clock
from amdrv.faults import FaultRecord
from amdrv.firmware import FirmwareSet, resolve
from amdrv.hardware import Hardware
from amdrv.ioctl.pci_function import DOORBELL_BAR, DmaMemory, PciFunction, ResetKind
from amdrv.memory.layout import MQDS, PAGE
from amdrv.memory.manager import Allocation, MemoryManager
from amdrv.vram import Vram, read_size_bytes

log = logging.getLogger(__name__)

LDS_BYTES_PER_KIB = 1024
MAX_WORKGROUP_SIZE = 1024
MAX_WORKGROUPS_PER_DIMENSION = 0xFFFFFFFF  # COMPUTE_DIM_X, _Y and _Z have 32 bits
RESET_LEVELS = ("queue", "engine", "mode1", "function")
PERFORMANCE_LEVELS = ("auto", "high")
PERFORMANCE_CLOCKS = (Clock.GFXCLK, Clock.UCLK, Clock.FCLK, Clock.SOCCLK)


@dataclass(frozen=True, slots=True)
class GpuProperties:
    """What a program needs to know about a GPU."""

    compute_units: int  # not fused off
    shader_engines: int
    arrays_per_engine: int
    simds_per_cu: int
    max_waves_per_simd: int
    scratch_slots_per_cu: int
    wave_sizes: tuple[int, ...]
    lds_bytes: int  # of one workgroup
    vram_bytes: int
    visible_vram_bytes: int
    clock_counter_hz: int
    shared_window: int  # first address of the window that flat accesses reach LDS through
    private_window: int  # and scratch
    max_workgroup_size: int = MAX_WORKGROUP_SIZE
    max_workgroups_per_dimension: int = MAX_WORKGROUPS_PER_DIMENSION


class ComputeQueue:
    """A PM4 queue on the hardware. Made by ``Gpu.create_compute_queue``."""

    def __init__(self, gpu: Gpu, index: int, spec: QueueSpec) -> None:
        self.index = index
        self.live = True
        self._gpu = gpu
        self._spec = spec

    @property
    def doorbell_offset(self) -> int:
        """Byte offset of the queue's doorbell in BAR2; its value is the write pointer in dwords."""
        return self._spec.doorbell * DOORBELL_BYTES

    def destroy(self) -> None:
        """Let what runs finish and take the queue off the hardware; harmless when it is off already.

        Raises Timeout when what runs does not finish; ``Gpu.recover`` ends it then.
        """
        self._gpu._destroy_queue(self)

    def reset(self) -> None:
        """Kill what runs and start the queue anew with both pointers at 0; the ring's contents stay as they are.

        Raises Timeout when the waves do not end; ``Gpu.recover`` goes further.
        """
        self._gpu._reset_queue(self)


class Gpu:
    """A started GPU. Use ``Gpu.open``."""

    def __init__(
        self, hardware: Hardware, firmware: FirmwareSet, memory: MemoryManager, record: BootRecord, boot: BootReport
    ) -> None:
        self.function = hardware.function
        self.arch = hardware.asic.arch
        self.name = product_name(hardware.asic, hardware.function.ids) + hardware.function.marketing_suffix
        self.boot = boot
        self.memory = memory
        self.properties = _properties(hardware, record)
        self.registers = hardware.mmio.registers
        self.lost = False
        self._hardware = hardware
        self._firmware = firmware
        self._record = record
        self._queues: dict[int, ComputeQueue] = {}
        self._fault_page: DmaMemory | None = None
        self._link_power_states: int | None = None
        self._closed = False
        self._performance = "auto"
        self._unclean = ""  # why the next open must not be warm

    @classmethod
    def open(cls, function: PciFunction, *, command: str = "amdrv", allow_reset: bool = True) -> Gpu:
        """Become the owner of a card and start it.

        ``command`` names the owner to others. ``allow_reset`` False refuses a card whose start needs a reset.
        Raises DeviceBusy, Refused and its kinds (nothing was written), FirmwareRejected, Timeout, DeviceLost.
        """
        log_setup.configure()
        function.acquire(command)
        fault_page: DmaMemory | None = None
        link_power_states: int | None = None
        try:
            clock = StepClock(function)
            with clock.step("discovery"):
                vram = Vram(function, read_size_bytes(function))
                discovery.wait_for_firmware(function)
                table = _read_table(function, vram)
                fault_page = function.alloc_dma(PAGE)
                hardware = Hardware.assemble(function, table, vram, fault_page.segments[0][0])
            with clock.step("firmware images"):
                firmware = resolve(
                    table.versions(),
                    function.firmware_images(),
                    device_id=function.ids.device,
                    revision=function.ids.revision,
                    scope="compute",
                )
                wanted = Wanted(firmware.digest, hardware.map_digest(), vram.size_bytes)
            with clock.step("observation"):
                observed = observe(hardware, allow_reset)
                chosen = plan(observed, wanted)
            log.info("%s: %s, because %s", function.name, chosen.kind.value, chosen.reason)
            if chosen.kind is PlanKind.REFUSE:
                raise Refused(f"{function.name}: {chosen.reason}")
            link_power_states = pci_config.set_link_power_states(function, 0)
            executor = Executor(hardware, firmware, wanted, clock)
            record = executor.run(chosen, observed.record)
            boot = BootReport(chosen.kind, chosen.reason, tuple(clock.steps))
            gpu = cls(hardware, firmware, executor.memory, record, boot)
            gpu._fault_page, gpu._link_power_states = fault_page, link_power_states
        except BaseException:
            with suppress(Exception):
                pci_config.set_command(function, Command.MASTER, False)
                if link_power_states:
                    pci_config.set_link_power_states(function, link_power_states)
            if fault_page is not None:
                fault_page.close()
            function.release()
            raise
        log.info("%s: %s", function.name, boot)
        return gpu

    # -- queues -------------------------------------------------------------------------------------------------------

    def create_compute_queue(
        self, ring: Allocation, rptr: Allocation | int, wptr: Allocation | int, eop: Allocation
    ) -> ComputeQueue:
        """Put a PM4 queue on the hardware. It is live when this returns, with both pointers at 0.

        ``ring`` and ``eop`` are powers of two in bytes; ``rptr`` and ``wptr`` are addresses of 64-bit words. Raises
        OutOfMemory when every hardware queue is taken, InvalidArgument.
        """
        self._check_usable()
        asic = self._hardware.asic
        index = next((i for i in range(asic.queues_per_pipe) if i not in self._queues), None)
        if index is None:
            raise OutOfMemory(f"{self.function.name}: all {asic.queues_per_pipe} hardware queues are taken")
        spec = QueueSpec(
            ring_va=ring.va,
            ring_bytes=ring.size_bytes,
            rptr_va=rptr if isinstance(rptr, int) else rptr.va,
            wptr_va=wptr if isinstance(wptr, int) else wptr.va,
            eop_va=eop.va,
            eop_bytes=eop.size_bytes,
            mqd_address=self._hardware.addresses.device_address(_mqd_offset(index)),
            doorbell=Doorbell.MEC_RING0 + index,
        )
        self._load_queue(index, spec)
        queue = self._queues[index] = ComputeQueue(self, index, spec)
        return queue

    def ring_doorbell(self, doorbell_offset: int, value: int) -> None:
        """Tell a queue how far its ring is written. Page table changes reach the GPU first."""
        self.memory.publish()
        self.function.write64(DOORBELL_BAR, doorbell_offset, value)

    # -- faults and recovery ------------------------------------------------------------------------------------------

    def take_faults(self, thorough: bool = True) -> list[FaultRecord]:
        """What went wrong since the last call, oldest first.

        Reading the interrupt ring also lets the card send its next interrupt, so a waiter calls this after it was
        woken. ``thorough`` looks at the hubs' fault status even when no interrupt speaks of a page fault; without it
        a call that finds nothing costs no register access.
        """
        self._check_usable()
        entries = self._hardware.ih.drain()
        records = faults.merge(entries, [])
        if thorough or any(record.kind == faults.PAGE_FAULT for record in records):
            records = faults.merge(entries, self._hardware.gmc.take_faults())
        for record in records:
            log.warning("%s: %s", self.function.name, record)
        return records

    def recover(self) -> None:
        """Take every queue off the hardware, whatever it is doing, and leave the engine able to take new ones.

        Raises Timeout when even a reset of the compute engine does not help; ``reset("mode1")`` is next then.
        """
        self._check_usable()
        self._take_queues_off(reset_engine=False)

    def reset(self, level: str) -> None:
        """Reset as much as ``level`` says.

        "queue" takes every queue off the hardware; "engine" restarts the compute engine as well; "mode1" and
        "function" reset the whole card: its memory is gone, this object is lost, and the next open is cold. Raises
        InvalidArgument for another level, Refused when the platform has no such reset, Timeout.
        """
        if level not in RESET_LEVELS:
            raise InvalidArgument(f"reset level {level!r}; levels are {', '.join(RESET_LEVELS)}")
        self._check_usable()
        if level == "queue":
            self.recover()
        elif level == "engine":
            self._take_queues_off(reset_engine=True)
        else:
            self._reset_card(level)

    # -- looking, and power -------------------------------------------------------------------------------------------

    def set_performance(self, level: str) -> None:
        """Hold every clock at its highest ("high"), or let the firmware choose ("auto", as after open).

        Raises InvalidArgument for another level.
        """
        if level not in PERFORMANCE_LEVELS:
            raise InvalidArgument(f"performance level {level!r}; levels are {', '.join(PERFORMANCE_LEVELS)}")
        self._check_usable()
        for clock in PERFORMANCE_CLOCKS:
            highest = self._hardware.smu.frequency_levels(clock)[-1] if level == "high" else 0
            self._hardware.smu.limit_clock(clock, highest, highest or ANY_FREQUENCY)
        self._performance = level

    def telemetry(self) -> Metrics:
        """Temperatures, power, clocks and load, measured now; one message to the power management firmware."""
        self._check_usable()
        return self._hardware.smu.read_metrics()

    def halted_wave(self, *, or_running: bool = False) -> HaltedWave | None:
        """A wave that an error halted, with its registers; None when no wave is halted.

        Some thousand register accesses when none is: for diagnosis, before ``recover`` ends the wave. With
        ``or_running`` a wave that still runs will do: of it only PC and workgroup mean something.
        """
        self._check_usable()
        wave = self._hardware.waves.find_halted(self._hardware.table.gc, or_running=or_running)
        if wave is not None:
            log.info("%s: %s", self.function.name, wave)
        return wave

    # gfx_v11_0_get_gpu_clock_counter
    def read_clock_counter(self) -> int:
        """The counter that kernel timestamps come from, ``properties.clock_counter_hz`` a second."""
        self._check_usable()
        smuio = self._hardware.mmio.registers.block("SMUIO")
        read = self._hardware.mmio.read
        before, low, after = (
            read(smuio[name])
            for name in ("GOLDEN_TSC_COUNT_UPPER", "GOLDEN_TSC_COUNT_LOWER", "GOLDEN_TSC_COUNT_UPPER")
        )
        if before != after:
            low = read(smuio.GOLDEN_TSC_COUNT_LOWER)
        return after << 32 | low

    @contextmanager
    def boot_step(self, name: str) -> Iterator[None]:
        """Count what happens inside as part of the boot; for what is started on top of the driver."""
        clock = StepClock(self.function)
        try:
            with clock.step(name):
                yield
        finally:
            self.boot = self.boot.with_step(clock.steps[0])

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the queues, take the card off the bus, leave it so that the next open is warm. Idempotent."""
        if self._closed:
            return
        try:
            if not self.lost:
                self._quiesce()
        except DeviceLost as error:
            self.lost = True
            log.warning("%s: lost while it was closed: %s", self.function.name, error)
        finally:
            self._closed = True
            try:
                with suppress(DeviceLost):
                    pci_config.set_command(self.function, Command.MASTER, False)
                if not self.lost and not self._unclean:
                    self._mark_clean()
            finally:
                if self._unclean:
                    log.warning("%s: not left clean (%s); the next open resets it", self.function.name, self._unclean)
                self.memory.close()
                if self._fault_page is not None:
                    self._fault_page.close()
                self.function.release()

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _quiesce(self) -> None:
        """Queues off, interrupts off, doorbells off; what does not work makes the card unclean."""
        for queue in list(self._queues.values()):
            try:
                queue.destroy()
            except Timeout as error:
                log.warning("%s: %s", self.function.name, error)
                try:
                    self.recover()
                except Timeout as worse:
                    self._unclean = str(worse)
        if not self._unclean:
            for fault in self.take_faults():
                log.info("%s: at close: %s", self.function.name, fault)
        if self._performance != "auto":
            self.set_performance("auto")
        self._hardware.ih.stop()
        self._hardware.nbio.close_doorbells()
        if self._link_power_states:
            pci_config.set_link_power_states(self.function, self._link_power_states)

    def _mark_clean(self) -> None:
        state = scratch(self._hardware, STATE_REGISTER)
        self._hardware.mmio.write(state, state_word(self._record.nonce, clean=True))
        self._hardware.mmio.read(state)  # posts the write before the card is given back

    def _load_queue(self, index: int, spec: QueueSpec) -> None:
        gfx = self._hardware.gfx
        mqd = compute_mqd(self._hardware.mmio.registers.block("GC"), spec, gfx.design)
        self._hardware.vram.write(_mqd_offset(index), mqd)
        self.memory.flush_hdp()
        gfx.load_queue(index, mqd)

    def _destroy_queue(self, queue: ComputeQueue) -> None:
        if queue.live and not self.lost:
            self._hardware.gfx.unload_queue(queue.index)
        self._forget(queue)

    def _reset_queue(self, queue: ComputeQueue) -> None:
        self._check_usable()
        if not queue.live:
            raise InvalidArgument(f"{self.function.name}: queue {queue.index} is not on the hardware")
        self._hardware.gfx.reset_queue(queue.index)
        self._load_queue(queue.index, queue._spec)

    def _forget(self, queue: ComputeQueue) -> None:
        queue.live = False
        if self._queues.get(queue.index) is queue:
            del self._queues[queue.index]

    def _take_queues_off(self, reset_engine: bool) -> None:
        """End every queue; reset the compute engine if told to, or if a queue does not end otherwise."""
        for queue in list(self._queues.values()):
            try:
                self._hardware.gfx.reset_queue(queue.index)
            except Timeout as error:
                log.warning("%s: %s; resetting the compute engine", self.function.name, error)
                reset_engine = True
            self._forget(queue)
        if reset_engine:
            self._hardware.gfx.reset_mec(mec_start_address(self._firmware))
        # Nothing runs: forget faults and translations, so that the next queue starts as the first one did.
        self._hardware.ih.drain()
        self._hardware.gmc.take_faults()
        self.memory.flush_hdp()
        self._hardware.gmc.invalidate()

    def _reset_card(self, level: str) -> None:
        log.info("%s: %s reset", self.function.name, level)
        try:
            if level == "mode1":
                mode1_reset(self._hardware)
            else:
                pci_config.set_command(self.function, Command.MASTER, False)
                state = pci_config.save(self.function)
                self.function.reset(ResetKind.FUNCTION)
                pci_config.restore(self.function, state)
        except Refused:
            pci_config.set_command(self.function, Command.MASTER, True)
            raise
        self.lost = True
        for queue in list(self._queues.values()):
            self._forget(queue)
        self.memory.lose()

    def _check_usable(self) -> None:
        if self._closed:
            raise InvalidArgument(f"{self.function.name}: the device is closed")
        if self.lost:
            raise DeviceLost(f"{self.function.name}: a reset took the device's memory; open the device again")


def _read_table(function: PciFunction, vram: Vram) -> discovery.DiscoveryTable:
    """The discovery table; raises MalformedInput, with the way out, when what memory holds is none any more."""
    try:
        return discovery.parse(discovery.read(vram))
    except MalformedInput as error:
        hint = "the card's boot firmware writes the table anew after amdrv reset --level function"
        raise MalformedInput(f"{function.name}: {error}; {hint}") from error


def _mqd_offset(index: int) -> int:
    return MQDS.offset + index * PAGE


def _properties(hardware: Hardware, record: BootRecord) -> GpuProperties:
    info, asic = hardware.table.gc, hardware.asic
    return GpuProperties(
        compute_units=record.compute_units,
        shader_engines=info.shader_engines,
        arrays_per_engine=info.arrays_per_engine,
        simds_per_cu=asic.simds_per_cu,
        max_waves_per_simd=info.max_waves_per_simd,
        scratch_slots_per_cu=info.scratch_slots_per_cu,
        wave_sizes=asic.wave_sizes,
        lds_bytes=info.lds_kib * LDS_BYTES_PER_KIB,
        vram_bytes=hardware.vram.size_bytes,
        visible_vram_bytes=hardware.vram.visible_bytes,
        clock_counter_hz=asic.clock_counter_hz,
        shared_window=SHARED_WINDOW << 48,
        private_window=PRIVATE_WINDOW << 48,
    )
