"""Correct rounding on top of NumPy's round-to-nearest: error-free transformations, round-to-odd, directed modes.

The method: carry a result in double precision with its last bit *sticky* (round to odd); as long as the double has two
bits more than the target, rounding it once more gives the correctly rounded result in every mode.
Source of the method: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using
rounding to odd", IEEE Transactions on Computers 57(4), 2008.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.algebra import Rounding

Array: TypeAlias = NDArray[Any]

_SPLITTER = 134217729.0  # 2**27 + 1: Dekker's constant for 53 bits
_FAR = 220  # exponent distance beyond which one addend only matters as a sticky bit (two 53-bit products fit in it)
_UNDERFLOWN = -1300  # below this scale every sum is less than half the smallest denormal


def two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """The rounded sum and its exact error (Knuth); the error is NaN when the sum overflows."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def two_product(x: Array, y: Array) -> tuple[Array, Array]:
    """The rounded product and its exact error (Dekker), for magnitudes whose split and error are in range."""
    product = x * y
    x_scaled, y_scaled = x * _SPLITTER, y * _SPLITTER
    x_high = x_scaled - (x_scaled - x)
    y_high = y_scaled - (y_scaled - y)
    x_low, y_low = x - x_high, y - y_high
    return product, ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


def to_odd(total: Array, error: Array) -> Array:
    """``total + error`` rounded to odd: the neighbour of an even ``total`` on the error's side when inexact."""
    bits = total.view(np.int64)
    away = (error > 0) == (total > 0)
    step = np.where(away, 1, -1)
    inexact_and_even = (np.abs(error) > 0) & ((bits & 1) == 0)
    rounded: Array = bits + step * inexact_and_even
    return rounded.view(np.float64)


def sum_to_odd(x: Array, y: Array) -> Array:
    """``x + y`` in double precision, rounded to odd."""
    return to_odd(*two_sum(x, y))


def direct(nearest: Array, error: Array, rounding: Rounding) -> Array:
    """Correct a result rounded to nearest, whose exact value is ``nearest + error`` (or just its sign), for a mode."""
    if rounding is Rounding.NEAREST_EVEN:
        return nearest
    kind = nearest.dtype.type
    if rounding is Rounding.UP:
        return np.where(error > 0, np.nextafter(nearest, kind(np.inf)), nearest)
    if rounding is Rounding.DOWN:
        return np.where(error < 0, np.nextafter(nearest, kind(-np.inf)), nearest)
    toward_zero = ((error > 0) & (nearest < 0)) | ((error < 0) & (nearest > 0))
    return np.where(toward_zero, np.nextafter(nearest, kind(0)), nearest)


def narrow(x: Array, dtype: np.dtype[Any], rounding: Rounding) -> Array:
    """Doubles (exact, or rounded to odd) rounded once to ``dtype``."""
    nearest = x.astype(dtype)
    if rounding is Rounding.NEAREST_EVEN:
        return nearest
    error = np.where(np.isinf(nearest) & np.isfinite(x), np.copysign(1.0, -x), x - nearest.astype(np.float64))
    return direct(nearest, error, rounding)


def signed_zero_sum(result: Array, total: Array, x: Array, y: Array, rounding: Rounding) -> Array:
    """``result``, which is ``total`` = x + y rounded; an exact zero from opposite signs is -0 when rounding down.

    NumPy gives +0; the rule is IEEE 754-2008, 6.3.
    """
    if rounding is not Rounding.DOWN:
        return result
    return np.where((total == 0) & (np.signbit(x) != np.signbit(y)), result.dtype.type(-0.0), result)


def _scale(high: Array, low: Array, exponent: Array, rounding: Rounding) -> Array:
    """``(high + low) * 2**exponent`` rounded once; ``low`` is at most half an ulp of ``high``, rounded to odd."""
    nearest, error = two_sum(high, low)
    result = np.ldexp(direct(nearest, error, rounding), exponent)
    overflown = np.isinf(result) & np.isfinite(high)
    if rounding is not Rounding.NEAREST_EVEN and overflown.any():
        result = np.where(overflown, direct(result, -result, rounding), result)
    smallest_normal = np.ldexp(1.0, -1022 - exponent)
    size, inward = np.abs(nearest), (error < 0) == (nearest > 0)
    tiny = ((size < smallest_normal) & (size > 0)) | ((size == smallest_normal) & (error != 0) & inward)
    if not tiny.any():
        return result
    # Adding this number moves the rounding position to the smallest denormal; taking it away again is exact.
    anchor = np.copysign(smallest_normal, nearest)
    total, rest = two_sum(anchor, high)
    total, error = two_sum(total, sum_to_odd(rest, low))
    denormal = np.ldexp(direct(total, error, rounding) - anchor, exponent)
    return np.where(tiny, np.copysign(denormal, nearest), result)


def fma64(x: Array, y: Array, z: Array, rounding: Rounding, power: Array | int = 0) -> Array:
    """``(x * y + z) * 2**power`` of doubles with one rounding, in every mode and range; ``power`` is at most 512."""
    x, y, z, power = np.broadcast_arrays(x, y, z, power)
    (x_mantissa, x_exponent), (y_mantissa, y_exponent), (z_mantissa, z_exponent) = map(np.frexp, (x, y, z))
    product, product_error = two_product(x_mantissa, y_mantissa)
    product_exponent = np.where(product == 0, z_exponent, x_exponent + y_exponent)
    addend = np.ldexp(z_mantissa, np.clip(z_exponent - product_exponent, -_FAR, _FAR))
    exponent = np.where(z == 0, product_exponent, np.maximum(product_exponent, z_exponent - _FAR)) + power
    middle, middle_error = two_sum(addend, product_error)
    high, high_error = two_sum(product, middle)
    low = sum_to_odd(middle_error, high_error)
    scaled = _scale(high, low, np.maximum(exponent, _UNDERFLOWN), rounding)
    # Right where nothing is rounded: infinities, NaNs, a product and an addend of zero. A finite product may overflow.
    simple = np.where(np.isfinite(x) & np.isfinite(y) & ~np.isfinite(z), 0.0, x * y) + z
    exact = ~np.isfinite(x) | ~np.isfinite(y) | ~np.isfinite(z) | ((product == 0) & (z == 0))
    result = np.where(exact, simple, scaled)
    opposite = (np.signbit(x) ^ np.signbit(y)) != np.signbit(z)
    zero_sum = (high == 0) & (low == 0) & ~exact & opposite  # complete cancellation
    result = np.where(zero_sum, 0.0, result)
    if rounding is Rounding.DOWN:
        result = np.where((zero_sum | (exact & (result == 0) & opposite)), -0.0, result)
    return result
