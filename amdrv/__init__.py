"""Use an AMD GPU from Python without a kernel driver, or an emulated one without a GPU.

    dev = amdrv.open("emu:gfx1100")
    mod = dev.load(amdrv.compile_llvm(ir))
    mod["saxpy"].launch(grid=n // 256, block=256, args=(y, x, 2.0, n))

The names here come from the rooms behind them and are imported when first used, so that ``import amdrv`` costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from amdrv.errors import (
    AmdrvError,
    DeviceBusy,
    DeviceLost,
    FirmwareRejected,
    GpuFault,
    InvalidArgument,
    MalformedInput,
    NotFound,
    OutOfMemory,
    Refused,
    Timeout,
    Unsupported,
)

if TYPE_CHECKING:
    from amdrv import emulator, firmware, ioctl, registers, runtime
    from amdrv.runtime.buffer import Buffer
    from amdrv.runtime.compile import compile_llvm
    from amdrv.runtime.device import Device
    from amdrv.runtime.launch import Launch
    from amdrv.runtime.module import Kernel, Module
    from amdrv.runtime.selection import default_device, devices
    from amdrv.runtime.selection import open_device as open
    from amdrv.tensor import jit

__all__ = [
    "AmdrvError",
    "Buffer",
    "Device",
    "DeviceBusy",
    "DeviceLost",
    "FirmwareRejected",
    "GpuFault",
    "InvalidArgument",
    "Kernel",
    "Launch",
    "MalformedInput",
    "Module",
    "NotFound",
    "OutOfMemory",
    "Refused",
    "Timeout",
    "Unsupported",
    "compile_llvm",
    "default_device",
    "devices",
    "emulator",
    "firmware",
    "ioctl",
    "jit",
    "open",
    "registers",
    "runtime",
]

# name → (module, name there; None for the module itself)
_LAZY: dict[str, tuple[str, str | None]] = {
    "Buffer": ("amdrv.runtime.buffer", "Buffer"),
    "Device": ("amdrv.runtime.device", "Device"),
    "Kernel": ("amdrv.runtime.module", "Kernel"),
    "Launch": ("amdrv.runtime.launch", "Launch"),
    "Module": ("amdrv.runtime.module", "Module"),
    "compile_llvm": ("amdrv.runtime.compile", "compile_llvm"),
    "default_device": ("amdrv.runtime.selection", "default_device"),
    "devices": ("amdrv.runtime.selection", "devices"),
    "emulator": ("amdrv.emulator", None),
    "firmware": ("amdrv.firmware", None),
    "ioctl": ("amdrv.ioctl", None),
    "jit": ("amdrv.tensor", "jit"),
    "open": ("amdrv.runtime.selection", "open_device"),
    "registers": ("amdrv.registers", None),
    "runtime": ("amdrv.runtime", None),
}


def __getattr__(name: str) -> object:
    place = _LAZY.get(name)
    if place is None:
        raise AttributeError(f"module 'amdrv' has no attribute {name!r}")
    module_name, attribute = place
    module = importlib.import_module(module_name)
    value: object = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
