"""NBIO 4.3.0, the bus interface: index windows, straps, scratch, doorbell routing, the movable HDP flush registers.

Sources: Linux 6.12 nbio_v4_3.c; amdgpu_device.c (amdgpu_device_mm_access, amdgpu_device_indirect_rreg);
amdgpu_discovery.c (registers read before any base address is known).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.model import BusInterface
from amdrv.emulator.models.message_table import MessageTable
from amdrv.emulator.register_space import ALL_ONES

if TYPE_CHECKING:
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card

MIB_SHIFT = 20
DWORD_BYTES = 4
# Ranges hold for every page of doorbells: amdkfd gives each process pages of its own, in which the places that SDMA has
# in the first are again SDMA's (Linux 6.12 kfd_doorbell.c, kgd2kfd_shared_resources.sdma_doorbell_idx).
DOORBELL_PAGE_BYTES = 4096
MM_APERTURE = 0x8000_0000  # MM_INDEX bit 31: the window shows VRAM, not registers
BIOS_SCRATCH_COUNT = 16
ASIC_INIT_COMPLETE = 0x200  # BIOS_SCRATCH_7 (Linux 6.12 atombios.h): the boot ROM has posted the card
S2A_ENTRIES = 6
# Client ids that Linux 6.12 nbio_v4_3.c programs into S2A_DOORBELL_ENTRY_n_CTRL, and the block behind each.
BLOCK_OF_AWID = {0x0: "OSSSYS", 0xE: "SDMA0", 0x4: "UVD", 0x7: "UVD"}
GRAPHICS_ENTRIES = {0: 0x3, 3: 0x6}  # entry → client id of the two that lead to the graphics core, with no range
FLUSH_REGISTERS = {
    "BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL": "BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_CNTL",
    "BIF_BX0_REMAP_HDP_REG_FLUSH_CNTL": "BIF_BX_PF0_HDP_REG_COHERENCY_FLUSH_CNTL",
}
PLAIN = (
    "BIF_BX0_INTERRUPT_CNTL",
    "BIF_BX0_INTERRUPT_CNTL2",
    "BIF_BX0_BIF_DOORBELL_INT_CNTL",
    "BIF_BX_PF0_DOORBELL_SELFRING_GPA_APER_BASE_LOW",
    "BIF_BX_PF0_DOORBELL_SELFRING_GPA_APER_BASE_HIGH",
    "BIF_BX_PF0_DOORBELL_SELFRING_GPA_APER_CNTL",
    "RCC_DEV0_EPF2_STRAP2",
    # Link power management and clock gating: nbio_v4_3_program_aspm, nbio_v4_3_update_medium_grain_clock_gating.
    "CPM_CONTROL",
    "PCIE_CNTL2",
    "PCIE_LC_CNTL",
    "PCIE_LC_CNTL3",
    "PCIE_LC_CNTL4",
    "PCIE_LC_CNTL7",
    "PCIE_LC_RXRECOVER_RXSTANDBY_CNTL",
    "PSWUSP0_PCIE_LC_CNTL2",
    "RCC_EP_DEV0_0_EP_PCIE_TX_LTR_CNTL",
    "RCC_STRAP0_RCC_BIF_STRAP2",
    "RCC_STRAP0_RCC_BIF_STRAP3",
    "RCC_STRAP0_RCC_BIF_STRAP5",
    "BIF_CFG_DEV0_EPF0_DEVICE_CNTL2",
    "BIF_CFG_DEV0_EPF0_PCIE_LTR_CAP",
)


class Nbio(BusInterface):
    """The bus interface of Navi3x."""

    ip = "NBIO"
    plain: tuple[str, ...] = PLAIN

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.hdp_flushes = 0  # of memory, by register write from the host or an engine
        self._claim_windows()
        self._claim_flush_registers()
        self.claim("RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE", writable=0, reset=card.vram_bytes >> MIB_SHIFT)
        self.claim("RCC_DEV0_EPF0_RCC_IOV_FUNC_IDENTIFIER", writable=0)  # 0: not a virtual function
        self.claim("RCC_STRAP0_RCC_DEV0_EPF0_STRAP0", writable=0, reset=self._identity_strap())
        self.claim("REGS_ROM_OFFSET_CTRL", writable=0)  # the board's ROM is not shared: its image begins at 0
        # BIOS_SCRATCH_7 for Linux while it does not know its base yet (amdgpu_atombios_scratch_need_asic_init): zero
        # sends it on to the expansion ROM.
        self.claim_hole("BIF_RESERVED_7", 7)
        self._aperture = self.claim("RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN")
        self.claim("BIF_BX0_BIF_FB_EN", reset=0x3)  # reads and writes of VRAM through BAR0: on since the boot ROM
        self._ranges: list[tuple[int, int, str | None]] | None = None
        self._graphics = False
        entries = (f"S2A_DOORBELL_ENTRY_{n}_CTRL" for n in range(S2A_ENTRIES))
        self._entries = [self.claim(name, on_write=self._forget_routes) for name in entries]
        # Linux 6.12 writes "engine hung" into scratch 3 before a mode1 reset and expects the boot ROM to see it after.
        self._scratch = [self.claim(f"BIF_BX0_BIOS_SCRATCH_{n}", sticky=True) for n in range(BIOS_SCRATCH_COUNT)]
        for n in range(BIOS_SCRATCH_COUNT):
            self.claim(f"BIF_BX0_SBIOS_SCRATCH_{n}", sticky=True)
        for name in self.plain:
            self.claim(name)
        self.messages = MessageTable(self)

    def power_on(self) -> None:
        self._ranges = None
        for remap in self._remaps:
            self.card.space.move(self.register(FLUSH_REGISTERS[remap.register.name]).address, remap.value)

    def boot_rom_done(self) -> None:
        """The boot ROM has posted the card."""
        self._scratch[7].value |= ASIC_INIT_COMPLETE

    # -- doorbells ----------------------------------------------------------------------------------------------------

    def route_doorbell(self, offset: int) -> str | None:
        """Block behind a doorbell: the entry whose range holds it, else the graphics core when its entries are on.

        Linux sets both graphics entries together; that both are needed is the careful reading.
        """
        if not self._aperture.value & 1:
            return None
        if self._ranges is None:
            self._ranges, self._graphics = self._decode_entries()
        index = offset % DOORBELL_PAGE_BYTES // DWORD_BYTES
        for first, end, block in self._ranges:
            if first <= index < end:
                return block
        return "GC" if self._graphics else None

    def _forget_routes(self, _value: int) -> None:
        self._ranges = None

    def _decode_entries(self) -> tuple[list[tuple[int, int, str | None]], bool]:
        """Ranges in dwords with the block behind each, and whether everything else goes to the graphics core."""
        ranges: list[tuple[int, int, str | None]] = []
        graphics = 0
        for number, slot in enumerate(self._entries):
            entry = slot.register.decode(slot.value).decoded()
            port = f"S2A_DOORBELL_PORT{number}"
            awid, first = entry[f"{port}_AWID"], entry[f"{port}_RANGE_OFFSET"]
            if not entry[f"{port}_ENABLE"]:
                continue
            if number in GRAPHICS_ENTRIES:
                graphics += awid == GRAPHICS_ENTRIES[number]
            else:
                ranges.append((first, first + entry[f"{port}_RANGE_SIZE"], BLOCK_OF_AWID.get(awid)))
        return ranges, graphics == len(GRAPHICS_ENTRIES)

    # -- index windows ------------------------------------------------------------------------------------------------

    def _claim_windows(self) -> None:
        self._open_windows: set[str] = set()  # that are being looked through
        self._mm_index = self.claim("BIF_BX_PF0_MM_INDEX")
        self._mm_index_hi = self.claim("BIF_BX_PF0_MM_INDEX_HI")
        self.claim("BIF_BX_PF0_MM_DATA", on_read=self._read_mm, on_write=self._write_mm)
        # Both pairs reach the whole register address space, beyond what BAR5 shows.
        for index, high, data in (
            ("BIF_BX_PF0_RSMU_INDEX", "BIF_BX_PF0_RSMU_INDEX_HI", "BIF_BX_PF0_RSMU_DATA"),
            ("BIF_BX0_PCIE_INDEX2", "BIF_BX0_PCIE_INDEX2_HI", "BIF_BX0_PCIE_DATA2"),
        ):
            low, top = self.claim(index), self.claim(high, writable=0xFF)
            far = index, low, top
            self.claim(data, on_read=partial(self._read_far, *far), on_write=partial(self._write_far, *far))

    def _read_far(self, window: str, low: Slot, high: Slot) -> int:
        return self._read_through(window, high.value << 32 | low.value)

    def _write_far(self, window: str, low: Slot, high: Slot, value: int) -> None:
        self._write_through(window, high.value << 32 | low.value, value)

    def _read_through(self, window: str, address: int) -> int:
        """A register through a window, which does not show itself (what silicon answers then is not known)."""
        if window in self._open_windows:
            return ALL_ONES
        self._open_windows.add(window)
        try:
            return self.card.space.read(address)
        finally:
            self._open_windows.remove(window)

    def _write_through(self, window: str, address: int, value: int) -> None:
        if window in self._open_windows:
            return
        self._open_windows.add(window)
        try:
            self.card.space.write(address, value)
        finally:
            self._open_windows.remove(window)

    def _mm_vram_offset(self) -> int | None:
        """VRAM offset that the window shows, or None when it shows registers or lies beyond VRAM."""
        index = self._mm_index.value
        offset = self._mm_index_hi.value << 31 | index & ~MM_APERTURE
        return offset if index & MM_APERTURE and offset + DWORD_BYTES <= self.card.vram_bytes else None

    def _read_mm(self) -> int:
        index = self._mm_index.value
        if not index & MM_APERTURE:
            return self._read_through("MM", index)
        offset = self._mm_vram_offset()
        return ALL_ONES if offset is None else int.from_bytes(self.card.arena.load(offset, DWORD_BYTES), "little")

    def _write_mm(self, value: int) -> None:
        index = self._mm_index.value
        offset = self._mm_vram_offset()
        if not index & MM_APERTURE:
            self._write_through("MM", index, value)
        elif offset is not None:
            self.card.arena.view(offset, DWORD_BYTES)[:] = value.to_bytes(DWORD_BYTES, "little")
            self.card.host_path.engine_wrote(offset, DWORD_BYTES)

    # -- HDP flush ----------------------------------------------------------------------------------------------------

    def _claim_flush_registers(self) -> None:
        self._remaps: list[Slot] = []
        for remap, target in FLUSH_REGISTERS.items():
            flush = self.claim(target, on_write=self._flush if "MEM" in target else None).register
            # Reset values: each flush register's own address, as nbio_7_0_default.h has it; 4.3 has no such header.
            move = partial(self._move_flush, flush.address)
            self._remaps.append(self.claim(remap, writable=0x7_FFFC, reset=flush.address, on_write=move))
        self.claim("BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_ONLY_CNTL", on_write=self._flush)
        self.claim("BIF_BX_PF0_HDP_MEM_COHERENCY_INVALIDATE_ONLY_CNTL")
        self.claim("BIF_BX_PF0_GPU_HDP_FLUSH_REQ", on_write=self._engine_flush)
        self._flush_done = self.claim("BIF_BX_PF0_GPU_HDP_FLUSH_DONE", writable=0)

    def _move_flush(self, target: int, value: int) -> None:
        self.card.space.move(target, value & 0x7_FFFC)

    def _flush(self, _value: int) -> None:
        self.hdp_flushes += 1
        self.card.host_path.flush()

    def _engine_flush(self, value: int) -> None:
        self._flush(value)
        self._flush_done.value = value

    def _identity_strap(self) -> int:
        strap = self.register("RCC_STRAP0_RCC_DEV0_EPF0_STRAP0")
        return strap.encode(STRAP_DEVICE_ID_DEV0_F0=self.card.chip.device_id, STRAP_FUNC_EN_DEV0_F0=1)
