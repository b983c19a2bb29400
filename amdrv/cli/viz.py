"""``amdrv viz``: runs a program and writes a page about what its tensors became."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("script", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--demo", is_flag=True, help="Show a training step of a transformer block instead of a program.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("viz.html"),
              show_default=True, help="Where the page goes.")  # fmt: skip
def command(script: Path | None, arguments: tuple[str, ...], demo: bool, output: Path) -> None:
    """Run SCRIPT with its ARGUMENTS, and write one HTML page about every kernel that its tensors ran.

    The page shows the graphs and what each rewrite rule made of them, the schedule, memory, each kernel's LLVM IR and
    machine code, and when each ran. It needs nothing but a browser. What the program prints goes where it always does.
    """
    from amdrv.tensor.viz import record, write_page

    if demo == (script is not None):
        raise click.UsageError("give a program, or --demo")
    if not output.parent.is_dir():
        raise click.UsageError(f"--output {output}: there is no folder {output.parent}")
    with record() as found:
        failed = _run(script, arguments) if script is not None else _demo()
    write_page(found, output, script.name if script is not None else "a training step of a transformer block")
    click.echo(f"{len(found.runs)} runs in {output}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _run(script: Path, arguments: tuple[str, ...]) -> bool:
    """Run a program as Python does; whether it ended with an error, which is then shown."""
    before = sys.argv, sys.path[:]
    sys.argv, sys.path[0] = [str(script), *arguments], str(script.resolve().parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        return bool(stop.code)
    except Exception:
        sys.excepthook(*sys.exc_info())  # the page is about what was computed before
        return True
    finally:
        sys.argv, sys.path[:] = before
    return False


def _demo() -> bool:
    """Two training steps of a transformer block on the host."""
    import numpy as np

    from amdrv.bench.tensor import Block
    from amdrv.tensor import Tensor, nn

    block = Block(64, "CPU")
    optimiser = nn.Adam(nn.parameters(block))
    x = Tensor(np.random.default_rng(0).standard_normal((2, 16, 64), np.float32), device="CPU")
    for _ in range(2):
        optimiser.zero_grad()
        loss = block(x).square().mean()
        loss.backward()
        optimiser.step(loss)
    return False
