"""Cube map coordinates: which face of a cube a direction (x, y, z) meets, and where."""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import absolute, negate
from amdrv.emulator.isa.semantics.definition import Definition, Ternary, family


def _by_major_axis(a: Ops, x: Value, y: Value, z: Value, results: tuple[Value, Value, Value]) -> Value:
    """The result for the axis of greatest magnitude, z before y before x in a tie; ``results`` are for x, y, z."""
    size_x, size_y, size_z = (absolute(a, v, "f32") for v in (x, y, z))
    z_major = a.le(size_x, size_z) & a.le(size_y, size_z)
    y_major = a.le(size_x, size_y)
    for_x, for_y, for_z = results
    return a.select(z_major, for_z, a.select(y_major, for_y, for_x))


def _negative(a: Ops, x: Value) -> Value:
    return a.lt(x, a.constant("f32", 0))


def _face(a: Ops, x: Value, y: Value, z: Value) -> Value:
    def number(axis: Value, positive: int) -> Value:
        return a.select(_negative(a, axis), a.constant("f32", positive + 1), a.constant("f32", positive))

    return _by_major_axis(a, x, y, z, (number(x, 0), number(y, 2), number(z, 4)))


def _s_coordinate(a: Ops, x: Value, y: Value, z: Value) -> Value:
    minus_x, minus_z = negate(a, x, "f32"), negate(a, z, "f32")
    for_x = a.select(_negative(a, x), z, minus_z)
    for_z = a.select(_negative(a, z), minus_x, x)
    return _by_major_axis(a, x, y, z, (for_x, x, for_z))


def _t_coordinate(a: Ops, x: Value, y: Value, z: Value) -> Value:
    minus_y = negate(a, y, "f32")
    for_y = a.select(_negative(a, y), negate(a, z, "f32"), z)
    return _by_major_axis(a, x, y, z, (minus_y, for_y, minus_y))


def _major_axis(a: Ops, x: Value, y: Value, z: Value) -> Value:
    two = a.constant("f32", 2)
    return _by_major_axis(a, x, y, z, (a.mul(x, two), a.mul(y, two), a.mul(z, two)))


CUBE: dict[str, Ternary] = {
    "v_cubeid_f32": _face,
    "v_cubesc_f32": _s_coordinate,
    "v_cubetc_f32": _t_coordinate,
    "v_cubema_f32": _major_axis,
}

DEFINITIONS: list[Definition] = family(CUBE, "f32", "f32", "f32")
