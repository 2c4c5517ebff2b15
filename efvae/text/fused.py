"""The two products with a table of all words that nearly all of the time goes into, each with its own gradient.

In bfloat16 the products run at several times the rate of float32 on processors with such units. Tables, sums over
the words of a document and log-partitions are kept in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.text.batches import Batch

__all__ = ["code_costs", "code_table", "word_sums"]


def word_sums(table: Tensor, batch: Batch) -> Tensor:
    """The first layer of an encoder: x T, shape ``(documents, width)``, with its gradient in T.

    Args:
        table: T, one row for each word, shape ``(K, width)``.
        batch: the documents x.

    Raises:
        ValueError: a gradient is asked for and the batch has no dense form.

    Own: own-fused-multinomial
    """
    result: Tensor = _WordSums.apply(table, batch)  # type: ignore[no-untyped-call]
    return result


def code_costs(h: Tensor, weight: Tensor, bias: Tensor, batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
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

    Raises:
        ValueError: a gradient is asked for and the batch has no dense form.

    Paper: eq-13
    Own: own-fused-multinomial
    """
    result: Tensor = _CodeCosts.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


def code_table(h: Tensor, weight: Tensor, bias: Tensor, batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cost of each document under each of a list of codes, shape ``(codes, documents)``, in nats.

    The cost of :func:`code_costs`, for all pairs: one log-partition for a code, however many documents have it.

    Args:
        h: of each code, shape ``(codes, width)``.
        weight, bias, batch, dtype: see :func:`code_costs`.

    Paper: eq-13
    Own: own-fused-multinomial
    """
    result: Tensor = _CodeTable.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


def _dense(batch: Batch) -> Tensor:
    if batch.dense is None:
        raise ValueError("a gradient needs the dense form of the documents: make Documents with a dtype")
    return batch.dense


def _row_sums(values: Tensor) -> Tensor:
    """Σ over the last axis in float32, of bfloat16 without a wider copy: by blocks, whose sums round independently."""
    if values.dtype == torch.float32:
        return values.sum(-1)
    n = values.shape[-1]
    width = next(d for d in range(min(128, n), 0, -1) if n % d == 0)
    sums: Tensor = values.unflatten(-1, (n // width, width)).sum(-1).sum(-1, dtype=torch.float32)
    return sums


def _exponentials(h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(V h + a − s), its sum over words in float32, and A; the shift s is zero unless the sum would overflow."""
    logits = torch.nn.functional.linear(h.to(weight.dtype), weight, bias.to(weight.dtype))
    if logits.device.type == "cpu":
        exponentials = logits.exp()
        total = _row_sums(exponentials)
        if float(total.min()) > 1e-30 and float(total.max()) < 1e30:
            return exponentials, total, total.log()
    shift = logits.amax(-1)  # an accelerator is not asked whether it is needed: that would stall it
    exponentials = logits.sub_(shift[..., None]).exp_()
    total = _row_sums(exponentials)
    return exponentials, total, total.log() + shift.float()


class _WordSums(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, batch: Batch) -> Tensor:
        ctx.batch = batch
        return batch.sums(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x = _dense(ctx.batch)
        return (x.t() @ grad.to(x.dtype)).float(), None


class _CodeCosts(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
        rounded = weight.to(dtype)
        exponentials, total, partition = _exponentials(h, rounded, bias)
        ctx.save_for_backward(h, rounded, exponentials, total)
        ctx.batch = batch
        inner = (h * batch.sums(weight)).sum(-1) + batch.sums(bias[:, None])[:, 0]
        return batch.length * partition - inner + batch.saturated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, weight, exponentials, total = ctx.saved_tensors
        x, dtype = _dense(ctx.batch), weight.dtype
        share = ctx.batch.length / total
        if not ctx.needs_input_grad[0]:
            # nobody needs l p − x itself: the largest array is read by one product and never written
            ones = torch.ones_like(h[..., :1])
            h = torch.cat([h, ones], -1) * grad[..., None]
            written = exponentials.flatten(0, -2).t() @ (share[..., None] * h).flatten(0, -2).to(dtype)
            both = written.float() - (x.t() @ h.sum(0).to(dtype)).float()
            return None, both[:, :-1], both[:, -1], None, None
        # x − l p in one pass; the weights of the rows go into the small factors
        residual = torch.addcmul(x, exponentials, -share[..., None].to(dtype)).flatten(0, -2)
        rows = -grad.reshape(-1, 1)
        grad_weight = (residual.t() @ (rows * h.flatten(0, -2)).to(dtype)).float()
        grad_bias = (residual.t() @ rows.to(dtype)).float()[:, 0]
        grad_h = (rows * (residual @ weight).float()).view_as(h)
        return grad_h, grad_weight, grad_bias, None, None


class _CodeTable(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
        rounded = weight.to(dtype)
        exponentials, total, partition = _exponentials(h, rounded, bias)
        ctx.save_for_backward(h, rounded, exponentials, total)
        ctx.batch = batch
        inner = h @ batch.sums(weight).t() + batch.sums(bias[:, None])[:, 0]
        return partition[:, None] * batch.length - inner + batch.saturated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, weight, exponentials, total = ctx.saved_tensors
        x, dtype = _dense(ctx.batch), weight.dtype
        if not ctx.needs_input_grad[0]:
            h = torch.cat([h, torch.ones_like(h[:, :1])], -1)
            written = exponentials.t() @ ((grad @ ctx.batch.length / total)[:, None] * h).to(dtype)
            both = written.float() - (x.t() @ (grad.t() @ h).to(dtype)).float()
            return None, both[:, :-1], both[:, -1], None, None
        rounded = grad.to(dtype)
        # both terms from the same rounded weights: what they do to all logits of a code cancels as it should
        share = (rounded.float() @ ctx.batch.length / total)[:, None]
        residual = torch.addcmul(rounded @ x, exponentials, -share.to(dtype))
        minus_h = -h.to(dtype)
        grad_weight = (residual.t() @ minus_h).float()
        grad_bias = (residual.t() @ torch.full_like(minus_h[:, :1], -1)).float()[:, 0]
        grad_h = -(residual @ weight).float()
        return grad_h, grad_weight, grad_bias, None, None
