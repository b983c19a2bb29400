"""Which C2PMSG mailbox does what: the doors to the PSP (MP0) and the SMU (MP1).

Source: Linux 6.12 psp_v13_0.c, smu_v13_0_0_ppt.c (smu_v13_0_0_set_smu_mailbox_registers), smu_v13_0.c; psp_v14_0.c and
smu_v14_0_2_ppt.c use the same numbers.
"""

from __future__ import annotations

import enum

PSP_REGISTER = "MP0_SMN_C2PMSG_{}"
SMU_REGISTER = "MP1_SMN_C2PMSG_{}"


class PspMailbox(enum.IntEnum):
    """Number of the MP0 mailbox in each role."""

    BOOT_FIRMWARE = 33  # bit 31: the boot firmware is done
    BOOTLOADER = 35  # BootloaderCommand in, exactly READY out
    BOOTLOADER_ADDRESS = 36  # image address >> 20
    SOS_VERSION = 58
    RING_CONTROL = 64  # ControlCommand in, READY and a status in the low 16 bits out
    RING_WPTR = 67  # dwords
    RING_ADDRESS_LO = 69
    RING_ADDRESS_HI = 70
    RING_SIZE = 71  # bytes
    SOS_ALIVE = 81  # not zero once the secure OS runs; changes when it starts


READY = 0x80000000
RING_STATUS_MASK = 0x0000FFFF

# The bootloader takes an address in MiB, so an image lies at a MiB boundary of one MiB of memory.
BOOTLOADER_ADDRESS_SHIFT = 20
BOOTLOADER_BUFFER_BYTES = 1 << 20
RING_BYTES = 0x1000
COMMAND_BUFFER_BYTES = 0x1000
FENCE_BUFFER_BYTES = 0x1000
TMR_ALIGNMENT_BYTES = 0x100000
COMMAND_BUFFER_VERSION = 1
RING_FRAME_DWORDS = 16
SETTLE_AFTER_COMMAND_S = 0.020  # the kernel waits this long after starting the secure OS and after ring commands

# SETUP_TMR: tmr_flags.
TMR_SRIOV = 0x1
TMR_PHYSICAL_ADDRESS = 0x2  # the system address is given as well

# Known values of a response's status. Anything but zero means that the command was not done.
PSP_STATUS: dict[int, str] = {
    0x00000000: "success",
    0x00000100: "unknown command",
    0xFFFF0002: "cancelled",
    0xFFFF000A: "not supported",
}


class SmuMailbox(enum.IntEnum):
    """Number of the MP1 mailbox in each role."""

    MESSAGE = 66
    ARGUMENT = 82
    RESPONSE = 90  # cleared before a message, the Result after it
    DEBUG_MESSAGE = 75
    DEBUG_ARGUMENT = 53
    DEBUG_RESPONSE = 54


# The SMU's firmware flags, in the SMN address space; bit 0 says that it takes messages.
SMU_FIRMWARE_FLAGS_SMN = 0x3B10024
SMU_FIRMWARE_FLAGS_READY = 0x1
