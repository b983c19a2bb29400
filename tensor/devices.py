"""Names of devices, and the backends behind them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from amdrv.errors import InvalidArgument
from amdrv.tensor.storage import Backend, Group

if TYPE_CHECKING:
    from amdrv.tensor.gpu import GpuBackend
    from amdrv.tensor.host import HostBackend

DEFAULT = "AMD"


@functools.cache
def host(number: int | None = None) -> HostBackend:
    """The processor that Python runs on; with a number as one of several devices, to try out what is for several."""
    from amdrv.tensor.host import HostBackend

    made = HostBackend()
    made.name = "CPU" if number is None else f"CPU:{number}"
    return made


@functools.lru_cache(64)
def _group(devices: tuple[Backend, ...]) -> Group:
    return Group(devices)


def group(devices: Sequence[object]) -> Group:
    """Several devices as one; the same object for the same devices. Raises InvalidArgument for none or one twice."""
    found = tuple(backend(device) for device in devices)
    if not found or len(set(found)) != len(found) or any(isinstance(device, Group) for device in found):
        names = ", ".join(device.name for device in found)
        raise InvalidArgument(f"a group has different devices, not {names or 'none'}")
    return _group(found)


@functools.cache
def _gpus() -> weakref.WeakKeyDictionary[object, GpuBackend]:
    return weakref.WeakKeyDictionary()


def backend(device: object = None) -> Backend:
    """The backend of "AMD" (the process's default device, also for None), "CPU", an open Device, or a backend itself.

    "CPU:0", "CPU:1", … are devices of their own on the same processor. Several devices in a tuple or list are a group.
    Raises InvalidArgument for anything else.
    """
    if isinstance(device, (tuple, list)):
        return group(device)
    if device == "CPU":
        return host()
    if isinstance(device, str) and device.startswith("CPU:") and device[4:].isdecimal():
        return host(int(device[4:]))
    if isinstance(device, str) and device != DEFAULT:
        raise InvalidArgument(f'{device!r} is no device of tensors; they are "AMD", "CPU" and open Devices')
    if hasattr(device, "allocate") and hasattr(device, "compile"):
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


def same(device: object, of: Backend) -> bool:
    """Whether a device that was asked for, None for any, is the one of a tensor."""
    return device is None or backend(device) is of
