"""Every operation gives what NumPy gives, on the host."""

from __future__ import annotations

import math

import numpy as np
import pytest

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor

RANDOM = np.random.default_rng(0)
A = RANDOM.standard_normal((5, 7)).astype(np.float32)
B = RANDOM.standard_normal((7, 19)).astype(np.float32)
C = RANDOM.standard_normal((2, 3, 8, 9)).astype(np.float32)
INTEGERS = RANDOM.integers(-9, 9, (5, 7)).astype(np.int32)
DIVISORS = RANDOM.integers(-4, 4, (5, 7)).astype(np.int32)


def tensor(array: object, **options: object) -> Tensor:
    return Tensor(array, device="CPU", **options)  # type: ignore[arg-type]


def same(found: Tensor, wanted: object, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    expected = np.asarray(wanted)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy().astype(expected.dtype), expected, rtol=rtol, atol=atol)


UNARY = {
    "exp": np.exp, "exp2": np.exp2, "sin": np.sin, "cos": np.cos, "tan": np.tan, "tanh": np.tanh, "floor": np.floor,
    "ceil": np.ceil, "round": np.round, "trunc": np.trunc, "sign": np.sign, "square": np.square, "sinh": np.sinh,
    "cosh": np.cosh, "expm1": np.expm1, "isnan": np.isnan, "isfinite": np.isfinite, "atan": np.arctan,
    "asinh": np.arcsinh,
}  # fmt: skip
POSITIVE = {"log": np.log, "log2": np.log2, "log10": np.log10, "sqrt": np.sqrt, "log1p": np.log1p}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(name: str) -> None:
    same(getattr(tensor(A * 3), name)(), UNARY[name](A * 3), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_positive_numbers(name: str) -> None:
    same(getattr(tensor(abs(A) + 1e-3), name)(), POSITIVE[name](abs(A) + np.float32(1e-3)), rtol=2e-6, atol=1e-7)


def test_inverse_functions_where_they_are_defined() -> None:
    inside, beyond = np.float32(0.98) * np.tanh(A), 1 + abs(A)
    same(tensor(inside).asin(), np.arcsin(inside), rtol=3e-6)
    same(tensor(inside).acos(), np.arccos(inside), rtol=3e-6)
    same(tensor(inside).atanh(), np.arctanh(inside), rtol=3e-6)
    same(tensor(beyond).acosh(), np.arccosh(beyond), rtol=3e-6)
    same(tensor(A).atan2(tensor(A[::-1].copy())), np.arctan2(A, A[::-1]), rtol=3e-6)
    same(tensor(A * 90).logaddexp(tensor(A[::-1].copy())), np.logaddexp(A * 90, A[::-1]), rtol=3e-6)


BINARY = ["__add__", "__sub__", "__mul__", "__truediv__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("other", [A[::-1].copy(), A[:1], A[:, :1], 2, 0.5])
def test_arithmetic_broadcasts(name: str, other: object) -> None:
    given = tensor(other) if isinstance(other, np.ndarray) else other
    same(getattr(tensor(A), name)(given), getattr(A, name)(other), rtol=1e-6)


@pytest.mark.parametrize("name", ["__floordiv__", "__mod__", "__and__", "__or__", "__xor__"])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integer_arithmetic_rounds_down_and_divides_by_zero_to_zero(name: str, dtype: type) -> None:
    a, b = INTEGERS.astype(dtype), DIVISORS.astype(dtype)
    with np.errstate(all="ignore"):
        wanted = getattr(a, name)(b)
    found = getattr(tensor(a), name)(tensor(b)).numpy()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_the_least_integer_divided_by_minus_one_wraps() -> None:
    a = np.array([-(2**31), 5], np.int32)
    np.testing.assert_array_equal((tensor(a) // tensor(np.array([-1, -1], np.int32))).numpy(), [-(2**31), -5])


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1), -1])
@pytest.mark.parametrize("name", ["sum", "max", "min", "mean", "prod", "var", "std", "any", "all"])
def test_reductions(name: str, axis: object) -> None:
    same(getattr(tensor(A), name)(axis), getattr(np, name)(A, axis=axis), rtol=1e-5)


def test_sums_of_integers_are_64_bits_wide() -> None:
    assert tensor(INTEGERS).sum().numpy().dtype == np.int64
    assert tensor(INTEGERS).sum().item() == INTEGERS.sum()


@pytest.mark.parametrize("axis", [0, 1])
def test_positions_of_extremes_and_running_sums(axis: int) -> None:
    x = tensor(INTEGERS)
    np.testing.assert_array_equal(x.argmax(axis).numpy(), INTEGERS.argmax(axis))
    np.testing.assert_array_equal(x.argmin(axis).numpy(), INTEGERS.argmin(axis))
    np.testing.assert_array_equal(x.cumsum(axis).numpy(), INTEGERS.cumsum(axis))
    assert x.argmax().item() == INTEGERS.argmax()


VIEWS = {
    "reshape": (lambda x: x.reshape(6, 72), lambda x: x.reshape(6, 72)),
    "minus one": (lambda x: x.reshape(-1, 9), lambda x: x.reshape(-1, 9)),
    "permute": (lambda x: x.permute(3, 0, 2, 1), lambda x: x.transpose(3, 0, 2, 1)),
    "permute reshape": (lambda x: x.permute(3, 0, 2, 1).reshape(-1), lambda x: x.transpose(3, 0, 2, 1).reshape(-1)),
    "flip": (lambda x: x.flip((1, 3)), lambda x: np.flip(x, (1, 3))),
    "slices": (lambda x: x[:, 1:, ::2, ::-3], lambda x: x[:, 1:, ::2, ::-3]),
    "integers": (lambda x: x[1, -1, :, 3], lambda x: x[1, -1, :, 3]),
    "none": (lambda x: x[:, None, 1, ..., None], lambda x: x[:, None, 1, ..., None]),
    "pad": (lambda x: x.pad([(0, 0), (1, 2), (0, 0), (3, 0)]), lambda x: np.pad(x, [(0, 0), (1, 2), (0, 0), (3, 0)])),
    "pad value": (
        lambda x: x.pad([(0, 0)] * 3 + [(2, 1)], 7.0),
        lambda x: np.pad(x, [(0, 0)] * 3 + [(2, 1)], constant_values=7.0),
    ),
    "pad reshape": (
        lambda x: x.pad([(0, 0)] * 3 + [(2, 1)]).reshape(-1, 8),
        lambda x: np.pad(x, [(0, 0)] * 3 + [(2, 1)]).reshape(-1, 8),
    ),
    "repeat": (lambda x: x.repeat(2, 1, 3, 1), lambda x: np.tile(x, (2, 1, 3, 1))),
    "roll": (lambda x: x.roll(3, -1), lambda x: np.roll(x, 3, -1)),
    "tril": (lambda x: x.tril(-1), lambda x: np.tril(x, -1)),
    "triu": (lambda x: x.triu(1), lambda x: np.triu(x, 1)),
    "squeeze": (lambda x: x[:1].squeeze(0).unsqueeze(-1), lambda x: x[0][..., None]),
    "windows": (
        lambda x: x.window(2, 3, 2),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, 2)[:, :, ::2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    ours, theirs = VIEWS[name]
    same(ours(tensor(C)), theirs(C), rtol=0, atol=0)
    same(ours(tensor(C) * 2 + 1), theirs(C * 2 + 1), rtol=1e-6)


def test_tensors_are_joined_and_parted() -> None:
    x, y = tensor(C), tensor(C[:, :2] * 2)
    same(x.cat(y, axis=1), np.concatenate([C, C[:, :2] * 2], 1))
    same(x.stack(x, axis=2), np.stack([C, C], 2))
    for ours, theirs in zip(x.split([3, 5], 2), np.split(C, [3], 2), strict=True):
        same(ours, theirs)


def test_elements_are_looked_up_by_integers_and_masks() -> None:
    x = tensor(C)
    i, j = np.array([[0, 1, -1], [1, 0, 0]]), np.array([2, 0, 1])
    same(x[tensor(i)], C[i])
    same(x[:, tensor(j)], C[:, j])
    same(x[tensor(i), tensor(j)], C[i, j])
    same(x[:, :, tensor(j), tensor(j)], C[:, :, j, j])
    same(x[tensor(i), :, tensor(j)], C[i, :, j])
    same(x[x > 0.5], C[C > 0.5])
    same(x[0, 1][x[0, 1, :, 0] > 0], C[0, 1][C[0, 1, :, 0] > 0])
    index = RANDOM.integers(0, 8, (2, 3, 4, 9))
    same(x.gather(2, tensor(index)), np.take_along_axis(C, index, 2))


def test_positions_out_of_range_stay_in_the_buffer() -> None:
    assert tensor(A[0])[tensor(np.array([100, -100]))].numpy().tolist() == [A[0, -1], A[0, 0]]


def test_values_are_put_in_parts() -> None:
    wanted = C.copy()
    x = tensor(C)
    wanted[:, 1, ::2, ::-3] = 5
    x[:, 1, ::2, ::-3] = 5
    wanted[0] = C[1] * 2
    x[0] = tensor(C[1] * 2)
    same(x, wanted)
    x[x < 0] = 0.0
    same(x, np.maximum(wanted, 0))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sorting_keeps_equal_elements_in_order_and_puts_nan_last(axis: int) -> None:
    x = RANDOM.integers(-3, 4, (4, 9, 5)).astype(np.float32)
    x[0, 3, 2] = np.nan
    np.testing.assert_array_equal(tensor(x).argsort(axis).numpy(), np.argsort(x, axis, stable=True))
    np.testing.assert_array_equal(tensor(x).sort(axis).numpy(), np.sort(x, axis))
    values, places = tensor(INTEGERS).topk(3, 1)
    wanted = np.argsort(-INTEGERS, 1, stable=True)[:, :3]
    np.testing.assert_array_equal(places.numpy(), wanted)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(INTEGERS, wanted, 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scatter_add_collects(axis: int) -> None:
    base = np.zeros((3, 4, 5), np.float32)
    values = RANDOM.standard_normal((3, 4, 5)).astype(np.float32)
    index = RANDOM.integers(0, base.shape[axis], base.shape)
    wanted = base.copy()
    for place in np.ndindex(*base.shape):
        target = list(place)
        target[axis] = index[place]
        wanted[tuple(target)] += values[place]
    same(tensor(base).scatter_add(axis, tensor(index), tensor(values)), wanted)


PRODUCTS = [((5, 7), (7, 19)), ((7,), (7, 19)), ((5, 7), (7,)), ((2, 1, 5, 7), (3, 7, 4)), ((64, 33), (33, 70))]


@pytest.mark.parametrize("shapes", PRODUCTS)
def test_matrix_products(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (RANDOM.standard_normal(shape).astype(np.float32) for shape in shapes)
    same(tensor(a) @ tensor(b), a @ b, rtol=1e-4, atol=1e-4)


def test_products_of_transposed_matrices() -> None:
    a, b = RANDOM.standard_normal((33, 40)).astype(np.float32), RANDOM.standard_normal((50, 40)).astype(np.float32)
    same(tensor(a) @ tensor(b).T, a @ b.T, rtol=1e-4, atol=1e-4)
    same(tensor(a).T @ tensor(a), a.T @ a, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("formula", ["ij,jk->ik", "ij,kj->ki", "bchw->bhwc", "ij->", "ij,ij->i", "ii->i", "bcii,c->b"])
def test_einsum(formula: str) -> None:
    sizes = {"i": 4, "j": 5, "k": 3, "b": 2, "c": 6, "h": 3, "w": 7}
    shapes = [[sizes[x] for x in term] for term in formula.split("->")[0].split(",")]
    given = [RANDOM.standard_normal(shape).astype(np.float32) for shape in shapes]
    first, *rest = (tensor(g) for g in given)
    same(first.einsum(formula, *rest), np.einsum(formula, *given), rtol=1e-4)


def conv_reference(x: np.ndarray, w: np.ndarray, stride: int, padding: int, dilation: int, groups: int) -> np.ndarray:
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    kh, kw = w.shape[2:]
    h = (x.shape[2] - dilation * (kh - 1) - 1) // stride + 1
    v = (x.shape[3] - dilation * (kw - 1) - 1) // stride + 1
    out = np.zeros((x.shape[0], w.shape[0], h, v), np.float32)
    per_in, per_out = x.shape[1] // groups, w.shape[0] // groups
    for o in range(w.shape[0]):
        g = o // per_out
        for i in range(kh):
            for j in range(kw):
                moved = x[:, g * per_in : (g + 1) * per_in, i * dilation :, j * dilation :]
                part = moved[:, :, : h * stride : stride, : v * stride : stride]
                out[:, o] += np.einsum("bchw,c->bhw", part, w[o, :, i, j])
    return out


OPTIONS = [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (1, 1, 1, 2)]


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), OPTIONS)
def test_convolution(stride: int, padding: int, dilation: int, groups: int) -> None:
    x = RANDOM.standard_normal((2, 4, 11, 10)).astype(np.float32)
    w = RANDOM.standard_normal((6, 4 // groups, 3, 3)).astype(np.float32)
    found = tensor(x).conv(tensor(w), None, stride, padding, dilation, groups)
    same(found, conv_reference(x, w, stride, padding, dilation, groups), rtol=1e-4, atol=1e-4)


def test_pooling() -> None:
    windows = np.lib.stride_tricks.sliding_window_view(C, (2, 2), (2, 3))[:, :, ::2, ::2]
    same(tensor(C).max_pool(2), windows.max((-1, -2)))
    same(tensor(C).avg_pool(2), windows.mean((-1, -2)))
    padded = np.pad(C, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    wanted = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3)).max((-1, -2))
    same(tensor(C).max_pool(3, 1, 1), wanted)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_normalisation_and_attention() -> None:
    same(tensor(A).softmax(), softmax(A))
    same(tensor(A).softmax(0), softmax(A.T).T)
    same(tensor(A).log_softmax(), np.log(softmax(A)))
    centred = C - C.mean(-1, keepdims=True)
    same(tensor(C).layernorm(), centred / np.sqrt(C.var(-1, keepdims=True) + 1e-5), rtol=1e-4)
    q, k, v = RANDOM.standard_normal((3, 2, 6, 8)).astype(np.float32)
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(8)
    same(tensor(q).attention(tensor(k), tensor(v)), softmax(scores) @ v)
    hidden = np.where(np.tri(6, dtype=bool), scores, -np.inf)
    same(tensor(q).attention(tensor(k), tensor(v), causal=True), softmax(hidden) @ v)


@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 33, 16), (3, 50, 40), (1, 16, 10), (2, 20, 96)])
def test_attention_of_many_sizes(shape: tuple[int, ...]) -> None:
    q, k, v = RANDOM.standard_normal((3, *shape)).astype(np.float32)
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(shape[-1])
    same(tensor(q).attention(tensor(k), tensor(v)), softmax(scores) @ v)
    weights = np.tanh(scores)  # a costly operand that no reduction goes into
    same((tensor(scores).tanh()) @ tensor(v), weights @ v, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 64, 48), (8, 16, 16)])
