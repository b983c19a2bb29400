"""Resets that the kernel does on a process's behalf. It saves configuration space before and restores it after.

Source: Linux Documentation/ABI/testing/sysfs-bus-pci (reset, reset_method, and reset_subordinate in newer kernels).
"""

from __future__ import annotations

from pathlib import Path

from amdrv.errors import Refused

FUNCTION_LEVEL = "flr"
PORT_DRIVER = "pcieport"  # the kernel's own, bound to every bridge


def function_reset(name: str, folder: Path) -> None:
    """PCIe function-level reset of the function at ``folder``. Raises Refused when it is not offered, OSError."""
    reset, method = folder / "reset", folder / "reset_method"
    if not reset.exists():
        raise Refused(f"{name}: the kernel offers no reset of this function; a mode1 reset may do: amdrv reset")
    if not method.exists():  # a kernel that chooses by itself
        reset.write_text("1", encoding="ascii")
        return
    offered = method.read_text(encoding="ascii").strip()
    if FUNCTION_LEVEL not in offered.split():
        raise Refused(f"{name}: no function-level reset; the kernel offers: {offered or 'nothing'}")
    method.write_text(FUNCTION_LEVEL, encoding="ascii")
    try:
        reset.write_text("1", encoding="ascii")
    finally:
        method.write_text(offered, encoding="ascii")  # the choice outlives this process; leave it as it was


def bus_reset(name: str, folder: Path) -> None:
    """Reset everything below the function's bridge. Raises Refused when that is not offered or hits others, OSError."""
    bridge = folder.resolve().parent
    trigger = bridge / "reset_subordinate"
    if not trigger.exists():
        raise Refused(f"{name}: the kernel offers no reset of the bus it is on (newer ones do, for bridges)")
    for link in sorted(bridge.glob("*:*:*.*/**/driver")):
        driver = link.resolve().name
        is_function = (link.parent / "config").exists()  # and not a service or a codec inside one
        if is_function and driver != PORT_DRIVER:
            raise Refused(f"{name}: {link.parent.name} is on the same bus and bound to {driver}; unbind it first")
    trigger.write_text("1", encoding="ascii")
