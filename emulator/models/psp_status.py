"""Status values with which the emulated PSP refuses. The real ones for most cases are not public.

Ring responses use the codes of the GlobalPlatform TEE specifications, three of which Linux's psp_gfx_if.h names as
what the PSP answers with. Bootloader codes are this project's own: of the real ones only the place is known (bits 7:0
of C2PMSG_35; Linux 6.12 psp_v13_0_wait_for_bootloader).
"""

from __future__ import annotations

import enum

from amdrv.emulator.models.psp_verify import Problem


class Status(enum.IntEnum):
    """Status of a ring response."""

    SUCCESS = 0x0000_0000
    UNKNOWN_COMMAND = 0x0000_0100  # psp_gfx_if.h: PSP_ERR_UNKNOWN_COMMAND
    ACCESS_DENIED = 0xFFFF_0001  # an address does not translate
    CANCEL = 0xFFFF_0002  # psp_gfx_if.h; the register list is loaded already
    ACCESS_CONFLICT = 0xFFFF_0003  # an image of that type is loaded already
    BAD_FORMAT = 0xFFFF_0005
    BAD_PARAMETERS = 0xFFFF_0006
    BAD_STATE = 0xFFFF_0007  # the command comes too early or too late
    ITEM_NOT_FOUND = 0xFFFF_0008  # no such image type, session or loaded image
    NOT_IMPLEMENTED = 0xFFFF_0009
    NOT_SUPPORTED = 0xFFFF_000A  # psp_gfx_if.h
    OUT_OF_MEMORY = 0xFFFF_000C
    SECURITY = 0xFFFF_000F  # unknown key
    SHORT_BUFFER = 0xFFFF_0010
    SIGNATURE_INVALID = 0xFFFF_3072


class BootloaderError(enum.IntEnum):
    """Bits 7:0 of C2PMSG_35 after a command that failed."""

    UNKNOWN_COMMAND = 0x01
    OUT_OF_ORDER = 0x02
    UNREADABLE = 0x03
    MALFORMED = 0x04
    TRUNCATED = 0x05
    WRONG_TYPE = 0x06
    UNKNOWN_KEY = 0x07
    BAD_SIGNATURE = 0x08
    BAD_DIGEST = 0x09


RING_STATUS_OF: dict[Problem, Status] = {
    Problem.MALFORMED: Status.BAD_FORMAT,
    Problem.TRUNCATED: Status.SHORT_BUFFER,
    Problem.WRONG_TYPE: Status.BAD_PARAMETERS,
    Problem.UNKNOWN_KEY: Status.SECURITY,
    Problem.BAD_SIGNATURE: Status.SIGNATURE_INVALID,
    Problem.BAD_DIGEST: Status.SIGNATURE_INVALID,
}
BOOTLOADER_ERROR_OF: dict[Problem, BootloaderError] = {problem: BootloaderError[problem.name] for problem in Problem}
