"""Sums over all binary codes of a linear decoder, at the cost of a matrix product instead of one softmax a code."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from efvae.families import all_bits

__all__ = ["LISTED", "expected_partition", "log_sum_exp_product", "word_partition"]

#: Most bits of which all codes are listed.
LISTED = 20
#: Least sum of float32 powers that is trusted: those that vanished, below 1e-38, are then no part of it.
LEAST = 1e-25
#: Numbers in one piece of a large table: it stays in a cache.
PIECE = 2**19


def word_partition(weight: Tensor, bias: Tensor) -> Tensor:
    """A(W z + a) for all codes in counting order, in nats, shape ``(2**m,)``.

    With the code cut in two, z = (z', z''), the sum over words is a product of two tables with 2^(m/2) rows each::

        exp A(W z + a) = Σ_k exp(a_k + ⟨W'_k, z'⟩) exp⟨W''_k, z''⟩

    All terms are positive, so nothing cancels: A has about the rounding error of one number. In float32 terms may
    vanish, where the words that a half prefers are far from those that the whole code does: then, and on an accelerator
    always, since it is not asked, float64 is taken within, which is enough for differences of up to 700 nats.

    Args:
        weight: W, shape ``(K, m)``.
        bias: a, shape ``(K,)``.

    Paper: eq-13
    Own: own-listed-partition
    """
    narrow = weight.dtype != torch.float64
    if narrow and weight.device.type != "cpu":
        return word_partition(weight.double(), bias.double()).to(weight.dtype)
    half = weight.shape[1] // 2
    left = all_bits(half, weight) @ weight[:, :half].T + bias
    right = all_bits(weight.shape[1] - half, weight) @ weight[:, half:].T
    shifts = left.detach().amax(1, keepdim=True), right.detach().amax(1, keepdim=True)
    total = _powers(left - shifts[0]) @ _powers(right - shifts[1]).T
    if narrow and not bool(total.min() > LEAST):  # NaN included: float64 has no fewer
        return word_partition(weight.double(), bias.double()).to(weight.dtype)
    return (total.log() + shifts[0] + shifts[1].T).flatten()


def expected_partition(partition: Tensor, logits: Tensor) -> Tensor:
    """E_q[A(z)] of independent bits, shape ``(n,)``: a bilinear form of the two halves of the code.

    Args:
        partition: A for all codes in counting order, shape ``(2**m,)``.
        logits: of the bits, shape ``(n, m)``.

    Own: own-listed-partition
    """
    half = logits.shape[1] // 2
    laws = []
    for part in (logits[:, :half], logits[:, half:]):
        log_law = part @ all_bits(part.shape[1], part).T - torch.nn.functional.softplus(part).sum(1, keepdim=True)
        laws.append(log_law.exp())
    return ((laws[0] @ partition.view(2**half, -1)) * laws[1]).sum(1)


def log_sum_exp_product(u: Tensor, v: Tensor) -> Tensor:
    """log Σ_j exp⟨u_i, v_j⟩ for each row i, without the table of all pairs, shape ``(rows,)``.

    Args:
        u: shape ``(rows, r)``.
        v: shape ``(r, columns)``.

    Own: own-text-rbm
    """
    result: Tensor = _LogSumExpProduct.apply(u, v)  # type: ignore[no-untyped-call]
    return result


class _LogSumExpProduct(Function):
    """Pieces of rows; the backward pass makes each piece again instead of keeping them all."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor) -> Tensor:
        found = []
        for some in u.split(_rows(v)):
            scores = some @ v
            top = scores.amax(1, keepdim=True)
            found.append(_powers(scores.sub_(top), 20.0).sum(1).log() + top[:, 0])
        result = torch.cat(found)
        ctx.save_for_backward(u, v, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        u, v, result = ctx.saved_tensors
        grad_u, grad_v = torch.empty_like(u), torch.zeros_like(v)
        rows, start = _rows(v), 0
        for some in u.split(rows):
            here = slice(start, start + len(some))
            law = _powers((some @ v).sub_(result[here, None]), 20.0).mul_(grad[here, None])
            grad_u[here] = law @ v.T
            grad_v.addmm_(some.T, law)
            start += len(some)
        return grad_u, grad_v


def _powers(x: Tensor, above: float = 1.0) -> Tensor:
    """exp of numbers up to 0, in their memory, at least exp(above) times the least normal number.

    Beside a sum of about 1 that is as good as nothing; and where torch takes exp from MKL, powers that vanish take some
    forty times as long as others, as do products with numbers below the normal ones.
    """
    return x.clamp_(min=math.log(torch.finfo(x.dtype).tiny) + above).exp_()


def _rows(v: Tensor) -> int:
    return max(1, PIECE // v.shape[1])
