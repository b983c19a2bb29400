"""PCI configuration space and the card's BARs.

Source: PCI Express Base Specification as in Linux 6.12 include/uapi/linux/pci_regs.h; BAR use: amdgpu_device.c,
amdgpu_doorbell_mgr.c; register hole for remapped HDP registers: nbio_v4_3.c (nbio_v4_3_set_reg_remap).
"""

from __future__ import annotations

import enum

from amdrv.registers.fields import Field

CONFIG_BYTES = 256
EXTENDED_CONFIG_BYTES = 4096
AMD_VENDOR_ID = 0x1002


class Config(enum.IntEnum):
    """Byte offsets in the header."""

    VENDOR_ID = 0x00
    DEVICE_ID = 0x02
    COMMAND = 0x04
    STATUS = 0x06
    REVISION_ID = 0x08
    CLASS_PROG = 0x09
    CLASS_DEVICE = 0x0A
    CACHE_LINE_SIZE = 0x0C
    HEADER_TYPE = 0x0E
    BAR0 = 0x10
    BAR1 = 0x14
    BAR2 = 0x18
    BAR3 = 0x1C
    BAR4 = 0x20
    BAR5 = 0x24
    SUBSYSTEM_VENDOR_ID = 0x2C
    SUBSYSTEM_ID = 0x2E
    ROM_ADDRESS = 0x30
    CAPABILITY_LIST = 0x34
    INTERRUPT_LINE = 0x3C
    INTERRUPT_PIN = 0x3D


class Command(enum.IntFlag):
    """Bits of COMMAND that the driver changes."""

    IO = 0x1
    MEMORY = 0x2
    MASTER = 0x4
    INTX_DISABLE = 0x400


STATUS_CAPABILITY_LIST = 0x10

BAR_MEMORY_64BIT = 0x4
BAR_PREFETCHABLE = 0x8
BAR_FLAG_MASK = 0xF
ROM_ENABLE = 0x1


class Bar(enum.IntEnum):
    """What lies behind each BAR of an AMD GPU since Vega10."""

    VRAM = 0
    DOORBELLS = 2
    IO = 4
    REGISTERS = 5
    ROM = 6


class Capability(enum.IntEnum):
    """Ids in the capability list."""

    POWER = 0x01
    MSI = 0x05
    VENDOR = 0x09
    EXPRESS = 0x10
    MSIX = 0x11


class ExtendedCapability(enum.IntEnum):
    """Ids in the extended list, which starts at 0x100."""

    ERROR_REPORTING = 0x01
    SERIAL_NUMBER = 0x03
    VENDOR = 0x0B
    ACS = 0x0D
    ATS = 0x0F
    SRIOV = 0x10
    PRI = 0x13
    RESIZABLE_BAR = 0x15
    LTR = 0x18
    PASID = 0x1B


EXTENDED_LIST_START = 0x100
EXTENDED_HEADER: dict[str, Field] = {"ID": Field(0, 16), "VERSION": Field(16, 4), "NEXT": Field(20, 12)}


class Express(enum.IntEnum):
    """Byte offsets in the PCI Express capability."""

    FLAGS = 0x02
    DEVICE_CAP = 0x04
    DEVICE_CONTROL = 0x08
    DEVICE_STATUS = 0x0A
    LINK_CAP = 0x0C
    LINK_CONTROL = 0x10
    LINK_STATUS = 0x12
    DEVICE_CAP2 = 0x24
    DEVICE_CONTROL2 = 0x28
    LINK_CAP2 = 0x2C
    LINK_CONTROL2 = 0x30
    LINK_STATUS2 = 0x32


EXPRESS_CAPABILITY_BYTES = 0x3C
DEVICE_CAP_FLR = 1 << 28
DEVICE_CONTROL_FLR = 1 << 15
DEVICE_STATUS_PENDING = 1 << 5
LINK_SPEED_MASK = 0xF  # of LINK_STATUS and LINK_CAP: 1 is 2.5 GT/s, 4 is 16 GT/s
LINK_WIDTH = Field(4, 6)


class Msi(enum.IntEnum):
    """Byte offsets in the MSI capability with 64-bit addresses."""

    FLAGS = 0x02
    ADDRESS_LO = 0x04
    ADDRESS_HI = 0x08
    DATA = 0x0C


MSI_ENABLE = 0x0001
MSI_64BIT = 0x0080


class Msix(enum.IntEnum):
    """Byte offsets in the MSI-X capability."""

    FLAGS = 0x02
    TABLE = 0x04
    PENDING = 0x08


MSIX_ENABLE = 0x8000
MSIX_FUNCTION_MASK = 0x4000
MSIX_TABLE_SIZE_MASK = 0x07FF  # vectors - 1


class PowerManagement(enum.IntEnum):
    """Byte offsets in the power management capability."""

    CAPABILITIES = 0x02
    CONTROL = 0x04


POWER_STATE_MASK = 0x3


class ResizableBar(enum.IntEnum):
    """Byte offsets of the first BAR's registers in the resizable BAR capability; further BARs follow every 8 bytes."""

    CAPABILITY = 0x04
    CONTROL = 0x08


# CAPABILITY bit 4 + n: a size of 1 MiB << n is possible. CONTROL holds the number n of the size in use.
REBAR_SIZES = Field(4, 28)
REBAR_CONTROL: dict[str, Field] = {"BAR_INDEX": Field(0, 3), "BAR_COUNT": Field(5, 3), "SIZE": Field(8, 6)}

# A page of the register BAR without registers. NBIO's REMAP_HDP_* registers move the HDP flush registers there, so that
# a process can be given that page alone; a write to the first flushes memory writes, to the second register writes.
REMAP_PAGE_ADDRESS = 0x80000 - 0x1000
REMAP_HDP_MEM_FLUSH = REMAP_PAGE_ADDRESS + 0x0
REMAP_HDP_REG_FLUSH = REMAP_PAGE_ADDRESS + 0x4