def test_products_of_integers_that_are_costly_to_make(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    x, y = RANDOM.standard_normal((m, k)).astype(np.float32), RANDOM.integers(-9, 9, (k, n)).astype(np.int32)
    made = (tensor(x).tanh().exp() * 9).floor().cast("int32")
    same(made @ tensor(y), np.floor(np.exp(np.tanh(x)) * 9).astype(np.int32) @ y)


def test_tensors_without_elements() -> None:
    x = tensor(np.zeros((0, 4), np.float32))
    assert (x + 1).numpy().shape == (0, 4)
    same(x.sum(0), np.zeros(4, np.float32))
    assert x.cat(tensor(A[:, :4]), axis=0).shape == (5, 4)
    same(x @ tensor(B[:4]), np.zeros((0, 19), np.float32))
    same(tensor(np.zeros((3, 0), np.float32)) @ tensor(np.zeros((0, 2), np.float32)), np.zeros((3, 2), np.float32))
    with pytest.raises(InvalidArgument, match="max of no elements"):
        x.max(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: x + tensor(np.zeros((3, 3))), ["add", "(5, 7)", "(3, 3)"]),
        (lambda x: x @ x, ["matmul", "(5, 7)"]),
        (lambda x: x.reshape(4, 4), ["reshape", "(5, 7)", "(4, 4)"]),
        (lambda x: x[9], ["9", "(5, 7)"]),
        (lambda x: x.cat(tensor(C)), ["cat", "(2, 3, 8, 9)"]),
        (lambda x: x & x, ["bitwise_and", "float32"]),
        (lambda x: x.sum(4), ["sum", "4"]),
        (lambda x: Tensor(x, device="TPU"), ["TPU"]),
    ],
)  # fmt: skip
def test_errors_name_the_operation_and_the_shapes(make: object, words: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make(tensor(A))  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words)


def test_huge_tensors_are_lazy_and_their_positions_are_64_bits_wide() -> None:
    x = Tensor.arange(1 << 33, device="CPU").reshape(1 << 13, 1 << 20)
    assert x[-1, -3:].numpy().tolist() == [(1 << 33) - 3, (1 << 33) - 2, (1 << 33) - 1]


def test_what_simplifies_to_its_argument_is_a_copy_of_it() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3), device="CPU")
    for unchanged in (x * 1, x.permute(0, 1), x.T.T, x.reshape(6).reshape(2, 3)):
        same(unchanged, x.numpy())
