"""``amdrv vm``: how an address translates."""

from __future__ import annotations

import click

from amdrv.cli.devices import chosen, device_option
from amdrv.cli.output import Json, print_json
from amdrv.runtime.selection import open_device

ADDRESS_BITS = 48


class _Address(click.ParamType[int]):
    """A device address."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a usage error otherwise."""
        try:
            address = value if isinstance(value, int) else int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is not an address", param, ctx)
        if not 0 <= address < 1 << ADDRESS_BITS:
            self.fail(f"{value!r} is not a {ADDRESS_BITS}-bit address", param, ctx)
        return address


@click.command()
@click.argument("address", type=_Address())
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(address: int, device: str | None, as_json: bool) -> None:
    """Walk the page tables for ADDRESS, a line a level, in a device that is opened for it.

    What a fresh device maps is the driver's own: the compute queue's ring lies at 0x200000000000.
    """
    with open_device(chosen(device)) as opened:
        steps = opened.gpu.memory.walk(address)
    if as_json:
        levels: list[Json] = [
            {
                "level": step.level, "index": step.index, "entry_address": step.entry_address, "entry": step.entry,
                "fields": dict(step.fields), "kind": step.kind, "target": step.target,
            }
            for step in steps
        ]  # fmt: skip
        print_json({"address": address, "levels": levels})
        return
    for step in steps:
        click.echo(str(step))
        shown = " ".join(f"{name}={value:#x}" for name, value in step.fields.items() if value)
        if shown:
            click.echo(f"    {shown}")
