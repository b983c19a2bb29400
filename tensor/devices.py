"""Names of devices, and the backends behind them."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING

from amdrv.errors import InvalidArgument
from amdrv.tensor.storage import Backend

if TYPE_CHECKING:
    from amdrv.tensor.gpu import GpuBackend
    from amdrv.tensor.host import HostBackend

DEFAULT = "AMD"


@functools.cache
def host() -> HostBackend:
    """The processor that Python runs on."""
    from amdrv.tensor.host import HostBackend

    return HostBackend()


@functools.cache
def _gpus() -> weakref.WeakKeyDictionary[object, GpuBackend]:
    return weakref.WeakKeyDictionary()


def backend(device: object = None) -> Backend:
    """The backend of "AMD" (the process's default device, also for None), "CPU", an open Device, or a backend itself.

    Raises InvalidArgument for anything else.
    """
    if device == "CPU":
        return host()
    if isinstance(device, str) and device != DEFAULT:
        raise InvalidArgument(f'{device!r} is no device of tensors; they are "AMD", "CPU" and open Devices')
    if (
        device is not None
        and not isinstance(device, str)
        and hasattr(device, "allocate")
        and hasattr(device, "compile")
    ):
        return device  # type: ignore[return-value]
    from amdrv.runtime.device import Device
    from amdrv.runtime.selection import default_device
    from amdrv.tensor.gpu import GpuBackend

    opened = default_device() if device is None or device == DEFAULT else device
    if not isinstance(opened, Device):
        raise InvalidArgument(f"{device!r} is no device of tensors")
    found = _gpus().get(opened)
    if found is None:
        found = _gpus()[opened] = GpuBackend(opened)
    return found
