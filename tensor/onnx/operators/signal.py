"""Signals: Fourier transforms, windows, the mel scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.registry import Call, Host, Operator, element_type, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("DFT")
def dft(call: Call, x: Tensor, length: Host | None = None, axis: Host | None = None) -> Tensor:
    """The discrete Fourier transform along an axis; the last axis holds the real or real and imaginary parts."""
    at = int(axis.item()) if axis is not None else call.get("axis", 1) if call.opset < 20 else -2
    at %= x.ndim
    inverse, half = bool(call.get("inverse")), bool(call.get("onesided"))
    n = int(length.item()) if length is not None else 2 * (x.shape[at] - 1) if inverse and half else x.shape[at]
    parts = [part.squeeze(-1).transpose(at, -1) for part in x.split(1, -1)]
    found = transformed(call, parts, n, inverse, half)
    columns = [part.transpose(at, -1).unsqueeze(-1) for part in found]
    return columns[0].cat(*columns[1:], axis=-1)


def transformed(call: Call, parts: Sequence[Tensor], n: int, inverse: bool, half: bool) -> list[Tensor]:
    """Products with a matrix of cosines and one of sines, along the last axis.

    ``parts`` are the real and, if there is one, the imaginary part; so is the result. With ``half`` only the first
    frequencies are made, or, inversely, given.
    """
    bins = n // 2 + 1 if half else n
    rows, columns = (bins, n) if inverse and half else (n, bins)
    if n < 1 or not parts[0].size or rows * columns > weights.TABLE_ELEMENTS_MAX:
        raise InvalidArgument(f"a Fourier transform of length {n} of {parts[0].shape}")
    angle = (np.arange(rows)[:, None] * np.arange(columns) % n) * (2 * np.pi / n)
    weight = np.full((rows, 1), 1 / n if inverse else 1.0)
    if inverse and half:  # every other frequency stands for its conjugate too
        weight[1 : (n + 1) // 2] *= 2
    kind = parts[0].dtype.numpy
    cosine, sine = (call.tensor((table * weight).astype(kind)) for table in (np.cos(angle), np.sin(angle)))
    given = [part.pad([*[(0, 0)] * (part.ndim - 1), (0, rows - part.shape[-1])]) for part in parts]
    real, imaginary = given[0], given[1] if len(given) > 1 else None
    a, b = real.matmul(cosine), real.matmul(sine)
    sign = -1.0 if inverse else 1.0
    if imaginary is None:
        return [a] if inverse and half else [a, b * -sign]
    c, d = imaginary.matmul(sine), imaginary.matmul(cosine)
    total = a + c * sign
    return [total] if inverse and half else [total, d - b * sign]


@operator("STFT")
def stft(call: Call, x: Tensor, step: Host, window: Tensor | None = None, length: Host | None = None) -> Tensor:
    """Fourier transforms of frames of a signal: (batch, frame, frequency, part)."""
    signal = x if x.ndim == 3 else x.unsqueeze(-1)
    if length is not None:
        n = int(length.item())
    else:
        n = signal.shape[1] if window is None else window.shape[0]
    frames = signal.window(1, n, int(step.item()))  # (batch, frame, part, element)
    if window is not None:
        if window.shape[0] > n:
            raise InvalidArgument(f"STFT: a window of {window.shape[0]} for frames of {n}")
        before = (n - window.shape[0]) // 2
        frames = frames * window.pad([(before, n - window.shape[0] - before)])
    parts = [part.squeeze(2) for part in frames.split(1, 2)]
    found = transformed(call, parts, n, False, bool(call.get("onesided", 1)))
    return found[0].stack(found[1], axis=-1)


def _limited(count: int) -> int:
    if not 0 <= count <= weights.TABLE_ELEMENTS_MAX:
        raise InvalidArgument(f"{count} elements")
    return count


# Weights of 1, cos(x), cos(2 x) in each window.
WINDOWS = {
    "HannWindow": (0.5, -0.5, 0.0),
    "HammingWindow": (25 / 46, -21 / 46, 0.0),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}


@operator(*WINDOWS)
def window(call: Call, size: Host) -> Host:
    """A window that falls to both sides, as a sum of cosines."""
    n = _limited(int(size.item()))
    turn = 2 * np.pi * np.arange(n) / max(1, n if call.get("periodic", 1) else n - 1)
    a, b, c = WINDOWS[call.op_type]
    found: Host = a + b * np.cos(turn) + c * np.cos(2 * turn)
    return found.astype(element_type(call.get("output_datatype", 1)))


@operator("MelWeightMatrix")
def mel_weight_matrix(call: Call, bands: Host, length: Host, rate: Host, low: Host, high: Host) -> Host:
    """Triangles over the frequencies of a transform, evenly spaced on the mel scale: (frequency, band)."""
    count, n = int(bands.item()), int(length.item())
    _limited(max(count, 1) * max(n, 1))
    edges = 2595 * np.log10(1 + np.array([float(low.item()), float(high.item())]) / 700)
    mels = np.arange(count + 2) * (edges[1] - edges[0]) / (count + 2) + edges[0]
    bins: NDArray[np.int64] = ((n + 1) * (700 * (10 ** (mels / 2595) - 1)) // int(rate.item())).astype(np.int64)
    left, middle, right = (bins[k : k + count] for k in range(3))
    at = np.arange(n // 2 + 1)[:, None]
    rising = np.where(middle > left, (at - left) / np.maximum(middle - left, 1), 1.0)
    falling = (right - at) / np.maximum(right - middle, 1)
    up = (at >= left) & (at <= middle)
    down = (at >= middle) & (at < right)
    found = np.where(down & (right > middle), falling, np.where(up, rising, 0.0))
    return found.astype(element_type(call.get("output_datatype", 1)))
