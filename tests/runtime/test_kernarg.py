"""Kernel arguments: every value ends where the metadata says, or is refused by name."""

from __future__ import annotations

import struct
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument
from amdrv.runtime import code_object, kernarg
from amdrv.runtime.code_object import KernelCode, KernelDescriptor
from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.kernarg import LaunchShape
from amdrv.runtime.metadata import Argument

SHAPE = LaunchShape(
    grid=(7, 5, 3),
    block=(64, 2, 1),
    dimensions=3,
    surroundings=kernarg.Surroundings(0x1_0000_0000_0000, 0x2_0000_0000_0000, 0x2000_0000_0400),
)
DESCRIPTOR = KernelDescriptor(0, 0, 0, 0, 0, 0, 0, 0, 0)


class Pointer(kernarg.DevicePointer):
    """Something with a device address."""

    def __init__(self, va: int) -> None:
        self._va = va

    @property
    def va(self) -> int:
        return self._va


def kernel(*arguments: Argument, kernarg_bytes: int = 256) -> KernelCode:
    """A kernel that takes ``arguments``."""
    return KernelCode("k", DESCRIPTOR, 0, 0, 0, arguments, kernarg_bytes, 8, 1024, None, False)


def one(size_bytes: int, kind: str = "by_value", type_name: str = "") -> KernelCode:
    """A kernel with one argument called a."""
    return kernel(Argument("a", 0, size_bytes, kind, type_name))


def pack(code: KernelCode, values: list[object], shape: LaunchShape) -> kernarg.Packed:
    """One filled segment."""
    return kernarg.Packer(code).pack(values, shape)


def first(code: KernelCode, value: object) -> bytes:
    """The bytes of the only argument."""
    (argument,) = code.arguments or ()
    return pack(code, [value], SHAPE).data[: argument.size_bytes]


def test_arguments_stand_where_the_compiler_put_them(saxpy: bytes) -> None:
    code = code_object.parse(saxpy).kernel("saxpy")
    packed = pack(code, [Pointer(0x2000_0000_1000), 0x2000_0000_2000, 2.5, 1000], SHAPE).data
    assert struct.unpack_from("<QQfI", packed) == (0x2000_0000_1000, 0x2000_0000_2000, 2.5, 1000)
    assert len(packed) == code.kernarg_bytes


def test_hidden_arguments_tell_the_shape_of_the_launch(saxpy: bytes) -> None:
    code = code_object.parse(saxpy).kernel("saxpy")
    packed = pack(code, [0, 0, 0.0, 0], SHAPE).data
    # AMDGPUUsage V5: counts, sizes, remainders from the implicit argument pointer on; grid dimensions 64 bytes in.
    assert struct.unpack_from("<III HHH HHH".replace(" ", ""), packed, 24) == (7, 5, 3, 64, 2, 1, 0, 0, 0)
    declared = {a.kind for a in code.arguments or ()}
    assert {"hidden_block_count_x", "hidden_group_size_x"} <= declared


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("hidden_block_count_y", 4, 5),
        ("hidden_group_size_z", 2, 1),
        ("hidden_remainder_x", 2, 0),
        ("hidden_global_offset_x", 8, 0),
        ("hidden_grid_dims", 2, 3),
        ("hidden_none", 8, 0),
        ("hidden_printf_buffer", 8, 0),
        ("hidden_hostcall_buffer", 8, 0),
        ("hidden_multigrid_sync_arg", 8, 0),
        ("hidden_heap_v1", 8, 0),
        ("hidden_default_queue", 8, 0),
        ("hidden_completion_action", 8, 0),
        ("hidden_dynamic_lds_size", 4, 96),
        ("hidden_private_base", 4, 0x20000),
        ("hidden_shared_base", 4, 0x10000),
        ("hidden_queue_ptr", 8, 0x2000_0000_0400),
    ],
)
def test_each_hidden_argument_has_its_value(kind: str, size: int, expected: int) -> None:
    code = kernel(Argument("", 16, size, kind))
    packed = pack(code, [], replace(SHAPE, dynamic_lds_bytes=96)).data
    assert int.from_bytes(packed[16 : 16 + size], "little") == expected
    assert not any(packed[:16]) and not any(packed[16 + size :])


@given(st.sampled_from([1, 2, 4, 8]), st.integers(-(1 << 70), 1 << 70))
def test_an_integer_fits_signed_or_unsigned_or_is_refused(size: int, value: int) -> None:
    bits = 8 * size
    if -(1 << bits - 1) <= value < 1 << bits:
        assert first(one(size), value) == (value % (1 << bits)).to_bytes(size, "little")
    else:
        with pytest.raises(InvalidArgument, match=r"kernel 'k', argument 0 \(a\)"):
            first(one(size), value)


@given(st.floats(width=32, allow_nan=False))
def test_a_float_takes_the_size_of_the_argument(value: float) -> None:
    assert first(one(4), value) == struct.pack("<f", value)
    assert first(one(8), value) == struct.pack("<d", value)


def test_half_precision_and_overflow() -> None:
    assert first(one(2), 1.5) == struct.pack("<e", 1.5)
    with pytest.raises(InvalidArgument, match="too large for a 16-bit float"):
        first(one(2), 1e6)
    with pytest.raises(InvalidArgument, match="too large for a 32-bit float"):
        first(one(4), 1e300)
    with pytest.raises(InvalidArgument, match="floats have 2, 4 or 8"):
        first(one(1), 1.0)


