"""The bound of documents that are a dense table on a CUDA device, and its gradient, in few launches.

A step of one pair of codes is bound by the number of its kernels there; torch's operators would take some ninety.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.estimators import ARM, DisARM, Estimator
from efvae.families.base import uniform
from efvae.text import row_kernels
from efvae.text.dense import AnyBatch, DenseBatch

__all__ = ["code_costs", "pair_bound", "serves", "serves_estimator"]


def serves(batch: AnyBatch) -> bool:
    """Whether :func:`code_costs` takes these documents.

    Own: own-fused-multinomial
    """
    return isinstance(batch, DenseBatch) and row_kernels.available(batch.x.device)


def serves_estimator(estimator: Estimator, eta: Tensor) -> bool:
    """Whether :func:`pair_bound` takes this estimator and these logits.

    Own: own-fused-multinomial
    """
    known = type(estimator) in (ARM, DisARM)
    return known and eta.ndim == 2 and eta.dtype == torch.float32 and row_kernels.available(eta.device)


def code_costs(h: Tensor, weight: Tensor, bias: Tensor, batch: DenseBatch, dtype: torch.dtype) -> Tensor:
    """See :func:`efvae.text.fused.code_costs`.

    Args:
        h: in any precision.
        weight, bias, batch, dtype: see there.

    Own: own-fused-multinomial
    """
    result: Tensor = _CodeCosts.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


def pair_bound(
    eta: Tensor,
    costs: Callable[[Tensor], Tensor],
    estimator: Estimator,
    dtype: torch.dtype,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean costs of pairs of codes plus KL(q ‖ uniform), and the KL, which has no gradient; shapes ``(documents,)``.

    The numbers that are drawn are those of :class:`~efvae.estimators.antithetic.AntitheticPairs`.

    Args:
        eta: logits of q, float32, shape ``(documents, bits)``.
        costs: of codes of shape ``(s, documents, bits)``.
        estimator: ARM or DisARM.
        dtype: of the codes.
        generator: source of randomness.

    Own: own-fused-multinomial
    """
    assert isinstance(estimator, ARM | DisARM)  # noqa: S101 - see serves_estimator
    with torch.no_grad():
        u = uniform(eta, (estimator.samples,), generator)
        codes = row_kernels.antithetic(eta.contiguous(), u, dtype)
    bound, kl = _PairBound.apply(costs(codes), eta, u, codes, type(estimator))  # type: ignore[no-untyped-call]
    return bound, kl


class _CodeCosts(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, batch: DenseBatch, dtype: torch.dtype) -> Tensor:
        rows, columns = h.flatten(0, -2).contiguous(), weight.to(dtype)
        y = torch.addmm(bias.to(dtype), rows.to(dtype), columns.t())
        entries, offset = batch.sums(weight), batch.sums(bias[:, None])[:, 0]
        cost, partition = row_kernels.costs(y, rows, entries, offset, batch.length, batch.saturated)
        ctx.save_for_backward(rows, columns, y, partition, weight)  # V is looked at again: torch sees if it was changed
        ctx.batch = batch
        return cost.view(h.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        rows, columns, y, partition, _ = ctx.saved_tensors
        batch: DenseBatch = ctx.batch
        # p − x / l, up to the factor l · grad of each row, which goes into the small factors: rounding errors of either
        # product are then relative to the difference
        row_kernels.residual_(y, partition, batch.x, batch.length)
        torch.autograd.graph.increment_version(y)  # torch does not see this kernel: it then refuses a second backward
        both, share = row_kernels.scaled(rows, grad, batch.length, y.dtype)
        grad_weight, grad_bias = row_kernels.unpack(y.t() @ both, rows.shape[1])
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None
        grad_rows = torch.empty_like(rows)
        torch.mul(y @ columns, share[:, None], out=grad_rows)
        return grad_rows.view(*grad.shape, -1), grad_weight, grad_bias, None, None


class _PairBound(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, eta: Tensor, u: Tensor, codes: Tensor, kind: type) -> tuple[Tensor, Tensor]:
        bound, kl, gradient = row_kernels.pair_bound(
            value.contiguous(), eta.contiguous(), u, codes, disarm=kind is DisARM
        )
        ctx.save_for_backward(gradient)
        ctx.number = len(value)
        ctx.mark_non_differentiable(kl)
        return bound, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad / ctx.number).expand(ctx.number, -1), grad[:, None] * gradient, None, None, None
