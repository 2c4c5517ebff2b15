"""Section 2: the two forms of the ELBO, the approximation error, the consistent set, the computed Fig. 1.

Labels: sec-2, eq-1a, eq-1b, eq-2, eq-3, fig-1, own-two-forms, own-zero-error, own-spin-curve, own-envelope,
own-balance, own-fixed-prior, own-in-between.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from efvae import exact, objectives
from efvae.consistency import PixelPair, family_residual, is_consistent, posterior_gap
from efvae.descent import maximize
from efvae.estimators import Exact
from efvae.families import Bernoulli, Categorical, Gaussian, Multinomial, all_bits
from efvae.harmonium import Harmonium
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import mlp

ROOT = Path(__file__).resolve().parents[1]
PAIR = PixelPair(torch.tensor([[2.0, 1.5], [2.0, 1.5]], dtype=torch.float64), copies=3)
TRUTH = torch.tensor([2.0, 1.5], dtype=torch.float64)
ENCODER = nn.Linear(5, 2).double()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- eq-1a, eq-1b --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("family", [Bernoulli, Categorical])
def test_two_forms_agree_on_finite_latents(family: type[Bernoulli] | type[Categorical], seed: int) -> None:
    torch.manual_seed(seed)
    vae = VAE(
        Prior(torch.randn(3), family), Conditional(mlp((3, 5, 4)), Bernoulli), Conditional(mlp((4, 5, 3)), family)
    ).double()
    x = all_bits(4)
    rule = exact.enumerate_states(family(torch.zeros(3, dtype=torch.float64)))
    torch.testing.assert_close(objectives.elbo(vae, x, Exact()), exact.elbo(vae, x, rule), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_two_forms_agree_on_a_gaussian_latent(seed: int) -> None:
    torch.manual_seed(seed)
    prior = Prior(Gaussian.from_mean_log_variance(torch.tensor([0.3, -0.2])).eta, Gaussian)
    encoder = Conditional(mlp((4, 5, 2), nn.Tanh), Gaussian.from_mean_log_variance)
    vae = VAE(prior, Conditional(mlp((1, 6, 4), nn.Tanh), Bernoulli), encoder).double()
    x = all_bits(4)
    rule = exact.grid([-14.0], [14.0], 4001)
    form_a, form_b = objectives.elbo(vae, x, Exact(nodes=128)), exact.elbo(vae, x, rule)
    torch.testing.assert_close(form_a, form_b, rtol=0, atol=1e-8)
    assert (form_b < exact.log_marginal(vae, x, rule)).all()


# --- eq-3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visible", [Bernoulli, lambda eta: Multinomial(eta, 3)])
@pytest.mark.parametrize("latent", [Bernoulli, Categorical, lambda eta: Multinomial(eta, 2)])
def test_every_harmonium_is_consistent_and_a_perturbed_one_is_not(visible, latent) -> None:
    model = Harmonium(visible, latent, normal(4, 3, seed=1), normal(4, seed=2), normal(3, seed=3))
    rule = exact.enumerate_states(latent(model.latent_bias.detach()))
    x = visible(model.visible_bias.detach()).support()
    vae = model.as_vae()
    with torch.no_grad():
        assert is_consistent(vae, x, rule)
        if latent is Categorical:
            return  # all states: the encoder's family holds every posterior, so nothing can be rejected
        vae.decoder.network = PlusProduct(vae.decoder.network, 1e-6)
        assert not is_consistent(vae, x, rule)
        assert family_residual(vae, x, rule).max() > 1e-7


class PlusProduct(nn.Module):
    """A network with a small product of the first two bits added."""

    def __init__(self, network: nn.Module, size: float) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.network(z)
        first = torch.zeros_like(out)
        first[..., 0] = z[..., 0] * z[..., 1]
        return out + self.size * first


def test_a_harmoniums_decoder_with_another_prior_is_not_consistent() -> None:
    model = Harmonium(Bernoulli, Bernoulli, normal(4, 2, seed=1), normal(4, seed=2), normal(2, seed=3))
    vae = model.as_vae()
    rule = exact.enumerate_states(Bernoulli(model.latent_bias.detach()))
    uniform = VAE(Prior(torch.zeros(2, dtype=torch.float64), Bernoulli), vae.decoder, vae.encoder)
    with torch.no_grad():
        assert is_consistent(vae, all_bits(4), rule)
        assert not is_consistent(uniform, all_bits(4), rule)


def test_consistent_means_for_every_observation() -> None:
    """Posteriors in the family for images with first pixel 0, outside of it for the others."""
    latent = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    network = PlusProduct(nn.Linear(2, 3).double(), 0.7)
    with torch.no_grad():
        prior = Prior(Bernoulli(network(latent.points)).log_partition(), CategoricalOver(latent.points))
        vae = VAE(prior, Conditional(network, Bernoulli), Conditional(nn.Linear(3, 2).double(), Bernoulli))
        residual = family_residual(vae, all_bits(3), latent)
        assert residual[:4].max() < 1e-12
        assert (residual[4:] - 0.7 / 4).abs().max() < 1e-12
        assert is_consistent(vae, all_bits(3)[:4], latent)
        assert not is_consistent(vae, all_bits(3), latent)


def test_a_posterior_with_an_impossible_state_has_infinite_residual() -> None:
    vae = PAIR.vae(TRUTH, ENCODER)
    vae.prior.eta[0] = -torch.inf
    rule = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    vae.prior.family = lambda _: Categorical(
        torch.tensor([0.0, 0.0, -torch.inf, -torch.inf], dtype=torch.float64), rule.points
    )
    with torch.no_grad():
        assert family_residual(vae, all_bits(5), rule).isinf().all()


# --- the two-parameter family: own-spin-curve ----------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_table_and_interaction_are_those_of_the_vae(copies: int) -> None:
    pair = PixelPair(torch.tensor([[0.7, -1.1], [0.4, 2.0]], dtype=torch.float64), copies)
    encoder = nn.Linear(2 + copies, 2).double()
    rule = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    x = all_bits(2 + copies)
    for theta in 2 * normal(5, 2, seed=copies):
        with torch.no_grad():
            vae = pair.vae(theta, encoder)
            torch.testing.assert_close(pair.log_joint(theta), exact.log_joint(vae, x, rule), rtol=0, atol=1e-13)
            residual = family_residual(vae, x, rule)
        torch.testing.assert_close(residual, pair.interaction(theta).abs().expand_as(residual), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_each_theta_is_consistent_under_its_own_prior_only(seed: int) -> None:
    """own-fixed-prior: the prior exp(−J(θ) s1 s2) cancels the interaction of θ, not that of another θ."""
    theta, other = 3 * normal(2, 2, seed=seed)
    rule = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    product = (2 * rule.points - 1).prod(1)
    with torch.no_grad():
        fixed = PAIR.vae(theta, ENCODER)
        for j, consistent in ((PAIR.interaction(theta), True), (PAIR.interaction(other), False)):
            vae = VAE(Prior(-j * product, CategoricalOver(rule.points)), fixed.decoder, fixed.encoder)
            assert is_consistent(vae, all_bits(5), rule) == consistent


def test_gap_vanishes_on_the_curve_and_nowhere_else() -> None:
    data = PAIR.data(TRUTH)
    place = torch.linspace(-5, 5, 31, dtype=torch.float64)
    for sign in (1.0, -1.0):
        curve = PAIR.consistent_curve(place, sign)
        assert PAIR.interaction(curve).abs().max() < 1e-12
        assert (curve[:, 0] * sign > 0).all()
        assert PAIR.gap(curve, data).max() < 1e-12
        assert PAIR.gap(curve + 0.05, data).min() > 1e-7


def test_no_curve_without_interaction() -> None:
    axes_only = PixelPair(torch.tensor([[2.0, 0.0]], dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="the two axes"):
        axes_only.consistent_curve(torch.tensor(0.0), 1.0)


# --- the gap: own-envelope -----------------------------------------------------------------------------------------


def kl_of(means: Tensor, table: Tensor) -> Tensor:
    """KL of factorized q with the given means, shape (g, m), from each column's posterior: shape (g, batch)."""
    log_q = Bernoulli(torch.logit(means)).log_prob(all_bits(means.shape[-1])[:, None])  # (states, g)
    log_post = table - torch.logsumexp(table, 0)
    return (log_q.exp() * log_q).sum(0)[:, None] - log_q.exp().T @ log_post


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_gap_is_the_minimum_found_by_brute_force(scale: float) -> None:
    table = scale * normal(4, 50, seed=4)
    axis = torch.linspace(-14, 14, 1401, dtype=torch.float64).sigmoid()
    brute = kl_of(torch.cartesian_prod(axis, axis), table).amin(0)
    gap = posterior_gap(table, 2)
    assert (gap <= brute + 1e-12).all()
    assert (brute - gap).max() < 1e-4


