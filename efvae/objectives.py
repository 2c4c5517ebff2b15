"""Training objectives, per example, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from efvae.estimators import Estimator
from efvae.models import VAE

__all__ = ["elbo"]


def elbo(vae: VAE, x: Tensor, estimator: Estimator, generator: torch.Generator | None = None) -> Tensor:
    """Evidence lower bound of each example, in the form that stochastic optimisation uses.

    ::

        E_{q(z|x)} log p(x | z) − KL(q(z | x) ‖ p(z))

    The KL is in closed form where encoder and prior are of one family. Elsewhere the same number is taken as
    E_q log p(x, z) + H(q), with the entropy in closed form. The other form of the bound, log p(x) minus the
    posterior gap, needs the exact posterior: see :func:`efvae.exact.elbo`.

    Args:
        vae: the model.
        x: observations, shape ``(*batch, *event)``.
        estimator: how the expectation over q and its gradient are computed.
        generator: source of randomness for the estimator.

    Returns:
        ELBO in nats, shape ``batch``.

    Paper: eq-1a, sec-2
    """
    q = vae.encoder(x)
    prior = vae.prior()
    if q.same_base_measure(prior):
        reconstruction = estimator.expectation(q, lambda z: vae.decoder(z).log_prob(x), generator)
        return reconstruction - q.kl(prior)
    return estimator.expectation(q, lambda z: vae.log_joint(x, z), generator) + q.entropy()
