"""Tensors behave as array-api-strict does: names, signatures, types, shapes, values and special values.

What the namespace does not have is listed by name: complex numbers, and the extension ``fft``.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.tensor import Tensor, array_api
from amdrv.tensor.tables.array_methods import BINARY, UNARY

strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")

ABSENT = {"complex64", "complex128", "fft", "imag"}
CREATION = ("arange", "linspace", "eye", "full", "zeros", "ones", "empty", "asarray")
OURS = SimpleNamespace(
    **vars(array_api) | {name: functools.partial(getattr(array_api, name), device="CPU") for name in CREATION}
)
OTHERS = {"Device", "ArrayAPIStrictFlags", "__version__", "broadcast_shapes", "isin"}  # its own, or of a later standard
FLOATS, INTEGERS = ["float32", "float64"], ["int8", "int32", "int64", "uint8", "uint32"]
TYPES = ["bool", *INTEGERS, "int16", "uint16", "uint64", *FLOATS]
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 2.0, -3.7, 1e-30, 1e30, -1e30, 88.0, 2.5, 1e-5]
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _version() -> Iterator[None]:
    strict.set_array_api_strict_flags(api_version="2024.12")
    yield
    strict.reset_array_api_strict_flags()


def both(array: Any, dtype: str | None = None) -> tuple[Tensor, Any]:
    """An array as a tensor and as array-api-strict has it."""
    value = np.asarray(array, dtype)
    return Tensor(value, device="CPU"), strict.asarray(value)


def numpy(found: Any) -> Any:
    return np.from_dlpack(found) if not isinstance(found, Tensor) else found.numpy()


def same(found: Any, wanted: Any, what: object = "", signs: bool = True) -> None:
    """Equal types, shapes and values; zeros with equal signs."""
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted), what
        for a, b in zip(found, wanted, strict=True):
            same(a, b, what, signs)
        return
    if not hasattr(wanted, "dtype"):
        assert found == wanted, what
        return
    a, b = numpy(found), numpy(wanted)
    assert (a.dtype, a.shape) == (b.dtype, b.shape), what
    if a.dtype.kind != "f":
        np.testing.assert_array_equal(a, b, str(what))
        return
    tolerance = 4e-6 if a.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(a, b, tolerance, tolerance, err_msg=str(what))
    if signs:
        zero = (a == 0) & (b == 0)
        np.testing.assert_array_equal(np.signbit(a[zero]), np.signbit(b[zero]), str(what))


def agree(call: Callable[[Any, Any], Any], *arrays: Any, what: object = "", signs: bool = True) -> None:
    """A function of (namespace, *arrays) gives the same in both, or an error in both."""
    pairs = [both(array) for array in arrays]
    try:
        wanted = call(strict, *(theirs for _, theirs in pairs))
    except Exception as error:
        with pytest.raises((ValueError, IndexError, TypeError)):
            call(OURS, *(ours for ours, _ in pairs))
            pytest.fail(f"{what}: array-api-strict raises {error!r}")
        return
    same(call(OURS, *(ours for ours, _ in pairs)), wanted, what, signs)


# -- names, signatures, types ------------------------------------------------------------------------------------------


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Names (where they can be used), kinds and defaults."""
    shown = inspect.signature(function).parameters.values()
    plain = (int, float, str, type(None))
    return [
        (p.name if p.kind is not p.POSITIONAL_ONLY else "", p.kind, p.default if isinstance(p.default, plain) else None)
        for p in shown
    ]


def test_every_function_has_the_standard_s_name_and_signature() -> None:
    names = [name for name in strict.__all__ if "flags" not in name and name not in ABSENT | OTHERS]
    assert [name for name in names if not hasattr(array_api, name)] == []
    for name in names:
        theirs = getattr(strict, name)
        if inspect.isfunction(theirs) and name not in ("__array_namespace_info__",):
            assert parameters(getattr(array_api, name)) == parameters(theirs), name


def test_tensors_have_every_method_and_attribute() -> None:
    own = [name for name in dir(strict.asarray(1)) if not name.startswith("_") or name.endswith("__")]
    x = Tensor([[1.0]], device="CPU")
    assert [
        name for name in own if not hasattr(x, name) and name not in ("__annotations__", "__buffer__", "__iter__")
    ] == []
    assert Tensor([1.0], device="CPU").__array_namespace__(api_version="2023.12") is array_api
    with pytest.raises(ValueError, match="2035"):
        Tensor([1.0], device="CPU").__array_namespace__(api_version="2035.12")


