"""Named register access: a PCI function and a register map together.

Every block of the driver reaches the device through this. Registers beyond the end of BAR5 go through the index and
data pair of the bus interface, as do raw addresses on the system management network (SMN).
"""

from __future__ import annotations

import logging
from typing import SupportsIndex

from amdrv.ioctl.pci_function import REGISTER_BAR, PciFunction
from amdrv.log import TRACE
from amdrv.registers import Register, RegisterMap, RegisterValue

WORD = 0xFFFFFFFF

log = logging.getLogger(__name__)


class Mmio:
    """Reads, writes and waits on named registers of one device."""

    def __init__(self, function: PciFunction, registers: RegisterMap) -> None:
        self.function = function
        self.registers = registers
        self._aperture_bytes = function.bar_size(REGISTER_BAR)

    def read(self, register: Register) -> RegisterValue:
        """The register's value, with its fields as attributes."""
        if register.address < self._aperture_bytes:
            raw = self.function.read32(REGISTER_BAR, register.address)
        else:
            raw = self.read_smn(register.address)
        value = register.decode(raw)
        log.log(TRACE, "read  %s", value)
        return value

    def write(self, register: Register, value: int = 0, **fields: SupportsIndex) -> None:
        """Write ``value`` with the named ``fields`` or-ed in; every other bit is as in ``value``."""
        word = value | register.encode(**fields) if fields else value
        if log.isEnabledFor(TRACE):
            log.log(TRACE, "write %s", register.decode(word))
        if register.address < self._aperture_bytes:
            self.function.write32(REGISTER_BAR, register.address, word)
        else:
            self.write_smn(register.address, word)

    def update(self, register: Register, **fields: SupportsIndex) -> None:
        """Change the named fields and keep the other bits: one read and one write."""
        self.write(register, self.read(register).replace(**fields))

    def write_pair(self, low: Register, high: Register, value: int) -> None:
        """Write a 64-bit value to two 32-bit registers, low half first."""
        self.write(low, value & WORD)
        self.write(high, value >> 32)

    def wait(
        self, register: Register, mask: int, expected: int, timeout_s: float, what: str, hint: str = ""
    ) -> RegisterValue:
        """Read until ``value & mask == expected``; the value. Raises Timeout with the numbers, or DeviceLost."""
        described = f"{what} ({register.full_name})"
        value = register.decode(
            self.function.wait32(register.address, mask, expected, timeout_s, described, hint=hint)
        )
        log.log(TRACE, "wait  %s", value)
        return value

    def wait_fields(
        self, register: Register, timeout_s: float, what: str, hint: str = "", **fields: SupportsIndex
    ) -> RegisterValue:
        """Read until every named field has the given value; raises as ``wait`` does."""
        mask = 0
        for name in fields:
            mask |= register.fields[name].mask
        return self.wait(register, mask, register.encode(**fields), timeout_s, what, hint=hint)

    # Linux 6.12 nbio_v4_3.c: nbio_v4_3_get_pcie_index_offset and _data_offset name RSMU_INDEX and RSMU_DATA;
    # amdgpu_device.c: amdgpu_device_indirect_rreg reads the index back before it touches the data.
    def read_smn(self, address: int) -> int:
        """A 32-bit read at a byte address on the system management network."""
        self._select_smn(address)
        return self.function.read32(REGISTER_BAR, self.registers["NBIO", "BIF_BX_PF0_RSMU_DATA"].address)

    def write_smn(self, address: int, value: int) -> None:
        """A 32-bit write at a byte address on the system management network."""
        self._select_smn(address)
        data = self.registers["NBIO", "BIF_BX_PF0_RSMU_DATA"].address
        self.function.write32(REGISTER_BAR, data, value)
        self.function.read32(REGISTER_BAR, data)  # posts the write before the index moves on

    def _select_smn(self, address: int) -> None:
        index = self.registers["NBIO", "BIF_BX_PF0_RSMU_INDEX"].address
        self.function.write32(REGISTER_BAR, index, address)
        self.function.read32(REGISTER_BAR, index)
