"""The two products with a table of all words that nearly all of the time goes into, each with its own gradient.

Sums over the words of a document read and write its entries only. The decoder's products with all words run in the
precision asked for: in bfloat16 they have several times the rate of float32 on processors with such units. Tables, sums
over the words of a document and log-partitions are kept in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.text.dense import AnyBatch

__all__ = ["code_costs", "code_table", "word_sums"]


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

    Raises:
        ValueError: a gradient in h is asked for and the batch has no dense form.

    Paper: eq-13
    Own: own-fused-multinomial
    """
    result: Tensor = _CodeCosts.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


def code_table(h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cost of each document under each of a list of codes, shape ``(codes, documents)``, in nats.

    The cost of :func:`code_costs`, for all pairs: one log-partition for a code, however many documents have it.

    Args:
        h: of each code, shape ``(codes, width)``.
        weight, bias, batch, dtype: see :func:`code_costs`.

    Raises:
        ValueError: see :func:`code_costs`.

    Paper: eq-13
    Own: own-fused-multinomial
    """
    result: Tensor = _CodeTable.apply(h, weight, bias, batch, dtype)  # type: ignore[no-untyped-call]
    return result


def _dense(batch: AnyBatch) -> Tensor:
    if batch.dense is None:
        raise ValueError("a gradient in h needs the dense form of the documents: make Documents with a dtype")
    return batch.dense


def _with_one(h: Tensor) -> Tensor:
    """(h, 1), and a zero where that makes the width even: odd ones are slow in bfloat16."""
    width = h.shape[-1]
    rows = h.new_zeros(*h.shape[:-1], width + 2 - width % 2)
    rows[..., :width] = h
    rows[..., width] = 1
    return rows


def _table(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """(V, a) to go with it: a bias inside the product costs no pass over the result."""
    n_words, width = weight.shape
    table = torch.empty(n_words, width + 2 - width % 2, dtype=dtype, device=weight.device)
    table[:, :width] = weight
    table[:, width:] = bias[:, None]  # twice where the width is even: the code has a zero there
    return table


def _row_sums(values: Tensor) -> Tensor:
    """Σ over the last axis in float32, of bfloat16 without a wider copy: by blocks, whose sums round independently."""
    if values.dtype == torch.float32:
        return values.sum(-1)
    n = values.shape[-1]
    width = next(d for d in range(min(128, n), 0, -1) if n % d == 0)
    sums: Tensor = values.unflatten(-1, (n // width, width)).sum(-1).sum(-1, dtype=torch.float32)
    return sums


def _exponentials(h: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(V h + a − s), its sum over words in float32, and A; the shift s is zero unless the sum would overflow."""
    rows = _with_one(h).to(table.dtype)
    if table.device.type == "cpu":
        exponentials = (rows @ table.t()).exp_()
        total = _row_sums(exponentials)
        if float(total.min()) > 1e-30 and float(total.max()) < 1e30:
            return exponentials, total, total.log()
    logits = rows @ table.t()  # an accelerator is not asked whether the shift is needed: that would stall it
    shift = logits.amax(-1)
    exponentials = logits.sub_(shift[..., None]).exp_()
    total = _row_sums(exponentials)
    return exponentials, total, total.log() + shift.float()


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
        table = _table(weight, bias, dtype)
        exponentials, total, partition = _exponentials(h, table)
        ctx.save_for_backward(h, table, exponentials, total)
        ctx.batch = batch
        inner = (h * batch.sums(weight)).sum(-1) + batch.sums(bias[:, None])[:, 0]
        return batch.length * partition - inner + batch.saturated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, table, exponentials, total = ctx.saved_tensors
        batch, width, dtype = ctx.batch, h.shape[-1], table.dtype
        rows = _with_one(h) * grad[..., None]
        share = (batch.length / total)[..., None]
        if not ctx.needs_input_grad[0]:
            # codes get no gradient: l p and x are not subtracted, nor is x made dense
            both = (exponentials.flatten(0, -2).t() @ (share * rows).flatten(0, -2).to(dtype)).float()
            both -= batch.transposed(rows.sum(0))
            return None, both[:, :width], both[:, width], None, None
        # x − l p in one pass; the weights of the rows go into the small factors
        residual = torch.addcmul(_dense(batch), exponentials, -share.to(dtype)).flatten(0, -2)
        both = (residual.t() @ -rows.flatten(0, -2).to(dtype)).float()
        grad_h = -grad[..., None] * (residual @ table[:, :width]).float().view_as(h)
        return grad_h, both[:, :width], both[:, width], None, None


class _CodeTable(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, batch: AnyBatch, dtype: torch.dtype) -> Tensor:
        table = _table(weight, bias, dtype)
        exponentials, total, partition = _exponentials(h, table)
        ctx.save_for_backward(h, table, exponentials, total)
        ctx.batch = batch
        inner = h @ batch.sums(weight).t() + batch.sums(bias[:, None])[:, 0]
        return partition[:, None] * batch.length - inner + batch.saturated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, table, exponentials, total = ctx.saved_tensors
        batch, width, dtype = ctx.batch, h.shape[-1], table.dtype
        rows = _with_one(h)
        if not ctx.needs_input_grad[0]:
            share = (grad @ batch.length / total)[:, None]
            both = (exponentials.t() @ (share * rows).to(dtype)).float() - batch.transposed(grad.t() @ rows)
            return None, both[:, :width], both[:, width], None, None
        rounded = grad.to(dtype)
        # both terms from the same rounded weights, so that what they do to all logits of a code nearly cancels
        share = (rounded.float() @ batch.length / total)[:, None]
        residual = torch.addcmul(rounded @ _dense(batch), exponentials, -share.to(dtype))
        both = (residual.t() @ -rows.to(dtype)).float()
        grad_h = -(residual @ table[:, :width]).float()
        return grad_h, both[:, :width], both[:, width], None, None
