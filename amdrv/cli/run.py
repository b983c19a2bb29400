"""``amdrv run``: launch one kernel from a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from amdrv.cli import arguments as args
from amdrv.cli.arguments import GRAMMAR, KernelArgument
from amdrv.cli.code_file import load_code
from amdrv.cli.devices import chosen, device_option
from amdrv.cli.output import Json, duration_text, finite, print_json
from amdrv.errors import InvalidArgument
from amdrv.runtime.selection import open_device

if TYPE_CHECKING:
    from amdrv.runtime.buffer import Buffer
    from amdrv.runtime.device import Device

JSON_VALUES_MAX = 1024
SHOWN_THRESHOLD = 32  # elements up to which a buffer is printed whole
EDGE_ITEMS = 4


class _Help(click.Command):
    """A command whose help ends in the grammar of arguments, line for line."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the grammar unwrapped."""
        formatter.write("\nArguments:\n" + "".join(f"  {line}\n" for line in GRAMMAR.splitlines()))


@click.command(cls=_Help)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("kernel")
@device_option
@click.option("--grid", default="1", show_default=True, help="Workgroups in each dimension, such as 64 or 8x8.")
@click.option("--block", default="256", show_default=True, help="Work-items of a workgroup, such as 256 or 16x16.")
@click.option("--arg", "-a", "typed", multiple=True, metavar="ARG", help="One argument, in order; see below.")
@click.option("--shared", "shared_bytes", type=click.IntRange(min=0), default=0, help="Bytes of dynamic LDS.")
@click.option("--save", "saves", multiple=True, metavar="INDEX=PATH", help="Save a buffer afterwards (.npy or raw).")
@click.option("--seed", type=int, default=0, show_default=True, help="Where random numbers start.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.001), default=30.0, show_default=True,
              help="Seconds to wait for the kernel.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    file: Path,
    kernel: str,
    device: str | None,
    grid: str,
    block: str,
    typed: tuple[str, ...],
    shared_bytes: int,
    saves: tuple[str, ...],
    seed: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Run KERNEL from FILE: a code object (.co, .hsaco, .o) or LLVM IR (.ll).

    \b
    amdrv run saxpy.ll saxpy --grid 4 --block 256 \\
        -a out:f32:1024=ones -a buf:f32:1024=iota -a f32:2 -a i32:1024
    """
    try:
        parsed = [args.parse(text, seed + index) for index, text in enumerate(typed)]
        dims = args.parse_dims(grid, "--grid"), args.parse_dims(block, "--block")
        targets = [args.parse_save(text, parsed) for text in saves]
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    with open_device(chosen(device)) as opened:
        code = load_code(file, opened.arch)
        buffers = {index: opened.array(a.contents) for index, a in enumerate(parsed) if a.contents is not None}
        values = [buffers.get(index, argument.value) for index, argument in enumerate(parsed)]
        launched = opened.load(code)[kernel]
        started = time.perf_counter()
        launch = launched.launch(*dims, values, shared_bytes=shared_bytes, timed=True)
        launch.wait(timeout_s)
        seconds = time.perf_counter() - started
        for index, path in targets:
            args.save(path, _contents(buffers[index], parsed[index]))
        results = {i: _contents(buffers[i], argument) for i, argument in enumerate(parsed) if argument.shown}
        if as_json:
            print_json(_document(opened, kernel, dims, seconds, launch.seconds, results))
        else:
            _print(opened, kernel, dims, seconds, launch.seconds, parsed, results)


def _contents(buffer: Buffer, argument: KernelArgument) -> NDArray[Any]:
    if argument.contents is None:
        raise InvalidArgument(f"argument {argument.text!r} is not a buffer")
    return buffer.numpy(argument.contents.dtype, argument.contents.shape)


def _print(
    device: Device,
    kernel: str,
    dims: tuple[tuple[int, ...], tuple[int, ...]],
    seconds: float,
    gpu_seconds: float,
    parsed: list[KernelArgument],
    results: dict[int, NDArray[Any]],
) -> None:
    grid, block = ("x".join(map(str, counts)) for counts in dims)
    click.echo(
        f"{kernel}: {grid} workgroups of {block} on {device.name} in {duration_text(seconds)}, "
        f"{duration_text(gpu_seconds)} of them by the GPU's clock"
    )
    for index, values in results.items():
        text = np.array2string(values, threshold=SHOWN_THRESHOLD, edgeitems=EDGE_ITEMS, max_line_width=100)
        click.echo(f"argument {index} ({parsed[index].text}):\n{text}")


def _document(
    device: Device,
    kernel: str,
    dims: tuple[tuple[int, ...], tuple[int, ...]],
    seconds: float,
    gpu_seconds: float,
    results: dict[int, NDArray[Any]],
) -> dict[str, Json]:
    return {
        "device": device.gpu.function.name,
        "device_name": device.name,
        "arch": device.arch,
        "boot": device.boot.kind,
        "kernel": kernel,
        "grid": list(dims[0]),
        "block": list(dims[1]),
        "seconds": seconds,
        "gpu_seconds": gpu_seconds,
        "results": [_result(index, values) for index, values in results.items()],
    }


def _result(index: int, values: NDArray[Any]) -> dict[str, Json]:
    flat = values.reshape(-1)
    return {
        "argument": index,
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "values": [finite(value) for value in flat[:JSON_VALUES_MAX].tolist()],
        "truncated": flat.size > JSON_VALUES_MAX,
    }
