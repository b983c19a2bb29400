"""Tensors on the GPU, between devices, and beside other libraries."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv.tensor import Tensor, engine, gpu
from amdrv.tensor.arrange_matrix import TILES
from amdrv.tensor.host import HostBackend
from amdrv.tensor.schedule import kernels
from amdrv.tensor.storage import to_numpy
from amdrv.tensor.tables.array_methods import BINARY, REDUCTIONS, UNARY

RANDOM = np.random.default_rng(8)
A = RANDOM.standard_normal((40, 300)).astype(np.float32)
B = RANDOM.standard_normal((300, 36)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layernorm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


CASES = {
    "a chain": (lambda x: (x * 2 + 1).relu().exp() - x, lambda x: np.exp(np.maximum(x * 2 + 1, 0)) - x),
    "views": (lambda x: x.T[::-3, 1:].pad([(1, 0), (0, 2)]), lambda x: np.pad(x.T[::-3, 1:], [(1, 0), (0, 2)])),
    "matmul": (lambda x: x @ Tensor(B), lambda x: x @ B),
    "softmax": (lambda x: x.softmax(), softmax),
    "softmax of columns": (lambda x: x.softmax(0), lambda x: softmax(x.T).T),
    "layernorm": (lambda x: x.layernorm(), layernorm),
    "attention": (
        lambda x: x[:, :32].attention(x[:, 32:64], x[:, 64:96]),
        lambda x: softmax(x[:, :32] @ x[:, 32:64].T / np.sqrt(np.float32(32))) @ x[:, 64:96],
    ),
    "long rows": (lambda x: x.reshape(4, 3000).sum(1), lambda x: x.reshape(4, 3000).sum(1)),
    "everything": (lambda x: x.max() + x.sum() * 0, lambda x: x.max()),
    "any": (lambda x: (x > 3).any(1), lambda x: (x > 3).any(1)),
    "sine of large numbers": (lambda x: (x * 1e6).sin(), lambda x: np.sin((x * np.float32(1e6)).astype(np.float64))),
    "half": (
        lambda x: (x.cast("float16") + 1).cast("float32"),
        lambda x: (x.astype(np.float16) + 1).astype(np.float32),
    ),
    "integers": (lambda x: x.cast("int32") // 3, lambda x: x.astype(np.int32) // 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_gpu_computes_what_numpy_computes(name: str) -> None:
    ours, theirs = CASES[name]
    found = ours(Tensor(A)).numpy()
    np.testing.assert_allclose(found, theirs(A), rtol=2e-3 if name == "half" else 1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 16), (32, 48, 64), (3, 16, 32, 16), (48, 80, 32)])
def test_half_precision_products_use_the_matrix_cores(shape: tuple[int, ...]) -> None:
    *batch, m, k, n = shape
    a, b = (RANDOM.standard_normal((*batch, *part)).astype(np.float16) for part in ((m, k), (k, n)))
    found = (Tensor(a) @ Tensor(b)).relu()
    wanted = np.maximum(a.astype(np.float32) @ b.astype(np.float32), 0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-3, atol=2e-3)
    assert "llvm.amdgcn.wmma.f32.16x16x16.f16" in found.explain()
    transposed = Tensor(a).cast("float32").matmul(Tensor(b).transpose().contiguous().transpose().cast("float32"))
    np.testing.assert_allclose(transposed.numpy(), a.astype(np.float32) @ b.astype(np.float32), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("card", ["emu:gfx1100#54", "emu:gfx1201#54"])
def test_matrix_cores_multiply_narrow_matrices_of_every_layout_and_size(card: str, dtype: str) -> None:
    """Sizes that no tile divides, operands that are contiguous along either axis, batches, and a bias at the end."""
    with amdrv.open(card) as device:
        for shape, turned in (((17, 40, 33), (0, 0)), ((9, 21, 70), (1, 1)), ((2, 8, 12, 16), (0, 1))):
            *batch, m, k, n = shape
            a, b = (Tensor(RANDOM.standard_normal((*batch, *part)), device=device) for part in ((m, k), (k, n)))
            a, b = (tensor.cast(dtype).contiguous().realize() for tensor in (a, b))
            x, y = (t.mT.contiguous().mT if turn else t for t, turn in zip((a, b), turned, strict=True))
            found = x.cast("float32") @ y.cast("float32") + Tensor(np.arange(n, dtype=np.float32), device=device)
            wanted = a.cast("float64").numpy() @ b.cast("float64").numpy() + np.arange(n)
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-4)
            assert f"wmma.f32.16x16x16.{'bf16' if dtype == 'bfloat16' else 'f16'}" in found.explain()


def test_every_tile_of_the_matrix_cores_computes_the_same() -> None:
    a, b = (RANDOM.standard_normal(shape).astype(np.float16) for shape in ((130, 48), (48, 72)))
    x, y = Tensor(a), Tensor(b)
    wanted = a.astype(np.float32) @ b.astype(np.float32)
    programs = set()
    for rank in range(len(TILES)):
        graph, arguments = engine.canonical([(x.cast("float32") @ y.cast("float32")).node])
        plan = engine.plan(graph, x.backend)
        (step,) = plan.steps
        assert step.kernel is not None
        (program,) = x.backend.compile([step.kernel], rank)
        programs.add(program.ir)
        (found,) = engine.run(replace(plan, steps=(replace(step, program=program),)), arguments)
        np.testing.assert_allclose(to_numpy(found), wanted, rtol=1e-5, atol=1e-4)
    assert len(programs) == len(TILES)


def test_a_search_finds_what_computes_the_same_and_is_kept_on_disk(tmp_path: Path) -> None:
    a = RANDOM.standard_normal((40, 64)).astype(np.float32)
    seconds = []
    for _ in range(2):
        device = HostBackend(threads=1, cache=tmp_path)
        x = Tensor(a, device=device)
        started = time.thread_time()
        np.testing.assert_allclose((x @ x.T).realize(search=True).numpy(), a @ a.T, rtol=1e-4, atol=1e-4)
        seconds.append(time.thread_time() - started)
    assert seconds[1] < seconds[0] / 2  # nothing was tried again


def test_amd_is_the_default_and_an_open_device_is_a_device() -> None:
    assert Tensor(A).device == "AMD"
    with amdrv.open("emu:gfx1201#7") as device:
        x = Tensor(A, device=device)
        assert x.backend is not Tensor(A).backend
        np.testing.assert_array_equal((x + x).numpy(), A + A)
        np.testing.assert_allclose(x.softmax().numpy(), softmax(A), rtol=1e-4)
        a, b = (RANDOM.standard_normal(shape).astype(np.float16) for shape in ((32, 48), (48, 16)))
        found = (Tensor(a, device=device) @ Tensor(b, device=device)).realize()
        np.testing.assert_allclose(found.numpy(), a.astype(np.float32) @ b.astype(np.float32), rtol=2e-3, atol=2e-3)
        assert "llvm.amdgcn.wmma.f32.16x16x16.f16.v8f32.v8f16" in found.explain()


def test_gradients_on_the_gpu_are_those_on_the_host() -> None:
    found = []
    for device in ("CPU", "AMD"):
        w = Tensor(B, device=device, requires_grad=True)
        (Tensor(A, device=device) @ w).softmax().square().sum().backward()
        assert w.grad is not None
        found.append(w.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_tensors_move_between_devices_with_their_gradients() -> None:
    x = Tensor(A, device="CPU", requires_grad=True)
    y = (x * 2).to("AMD")
    assert y.device == "AMD"
    (y * y).to("CPU").sum().backward()
    assert x.grad is not None and x.grad.device == "CPU"
    np.testing.assert_allclose(x.grad.numpy(), 8 * A, rtol=1e-6)


def test_a_lost_card_is_named_and_the_next_program_runs_on_it_when_it_is_opened_again() -> None:
    device = amdrv.open("emu:gfx1100#67")
    card = amdrv.emulator.card("emu:gfx1100#67")
    x = Tensor(A, device=device).realize()
    card.faults.inject("lost@5")
    with pytest.raises(amdrv.DeviceLost, match="emu:gfx1100#67"):
        (x @ x.T).softmax().numpy()
    with pytest.raises(amdrv.DeviceLost):
        (x + 1).numpy()
    card.faults.clear()
    device.close()
    with amdrv.open("emu:gfx1100#67") as device:
        np.testing.assert_allclose((Tensor(A, device=device) + 1).numpy(), A + 1)


def test_errors_of_a_card_name_the_operations_of_a_kernel() -> None:
    graph, _ = engine.canonical([Tensor(A).softmax().node])
    (kernel,) = kernels(graph.src)
    assert "@tensor_max_sub_exp_add_div(" in gpu.write_ir(kernel, "gfx1100")[0]


def test_devices_do_not_mix_by_themselves() -> None:
    with pytest.raises(amdrv.InvalidArgument, match=r"different devices: AMD \(emu:gfx1100\) and CPU"):
        (Tensor(A, device="CPU") + Tensor(A)).numpy()
    x = Tensor(A, device="CPU")
    with pytest.raises(amdrv.InvalidArgument, match=r"assign: the values are on AMD .*, the tensor is on CPU"):
        x.assign(Tensor(A) + 1)
    np.testing.assert_array_equal(x.assign(Tensor(A).to("CPU") + Tensor.ones(*A.shape)).numpy(), A + 1)


def test_other_libraries_take_tensors() -> None:
    x = Tensor(A, device="CPU") + 1
    np.testing.assert_array_equal(np.from_dlpack(x), A + 1)
    np.testing.assert_array_equal(np.asarray(x), A + 1)
    np.testing.assert_array_equal(np.sin(np.asarray(x)), np.sin(A + 1))


def test_the_array_namespace_has_the_standard_s_names() -> None:
    x = Tensor(A, device="CPU")
    xp = x.__array_namespace__()
    found = xp.sum(xp.exp(x), axis=1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), np.exp(A).sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(xp.concat([x, x], axis=1).numpy(), np.concatenate([A, A], 1))
    np.testing.assert_array_equal(xp.permute_dims(x, (1, 0)).numpy(), A.T)
    np.testing.assert_array_equal(xp.asarray([1, 2], device="CPU").numpy(), [1, 2])
    np.testing.assert_allclose(xp.tensordot(x, x, axes=((0,), (0,))).numpy(), A.T @ A, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        xp.moveaxis(x.reshape(4, 10, 300), 0, -1).numpy(), np.moveaxis(A.reshape(4, 10, 300), 0, -1)
    )
    for ours, theirs in zip(xp.meshgrid(x[0], x[:, 0]), np.meshgrid(A[0], A[:, 0]), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    np.testing.assert_array_equal(xp.unstack(x, axis=1)[7].numpy(), A[:, 7])
    assert xp.isdtype(x.dtype, ("integral", "real floating")) and not xp.isdtype(x.dtype, "bool")
    assert xp.can_cast(xp.int8, xp.int32) and not xp.can_cast(xp.int32, xp.int8)
    assert xp.result_type(xp.int32, xp.float32) is xp.float64
    missing = [name for name in (*UNARY, *BINARY, *REDUCTIONS) if not callable(getattr(xp, name))]
    assert not missing


@pytest.mark.parametrize("device", ["CPU", "AMD"])
def test_explain_shows_every_stage(device: str) -> None:
    x = Tensor(A, device=device).softmax() + 0.0
    text = x.explain()
    parts = ("tensor graph", "rules", f"kernel on {device}", "LLVM IR", "reduce", "schedule:", "compile:", "ran in")
    for part in parts:
        assert part in text
    assert ("amdgpu_kernel" in text) == (device == "AMD")
    assert "kernel on " + device in x.realize().explain()  # how values in memory were made
