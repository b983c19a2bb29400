"""The array API's ``linalg``: values as NumPy has them, gradients as finite differences have them, errors by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor, array_api, linalg

RANDOM = np.random.default_rng(3)
SQUARE, TALL, RIGHT = (RANDOM.standard_normal(shape) for shape in ((2, 4, 4), (5, 3), (2, 4, 3)))
POSITIVE = SQUARE @ SQUARE.swapaxes(-1, -2) + np.eye(4)
SYMMETRIC = SQUARE + SQUARE.swapaxes(-1, -2)
SINGULAR = np.array([[1.0, 2.0, 0.5], [2.0, 4.0, 1.0], [0.3, -1.0, 2.0]])
ORDERS = ["fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf]

Call = Callable[..., Any]
# Each is called with tensors and our functions, and with arrays and NumPy's.
CALLS: dict[str, tuple[Call, tuple[np.ndarray, ...]]] = {
    "inv": (lambda of, x: of.inv(x), (SQUARE,)),
    "solve": (lambda of, x, y: of.solve(x, y), (SQUARE, RIGHT)),
    "solve for a vector": (lambda of, x, y: of.solve(x, y), (SQUARE, RIGHT[0, :, 0])),
    "det": (lambda of, x: of.det(x), (SQUARE,)),
    "slogdet": (lambda of, x: of.slogdet(x), (SQUARE,)),
    "cholesky": (lambda of, x: of.cholesky(x), (POSITIVE,)),
    "cholesky, upper": (lambda of, x: of.cholesky(x, upper=True), (POSITIVE,)),
    "qr": (lambda of, x: of.qr(x), (TALL,)),
    "complete qr": (lambda of, x: of.qr(x, mode="complete"), (TALL,)),
    "eigh": (lambda of, x: of.eigh(x), (SYMMETRIC,)),
    "eigvalsh": (lambda of, x: of.eigvalsh(x), (SYMMETRIC,)),
    "svd": (lambda of, x: of.svd(x), (TALL,)),
    "reduced svd": (lambda of, x: of.svd(x, full_matrices=False), (TALL.T,)),
    "svdvals": (lambda of, x: of.svdvals(x), (TALL,)),
    "pinv": (lambda of, x: of.pinv(x), (TALL,)),
    "pinv of less": (lambda of, x: of.pinv(x), (SINGULAR,)),
    "matrix_rank": (lambda of, x: of.matrix_rank(x), (SINGULAR,)),
    "matrix_power": (lambda of, x: [of.matrix_power(x, n) for n in (-2, -1, 0, 1, 2, 3, 6)], (SQUARE,)),
    "matrix_norm": (lambda of, x: [of.matrix_norm(x, ord=order) for order in ORDERS], (SQUARE,)),
    "norms that keep axes": (lambda of, x: of.matrix_norm(x, keepdims=True), (SQUARE,)),
    "vector_norm": (lambda of, x: [of.vector_norm(x, ord=k) for k in (0, 1, 2, 3, 0.5, -1, np.inf, -np.inf)], (TALL,)),
    "norms along axes": (lambda of, x: of.vector_norm(x, axis=(0, 2), keepdims=True), (SQUARE,)),
    "diagonal": (lambda of, x: [of.diagonal(x, offset=k) for k in range(-6, 6)], (TALL,)),
    "trace": (lambda of, x: [of.trace(x, offset=k) for k in (-1, 0, 2)], (SQUARE,)),
    "outer": (lambda of, x, y: of.outer(x, y), (TALL[0], TALL[:, 0])),
    "cross": (lambda of, x, y: of.cross(x, y), (TALL, TALL[::-1] + 1)),
    "cross along the first axis": (lambda of, x, y: of.cross(x, y, axis=0), (SQUARE[0, :3], SQUARE[1, :3])),
    "tensordot and vecdot": (lambda of, x: (of.tensordot(x, x, axes=((0, 1), (0, 1))), of.vecdot(x, x)), (SQUARE,)),
    "matmul": (lambda of, x, y: of.matmul(of.matrix_transpose(x), y), (SQUARE, RIGHT)),
}


def flat(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_types_are_those_of_numpy(name: str, dtype: str) -> None:
    call, arrays = CALLS[name]
    arrays = tuple(array.astype(dtype) for array in arrays)
    found = flat(call(linalg, *(Tensor(array, device="CPU") for array in arrays)))
    wanted = flat(call(np.linalg, *arrays))
    assert len(found) == len(wanted)
    for a, b in zip(found, map(np.asarray, wanted), strict=True):
        assert a.shape == b.shape and (a.numpy().dtype == b.dtype or name == "matrix_rank")
        np.testing.assert_allclose(a.numpy(), b, rtol=2e-3 if dtype == "float32" else 1e-10, atol=1e-4)


SMOOTH: dict[str, Call] = {
    **{name: CALLS[name][0] for name in ("inv", "solve", "solve for a vector", "det", "cholesky", "pinv", "svdvals")},
    "slogdet": lambda of, x: of.slogdet(x).logabsdet,
    "both of qr": lambda of, x: of.qr(x).Q @ of.qr(x).R.square(),
    "eigh": lambda of, x: of.eigh(x + x.mT).eigenvectors.square() * of.eigvalsh(x + x.mT).unsqueeze(-1),
    "svd": lambda of, x: of.svd(x, full_matrices=False).U @ of.svd(x, full_matrices=False).Vh,
    "squares of svd": lambda of, x: of.svd(x, full_matrices=False).U.square().sum(-1) + of.svdvals(x).sum(),
}
OPERANDS = {"det": SINGULAR, "both of qr": TALL, "svd": TALL, "svdvals": TALL, "pinv": TALL, "squares of svd": TALL.T}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    arrays = [OPERANDS[name]] if name in OPERANDS else list(CALLS[name][1])
    tensors = [Tensor(array, device="CPU", requires_grad=True) for array in arrays]
    symmetric = name == "cholesky"
    result = SMOOTH[name](linalg, *tensors)
    weights = RANDOM.standard_normal(result.shape)
    (result * Tensor(weights, device="CPU")).sum().backward()
    ways = [RANDOM.standard_normal(array.shape) for array in arrays]
    ways = [way + way.swapaxes(-1, -2) if symmetric else way for way in ways]

    def at(step: float) -> float:
        moved = [Tensor(array + step * way, device="CPU") for array, way in zip(arrays, ways, strict=True)]
        return float((SMOOTH[name](linalg, *moved).numpy() * weights).sum())

    found = sum(float((t.grad.numpy() * way).sum()) for t, way in zip(tensors, ways, strict=True) if t.grad is not None)
    np.testing.assert_allclose(found, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-5)


def test_the_length_of_a_zero_vector_has_gradient_zero() -> None:
    x = Tensor(np.zeros((2, 3)), device="CPU", requires_grad=True)
    linalg.vector_norm(x, axis=-1).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0] * 3] * 2


def test_matrices_without_elements_go_through() -> None:
    nothing = Tensor(np.zeros((2, 0, 0)), device="CPU")
    assert linalg.det(nothing).tolist() == [1.0, 1.0]
    assert linalg.inv(nothing).shape == (2, 0, 0) and linalg.svd(nothing).S.shape == (2, 0)


def test_what_has_no_solution_is_refused_with_its_shape() -> None:
    for name, array in (("inv", np.ones((3, 3))), ("cholesky", -np.eye(2)), ("det", np.ones((2, 3))), ("qr", [1.0])):
        with pytest.raises(InvalidArgument, match=rf"{name} of \({np.shape(array)[0]},"):
            getattr(linalg, name)(Tensor(np.asarray(array, float), device="CPU"))
    with pytest.raises(InvalidArgument, match=r"solve of \(3, 3\), \(2, 2\)"):
        linalg.solve(Tensor(np.eye(3), device="CPU"), Tensor(np.eye(2), device="CPU"))


def test_the_namespace_has_the_extension() -> None:
    assert Tensor([1.0], device="CPU").__array_namespace__().linalg is linalg
    assert array_api.tensordot is linalg.tensordot
