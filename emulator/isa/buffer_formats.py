"""Typed buffer elements: the unified formats of gfx11, and their conversion from and to registers.

Numbers and names: llvm-mc 22 -mcpu=gfx1100 (tbuffer format:N). A name lists its components from the highest bits down
(Mesa ac_formats: R11G11B10 is 10_11_11).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]

_SIX = ("unorm", "snorm", "uscaled", "sscaled", "uint", "sint")
_SEVEN = (*_SIX, "float")
_PLAIN = ("uint", "sint", "float")
_RUNS: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
    ((8,), _SIX),
    ((16,), _SEVEN),
    ((8, 8), _SIX),
    ((32,), _PLAIN),
    ((16, 16), _SEVEN),
    ((11, 11, 10), ("float",)),
    ((10, 11, 11), ("float",)),
    ((2, 10, 10, 10), ("unorm", "snorm", "uint", "sint")),
    ((10, 10, 10, 2), _SIX),
    ((8, 8, 8, 8), _SIX),
    ((32, 32), _PLAIN),
    ((16, 16, 16, 16), _SEVEN),
    ((32, 32, 32), _PLAIN),
    ((32, 32, 32, 32), _PLAIN),
)


@dataclass(frozen=True, slots=True)
class BufferFormat:
    """Component widths from the lowest bit up, and how their bits are numbers."""

    widths: tuple[int, ...]
    kind: str

    @property
    def size_bytes(self) -> int:
        """Bytes of an element."""
        return sum(self.widths) // 8

    @property
    def is_integer(self) -> bool:
        """True when registers hold integers, not floats."""
        return self.kind in ("uint", "sint")


# Format number -> layout; 0 and numbers above 63 are invalid.
FORMATS: dict[int, BufferFormat] = dict(
    enumerate((BufferFormat(widths, kind) for widths, kinds in _RUNS for kind in kinds), start=1)
)


def _small_float(value: Bits, width: int) -> NDArray[np.float32]:
    """An unsigned float of 5 exponent bits and ``width - 5`` mantissa bits: an f16 with less mantissa."""
    return (value << np.uint32(15 - width)).astype(np.uint16).view(np.float16).astype(np.float32)


def _signed(value: Bits, width: int) -> NDArray[np.int32]:
    shift = np.int32(32 - width)
    signed: NDArray[np.int32] = (value << np.uint32(32 - width)).view(np.int32) >> shift
    return signed


def _to_number(value: Bits, width: int, kind: str) -> Bits:
    """One component as the 32 bits of a register."""
    match kind:
        case "uint":
            return value
        case "sint":
            return _signed(value, width).view(np.uint32)
        case "unorm":
            number = value.astype(np.float64) / ((1 << width) - 1)
        case "snorm":
            number = np.maximum(_signed(value, width) / ((1 << width - 1) - 1), -1.0)
        case "uscaled":
            number = value.astype(np.float64)
        case "sscaled":
            number = _signed(value, width).astype(np.float64)
        case _:
            if width == 32:
                return value
            if width < 16:
                return _small_float(value, width).view(np.uint32)
            return value.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    return number.astype(np.float32).view(np.uint32)


def unpack(dwords: list[Bits], layout: BufferFormat) -> list[Bits]:
    """The components of elements, X first, as f32 or 32-bit integer registers."""
    components = []
    at = 0
    for width in layout.widths:
        value = dwords[at >> 5] >> np.uint32(at & 31)
        if width < 32:
            value = value & np.uint32((1 << width) - 1)
        components.append(_to_number(value, width, layout.kind))
        at += width
    return components


def _from_number(value: Bits, width: int, kind: str) -> Bits:
    """The bits of one component from a register; out-of-range integers keep their low bits, floats saturate."""
    mask = np.uint32((1 << width) - 1)
    if kind in ("uint", "sint") or (kind == "float" and width == 32):
        return value & mask
    number = np.nan_to_num(value.view(np.float32).astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    if kind == "float":
        half = value.view(np.float32).astype(np.float16).view(np.uint16).astype(np.uint32)
        if width == 16:
            return half
        positive = np.where(half & np.uint32(0x8000), np.uint32(0), half)  # there is no sign bit
        return positive >> np.uint32(15 - width)
    largest = (1 << width) - 1 if kind[0] == "u" else (1 << width - 1) - 1
    low = 0 if kind[0] == "u" else -largest - (kind == "sscaled")
    scaled = np.rint(np.clip(number, -1, 1) * largest) if kind.endswith("norm") else np.trunc(number)
    bits: Bits = np.clip(scaled, low, largest).astype(np.int64).astype(np.uint32) & mask
    return bits


def pack(components: list[Bits], layout: BufferFormat) -> list[Bits]:
    """Elements as dwords from registers, X first; missing components are zero."""
    dwords = [np.zeros(len(components[0]), np.uint32) for _ in range(-(-layout.size_bytes // 4))]
    at = 0
    for number, width in enumerate(layout.widths):
        if number < len(components):
            dwords[at >> 5] |= _from_number(components[number], width, layout.kind) << np.uint32(at & 31)
        at += width
    return dwords