@pytest.mark.parametrize("n_bits", [1, 2, 3])
def test_best_encoder_is_exact_to_ten_digits(n_bits: int) -> None:
    """Seen through the gradient, which is posterior minus best q: more sensitive than the gap itself."""
    table = normal(2**n_bits, 200, seed=n_bits).requires_grad_()
    (gradient,) = torch.autograd.grad(posterior_gap(table, n_bits).sum(), table)
    best = exact.mean_field(table.detach(), n_bits, tolerance=1e-14, max_sweeps=200_000)
    q = best.log_prob(all_bits(n_bits)[:, None]).exp()
    torch.testing.assert_close(table.detach().softmax(0) - gradient, q, rtol=0, atol=1e-10)


@pytest.mark.parametrize("coupling", [0.99, 1.0, 1.0 + 1e-7, 1.001])
def test_gap_where_two_optima_merge(coupling: float) -> None:
    """At coupling 1 between two spins coordinate ascent converges slower than any geometric rate."""
    spins = 2 * all_bits(2) - 1
    table = (coupling * spins.prod(1) + 1e-9 * spins[:, 0])[:, None]
    at_symmetric = kl_of(torch.full((1, 2), 0.5, dtype=torch.float64), table)
    assert abs(float(posterior_gap(table, 2) - at_symmetric)) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_gap_needs_no_gradient_of_the_encoder(seed: int) -> None:
    data = PAIR.data(TRUTH)
    theta = (2 * normal(2, seed=seed)).requires_grad_()
    step = 1e-5 * torch.eye(2, dtype=torch.float64)
    for function in (PAIR.log_likelihood, PAIR.gap):
        (gradient,) = torch.autograd.grad(function(theta, data), theta)
        with torch.no_grad():
            numeric = (function(theta + step, data) - function(theta - step, data)) / 2e-5
        torch.testing.assert_close(gradient, numeric, rtol=0, atol=1e-7)


