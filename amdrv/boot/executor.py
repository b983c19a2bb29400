"""Carrying out a boot plan: the one place that acts, a method a step."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from amdrv import pci_config
from amdrv.blocks.gmc import Hub
from amdrv.boot.planner import BootStep, Engines, Observed, Plan, Wanted, is_ours
from amdrv.boot.record import NONCE_REGISTER, RECORD_BYTES, STATE_REGISTER, BootRecord, pack, state_word, unpack
from amdrv.boot.report import Step
from amdrv.errors import AmdrvError, MalformedInput, Refused, Timeout
from amdrv.facts.pci import Command
from amdrv.firmware import FirmwareSet
from amdrv.hardware import Hardware
from amdrv.ioctl.pci_function import ALL_ONES, PciFunction, ResetKind
from amdrv.memory.layout import BOOT_RECORD
from amdrv.memory.manager import MemoryManager
from amdrv.registers import Register
from amdrv.vram import MEMORY_SIZE_MIB

log = logging.getLogger(__name__)

AFTER_RESET_TIMEOUT_S = 2.0


class StepClock:
    """Measures steps: wall time, the card's own time, register traffic."""

    def __init__(self, function: PciFunction) -> None:
        self._function = function
        self.steps: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside, also when it fails."""
        traffic, wall, virtual = self._function.traffic.snapshot(), time.perf_counter(), self._function.virtual_s
        try:
            yield
        finally:
            used = self._function.traffic.since(traffic)
            virtual_now = self._function.virtual_s
            done = Step(
                name,
                time.perf_counter() - wall,
                None if virtual is None or virtual_now is None else virtual_now - virtual,
                used.reads,
                used.writes,
            )
            self.steps.append(done)
            log.debug("%s: %.2f ms, %d reads, %d writes", name, done.seconds * 1e3, done.reads, done.writes)


def scratch(hardware: Hardware, name: str) -> Register:
    """A scratch register of the graphics core."""
    return hardware.mmio.registers["GC", name]


def observe(hardware: Hardware, reset_allowed: bool) -> Observed:
    """Read what the planner needs; nothing is written."""
    record: BootRecord | None = None
    problem = ""
    try:
        record = unpack(hardware.vram.read(BOOT_RECORD.offset, RECORD_BYTES))
    except MalformedInput as error:
        problem = str(error)
    alive = hardware.psp.is_alive()
    nonce = int(hardware.mmio.read(scratch(hardware, NONCE_REGISTER)))
    state = int(hardware.mmio.read(scratch(hardware, STATE_REGISTER)))
    return Observed(
        secure_os_alive=alive,
        record=record,
        record_problem=problem,
        nonce=nonce,
        state=state,
        engines=_observe_engines(hardware) if is_ours(alive, record, nonce) else None,
        virtual_function=hardware.nbio.is_virtual_function(),
        reset_allowed=reset_allowed,
    )


def _observe_engines(hardware: Hardware) -> Engines:
    hubs = (hardware.gmc.gc, hardware.gmc.mm)
    return Engines(
        faults_pending=any(hub.fault_pending() for hub in hubs),
        compute_engine_runs=hardware.gfx.mec_runs(),
        hubs_translate=all(hub.translates(hardware.addresses) for hub in hubs),
    )


class Executor:
    """Runs the steps of a plan on one card."""

    def __init__(self, hardware: Hardware, firmware: FirmwareSet, wanted: Wanted, clock: StepClock) -> None:
        self._hardware = hardware
        self._firmware = firmware
        self._wanted = wanted
        self._clock = clock
        self._memory: MemoryManager | None = None
        self.record: BootRecord | None = None
        self._compute_units = 0
        self._smu_version = 0

    @property
    def memory(self) -> MemoryManager:
        """The address space, from the step that makes it on."""
        if self._memory is None:
            raise AmdrvError("the address space was not set up yet")
        return self._memory

    def run(self, plan: Plan, found: BootRecord | None) -> BootRecord:
        """Carry out every step; the record of what the card is now."""
        actions = {
            BootStep.RESET: self._reset,
            BootStep.CLAIM: self._claim,
            BootStep.BUS_INTERFACE: self._bus_interface,
            BootStep.DOORBELLS: self._hardware.nbio.open_apertures,
            BootStep.ADDRESS_SPACE: self._address_space,
            BootStep.MEMORY_HUB: lambda: self._program(self._hardware.gmc.mm),
            BootStep.INTERRUPTS: lambda: self._interrupts(first=plan.steps[0] is not BootStep.CLAIM),
            BootStep.FIRMWARE: lambda: self._hardware.psp.load(self._firmware.loads),
            BootStep.POWER: self._power,
            BootStep.GRAPHICS_CORE: self._graphics_core,
            BootStep.GRAPHICS_HUB: lambda: self._program(self._hardware.gmc.gc),
            BootStep.COMPUTE_ENGINE: self._compute_engine,
            BootStep.TRANSLATION: self._translation,
            BootStep.BUS_MASTERING: lambda: self._master_bus(True),
            BootStep.RECORD: self._write_record,
        }
        self.record = found
        for step in plan.steps:
            with self._clock.step(step.value):
                actions[step]()
        if self.record is None:
            raise AmdrvError("the boot plan ended without a record of what it did")
        return self.record

    # amdgpu_device.c: amdgpu_device_mode1_reset
    def _reset(self) -> None:
        """Reset through the power management firmware, with bus mastering off before and after."""
        try:
            mode1_reset(self._hardware)
        except Timeout as silent:  # power management that was rejected or has died cannot reset the card
            platform_reset(self._hardware.function, silent)

    def _claim(self) -> None:
        """From now on a crash leaves the card unclean."""
        if self.record is not None:
            state = scratch(self._hardware, STATE_REGISTER)
            self._hardware.mmio.write(state, state_word(self.record.nonce, clean=False))

    def _bus_interface(self) -> None:
        self._hardware.nbio.open_apertures()
        self._hardware.nbio.configure()

    def _address_space(self) -> None:
        """An empty page directory, at the place that the hubs look at or will look at."""
        hardware = self._hardware
        self._memory = MemoryManager(
            hardware.function,
            hardware.vram,
            hardware.layout,
            hardware.caches,
            hardware.asic.entry_format,
            hardware.addresses.physical_base,
        )

    # gmc_v11_0_gart_enable, gfx_v11_0_gfxhub_enable
    def _program(self, hub: Hub) -> None:
        hub.program(self._hardware.addresses)
        self._hardware.caches.flush_hdp()
        hub.invalidate()
        if not hub.translates(self._hardware.addresses):
            raise AmdrvError(
                f"{self._hardware.function.name}: the {hub.design.label} does not read back as it was set up;"
                " the card stays off the bus"
            )

    def _interrupts(self, first: bool) -> None:
        hardware = self._hardware
        if first:
            hardware.ih.configure()
        hardware.ih.start(hardware.addresses.fb_start, messages=hardware.function.enable_interrupts())

    def _power(self) -> None:
        self._smu_version = self._hardware.smu.start()

    def _graphics_core(self) -> None:
        self._hardware.gfx.wait_for_autoload()
        self._compute_units = self._hardware.gfx.count_compute_units(self._hardware.table.gc)

    def _compute_engine(self) -> None:
        self._hardware.gfx.configure()
        self._hardware.gfx.start_mec(mec_start_address(self._firmware))

    def _translation(self) -> None:
        """The hubs translate already; what they cached belongs to the last owner's tables."""
        hardware = self._hardware
        for hub in (hardware.gmc.mm, hardware.gmc.gc):
            hub.set_fault_page(hardware.addresses)
        hardware.caches.flush_hdp()
        hardware.gmc.invalidate()

    def _master_bus(self, on: bool) -> None:
        pci_config.set_command(self._hardware.function, Command.MASTER, on)

    def _write_record(self) -> None:
        """Memory first, the nonce that makes it valid last."""
        hardware = self._hardware
        self.record = BootRecord(
            nonce=secrets.randbelow(0xFFFFFFFF) + 1,
            firmware_digest=self._wanted.firmware_digest,
            map_digest=self._wanted.map_digest,
            vram_bytes=hardware.vram.size_bytes,
            tmr_bytes=hardware.psp.tmr_bytes,
            compute_units=self._compute_units,
            smu_version=self._smu_version,
        )
        hardware.vram.write(BOOT_RECORD.offset, pack(self.record))
        hardware.caches.flush_hdp()
        self._claim()
        hardware.mmio.write(scratch(hardware, NONCE_REGISTER), self.record.nonce)


