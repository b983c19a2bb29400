"""Escape times as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Red, green and blue at equal distances along the palette: night, blue, white, amber, brown, night.
_STOPS = np.array([(0, 7, 40), (32, 107, 203), (237, 255, 255), (255, 170, 0), (90, 30, 10), (0, 7, 40)], float)
PALETTE_STEPS = 64


def colours(steps: NDArray[np.uint32], limit: int) -> NDArray[np.uint8]:
    """An RGB picture (height, width, 3): a palette that repeats, black where ``limit`` was reached."""
    place = np.sqrt(steps.astype(float)) * 8 % PALETTE_STEPS / PALETTE_STEPS * (len(_STOPS) - 1)
    channels = [np.interp(place, np.arange(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)]
    picture = np.stack(channels, axis=-1).astype(np.uint8)
    picture[steps >= limit] = 0
    return picture


def save(path: Path, steps: NDArray[np.uint32], limit: int) -> None:
    """Write a PNG. Raises OSError."""
    from PIL import Image

    Image.fromarray(colours(steps, limit)).save(path, format="PNG")