@pytest.mark.parametrize("first", TYPES)
def test_types_are_promoted_as_in_the_standard(first: str) -> None:
    for second in TYPES:
        pair = [getattr(strict, name) for name in (first, second)]
        ours = [getattr(array_api, name) for name in (first, second)]
        assert array_api.isdtype(ours[0], second if second == "bool" else ours[1]) == (first == second)
        try:
            wanted = strict.result_type(*pair)
        except TypeError:
            continue  # array-api-strict refuses what the standard leaves open
        assert array_api.result_type(*ours).name == str(wanted).rpartition(".")[2].strip("'>")
        assert array_api.can_cast(*ours) == strict.can_cast(*pair)
    for scalar in (True, 1, 1.0):
        try:
            wanted = strict.result_type(strict.asarray(0, dtype=getattr(strict, first)), scalar)
        except TypeError:
            continue
        assert array_api.result_type(getattr(array_api, first), scalar).name in str(wanted)
    for kind in ("bool", "integral", "signed integer", "unsigned integer", "real floating", "numeric"):
        assert array_api.isdtype(getattr(array_api, first), kind) == strict.isdtype(getattr(strict, first), kind)


def test_limits_of_types_and_what_the_namespace_says_of_itself() -> None:
    for name in [name for name in TYPES if name != "bool"]:
        ask = "finfo" if name in FLOATS else "iinfo"
        ours, theirs = (getattr(xp, ask)(getattr(xp, name)) for xp in (array_api, strict))
        for field in ("bits", "max", "min", *(("eps", "smallest_normal") if name in FLOATS else ())):
            assert getattr(ours, field) == getattr(theirs, field), (name, field)
    info, theirs = array_api.__array_namespace_info__(), strict.__array_namespace_info__()
    for kind in (None, "integral", ("bool", "real floating")):
        assert {*info.dtypes(kind=kind)} == {name for name in theirs.dtypes(kind=kind) if "complex" not in name}
    assert info.capabilities().keys() == theirs.capabilities().keys()
    assert info.default_device() in info.devices()


# -- elements ----------------------------------------------------------------------------------------------------------


def numbers(dtype: str) -> Any:
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            return np.concatenate([SPECIAL, RANDOM.standard_normal(40), RANDOM.standard_normal(40) * 30]).astype(dtype)
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.array([*limits, *RANDOM.integers(0, 2 if dtype == "bool" else 100, 60)], dtype)


def taken(call: Callable[..., Any], *dtypes: str) -> bool:
    """Whether array-api-strict takes these types."""
    try:
        call(*(strict.ones(1, dtype=getattr(strict, dtype)) for dtype in dtypes))
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in UNARY if name != "nonzero"])
def test_functions_of_one_array(name: str) -> None:
    for dtype in ("bool", "int8", "int64", "uint8", *FLOATS):
        if taken(getattr(strict, name), dtype):
            x = numbers(dtype)
            with np.errstate(all="ignore"):
                agree(lambda xp, x: getattr(xp, name)(x), x, what=(name, dtype))


UNLIKE = {"floor_divide": "infinite quotients are infinite, which the standard allows and NumPy has as NaN"}


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arrays(name: str) -> None:
    if name == "matmul":
        pytest.skip("see products")
    for dtype in ("bool", "int8", "int64", "uint8", *FLOATS):
        if not taken(getattr(strict, name), dtype, dtype):
            continue
        x = numbers(dtype)
        a, b = (part.ravel() for part in np.meshgrid(x[:17], x[:17]))
        a, b = np.concatenate([a, x]), np.concatenate([b, RANDOM.permutation(x)])
        if dtype not in FLOATS:
            if name in ("floor_divide", "remainder"):
                a, b = a[b != 0], b[b != 0]
            if name in ("pow", "bitwise_left_shift", "bitwise_right_shift"):
                b = b.clip(0, 9)
        elif name == "pow":
            a, b = a.clip(-40, 40), b.clip(-8, 8)  # so that what is left of the error is small
        elif name in ("remainder", "floor_divide"):
            keep = ~(np.isinf(a) if name in UNLIKE else np.zeros(a.shape, bool)) & ~(abs(a) > 1e9 * abs(b))
            a, b = a[keep], b[keep]
        ties = name in ("maximum", "minimum")  # which of 0.0 and -0.0 is greater is left open
        with np.errstate(all="ignore"):
            agree(lambda xp, x, y: getattr(xp, name)(x, y), a, b, what=(name, dtype), signs=not ties)


OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "matmul"]


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_reflected_and_in_place(name: str) -> None:
    wanted = np.array([[1, 2], [3, 4]])
    for array in (wanted, wanted.astype(np.float32)):
        for form in ("", "r", "i"):
            for other in (both(array), *([] if name == "matmul" else [(3, 3)])):

                def call(x: Any, y: Any, form: str = form) -> Any:
                    return getattr(x, f"__{form}{name}__")(y)

                (ours, theirs), (mine, yours) = both(array), other
                try:
                    result = call(theirs, yours)
                except TypeError:
                    continue
                same(call(ours, mine), result, (name, form))
                if form == "i":
                    same(ours, theirs, name)


def test_arithmetic_in_place_keeps_shape_and_type() -> None:
    x = Tensor([1, 2], device="CPU")
    with pytest.raises(ValueError, match="assign"):
        x += Tensor([[1, 2], [3, 4]], device="CPU")
    with pytest.raises(ValueError, match="float"):
        x += 1.5
    assert x.tolist() == [1, 2]


# -- creation, shapes --------------------------------------------------------------------------------------------------

X = RANDOM.standard_normal((2, 3, 4)).astype(np.float32)
N = RANDOM.integers(-5, 5, (3, 4))
EMPTY = np.zeros((0, 3), np.float32)
SHAPES: dict[str, tuple[Any, ...]] = {
    "arange": (lambda xp: [xp.arange(5), xp.arange(2, 9, 3), xp.arange(3.0, -2.0, -0.5, dtype=xp.float64)],),
    "arange of nothing": (lambda xp: xp.arange(5, 2, dtype=xp.int8),),
    "linspace": (
        lambda xp: [xp.linspace(-1, 3, n, dtype=xp.float64, endpoint=e) for n in (0, 1, 2, 9) for e in (0, 1)],
    ),
    "eye": (lambda xp: [xp.eye(3, dtype=xp.float64, k=k) for k in (-5, -1, 0, 2, 9)] + [xp.eye(2, 4, dtype=xp.int32)],),
    "full": (lambda xp: [xp.full((2, 0), 3), xp.full((), True), xp.full(4, 2, dtype=xp.uint8)],),
    "like": (lambda xp, x: [xp.zeros_like(x), xp.ones_like(x, dtype=xp.int8), xp.full_like(x, 7)], N),
    "meshgrid": (
        lambda xp, x: list(xp.meshgrid(x[0, :], x[:, 0], x[1, :])) + list(xp.meshgrid(x[0, :], x[:, 0], indexing="ij")),
        N,
    ),
    "triangles": (lambda xp, x: [f(x, k=k) for f in (xp.tril, xp.triu) for k in (-9, -1, 0, 2, 9)], X),
    "asarray": (lambda xp, x: [xp.asarray(x, dtype=xp.float64), xp.asarray([[1, 2]]), xp.asarray(True)], N),
    "astype": (lambda xp, x: [xp.astype(x, t) for t in (xp.bool, xp.int8, xp.float32, xp.uint16)], abs(N)),
    "broadcast": (
        lambda xp, x: [*xp.broadcast_arrays(x[:1, :], x[:, :1], x[0, 0]), xp.broadcast_to(x, (2, 3, 4))],
        N,
    ),
    "concat": (
        lambda xp, x: [xp.concat([x, x[:1, :]]), xp.concat([x, x[0, :]], axis=None), xp.concat((x, x), axis=-1)],
        N,
    ),
    "stack": (lambda xp, x: [xp.stack([x, x + 1], axis=a) for a in (0, 1, -1)] + list(xp.unstack(x, axis=1)), N),
    "expand_dims": (lambda xp, x: [xp.expand_dims(x, axis=a) for a in (0, 2, -1)], N),
    "flip": (lambda xp, x: [xp.flip(x), xp.flip(x, axis=1), xp.flip(x, axis=(0, 2))], X),
    "axes": (lambda xp, x: [xp.permute_dims(x, (2, 0, 1)), xp.moveaxis(x, 0, -1), xp.moveaxis(x, (0, 1), (2, 0))], X),
    "repeat": (
        lambda xp, x: [xp.repeat(x, 2), xp.repeat(x, 3, axis=1), xp.repeat(x, xp.asarray([0, 2, 1]), axis=0)],
        N,
    ),
    "reshape": (lambda xp, x: [xp.reshape(x, (4, -1)), xp.reshape(x, (24,)), x.mT, xp.matrix_transpose(x)], X),
    "roll": (lambda xp, x: [xp.roll(x, 5), xp.roll(x, -1, axis=1), xp.roll(x, (1, 2), axis=(0, 2))], X),
    "squeeze": (lambda xp, x: [xp.squeeze(x[:1, ...], axis=0), xp.squeeze(x[:1, :, :1], axis=(0, 2))], X),
    "tile": (lambda xp, x: [xp.tile(x, (2,)), xp.tile(x, (2, 1, 3)), xp.tile(x, (0, 1))], N),
    "take": (
        lambda xp, x: [xp.take(x, xp.asarray([2, 0]), axis=a) for a in (0, 1, -1)] + [xp.take(x[0, :], x[0, :] * 0)],
        N,
    ),
    "take_along_axis": (lambda xp, x: [xp.take_along_axis(x, xp.argsort(x, axis=a), axis=a) for a in (0, -1)], N),
    "slices": (
        lambda xp, x: [x[0, ...], x[..., None], x[1:, ::-2, :], x[-1, 2, 1], x[:, None, 1:1, ...], x[::2, ..., -1]],
        X,
    ),
    "integer arrays": (lambda xp, x: [x[xp.asarray([1, 0, -1]), 2], x[xp.asarray([[0]]), xp.asarray([1, 2])]], N),
    "masks": (lambda xp, x: [x[x > 0], x[x > 9], x[0, 0, 0][x[0, 0, 0] > -9], x[0, 0, 0][x[0, 0, 0] > 9]], X),
    "iteration": (lambda xp, x: list(x[0, :]), N),
}
WAYS = list(itertools.product((None, 0, -1), (False, True)))
REDUCED: dict[str, tuple[Any, ...]] = {
    **{
        name: (lambda xp, x, n=name: [getattr(xp, n)(x, axis=a, keepdims=k) for a, k in [*WAYS, ((0, 2), False)]], X)
        for name in ("sum", "prod", "mean", "max", "min", "std", "var")
    },
    "integers": (lambda xp, x: [f(xp.astype(x, t)) for t in (xp.int8, xp.uint8) for f in (xp.sum, xp.prod)], abs(N)),
    "types of sums": (lambda xp, x: [xp.sum(x, dtype=xp.int8), xp.prod(x, dtype=xp.float64, axis=1)], N),
    "correction": (lambda xp, x: [f(x, axis=1, correction=c) for f in (xp.var, xp.std) for c in (0, 1, 2.5, 9)], X),
    "any": (lambda xp, x: [f(x > 1, axis=a) for f in (xp.any, xp.all, xp.count_nonzero) for a in (None, 0, (0, 1))], X),
    "positions": (lambda xp, x: [f(x, axis=a, keepdims=k) for f in (xp.argmax, xp.argmin) for a, k in WAYS], N),
    "nothing": (lambda xp, x: [f(x, axis=0) for f in (xp.sum, xp.prod)] + [xp.all(x), xp.sort(x), x + 1], EMPTY),
    "maximum of nothing": (lambda xp, x: xp.max(x), EMPTY),
    "argmax of nothing": (lambda xp, x: xp.argmax(x, axis=0), EMPTY),
    "running sums": (lambda xp, x: [xp.cumulative_sum(x, axis=a, include_initial=i) for a, i in WAYS[2:]], N),
    "running products": (lambda xp, x: [xp.cumulative_prod(x, axis=a, include_initial=i) for a, i in WAYS[2:]], N),
    "running of two axes": (lambda xp, x: xp.cumulative_sum(x), N),
    "running floats": (lambda xp, x: [xp.cumulative_sum(x, axis=2), xp.cumulative_sum(x, axis=1, dtype=xp.float64)], X),
    "diff": (lambda xp, x: [xp.diff(x), xp.diff(x, axis=0, n=2), xp.diff(x, prepend=x[:, :1], append=x[:, :2])], N),
    "products": (lambda xp, x: [x @ x.mT, xp.matmul(x[0, ...], x[0, 0, ...]), xp.vecdot(x, x[:1, ...], axis=-1)], X),
    "tensordot": (lambda xp, x: [xp.tensordot(x, x, axes=((0, 2), (0, 2))), xp.tensordot(x, x[0, ...], axes=0)], X),
    "products of integers": (lambda xp, x: [x @ xp.matrix_transpose(x), xp.vecdot(x, x), xp.tensordot(x, x)], N),
    "sort": (lambda xp, x: [f(x, axis=a, descending=d) for f in (xp.sort, xp.argsort) for a, d in WAYS[2:]], N),
    "sort of floats": (lambda xp, x: [xp.sort(x), xp.argsort(x, descending=True)], np.array([SPECIAL] * 2)),
    "search": (lambda xp, x: [xp.searchsorted(xp.sort(x[0, :]), x, side=s) for s in ("left", "right")], N),
    "search with order": (lambda xp, x: xp.searchsorted(x[0, :], x, sorter=xp.argsort(x[0, :])), N),
    "unique": (lambda xp, x: [xp.unique_values(x), *xp.unique_counts(x), *xp.unique_inverse(x)], N),
    "unique floats": (lambda xp, x: xp.unique_counts(x).counts, np.array([0.0, np.nan, 1.0, np.nan, 1.0])),
    "nonzero": (lambda xp, x: xp.nonzero(x), N),
    "nonzero of a number": (lambda xp, x: xp.nonzero(x), np.float32(1)),
    "where": (lambda xp, x: [xp.where(x > 0, x, 0), xp.where(x > 0, x[0, ...], x), xp.where(x > 0, 1.5, x)], X),
    "clip": (lambda xp, x: [xp.clip(x, -2, 2), xp.clip(x, min=x[0, ...]), xp.clip(x, max=1), xp.clip(x)], N),
    "scalars": (lambda xp, x: [xp.maximum(x, 0), xp.add(2, x), xp.pow(x, 2.0), xp.copysign(1.0, x), x > 1], X),
    "hypot atan2": (lambda xp, x: [xp.hypot(x, x[:1, ...]), xp.atan2(x, 0.5)], X),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SHAPES, *REDUCED])
