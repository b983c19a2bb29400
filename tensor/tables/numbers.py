"""Coefficients and lengths of series, and constants in parts, for float32 and float64."""

from __future__ import annotations

import math

from amdrv.tensor import dtypes

LN2_HI = {dtypes.float32: 0.693359375, dtypes.float64: float.fromhex("0x1.62e42fee00000p-1")}
LN2_LO = {name: math.log(2) - high for name, high in LN2_HI.items()}
LN2_LO[dtypes.float64] = float.fromhex("0x1.a39ef35793c76p-33")
# pi/2 as a sum of parts. Of float32 the first two have so few bits that their products with small integers are exact.
HALF_PI = {
    dtypes.float32: (1.5703125, 4.837512969970703e-4, 7.549790126404332e-8),
    dtypes.float64: (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33),
}
TERMS = {
    dtypes.float32: {"exp": 8, "log": 6, "sin": 6, "cos": 6},
    dtypes.float64: {"exp": 14, "log": 13, "sin": 9, "cos": 9},
}
TURN_BITS = {dtypes.float32: 256, dtypes.float64: 1216}  # of 2/pi, for the angles of every number

# erfc(x) = exp(-x²) * t * P(t) with t = 1 / (1 + x / 2). P: polynomials through Chebyshev points of 1 <= x <= 12,
# found with 50 digits; relative error below 4e-10 and 2e-21.
ERFC = {
    dtypes.float32: (
        *(0.2820940711231525, 0.2821152324161349, 0.24659784822205488, 0.1776560929291931, 0.08048118694569809),
        *(-0.00917311150465846, 9.68452237221811e-05, -0.22361604221197517, 0.23851095274990713, -0.07496666165319492),
    ),
    dtypes.float64: (
        *(0.28209479176366475, 0.2820947925747743, 0.2468329131148926, 0.17630993701011755, 0.08373549830399014),
        *(-0.004266864350168101, -0.058108456832616596, -0.04295803946129462, -0.0696013837710037, 0.389461807984423),
        *(-1.3995585022098334, 5.160581348714367, -15.368151975855293, 37.41156798060154, -75.63308171860751),
        *(124.73641030646763, -164.30931394173683, 170.27182774268164, -136.8967424503546, 83.74267926667893),
        *(-37.734636426498646, 11.82889294361621, -2.307077201869962, 0.211007587089711),
    ),
}
ERF_TERMS = {dtypes.float32: 11, dtypes.float64: 20}


def two_over_pi(bits: int) -> int:
    """The bits of 2/pi behind the binary point; by Machin's formula for pi."""
    places = bits + 64
    one = 1 << places

    def arctan_of_inverse(n: int) -> int:
        total, term, k = 0, one // n, 0
        while term:
            total += (-1) ** k * term // (2 * k + 1)
            term //= n * n
            k += 1
        return total

    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    return (2 << (bits + places)) // pi
