"""How a process reaches a PCI function: one interface, several ways to stand behind it."""

from amdrv.ioctl.connect import Found, connect, discover
from amdrv.ioctl.pci_function import DmaMemory, PciFunction, PciIds, ResetKind, Traffic

__all__ = ["DmaMemory", "Found", "PciFunction", "PciIds", "ResetKind", "Traffic", "connect", "discover"]
