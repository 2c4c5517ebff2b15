"""The two products with a table of all words that nearly all of the time goes into, each with its own gradient.

Sums over the words of a document read and write its entries only. The decoder's products with all words run in the
precision asked for: in bfloat16 they have several times the rate of float32 on processors with such units. Tables, sums
over the words of a document, log-partitions and gradients are kept in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.text import dense_bound, row_kernels
from efvae.text.dense import AnyBatch, DenseBatch
from efvae.text.products import LOG2_E, Table, fresh

#: Documents whose logits are held at once where no gradient is asked for: they stay in a cache.
_PIECE = 128

__all__ = ["FrozenLayer", "code_costs", "code_table", "word_sums"]


def word_sums(table: Tensor, batch: AnyBatch) -> Tensor:
    """The first layer of an encoder: x T, shape ``(documents, width)``, with its gradient in T.

    Args:
        table: T, one row for each word, shape ``(K, width)``.
        batch: the documents x.

    Own: own-fused-multinomial
    """
    result: Tensor = _WordSums.apply(table, batch)  # type: ignore[no-untyped-call]
    return result


def code_costs(h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cost of documents under codes of their own, shape ``(samples, documents)``, in nats.

    ::

        l A(V h + a) − ⟨x, V h + a⟩ + Σ_k x_k log(x_k / l),    A(η) = log Σ_k exp η_k

    which is −log p(x | z) relative to the saturated multinomial. Differentiable in h, V and a, once.

    Args:
        h: what the decoder makes of the codes before its last layer, shape ``(samples, documents, width)``.
        weight: V, shape ``(K, width)``.
        bias: a, shape ``(K,)``.
        batch: the documents.
        dtype: precision of the products with V.

    Paper: eq-13
    Own: own-fused-multinomial
    """
    if isinstance(batch, DenseBatch) and dense_bound.serves(batch):
        return dense_bound.code_costs(h, weight, bias, batch, dtype)
    if dtype == torch.float32 and not (torch.is_grad_enabled() and (h.requires_grad or weight.requires_grad)):
        return FrozenLayer(weight, bias, batch.smoothing).costs(h, batch)
    result: Tensor = _CodeCosts.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


