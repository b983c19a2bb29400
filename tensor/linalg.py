"""The array API's extension ``linalg`` on matrices, which are the last two axes.

Decompositions are NumPy's (LAPACK), computed at once. Where there are gradients, a result gets what a change of the
operand changes in it: that is zero, and has the operand's gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.core import check_axes
from amdrv.tensor.tables.array_linalg import FUNCTIONS, QR, SVD, Eigh, Slogdet
from amdrv.tensor.tables.array_types import finfo
from amdrv.tensor.tensor import Tensor

globals().update(FUNCTIONS)
diagonal = FUNCTIONS["diagonal"]


def _found(name: str, *operands: Tensor, **options: Any) -> list[Tensor]:
    """What NumPy's function of that name finds. Raises InvalidArgument for matrices that have no such thing."""
    arrays = [operand.cast(dtypes.floating(operand.dtype).compute).numpy() for operand in operands]
    try:
        with np.errstate(all="ignore"):
            made = getattr(np.linalg, name)(*arrays, **options)
    except (np.linalg.LinAlgError, ValueError) as error:
        shapes = ", ".join(str(operand.shape) for operand in operands)
        raise InvalidArgument(f"{name} of {shapes}: {error}") from None
    return [Tensor(part, device=operands[0].backend) for part in (made if isinstance(made, tuple) else (made,))]


def _change(x: Tensor) -> Tensor | None:
    """Zero with the gradient of x, if there is one."""
    return x - x.detach() if x._own_leaves() else None


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """What x1 has to be multiplied with to be x2: matrices, or one vector. Raises where x1 has no inverse."""
    (found,) = _found("solve", x1, x2)
    if x1._own_leaves() or x2._own_leaves():
        y, z = (part.unsqueeze(-1) if x2.ndim == 1 else part for part in (x2, found))
        rest: Tensor = inv(x1.detach()) @ (y - x1 @ z)
        found = found + (rest.squeeze(-1) if x2.ndim == 1 else rest)
    return found


def inv(x: Tensor, /) -> Tensor:
    """The inverse. Raises InvalidArgument where there is none."""
    (found,) = _found("inv", x)
    return found - found @ change @ found if (change := _change(x)) is not None else found


def slogdet(x: Tensor, /) -> Any:
    """The determinant's sign and the logarithm of its size."""
    sign, size = _found("slogdet", x)
    if (change := _change(x)) is not None:
        size = size + diagonal(inv(x.detach()) @ change).sum(-1)
    return Slogdet(sign, size)


def det(x: Tensor, /) -> Tensor:
    """The determinant."""
    (found,) = _found("det", x)
    if (change := _change(x)) is not None:  # the adjugate, which there is without an inverse too
        u, s, v = _found("svd", x)
        others = Tensor.eye(s.shape[-1], device=x.backend).cast("bool").where(1.0, s.unsqueeze(-2)).prod(-1)
        turned = _found("det", u)[0] * _found("det", v)[0]
        found = found + (diagonal(u.mT @ change @ v.mT) * others).sum(-1) * turned
    return found


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular matrix that gives a positive definite one when multiplied with its transpose."""
    (found,) = _found("cholesky", x)
    if (change := _change(x)) is not None:
        inner = inv(found) @ (change + change.mT) @ inv(found).mT
        found = found + found @ (inner.tril(-1) + inner.tril()) * 0.25
    return found.mT if upper else found


def qr(x: Tensor, /, *, mode: str = "reduced") -> Any:
    """A matrix with orthogonal columns of length one, and a triangular one, whose product x is."""
    q, r = _found("qr", x, mode=mode)
    if (change := _change(x)) is not None and q.shape[-1] <= r.shape[-1]:
        change = change[..., : q.shape[-1]] @ inv(r[..., : q.shape[-1]])
        inner = q.mT @ change
        q = q + q @ (inner.tril(-1) - inner.tril(-1).mT - inner) + change
        r = (q.mT @ x).triu()
    return QR(q, r)


def _apart(x: Tensor) -> Tensor:
    """One by the difference of each two numbers; zero for equal ones, whose vectors can be turned anyhow."""
    away = x.unsqueeze(-2) - x.unsqueeze(-1)
    return away.equal(0).where(0, 1 / away.equal(0).where(1, away))


def eigh(x: Tensor, /) -> Any:
    """The eigenvalues of a symmetric matrix, the least first, and the eigenvectors as columns."""
    values, vectors = _found("eigh", x)
    if (change := _change(x)) is not None:
        inner = vectors.mT @ (change + change.mT) @ vectors * 0.5
        values, vectors = values + diagonal(inner), vectors + vectors @ (inner * _apart(values))
    return Eigh(values, vectors)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Any:
    """Two matrices with orthogonal columns (u) and rows (v), and what to stretch by between them, the most first."""
    u, s, v = _found("svd", x, full_matrices=full_matrices)
    if (change := _change(x)) is not None and u.shape[-1] == v.shape[-2]:
        wide, inner, apart = s.unsqueeze(-2), u.mT @ change @ v.mT, _apart(s.square())
        left, right = inner * wide, inner.mT * wide
        s = s + diagonal(inner)
        u, v = (
            u + u @ ((left + left.mT) * apart) + (change @ v.mT - u @ inner) / wide,
            v + ((right + right.mT) * apart).mT @ v + (u.mT @ change - inner @ v) / wide.mT,
        )
    return SVD(u, s, v)


def svdvals(x: Tensor, /) -> Any:
    """The singular values, the greatest first."""
    return svd(x, full_matrices=False).S


def eigvalsh(x: Tensor, /) -> Any:
    """The eigenvalues of a symmetric matrix, the least first."""
    return eigh(x).eigenvalues


def _used(s: Tensor, x: Tensor, rtol: Any) -> Tensor:
    part = max(x.shape[-2:]) * finfo(s.dtype).eps if rtol is None else rtol
    return s > s.max(-1, keepdim=True) * (part.unsqueeze(-1) if isinstance(part, Tensor) else part)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Any:
    """The pseudo-inverse: what is smaller than ``rtol`` of the largest singular value counts as zero."""
    u, s, v = svd(x, full_matrices=False)
    return (v.mT * _used(s, x, rtol).where(1 / s, 0).unsqueeze(-2)) @ u.mT


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values are not as good as zero; see ``pinv``."""
    return _used(svdvals(x), x, rtol).sum(-1)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """The product of n equal matrices, or of -n inverses."""
    found = Tensor.eye(x.shape[-1], dtype=x.dtype, device=x.backend).expand(x.shape)
    base = inv(x) if n < 0 else x
    for bit in f"{abs(n):b}":
        found = found @ found @ base if bit == "1" else found @ found
    return found


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The size of matrices: of all elements ("fro"), of singular values ("nuc", 2), of columns (1) or rows (inf)."""
    if ord not in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise InvalidArgument(f"matrix_norm of {x.shape}: {ord!r} is no order")
    if ord == "fro":
        found: Tensor = FUNCTIONS["vector_norm"](x, axis=(-2, -1))
    else:
        sums = svdvals(x) if ord in ("nuc", 2, -2) else x._float().abs().sum(-2 if abs(ord) == 1 else -1)
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
