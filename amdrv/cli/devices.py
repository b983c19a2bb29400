"""Which device a command works on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from amdrv.errors import InvalidArgument
from amdrv.ioctl import connect
from amdrv.runtime.selection import DEVICE_VARIABLE, resolve
from amdrv.status import ProbeReport, probe

F = TypeVar("F", bound=Callable[..., Any])

EMULATED = "emu:"
BEHIND_SOCKET = "emu:/"
REAL = "pci:"


def in_process(name: str) -> bool:
    """Whether a device is an emulated card in this process, and not one behind a socket."""
    return name.startswith(EMULATED) and not name.startswith(BEHIND_SOCKET)


def device_option(function: F) -> F:
    """``-d/--device`` on a command itself, so that it may stand before or after the command's name."""
    return click.option("-d", "--device", metavar="NAME", help="Device to use (see amdrv --help).")(function)


def chosen(device: str | None, *, harmful: bool = False) -> str:
    """The device name that a command works on; says on standard error which it is when nobody chose it.

    A command that is ``harmful`` works on a real card only when somebody has named it. Raises InvalidArgument then.
    """
    asked = device or click.get_current_context().find_root().params.get("device") or os.environ.get(DEVICE_VARIABLE)
    name = resolve(asked)
    if asked:
        return name
    if name.startswith(EMULATED):
        click.echo(f"no usable AMD card on this machine; working on the emulated one ({name})", err=True)
    elif harmful:
        raise InvalidArgument(f"{name} is a real card; name it if you mean it: --device {name}")
    else:
        click.echo(f"working on the real card {name}; the emulated one is --device emu:gfx1100", err=True)
    return name


def look(name: str) -> ProbeReport:
    """What is on a device, without owning it or writing to it."""
    function = connect(name)
    try:
        return probe(function)
    finally:
        function.release()
