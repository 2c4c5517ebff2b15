"""A factorized posterior for each document where codes are too many to list: coordinate ascent on sampled codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from efvae.families import Bernoulli

__all__ = ["broadened", "fit_factorized"]

#: log p(x, z) of codes of shape ``(s, documents, bits)``, shape ``(s, documents)``.
Score = Callable[[Tensor], Tensor]


def fit_factorized(
    score: Score,
    eta: Tensor,
    samples: int = 4,
    sweeps: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Logits of a factorized posterior near the best one, shape ``(documents, m)``, float64.

    ::

        logit q_i = mean over draws z of q of log p(x, z with z_i = 1) − log p(x, z with z_i = 0)

    First a single code for each document, the encoder's most probable one, climbs bit by bit to a code that no flip
    makes more probable; then the logits are those of the formula, one bit after the other. A sweep costs one
    evaluation for each bit and draw. Whatever comes out is a posterior to draw from; how good it is its ELBO tells.

    Args:
        score: log p(x, z), see :meth:`efvae.text.likelihood.TextJoint.score`.
        eta: the encoder's logits, shape ``(documents, m)``, float64.
        samples: draws for each document.
        sweeps: of each of the two stages.
        generator: source of randomness.

    Own: own-text-annealed
    """
    z = (eta > 0).to(eta)[None]
    value = score(z)
    for _ in range(sweeps):
        eta, z, value = _sweep(score, eta, z, value, lambda logit: (logit > 0).to(logit)[None])
    z = Bernoulli(eta).sample((samples,), generator)
    value = score(z)
    for _ in range(sweeps):
        eta, z, value = _sweep(
            score, eta, z, value, lambda logit: Bernoulli(logit[:, None]).sample((samples,), generator)[..., 0]
        )
    return eta


def broadened(fitted: Tensor, eta: Tensor) -> Tensor:
    """A posterior to draw weights from: it should miss no code of weight, at the price of some draws.

    ::

        q_i = 0.8 sigmoid(0.8 η_i) + 0.2 · the encoder's

    Args:
        fitted: logits of a fitted posterior, η.
        eta: the encoder's logits, same shape.

    Returns:
        Logits.

    Own: own-text-annealed
    """
    return torch.logit(0.8 * torch.sigmoid(0.8 * fitted) + 0.2 * torch.sigmoid(eta), eps=1e-9)


def _sweep(
    score: Score, eta: Tensor, z: Tensor, value: Tensor, choose: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Each bit in turn: its logit from the flips of all draws, then the bit of all draws anew."""
    eta, z = eta.clone(), z.clone()
    for i in range(eta.shape[1]):
        flipped = z.clone()
        flipped[..., i] = 1 - z[..., i]
        there = score(flipped)
        eta[:, i] = ((there - value) * (1 - 2 * z[..., i])).mean(0)
        bit = choose(eta[:, i])
        value = torch.where(bit == z[..., i], value, there)
        z[..., i] = bit
    return eta, z, value
