"""``amdrv bench``: the measurements of ``amdrv.bench``, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from amdrv.bench import isa, machine
from amdrv.bench.isa import Bench, Sizes
from amdrv.bench.measure import DURATIONS, LESS_IS_BETTER, Row
from amdrv.cli.devices import EMULATED, chosen, device_option
from amdrv.cli.output import Json, console, duration_text, show, table, version
from amdrv.runtime.device import Device
from amdrv.runtime.selection import open_device

SPARE_SLOT = 65535  # where nobody else plugs in a card
# So little work that there is no goal for it.
QUICK = Sizes(matmul=64, matmul_threads=64, matmul_triton=64, saxpy=1 << 14, mandelbrot=64, mandelbrot_limit=32, runs=2)
UNITS = {
    "gflops": (1.0, "GFLOPS"),
    "wave_instructions_per_s": (1e-6, "M wave-instructions/s"),
    "speedup": (1.0, "x"),
    "ratio": (1.0, "of the reference's speed"),
    "kernels": (1.0, "kernels"),
    "share": (100.0, "% of the tests"),
    "cycles_per_kflop": (1.0, "cycles per thousand operations of a wave"),
    "against_triton": (1.0, "x of Triton's for the same tile"),
}


@click.command()
@device_option
@click.argument("name", type=click.Choice(("isa", "tensor")), default="isa")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option("--quick", is_flag=True, help="Little work, to see that everything runs; meets no goal.")
def command(device: str | None, name: str, as_json: bool, quick: bool) -> None:
    """Measure how fast a device executes code (isa) or how fast tensors are (tensor), and say which goals are met.

    Every result is compared with NumPy's; a wrong one ends the measurement with status 1.
    """
    about = machine.describe()
    if name == "tensor":
        _tensor(quick, as_json, {**about, "amdrv": version()})
        return
    device_name = chosen(device)
    sizes = QUICK if quick else Sizes()
    done: list[Row] = []
    with open_device(device_name) as opened:
        bench = _bench(device_name, opened)
        described = {**about, "amdrv": version(), "device": device_name, "engine": _engine_name(bench)}
        out = console(stderr=as_json)
        for row in isa.rows(bench, sizes, wide_vectors=about["vectors"] == "avx512"):
            done.append(row)
            if not as_json:
                out.print(_line(row), soft_wrap=True)
    _finish(done, described, as_json)


def _tensor(quick: bool, as_json: bool, described: dict[str, str | int]) -> None:
    """The measurements of the tensor compiler."""
    from amdrv.bench import tensor

    done: list[Row] = []
    for row in tensor.rows(tensor.QUICK if quick else None):
        done.append(row)
        if not as_json:
            console().print(_line(row), soft_wrap=True)
    _finish(done, described, as_json)


def _finish(done: list[Row], described: Mapping[str, str | int | None], as_json: bool) -> None:
    """The document, or the machine below the lines that were shown."""
    if as_json:
        print(json.dumps({"results": [document(row) for row in done], "machine": described}, indent=2, allow_nan=False))
        return
    out = console()
    made = table(out, ("measured on", ""))
    for key, value in described.items():
        made.add_row(key, str(value))
    out.print()
    show(out, made)


def document(row: Row) -> dict[str, Json]:
    """The fields of a row; what is not known is null."""
    fields: dict[str, Json] = {
        "name": row.name,
        "seconds": row.seconds,
        "runs": row.runs,
        "wave_instructions": row.wave_instructions,
        "wave_instructions_per_s": row.figure("wave_instructions_per_s"),
        **row.figures,
        "goal": dict(row.goal),
        "met": row.met,
    }
    if row.skipped:
        fields["skipped"] = row.skipped
    return fields


def _line(row: Row) -> str:
    if row.skipped:
        return f"{row.name:<36} skipped: {row.skipped}"
    words = [f"{row.name:<36}", f"{duration_text(row.seconds) if row.seconds is not None else '':>8}"]
    shown = (*UNITS, *(name for name in row.goal if name in DURATIONS - {"seconds"}))
    words += [text for name in shown if (text := _figure_text(name, row.figure(name)))]
    if row.goal:
        verdict = "not known whether the goal is met" if row.met is None else "goal met" if row.met else "GOAL NOT MET"
        sides = {name: "most" if name in LESS_IS_BETTER else "least" for name in row.goal}
        wanted = (f"at {side} {_figure_text(name, row.goal[name])}" for name, side in sides.items())
        words.append(f"({verdict}: {', '.join(wanted)})")
    return "  ".join(words)


def _figure_text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in DURATIONS:
        return duration_text(value) + (" per 100 instructions" if name != "seconds" else "")
    factor, unit = UNITS[name]
    return f"{value * factor:.3g} {unit}"


def _bench(name: str, device: Device) -> Bench:
    """The device with what an emulated card in this process adds."""
    if not name.startswith(EMULATED) or name.startswith(f"{EMULATED}/"):
        return Bench(device)
    from amdrv import emulator

    card = emulator.card(name)
    card.relaxed = True  # what strictness costs the host side is not what is measured
    return Bench(device, lambda: card.wave_instructions, card.shader_engine, lambda: _spare(device.arch))


@contextmanager
def _spare(arch: str) -> Iterator[tuple[Device, object]]:
    """A card that nobody has used, taken out again afterwards."""
    from amdrv import emulator

    name = f"{EMULATED}{arch}#{SPARE_SLOT}"
    try:
        with open_device(name) as device:
            card = emulator.card(name)
            card.relaxed = True
            yield device, card.shader_engine
    finally:
        emulator.unplug(name)


def _engine_name(bench: Bench) -> str | None:
    return type(bench.engine).__name__ if bench.engine is not None else None
