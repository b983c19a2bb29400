"""Matrix products and what is made of them."""

from __future__ import annotations

import string

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.onnx.registry import Call, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("MatMul")
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The matrix product over the last two axes."""
    return a.matmul(b)


@operator("Gemm")
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha * a b + beta * c, either factor transposed on request."""
    left = a.transpose() if call.get("transA") else a
    right = b.transpose() if call.get("transB") else b
    found = left.matmul(right)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    found = found if alpha == 1 else (found * alpha).cast(found.dtype)
    return found if c is None or beta == 0 else found + (c if beta == 1 else (c * beta).cast(c.dtype))


@operator("Einsum")
def einsum(call: Call, *parts: Tensor) -> Tensor:
    """Einstein's summation; three dots stand for all axes that have no letter."""
    formula = call.get("equation").replace(" ", "")
    left, arrow, right = formula.partition("->")
    terms = left.split(",")
    if len(terms) != len(parts):
        raise InvalidArgument(f"Einsum {formula!r} with {len(parts)} operands")
    dots = [part.ndim - len(term.replace("...", "")) for term, part in zip(terms, parts, strict=True) if "..." in term]
    free = [letter for letter in string.ascii_letters if letter not in formula]
    most = max(dots, default=0)
    if min(dots, default=0) < 0 or most > len(free):
        raise InvalidArgument(f"Einsum {formula!r}: operands of shapes {', '.join(str(part.shape) for part in parts)}")
    names = "".join(free[:most])
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        right = ("..." if dots else "") + "".join(x for x in sorted(set(letters)) if letters.count(x) == 1)
    spelled = []
    for term, part in zip(terms, parts, strict=True):
        own = part.ndim - len(term.replace("...", ""))
        spelled.append(term.replace("...", names[most - own :] if own else ""))
    first, *rest = parts
    return first.einsum(f"{','.join(spelled)}->{right.replace('...', names)}", *rest)


@operator("Det")
def det(call: Call, x: Tensor) -> Tensor:
    """Determinants of the last two axes, by elimination with the greatest element of each column."""
    n = x.shape[-1]
    rows, result = x, Tensor.ones(*x.shape[:-2], dtype=x.dtype, device=x.backend)
    for _ in range(n):
        column = rows.slice(*[slice(None)] * (x.ndim - 1), slice(0, 1))  # (…, rows, 1)
        which = column.abs().argmax(-2, keepdim=True)  # (…, 1, 1)
        place = rows._position(rows.shape[-2]).reshape(-1, 1).cast(dtypes.int64)
        pivot = (place == which).where(rows, 0.0).sum(-2, keepdim=True)
        lead = pivot.slice(*[slice(None)] * (x.ndim - 1), slice(0, 1))
        result = result * (which == 0).where(lead, -lead).reshape(result.shape)
        # The first row goes where the pivot was, and is eliminated from all below.
        first = rows.slice(*[slice(None)] * (x.ndim - 2), slice(0, 1))
        rows = (place == which).where(first, rows)
        safe = (lead == 0).where(1.0, lead)
        column = rows.slice(*[slice(None)] * (x.ndim - 1), slice(0, 1))
        rows = rows - column / safe * pivot
        rows = rows.slice(*[slice(None)] * (x.ndim - 2), slice(1, None), slice(1, None))
    return result
