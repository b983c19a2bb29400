"""The measurements: every result checked, goals held against the right figures, absent things skipped by reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import amdrv
from amdrv.bench import isa, machine, triton_matmul, workload
from amdrv.bench.engine import NOT_A_TRANSLATOR
from amdrv.bench.isa import Bench, Sizes
from amdrv.bench.measure import Row, Stopwatch, WrongResult, check
from amdrv.cli import main
from amdrv.runtime.device import Device

NAME = "emu:gfx1100#177"  # a card of this file's own
TINY = Sizes(matmul=32, matmul_threads=32, matmul_triton=64, saxpy=256, mandelbrot=32, mandelbrot_limit=8, runs=2)


@pytest.fixture(scope="module")
def dev() -> Iterator[Device]:
    with amdrv.open(NAME) as device:
        yield device


class Translating:
    """An engine that says of itself what a translator says; launches are the device's business."""

    def __init__(self, cached: bool = True) -> None:
        self.threads = 4
        self.seen_threads: list[int] = []
        self.settled = 0
        self._cached = cached
        self.compile_log: list[SimpleNamespace] = []

    def settle(self, timeout_s: float) -> None:
        self.settled += 1
        self.seen_threads.append(self.threads)
        self.compile_log.append(SimpleNamespace(tier=1, instructions=50, seconds=0.005, cached=self._cached))
        self.compile_log.append(SimpleNamespace(tier=2, instructions=50, seconds=9.0, cached=self._cached))


def test_json_is_results_and_machine_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", NAME, "bench", "isa", "--json", "--quick"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"results", "machine"}
    assert shown["machine"]["device"] == NAME
    rows = {row["name"]: row for row in shown["results"]}
    assert len(rows) == len(isa.GOALS)
    naive = rows["naive f32 matmul 64^3"]
    assert naive["gflops"] == pytest.approx(2 * 64**3 / naive["seconds"] / 1e9)
    assert naive["wave_instructions_per_s"] == pytest.approx(naive["wave_instructions"] / naive["seconds"])
    assert naive["met"] is None  # of so little work nothing is asked


def test_the_instruction_count_is_the_cards(dev: Device) -> None:
    card = amdrv.emulator.card(NAME)
    # saxpy.ll has 18 instructions that count
    work = workload.saxpy(dev, workload.code("saxpy", dev.arch), 1024)
    before = card.wave_instructions
    timing = Stopwatch(dev, lambda: card.wave_instructions, runs=3).time(work.launch)
    assert timing.runs == 3
    assert card.wave_instructions - before == 4 * (timing.wave_instructions or 0)
    assert timing.wave_instructions == 1024 // 32 * 18
    work.verify()


