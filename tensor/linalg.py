"""The array API's extension ``linalg`` on matrices, which are the last two axes.

A decomposition is many equal steps, each computed at once, so that all are one plan. Gradients do not go through them:
where there are any, a result gets what a change of the operand changes in it, which is zero and has its gradient.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.core import check_axes
from amdrv.tensor.elementwise import broadcast_shape
from amdrv.tensor.tables.array_linalg import FUNCTIONS
from amdrv.tensor.tables.array_types import finfo
from amdrv.tensor.tensor import Tensor

QR = namedtuple("QR", ("Q", "R"))
Eigh = namedtuple("Eigh", ("eigenvalues", "eigenvectors"))
SVD = namedtuple("SVD", ("U", "S", "Vh"))
Slogdet = namedtuple("Slogdet", ("sign", "logabsdet"))
globals().update(FUNCTIONS)


def _matrix(what: str, x: Tensor, square: bool = True) -> Tensor:
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise InvalidArgument(f"{what} of {x.shape}, which is no {'square ' * square}matrix")
    return x._float()


def _change(x: Tensor) -> Tensor | None:
    """Zero with the gradient of x, if there is one."""
    return x - x.detach() if x._own_leaves() else None


def _eye(x: Tensor, n: int) -> Tensor:
    return Tensor.eye(n, dtype=x.dtype, device=x.backend).expand((*x.shape[:-2], n, n))


def _steps(x: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each step: which row is its own, which column is, and which rows come before."""
    rows, columns = x._position(x.shape[-2]).unsqueeze(-1), x._position(x.shape[-1])
    step = x._operand(0, rows.dtype).contiguous().realize()
    for _ in range(count):
        yield rows == step, columns == step, rows < step
        step = (step + 1).realize()


def _picked(x: Tensor, where: Tensor, axis: int) -> Tensor:
    """The row or column where something is true."""
    return where.where(x, 0).sum(axis, keepdim=True)


