"""Layers, optimisers and files: networks are trained from scratch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from amdrv.bench.tensor import Block
from amdrv.errors import InvalidArgument, MalformedInput
from amdrv.tensor import Tensor, jit, nn, safetensors

RANDOM = np.random.default_rng(5)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """8x8 pictures of ten classes: scikit-learn's real digits where it is installed, else noisy prototypes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        prototypes = RANDOM.random((10, 64)) > 0.5
        labels = RANDOM.integers(0, 10, 1200)
        noisy = prototypes[labels] ^ (RANDOM.random((1200, 64)) > 0.85)
        return noisy.astype(np.float32), labels
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int64)


def accuracy(model: nn.Layer, x: np.ndarray, y: np.ndarray, device: str) -> float:
    return float((model(Tensor(x, device=device)).argmax(1).numpy() == y).mean())


def train(
    model: nn.Layer, optimiser: nn.Optimiser, x: np.ndarray, y: np.ndarray, steps: int, device: str
) -> list[float]:
    losses = []
    order = np.random.default_rng(6)
    for _ in range(steps):
        batch = order.integers(0, len(x), 64)
        optimiser.zero_grad()
        loss = model(Tensor(x[batch], device=device)).cross_entropy(Tensor(y[batch], device=device))
        loss.backward()
        optimiser.step(loss)
        losses.append(float(loss))
    return losses


def test_a_perceptron_learns_digits() -> None:
    x, y = digits()
    seeds = nn.Seeds()
    model = nn.Sequential(nn.Linear(64, 64, seeds, device="CPU"), Tensor.relu, nn.Linear(64, 10, seeds, device="CPU"))
    optimiser = nn.Adam(nn.parameters(model), rate=5e-3)
    losses = train(model, optimiser, x[:1000], y[:1000], 150, "CPU")
    assert losses[-1] < losses[0] / 4
    assert accuracy(model, x[1000:], y[1000:], "CPU") > 0.88


def test_a_convolutional_network_learns_digits() -> None:
    x, y = digits()
    seeds = nn.Seeds()
    model = nn.Sequential(
        lambda t: t.reshape(-1, 1, 8, 8),
        nn.Conv2d(1, 8, 3, seeds, padding=1, device="CPU"),
        Tensor.relu,
        Tensor.max_pool,
        nn.Conv2d(8, 16, 3, seeds, padding=1, device="CPU"),
        Tensor.relu,
        lambda t: t.max_pool(2).flatten(1),
        nn.Linear(64, 10, seeds, device="CPU"),
    )
    optimiser = nn.Adam(nn.parameters(model), rate=1e-2)
    losses = train(model, optimiser, x[:1000], y[:1000], 60, "CPU")
    assert losses[-1] < losses[0] / 2


def test_a_perceptron_learns_on_the_gpu_what_it_learns_on_the_host() -> None:
    x, y = digits()
    losses = {}
    for device in ("CPU", "AMD"):
        seeds = nn.Seeds()
        first, second = nn.Linear(64, 16, seeds, device=device), nn.Linear(16, 10, seeds, device=device)
        model = nn.Sequential(first, Tensor.tanh, second)
        optimiser = nn.SGD(nn.parameters(model), rate=0.5, momentum=0.5)
        losses[device] = train(model, optimiser, x, y, 5, device)
    np.testing.assert_allclose(losses["AMD"], losses["CPU"], rtol=1e-3)
    assert losses["CPU"][-1] < losses["CPU"][0]


def reference_step(kind: str, w: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray], t: int) -> np.ndarray:
    if kind == "sgd":
        state["v"] = 0.9 * state.get("v", 0) + g
        return w - 0.1 * state["v"]
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["s"] = 0.999 * state.get("s", 0) + 0.001 * g * g
    return w - 0.1 * (state["m"] / (1 - 0.9**t) / (np.sqrt(state["s"] / (1 - 0.999**t)) + 1e-8) + 0.01 * w)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimisers_take_the_steps_of_their_definition(kind: str) -> None:
    start = RANDOM.standard_normal(7).astype(np.float32)
    w = Tensor(start, device="CPU", requires_grad=True)
    optimiser = nn.SGD([w], 0.1, 0.9) if kind == "sgd" else nn.Adam([w], 0.1, decay=0.01)
    wanted, state = start.astype(np.float64), {}
    for t in range(1, 5):
        optimiser.zero_grad()
        (w * w * w).sum().backward()
        optimiser.step()
        wanted = reference_step(kind, wanted, 3 * wanted**2, state, t)
    np.testing.assert_allclose(w.numpy(), wanted, rtol=2e-4)


