"""Encoders that see the frequencies of words and not the length of the document."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.consistency import posterior_gap

__all__ = ["FrequencyGap", "frequency_classes", "frequency_gap"]


def frequency_classes(x: Tensor) -> Tensor:
    """Which documents have equal frequencies x / l: class numbers from 0, shape ``(batch,)``.

    Args:
        x: word counts, not all zero, shape ``(batch, K)``.

    Own: own-frequency-collapse
    """
    reduced = [[int(n) // math.gcd(*map(int, row)) for n in row] for row in x.tolist()]
    label: Tensor = torch.unique(torch.tensor(reduced), dim=0, return_inverse=True)[1]
    return label


@dataclass(frozen=True)
class FrequencyGap:
    """The least gap of an encoder that sees frequencies only, in two parts, for each class of equal frequencies.

    Args:
        weight: probability of the class, shape ``(c,)``.
        blind: what no encoder of x / l avoids, of whatever family, in nats, shape ``(c,)``.
        family: what factorized codes cost in addition, in nats, shape ``(c,)``.

    Own: own-average-length
    """

    weight: Tensor
    blind: Tensor
    family: Tensor

    @property
    def total(self) -> Tensor:
        """The mean over the classes in nats, a scalar. No factorized encoder of frequencies has a smaller gap."""
        return (self.weight * (self.blind + self.family)).sum()


def frequency_gap(log_joint: Tensor, weights: Tensor, x: Tensor) -> FrequencyGap:
    """The gap of the best encoder with one free q for each frequency vector, so of any network on frequencies.

    ::

        Σ_x w(x) KL(q ‖ p(z | x)) = KL(q ‖ p') − log Z',    p'(z) = exp(Σ_x w(x) log p(z | x)) / Z',   Σ_x w(x) = 1

    Classes without mass are left out.

    Args:
        log_joint: log p(x, z) up to a constant for each x, shape ``(2**m, batch)``.
        weights: data distribution on the documents, shape ``(batch,)``.
        x: word counts, shape ``(batch, K)``.

    Own: own-frequency-collapse, own-average-length
    """
    log_post = log_joint - torch.logsumexp(log_joint, 0)
    member = torch.nn.functional.one_hot(frequency_classes(x)).to(weights)
    mass = weights @ member
    member, mass = member[:, mass > 0], mass[mass > 0]
    pooled = (log_post * weights) @ member / mass
    family = posterior_gap(pooled, (len(pooled) - 1).bit_length())
    return FrequencyGap(mass, -torch.logsumexp(pooled, 0), family)
