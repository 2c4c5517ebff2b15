"""The importance-weighted bound against enumeration, a tight model and quadrature: own-your-vae-beyond."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from efvae import exact
from efvae.families import Bernoulli
from efvae.harmonium import Harmonium
from efvae.objectives import iwae_bound
from tests.models import MAKERS, binary_vae, bits, gaussian_vae, latent_rule

DRAWS = 4000


def draws(vae, x, samples: int, seed: int = 0) -> torch.Tensor:
    """Independent values of the bound, shape (DRAWS, batch)."""
    rows = x.repeat(DRAWS, 1)
    return iwae_bound(vae, rows, samples, torch.Generator().manual_seed(seed)).reshape(DRAWS, len(x))


def z_score(values: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (values.mean(0) - expected) / (values.std(0) / math.sqrt(len(values)))


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_its_mean_is_the_sum_over_all_draws(samples) -> None:
    vae, x = binary_vae(0, m=2), bits(4, 3)
    rule = exact.enumerate_states(vae.prior())
    with torch.no_grad():
        log_q = vae.encoder(x).log_prob(rule.points[:, None])
        log_w = exact.log_joint(vae, x, rule) - log_q
        expected = torch.zeros(len(x), dtype=torch.float64)
        for chosen in itertools.product(range(len(rule.points)), repeat=samples):
            some = list(chosen)
            expected += log_q[some].sum(0).exp() * (torch.logsumexp(log_w[some], 0) - math.log(samples))
    assert z_score(draws(vae, x, samples), expected).abs().max() < 4
    # the sum knows the ends: the ELBO for one draw, between it and the likelihood for more
    elbo, likelihood = exact.elbo(vae, x, rule), exact.log_marginal(vae, x, rule)
    if samples == 1:
        torch.testing.assert_close(expected, elbo.detach(), rtol=0, atol=1e-12)
    else:
        assert bool(((elbo < expected) & (expected < likelihood)).all())


@pytest.mark.parametrize(("make", "n"), MAKERS, ids=lambda value: getattr(value, "__name__", ""))
def test_its_weights_have_the_likelihood_as_mean(make, n) -> None:
    vae = make(1)
    x = bits(n, 3) + 0.1 * (make is gaussian_vae)
    weights = draws(vae, x, 5).exp()
    with torch.no_grad():
        assert z_score(weights, exact.log_marginal(vae, x, latent_rule(vae)).exp()).abs().max() < 4


def test_one_draw_is_enough_for_a_tight_model() -> None:
    torch.manual_seed(0)
    model = Harmonium(Bernoulli, Bernoulli, torch.randn(4, 3), torch.randn(4), torch.randn(3)).double()
    vae, x = model.as_vae(), bits(4, 6)
    torch.testing.assert_close(iwae_bound(vae, x, 1), model.log_marginal(x).detach(), rtol=0, atol=1e-12)


def test_what_it_returns_and_refuses() -> None:
    vae, x = binary_vae(0), bits(4, 6).reshape(2, 3, 4)
    first, second = (iwae_bound(vae, x, 4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (2, 3)
    assert torch.equal(first, second)
    assert not first.requires_grad
    with pytest.raises(ValueError, match="samples must be a whole number of at least 1, got 0"):
        iwae_bound(vae, x, 0)