def test_steps_are_planned_once() -> None:
    from amdrv.tensor import engine

    x, y = digits()
    seeds = nn.Seeds()
    model = nn.Sequential(nn.Linear(64, 8, seeds, device="CPU"), Tensor.relu, nn.Linear(8, 10, seeds, device="CPU"))
    optimiser = nn.Adam(nn.parameters(model))
    train(model, optimiser, x, y, 3, "CPU")
    before = engine.plan.cache_info().misses
    train(model, optimiser, x, y, 3, "CPU")
    assert engine.plan.cache_info().misses == before


def test_a_recorded_step_does_what_the_step_does() -> None:
    x, y = digits()
    losses = {}
    for recorded in (False, True):
        seeds = nn.Seeds()
        model = nn.Sequential(nn.Linear(64, 8, seeds, device="CPU"), Tensor.relu, nn.Linear(8, 10, seeds, device="CPU"))
        optimiser = nn.Adam(nn.parameters(model), rate=1e-2)

        def step(a: Tensor, b: Tensor, model: nn.Layer = model, optimiser: nn.Optimiser = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = model(a).cross_entropy(b)
            loss.backward()
            optimiser.step(loss)
            return loss

        run = jit(step) if recorded else step
        parts = [(Tensor(x[k : k + 32], device="CPU"), Tensor(y[k : k + 32], device="CPU")) for k in range(0, 320, 32)]
        found = [run(*part) for part in parts]
        losses[recorded] = [float(loss) for loss in found]  # results of earlier calls keep their values
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-5)


def test_a_recorded_function_is_recorded_for_each_shape_and_must_not_look_at_values() -> None:
    double = jit(lambda t: t * 2 + 1)
    for n in (3, 5):
        for k in range(4):
            array = np.arange(n, dtype=np.float32) + k
            np.testing.assert_array_equal(double(Tensor(array, device="CPU")).numpy(), array * 2 + 1)
    looks = jit(lambda t: t * float(t.sum()))
    looks(Tensor([1.0], device="CPU"))
    with pytest.raises(InvalidArgument, match="recorded"):
        looks(Tensor([1.0], device="CPU"))


def test_embedding_and_its_gradient() -> None:
    table = nn.Embedding(10, 4, nn.Seeds(), device="CPU")
    index = Tensor(np.array([[1, 3], [3, 9]]), device="CPU")
    (table(index) * 2).sum().backward()
    wanted = np.zeros((10, 4), np.float32)
    for row in (1, 3, 3, 9):
        wanted[row] += 2
    assert table.weight.grad is not None
    np.testing.assert_array_equal(table.weight.grad.numpy(), wanted)


TEXT = "the quick brown fox jumps over the lazy dog. pack my box with five dozen liquor jugs. " * 6