# --- eq-2, fig-1: own-zero-error, own-balance ----------------------------------------------------------------------


def test_at_the_elbo_optimum_the_gradients_balance_and_likelihood_is_lost() -> None:
    data = PAIR.data(TRUTH)

    def l_vae(theta: Tensor) -> Tensor:
        return PAIR.log_likelihood(theta, data) - PAIR.gap(theta, data)

    theta = maximize(l_vae, TRUTH).requires_grad_()
    (pull,) = torch.autograd.grad(PAIR.log_likelihood(theta, data), theta)
    (push,) = torch.autograd.grad(PAIR.gap(theta, data), theta)
    assert (pull - push).norm() < 1e-8
    assert pull.norm() > 0.05
    with torch.no_grad():
        lost = PAIR.log_likelihood(TRUTH, data) - PAIR.log_likelihood(theta, data)
        assert abs(float(lost) - 0.0545) < 1e-4
        assert abs(float(PAIR.gap(theta, data)) - 0.0447) < 1e-4
        ring = theta + 1e-3 * torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
        assert (l_vae(ring) < l_vae(theta)).all()


def test_a_heavier_gap_leads_from_the_likelihood_to_the_consistent_set() -> None:
    """own-in-between, by local search from three starts; and a small gap far from the set (|J| is large)."""
    data = PAIR.data(TRUTH)
    starts = [PAIR.consistent_curve(torch.tensor(0.0, dtype=torch.float64), sign) for sign in (1.0, -1.0)]

    def best(beta: float) -> Tensor:
        def value(theta: Tensor) -> Tensor:
            return PAIR.log_likelihood(theta, data) - beta * PAIR.gap(theta, data)

        return max((maximize(value, start) for start in (TRUTH, *starts)), key=value)

    path = torch.stack([best(beta) for beta in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)])
    likelihood, gap = PAIR.log_likelihood(path, data), PAIR.gap(path, data)
    assert (likelihood.diff() < 0).all()
    assert (gap.diff() < 0).all()
    assert (path[0] - TRUTH).norm() < 0.05
    assert PAIR.interaction(path[-1]).abs() < 0.01
    far = torch.tensor([30.0, 9.0], dtype=torch.float64)
    assert PAIR.gap(far, data) < 1e-9
    assert PAIR.interaction(far).abs() > 14


def test_elbo_of_the_vae_is_at_most_the_family_bound() -> None:
    """Any encoder network leaves at least the gap of the free one."""
    data, x = PAIR.data(TRUTH), all_bits(5)
    for seed in range(5):
        torch.manual_seed(seed)
        theta = 2 * normal(2, seed=seed)
        with torch.no_grad():
            bound = data @ objectives.elbo(PAIR.vae(theta, mlp((5, 4, 2)).double()), x, Exact())
            assert bound <= PAIR.log_likelihood(theta, data) - PAIR.gap(theta, data) + 1e-12
            assert PAIR.log_likelihood(theta, data) <= PAIR.log_likelihood(TRUTH, data) + 1e-12


def test_optimal_and_tight_is_not_enough() -> None:
    """Two decoders: the tight one has the larger ELBO and the smaller likelihood."""
    truth = torch.tensor([-1.0, -1.0], dtype=torch.float64)
    data = PAIR.data(truth)
    tight = PAIR.consistent_curve(torch.tensor(-0.5, dtype=torch.float64), -1.0)
    elbo = [float(PAIR.log_likelihood(t, data) - PAIR.gap(t, data)) for t in (truth, tight)]
    assert PAIR.gap(tight, data) < 1e-12
    assert elbo[1] > elbo[0]
    assert PAIR.log_likelihood(truth, data) > elbo[1] + 0.1


def test_labels_stand_where_the_paper_map_looks() -> None:
    page = (ROOT / "book" / "sec2_problem.md").read_text("utf-8")
    notebook = (ROOT / "notebooks" / "sec2_problem.py").read_text("utf-8")
    assert "(sec-2)=" in page
    for label in ("eq-1a", "eq-1b", "eq-2", "eq-3"):
        assert f":label: {label}\n" in page
        assert label in notebook
    assert '"name": "fig-1"' in notebook
    assert "{numref}`fig-1`" in page
