"""Where the driver keeps its own things in device memory. Data only.

The places are fixed, so that a later start finds them again without being told: a warm boot reads the boot record,
and the interrupt ring, the firmware's trusted region and the page directory stay where the hardware already looks.

    0        firmware console: the boot screen may still be scanned out of here, and drawn into by the host
    16 MiB   driver region (below), then heap
    32 MiB   trusted memory region (TMR), which only the security processor may touch once it is set up
    64 MiB   heap
    -64 MiB  firmware's own: discovery table, security processor's database, memory training
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from amdrv.errors import Unsupported

KIB = 1 << 10
MIB = 1 << 20
PAGE = 4 * KIB

LAYOUT_VERSION = 1  # changes whenever anything below moves; a record with another version is not warm


class Region(NamedTuple):
    """A range of device memory."""

    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        """First byte behind the range."""
        return self.offset + self.size_bytes


CONSOLE = Region(0, 16 * MIB)
DRIVER = Region(16 * MIB, 2 * MIB)
TMR = Region(32 * MIB, 32 * MIB)
FIRMWARE_TAIL_BYTES = 64 * MIB

# Linux 6.12 amdgpu_psp.c: the message buffer is 1 MiB, aligned to 1 MiB because its address is passed in MiB; ring,
# command and fence buffers are a page each.
PSP_MESSAGE = Region(DRIVER.offset, 1 * MIB)
BOOT_RECORD = Region(PSP_MESSAGE.end, PAGE)
PSP_RING = Region(BOOT_RECORD.end, PAGE)
PSP_COMMAND = Region(PSP_RING.end, PAGE)
PSP_FENCE = Region(PSP_COMMAND.end, PAGE)
DEFAULT_PAGE = Region(PSP_FENCE.end, PAGE)  # where accesses land that the system aperture cannot place
FAULT_PAGE = Region(DEFAULT_PAGE.end, PAGE)  # where accesses land that have no translation
ROOT_TABLE = Region(FAULT_PAGE.end, PAGE)
IH_WPTR = Region(ROOT_TABLE.end, PAGE)
SMU_TABLE = Region(IH_WPTR.end, 64 * KIB)
MQDS = Region(SMU_TABLE.end, 64 * KIB)
IH_RING = Region(DRIVER.offset + 3 * MIB // 2, 256 * KIB)

SMALLEST_VRAM = TMR.end + FIRMWARE_TAIL_BYTES + 64 * MIB


@dataclass(frozen=True, slots=True)
class VramLayout:
    """The division of one card's memory."""

    vram_bytes: int
    heap: tuple[Region, ...]

    @classmethod
    def of(cls, vram_bytes: int, visible_bytes: int) -> VramLayout:
        """Divide ``vram_bytes``. Raises Unsupported when the memory, or the part that BAR0 shows, is too small."""
        if vram_bytes < SMALLEST_VRAM or visible_bytes < TMR.end:
            raise Unsupported(
                f"{vram_bytes // MIB} MiB of device memory, {visible_bytes // MIB} MiB of it visible, is too little:"
                f" {SMALLEST_VRAM // MIB} and {TMR.end // MIB} MiB are needed"
            )
        high = Region(TMR.end, vram_bytes - FIRMWARE_TAIL_BYTES - TMR.end)
        return cls(vram_bytes, (Region(DRIVER.end, TMR.offset - DRIVER.end), high))
