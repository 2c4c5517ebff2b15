"""Appendix B: forward KL at a consistent model, local optima of the ELBO in the encoder, the two parts of the gap.

Labels: app-b, own-forward-concave, own-ray, own-no-new-optima, own-gap-parts, own-both-parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from efvae import exact
from efvae.consistency import PixelPair
from efvae.descent import minimize
from efvae.encoder_fit import (
    best_free_encoder,
    forward_cross_entropy,
    gap_parts,
    posterior_table,
    reverse_gap,
    tied_elbo,
)
from efvae.encoder_gap import code_products, family_gap, train_encoder, with_encoder
from efvae.families import Bernoulli, BipartiteIsing, Categorical, Gaussian, Tabular, all_bits
from efvae.harmonium import Harmonium
from efvae.models import VAE, CategoricalOver, Conditional, MakeFamily, Prior
from efvae.networks import mlp

ISING: MakeFamily = partial(BipartiteIsing, sizes=(2, 1))
LATENTS = [(Bernoulli, 3), (ISING, 5), (Categorical, 4)]
each_latent = pytest.mark.parametrize(("latent", "m"), LATENTS, ids=["bits", "ising", "categorical"])
N = 4


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def harmonium(latent: MakeFamily, m: int, seed: int) -> Harmonium:
    return Harmonium(Bernoulli, latent, normal(N, m, seed=seed), normal(N, seed=seed + 50), normal(m, seed=seed + 99))


def problem(vae: VAE, model: Harmonium) -> tuple[Tensor, Tensor, exact.Rule, Tensor]:
    """All x, their probabilities under the VAE, all z, and the true posterior."""
    x, rule = all_bits(N), exact.enumerate_states(model.latent(model.latent_bias.detach()))
    with torch.no_grad():
        weights = exact.log_marginal(vae, x, rule).exp()
    return x, weights, rule, posterior_table(vae, x, rule)


def affine(latent: MakeFamily, m: int, seed: int, scale: float = 1.0) -> Conditional:
    encoder = Conditional(nn.Linear(N, m).double(), latent)
    with torch.no_grad():
        encoder.network.weight.copy_(scale * normal(m, N, seed=seed))
        encoder.network.bias.copy_(scale * normal(m, seed=seed + 7))
    return encoder


def fit_forward(encoder: Conditional, *rest) -> float:
    return minimize(lambda: forward_cross_entropy(encoder, *rest), encoder.parameters(), 1000)


def as_function(objective, encoder: Conditional, *rest) -> Callable[[Tensor], Tensor]:
    """The objective as a function of all encoder weights in one vector."""
    m, n = encoder.network.weight.shape

    def value(vector: Tensor) -> Tensor:
        network = {"weight": vector[: m * n].reshape(m, n), "bias": vector[m * n :]}

        def q(x: Tensor):
            return encoder.family(torch.func.functional_call(encoder.network, network, x))

        return objective(q, *rest)

    return value


def vector_of(encoder: Conditional) -> Tensor:
    return torch.cat([p.detach().flatten() for p in encoder.network.parameters()])


# --- own-forward-concave -------------------------------------------------------------------------------------------


@each_latent
@pytest.mark.parametrize("seed", range(3))
def test_forward_objective_is_convex_in_an_affine_encoder(latent: MakeFamily, m: int, seed: int) -> None:
    model = harmonium(latent, m, seed)
    x, weights, rule, log_post = problem(model.as_vae(), model)
    encoder = affine(latent, m, seed)
    forward = as_function(forward_cross_entropy, encoder, x, weights, log_post, rule)
    reverse = as_function(reverse_gap, encoder, x, weights, log_post, rule)
    bends = []
    for k in range(3):
        point = 2 * normal(len(vector_of(encoder)), seed=10 * seed + k)
        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(forward, point))
        assert values[0] > -1e-9 * values[-1]
        bends.append(torch.linalg.eigvalsh(torch.autograd.functional.hessian(reverse, point))[0] / values[-1])
    assert min(bends) < -1e-3  # the same check rejects the reverse divergence


@each_latent
@pytest.mark.parametrize("seed", range(3))
def test_forward_fit_finds_the_exact_posterior(latent: MakeFamily, m: int, seed: int) -> None:
    model = harmonium(latent, m, seed)
    x, weights, rule, log_post = problem(model.as_vae(), model)
    ends = []
    for start in (1, 2):
        encoder = affine(latent, m, 100 + start, scale=3.0)
        entropy = fit_forward(encoder, x, weights, log_post, rule)
        assert abs(entropy + float((weights * (log_post.exp() * log_post).sum(0)).sum())) < 1e-10
        with torch.no_grad():
            assert reverse_gap(encoder, x, weights, log_post, rule) < 1e-9
        ends.append(encoder.network.weight.detach())
    truth = model.weight.detach().T  # Wᵀ
    if latent is not Categorical:  # minimal statistics: the maximiser is unique
        for end in ends:
            torch.testing.assert_close(end, truth, rtol=0, atol=1e-3)
            assert (end + truth).abs().max() > 0.5  # broken: the sign
            if m == N:
                assert (end - truth.T).abs().max() > 0.5
    else:  # one logit too many: the maximiser is unique up to a common shift
        assert (ends[0] - ends[1]).abs().max() > 1e-2
        torch.testing.assert_close(ends[0] - ends[0].mean(0), truth - truth.mean(0), rtol=0, atol=1e-3)


# --- own-ray -------------------------------------------------------------------------------------------------------


def ray_sides(objective, encoder: Conditional, best: Tensor, x, weights, rule) -> tuple[float, float]:
    """Derivative of the objective away from ``best``, by autograd; and E (η − η*)ᵀ Cov(ψ) (η − η*) by enumeration."""
    point = vector_of(encoder)
    direction = point - best
    _, left = torch.autograd.functional.jvp(objective, point, direction)
    eta = encoder.network(x).detach()
    m, n = encoder.network.weight.shape
    away = eta - (x @ best[: m * n].reshape(m, n).T + best[m * n :])
    q = encoder.family(eta)
    p, psi = q.log_prob(rule.points[:, None]).exp(), q.sufficient_statistic(rule.points)
    along = away @ psi.T  # (batch, k)
    variance = (p.T * along**2).sum(1) - (p.T * along).sum(1) ** 2
    return float(left), float((weights * variance).sum())


@each_latent
@pytest.mark.parametrize("seed", range(4))
def test_the_gap_grows_along_every_ray_from_the_optimum(latent: MakeFamily, m: int, seed: int) -> None:
    model = harmonium(latent, m, seed)
    x, _, rule, log_post = problem(model.as_vae(), model)
    weights = torch.softmax(normal(len(x), seed=seed), 0)  # any data distribution, not the model's
    best = torch.cat([model.weight.detach().T.flatten(), model.latent_bias.detach()])
    encoder = affine(latent, m, seed + 30, scale=1.5)
    left, right = ray_sides(as_function(reverse_gap, encoder, x, weights, log_post, rule), encoder, best, x, weights,
                            rule)  # fmt: skip
    assert left == pytest.approx(right, rel=1e-9)
    assert left > 1e-4
    for factor in (-1.0, 0.5, 2.0):
        assert left != pytest.approx(factor * right, rel=1e-3)
    transposed = torch.cat([model.weight.detach().T.flip(0).flatten(), model.latent_bias.detach()])
    left, right = ray_sides(as_function(reverse_gap, encoder, x, weights, log_post, rule), encoder, transposed, x,
                            weights, rule)  # fmt: skip
    assert left != pytest.approx(right, rel=1e-3)


def test_without_consistency_the_identity_fails_and_local_optima_appear() -> None:
    """Two bits with a posterior that is nearly even between 01 and 10: mean field chooses one of them."""
    rule = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    spins = 2 * rule.points - 1
    ends = {}
    for coupling in (0.0, -2.0):
        log_post = torch.log_softmax(coupling * spins.prod(1) + 0.2 * spins[:, 0], 0)[:, None]
        for name, objective in (("reverse", reverse_gap), ("forward", forward_cross_entropy)):
            values = []
            for seed in range(12):
                row = Conditional(nn.Linear(1, 2, bias=False).double(), Bernoulli)
                with torch.no_grad():
                    row.network.weight.copy_(2 * normal(2, 1, seed=seed))
                one = torch.ones(1, 1, dtype=torch.float64)
                values.append(minimize(lambda: objective(row, one, one[:, 0], log_post, rule), row.parameters()))  # noqa: B023
            ends[name, coupling] = max(values) - min(values)
    assert ends["reverse", 0.0] < 1e-9  # consistent: one end, in either direction
    assert ends["forward", 0.0] < 1e-9
    assert ends["forward", -2.0] < 1e-9
    assert ends["reverse", -2.0] > 0.1


# --- own-no-new-optima ---------------------------------------------------------------------------------------------


SMALL = [(Bernoulli, 2), (partial(BipartiteIsing, sizes=(1, 1)), 3)]


@pytest.mark.parametrize(("latent", "m"), SMALL, ids=["bits", "ising"])
@pytest.mark.parametrize("seed", range(3))
def test_stationary_points_of_the_elbo_over_harmonia_are_tight(latent: MakeFamily, m: int, seed: int) -> None:
    x = all_bits(N)
    weights = torch.softmax(normal(len(x), seed=seed), 0)
    model, encoder = harmonium(latent, m, seed + 20), affine(latent, m, seed + 40)
    both = [*model.parameters(), *encoder.parameters()]
    minimize(lambda: -(weights * tied_elbo(model, encoder, x)).sum(), both, 3000)
    likelihood = (weights * model.log_marginal(x)).sum()
    gradient = torch.autograd.grad(likelihood, list(model.parameters()))
    assert max(float(g.abs().max()) for g in gradient) < 1e-4
    with torch.no_grad():
        assert float(likelihood - (weights * tied_elbo(model, encoder, x)).sum()) < 1e-6
    # broken: a harmonium's decoder under uniform bits is stationary in the encoder with a gap
    positive = 2 * normal(N, 2, seed=seed).abs()  # pixels of one sign: their interactions add up
    other = Harmonium(Bernoulli, Bernoulli, positive, normal(N, seed=seed), normal(2, seed=seed + 1))
    uniform = VAE(
        Prior(torch.zeros(2, dtype=torch.float64), Bernoulli),
        other.as_vae().decoder,
        affine(Bernoulli, 2, seed),
    )
    rule = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    minimize(lambda: -(weights * exact.elbo(uniform, x, rule)).sum(), uniform.encoder.parameters(), 500)
    with torch.no_grad():
        assert float((weights * exact.posterior_kl(uniform, x, rule)).sum()) > 1e-3


def test_tied_elbo_is_the_bound_of_the_harmonium_as_a_vae() -> None:
    model, encoder, x = harmonium(ISING, 5, 3), affine(ISING, 5, 4), all_bits(N)
    with torch.no_grad():
        vae = model.as_vae()
        rule = exact.enumerate_states(model.latent(model.latent_bias))
        other = exact.elbo(VAE(vae.prior, vae.decoder, encoder), x, rule)
        torch.testing.assert_close(tied_elbo(model, encoder, x), other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tied_elbo(model, vae.encoder, x), model.log_marginal(x), rtol=1e-12, atol=1e-12)


# --- own-gap-parts, own-both-parts ---------------------------------------------------------------------------------


def random_vae(seed: int, bits: int = 3, n: int = 5) -> VAE:
    torch.manual_seed(seed)
    decoder = mlp((bits, 12, n), nn.Tanh).double()
    with torch.no_grad():
        for p in decoder.parameters():
            p.mul_(5.0)
    vae = VAE(Prior(torch.zeros(bits, dtype=torch.float64), Bernoulli), Conditional(decoder, Bernoulli),
              Conditional(nn.Linear(n, bits).double(), Bernoulli))  # fmt: skip
    return vae.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("seed", range(2))
def test_three_searches_for_the_best_free_encoder_agree(seed: int) -> None:
    vae, x, codes = random_vae(seed), all_bits(5), all_bits(3)
    rule = exact.enumerate_states(Bernoulli(torch.zeros(3, dtype=torch.float64)))
    log_post = posterior_table(vae, x, rule)
    starts = 2 * normal(8, len(x), 3, seed=seed)
    gap, eta = best_free_encoder(Bernoulli, log_post, rule, starts)
    mean_field = exact.mean_field(log_post, 3)
    log_q = mean_field.log_prob(codes[:, None])
    torch.testing.assert_close(gap, (log_q.exp() * (log_q - log_post)).sum(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gap, family_gap(log_post, code_products(3, 1)), rtol=1e-4, atol=1e-6)
    q = Bernoulli(eta).log_prob(codes[:, None])
    torch.testing.assert_close((q.exp() * (q - log_post)).sum(0), gap, rtol=1e-9, atol=1e-12)
    starts = normal(8, len(x), 5, seed=seed)
    larger, _ = best_free_encoder(ISING, log_post, rule, starts)
    statistic = ISING(torch.zeros(5, dtype=torch.float64)).sufficient_statistic(codes)
    torch.testing.assert_close(larger, family_gap(log_post, statistic), rtol=1e-4, atol=1e-6)
    assert (larger < gap + 1e-9).all()
    assert float(gap.mean() - larger.mean()) > 1e-3


def test_free_gaussian_encoder_against_the_closed_form() -> None:
    """Posterior N(m, S) in two dimensions, diagonal encoder: the least gap is ½ (Σ_i log (S⁻¹)_ii + log det S)."""
    precision = torch.tensor([[2.0, 1.1], [1.1, 1.5]], dtype=torch.float64)
    centre = torch.tensor([[0.3, -0.2], [-0.5, 0.7]], dtype=torch.float64)
    rule = exact.grid([-9.0, -9.0], [9.0, 9.0], 121)
    away = rule.points[:, None] - centre
    log_density = -0.5 * torch.einsum("kbi,ij,kbj->kb", away, precision, away)
    log_post = log_density - torch.logsumexp(log_density + rule.log_weights[:, None], 0)
    make = Gaussian.from_mean_log_variance
    gap, raw = best_free_encoder(make, log_post, rule, 0.3 * normal(2, 2, 4, seed=0))
    truth = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    torch.testing.assert_close(gap, truth.expand(2), rtol=1e-7, atol=0)
    torch.testing.assert_close(make(raw).location, centre, rtol=0, atol=1e-4)
    assert abs(float(gap[0] + truth)) > 0.1


@pytest.mark.parametrize("seed", range(2))
def test_parts_of_the_gap_for_growing_statistics(seed: int) -> None:
    vae, x = random_vae(seed), all_bits(5)
    rule = exact.enumerate_states(Bernoulli(torch.zeros(3, dtype=torch.float64)))
    weights = exact.log_marginal(vae, x, rule).exp()
    log_joint = exact.log_joint(vae, x, rule)
    parts = []
    for order in (1, 2, 3):
        psi = code_products(3, order)
        free = family_gap(log_joint, psi)
        trained = with_encoder(vae, partial(Tabular, states=rule.points, statistic=psi), 5, psi.shape[1], 0, seed)
        train_encoder(trained, x, weights, rule, 600)
        parts.append(gap_parts(trained, x, weights, rule, free))
    assert parts[0].total == pytest.approx(parts[0].family + parts[0].amortization)
    for small, large in pairwise(parts):
        assert large.family < small.family
        assert large.total < small.total  # classes are nested, and so are those of affine networks
        assert large.amortization < small.amortization
    assert parts[0].amortization > 1e-3
    assert parts[2].total < 1e-7  # all statistics: an affine encoder is exact, whatever the decoder
    # and it is the posterior's own natural parameter: log p(x, z) − log p(x, z0) is affine in x
    saturated = VAE(vae.prior, vae.decoder, Conditional(nn.Linear(5, 8).double(), CategoricalOver(rule.points)))
    with torch.no_grad():
        f = vae.decoder.network(rule.points)
        saturated.encoder.network.weight.copy_(f)
        saturated.encoder.network.bias.copy_(vae.prior().log_prob(rule.points) - Bernoulli(f).log_partition())
        assert exact.posterior_kl(saturated, x, rule).abs().max() < 1e-12
        saturated.encoder.network.bias.copy_(vae.prior().log_prob(rule.points) + Bernoulli(f).log_partition())
        assert exact.posterior_kl(saturated, x, rule).max() > 1e-2


def test_forward_fit_at_an_inconsistent_model_loses_bound() -> None:
    pair = PixelPair(torch.tensor([[2.0, 1.5], [2.0, 1.5]], dtype=torch.float64), copies=3)
    theta = torch.tensor([2.0, 1.5], dtype=torch.float64)
    vae, data, x = pair.vae(theta, nn.Linear(5, 2).double()), pair.data(theta), all_bits(5)
    rule = exact.enumerate_states(Bernoulli(torch.zeros(2, dtype=torch.float64)))
    log_post = posterior_table(vae, x, rule)
    marginals = rule.points.T @ log_post.exp()  # the forward optimum for each x: the posterior's own marginals
    q = Bernoulli(torch.logit(marginals.T)).log_prob(rule.points[:, None])
    forward_gap = float((data * (q.exp() * (q - log_post)).sum(0)).sum())
    assert forward_gap > float(pair.gap(theta, data)) + 0.1
