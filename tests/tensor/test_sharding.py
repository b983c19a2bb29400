"""Tensors on several devices: the same results as on one, and less memory on each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from amdrv.bench.tensor import Block
from amdrv.errors import InvalidArgument, OutOfMemory
from amdrv.runtime.host_memory import HostMemory
from amdrv.tensor import Tensor, engine, jit, nn
from amdrv.tensor.core import Core
from amdrv.tensor.host import HostBackend
from amdrv.tensor.ir import Op
from amdrv.tensor.storage import parts_of

TWO = ("CPU:0", "CPU:1")
RANDOM = np.random.default_rng(21)
A = RANDOM.standard_normal((4, 6, 8)).astype(np.float32)
B = RANDOM.standard_normal((4, 6, 8)).astype(np.float32)
INDEX = np.array([[0, 3, 2, 0], [1, 1, 3, 2]])

CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "arithmetic": lambda x, y: (x * 2 + y).exp() - y,
    "a row beside it": lambda x, y: x + y[0, 0],
    "comparison": lambda x, y: (x > y).where(x, 0.0),
    "sum of each axis": lambda x, y: x.sum(0).sum() + x.sum(1).sum() + y.sum(2).sum(),
    "everything": lambda x, y: x.sum() + y.max() * 2 - x.mean(),
    "maximum": lambda x, y: x.max(0) - y.min((0, 2)).reshape(6, 1),
    "product": lambda x, y: (x * 0.1 + 1).prod(0) + y[1],
    "softmax": lambda x, y: (x.softmax(0) + y.softmax(1)).log_softmax(-1),
    "layernorm": lambda x, y: x.layernorm() * y[0, 0],
    "matmul": lambda x, y: x @ y.permute(0, 2, 1),
    "matmul over what is divided": lambda x, y: x.permute(1, 2, 0) @ y.permute(1, 0, 2),
    "einsum": lambda x, y: x.einsum("abc,adc->bd", y),
    "attention": lambda x, y: x.attention(y, y, causal=True),
    "permute and reshape": lambda x, y: x.permute(2, 0, 1).reshape(4, 2, 4, 6).reshape(8, 24) + y.reshape(8, 24),
    "flatten": lambda x, y: x.flatten() * y.reshape(-1),
    "split": lambda x, y: x.reshape(2, 2, 6, 8) + y.reshape(2, 2, 6, 8),
    "slices": lambda x, y: x[1:3] + y[::2] + x[:, 1:2].sum(0, keepdim=True)[:, 0:1],
    "flip and pad": lambda x, y: x[::-1].pad([(1, 1), (0, 0), (2, 0)]) + y.pad([(0, 2), (0, 0), (1, 1)]),
    "windows": lambda x, y: x.reshape(4, 1, 6, 8).conv(y[:2, :3, :3].reshape(2, 1, 3, 3), padding=1),
    "cat": lambda x, y: x.cat(y, axis=0) + y.cat(x, axis=0),
    "looking up": lambda x, y: x[:, :, INDEX] + y[:, :, INDEX] + x[INDEX].sum(),
    "types": lambda x, y: (x * 10).cast("int32").cast("float16").cast("float32") + y,
    "a position": lambda x, y: x + Tensor.arange(4, device=x.backend).reshape(4, 1, 1) * y,
    "random numbers": lambda x, y: x * Tensor.rand(4, 6, 8, seed=3, device=x.backend) + y,
    "nothing at all": lambda x, y: Tensor.ones(4, 6, 8, device=x.backend),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operations_give_what_they_give_on_one_device(name: str) -> None:
    function = CASES[name]
    wanted = function(Tensor(A, device="CPU:0"), Tensor(B, device="CPU:0")).numpy()
    for axes in ((0, 0), (0, None), (None, None), (2, 0), (1, 2)):
        x, y = (Tensor(array, device="CPU").shard(TWO, axis) for array, axis in zip((A, B), axes, strict=True))
        np.testing.assert_allclose(function(x, y).numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=str(axes))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("nothing at all", "types")])
def test_gradients_are_those_on_one_device_and_in_parts_like_their_tensors(name: str) -> None:
    found = {}
    for axes in (None, (0, 0), (2, None)):
        tensors = []
        for k, array in enumerate((A, B)):
            moved = Tensor(array, device="CPU:0") if axes is None else Tensor(array, device="CPU").shard(TWO, axes[k])
            moved.realize().requires_grad = True
            tensors.append(moved)
        weights = Tensor(RANDOM.random(), device=tensors[0].backend) * 0 + 1
        (CASES[name](*tensors).square().sum() * weights).backward()
        found[axes] = [tensor.grad.numpy() if tensor.grad is not None else np.zeros(1) for tensor in tensors]
        for tensor, axis in zip(tensors, axes or (), strict=False):
            if tensor.grad is not None:
                parts = parts_of(tensor.grad.realize().node.arg[0])
                assert len(parts) == 2 and parts[0].memory is not None
                assert parts[0].memory.size_bytes == A.nbytes // (1 if axis is None else 2)
    for axes in ((0, 0), (2, None)):
        for ours, theirs in zip(found[axes], found[None], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=str(axes))


def test_gradients_go_through_sharding_and_back_to_one_device() -> None:
    x = Tensor(A, device="CPU", requires_grad=True)
    y = (x * 2).shard(TWO, 0)
    (y * y).to("CPU").sum().backward()
    assert x.grad is not None and x.grad.device == "CPU"
    np.testing.assert_allclose(x.grad.numpy(), 8 * A, rtol=1e-6)


def test_a_tensor_can_be_sharded_anew() -> None:
    x = Tensor(A, device="CPU").shard(TWO, 0)
    for axis in (2, None, 1):
        x = (x + 1).shard(TWO, axis)
    other = x.shard(("CPU:2", "CPU:0", "CPU:1"), 1)
    assert other.device == "CPU:2, CPU:0, CPU:1"
    np.testing.assert_allclose(other.numpy(), A + 3, rtol=1e-6)


def test_a_group_may_be_of_different_kinds() -> None:
    x, y = Tensor(A, device="CPU").shard(("AMD", "CPU"), 0), Tensor(B, device="CPU").shard(("AMD", "CPU"))
    wanted = Tensor(A * B, device="CPU").softmax(0).sum(1).numpy()
    np.testing.assert_allclose((x * y).softmax(0).sum(1).numpy(), wanted, rtol=1e-5)


def losses(devices: Sequence[object], axis: int | None, recorded: bool = False) -> list[float]:
    """Of training a transformer block."""
    block = Block(16, "CPU")
    if devices:
        nn.distribute(block, devices, axis)
    optimiser = nn.Adam(nn.parameters(block), rate=1e-3)

    def step(x: Tensor) -> Tensor:
        optimiser.zero_grad()
        loss = block(x).square().mean()
        loss.backward()
        optimiser.step(loss)
        return loss

    run = jit(step) if recorded else step
    batches = [Tensor(np.concatenate([A, B], 2) + k / 1000, device="CPU") for k in range(4)]
    return [float(run(x.shard(devices, 0) if devices else x)) for x in batches]


def test_training_with_copies_or_parts_of_the_parameters_is_training_on_one_device() -> None:
    wanted = losses((), None)
    assert wanted[-1] < wanted[0]
    np.testing.assert_allclose(losses(TWO, None), wanted, rtol=1e-4)
    np.testing.assert_allclose(losses(TWO, 0), wanted, rtol=1e-4)


def test_a_sharded_step_is_recorded_and_repeated() -> None:
    np.testing.assert_allclose(losses(TWO, 0, recorded=True), losses(TWO, 0), rtol=1e-5)


class Small(HostBackend):
    """A device with little memory."""

    def __init__(self, number: int, memory_bytes: int) -> None:
        super().__init__(threads=1)
        self.name = f"small {number}"
        self.free = memory_bytes

    def allocate(self, size_bytes: int) -> HostMemory:
        if size_bytes > self.free:
            raise OutOfMemory(f"{self.name}: {size_bytes} bytes wanted, {self.free} free")
        found = super().allocate(size_bytes)
        self.free -= size_bytes
        weakref.finalize(found, self.give_back, size_bytes)
        return found

    def give_back(self, size_bytes: int) -> None:
        self.free += size_bytes


def test_a_model_larger_than_the_memory_of_each_device_trains_in_parts_and_not_in_copies() -> None:
    def train(axis: int | None) -> list[float]:
        seeds = nn.Seeds()
        layers = [nn.Linear(128, 128, seeds, device="CPU") for _ in range(8)]
        model_bytes = 4 * sum(tensor.size for tensor in nn.parameters(layers))
        devices = [Small(number, model_bytes * 9 // 10) for number in range(4)]
        nn.distribute(layers, devices, axis)
        optimiser = nn.SGD(nn.parameters(layers), rate=1.0)
        x = Tensor(RANDOM.standard_normal((16, 128)).astype(np.float32), device="CPU")
        found = []
        for _ in range(3):
            h = x.shard(devices, 0)
            optimiser.zero_grad()
            for layer in layers:
                h = layer(h).relu()
            loss = (h - 1).square().mean()
            loss.backward()
            optimiser.step(loss)
            found.append(float(loss))
        return found

    first, *_, last = train(0)
    assert last < first
    with pytest.raises(OutOfMemory, match="small 0"):
        train(None)


def test_a_parameter_is_gathered_for_each_use_and_gradients_are_scattered() -> None:
    layers = [nn.Linear(8, 8, nn.Seeds(), bias=False, device="CPU") for _ in range(2)]
    nn.distribute(layers, TWO, 0)
    loss = layers[1](layers[0](Tensor(A, device="CPU").shard(TWO, 0))).square().sum()
    loss.backward()
    with engine.recorded(watch=True) as log:
        loss.realize(*(layer.weight.grad for layer in layers if layer.weight.grad is not None))
    (run,) = log.runs
    copies = [step.places[0].node for step in run.plan.steps if step.kernel is None]
    gathered = [node for node in copies if node.src[0].op is Op.BUFFER and node.shape == (8, 8)]
    assert (
        len(gathered) == 2 * 3
    )  # on each device: both for the forward pass, the second once more for the backward pass
    scattered = [node for node in copies if node.shape == (2, 4, 8)]
    assert len(scattered) == 2 * 2  # each device gets its part of both gradients, and no device a whole one


def test_what_cannot_be_sharded_is_refused() -> None:
    x = Tensor(A, device="CPU")
    for devices, axis, message in (
        (("CPU:0", "CPU:1", "CPU:2"), 0, r"axis 0 of \(4, 6, 8\) in 3 equal parts"),
        (TWO, 3, "shard"),
        ((), 0, "none"),
        (("CPU:0", "CPU:0"), 0, "CPU:0, CPU:0"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            x.shard(devices, axis)
    with pytest.raises(InvalidArgument, match="different devices: CPU beside CPU:0, CPU:1"):
        (x + x.shard(TWO, 0)).realize()
    with pytest.raises(InvalidArgument, match="groups"):
        (x.shard(("CPU:1", "CPU:0")) + x.shard(TWO)).realize()
    assert isinstance(x.shard(TWO), Core)
