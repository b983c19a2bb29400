"""``amdrv bench tensor``: every row measured or skipped by reason, results checked against NumPy."""

from __future__ import annotations

import json

import pytest

from amdrv.bench import tensor
from amdrv.cli import main


def test_json_lists_every_row_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tensor", "--json", "--quick"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"results", "machine"}
    rows = {row["name"].partition(" 64^3")[0].partition(",")[0]: row for row in shown["results"]}
    assert len(rows) == len(shown["results"]) - 1  # both rows of one kernel begin alike
    matmul = rows[tensor.MATMUL]
    assert matmul["gflops"] == pytest.approx(2 * 64**3 / matmul["seconds"] / 1e9)
    assert matmul["ratio"] > 0 and matmul["met"] is None
    assert rows["softmax kernels"]["kernels"] == 1
    assert all(row["seconds"] or row.get("kernels") or row["skipped"] for row in shown["results"])
    assert {row["name"] for row in shown["results"] if "skipped" in row} == set(tensor.NOT_YET)
