"""Costs of documents under drawn codes where the decoder is linear: the compiled loops of :mod:`efvae.text.kernels`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.text import compiled
from efvae.text.batches import Batch
from efvae.text.compiled import arrays, spread

__all__ = ["code_costs"]

#: Most of Σ_j |V_kj|: products of tables stay within exp(±80), where float32 goes from 1e-38 to 3e38.
_MOST = 160.0
#: Least exponent whose exponential is held in full.
_LEAST = -80.0


@dataclass(frozen=True)
class _Sums:
    """Σ_k exp(V z + a − shift)_k of codes, and what loops need again for the gradient."""

    prepared: tuple[Any, ...]
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
    z = z.to(weight.dtype)
    with torch.no_grad():
        sums = _sums(z.flatten(0, 1), weight, bias) if z.numel() else None
    if sums is None:
        return None
    result: Tensor = _BitCosts.apply(z, weight, bias, batch, sums)  # type: ignore[no-untyped-call]
    return result


def _sums(z: Tensor, weight: Tensor, bias: Tensor) -> _Sums | None:
    kernels, (n_words, bits) = compiled.kernels(), weight.shape
    half, size = weight.new_empty(n_words), weight.new_empty(n_words)
    spread(kernels.row_sums, n_words, *arrays(weight, half, size), least=1000)
    shift = bias.max()
    log_base = half + (bias - shift)
    least, most = torch.aminmax(log_base)
    if not bool((size.max() < _MOST) & (most < -_LEAST)):  # not so of NaN either
        return None
    lost = 0.0
    if least < _LEAST:
        small = log_base < _LEAST
        lost = float((log_base + size / 2)[small].exp().sum())  # at most, of any of the sums
    if not bool(((z == 0) | (z == 1)).all()):
        return None
    sizes, value, first_row = _groups(bits)
    rows = (z @ value).int() + first_row
    prepared = tuple(arrays(weight.mul(0.5).exp_(), log_base.exp(), sizes, rows))
    parts = weight.new_zeros(kernels.PARTS, len(z))
    memory = int((2**sizes).sum()) + bits + 1
    spread(kernels.totals, kernels.PARTS, *prepared, *arrays(parts), memory=memory, step=1)
    total = parts.sum(0)
    low, high = (float(value) for value in torch.aminmax(total))
    # lost is less than a rounding error then
    return _Sums(prepared, total, shift) if max(1e-20, 1e7 * lost) < low and high < 1e30 else None


@functools.cache
def _groups(bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes of the groups, what each bit adds to the row of its group, and the first row of each."""
    sizes = torch.tensor(compiled.kernels().group_sizes(bits))
    value = torch.zeros(bits, len(sizes), dtype=torch.float32)
    for group, some in enumerate(torch.arange(bits).split(sizes.tolist())):
        value[some, group] = 2.0 ** torch.arange(len(some), dtype=torch.float32)
    rows = 2**sizes
    return sizes, value, (rows.cumsum(0) - rows).int()


class _BitCosts(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, batch: Batch, sums: _Sums) -> Tensor:
        partition = sums.total.log().add_(sums.shift).view(z.shape[:-1])
        inner = torch.einsum("sdj,dj->sd", z, batch.sums(weight)) + batch.sums(bias[:, None])[:, 0]
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
        codes, weights = torch.einsum("sd,sdj->dj", grad, z), grad.sum(0)
        sizes, _, _ = _groups(weight.shape[1])
        blocks, n_tables = -(-len(share) // kernels.ROWS), int((2**sizes).sum())
        order = np.empty((blocks, len(sizes) * kernels.ROWS), np.int32)
        sorted_codes = order, np.zeros((blocks, n_tables + 2), np.int32)
        spread(kernels.sort_places, blocks, sums.prepared[-1], *sorted_codes)
        grad_weight, grad_bias = weight.new_empty(weight.shape), weight.new_empty(len(weight))
        spread(
            kernels.gradient,
            -(-len(weight) // kernels.WORDS),
            *sums.prepared,
            *sorted_codes,
            *arrays(share),
            *batch.by_tile,
            *arrays(codes, weights, batch.smoothing, codes.sum(0), weights.sum(0, keepdim=True)),
            *arrays(grad_weight, grad_bias),
            memory=2 * n_tables + weight.shape[1] + 1 + kernels.ROWS,
            step=4,
        )
        return None, grad_weight, grad_bias, None, None
