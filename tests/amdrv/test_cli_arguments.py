"""The grammar of ``amdrv run --arg``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.cli import arguments as args
from amdrv.errors import InvalidArgument

INTEGERS = [name for name in args.TYPES if name[0] in "iu"]


@given(st.sampled_from(INTEGERS), st.data())
def test_an_integer_that_fits_keeps_its_value_and_type(kind: str, data: st.DataObject) -> None:
    limits = np.iinfo(args.TYPES[kind])
    number = data.draw(st.integers(limits.min, limits.max))
    parsed = args.parse(f"{kind}:{number:#x}")
    assert isinstance(parsed.value, args.TYPES[kind])
    assert int(parsed.value) == number


@given(st.sampled_from(INTEGERS), st.data())
def test_an_integer_that_does_not_fit_is_refused_with_the_limits(kind: str, data: st.DataObject) -> None:
    limits = np.iinfo(args.TYPES[kind])
    number = data.draw(st.one_of(st.integers(max_value=limits.min - 1), st.integers(min_value=limits.max + 1)))
    with pytest.raises(InvalidArgument, match=str(limits.max)):
        args.parse(f"{kind}:{number}")


@given(st.floats(width=32, allow_nan=False))
def test_a_float_keeps_its_value(number: float) -> None:
    assert args.parse(f"f32:{number!r}").value == np.float32(number)


def test_a_float_beyond_its_type_is_refused_but_infinity_is_a_value() -> None:
    with pytest.raises(InvalidArgument, match="too large for f16"):
        args.parse("f16:1e6")
    assert args.parse("f16:inf").value == np.inf


@given(
    st.one_of(
        st.text(max_size=30), st.builds(":".join, st.lists(st.sampled_from((*args.TYPES, "buf", "file", "1", "="))))
    )
)
def test_any_text_is_an_argument_or_an_error_of_the_family(text: str) -> None:
    try:
        args.parse(text)
    except InvalidArgument as error:
        assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("buf:f32:3", [0.0, 0.0, 0.0]),
        ("buf:i16:3=ones", [1, 1, 1]),
        ("buf:u8:4=iota", [0, 1, 2, 3]),
        ("buf:f64:2=-2.5", [-2.5, -2.5]),
        ("out:i32:2x2=7", [[7, 7], [7, 7]]),
    ],
)
def test_a_buffer_is_filled_as_asked(text: str, expected: list[object]) -> None:
    parsed = args.parse(text)
    assert parsed.contents is not None
    assert parsed.contents.tolist() == expected
    assert parsed.contents.dtype == args.TYPES[text.split(":")[1]]
    assert parsed.shown == text.startswith("out:")


def test_random_numbers_depend_on_the_seed_alone() -> None:
    one, same, other = (args.parse("buf:i8:64=random", seed).contents for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "text",
    ["buf:f32", "buf:q32:4", "buf:f32:0", "buf:f32:-1", "buf:f32:4x", "buf:f32:4=nonsense", "buf:u8:4=256",
     "buf:f64:99999999999", "i32", "i32:", ":5", "bytes:xyz", "ptr:-1", "ptr:0x1_0000_0000_0000_0000", "what:5"],
)  # fmt: skip
def test_a_bad_argument_is_refused_and_repeated(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        args.parse(text)
    assert repr(text) in str(caught.value)


def test_addresses_and_bytes_pass_as_they_are() -> None:
    assert args.parse("ptr:0x200000000000").value == 0x2000_0000_0000
    assert args.parse("ptr:null").value == 0
    assert args.parse("bytes:00ff10").value == b"\x00\xff\x10"


def test_files_become_buffers_raw_or_as_arrays(tmp_path: Path) -> None:
    (tmp_path / "raw.bin").write_bytes(b"\x01\x02")
    np.save(tmp_path / "array.npy", np.arange(6, dtype=np.float16).reshape(2, 3))
    raw, array = (args.parse(f"file:{tmp_path / name}").contents for name in ("raw.bin", "array.npy"))
    assert raw is not None
    assert raw.tolist() == [1, 2]
    assert array is not None
    assert array.shape == (2, 3)
    assert array.dtype == np.float16


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00garbage", b"PK\x03\x04"])
def test_a_broken_npy_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.npy").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"broken\.npy"):
        args.parse(f"file:{tmp_path / 'broken.npy'}")


def test_a_pickle_in_an_npy_file_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidArgument, match="usable"):
        args.parse(f"file:{tmp_path / 'objects.npy'}")


@pytest.mark.parametrize(
    ("text", "dims"), [("64", (64,)), ("8x4", (8, 4)), ("8,4,2", (8, 4, 2)), ("0x10", None), ("16", (16,))]
)
def test_dimensions(text: str, dims: tuple[int, ...] | None) -> None:
    if dims is None:  # "0x10" reads as 0 by 10, which no launch has
        with pytest.raises(InvalidArgument, match="--grid"):
            args.parse_dims(text, "--grid")
    else:
        assert args.parse_dims(text, "--grid") == dims


@pytest.mark.parametrize("text", ["", "0", "-1", "1x2x3x4", "a", "1.5", "2x"])
def test_bad_dimensions_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--block"):
        args.parse_dims(text, "--block")


def test_only_buffers_can_be_saved(tmp_path: Path) -> None:
    parsed = [args.parse("i32:1"), args.parse("buf:f32:4")]
    assert args.parse_save("1=x.npy", parsed) == (1, Path("x.npy"))
    for bad in ("0=x", "2=x", "1=", "x=1", "1"):
        with pytest.raises(InvalidArgument, match="--save"):
            args.parse_save(bad, parsed)
    values = np.arange(3, dtype=np.int16)
    args.save(tmp_path / "a.npy", values)
    args.save(tmp_path / "a.bin", values)
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)
    assert (tmp_path / "a.bin").read_bytes() == values.tobytes()
