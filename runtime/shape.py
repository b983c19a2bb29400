"""The shape of a launch, checked against what the kernel and the hardware allow. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from amdrv.errors import InvalidArgument
from amdrv.runtime.code_object import KernelCode
from amdrv.runtime.kernarg import NOWHERE, Dims, LaunchShape, Surroundings

WORKGROUP_ITEMS_MAX = 1024
GRID_ITEMS_MAX = (1 << 32) - 1  # work-items in a dimension: the dispatch packet's grid sizes are 32 bits wide


def check(
    kernel: KernelCode,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    dynamic_lds_bytes: int,
    lds_bytes_max: int,
    surroundings: Surroundings = NOWHERE,
) -> LaunchShape:
    """The launch shape with all three dimensions.

    ``grid`` counts workgroups and ``block`` work-items of one, each as 1 to 3 integers. Raises InvalidArgument.
    """
    groups, grid_dimensions = _dims(kernel.name, "grid", grid)
    items, block_dimensions = _dims(kernel.name, "block", block)
    total = math.prod(items)
    limit = min(kernel.max_flat_workgroup_size, WORKGROUP_ITEMS_MAX)
    if total > limit:
        shown = _shown(items)
        raise InvalidArgument(f"kernel {kernel.name!r}: a block of {shown} has {total} work-items, more than {limit}")
    if kernel.reqd_workgroup_size is not None and items != kernel.reqd_workgroup_size:
        wanted = _shown(kernel.reqd_workgroup_size)
        raise InvalidArgument(f"kernel {kernel.name!r} was compiled for a block of {wanted}, not {_shown(items)}")
    for axis, (count, size) in zip("xyz", zip(groups, items, strict=True), strict=True):
        if count * size > GRID_ITEMS_MAX:
            raise InvalidArgument(
                f"kernel {kernel.name!r}: {count} workgroups of {size} in {axis} are {count * size} work-items; "
                f"the hardware's limit is {GRID_ITEMS_MAX}"
            )
    try:
        dynamic_lds_bytes = operator.index(dynamic_lds_bytes)
    except TypeError:
        raise InvalidArgument(f"kernel {kernel.name!r}: {dynamic_lds_bytes!r} is no number of LDS bytes") from None
    check_lds(kernel, dynamic_lds_bytes, lds_bytes_max)
    return LaunchShape(groups, items, max(grid_dimensions, block_dimensions), dynamic_lds_bytes, surroundings)


def check_lds(kernel: KernelCode, dynamic_lds_bytes: int, lds_bytes_max: int) -> None:
    """Raise InvalidArgument unless a workgroup's LDS, fixed and dynamic, fits the hardware."""
    if dynamic_lds_bytes < 0:
        raise InvalidArgument(f"kernel {kernel.name!r}: {dynamic_lds_bytes} bytes of dynamic LDS")
    fixed = kernel.descriptor.group_segment_bytes
    if fixed + dynamic_lds_bytes > lds_bytes_max:
        raise InvalidArgument(
            f"kernel {kernel.name!r} has {fixed} bytes of LDS and {dynamic_lds_bytes} dynamic ones; "
            f"a workgroup can have {lds_bytes_max}"
        )


def _dims(kernel: str, what: str, given: int | Sequence[int]) -> tuple[Dims, int]:
    values = tuple(given) if isinstance(given, Sequence) else (given,)
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        counts = [operator.index(value) for value in values]
    except TypeError:
        raise InvalidArgument(f"kernel {kernel!r}: {what} {given!r} is not made of integers") from None
    if not 1 <= len(counts) <= 3 or any(count < 1 for count in counts):
        raise InvalidArgument(f"kernel {kernel!r}: {what} {given!r} is not 1 to 3 positive integers")
    x, y, z = (*counts, 1, 1)[:3]
    return (x, y, z), len(counts)


def _shown(dims: Dims) -> str:
    return "x".join(map(str, dims))
