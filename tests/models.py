"""Small VAEs with random networks, for the tests of oracles, objectives and estimators."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from efvae.exact import Rule, enumerate_states, grid
from efvae.families import Bernoulli, Gaussian, GaussianFixedVariance, all_bits
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import mlp


def binary_vae(seed: int, n: int = 4, m: int = 3) -> VAE:
    """Bernoulli decoder and encoder with hidden layers, a prior that is not uniform; float64."""
    torch.manual_seed(seed)
    return VAE(
        Prior(torch.randn(m), Bernoulli),
        Conditional(mlp((m, 8, n), torch.nn.Tanh), Bernoulli),
        Conditional(mlp((n, 8, m), torch.nn.Tanh), Bernoulli),
    ).double()


def saturated_vae(seed: int, n: int = 4, m: int = 2) -> VAE:
    """As `binary_vae` with an encoder that knows no restriction, so encoder and prior are of different families."""
    torch.manual_seed(seed)
    return VAE(
        Prior(torch.randn(m), Bernoulli),
        Conditional(mlp((m, 8, n), torch.nn.Tanh), Bernoulli),
        Conditional(mlp((n, 8, 2**m), torch.nn.Tanh), CategoricalOver(all_bits(m))),
    ).double()


def gaussian_vae(seed: int, n: int = 3, m: int = 2) -> VAE:
    """Gaussian decoder with fixed variance 0.7 and diagonal Gaussian encoder; float64."""
    torch.manual_seed(seed)
    prior = Gaussian.from_mean_variance(torch.tensor([0.3, -0.2])[:m], torch.tensor([1.3, 0.8])[:m])
    return VAE(
        Prior(prior.eta, Gaussian),
        Conditional(mlp((m, 8, n), torch.nn.Tanh), partial(GaussianFixedVariance.from_mean, variance=0.7)),
        Conditional(mlp((n, 8, 2 * m), torch.nn.Tanh), Gaussian.from_mean_log_variance),
    ).double()


def bits(n: int, batch: int, seed: int = 0) -> Tensor:
    """Random binary observations (batch, n), float64."""
    return torch.randint(0, 2, (batch, n), generator=torch.Generator().manual_seed(seed)).double()


def latent_rule(vae: VAE) -> Rule:
    """Enumeration where the latent space is finite, else a fine grid."""
    prior = vae.prior()
    if isinstance(prior, Gaussian):
        return grid([-11.0] * prior.event_shape[0], [11.0] * prior.event_shape[0], 301)
    return enumerate_states(prior)


MAKERS = [(binary_vae, 4), (saturated_vae, 4), (gaussian_vae, 3)]
