"""What the driver changes in PCI configuration space: bus mastering, link power states, state around a reset."""

from __future__ import annotations

from amdrv.facts.pci import STATUS_CAPABILITY_LIST, Capability, Command, Config, Express
from amdrv.ioctl.pci_function import PciFunction

LINK_POWER_STATES = 0x3  # ASPM control of LINK_CONTROL: L0s and L1
MAX_CAPABILITIES = 48  # of 4 bytes at least, behind the 64-byte header
# Command and BARs: what a reset may clear and what the card needs to be reachable.
RESTORED_DWORDS = (
    Config.BAR0,
    Config.BAR1,
    Config.BAR2,
    Config.BAR3,
    Config.BAR4,
    Config.BAR5,
    Config.CACHE_LINE_SIZE,
    Config.INTERRUPT_LINE,
)


def find_capability(function: PciFunction, capability: Capability) -> int | None:
    """Offset of a capability, or None. Bounded: a card that is gone shows a list without end."""
    if not function.read_config(Config.STATUS, 2) & STATUS_CAPABILITY_LIST:
        return None
    at = function.read_config(Config.CAPABILITY_LIST, 1) & ~3
    for _ in range(MAX_CAPABILITIES):
        if at < 0x40:
            return None
        header = function.read_config(at, 2)
        if header & 0xFF == capability:
            return at
        at = header >> 8 & ~3
    return None


def set_command(function: PciFunction, bit: Command, on: bool) -> None:
    """Switch a bit of the command register; read back, so that it has happened when this returns."""
    command = function.read_config(Config.COMMAND, 2)
    wanted = command | bit if on else command & ~bit
    if wanted != command:
        function.write_config(Config.COMMAND, 2, wanted)
        function.read_config(Config.COMMAND, 2)


def set_link_power_states(function: PciFunction, states: int) -> int | None:
    """Choose the link power states (ASPM) that the card may enter; the former choice, None without PCI Express.

    L1 makes reads of some cards flicker to all ones behind retimers. Clearing the card's end suffices, because a link
    enters L1 only when both ends agree.
    """
    express = find_capability(function, Capability.EXPRESS)
    if express is None:
        return None
    control = function.read_config(express + Express.LINK_CONTROL, 2)
    former = control & LINK_POWER_STATES
    if former != states:
        function.write_config(express + Express.LINK_CONTROL, 2, control & ~LINK_POWER_STATES | states)
    return former


# Linux 6.12 amdgpu_device.c: amdgpu_device_cache_pci_state, amdgpu_device_load_pci_state
def save(function: PciFunction) -> dict[int, int]:
    """The header dwords that a reset may clear; for ``restore``."""
    state = {int(offset): function.read_config(offset, 4) for offset in RESTORED_DWORDS}
    state[Config.COMMAND] = function.read_config(Config.COMMAND, 2)
    return state


def restore(function: PciFunction, state: dict[int, int]) -> None:
    """Write back what differs, the command register last."""
    for offset in RESTORED_DWORDS:
        if function.read_config(offset, 4) != state[offset]:
            function.write_config(offset, 4, state[offset])
    if function.read_config(Config.COMMAND, 2) != state[Config.COMMAND]:
        function.write_config(Config.COMMAND, 2, state[Config.COMMAND])
