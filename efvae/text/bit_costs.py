"""Costs of documents under drawn codes where the decoder is linear: the compiled loops of :mod:`efvae.text.kernels`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.text import compiled
from efvae.text.batches import Batch
from efvae.text.compiled import arrays, spread

__all__ = ["code_costs", "group_sizes"]

#: No product of tabulated exponentials is beyond this, or the next path is taken; float32 goes to 3e38.
_MOST = math.exp(80.0)


@dataclass(frozen=True)
class _Sums:
    """Σ_k exp(V z + a − shift)_k of codes, and what loops need again for the gradient."""

    prepared: tuple[Any, ...]
    total: Tensor
    shift: float


def code_costs(z: Tensor, weight: Tensor, bias: Tensor, batch: Batch) -> Tensor | None:
    """:func:`efvae.text.fused.code_costs` of bits under a linear decoder; differentiable in V and a, once.

    Args:
        z: zeros and ones, shape ``(samples, documents, m)``, without a gradient.
        weight: V, shape ``(K, m)``.
        bias: a, shape ``(K,)``.
        batch: the documents.

    Returns:
        Costs in nats, shape ``(samples, documents)``; None where exponentials are out of the range of float32: a word
        with Σ_j |V_kj| > 160, or log-partitions far from the largest entry of a.

    Raises:
        ValueError: a number of z is neither 0 nor 1.

    Paper: eq-13
    Own: own-tabulated-products
    """
    with torch.no_grad():
        sums = _sums(z.flatten(0, 1), weight, bias)
    if sums is None:
        return None
    result: Tensor = _BitCosts.apply(z, weight, bias, batch, sums)  # type: ignore[no-untyped-call]
    return result


def group_sizes(bits: int) -> list[int]:
    """Numbers of bits of the groups whose exponentials are tabulated: at most 6 each, as even as can be.

    Own: own-tabulated-products
    """
    least = compiled.kernels().GROUPS
    groups = least * max(1, -(-bits // (6 * least)))
    return [(bits + i) // groups for i in reversed(range(groups))]


def _sums(z: Tensor, weight: Tensor, bias: Tensor) -> _Sums | None:
    kernels, bits, rows = compiled.kernels(), weight.shape[1], len(z)
    groups, blocks = len(group_sizes(bits)), -(-rows // kernels.ROWS)
    n_tables = sum(2**size for size in group_sizes(bits))
    shapes = ((groups,), (rows, groups), (blocks, groups * kernels.ROWS), (blocks, n_tables + 1), (blocks,))
    sizes, codes, order, starts, wrong = (torch.zeros(shape, dtype=torch.int64).numpy() for shape in shapes)
    sizes[:] = group_sizes(bits)
    spread(kernels.places, blocks, *arrays(z), sizes, codes, order, starts, wrong)
    if wrong.any():
        raise ValueError(f"code_costs: codes must be 0 or 1; {wrong.sum()} numbers are not")
    shift = bias.max()
    root, scale = arrays(weight.mul(0.5).exp_(), (bias - shift).exp())
    parts, most = torch.zeros(kernels.PARTS, rows), torch.zeros(kernels.PARTS)
    written = arrays(parts, most)
    spread(kernels.totals, kernels.PARTS, root, scale, sizes, codes, *written, memory=n_tables + bits + 2)
    total = parts.sum(0)
    low, high = torch.aminmax(total)
    if not (most.max() < _MOST and low > 1e-20 and high < 1e30):  # not so of NaN either
        return None
    return _Sums((root, scale, sizes, codes, order, starts), total, float(shift))


class _BitCosts(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, batch: Batch, sums: _Sums) -> Tensor:
        partition = sums.total.log().add_(sums.shift).view(z.shape[:-1])
        shared = batch.shared(weight), (batch.smoothing @ bias).view(1)
        inner = torch.empty_like(partition)
        tensors = (z, batch.words, batch.counts, batch.offsets, weight, bias, *shared, inner)
        spread(compiled.kernels().inner, len(batch), *arrays(*tensors), least=64)
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
        grad_weight, grad_bias = torch.empty_like(weight), weight.new_empty(len(weight))
        spread(
            kernels.gradient,
            -(-len(weight) // kernels.WORDS),
            *sums.prepared,
            *arrays(share),
            batch.by_tile,
            *arrays(codes, weights, batch.smoothing, codes.sum(0), weights.sum(0, keepdim=True)),
            *arrays(grad_weight, grad_bias),
            memory=2 * sums.prepared[-1].shape[1] - 1 + weight.shape[1] + kernels.ROWS,
        )
        return None, grad_weight, grad_bias, None, None