def test_arrays_of_many_shapes(name: str) -> None:
    call, *arrays = (SHAPES | REDUCED)[name]
    with np.errstate(all="ignore"):
        agree(call, *arrays, what=name)


KEYS = [
    (0,), (slice(None), 1), (Ellipsis, -1), (slice(None, None, 2), slice(None, None, -1)), (slice(2, 2),),
    (np.array([2, 0, 2]),), (np.array([1, 0]), np.array([3, -1])), (slice(1, None), np.array([0, 3])), (N > 0,),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_elements_are_assigned_as_numpy_does(number: int) -> None:
    for value in (7, "the part"):
        wanted, found = N.copy(), Tensor(N, device="CPU")
        part = value if value == 7 else np.arange(N[KEYS[number]].size).reshape(N[KEYS[number]].shape)
        wanted[KEYS[number]] = part
        key = tuple(Tensor(k, device="CPU") if isinstance(k, np.ndarray) else k for k in KEYS[number])
        found[key] = part if value == 7 else Tensor(part, device="CPU")
        np.testing.assert_array_equal(found.numpy(), wanted)


WRONG: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda xp, x: x[:2, ...] + x,
    "axis": lambda xp, x: xp.sum(x, axis=2),
    "axis twice": lambda xp, x: xp.sum(x, axis=(0, 0)),
    "reshape": lambda xp, x: xp.reshape(x, (5, 5)),
    "matmul": lambda xp, x: x @ x,
    "concat": lambda xp, x: xp.concat([x, x[:, :1]], axis=0),
    "squeeze": lambda xp, x: xp.squeeze(x, axis=0),
    "index": lambda xp, x: x[3, 0],
    "float index": lambda xp, x: x[xp.asarray([0.5])],
    "number of two": lambda xp, x: float(x),
    "position of a float": lambda xp, x: range(xp.asarray(1.5)),
    "broadcast": lambda xp, x: xp.broadcast_to(x, (4, 3)),
    "permute": lambda xp, x: xp.permute_dims(x, (0, 0)),
    "bits of floats": lambda xp, x: xp.bitwise_and(x * 0.5, x),
    "expand_dims": lambda xp, x: xp.expand_dims(x, axis=4),
    "triangle of a line": lambda xp, x: xp.tril(x[0, ...]),
    "kind": lambda xp, x: xp.isdtype(x.dtype, "whole"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_there_is_refused_here(name: str) -> None:
    ours, theirs = both(N)
    with pytest.raises((ValueError, IndexError, TypeError)):
        WRONG[name](strict, theirs)
    with pytest.raises((ValueError, IndexError, TypeError)):
        WRONG[name](OURS, ours)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_random_arrays_of_two_shapes_go_together(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
    thin = [data.draw(st.sampled_from([n, 1])) for n in shape][data.draw(st.integers(0, len(shape))) :]
    dtype = data.draw(st.sampled_from(["int32", "float32"]))
    name, reduce = data.draw(
        st.sampled_from(list(itertools.product(["add", "multiply", "less"], ["sum", "any", "all"])))
    )
    a, b = (RANDOM.integers(-3, 3, part).astype(dtype) for part in (shape, thin))
    agree(lambda xp, x, y: getattr(xp, name)(x, y), a, b)
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1)) if shape else None
    agree(lambda xp, x: getattr(xp, reduce)(x, axis=axis), a)