def test_a_type_name_decides_where_there_is_one() -> None:
    assert first(one(4, type_name="float"), 3) == struct.pack("<f", 3.0)
    assert first(one(8, type_name="f64"), 3) == struct.pack("<d", 3.0)
    assert first(one(4, type_name="float4"), 3) == struct.pack("<i", 3)
    for integer_type in ("int", "uint", "unsigned int", "size_t", "i32", "uint32_t", "long"):
        with pytest.raises(InvalidArgument, match="is a float"):
            first(one(4, type_name=integer_type), 3.0)


@given(st.sampled_from([np.int8, np.uint16, np.float16, np.int32, np.float32, np.uint64, ml_dtypes.bfloat16]))
def test_a_numpy_scalar_goes_as_it_is_if_its_size_matches(kind: type[np.generic]) -> None:
    value = kind(1)
    size = np.dtype(kind).itemsize
    assert first(one(size), value) == np.asarray(value).tobytes()
    with pytest.raises(InvalidArgument, match=f"has {size}"):
        first(one(8 if size < 8 else 4), value)


def test_bytes_go_verbatim_if_their_size_matches() -> None:
    assert first(one(12), b"twelve bytes") == b"twelve bytes"
    with pytest.raises(InvalidArgument, match="has 12 bytes, 3 were given"):
        first(one(12), b"few")
    with pytest.raises(InvalidArgument, match="pass it as bytes"):
        first(one(12), 1)


def test_pointers_take_memory_addresses_and_null() -> None:
    code = one(8, "global_buffer")
    assert first(code, Pointer(0x1234)) == (0x1234).to_bytes(8, "little")
    assert first(code, np.uint64(0x5678)) == (0x5678).to_bytes(8, "little")
    assert first(code, None) == bytes(8)
    for wrong in (-1, 1 << 64, 2.0, "x"):
        with pytest.raises(InvalidArgument, match=r"argument 0 \(a\)"):
            first(code, wrong)
    with pytest.raises(InvalidArgument, match=r"dev\.array"):
        first(code, np.zeros(4))


def test_what_is_no_number_is_refused() -> None:
    for wrong in (None, "1", [1], object(), 1j, np.zeros(2)):
        with pytest.raises(InvalidArgument, match="kernel 'k', argument 0"):
            first(one(4), wrong)


def test_the_wrong_count_names_the_arguments() -> None:
    code = kernel(Argument("x", 0, 4, "by_value"), Argument("n", 4, 4, "by_value"), Argument("", 8, 4, "hidden_none"))
    with pytest.raises(InvalidArgument, match=r"takes 2 arguments \(x, n\), 3 were given"):
        pack(code, [1, 2, 3], SHAPE)


def test_local_pointers_get_dynamic_lds_behind_what_is_there() -> None:
    code = kernel(
        Argument("p", 0, 4, "dynamic_shared_pointer", pointee_align=16),
        Argument("q", 4, 4, "dynamic_shared_pointer", pointee_align=4),
        Argument("", 8, 4, "hidden_dynamic_lds_size"),
    )
    code = replace(code, descriptor=replace(DESCRIPTOR, group_segment_bytes=20))
    packed = pack(code, [40, 8], SHAPE)
    assert struct.unpack_from("<III", packed.data) == (32, 72, 60)
    assert packed.dynamic_lds_bytes == 60
    with pytest.raises(InvalidArgument, match="LDS"):
        pack(code, [-1, 8], SHAPE)


def test_without_metadata_values_must_know_their_size() -> None:
    code = replace(kernel(kernarg_bytes=24), arguments=None)
    packed = pack(code, [np.float32(1.0), Pointer(0x10), np.int16(-1), b"ab"], SHAPE).data
    assert packed == struct.pack("<f4xQh2s4x", 1.0, 0x10, -1, b"ab")
    with pytest.raises(InvalidArgument, match="has no size"):
        pack(code, [1], SHAPE)
    with pytest.raises(InvalidArgument, match="has 24 bytes of arguments, 32 were given"):
        pack(code, [bytes(32)], SHAPE)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, 255)), max_size=12))
def test_every_argument_lands_at_its_offset_and_touches_no_other(fields: list[tuple[int, int]]) -> None:
    arguments, expected = [], bytearray(256)
    offset = 0
    for size, value in fields:
        offset = -(-offset // size) * size
        arguments.append(Argument("", offset, size, "by_value"))
        expected[offset] = value
        offset += size
    assert pack(kernel(*arguments), [value for _, value in fields], SHAPE).data == bytes(expected)


def test_kernels_from_a_compiler_take_what_their_source_says() -> None:
    code = compile_llvm(
        "define amdgpu_kernel void @k(i8 %a, ptr addrspace(1) %p, half %h, i64 %n, double %d, [3 x i32] %v) {\n"
        " store i8 %a, ptr addrspace(1) %p\n ret void\n}"
    )
    parsed = code_object.parse(code, "gfx1100").kernel("k")
    packed = pack(parsed, [-1, Pointer(0x40), 0.5, -2, 0.25, bytes(range(12))], SHAPE).data
    layout = struct.pack("<B7xQe6xqd12s", 255, 0x40, 0.5, -2, 0.25, bytes(range(12)))
    assert packed[: len(layout)] == layout
