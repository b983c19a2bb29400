"""The vfio-user protocol: messages, flags and layouts that client and server share.

Sources: QEMU docs/interop/vfio-user.rst (protocol 0.x); Linux include/uapi/linux/vfio.h for region and interrupt
structures; nutanix/libvfio-user include/vfio-user.h for DMA_UNMAP flags. All fields are little endian.
"""

from __future__ import annotations

import enum
import os
import struct

MAJOR, MINOR = 0, 0
HEADER = struct.Struct("<HHIII")  # message id, command, bytes with this header, flags, errno
TYPE_MASK, TYPE_COMMAND, TYPE_REPLY = 0xF, 0x0, 0x1
NO_REPLY, ERROR = 0x10, 0x20
DATA_BYTES_MAX = 1 << 20  # of one region or DMA access, unless the peer says less
DESCRIPTORS_MAX = 16  # in one message: what QEMU takes at most
PAGE_BYTES = 4096


class Command(enum.IntEnum):
    """What a message asks for; DMA_READ and DMA_WRITE go from server to client."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


# -- bodies, behind the header ----------------------------------------------------------------------------------------

VERSION = struct.Struct("<HH")  # major, minor; then JSON with a NUL behind it
DMA_MAP = struct.Struct("<IIQQQ")  # argsz, flags, file offset, address, size
DMA_READABLE, DMA_WRITABLE = 0x1, 0x2
DMA_MAPPED, DMA_FILE = 0x4, 0x8  # libvfio-user: map the descriptor, or read and write through it; both want one
DMA_UNMAP = struct.Struct("<IIQQ")  # argsz, flags, address, size
UNMAP_ALL = 0x2
DEVICE_INFO = struct.Struct("<IIII")  # argsz, flags, regions, interrupt types
DEVICE_RESETTABLE, DEVICE_PCI = 0x1, 0x2
REGION_INFO = struct.Struct("<IIIIQQ")  # argsz, flags, index, offset of the first capability, size, offset for mmap
REGION_READABLE, REGION_WRITABLE, REGION_MAPPABLE, REGION_CAPABILITIES = 0x1, 0x2, 0x4, 0x8
CAPABILITY = struct.Struct("<HHI")  # id, version, offset of the next one or 0
CAPABILITY_SPARSE, CAPABILITY_TYPE = 1, 2
SPARSE = struct.Struct("<II")  # areas, reserved; then per area:
SPARSE_AREA = struct.Struct("<QQ")  # offset in the region, size
REGION_TYPE = struct.Struct("<II")  # type, subtype
REGION_TYPE_PCI_VENDOR = 0x8000_0000  # ored with the vendor id
IRQ_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
IRQ_EVENTFD, IRQ_MASKABLE, IRQ_AUTOMASKED, IRQ_NORESIZE = 0x1, 0x2, 0x4, 0x8
SET_IRQS = struct.Struct("<IIIII")  # argsz, flags, index, start, count; then a byte each with DATA_BOOL
DATA_NONE, DATA_BOOL, DATA_EVENTFD = 0x1, 0x2, 0x4
ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER = 0x8, 0x10, 0x20
DATA_TYPES, ACTIONS = 0x7, 0x38
REGION_ACCESS = struct.Struct("<QII")  # offset, region, count; then data
DMA_ACCESS = struct.Struct("<QQ")  # bus address, count; then data
DMA_WRITTEN = struct.Struct("<QI")  # of the reply to DMA_WRITE; some send the count as 64 bits
WRITE_MULTI = struct.Struct("<Q")  # writes; then per write:
WRITE_MULTI_ENTRY = struct.Struct("<QII8s")  # offset, region, count, data

def reason(number: int) -> str:
    """What the errno of an error reply says; a peer may send any number."""
    if not number:
        return "no reason given"
    return os.strerror(number) if number < 1 << 31 else f"error {number}"


# -- a PCI device -----------------------------------------------------------------------------------------------------

ROM_REGION, CONFIG_REGION, VGA_REGION = 6, 7, 8  # 0 to 5 are the BARs
PCI_REGIONS = 9


class Irq(enum.IntEnum):
    """Kinds of interrupt of a PCI device."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


# -- an additional region of this project's own card ------------------------------------------------------------------

MACHINE_REGION = PCI_REGIONS
MACHINE_TYPE = REGION_TYPE_PCI_VENDOR | 0x1002
MACHINE_SUBTYPE = 0x656D75
MACHINE_BYTES = 4096
HOLDER_BYTES = 256
LONGEST_WAIT_S = 3600.0  # virtual, in one request
HOLDER_KEY = "amdrv"  # capability of a client that wants to be told who has the card; the server's answer stands there


class Machine(enum.IntEnum):
    """Byte offsets in the region that shows the machine around the card: its time above all.

    A client that touches it keeps the card's own time: that passes only when something takes time. For any other
    client the card's time follows the wall clock.
    """

    NOW_NS = 0x00  # read, 8 bytes: virtual nanoseconds
    SLEEP_NS = 0x08  # write, 8 bytes: let that many pass
    RELAX_NS = 0x10  # write, 8 bytes: let time pass until something may have changed, at most that many
    BUS_RESET = 0x18  # write, 8 bytes: reset of the bus that the card is on
    CHIP = 0x20  # read, 16 bytes: the chip's name, NUL behind it
    HOLDER = 0x100  # write, up to HOLDER_BYTES: what the client calls itself, for whoever finds the card in use
