"""Named registers: where they are and what their bits mean. Nothing here touches a device."""

from amdrv.registers.fields import BitLayout, Field, decode_fields, encode_fields
from amdrv.registers.map import RegisterBlock, RegisterMap
from amdrv.registers.register import Register, RegisterArray, RegisterValue, UnknownRegister
from amdrv.registers.sources import SOURCES, TableSource
from amdrv.registers.table import RegisterTable

__all__ = [
    "SOURCES",
    "BitLayout",
    "Field",
    "Register",
    "RegisterArray",
    "RegisterBlock",
    "RegisterMap",
    "RegisterTable",
    "RegisterValue",
    "TableSource",
    "UnknownRegister",
    "decode_fields",
    "encode_fields",
]
