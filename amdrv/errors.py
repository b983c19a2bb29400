"""The error family: every failure a caller can meet, each saying what was being done and to what.

The classes answer the question a person has first: was the hardware touched, and is the device still usable?
"""

from __future__ import annotations


class AmdrvError(Exception):
    """Base of everything that amdrv raises on purpose."""


class Refused(AmdrvError):
    """Nothing was written to the device: the request was wrong, or the device is not one we know."""


class InvalidArgument(Refused, ValueError):
    """A caller's argument is out of range, of the wrong type or of the wrong count."""


class NotFound(Refused, KeyError):
    """A named thing (kernel, firmware image, register, device) does not exist."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; a sentence should print as a sentence.
        return str(self.args[0]) if self.args else ""


class Unsupported(Refused):
    """The device or the input is well-formed but of a kind this version does not handle."""


class MalformedInput(Refused, ValueError):
    """Bytes that came from outside (firmware, discovery table, code object) do not parse."""


class DeviceBusy(AmdrvError):
    """Someone else owns the device; the message names the holder."""

    def __init__(self, device: str, holder: str) -> None:
        super().__init__(f"{device} is in use by {holder}")
        self.device = device
        self.holder = holder


class Timeout(AmdrvError, TimeoutError):
    """A bounded wait ran out.

    ``what`` names the wait; for a register wait ``mask``, ``expected`` and ``last`` are the numbers compared. For a
    kernel that did not end ``pc``, ``mnemonic`` and ``workgroup`` say where one of its waves was, where that is known.
    """

    def __init__(
        self,
        what: str,
        timeout_s: float,
        *,
        mask: int | None = None,
        expected: int | None = None,
        last: int | None = None,
        hint: str = "",
        pc: int | None = None,
        mnemonic: str = "",
        workgroup: tuple[int, int, int] | None = None,
    ) -> None:
        text = f"timed out after {timeout_s:g} s waiting for {what}"
        if expected is not None and last is not None:
            shown = f" under mask {mask:#x}" if mask is not None else ""
            text += f": expected {expected:#x}{shown}, last value {last:#x}"
        if hint:
            text += f"; {hint}"
        super().__init__(text)
        self.what = what
        self.timeout_s = timeout_s
        self.mask = mask
        self.expected = expected
        self.last = last
        self.pc = pc
        self.mnemonic = mnemonic  # of the instruction at the pc
        self.workgroup = workgroup


class FirmwareRejected(AmdrvError):
    """The PSP answered a firmware command with a non-zero status."""

    def __init__(self, image: str, status: int, meaning: str = "") -> None:
        shown = f" ({meaning})" if meaning else ""
        super().__init__(f"PSP rejected {image}: status {status:#x}{shown}")
        self.image = image
        self.status = status


class GpuFault(AmdrvError):
    """The GPU stopped work because of an error in it: page fault, illegal instruction, trap, bad packet.

    The queue is rebuilt; device, modules and buffer contents stay valid.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        address: int | None = None,
        vmid: int | None = None,
        access: str = "",
        client: str = "",
        pc: int | None = None,
        mnemonic: str = "",
        lane: int | None = None,
        workgroup: tuple[int, int, int] | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind  # "page fault", "misaligned access", "illegal instruction", "trap", "bad packet", ...
        self.address = address  # of the access where the wave's registers tell it, else of its page
        self.vmid = vmid
        self.access = access  # "read", "write", "execute"
        self.client = client  # the hub client that made the access, for example "TCP"
        self.pc = pc
        self.mnemonic = mnemonic  # of the instruction at the pc
        self.lane = lane  # the first one that made such an access
        self.workgroup = workgroup  # of the wave at the pc
        self.detail = detail


class DeviceLost(AmdrvError):
    """Reads return all ones, or a reset took the device's memory away: buffers and modules are gone."""


class OutOfMemory(AmdrvError, MemoryError):
    """VRAM, host memory or address space is exhausted; the message gives wanted and free sizes in bytes."""
