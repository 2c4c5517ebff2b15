"""Costs of documents under drawn codes where the decoder is linear: the compiled loops of :mod:`efvae.text.kernels`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.text import compiled
from efvae.text.batches import Batch
from efvae.text.compiled import spread

__all__ = ["code_costs"]

#: Most of Σ_j |V_kj|: products of tables stay within exp(±80), where float32 goes from 1e-38 to 3e38.
_MOST = 160.0
#: Least exponent whose exponential is held in full.
_LEAST = -80.0


@dataclass(frozen=True)
class _Sums:
    """Σ_k exp(V z + a − shift)_k of codes, and what loops need again for the gradient: b, sizes of groups and codes."""

    prepared: tuple[Tensor, ...]
    total: Tensor
    shift: Tensor


def code_costs(z: Tensor, weight: Tensor, bias: Tensor, batch: Batch) -> Tensor | None:
    """:func:`efvae.text.fused.code_costs` of bits under a linear decoder; differentiable in V and a, once.

    Args:
        z: codes, shape ``(samples, documents, m)``, without a gradient.
        weight: V, float32, shape ``(K, m)``.
        bias: a, float32, shape ``(K,)``.
        batch: the documents.

    Returns:
        Costs in nats, shape ``(samples, documents)``; None if z is not all zeros and ones, or empty, or if exponentials
        are not held by float32: absolute values of a row of V add up to more than 160 or one is beyond 86, or
        log-partitions are far from the largest entry of a.

    Raises:
        ValueError: shapes that do not fit together.

    Paper: eq-13
    Own: own-tabulated-products
    """
    if z.shape[1:] != (len(batch), weight.shape[1]) or not len(weight) == len(bias) == len(batch.smoothing):
        raise ValueError(
            f"code_costs: expected codes of shape (samples, {len(batch)}, {weight.shape[1]}), and V and a of "
            f"{len(batch.smoothing)} words; got shapes {tuple(z.shape)}, {tuple(weight.shape)}, {tuple(bias.shape)}"
        )
    z = z.to(weight.dtype).contiguous()
    with torch.no_grad():
        sums = _sums(z.flatten(0, 1), weight.contiguous(), bias.contiguous()) if z.numel() else None
    if sums is None:
        return None
    result: Tensor = _BitCosts.apply(z, weight, bias, batch, sums)  # type: ignore[no-untyped-call]
    return result


def _sums(z: Tensor, weight: Tensor, bias: Tensor) -> _Sums | None:
    kernels, (n_words, bits) = compiled.kernels(), weight.shape
    sizes, value, first_row = _groups(bits)
    tiles = -(-n_words // kernels.WORDS)
    if bool(torch.addcmul(z, z, z, value=-1).any()):  # z − z² of zeros and ones only is zero
        return None
    rows, shift = (z @ value).int() + first_row, bias.max()
    log_base, base, size = weight.new_empty(3, tiles, kernels.WORDS)
    parts, memory = weight.new_zeros(kernels.PARTS, len(z)), int((2**sizes).sum()) + bits
    given = weight, bias, shift[None], sizes, rows, log_base, base, size, parts
    spread(kernels.totals, kernels.PARTS, *given, memory=memory, step=1)
    log_base, size = log_base.flatten()[:n_words], size.flatten()[:n_words]
    least, most = torch.aminmax(log_base)
    if not bool((size.max() < _MOST) & (most < -_LEAST)):  # not so of NaN either
        return None
    lost = 0.0
    if least < _LEAST:
        small = log_base < _LEAST
        lost = float((log_base + size / 2)[small].exp().sum())  # at most, of any of the sums
    total = parts.sum(0)
    low, high = (float(value) for value in torch.aminmax(total))
    # lost is less than a rounding error then
    return _Sums((base, sizes, rows), total, shift) if max(1e-20, 1e7 * lost) < low and high < 1e30 else None


@functools.cache
def _groups(bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes of the groups, what each bit adds to the row of its group, and the first row of each."""
    sizes = torch.tensor(compiled.kernels().group_sizes(bits), device="cpu")
    value = torch.zeros(bits, len(sizes), dtype=torch.float32, device="cpu")
    for group, some in enumerate(torch.arange(bits, device="cpu").split(sizes.tolist())):
        value[some, group] = 2.0 ** torch.arange(len(some), dtype=torch.float32, device="cpu")
    rows = 2**sizes
    return sizes, value, (rows.cumsum(0) - rows).int()


class _BitCosts(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, batch: Batch, sums: _Sums) -> Tensor:
        partition = sums.total.log().add_(sums.shift).view(z.shape[:-1])
        inner = (z * batch.sums(weight)).sum(-1) + batch.sums(bias[:, None])[:, 0]
        ctx.save_for_backward(z, weight)  # V is looked at again: torch sees if it was changed
        ctx.batch, ctx.sums = batch, sums
        return batch.length * partition - inner + batch.saturated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        z, weight = ctx.saved_tensors
        sums, batch, kernels = ctx.sums, ctx.batch, compiled.kernels()
        share = (grad * batch.length).flatten() / sums.total
        # of a document's codes only their weighted sum meets its words
        codes, weights = (batch.by_document(part.sum(0)).contiguous() for part in (grad[..., None] * z, grad))
        sizes, _, _ = _groups(weight.shape[1])
        blocks, n_tables = -(-len(share) // kernels.ROWS), int((2**sizes).sum())
        order = torch.empty(blocks, len(sizes) * kernels.ROWS, dtype=torch.int32, device="cpu")
        sorted_codes = order, torch.zeros(blocks, n_tables + 2, dtype=torch.int32, device="cpu")
        spread(kernels.sort_places, blocks, sums.prepared[-1], *sorted_codes)
        grad_weight, grad_bias = weight.new_empty(weight.shape), weight.new_empty(len(weight))
        spread(
            kernels.gradient,
            -(-len(weight) // kernels.WORDS),
            *(weight.contiguous(), *sums.prepared),
            *sorted_codes,
            share,
            *batch.by_tile,
            *(codes, weights, batch.smoothing.contiguous(), codes.sum(0), weights.sum(0, keepdim=True)),
            *(grad_weight, grad_bias),
            memory=2 * n_tables + weight.shape[1] + 1 + kernels.ROWS,
            step=4,
        )
        return None, grad_weight, grad_bias, None, None