def code_table(h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cost of each document under each of a list of codes, shape ``(codes, documents)``, in nats.

    The cost of :func:`code_costs`, for all pairs: one log-partition for a code, however many documents have it.

    Args:
        h: of each code, shape ``(codes, width)``.
        weight, bias, batch, dtype: see :func:`code_costs`.

    Raises:
        ValueError: a gradient in h is asked for and the batch has no dense form.

    Paper: eq-13
    Own: own-fused-multinomial
    """
    result: Tensor = _CodeTable.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


class FrozenLayer:
    """The last layer of a decoder that stays as it is while many documents are read: costs in float32, no gradients.

    Args:
        weight: V, shape ``(K, width)``.
        bias: a, shape ``(K,)``.
        smoothing: f of the documents, shape ``(K,)``.

    Own: own-fused-multinomial
    """

    def __init__(self, weight: Tensor, bias: Tensor, smoothing: Tensor) -> None:
        with torch.no_grad():
            self.table = Table(weight, bias, torch.float32, pack=True)
            self.shared, self.shared_bias = smoothing @ weight, smoothing @ bias
        self.device = weight.device

    @torch.no_grad()
    def costs(self, h: Tensor, batch: AnyBatch) -> Tensor:
        """See :func:`code_costs`: all logits of some documents are made, looked at, and overwritten.

        Own: own-fused-multinomial
        """
        result = h.new_empty(h.shape[:-1])
        for here, some in batch.pieces(_PIECE):
            for codes, costs in zip(h[:, here], result[:, here], strict=True):
                if isinstance(some, DenseBatch) and dense_bound.serves(some):
                    costs.copy_(row_kernels.scored(self.table.logits(codes), some.x, some.length, some.saturated))
                    continue
                y = self.table.scores(codes)
                inner = some.weighted(y) / LOG2_E + codes @ self.shared + self.shared_bias
                _, _, partition = self.table.powers(codes, y)
                torch.sub(some.length * partition + some.saturated, inner, out=costs)
        return result


def _dense(batch: AnyBatch) -> Tensor:
    if batch.dense is None:
        raise ValueError("a gradient in h needs the dense form of the documents: make Documents with a dtype")
    return batch.dense


def _with_one(h: Tensor, share: Tensor, dtype: torch.dtype) -> Tensor:
    """(h, 1) times a factor of each row, and a zero where that makes the width even: odd ones are slow in bfloat16."""
    width = h.shape[-1]
    step = 2 if h.device.type == "cpu" else 8  # 16 bytes, which the tensor cores' fast kernels ask for
    rows = torch.zeros(share.numel(), -(-(width + 1) // step) * step, dtype=dtype, device=h.device)
    torch.mul(h, share, out=rows[:, :width].view_as(h))
    rows[:, width] = share.flatten()
    return rows


def _wide(values: Tensor) -> Tensor:
    """A gradient in float32."""
    return fresh(tuple(values.shape), torch.float32, values.device).copy_(values)


def _cost(h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, partition: Tensor) -> tuple[Tensor, Tensor]:
    """The cost from its log-partition; fᵀV beside it."""
    shared = batch.shared(weight)
    inner = (h * (batch.entries(weight) + shared)).sum(-1) + batch.sums(bias[:, None])[:, 0]
    return batch.length * partition - inner + batch.saturated, shared


def _cost_table(h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, partition: Tensor) -> Tensor:
    inner = h @ batch.sums(weight).t() + batch.sums(bias[:, None])[:, 0]
    return partition[:, None] * batch.length - inner + batch.saturated


class _WordSums(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, batch: AnyBatch) -> Tensor:
        ctx.batch = batch
        return batch.sums(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.batch.transposed(grad), None


class _CodeCosts(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, dtype: torch.dtype) -> Tensor:
        table = Table(weight, bias, dtype)
        numbers, total, partition = table.powers(h.flatten(0, -2))
        partition, total = partition.view(h.shape[:-1]), total.view(h.shape[:-1])
        cost, shared = _cost(h, weight, bias, batch, partition)
        ctx.save_for_backward(h, numbers, total, shared, weight)  # V is looked at again: torch sees if it was changed
        ctx.batch, ctx.table = batch, table
        return cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, numbers, total, shared, _ = ctx.saved_tensors
        batch, table, smoothing = ctx.batch, ctx.table, ctx.batch.smoothing
        # l p − x without its smoothing, up to the factor l / total of each row, which goes into the small factors: the
        # entries are taken off in place. Rounding errors of either product are then relative to the difference.
        batch.subtract(numbers, total / batch.length)
        share = (grad * batch.length / total)[..., None]
        both = table.against(numbers, _with_one(h, share, numbers.dtype))
        sums = (grad.flatten() @ h.flatten(0, -2)), grad.sum()
        grad_weight = _wide(both[:, : h.shape[-1]]).addcmul_(smoothing[:, None], sums[0], value=-1)
        grad_bias = both[:, h.shape[-1]].float() - sums[1] * smoothing
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None
        grad_h = share * table.weighted(numbers).view_as(h) - grad[..., None] * shared
        return grad_h, grad_weight, grad_bias, None, None


class _CodeTable(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, dtype: torch.dtype) -> Tensor:
        table = Table(weight, bias, dtype)
        numbers, total, partition = table.powers(h)
        ctx.save_for_backward(h, numbers, total, weight)
        ctx.batch, ctx.table = batch, table
        return _cost_table(h, weight, bias, batch, partition)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, numbers, total, _ = ctx.saved_tensors
        batch, dtype = ctx.batch, numbers.dtype
        if not ctx.needs_input_grad[0]:
            share = (grad @ batch.length / total)[:, None]
            grad_weight = ctx.table.against(numbers, (share * h).to(dtype)).float() - batch.transposed(grad.t() @ h)
            grad_bias = (numbers.t() @ share.to(dtype)).float() - batch.transposed(grad.sum(0)[:, None])
            return None, grad_weight, grad_bias[:, 0], None, None
        rounded = grad.to(dtype)
        # both terms from the same rounded weights, so that what they do to all logits of a code nearly cancels
        share = (rounded.float() @ batch.length / total)[:, None]
        residual = torch.addcmul(rounded @ _dense(batch), numbers, -share.to(dtype))
        grad_weight = _wide(ctx.table.against(residual, -h.to(dtype)))
        grad_h = -ctx.table.weighted(residual)
        return grad_h, grad_weight, -residual.sum(0, dtype=torch.float32), None, None
