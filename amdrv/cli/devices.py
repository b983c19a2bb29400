"""Which device a command works on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from amdrv.runtime.selection import DEVICE_VARIABLE, resolve

F = TypeVar("F", bound=Callable[..., Any])

EMULATED = "emu:"
REAL = "pci:"


def device_option(function: F) -> F:
    """``-d/--device`` on a command itself, so that it may stand before or after the command's name."""
    return click.option("-d", "--device", metavar="NAME", help="Device to use (see amdrv --help).")(function)


def chosen(device: str | None) -> str:
    """The device name that a command works on; says on standard error when nobody chose the emulated card."""
    asked = device or click.get_current_context().find_root().params.get("device")
    name = resolve(asked)
    if name.startswith(EMULATED) and not asked and not os.environ.get(DEVICE_VARIABLE):
        click.echo(f"no usable AMD card on this machine; working on the emulated one ({name})", err=True)
    return name
