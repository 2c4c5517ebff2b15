"""Estimates of log p(x) where codes are too many to list: importance weights and annealing from the encoder's answer.

Both are stochastic lower bounds: the mean weight is unbiased for p(x), so the logarithm of it is too small on average.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from efvae.families import Bernoulli
from efvae.log_weights import LogWeights

__all__ = ["anneal", "importance"]

#: log p(x, z) of codes of shape ``(s, documents, bits)``, shape ``(s, documents)``.
Score = Callable[[Tensor], Tensor]


def importance(score: Score, eta: Tensor, samples: int, generator: torch.Generator | None = None) -> LogWeights:
    """Weights of independent draws from the encoder: their mean logarithm is the ELBO, their log-mean the IW bound.

    ::

        w = p(x, z) / q(z | x),   z ~ q(z | x)

    Args:
        score: log p(x, z), see :meth:`efvae.text.likelihood.TextJoint.score`.
        eta: the encoder's logits, shape ``(documents, m)``, float64.
        samples: for each document.
        generator: source of randomness.

    Own: own-text-annealed
    """
    q = Bernoulli(eta)
    z = q.sample((samples,), generator)
    return LogWeights(score(z) - q.log_prob(z))


def anneal(
    score: Score,
    eta: Tensor,
    chains: int,
    temperatures: int,
    generator: torch.Generator | None = None,
) -> LogWeights:
    """Annealed importance sampling (Neal 2001) over codes, from the encoder's posterior to the true one.

    ::

        f_β(z) = q(z | x)^(1−β) p(x, z)^β,   0 = β_0 < … < β_T = 1
        log w = Σ_k (β_k − β_{k−1}) (log p(x, z_{k−1}) − log q(z_{k−1} | x))

    At each temperature two Metropolis moves leave f_β unchanged: a random set of bits, of random size, is drawn anew
    from q; one bit is flipped. The former is accepted by the ratio of importance weights alone, the latter reaches
    codes that q holds for impossible. E w = p(x) for any T; with T = 1 it is :func:`importance`.

    Args:
        score, eta: see :func:`importance`.
        chains: independent chains for each document, at least 2.
        temperatures: T ≥ 1, evenly spaced; each costs two codes for each chain.
        generator: source of randomness.

    Raises:
        ValueError: fewer than two chains, or no temperature.

    Own: own-text-annealed
    """
    if chains < 2 or temperatures < 1:
        raise ValueError(f"anneal: needs at least 2 chains and 1 temperature, got {chains} and {temperatures}")
    q, bits = Bernoulli(eta), eta.shape[1]
    draw: dict[str, object] = {"generator": generator, "device": eta.device}
    shape = (chains, len(eta))

    def uniform(*more: int) -> Tensor:
        return torch.rand(*shape, *more, dtype=eta.dtype, **draw)  # type: ignore[call-overload, no-any-return]

    def move(z: Tensor, ratio: Tensor, new: Tensor, beta: float, power: Tensor | float) -> tuple[Tensor, Tensor]:
        """Accept with probability min(1, exp(power + β change of the ratio))."""
        there = score(new) - q.log_prob(new)
        accept = uniform().log() < power + beta * (there - ratio)
        return torch.where(accept[..., None], new, z), torch.where(accept, there, ratio)

    z = q.sample((chains,), generator)
    ratio = score(z) - q.log_prob(z)
    log_w = torch.zeros_like(ratio)
    for k in range(1, temperatures + 1):
        log_w += ratio / temperatures
        if k == temperatures:
            break
        beta = k / temperatures
        share = 0.5 ** (uniform(1) * (bits.bit_length() + 1)).floor()  # of the bits: all, half, … about one
        block = torch.where(uniform(bits) < share, q.sample((chains,), generator), z)
        z, ratio = move(z, ratio, block, beta, 0.0)
        one = torch.zeros_like(z).scatter_(-1, (uniform(1) * bits).long().clamp(max=bits - 1), 1.0)
        flipped = (z - one).abs()
        z, ratio = move(z, ratio, flipped, beta, q.log_prob(flipped) - q.log_prob(z))
    return LogWeights(log_w)
