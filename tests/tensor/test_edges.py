"""What does not fit is refused by name, and NumPy's rarer rules of indexing hold."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor, array_api, jit
from amdrv.tensor.lower import Kernel
from amdrv.tensor.schedule import kernels

ARRAY = np.arange(24, dtype=np.int32).reshape(2, 3, 4)


def _tensor(array: object) -> Tensor:
    return Tensor(array, device="CPU")


REFUSED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "parts of length zero": (lambda x: x.split(0), r"split: parts of 0 along axis 0 of \(2, 3, 4\)"),
    "no parts": (lambda x: x.chunk(0, 1), r"chunk: axis 1 of \(2, 3, 4\) in 0 parts"),
    "more than there are": (lambda x: x.topk(5), r"topk: 5 elements along axis -1 of \(2, 3, 4\)"),
    "cut off more": (lambda x: x.pad([(0, -3), (0, 0), (0, 0)]), r"pad: .* \(2, 3, 4\)"),
    "a mask of another shape": (lambda x: x[_tensor(np.ones((3, 2), bool))], r"mask of shape \(3, 2\) for \(2, 3, 4\)"),
    "a mask behind others": (lambda x: x[..., np.ones(3, bool)], r"mask of shape \(3,\) for \(2, 3, 4\), axis 2"),
    "a target of another shape": (
        lambda x: x.cast("float32").cross_entropy(_tensor(np.zeros((1, 4), np.int64))),
        r"cross_entropy: classes of shape \(1, 4\) for \(2, 3, 4\), axis 1",
    ),
    "a number that is too large": (lambda x: x + (1 << 31), "2147483648 does not fit into int32"),
    "one that is too large for all": (lambda x: _tensor(1 << 70), "does not fit into int64"),
    "steps of nothing": (lambda x: Tensor.arange(0, 5, 0, device="CPU"), "arange from 0 to 5 in steps of 0"),
    "dropping all": (lambda x: x.dropout(1.0, seed=1), "dropout with a chance of 1.0"),
    "an empty range": (lambda x: Tensor.randint(3, low=5, high=2, seed=1, device="CPU"), "randint from 5 to 2"),
    "no finite range": (lambda x: Tensor.arange(float("inf"), device="CPU"), "arange from 0 to inf"),
    "a negative length": (lambda x: Tensor.rand(2, -1, seed=1, device="CPU"), r"a tensor of shape"),
    "a length that is no integer": (lambda x: Tensor.zeros(2.5, device="CPU"), r"\(2.5,\) are no integers"),
    "a shape that is no shape": (lambda x: x.reshape(2.0, 12), r"reshape of \(2, 3, 4\): \(2.0, 12\) are no integers"),
    "negative parts": (lambda x: x.split([3, -1]), r"split: sizes \[3, -1\] along axis 0 of \(2, 3, 4\)"),
    "an axis that is not there": (lambda x: x.softmax(7), r"softmax of \(2, 3, 4\): max: axes 7"),
    "an axis that is no integer": (lambda x: x.sum(1.5), r"sum of \(2, 3, 4\): axes 1.5"),  # type: ignore[arg-type]
    "steps of zero": (lambda x: x[::0], "slice step cannot be zero"),
    "an index for each axis and more": (lambda x: x.__setitem__((0, 0, 0, 0), 1), "4 indices for the 3 axes"),
    "floats for indices": (lambda x: x.scatter(0, x.cast("float32"), x), r"scatter of .*an index of type float32"),
    "keys of another width": (
        lambda x: x.cast("float32").attention(_tensor(np.ones((5, 7))), x),
        r"attention of \(2, 3, 4\), \(5, 7\), \(2, 3, 4\): matmul: shapes \(2, 3, 4\) and \(7, 5\)",
    ),
    "a window that is too large": (
        lambda x: x.conv(_tensor(np.ones((1, 3, 9)))),
        r"conv of \(2, 3, 4\), \(1, 3, 9\): window: 9 elements",
    ),
    "strides of other axes": (lambda x: x.conv(x, stride=(1, 1)), r"conv of .*: \(1, 1\) for 1 spatial axes"),
    "channels without an axis": (lambda x: _tensor([1.0, 2.0]).batchnorm(None, None, x, x), r"batchnorm of \(2,\)"),
    "classes that are floats": (
        lambda x: x.cast("float32").cross_entropy(_tensor(np.ones((2, 4)))),
        r"cross_entropy: classes of shape \(2, 4\) .* float64",
    ),
    "sums over what differs": (
        lambda x: x.einsum("ijk,lj->", _tensor(np.ones((4, 4)))),
        r"einsum 'ijk,lj->': operands of shapes \(2, 3, 4\), \(4, 4\)",
    ),
    "nothing to join": (lambda x: array_api.concat([]), "concat of no arrays"),
    "nothing to stack": (lambda x: array_api.stack([]), "stack of no arrays"),
    "two numbers and no array": (lambda x: array_api.add(1, 2), "add of 1 and 2, neither of which is an array"),
    "a move to fewer places": (lambda x: array_api.moveaxis(x, (0, 1), (0,)), r"moveaxis of \(2, 3, 4\)"),
    "a roll along fewer axes": (lambda x: array_api.roll(x, (1, 2), axis=(0,)), r"roll of \(2, 3, 4\)"),
    "repeating less than never": (lambda x: array_api.repeat(x, -1), r"repeat of \(2, 3, 4\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(name: str) -> None:
    operation, message = REFUSED[name]
    with pytest.raises(InvalidArgument, match=message):
        operation(_tensor(ARRAY))


def test_a_tensor_without_axes_is_not_iterated_over() -> None:
    with pytest.raises(TypeError, match="without axes"):
        list(_tensor(1.0))  # type: ignore[call-overload]
    assert [row.tolist() for row in _tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]


def test_numpy_scalars_keep_their_type() -> None:
    assert _tensor(np.float64(2)).numpy().dtype == np.float64
    assert Tensor.full((2,), np.int16(3), device="CPU").numpy().tolist() == [3, 3]


KEYS = {
    "an integer apart from an array": (0, slice(None), np.array([2, 3])),
    "an array apart from an integer": (np.array([1, 0]), slice(None), -1),
    "with a new axis between": (0, None, np.array([1, 2])),
    "side by side": (slice(None), 1, np.array([1, 2])),
    "a mask behind an ellipsis": (..., np.array([True, False, True, True])),
    "a mask and an integer": (slice(None), np.array([True, False, True]), 2),
    "a mask as nested lists": ([[True, False, True], [False, True, False]],),
    "an array without axes": (np.array(1),),
}


@pytest.mark.parametrize("name", KEYS)
def test_indices_mean_what_they_mean_in_numpy(name: str) -> None:
    key = KEYS[name]
    np.testing.assert_array_equal(_tensor(ARRAY)[key].numpy(), ARRAY[key])
    changed, tensor = ARRAY.copy(), _tensor(ARRAY)
    changed[key] = -5
    tensor[key] = -5
    np.testing.assert_array_equal(tensor.numpy(), changed)


def test_a_forked_process_has_threads_of_its_own() -> None:
    large = np.ones((300, 300), np.float32)

    def product() -> float:
        return float((_tensor(large) @ _tensor(large)).sum())

    assert product() == 300**3  # so the parent has started its threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads forks
        child = os.fork()
    if child == 0:
        import signal

        signal.alarm(20)
        os._exit(0 if product() == 300**3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_long_formulas_are_cut_and_stay_cut() -> None:
    chain = _tensor(np.ones((2, 4), np.float32))
    for _ in range(400):
        chain = chain.sin()
    listed = kernels([chain.node])
    assert len(listed) > 10
    assert len({step.body for step in listed[1:-1] if isinstance(step, Kernel)}) == 1  # compiled once


ORDER = Tensor(np.array([1, 0], np.int32), device="CPU")
LINKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "adding": lambda x, k: x + 1,
    "casting, which costs nothing": lambda x, k: x.cast("float64" if k % 2 == 0 else "float32"),
    "looking up": lambda x, k: x[ORDER],
    "looking up along another axis": lambda x, k: x[:, ORDER].T,
    "sums of one another": lambda x, k: x.sum(1, keepdim=True).expand(2, 2),
    "sums of windows": lambda x, k: x.window(1, 1).sum(-1),
    "steps with padding": lambda x, k: x.pad([(0, 0), (k % 2, -(k % 2))]).flip(1),
}


@pytest.mark.parametrize("link", LINKS)
def test_chains_of_thousands_of_operations_are_computed(link: str) -> None:
    chain = _tensor(np.ones((2, 2), np.float32))
    for k in range(1500):
        chain = LINKS[link](chain, k)
    assert len(kernels([chain.node])) > 5  # none of which is so deep that Python gives up
    assert chain.numpy().shape == (2, 2)


@pytest.mark.parametrize("device", ["CPU", "AMD"])
def test_results_that_turn_out_to_be_one_all_have_its_values(device: str) -> None:
    x = Tensor(np.arange(5, dtype=np.float32), device=device)
    y = x + 1
    same = [y, y.permute(0), y * 1.0, y + 0, x * 1.0, x + 0]
    same[0].realize(*same[1:])
    assert [t.tolist() for t in same] == [[1, 2, 3, 4, 5]] * 4 + [[0, 1, 2, 3, 4]] * 2
    step = jit(lambda x: ((x + 1).permute(0), (x + 1) * 1.0))
    for k in range(4):
        first, second = step(x + k)
        assert first.tolist() == second.tolist() == [k + 1, k + 2, k + 3, k + 4, k + 5]


@pytest.mark.parametrize(
    "formula", ["...ij,...jk->...ik", "...ij,...jk", "i...->...i", "...", "...ii->...i", "i...j,j", "...ij->...", "ijj"]
)
def test_dots_of_einsum_stand_for_the_other_axes(formula: str) -> None:
    shapes = {"...ij,...jk->...ik": ((2, 1, 3, 4), (5, 4, 2)), "...ij,...jk": ((3, 4), (2, 4, 2)), "ijj": ((2, 3, 3),)}
    shapes |= {"...ii->...i": ((2, 3, 3),), "i...j,j": ((2, 3, 4), (4,))}
    arrays = [np.random.default_rng(1).standard_normal(shape) for shape in shapes.get(formula, ((2, 3, 4),))]
    first, *others = map(_tensor, arrays)
    found, wanted = first.einsum(formula, *others).numpy(), np.einsum(formula, *arrays)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-12)


EDGES: dict[str, tuple[Callable[[Tensor], Tensor], list[float], list[float]]] = {
    "relu": (lambda x: x.relu(), [-1.0, 0.0, -0.0, 2.0], [0.0, 0.0, 0.0, 1.0]),
    "abs": (lambda x: x.abs(), [-1.0, 0.0, -0.0, 2.0], [-1.0, 0.0, 0.0, 1.0]),
    "the power zero": (lambda x: x**0, [0.0, 3.0], [0.0, 0.0]),
    "a power that is a tensor": (lambda x: x ** _tensor(np.array([0.0, 2.0])), [0.0, 3.0], [0.0, 6.0]),
    "what does not vary": (lambda x: x.std(), [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]),
    "multiples of a negative divisor": (lambda x: x % -2, [4.0, -2.0, 3.0, 0.0], [1.0, 1.0, 1.0, 1.0]),
    "angles at zero": (lambda x: x.atan() + x.asinh(), [0.0], [2.0]),
}


@pytest.mark.parametrize("name", EDGES)
def test_gradients_where_functions_have_edges(name: str) -> None:
    call, values, wanted = EDGES[name]
    x = Tensor(np.array(values), device="CPU", requires_grad=True)
    call(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == wanted


def test_remainders_of_the_largest_numbers_are_numbers() -> None:
    most = float(np.finfo(np.float64).max)
    x, y = np.array([5.0, -5.0, most, 1.0, 4.0, -0.0]), np.array([most, most, most, -most, -2.0, -2.0])
    np.testing.assert_array_equal((_tensor(x) % _tensor(y)).numpy(), np.remainder(x, y))
    np.testing.assert_array_equal((_tensor(x) // _tensor(y)).numpy(), np.floor_divide(x, y))
    assert np.signbit((_tensor(x) % _tensor(y)).numpy()[-2:]).all()


def test_two_types_meet_in_quotients_as_in_sums() -> None:
    half, whole = _tensor(np.ones(2, np.float16)), _tensor(np.ones(2, np.int8))
    for found in (half // whole, whole % half, half.atan2(whole), half.hypot(whole), half + whole):
        assert found.dtype.name == "float16"
