"""Training objectives, per example, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from efvae.estimators import Estimator
from efvae.models import VAE, require_settled
from efvae.values import check_whole

__all__ = ["elbo", "iwae_bound"]


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

    Raises:
        TypeError: no estimator, or the class of one.
        ValueError: encoder and prior are over codes of different shapes; or x is no value of the decoder's bits, see
            :meth:`efvae.models.VAE.log_likelihood`.

    Paper: eq-1a, sec-2
    """
    if isinstance(estimator, type) or not hasattr(estimator, "expectation"):
        name = estimator.__name__ if isinstance(estimator, type) else repr(estimator)
        raise TypeError(f"elbo: needs an estimator, such as DisARM(), got {name}")
    q = vae.encode(x)
    prior = vae.prior()
    if q.same_base_measure(prior):
        reconstruction = estimator.expectation(q, lambda z: vae.log_likelihood(x, z), generator)
        return reconstruction - q.kl(prior)
    return estimator.expectation(q, lambda z: vae.log_joint(x, z), generator) + q.entropy()


@torch.no_grad()
def iwae_bound(vae: VAE, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
    """One draw of the importance-weighted bound of each example, for codes too many to be listed; no gradient.

    ::

        log (1/S) Σ_s p(x, z_s) / q(z_s | x),    z_s ~ q(z | x)

    Its expectation is the ELBO for S = 1, never falls as S grows, and tends to log p(x) if q is positive wherever
    the posterior is (Burda, Grosse and Salakhutdinov, 2016). Where q covers one of several modes of the posterior, that
    may take any number of draws.

    Args:
        vae: the model.
        x: observations, shape ``(*batch, *event)``.
        samples: S ≥ 1, all held in memory at a time.
        generator: source of randomness.

    Returns:
        The bound in nats, shape ``batch``.

    Raises:
        ValueError: ``samples`` < 1, or dropout or batch normalisation in training mode.

    Own: own-your-vae-beyond
    """
    check_whole("iwae_bound", "samples", samples, 1)
    require_settled(vae)
    q = vae.encode(x)
    z = q.sample((samples,), generator)
    return torch.logsumexp(vae.log_joint(x, z) - q.log_prob(z), 0) - math.log(samples)
