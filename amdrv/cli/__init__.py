"""The command line: ``amdrv COMMAND``. Every command is a module of its own, loaded when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from amdrv import log
from amdrv.errors import AmdrvError

if TYPE_CHECKING:
    import click

FAILED = 1
USAGE = 2
INTERRUPTED = 128 + 2  # SIGINT, as a shell reports it
READER_LEFT = 128 + 13  # SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process unless given) and return its exit status.

    A mistake of the user, and every failure that the driver foresees, is one line on standard error: status 2 for a
    command line that makes no sense, 1 for anything else.
    """
    import click

    from amdrv.cli.app import app

    _never_fail_to_print()
    try:
        log.configure()
        with app.make_context("amdrv", list(sys.argv[1:] if arguments is None else arguments)) as context:
            app.invoke(context)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        return _complain(_usage(error), USAGE)
    except click.ClickException as error:
        return _complain(f"amdrv: {error.format_message()}", FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _complain("amdrv: interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Nobody reads any more; and nothing may try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except AmdrvError as error:
        return _complain(f"amdrv: {error}", FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"amdrv: {where}{error.strerror or error}", FAILED)
    return 0


def one_line(text: str) -> str:
    """``text`` without line breaks, so that an error stays one line."""
    return " ".join(filter(None, (line.strip() for line in text.splitlines())))


def _complain(text: str, status: int) -> int:
    print(one_line(text), file=sys.stderr)
    return status


def _usage(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx is not None else "amdrv"
    text = error.format_message().rstrip(".")
    return f"{command}: {text[:1].lower()}{text[1:]} (see {command} --help)"


def _never_fail_to_print() -> None:
    """A terminal that lacks a character gets a question mark, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
