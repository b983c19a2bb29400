"""``amdrv bench tensor``: every row measured or skipped by reason, results checked against NumPy."""

from __future__ import annotations

import json

import pytest

from amdrv.bench import matrix_loop, tensor
from amdrv.cli import main
from amdrv.errors import Unsupported
from amdrv.tensor.arrange_matrix import MatrixTile
from amdrv.tensor.host import HostBackend


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
    skipped = {row["name"].partition(" 1024^3")[0]: row["skipped"] for row in shown["results"] if "skipped" in row}
    assert all(row["seconds"] or row.get("kernels") or "skipped" in row or "triton" in row for row in shown["results"])
    # What needs tools or packages that are not everywhere says which.
    assert skipped.keys() <= {tensor.WMMA, tensor.NODES} and all("not " in reason for reason in skipped.values())


LISTING = """
0000000000000040 <kernel>:
\tv_mov_b32_e32 v1, 0                                          // 000000000040: 7E020280
\tv_wmma_f32_16x16x16_f16 v[9:16], v[17:24], v[33:40], v[9:16] // 000000000044: CC404009 1C264311
\ts_cbranch_scc1 65534                                         // 00000000004C: BFA2FFFD <kernel+0x4>
\ts_cbranch_scc0 65530                                         // 000000000050: BFA1FFFB <kernel+0x0>
"""


def test_the_inner_loop_is_the_shortest_one_with_matrix_instructions() -> None:
    loop = matrix_loop.inner_loop(LISTING)
    assert loop.instructions == ("v_wmma_f32_16x16x16_f16 v[9:16], v[17:24], v[33:40], v[9:16]",)
    assert loop.flops == 2 * 16**3
    with pytest.raises(Unsupported, match="no loop"):
        matrix_loop.inner_loop(LISTING.replace("wmma", "fma"))


@pytest.mark.skipif(bool(matrix_loop.missing()), reason="LLVM 22's tools are not installed")
def test_larger_tiles_take_fewer_cycles_for_each_operation() -> None:
    device = HostBackend(threads=1)
    costs = []
    for squares in ((1, 1), (2, 2), (4, 2)):
        code = matrix_loop.compile_ours(1024, device, (MatrixTile((2, 2), squares, 32),))
        loop = matrix_loop.loop_of(code, matrix_loop.ARCH)
        costs.append(loop.cycles(matrix_loop.ARCH) / loop.flops)
    assert costs[0] > 2 * costs[1] > 3 * costs[2]
    chosen = matrix_loop.loop_of(matrix_loop.compile_ours(4096, device), matrix_loop.ARCH)
    assert chosen.cycles(matrix_loop.ARCH) / chosen.flops <= costs[2] * 1.2
