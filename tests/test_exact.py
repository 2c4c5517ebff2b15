"""Oracles against each other, against closed forms and against brute force: sec-2, eq-1a, eq-1b."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from efvae import exact
from efvae.estimators import Exact
from efvae.families import Bernoulli, Gaussian, GaussianFixedVariance, all_bits
from efvae.models import VAE, Conditional, Prior
from efvae.objectives import elbo
from tests.models import MAKERS, binary_vae, bits, gaussian_vae, latent_rule

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("make", "n"), MAKERS, ids=lambda value: getattr(value, "__name__", ""))
def test_both_forms_of_the_elbo_agree(make, n, seed) -> None:
    """eq-1a by the objective (closed-form KL, sum or Gauss–Hermite over q), eq-1b by the posterior gap."""
    vae = make(seed)
    x = bits(n, 6, seed) + 0.1 * (n == 3)
    first = elbo(vae, x, Exact(nodes=48))
    second = exact.elbo(vae, x, latent_rule(vae))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    assert bool((exact.posterior_kl(vae, x, latent_rule(vae)) > 1e-4).all())


def test_marginal_is_a_distribution() -> None:
    vae = binary_vae(1)
    total = exact.log_marginal(vae, all_bits(4), exact.enumerate_states(vae.prior())).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0).double(), rtol=0, atol=1e-12)


def test_posterior_is_bayes_rule_by_hand() -> None:
    vae = binary_vae(2, n=3, m=2)
    x = bits(3, 4)
    log_posterior = exact.log_posterior(vae, x, exact.enumerate_states(vae.prior()))
    prior_logits, decoder = vae.prior.eta, vae.decoder.network.requires_grad_(requires_grad=False)
    for row, value in enumerate(x):
        joint = []
        for code in itertools.product([0.0, 1.0], repeat=2):
            z = torch.tensor(code).double()
            p_z = torch.sigmoid(prior_logits * (2 * z - 1)).prod()
            p_x = torch.sigmoid(decoder(z) * (2 * value - 1)).prod()
            joint.append(float(p_z * p_x))
        expected = torch.tensor(joint).double() / sum(joint)
        torch.testing.assert_close(log_posterior[:, row].exp(), expected, rtol=1e-6, atol=1e-6)


def linear_gaussian() -> tuple[VAE, Tensor, Tensor]:
    """x = W z + u + noise, z ~ N(0, I): the marginal is N(u, W Wᵀ + σ² I)."""
    weight = torch.tensor([[1.2, -0.4], [0.3, 0.9], [-0.7, 0.5]], dtype=torch.float64)
    bias = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)
    linear = nn.Linear(2, 3).double()
    linear.weight.data, linear.bias.data = weight, bias
    prior = Gaussian.from_mean_variance(torch.zeros(2).double(), torch.ones(2).double())
    vae = VAE(
        Prior(prior.eta, Gaussian),
        Conditional(linear, lambda mean: GaussianFixedVariance.from_mean(mean, 0.5)),
        Conditional(nn.Linear(3, 4).double(), Gaussian.from_mean_log_variance),
    )
    return vae, bias, weight @ weight.T + 0.5 * torch.eye(3).double()


@pytest.mark.parametrize(
    "rule",
    [
        exact.grid([-9, -9], [9, 9], 181),
        exact.gauss_hermite(48, torch.zeros(2).double(), torch.ones(2).double()),
        exact.gauss_hermite(64, torch.tensor([0.2, -0.3]).double(), torch.tensor([0.8, 0.9]).double()),
    ],
    ids=["grid", "gauss-hermite", "gauss-hermite-shifted"],
)
def test_quadrature_marginal_of_the_linear_gaussian_model(rule) -> None:
    vae, mean, covariance = linear_gaussian()
    x = torch.tensor([[0.1, 0.2, -0.4], [1.3, -0.8, 0.9]], dtype=torch.float64)
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    torch.testing.assert_close(exact.log_marginal(vae, x, rule), expected, rtol=1e-8, atol=1e-8)


def test_rules_integrate() -> None:
    rule = exact.gauss_hermite(20, torch.tensor([1.5]).double(), torch.tensor([0.7]).double())
    density = Gaussian.from_mean_variance(torch.tensor([1.5]).double(), torch.tensor([0.49]).double())
    weights = (density.log_prob(rule.points) + rule.log_weights).exp()
    torch.testing.assert_close((weights * rule.points[:, 0] ** 4).sum().item(), 1.5**4 + 6 * 2.25 * 0.49 + 3 * 0.49**2)
    box = exact.grid([0.0, -1.0], [2.0, 3.0], 5)
    assert math.isclose(box.log_weights.exp().sum().item(), 8.0, rel_tol=1e-12)
    assert math.isclose((box.log_weights.exp() * box.points[:, 1]).sum().item(), 8.0, rel_tol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_field_is_the_global_factorized_optimum(seed) -> None:
    """Against a general-purpose optimiser started at many points, on tables with strong couplings."""
    generator = torch.Generator().manual_seed(seed)
    table = 3 * torch.randn(8, 3, generator=generator, dtype=torch.float64)
    q = exact.mean_field(table, 3)
    states = all_bits(3)

    def bound(eta: Tensor, column: int) -> Tensor:
        family = Bernoulli(eta)
        return (family.log_prob(states).exp() * table[:, column]).sum() + family.entropy()

    for column in range(3):
        reached = bound(q.eta[column], column).item()
        best = -math.inf
        for _ in range(30):
            start = 2 * torch.randn(3, generator=generator, dtype=torch.float64)
            found = minimize(lambda e, c=column: -bound(torch.tensor(e), c).item(), start.numpy(), method="BFGS")
            best = max(best, -found.fun)
        assert reached >= best - 1e-9
        assert reached <= torch.logsumexp(table[:, column], 0).item()


def test_mean_field_finds_the_posterior_that_factorizes() -> None:
    q = Bernoulli(torch.tensor([[0.3, -2.0], [4.0, 0.7]], dtype=torch.float64))
    table = q.log_prob(all_bits(2)[:, None]) + torch.tensor([5.0, -7.0]).double()  # any constant
    torch.testing.assert_close(exact.mean_field(table, 2).eta, q.eta, rtol=1e-8, atol=1e-8)


def test_mean_field_escapes_the_symmetric_saddle() -> None:
    """Two far codes: the marginals (½, ½) are a fixed point and not the optimum."""
    table = torch.tensor([[5.0], [-5.0], [-5.0], [5.0]], dtype=torch.float64)
    q = exact.mean_field(table, 2)
    assert q.mean().sub(0.5).abs().min() > 0.4


def with_single_prior(vae: VAE) -> VAE:
    """A fixed prior is a buffer, no parameter."""
    return VAE(Prior(vae.prior.eta.detach().float(), Bernoulli), vae.decoder, vae.encoder)


def wide_encoder(vae: VAE) -> VAE:
    return VAE(vae.prior, vae.decoder, Conditional(nn.Linear(4, 4).double(), Bernoulli))


@pytest.mark.parametrize("call", [exact.posterior_kl, exact.elbo], ids=["posterior_kl", "elbo"])
@pytest.mark.parametrize(
    "rule",
    [
        exact.grid([-0.2, -0.2], [0.2, 0.2], 101),  # too narrow
        exact.grid([-11.0, -11.0], [11.0, 11.0], 9),  # too coarse
        exact.gauss_hermite(3, torch.zeros(2).double(), torch.full((2,), 0.01).double()),
    ],
    ids=["narrow", "coarse", "hermite"],
)
def test_a_rule_that_misses_the_encoders_law_is_refused(call, rule) -> None:
    with pytest.raises(
        ValueError, match=r"sums the encoder's law q\(z \| x\) to .*, not 1, at observation \d+: take more points"
    ):
        call(gaussian_vae(0), bits(3, 4), rule)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: exact.log_marginal(vae, bits(4, 2).float(), latent_rule(vae)), "float64"),
        (
            lambda vae: exact.log_marginal(copy.deepcopy(vae).float(), bits(4, 2), latent_rule(vae)),
            "the model's decoder.*float32",
        ),
        (
            lambda vae: exact.log_marginal(with_single_prior(vae), bits(4, 2), latent_rule(vae)),
            "prior.eta is .*float32",
        ),
        (lambda _: exact.gauss_hermite(5, torch.zeros(2).double(), -torch.ones(2).double()), "std must be positive"),
        (lambda _: exact.gauss_hermite(40, torch.zeros(6).double(), torch.ones(6).double()), "enumeration stops"),
        (lambda vae: exact.posterior_kl(wide_encoder(vae), bits(4, 2), latent_rule(vae)), r"shape \(4,\), the prior's"),
        (lambda vae: exact.Rule(torch.zeros(3, 1), torch.zeros(3).double()), "float64"),
        (lambda vae: exact.Rule(torch.zeros(3, 1).double(), torch.zeros(2).double()), "one weight for each point"),
        (lambda vae: exact.mean_field(torch.zeros(6, 2).double(), 2), "need 4 rows"),
        (lambda vae: exact.grid([0.0] * 8, [1.0] * 8, 100), "enumeration stops"),
        (lambda vae: exact.grid([0.0], [1.0], 1), "points must be a whole number of at least 2, got 1"),
        (lambda vae: exact.enumerate_states(Gaussian(-torch.ones(2).double())), "no finite support"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(binary_vae(0))
