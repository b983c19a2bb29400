"""Which device a name means, and opening it."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import threading
from typing import TYPE_CHECKING

from amdrv import ioctl
from amdrv.ioctl import Found

if TYPE_CHECKING:
    from amdrv.runtime.device import Device

DEVICE_VARIABLE = "AMDRV_DEVICE"
LAST_RESORT = "emu:gfx1100"
COMMAND_CHARS_MAX = 60


def devices() -> list[Found]:
    """What could be opened, without touching any of it: real cards first, then emulated ones."""
    return ioctl.discover()


def resolve(name: str | None) -> str:
    """The device name that ``name`` means: itself, else $AMDRV_DEVICE, the first usable real card, the emulated one."""
    if name is None:
        name = os.environ.get(DEVICE_VARIABLE) or None
    if name is not None:
        return name
    return next((found.name for found in devices() if found.usable), LAST_RESORT)


def open_device(name: str | None = None) -> Device:
    """Open and, unless it is running already, boot a device.

    ``name`` is "pci:0000:03:00.0", "emu:gfx1100" or "emu:gfx1100#1"; without one $AMDRV_DEVICE, then the first usable
    card, then the emulated one. Raises DeviceBusy naming the holder, NotFound, Refused before anything is written,
    Timeout, FirmwareRejected.
    """
    from amdrv.gpu import Gpu
    from amdrv.runtime.device import Device

    function = ioctl.connect(resolve(name))
    gpu = Gpu.open(function, command=command_line())
    try:
        return Device(gpu)
    except BaseException:
        gpu.close()
        raise


def command_line() -> str:
    """This program as a person would recognise it, for the lock that names a device's holder."""
    text = shlex.join([os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python", *sys.argv[1:]])
    return text if len(text) <= COMMAND_CHARS_MAX else text[: COMMAND_CHARS_MAX - 1] + "…"


def default_device() -> Device:
    """The process's own device: opened on first use, and again after it was closed or lost."""
    return _default().get()


@functools.cache
def _default() -> _Default:
    return _Default()


class _Default:
    """The one device that a process has without asking for one by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._device: Device | None = None

    def get(self) -> Device:
        with self._lock:
            if self._device is not None and not self._device.usable:
                self._device.close()
                self._device = None
            if self._device is None:
                self._device = open_device()
            return self._device
