"""``amdrv reg``: registers by name."""

from __future__ import annotations

import click

from amdrv import asic as asics
from amdrv import discovery
from amdrv.cli.devices import chosen, device_option
from amdrv.cli.output import Json, console, print_json, show, table
from amdrv.errors import InvalidArgument, NotFound
from amdrv.ioctl import PciFunction, connect
from amdrv.ioctl.pci_function import REGISTER_BAR
from amdrv.mmio import Mmio
from amdrv.registers import Field, Register, RegisterMap, RegisterValue
from amdrv.runtime.selection import command_line
from amdrv.vram import Vram, read_size_bytes

WORD_MAX = 0xFFFF_FFFF


class _Number(click.ParamType[int]):
    """A 32-bit number in any notation of Python."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a usage error otherwise."""
        try:
            number = value if isinstance(value, int) else int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not 0 <= number <= WORD_MAX:
            self.fail(f"{value!r} does not fit 32 bits", param, ctx)
        return number


@click.group()
def command() -> None:
    """List, read and write registers by name.

    Names are those of AMD's headers. A pattern is a glob (GCVM_CONTEXT*_CNTL, MMHUB.*FAULT*) or a byte address
    (0x58a08).
    """


@command.command("list")
@click.argument("pattern")
@click.option("--arch", default="gfx1100", show_default=True, help="Chip whose registers are meant.")
@click.option("--value", type=_Number(), help="Decode this value as each of them.")
@click.option("--fields", is_flag=True, help="Show the bits of every field.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_registers(pattern: str, arch: str, value: int | None, fields: bool, as_json: bool) -> None:
    """List registers by name or address. Needs no device."""
    found = _find(_map_of(arch), pattern)
    if as_json:
        print_json({"arch": arch, "registers": [_described(register, value) for register in found]})
        return
    out = console()
    columns = [">address", "register"] + ["value"] * (value is not None) + ["fields"] * fields
    made = table(out, columns)
    for register in found:
        row = [f"{register.address:#x}", register.full_name]
        if value is not None:
            row.append(_decoded(register.decode(value)))
        if fields:
            row.append(", ".join(f"{name} {_bits(field)}" for name, field in register.fields.items()))
        made.add_row(*row)
    show(out, made)


@command.command("read")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def read_registers(patterns: tuple[str, ...], device: str | None, as_json: bool) -> None:
    """Read registers of a device and decode them.

    The device is not opened, so one that is in use can be looked at. Reading some registers has effects.
    """
    name = chosen(device)
    function = connect(name)
    try:
        mmio = _mmio(function)
        found = [register for pattern in patterns for register in _find(mmio.registers, pattern)]
        for register in found:
            if register.address >= function.bar_size(REGISTER_BAR):
                raise InvalidArgument(f"{register.full_name} lies outside BAR5, and the window to it needs writes")
        values = [mmio.read(register) for register in found]
    finally:
        function.release()
    if as_json:
        print_json({"device": name, "registers": [_described(v.register, int(v)) for v in values]})
        return
    for value in values:
        click.echo(str(value))


@command.command("write")
@click.argument("name")
@click.argument("value", type=_Number())
@device_option
def write_register(name: str, value: int, device: str | None) -> None:
    """Write a register of a device and read it back. This can crash the card.

    A device that somebody has open is refused.
    """
    function = connect(chosen(device, harmful=True))
    function.acquire(command_line())
    try:
        mmio = _mmio(function)
        found = _find(mmio.registers, name)
        if len(found) != 1:
            raise InvalidArgument(f"{name!r} means {len(found)} registers; a write takes one")
        before = mmio.read(found[0])
        mmio.write(found[0], value)
        click.echo(f"before: {before}\nafter:  {mmio.read(found[0])}")
    finally:
        function.release()


def _map_of(arch: str) -> RegisterMap:
    from amdrv.emulator.chips import CHIPS

    chip = CHIPS.get(arch)
    if chip is None:
        raise NotFound(f"there are no registers for {arch!r}; known are {', '.join(CHIPS)}")
    return RegisterMap(chip.bases, chip.versions)


def _mmio(function: PciFunction) -> Mmio:
    blocks = discovery.parse(discovery.read(Vram(function, read_size_bytes(function))))
    return Mmio(function, asics.register_map(blocks))


def _find(registers: RegisterMap, pattern: str) -> list[Register]:
    """Registers by glob or byte address. Raises NotFound when there are none."""
    try:
        register = registers.at(int(pattern, 0))
        found = [] if register is None else [register]
    except ValueError:
        found = registers.find(pattern) or registers.find(pattern.upper())
    if not found:
        raise NotFound(f"no register is called, or lies at, {pattern!r}")
    return found


def _bits(field: Field) -> str:
    """As a data sheet writes a bit range: 31:0, or 7."""
    return f"{field.lo + field.width - 1}:{field.lo}" if field.width > 1 else str(field.lo)


def _decoded(value: RegisterValue) -> str:
    return str(value).partition("=")[2]


def _described(register: Register, value: int | None) -> dict[str, Json]:
    fields: dict[str, Json] = {name: [field.lo, field.width] for name, field in register.fields.items()}
    described: dict[str, Json] = {"name": register.full_name, "address": register.address, "fields": fields}
    if value is not None:
        described |= {"value": value, "decoded": dict(register.decode(value).decoded())}
    return described
