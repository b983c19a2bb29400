"""The shell: the chip-independent PCI device that a chip's models are put into.

It owns config space, BARs, the virtual clock, the arena, interrupts and the worker that runs queues; what a register
means is the models' business. One lock covers all register-visible state. The worker takes it only for short steps, so
that host and GPU run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from amdrv.emulator import vbios
from amdrv.emulator.arena import Arena
from amdrv.emulator.caches import GraphicsCaches
from amdrv.emulator.chips.chip import Chip
from amdrv.emulator.clock import VirtualClock
from amdrv.emulator.config_space import COMMAND, ConfigSpace
from amdrv.emulator.faults import Faults
from amdrv.emulator.host_path import HostPath
from amdrv.emulator.isa.dispatch import MemoryViolation, RunningWave, ShaderEngine
from amdrv.emulator.model import BusInterface, Model, PowerManagement
from amdrv.emulator.models import build_models
from amdrv.emulator.models.vmhub import HubView, VmHub
from amdrv.emulator.register_space import RegisterSpace
from amdrv.emulator.shared_host_path import SharedHostPath
from amdrv.emulator.trace import RESET, SpinWatch, Trace
from amdrv.emulator.window import PAGE_SHIFT, Window
from amdrv.emulator.worker import ChangeSignal, Worker
from amdrv.registers import RegisterMap

# Virtual cost of one access over PCIe: a read is a round trip, a posted write is not. 568 ms for 32,009 accesses of a
# Vega 10 load, delays taken out, is about 1 us a read (hardware notes, timings).
READ_NS = 900
WRITE_NS = 100
CONFIG_NS = 1000
DOORBELL_NS = 100
ALL_ONES = 0xFFFF_FFFF
COMPARED_BYTES = 32 << 20  # of memory in use that is looked through for another process's stores
TSC_NS = 10  # the card's 100 MHz counter

M = TypeVar("M", bound=Model)


class Card:
    """One emulated GPU, from power-on to the end of the process."""

    def __init__(
        self,
        name: str,
        chip: Chip,
        *,
        vram_bytes: int | None = None,
        bar0_bytes: int | None = None,
        shared_vram: bool = False,
        compared_bytes: int | None = COMPARED_BYTES,
        interpreted: bool = False,
    ) -> None:
        """With ``shared_vram`` another process maps VRAM; its stores wait for flushes only as long as at most
        ``compared_bytes`` are in use, None for no limit (see SharedHostPath).
        """
        self.name = name
        self.interpreted = interpreted  # shaders are not compiled for the host
        self.chip = chip
        self.vram_bytes = chip.vram_bytes if vram_bytes is None else vram_bytes
        self.lock = threading.RLock()
        self.changed = ChangeSignal(self.lock)  # notified when memory, an interrupt or a queue moved
        self.clock = VirtualClock()
        self.arena = Arena(self.vram_bytes, chip.system_window_bytes, shared=True)
        self.bars = chip.bars(self.vram_bytes if bar0_bytes is None else bar0_bytes)
        changes = self._before_host_changes, self._after_host_changes
        self.host_path: HostPath | SharedHostPath
        if shared_vram:
            self.host_path = SharedHostPath(self.arena, self.bars[0].size_bytes, *changes, limit_bytes=compared_bytes)
        else:
            self.host_path = HostPath(Window(self.arena.bytes[: self.vram_bytes], self.arena.vram_descriptor), *changes)
        self.config = ConfigSpace(
            vendor=chip.vendor_id,
            device=chip.device_id,
            revision=chip.revision,
            class_code=chip.class_code,
            subsystem=chip.subsystem,
            bars=self.bars,
            on_function_reset=self._function_reset,
            rom_bytes=chip.rom.window_bytes if chip.rom else 0,
            msix=chip.msix,
        )
        self.rom = vbios.build(chip)
        self.registers = RegisterMap(chip.bases, chip.versions)
        self.space = RegisterSpace(self.registers)
        self.trace = Trace(self)
        self.spinning = SpinWatch(self.space.name_at, name)
        self.worker = Worker(self)
        self.interrupts_delivered = 0
        self.on_interrupt: Callable[[int], None] | None = None  # told the vector of each; must not block
        self.holder: str | None = None  # who has opened the function
        self.faults = Faults(self)
        self._unavailable_until_ns = 0
        self.trusted_memory: range | None = None  # bytes of VRAM that only the PSP reaches
        self._models: list[Model] = []
        build_models(self, self._models)
        self._bus_interface = self.model(BusInterface)
        self.messages = self._bus_interface.messages
        self._mmhub = next(hub for hub in self.models(VmHub) if hub.ip == "MMHUB")
        self.graphics_hub = next(hub for hub in self.models(VmHub) if hub.ip == "GC")
        self.caches = GraphicsCaches(self)
        self._power_on(keep_sticky=False)
        # The machine's firmware has long enumerated the bus, and the boot ROM is done, when the first program runs.
        self.config.enumerate_bus()
        self.clock.charge(round(chip.timings.boot_rom * 1e9))

    def model(self, kind: type[M]) -> M:
        """The first model of a class: how models find each other."""
        for model in self._models:
            if isinstance(model, kind):
                return model
        raise LookupError(f"{self.chip.arch} has no {kind.__name__}")

    def models(self, kind: type[M]) -> list[M]:
        """All models of a class, in instance order."""
        return [model for model in self._models if isinstance(model, kind)]

    def all_models(self) -> tuple[Model, ...]:
        """Every model, in the order in which they were built."""
        return tuple(self._models)

    @property
    def lost(self) -> bool:
        """Whether the card has fallen off the bus: every read is all ones."""
        return self.faults.off_the_bus

    @property
    def strict(self) -> bool:
        """Whether a client's omissions show as on silicon: the contrary of ``relaxed``, and so from the beginning.

        Setting it also makes an access to a register that nothing models raise, instead of being counted.
        """
        return not self.relaxed

    @strict.setter
    def strict(self, value: bool) -> None:
        self.relaxed = not value
        self.space.strict = value

    @property
    def relaxed(self) -> bool:
        """Whether the card is forgiving, for speed: stores through BAR0 reach memory at once, caches are coherent."""
        return self.caches.relaxed

    @relaxed.setter
    def relaxed(self, value: bool) -> None:
        with self.lock:
            self.caches.relaxed = value
            self.host_path.transparent = value

    # -- host side ----------------------------------------------------------------------------------------------------

    def read_config(self, offset: int, width: int) -> int:
        """Configuration read."""
        with self.lock:
            self._access(CONFIG_NS)
            value = (1 << 8 * width) - 1 if self.lost else self.config.read(offset, width)
            self._note("config", False, offset, width, value)
            return value

    def write_config(self, offset: int, width: int, value: int) -> None:
        """Configuration write."""
        with self.lock:
            self._access(CONFIG_NS)
            self._note("config", True, offset, width, value)
            if not self.lost:
                self.config.write(offset, width, value)
                if offset <= COMMAND < offset + width:  # bus mastering may have changed
                    self.arena.bus_changed()
                self.messages.send_pending()  # all vectors of MSI-X may have lost their mask

    def read_register(self, offset: int) -> int:
        """32-bit read of BAR5."""
        with self.lock:
            self._access(READ_NS)
            value = self.space.read(offset) if self._answers() else ALL_ONES
            self._note("register", False, offset, 4, value)
            return value

    def write_register(self, offset: int, value: int) -> None:
        """32-bit write of BAR5."""
        with self.lock:
            self._access(WRITE_NS, register_write=True)
            self._note("register", True, offset, 4, value)
            if self._answers():
                self.space.write(offset, value)

    def write_doorbell(self, offset: int, width: int, value: int) -> None:
        """Write to BAR2; NBIO routes it to an engine."""
        with self.lock:
            self._access(DOORBELL_NS)
            self._note("doorbell", True, offset, width, value)
            block = self._bus_interface.route_doorbell(offset) if self._answers() else None
            if block is not None and self.space.gated:
                self.model(PowerManagement).doorbell_rang(block)
            for model in self._models:
                if model.doorbell_block == block:
                    model.doorbell(offset, width, value)

    def bar0_view(self, offset: int, size_bytes: int) -> memoryview:
        """Bulk view of BAR0: stores wait in the host data path until a flush."""
        with self.lock:
            return self.host_path.view(offset, size_bytes)

    def vram_view(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes of device memory itself, as the engines see it: for whoever looks at the card from the inside."""
        return self.arena.view(offset, size_bytes)

    def relax(self, remaining_s: float) -> None:
        """Let time pass until something may have changed: see PciFunction.relax."""
        with self.lock:
            self.spinning.other()
            failure, self.worker.failure = self.worker.failure, None
            if failure is not None:
                raise RuntimeError(f"{self.name}: a model of the emulated card failed") from failure
            if self.worker.busy and not self.lost:
                self.worker.wait_for_change(min(remaining_s, 0.1))
            else:
                self.clock.jump(max(1, round(remaining_s * 1e9)))

    def sleep(self, seconds: float) -> None:
        """Virtual time passes."""
        with self.lock:
            self.spinning.other()
            self.clock.charge(round(seconds * 1e9))

    def bus_reset(self, *, function_level: bool) -> None:
        """A reset by the platform (sysfs, VFIO): registers and VRAM contents are lost, config space is restored.

        It returns when the function answers again, as the platform's does.
        """
        with self.lock:
            if self.trace.enabled:
                self.trace.note(RESET, True, 0, 0, int(function_level))
            saved, saved_messages = self.config.save(), self.messages.save()
            unavailable_s = self.chip.function_reset_s if function_level else self.chip.bus_reset_s
            self._reset_from_bus(unavailable_s)
            self.clock.charge(round(unavailable_s * 1e9))
            self.config.restore(saved)
            self.messages.restore(saved_messages)

    # -- device side --------------------------------------------------------------------------------------------------

    @property
    def bus_master(self) -> bool:
        """Whether DMA and interrupts leave the card."""
        return self.config.bus_master and not self.lost

    @cached_property
    def shader_engine(self) -> ShaderEngine:
        """What executes dispatches; made when the first one comes."""
        with self.worker.translating:
            from amdrv.emulator.isa.engines import create_engine

            engines = self.chip.shader_array.shader_engines
            translating = self.worker.translating
            return create_engine(
                self.chip.arch, shader_engines=engines, interpreted=self.interpreted, translating=translating
            )

    def running_wave(self) -> RunningWave | None:
        """A wave that a shader engine runs; None when none does, or that is not known."""
        engines = (self.__dict__[name] for name in ("shader_engine", "oracle") if name in self.__dict__)  # none is made
        return next((wave for engine in engines if (wave := engine.running_wave()) is not None), None)

    @cached_property
    def oracle(self) -> ShaderEngine:
        """What executes dispatches that see memory through caches that differ from it: every access is translated."""
        from amdrv.emulator.isa.interpreter import Interpreter

        return Interpreter(self.chip.arch, shader_engines=self.chip.shader_array.shader_engines)

    @property
    def wave_instructions(self) -> int:
        """Instructions that all waves together have executed since the card was plugged in.

        Every executed instruction of a wave but s_waitcnt*, s_delay_alu, s_nop and s_clause; added when a dispatch
        ends.
        """
        with self.lock:
            return sum(model.wave_instructions for model in self._models)

    def realtime(self) -> int:
        """The card's 48-bit 100 MHz counter: what TSC registers, timestamps and interrupt entries carry."""
        with self.lock:
            self.worker.pass_wall_time()
            return (self.clock.now_ns // TSC_NS) & 0xFFFF_FFFF_FFFF

    def ready_in_s(self, seconds: float) -> float:
        """``seconds`` after the registers answer again, as a delay from now."""
        return max(0, self._unavailable_until_ns - self.clock.now_ns) / 1e9 + seconds

    def read_mc(self, address: int, size_bytes: int) -> bytes | None:
        """Memory as PSP, SMU and IH see it: an address of VMID 0 behind the MMHUB. None when it does not translate."""
        with self.lock:
            try:
                return self._firmware_memory().read(address, size_bytes)
            except MemoryViolation:
                return None

    def write_mc(self, address: int, data: bytes) -> bool:
        """Store bytes where ``read_mc`` would find them. False when the address does not translate."""
        with self.lock:
            try:
                self._firmware_memory().write(address, data)
            except MemoryViolation:
                return False
            self.changed.notify_all()
            return True

    def raise_interrupt(self, vector: int = 0) -> None:
        """Interrupt the host: by the vector of MSI-X, else by the one MSI, else by pulling the interrupt line."""
        with self.lock:
            if self.config.msix_enabled:
                self.messages.send(vector)
            elif self.config.msi_enabled:
                self.send_message(0)
            elif self.on_interrupt is not None:
                self.on_interrupt(0)
            self.changed.notify_all()

    def send_message(self, vector: int) -> None:
        """The message of an interrupt leaves the card; without bus mastering it is lost."""
        if self.bus_master:
            self.interrupts_delivered += 1
            if self.on_interrupt is not None:
                self.on_interrupt(vector)

    def notify(self) -> None:
        """Tell waiters that memory changed."""
        with self.lock:
            self.changed.notify_all()

    def reset_chip(self, unavailable_s: float) -> None:
        """Whole-chip reset (mode1): engines stop, registers and VRAM contents are lost.

        The card answers with all ones for ``unavailable_s`` of virtual time, then is as after power-on, but for
        config space and sticky registers: the bus interface is not part of this reset.
        """
        with self.lock:
            self._lose_state(unavailable_s, keep_sticky=True)

    def unmodelled(self) -> list[tuple[str, int]]:
        """(register name, accesses) of registers that no model claims, most used first."""
        with self.lock:
            return self.space.unmodelled_by_name()

    def _before_host_changes(self, first_page: int, end_page: int, old: memoryview) -> None:
        self.caches.before_host_changes(first_page, end_page, old)

    def _after_host_changes(self, first_page: int, end_page: int) -> None:
        if self.trace.memory is not None:
            self.trace.memory.flushed(first_page << PAGE_SHIFT, (end_page - first_page) << PAGE_SHIFT)

    def _firmware_memory(self) -> HubView:
        return self._mmhub.view(0)

    def _function_reset(self) -> None:
        """A function-level reset asked for in config space: whoever asks also restores config space."""
        self._reset_from_bus(self.chip.function_reset_s)

    def _reset_from_bus(self, unavailable_s: float) -> None:
        self.config.reset()
        self._lose_state(unavailable_s, keep_sticky=False)

    def _lose_state(self, unavailable_s: float, *, keep_sticky: bool) -> None:
        self.worker.stop_all()
        self.clock.drop_events()
        self.host_path.lose()
        self.arena.lose_vram()
        self._unavailable_until_ns = self.clock.now_ns + round(unavailable_s * 1e9)
        self._power_on(keep_sticky=keep_sticky)
        self.changed.notify_all()

    def _power_on(self, *, keep_sticky: bool) -> None:
        self.space.reset(keep_sticky=keep_sticky)
        self.caches.power_on()
        self.trusted_memory = None
        for model in self._models:
            model.power_on()

    def cost_ns(self, space: str, *, is_write: bool) -> int:
        """Virtual time that an access to a space ("config", "register", "doorbell") takes."""
        cost_ns = {"config": CONFIG_NS, "doorbell": DOORBELL_NS}.get(space, WRITE_NS if is_write else READ_NS)
        return round(cost_ns * self.faults.link_factor)

    def _access(self, cost_ns: int, *, register_write: bool = False) -> None:
        """The host is about to make an access: what was to go wrong by then does, and time passes."""
        self.faults.access(register_write=register_write)
        self.clock.charge(round(cost_ns * self.faults.link_factor))

    def _answers(self) -> bool:
        return not self.lost and self.config.memory_decode and self.clock.now_ns >= self._unavailable_until_ns

    def answers(self) -> bool:
        """Whether accesses to the BARs reach the card now; else reads are all ones, and writes vanish."""
        with self.lock:
            return self._answers()

    def _note(self, space: str, is_write: bool, offset: int, width: int, value: int) -> None:
        if self.trace.enabled:
            self.trace.note(space, is_write, offset, width, value)
        if is_write or space != "register":
            self.spinning.other()
        else:
            self.spinning.read(offset, value)