def _solved(x: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss and Jordan: the inverse times ``right``, and the pivots, negative where rows were exchanged for them."""
    n = x.shape[-1]
    both, rows = x.cat(right, axis=-1), x._position(n).unsqueeze(-1)
    pivots = x._operand(1, x.dtype).expand((*x.shape[:-1], 1))
    for row, column, before in _steps(both, n):
        best = before.where(-1, _picked(both, column, -1).abs()).argmax(-2, keepdim=True)
        own = _picked(rows, row, -2)
        order = row.where(best, (rows == best).where(own, rows))
        both = both.gather(-2, order.expand(both.shape))
        factors, top = _picked(both, column, -1), _picked(both, row, -2)
        pivot = _picked(factors, row, -2)
        top = top / pivot.equal(0).where(1, pivot)
        pivots = row.where((best == own).where(pivot, -pivot), pivots)
        both = row.where(top, both - factors * top).realize(pivots)
    return both[..., n:], pivots


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """What x1 has to be multiplied with to be x2: matrices, or one vector. NaN where x1 has no inverse."""
    left, right = _matrix("solve", x1), x2.unsqueeze(-1) if x2.ndim == 1 else x2
    if left.shape[-1] != right.shape[-2]:
        raise InvalidArgument(f"solve: shapes {x1.shape} and {x2.shape} do not fit")
    batch = broadcast_shape("solve", left.shape[:-2], right.shape[:-2])
    dtype = dtypes.promote(left.dtype, right.dtype)
    x, y = (part.cast(dtype).expand((*batch, *part.shape[-2:])) for part in (left, right))
    found, pivots = _solved(x.detach(), y.detach())
    if x._own_leaves() or y._own_leaves():
        found = found + inv(x.detach()) @ (y - x @ found)
    found = pivots.equal(0).any(-2, keepdim=True).where(math.nan, found)
    return found.squeeze(-1) if x2.ndim == 1 else found


def inv(x: Tensor, /) -> Tensor:
    """The inverse; NaN where there is none."""
    return solve(x, _eye(_matrix("inv", x), x.shape[-1]))


def slogdet(x: Tensor, /) -> Any:
    """The determinant's sign and the logarithm of its size."""
    pivots = _solved(_matrix("slogdet", x).detach(), x.detach()[..., :0])[1].squeeze(-1)
    size = pivots.abs().log().sum(-1)
    if (change := _change(x)) is not None:
        size = size + (inv(x.detach()).mT * change).sum((-2, -1))
    return Slogdet(pivots.sign().prod(-1), size)


def det(x: Tensor, /) -> Tensor:
    """The determinant. Its gradient is zero where it is zero itself."""
    found = _solved(_matrix("det", x).detach(), x.detach()[..., :0])[1].prod((-2, -1))
    if x._own_leaves():
        found = found * found.equal(0).where(0, slogdet(x).logabsdet - slogdet(x.detach()).logabsdet) + found
    return found


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular matrix that gives a positive definite one when multiplied with its transpose; else NaN."""
    rest = _matrix("cholesky", x).detach()
    found, change = rest.zeros_like(), _change(x)
    for row, column, before in _steps(x, x.shape[-1]):
        line = _picked(rest, column, -1)
        line = before.where(0, line / _picked(line, row, -2).sqrt())
        found = column.where(line, found)
        rest = (rest - line * line.mT).realize(found)
    if change is not None:
        inner = inv(found) @ (change + change.mT) @ inv(found).mT
        found = found + found @ (inner.tril(-1) + inner * _eye(x, x.shape[-1]) * 0.5) * 0.5
    return found.mT if upper else found


def _reflected(x: Tensor) -> tuple[Tensor, Tensor]:
    """Householder: an orthogonal matrix and a triangular one, whose product x is."""
    q, r = _eye(x, x.shape[-2]), x
    for row, column, before in _steps(x, min(x.shape[-2:])):
        line = before.where(0, _picked(r, column, -1))
        length = line.square().sum(-2, keepdim=True).sqrt()
        line = line + row.where(length.copysign(_picked(line, row, -2)), 0)
        size = line.square().sum(-2, keepdim=True)
        part = line * 2 / size.equal(0).where(1, size)
        q = q - (q * line.mT).sum(-1, keepdim=True) * part.mT
        r = (r - part * (line * r).sum(-2, keepdim=True)).realize(q)
    return q, r.triu()


def qr(x: Tensor, /, *, mode: str = "reduced") -> Any:
    """A matrix with orthogonal columns of length one, and a triangular one, whose product x is."""
    if mode not in ("reduced", "complete"):
        raise InvalidArgument(f"qr of {x.shape}: mode {mode!r} is neither 'reduced' nor 'complete'")
    least = min(_matrix("qr", x, square=False).shape[-2:])
    q, r = _reflected(x.detach())
    if mode == "complete":
        return QR(q, r)
    q, r = q[..., :least], r[..., :least, :]
    if (change := _change(x)) is not None:
        change = change[..., :least] @ inv(r[..., :least])
        inner = q.mT @ change
        q = q + q @ (inner.tril(-1) - inner.tril(-1).mT - inner) + change
        r = (q.mT @ x).triu()
    return QR(q, r)


def _rotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobi, from one side: an orthogonal matrix v, and x times v, whose columns are orthogonal.

    Pairs of columns are turned until they are, all pairs of a round at once. Between rounds the columns take other
    places, as players of a tournament do, so that each meets each other one in a sweep.
    """
    m, n = x.shape[-2:]
    half = (n + 1) // 2
    both = x.cat(_eye(x, n), axis=-2)._padded_along(x.ndim - 1, 0, 2 * half - n, 0)
    left, right = both[..., :half], both[..., half:]
    for _ in range((2 * half - 1) * (6 + n.bit_length())):
        a, b, c = ((p * q)[..., :m, :].sum(-2, keepdim=True) for p, q in ((left, left), (right, right), (left, right)))
        ratio = (b - a) / (c.equal(0).where(1, c) * 2)
        tangent = c.equal(0).where(0, (ratio < 0).where(-1.0, 1.0) / (ratio.abs() + ratio.hypot(1.0)))
        cosine = 1 / tangent.hypot(1.0)
        sine = cosine * tangent
        left, right = left * cosine - right * sine, left * sine + right * cosine
        left.realize(right)
        if half > 1:
            first, others, last = left.split([1, half - 2, 1], -1)
            left, right = first.cat(right[..., :1], others, axis=-1), right[..., 1:].cat(last, axis=-1)
    both = left.cat(right, axis=-1)[..., :n]
    return both[..., :m, :], both[..., m:, :]


def _in_order(values: Tensor, *vectors: Tensor, descending: bool = False) -> Iterator[Tensor]:
    order = values.argsort(-1, descending)
    yield values.gather(-1, order)
    yield from (x.gather(-1, order.unsqueeze(-2).expand(x.shape)) for x in vectors)


def _apart(x: Tensor) -> Tensor:
    """One by the difference of each two numbers; zero for equal ones, whose vectors can be turned anyhow."""
    away = x.unsqueeze(-2) - x.unsqueeze(-1)
    return away.equal(0).where(0, 1 / away.equal(0).where(1, away))


def eigh(x: Tensor, /) -> Any:
    """The eigenvalues of a symmetric matrix, the least first, and the eigenvectors as columns."""
    own = _matrix("eigh", x).detach()
    size = own.square().sum((-2, -1), keepdim=True).sqrt()  # when twice that is added, none is negative
    vectors = _rotated(own + _eye(own, x.shape[-1]) * size * 2)[1]
    values, vectors = _in_order((vectors * (own @ vectors)).sum(-2), vectors)
    if (change := _change(x)) is not None:
        inner = vectors.mT @ (change + change.mT) @ vectors * 0.5
        vectors = vectors + vectors @ (inner * _apart(values))
        values = values + FUNCTIONS["diagonal"](inner)
    return Eigh(values, vectors)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Any:
    """Two matrices with orthogonal columns (u) and rows (v), and what to stretch by between them, the most first."""
    m, n = _matrix("svd", x, square=False).shape[-2:]
    if m < n:
        u, s, v = svd(x.mT, full_matrices=full_matrices)
        return SVD(v.mT, s, u.mT)
    turned, v = _rotated(x._float().detach())
    _, turned, v = _in_order(turned.square().sum(-2), turned, v, descending=True)
    u, r = _reflected(turned)  # r is diagonal, and u complete also where columns are zero
    s = FUNCTIONS["diagonal"](r)
    signs = s.signbit().where(-1.0, 1.0).unsqueeze(-2)
    u, s = u[..., :n] * signs if m == n or not full_matrices else (u[..., :n] * signs).cat(u[..., n:], axis=-1), s.abs()
    if (change := _change(x)) is not None and u.shape[-1] == n:
        wide, inner, apart = s.unsqueeze(-2), u.mT @ change @ v, _apart(s.square())
        left, right = inner * wide, inner.mT * wide
        s = s + FUNCTIONS["diagonal"](inner)
        u, v = (
            u + u @ ((left + left.mT) * apart) + (change @ v - u @ inner) / wide,
            v + v @ ((right + right.mT) * apart) + (change.mT @ u - v @ inner.mT) / wide,
        )
    return SVD(u, s, v.mT)


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values, the greatest first."""
    found: Tensor = svd(x, full_matrices=False).S
    return found


def eigvalsh(x: Tensor, /) -> Tensor:
    """The eigenvalues of a symmetric matrix, the least first."""
    found: Tensor = eigh(x).eigenvalues
    return found


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """The product of n equal matrices, or of -n inverses."""
    base = inv(x) if n < 0 else _matrix("matrix_power", x).cast(x.dtype)
    found = _eye(base, x.shape[-1])
    for bit in f"{abs(n):b}":
        found = found @ found @ base if bit == "1" else found @ found
    return found


def _used(s: Tensor, x: Tensor, rtol: Any) -> Tensor:
    part = max(x.shape[-2:]) * finfo(s.dtype).eps if rtol is None else rtol
    return s > s.max(-1, keepdim=True) * (part.unsqueeze(-1) if isinstance(part, Tensor) else part)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverse: what is smaller than ``rtol`` of the largest singular value counts as zero."""
    u, s, v = svd(x, full_matrices=False)
    found: Tensor = (v.mT * _used(s, x, rtol).where(1 / s, 0).unsqueeze(-2)) @ u.mT
    return found


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values are not as good as zero; see ``pinv``."""
    return _used(svdvals(x), x, rtol).sum(-1)


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The size of matrices: of all elements ("fro"), of singular values ("nuc", 2), of columns (1) or rows (inf)."""
    own = _matrix("matrix_norm", x, square=False)
    if ord not in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise InvalidArgument(f"matrix_norm of {x.shape}: {ord!r} is no order")
    if ord == "fro":
        found = own.square().sum((-2, -1))._root()
    else:
        sums = svdvals(own) if ord in ("nuc", 2, -2) else own.abs().sum(-2 if abs(ord) == 1 else -1)
        found = sums.sum(-1) if ord == "nuc" else sums.max(-1) if ord > 0 else sums.min(-1)
    return found.reshape((*found.shape, 1, 1)) if keepdims else found


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sum of products along an axis, which both have."""
    if x1.shape[axis : axis + 1 or None] != x2.shape[axis : axis + 1 or None]:
        raise InvalidArgument(f"vecdot along axis {axis}: shapes {x1.shape} and {x2.shape} do not fit")
    product = x1 * x2
    return product.sum(axis, dtype=product.dtype)


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Products summed over pairs of axes: the last and first few, or given ones."""
    pairs = (range(x1.ndim - axes, x1.ndim), range(axes)) if isinstance(axes, int) else axes
    left, right = (check_axes(tuple(own), part.ndim, "tensordot") for own, part in zip(pairs, (x1, x2), strict=True))
    if [x1.shape[axis] for axis in left] != [x2.shape[axis] for axis in right]:
        raise InvalidArgument(f"tensordot over axes {axes}: shapes {x1.shape} and {x2.shape} do not fit")
    a = x1.permute([*(axis for axis in range(x1.ndim) if axis not in left), *left])
    b = x2.permute([*right, *(axis for axis in range(x2.ndim) if axis not in right)])
    rows, columns = a.shape[: x1.ndim - len(left)], b.shape[len(right) :]
    count = math.prod(b.shape[: len(right)])
    return a.reshape(math.prod(rows), count).matmul(b.reshape(count, math.prod(columns))).reshape(*rows, *columns)
