"""Losses of classification."""

from __future__ import annotations

from amdrv.tensor.onnx.registry import Call, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """The elements along axis 1 that the target names, negative, weighted by class; all, their sum or their mean."""
    classes = x.shape[1]
    ignored = call.get("ignore_index")
    valid = target != ignored if ignored is not None else target == target
    hit = target.unsqueeze(1) == x._position(classes).cast(target.dtype).reshape(-1, *(1,) * (target.ndim - 1))
    each = hit.where(-x, 0.0).sum(1)
    share = valid.cast(x.dtype)
    if weight is not None:
        share = valid.where(weight[target.maximum(0).minimum(classes - 1)], 0.0)
    loss = valid.where(each * share, 0.0)
    reduction = call.get("reduction", "mean")
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / share.sum()


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(
    call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same of log(softmax(x)), which is the second result."""
    logs = x.log_softmax(1)
    return negative_log_likelihood_loss(call, logs, target, weight), logs