class Gpt:
    """A small GPT on characters, as llm.c has it: embeddings, blocks, a norm, logits by the embedding table."""

    def __init__(self, letters: int, width: int, length: int, blocks: int) -> None:
        seeds = nn.Seeds(3)
        self.tokens, self.places = (nn.Embedding(n, width, seeds, device="CPU") for n in (letters, length))
        self.blocks = [Block(width, "CPU") for _ in range(blocks)]
        self.norm = nn.LayerNorm(width, device="CPU")

    def __call__(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.norm(h) @ self.tokens.weight.T

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self(x)
        return logits.reshape(-1, logits.shape[-1]).cross_entropy(y.flatten())


def gpt_data() -> tuple[np.ndarray, int]:
    letters = sorted(set(TEXT))
    return np.array([letters.index(letter) for letter in TEXT]), len(letters)


def batch(data: np.ndarray, random: np.random.Generator, count: int, length: int) -> tuple[Tensor, Tensor]:
    starts = random.integers(0, len(data) - length - 1, count)
    rows = np.stack([data[s : s + length + 1] for s in starts])
    return Tensor(rows[:, :-1], device="CPU"), Tensor(rows[:, 1:], device="CPU")


def test_the_gradient_of_a_gpt_agrees_with_finite_differences() -> None:
    data, letters = gpt_data()
    model = Gpt(letters, 16, 8, 2)
    tensors = nn.parameters(model)
    for tensor in tensors:
        tensor.node = tensor.detach().cast("float64").realize().node
    x, y = batch(data, np.random.default_rng(0), 2, 8)
    model.loss(x, y).backward()
    random = np.random.default_rng(1)
    start = [tensor.numpy() for tensor in tensors]
    way = [random.standard_normal(values.shape) for values in start]
    gradients = [tensor.grad for tensor in tensors]
    assert not any(gradient is None for gradient in gradients)
    slope = sum(float((g.numpy() * part).sum()) for g, part in zip(gradients, way, strict=True) if g is not None)
    ends = []
    for step in (1e-5, -1e-5):
        for tensor, values, part in zip(tensors, start, way, strict=True):
            tensor.assign(Tensor(values + step * part, device="CPU"))
        ends.append(float(model.loss(x, y)))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_a_gpt_learns_text() -> None:
    data, letters = gpt_data()
    model = Gpt(letters, 32, 16, 1)
    optimiser = nn.Adam(nn.parameters(model), rate=1e-2)
    random = np.random.default_rng(2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = model.loss(*batch(data, random, 8, 16))
        loss.backward()
        optimiser.step(loss)
        losses.append(float(loss))
    assert losses[0] > 2.5 and losses[-1] < losses[0] * 0.6


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2, nn.Seeds(1), device="CPU"), nn.LayerNorm(2, device="CPU"))
    other = nn.Sequential(nn.Linear(3, 2, nn.Seeds(9), device="CPU"), nn.LayerNorm(2, device="CPU"))
    path = tmp_path / "model.safetensors"
    safetensors.save(nn.state_dict(model), path, {"made by": "a test"})
    nn.load_state_dict(other, safetensors.load(path, "CPU"))
    x = Tensor(RANDOM.standard_normal((4, 3)).astype(np.float32), device="CPU")
    np.testing.assert_array_equal(model(x).numpy(), other(x).numpy())
    with pytest.raises(InvalidArgument, match=r"layers\.0\.bias"):
        nn.load_state_dict(nn.Sequential(nn.Linear(3, 2, nn.Seeds(), bias=False, device="CPU")), nn.state_dict(model))


def test_every_type_survives_a_file(tmp_path: Path) -> None:
    from amdrv.tensor import dtypes

    tensors = {dtype.name: Tensor(np.arange(6).reshape(2, 3), device="CPU").cast(dtype) for dtype in dtypes.ALL}
    tensors["scalar"] = Tensor(3.5, device="CPU")
    safetensors.save(tensors, tmp_path / "t")
    found = safetensors.load(tmp_path / "t", "CPU")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype is tensor.dtype and found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy())


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "entry",
    [
        {**GOOD, "dtype": "F33"}, {**GOOD, "shape": [3]}, {**GOOD, "data_offsets": [0, 9]}, {**GOOD, "shape": [-2]},
        {**GOOD, "data_offsets": [8, 16]}, {**GOOD, "shape": [2.0]}, {"dtype": "F32"}, 7, {**GOOD, "shape": [1 << 70]},
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"x": entry}).encode()
    path = tmp_path / "bad"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(MalformedInput, match="'x'"):
        safetensors.load(path, "CPU")


HEADERS = [b"", b"\x01", bytes([255] * 8), b"\t" + bytes(7) + b"{nothing}", b"\x02" + bytes(7) + b"[]"]


@pytest.mark.parametrize("data", HEADERS)
def test_damaged_headers_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(MalformedInput, match="header"):
        safetensors.load(path, "CPU")
