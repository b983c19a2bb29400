"""PCI configuration space of the emulated function: header, BAR sizing, capabilities.

Layout: PCI Local Bus Specification 3.0 §6.1, PCI Express Base Specification 4.0 §7.5 (names and offsets as in Linux
include/uapi/linux/pci_regs.h).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CONFIG_BYTES = 4096
COMMAND, STATUS = 0x04, 0x06
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_INTX_DISABLE = 0x1, 0x2, 0x4, 0x400
BAR_OFFSETS = tuple(0x10 + 4 * bar for bar in range(6))
ROM_ADDRESS, ROM_ENABLE = 0x30, 0x1
CAPABILITY_POINTER = 0x34
CAP_PM, CAP_EXPRESS, CAP_MSI = 0x50, 0x64, 0xA0  # where Navi boards have them (lspci of RX 7900 cards)
CAP_MSIX = 0xC0  # Linux 6.12 nbio_4_3_0_offset.h: cfgBIF_CFG_DEV0_EPF0_0_MSIX_CAP_LIST
EXT_VENDOR, EXT_REBAR = 0x100, 0x200
REBAR_LOG2_MIB = range(8, 16)  # 256 MiB to 32 GiB
CAP_ID_PM, CAP_ID_MSI, CAP_ID_EXPRESS, CAP_ID_MSIX = 0x01, 0x05, 0x10, 0x11
MSI_ENABLE = 0x1
MSIX_ENABLE, MSIX_FUNCTION_MASK = 0x8000, 0x4000
EXT_ID_VENDOR, EXT_ID_REBAR = 0x000B, 0x0015
EXPRESS_DEVICE_CAP_FLR = 1 << 28
EXPRESS_DEVICE_CONTROL_FLR = 1 << 15
# Where the emulated machine's firmware puts the BARs: above every bus address of its memory.
FIRST_BAR_ADDRESS = 0x80_0000_0000
BAR_ADDRESS_32 = 0xE000_0000


@dataclass(frozen=True, slots=True)
class BarSpec:
    """One base address register pair or single."""

    size_bytes: int
    is_64_bit: bool
    prefetchable: bool


@dataclass(frozen=True, slots=True)
class MsixSpec:
    """How many vectors MSI-X has, and where its table and its pending bits are."""

    vectors: int
    bar: int
    table_offset: int
    pending_offset: int


class ConfigSpace:
    """4 KiB of configuration registers with write masks, and two hooks: function-level reset and command changes."""

    def __init__(
        self,
        *,
        vendor: int,
        device: int,
        revision: int,
        class_code: int,
        subsystem: tuple[int, int],
        bars: dict[int, BarSpec],
        on_function_reset: Callable[[], None],
        rom_bytes: int = 0,
        msix: MsixSpec | None = None,
    ) -> None:
        self._bytes = bytearray(CONFIG_BYTES)
        self._writable = bytearray(CONFIG_BYTES)
        self._bars = bars
        self._msix = msix
        self._on_function_reset = on_function_reset
        self._initial = b""
        self._put(0x00, 2, vendor)
        self._put(0x02, 2, device)
        # I/O decoding, although no BAR is for it: a VGA device has the old ports, and a PC's firmware looks at the bit.
        decode = COMMAND_IO | COMMAND_MEMORY
        self._put(COMMAND, 2, 0, writable=decode | COMMAND_MASTER | COMMAND_INTX_DISABLE | 0x140)
        self._put(STATUS, 2, 0x0010)  # capabilities list
        self._put(0x08, 1, revision)
        self._put(0x09, 3, class_code)
        self._put(0x0C, 1, 0, writable=0xFF)
        self._put(0x2C, 2, subsystem[0])
        self._put(0x2E, 2, subsystem[1])
        if rom_bytes:
            self._put(ROM_ADDRESS, 4, 0, writable=~(rom_bytes - 1) & 0xFFFF_FFFF | ROM_ENABLE)
        self._put(CAPABILITY_POINTER, 1, CAP_PM)
        self._put(0x3C, 1, 0, writable=0xFF)
        self._put(0x3D, 1, 1)  # INTA#
        self._lay_out_bars()
        self._lay_out_capabilities()
        self._initial = bytes(self._bytes)

    def read(self, offset: int, width: int) -> int:
        """``width`` bytes at ``offset``, little endian."""
        return int.from_bytes(self._bytes[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int) -> None:
        """Write through the mask; a set FLR bit resets the function."""
        for index in range(width):
            mask = self._writable[offset + index]
            byte = (value >> (8 * index)) & 0xFF
            self._bytes[offset + index] = (self._bytes[offset + index] & ~mask) | (byte & mask)
        control = CAP_EXPRESS + 8
        if offset <= control + 1 < offset + width and self.read(control, 2) & EXPRESS_DEVICE_CONTROL_FLR:
            self._on_function_reset()

    def reset(self) -> None:
        """Back to power-on contents, BAR addresses included."""
        self._bytes[:] = self._initial

    def enumerate_bus(self) -> None:
        """What a machine's firmware does before any driver runs: addresses for the BARs, memory decode on."""
        address = FIRST_BAR_ADDRESS
        for bar, spec in sorted(self._bars.items(), key=lambda item: -item[1].size_bytes):
            address = (address + spec.size_bytes - 1) & ~(spec.size_bytes - 1) if spec.is_64_bit else BAR_ADDRESS_32
            self.write(BAR_OFFSETS[bar], 4, address & 0xFFFF_FFFF)
            if spec.is_64_bit:
                self.write(BAR_OFFSETS[bar + 1], 4, address >> 32)
                address += spec.size_bytes
        self.write(COMMAND, 2, self.read(COMMAND, 2) | COMMAND_MEMORY)

    def save(self) -> bytes:
        """Everything, as an operating system keeps it over a reset that it does itself."""
        return bytes(self._bytes)

    def restore(self, saved: bytes) -> None:
        """Put back what ``save`` returned."""
        self._bytes[:] = saved

    @property
    def bus_master(self) -> bool:
        """Whether the function may start DMA."""
        return bool(self.read(COMMAND, 2) & COMMAND_MASTER)

    @property
    def memory_decode(self) -> bool:
        """Whether the function answers at its BARs."""
        return bool(self.read(COMMAND, 2) & COMMAND_MEMORY)

    @property
    def msi_enabled(self) -> bool:
        """Whether message-signalled interrupts are on."""
        return bool(self.read(CAP_MSI + 2, 2) & MSI_ENABLE)

    @property
    def msix_enabled(self) -> bool:
        """Whether the vectors of MSI-X are in use, rather than MSI or the line."""
        return self._msix is not None and bool(self.read(CAP_MSIX + 2, 2) & MSIX_ENABLE)

    @property
    def msix_masked(self) -> bool:
        """Whether all vectors of MSI-X are held back."""
        return bool(self.read(CAP_MSIX + 2, 2) & MSIX_FUNCTION_MASK)

    def disable_msix(self) -> None:
        """What an operating system does when the vectors have lost their user."""
        if self._msix is not None:
            self.write(CAP_MSIX + 2, 2, 0)

    def _put(self, offset: int, width: int, value: int, *, writable: int = 0) -> None:
        self._bytes[offset : offset + width] = value.to_bytes(width, "little")
        self._writable[offset : offset + width] = writable.to_bytes(width, "little")

    def _lay_out_bars(self) -> None:
        for bar, spec in self._bars.items():
            flags = (0x4 if spec.is_64_bit else 0) | (0x8 if spec.prefetchable else 0)
            mask = ~(spec.size_bytes - 1) & 0xFFFF_FFFF_FFFF_FFFF
            self._put(BAR_OFFSETS[bar], 4, flags, writable=mask & 0xFFFF_FFF0)
            if spec.is_64_bit:
                self._put(BAR_OFFSETS[bar + 1], 4, 0, writable=mask >> 32)

    def _lay_out_capabilities(self) -> None:
        self._put(CAP_PM, 2, CAP_ID_PM | CAP_EXPRESS << 8)
        self._put(CAP_PM + 2, 2, 0x0003)
        self._put(CAP_PM + 4, 2, 0, writable=0x3)  # power state
        self._put(CAP_EXPRESS, 2, CAP_ID_EXPRESS | CAP_MSI << 8)
        self._put(CAP_EXPRESS + 2, 2, 0x0012)  # version 2, legacy endpoint
        self._put(CAP_EXPRESS + 4, 4, EXPRESS_DEVICE_CAP_FLR | 0x1)
        self._put(CAP_EXPRESS + 8, 2, 0x2810, writable=0xFFFF)
        self._put(CAP_EXPRESS + 0xC, 4, 0x00400D04)  # x16, 16 GT/s, L0s and L1 supported
        self._put(CAP_EXPRESS + 0x10, 2, 0x0042, writable=0x0FFB)  # link control: L1 on, as firmware leaves it
        self._put(CAP_EXPRESS + 0x12, 2, 0x1104)
        self._put(CAP_MSI, 2, CAP_ID_MSI | (CAP_MSIX << 8 if self._msix else 0))
        self._put(CAP_MSI + 2, 2, 0x0080, writable=0x0071)  # 64-bit, one vector
        self._put(CAP_MSI + 4, 4, 0, writable=0xFFFF_FFFC)
        self._put(CAP_MSI + 8, 4, 0, writable=0xFFFF_FFFF)
        self._put(CAP_MSI + 0xC, 2, 0, writable=0xFFFF)
        if self._msix is not None:
            self._put(CAP_MSIX, 2, CAP_ID_MSIX)
            self._put(CAP_MSIX + 2, 2, self._msix.vectors - 1, writable=MSIX_ENABLE | MSIX_FUNCTION_MASK)
            self._put(CAP_MSIX + 4, 4, self._msix.table_offset | self._msix.bar)
            self._put(CAP_MSIX + 8, 4, self._msix.pending_offset | self._msix.bar)
        self._put(EXT_VENDOR, 4, EXT_ID_VENDOR | 1 << 16 | EXT_REBAR << 20)
        self._put(EXT_VENDOR + 4, 4, 0x01 | 1 << 16 | 0x10 << 20)
        self._put(EXT_REBAR, 4, EXT_ID_REBAR | 1 << 16)
        # Bit n + 4 of the capability says that 2**n MiB is offered; the control register holds n of the present size.
        # Resizing is up to the platform before boot: the control register is read-only here.
        self._put(EXT_REBAR + 4, 4, sum(1 << (log2 + 4) for log2 in REBAR_LOG2_MIB))
        self._put(EXT_REBAR + 8, 4, (self._bars[0].size_bytes.bit_length() - 21) << 8 | 1 << 5)
