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
class Groups:
    """Groups of bits whose products of exponentials are tabulated.

    Args:
        sizes: bits of each.
        value: what each bit adds to the row of its group, shape ``(bits, groups)``.
        first: the first row of each group.
        rows: number of rows.

    Own: own-tabulated-products
    """

    sizes: Tensor
    value: Tensor
    first: Tensor
    rows: int

    @staticmethod
    @functools.cache
    def of(bits: int) -> Groups:
        """Those of codes with so many bits.

        Own: own-tabulated-products
        """
        sizes = torch.tensor(compiled.kernels().group_sizes(bits), device="cpu")
        value = torch.zeros(bits, len(sizes), dtype=torch.float32, device="cpu")
        for group, some in enumerate(torch.arange(bits, device="cpu").split(sizes.tolist())):
            value[some, group] = 2.0 ** torch.arange(len(some), dtype=torch.float32, device="cpu")
        rows = 2**sizes
        return Groups(sizes, value, (rows.cumsum(0) - rows).int(), int(rows.sum()))


@dataclass(frozen=True)
class CodeSums:
    """Sums over the words for codes.

    Args:
        prepared: what loops need again for the gradient: b, sizes of groups and codes.
        total: Σ_k exp(V z + a − shift)_k of each code.
        shift: a number.

    Own: own-tabulated-products
    """

    prepared: tuple[Tensor, ...]
    total: Tensor
    shift: Tensor

    @property
    def partition(self) -> Tensor:
        """log Σ_k exp(V z + a)_k of each code.

        Own: own-tabulated-products
        """
        return self.total.log().add_(self.shift)


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
        codes = _codes(z.flatten(0, 1)) if z.numel() else None
        sums = None if codes is None else code_sums(codes, weight.contiguous(), bias.contiguous())
    if sums is None:
        return None
    result: Tensor = _BitCosts.apply(z, weight, bias, batch, sums)  # type: ignore[no-untyped-call]
    return result


def _codes(z: Tensor) -> Tensor | None:
    """The rows of the tables that codes take; None if they are not all of zeros and ones."""
    groups = Groups.of(z.shape[1])
    if bool(torch.addcmul(z, z, z, value=-1).any()):  # z − z² of zeros and ones only is zero
        return None
    return (z @ groups.value).int() + groups.first


def code_sums(codes: Tensor, weight: Tensor, bias: Tensor) -> CodeSums | None:
    """What the costs of codes are made of, without gradients.

    Args:
        codes: the rows of the tables that each code takes, int32, shape ``(codes, groups)``.
        weight, bias: V and a, contiguous.

    Returns:
        None if float32 does not hold some exponential, see :func:`code_costs`.

    Own: own-tabulated-products
    """
    kernels, (n_words, bits) = compiled.kernels(), weight.shape
    groups, shift, tiles = Groups.of(bits), bias.max(), -(-n_words // kernels.WORDS)
    log_base, base, size = weight.new_empty(3, tiles, kernels.WORDS)
    parts = weight.new_zeros(kernels.PARTS, len(codes))
    given = weight, bias, shift[None], groups.sizes, codes, log_base, base, size, parts
    spread(kernels.totals, kernels.PARTS, *given, memory=groups.rows + bits, step=1)
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
    return CodeSums((base, groups.sizes, codes), total, shift) if max(1e-20, 1e7 * lost) < low and high < 1e30 else None


class _BitCosts(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, batch: Batch, sums: CodeSums) -> Tensor:
        partition = sums.partition.view(z.shape[:-1])
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
        given, memory = gradient_arguments(sums, weight.contiguous(), batch, share, codes, weights)
        grad_weight, grad_bias = weight.new_empty(weight.shape), weight.new_empty(len(weight))
        spread(kernels.gradient, len(sums.prepared[0]), *given, grad_weight, grad_bias, memory=memory, step=4)
        return None, grad_weight, grad_bias, None, None


def gradient_arguments(
    sums: CodeSums, weight: Tensor, batch: Batch, share: Tensor, codes: Tensor, weights: Tensor
) -> tuple[tuple[Tensor, ...], int]:
    """What loops over the gradient in V and a read, and the rows of memory that each of their threads needs.

    Args:
        sums: of the codes.
        weight: V, contiguous.
        batch: the documents.
        share: what the exponentials of each code are multiplied by.
        codes: the weighted sum of the codes of each document, contiguous, shape ``(documents, m)``.
        weights: the sum of these weights, shape ``(documents,)``.

    Own: own-tabulated-products
    """
    kernels, groups = compiled.kernels(), Groups.of(weight.shape[1])
    blocks = -(-len(share) // kernels.ROWS)
    order = torch.empty(blocks, len(groups.sizes) * kernels.ROWS, dtype=torch.int32, device="cpu")
    starts = torch.zeros(blocks, groups.rows + 2, dtype=torch.int32, device="cpu")
    spread(kernels.sort_places, blocks, sums.prepared[-1], order, starts)
    of_documents = codes, weights, batch.smoothing.contiguous(), codes.sum(0), weights.sum(0, keepdim=True)
    memory = 2 * groups.rows + weight.shape[1] + 1 + kernels.ROWS
    return (weight, *sums.prepared, order, starts, share, *batch.by_tile, *of_documents), memory