def test_a_wrong_result_is_an_error_and_no_row(dev: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    text = workload.source("matmul_naive")
    monkeypatch.setattr(workload, "source", lambda name: text.replace("shl i32 %group.y, 3", "shl i32 %group.y, 2"))
    with pytest.raises(WrongResult, match=r"matmul_naive 32: the result is off"):
        list(isa.rows(Bench(dev), TINY))


def test_a_result_that_is_not_a_number_is_wrong() -> None:
    with pytest.raises(WrongResult):
        check("x", float("nan"), 1.0)
    check("x", 1.0, 1.0)


def test_what_only_a_translator_has_is_skipped_with_the_reason(dev: Device) -> None:
    skipped = {row.name: row.skipped for row in isa.rows(Bench(dev, engine=object()), TINY) if row.skipped}
    expected = {"two cores against one, matmul 32^3", "first-tier compile", "cached load to first wave"}
    assert {name for name, reason in skipped.items() if reason == NOT_A_TRANSLATOR} == expected


def test_rows_of_a_translator_use_its_log_and_one_thread(dev: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Translating(cached=False)
    monkeypatch.setattr(isa.os, "sched_getaffinity", lambda process: {0, 1})
    rows = {row.name: row for row in isa.rows(Bench(dev, engine=engine), TINY)}
    assert engine.threads == 4  # as it was
    assert set(engine.seen_threads) == {1, 2}
    assert rows["first-tier compile"].figure("seconds_per_100_instructions") == pytest.approx(0.010)
    threads = rows["two cores against one, matmul 32^3"]
    assert threads.figure("speedup") == pytest.approx(threads.figures["seconds_one_core"] / (threads.seconds or 0))


@pytest.mark.parametrize("cached", [True, False])
def test_a_load_counts_as_cached_only_if_nothing_was_compiled(dev: Device, cached: bool) -> None:
    engine = Translating()
    fresh = Translating(cached)

    @contextmanager
    def spare() -> Iterator[tuple[Device, object]]:
        yield dev, fresh

    launch = isa._first_wave  # every load makes the engine say that it has compiled something

    def loads(*arguments: object) -> float:
        fresh.settle(1.0)
        return launch(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isa, "_first_wave", loads)
        row = isa._cached_load(Bench(dev, engine=engine, spare=spare), {"seconds": 0.005})
    assert (row.seconds is not None) == cached
    assert bool(row.skipped) != cached


def test_another_start_makes_other_code_and_another_sum(dev: Device) -> None:
    plain, other = (workload.code("matmul_tiled", dev.arch, start=start) for start in (0.0, 1.5))
    assert plain != other
    work = workload.matmul_tiled(dev, other, 32, start=1.5)
    work.launch()
    dev.synchronize()
    work.verify()


def test_goals_are_met_by_rates_above_and_durations_below() -> None:
    fast = Row("x", {"gflops": 4.0, "wave_instructions_per_s": 100.0}, 0.1, 1, 10, {"gflops": 4.0})
    assert fast.met is True
    assert Row("x", {"gflops": 4.0, "wave_instructions_per_s": 101.0}, 0.1, 1, 10, {"gflops": 4.0}).met is False
    assert Row("x", {"seconds": 0.1}, 0.1).met is True
    assert Row("x", {"seconds": 0.1}, 0.2).met is False
    assert Row("x", {"wave_instructions_per_s": 1.0}, 0.1).met is None


def test_half_of_the_throughput_is_asked_without_wide_vectors() -> None:
    goals = isa._goals(wide_vectors=False)
    assert goals(isa.NAIVE) == {"gflops": 2.0, "wave_instructions_per_s": 200e6}
    assert goals(isa.SAXPY) == {"seconds": 2.0e-3}
    assert goals(isa.THREADS) == isa.GOALS[isa.THREADS]
    assert goals(isa.CACHED_LOAD) == isa.GOALS[isa.CACHED_LOAD]


def test_without_triton_its_row_says_so(dev: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_matmul.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(amdrv.Unsupported, match="triton is not installed"):
        triton_matmul.compile_matmul("gfx1100")
    rows = list(isa.rows(Bench(dev), TINY))
    assert "the package triton is not installed" in [row.skipped for row in rows if row.name.startswith("Triton")]


def test_what_triton_says_when_it_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_matmul, "missing", lambda: "")
    monkeypatch.setattr(triton_matmul, "SCRIPT", "raise SystemExit('no such chip')")
    with pytest.raises(amdrv.Unsupported, match="Triton cannot compile for gfx9999: no such chip"):
        triton_matmul.compile_matmul("gfx9999")


@pytest.mark.skipif(bool(triton_matmul.missing()), reason=triton_matmul.missing() or "triton is there")
def test_tritons_matmul_is_numpys(dev: Device) -> None:
    work = triton_matmul.matmul(dev, triton_matmul.compile_matmul(dev.arch), 64)
    work.launch()
    dev.synchronize()
    work.verify()


def test_the_machine_is_described_without_a_cpuinfo(tmp_path: Path) -> None:
    assert machine.describe(tmp_path / "none")["vectors"] == "other"
    (tmp_path / "cpuinfo").write_text("model name\t: Zen\nflags\t\t: fpu avx2\n\nmodel name\t: other\n")
    shown = machine.describe(tmp_path / "cpuinfo")
    assert (shown["cpu"], shown["vectors"]) == ("Zen", "avx2")
    assert machine.vectors(["avx512f", "avx512bw", "avx512dq", "avx512vl"]) == "avx512"
    assert shown["numpy"] == np.__version__