def mode1_reset(hardware: Hardware) -> None:
    """Reset the whole card but its bus interface. Device memory, registers and firmware are lost.

    Raises Timeout when the power management firmware does not answer, or the card does not come back.
    """
    function = hardware.function
    pci_config.set_command(function, Command.MASTER, False)
    state = pci_config.save(function)
    hardware.smu.mode1_reset()
    pci_config.restore(function, state)
    function.wait_until(
        lambda: function.read32(5, MEMORY_SIZE_MIB) != ALL_ONES,
        AFTER_RESET_TIMEOUT_S,
        "the card to come out of mode1 reset (its memory size)",
        hint="reset it through its bridge, or power cycle it",
    )


def platform_reset(function: PciFunction, silent: Timeout) -> None:
    """Reset the card from the bus side, the mildest way that the platform offers.

    Raises ``silent``, which says why the card does not reset itself, when the platform offers none.
    """
    for kind in ResetKind:
        try:
            function.reset(kind)
        except Refused:
            continue
        log.warning("%s did not reset itself; the platform did (%s reset)", function.name, kind.value)
        return
    raise silent


def mec_start_address(firmware: FirmwareSet) -> int:
    """Where the compute engine's firmware begins, from its image's header."""
    header = firmware.images["mec"].header
    return header["start_address_hi"] << 32 | header["start_address_lo"]
