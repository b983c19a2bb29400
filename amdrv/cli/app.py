"""The group of all commands, and where each is found."""

from __future__ import annotations

import difflib
import importlib
from typing import NamedTuple

import click


class Place(NamedTuple):
    """Where a command lives and what it says of itself in the list."""

    module: str
    help: str


COMMANDS: dict[str, Place] = {
    "demo": Place("demo", "Boot a card, compute on it, show what happens."),
    "status": Place("status", "Show the cards of this machine without starting them."),
    "doctor": Place("doctor", "Check what this machine has and what is missing."),
    "run": Place("run", "Run a kernel from a code object or from LLVM IR."),
    "bench": Place("bench", "Measure how fast a device executes code."),
    "reset": Place("reset", "Reset a card."),
    "firmware": Place("firmware", "List, verify and locate firmware images."),
    "reg": Place("reg", "List, read and write registers by name."),
    "vm": Place("vm", "Walk a card's page tables."),
    "trace": Place("trace", "Show every access of a boot, by register name."),
    "emulate": Place("emulate", "Serve an emulated card to other processes and to virtual machines."),
    "disasm": Place("disasm", "Disassemble a code object or LLVM IR."),
    "viz": Place("viz", "Write an HTML page about the kernels of a program's tensors."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for an unknown name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(importlib.import_module(f"amdrv.cli.{place.module}"), "command")  # noqa: B009
        if not isinstance(command, click.Command):
            raise TypeError(f"amdrv.cli.{place.module}.command is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As the base class, with a guess at what was meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            guess = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no such command {args[0]!r}; {guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in COMMANDS.items()])


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from amdrv.cli.output import version

        click.echo(f"amdrv {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-d",
    "--device",
    metavar="NAME",
    help="Device to use, such as emu:gfx1100. Default: $AMDRV_DEVICE, then the first usable card, then emu:gfx1100.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
              help="Show version.")  # fmt: skip
def app(device: str | None) -> None:
    """Use an AMD GPU without a kernel driver, or an emulated one without a GPU.

    AMDRV_LOG=info (or debug, trace) logs to standard error; AMDRV_FIRMWARE names a folder of firmware images that is
    searched first.
    """
