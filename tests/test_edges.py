"""Legal inputs at the edge: laws that are nearly sure, single precision, rules that miss, nothing at all."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from efvae import bounds, consistency, exact, frequencies, hashing, log_bilinear, minimal, rbm
from efvae.affine_decoder import best_bound
from efvae.checkpoint import CheckpointError
from efvae.consistency import posterior_gap
from efvae.descent import maximize, minimize
from efvae.encoder_fit import best_free_encoder, forward_cross_entropy, gap_parts, posterior_table, reverse_gap
from efvae.encoder_gap import code_products, family_gap, train_encoder, with_encoder
from efvae.estimators import ARM, DisARM, Exact, Reinforce, Reparameterized, StraightThrough, gauss_hermite_nodes
from efvae.families import (
    Bernoulli,
    Categorical,
    ExponentialFamily,
    Gaussian,
    GaussianFixedVariance,
    Multinomial,
    Tabular,
    all_bits,
)
from efvae.gaussian.conditionals import gelman_meng, normal_conditionals
from efvae.gaussian.curves import gap_of_curve
from efvae.gaussian.joint import rotate_latent
from efvae.gibbs import annealed_log_partition
from efvae.harmonium import Harmonium
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import mlp
from efvae.objectives import elbo, iwae_bound
from efvae.train import TrainConfig, fit
from tests.cases import CASES, Case

F64 = torch.float64


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- searches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_bits", "scale"), [(5, 5.0), (5, 10.0)])
def test_the_least_gap_of_bits_is_found_where_posteriors_are_nearly_sure(n_bits, scale) -> None:
    """Beside coordinate ascent, which starts at the codes themselves."""
    table = scale * torch.randn(2**n_bits, 60, generator=source(505), dtype=F64)
    found, other = family_gap(table, code_products(n_bits, 1)), posterior_gap(table, n_bits)
    assert (found - other).abs().max() < 1e-8


def test_a_free_encoder_does_not_leave_the_points_of_the_rule() -> None:
    rule = exact.grid([-6.0], [6.0], 121)
    z = rule.points[:, 0]
    table = torch.stack([-(z.square() - 1).square() * 4, -(z - 1).square() / 0.1], 1)
    log_post = table - torch.logsumexp(table + rule.log_weights[:, None], 0)
    starts = torch.tensor([[1.0, -2.0], [0.0, 4.0], [5.0, 0.0], [3.0, 3.0]], dtype=F64)[:, None].expand(-1, 2, -1)
    gap, raw = best_free_encoder(Gaussian.from_mean_log_variance, log_post, rule, starts.contiguous())
    q = Gaussian.from_mean_log_variance(raw).log_prob(rule.points[:, None])
    assert ((q + rule.log_weights[:, None]).exp().sum(0) - 1).abs().max() < 1e-6
    assert gap[0] > 0.4  # one of two equal modes: about log 2
    assert gap[1] < 1e-6
    with pytest.raises(ValueError, match="take more points, a wider grid"):
        best_free_encoder(Gaussian.from_mean_log_variance, log_post, rule, torch.full((1, 2, 2), 40.0, dtype=F64))


def test_an_encoder_is_trained_by_the_weights_of_its_rule() -> None:
    """The same integral by an even and by an uneven rule."""
    even = exact.grid([-3.0], [3.0], 1401)
    uneven = exact.Rule(even.points.sinh(), even.log_weights + even.points[:, 0].cosh().log())
    left = []
    for rule in (exact.grid([-7.0], [7.0], 1401), uneven):
        torch.manual_seed(0)
        layer = nn.Linear(1, 2, dtype=F64)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
        curve = nn.Sequential(nn.Linear(1, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 1, dtype=F64))
        vae = VAE(
            Prior(torch.tensor([0.0, -0.5], dtype=F64), Gaussian),
            Conditional(curve, partial(GaussianFixedVariance.from_mean, variance=0.3)),
            Conditional(layer, Gaussian.from_mean_log_variance),
        )
        x = torch.tensor([[0.5], [-0.7]], dtype=F64)
        left.append(train_encoder(vae, x, torch.tensor([0.5, 0.5], dtype=F64), rule))
    assert left[0] == pytest.approx(left[1], abs=1e-6)


def test_an_optimum_is_found_at_the_end_of_a_bent_valley() -> None:
    """Rosenbrock's function; a search that one round does not finish goes on in the next."""

    def rosenbrock(at: Tensor) -> Tensor:
        return 100 * (at[1] - at[0] ** 2) ** 2 + (1 - at[0]) ** 2

    start = torch.tensor([-1.2, 1.0], dtype=F64)
    short, long = (start.clone().requires_grad_() for _ in range(2))
    assert minimize(lambda: rosenbrock(short), [short], 8) > 0.01
    assert minimize(lambda: rosenbrock(long), [long], 8, rounds=20) < 1e-12
    assert torch.allclose(long, torch.ones(2, dtype=F64), atol=1e-6)
    assert torch.allclose(maximize(lambda at: -rosenbrock(at), start), torch.ones(2, dtype=F64), atol=1e-9)
    assert start.tolist() == [-1.2, 1.0]


# --- laws that are nearly sure -------------------------------------------------------------------------------------


def test_the_divergence_of_a_sure_encoder() -> None:
    """Beside the oracle; a weaker encoder is then put in its place."""
    half = torch.tensor([0.5, 0.5], dtype=F64)
    vae, x, rule = bounds.tabled_vae(
        half, torch.tensor([[0.5, 0.5], [0.4, 0.6]], dtype=F64), torch.tensor([[0.0], [1000.0]], dtype=F64)
    )
    tables = bounds.tabulate(vae, x, half, rule)
    assert tables.divergence.tolist() == pytest.approx(exact.posterior_kl(vae, x, rule).tolist(), abs=1e-12)
    floor = torch.minimum(tables.log_p.amin().exp() / 2, bounds.base_floor(tables)).log()
    assert bounds.guarded(tables).log_q.amin() >= floor


def test_total_correlation_with_a_sure_bit_is_that_of_the_other_bits() -> None:
    for seed in range(100):
        rest = 3 * torch.randn(4, generator=source(seed), dtype=F64)
        sure = torch.cat([rest - 900, rest])  # the first bit is on
        alone = rbm.total_correlation(rest, all_bits(2))
        assert rbm.total_correlation(sure, all_bits(3)).item() == pytest.approx(alone.item(), abs=1e-12)


def test_the_interaction_of_two_bits_at_large_weights() -> None:
    pair = consistency.PixelPair(torch.tensor([[2.0, 1.5]], dtype=F64), 1)
    signs = (2 * all_bits(2) - 1).prod(1)
    for weight in (0.3, 30.0, 36.0, 80.0, 800.0):
        theta = torch.tensor([weight, weight - 0.5], dtype=F64)
        by_table = (signs[:, None] * pair.log_joint(theta)).sum(0) / 4
        assert pair.interaction(theta).item() == pytest.approx(by_table[0].item(), abs=1e-9 * weight)


def test_a_value_is_not_rounded_to_the_precision_of_the_family() -> None:
    law = GaussianFixedVariance.from_mean(torch.tensor([256.0]), variance=1.0)
    x = torch.tensor([256.00001], dtype=F64)  # the nearest float32 is 256
    wanted = stats.norm.logpdf(x.item(), 256.0)
    assert law.log_prob(x).dtype == F64
    assert law.log_prob(x).item() == pytest.approx(wanted, abs=1e-6)
    assert law.log_prob(x.float()).dtype == torch.float32


def test_a_state_of_probability_zero() -> None:
    q = Categorical(torch.tensor([0.0, -torch.inf, 1.0], dtype=F64).requires_grad_())
    two = Categorical(torch.tensor([0.0, 1.0], dtype=F64))
    log_p = q.log_prob(torch.eye(3, dtype=F64))
    assert log_p[1] == -torch.inf
    assert torch.allclose(log_p[[0, 2]], two.log_prob(torch.eye(2, dtype=F64)))
    assert q.entropy().item() == pytest.approx(two.entropy().item())
    (slope,) = torch.autograd.grad(q.entropy(), q.eta)
    assert slope.isfinite().all()
    even = Categorical(torch.zeros(3, dtype=F64))
    assert q.kl(even).item() == pytest.approx(math.log(3) - two.entropy().item())
    assert even.kl(q).item() == torch.inf
    table = torch.zeros(4, 1, dtype=F64)
    table[1] = -torch.inf
    for call in (lambda: posterior_gap(table, 2), lambda: family_gap(table, all_bits(2))):
        with pytest.raises(ValueError, match="must be finite: a state of probability zero"):
            call()


# --- gradients and precision ---------------------------------------------------------------------------------------


def test_reinforce_reaches_a_variance_that_is_learned() -> None:
    """Beside quadrature, within the standard error of many estimates."""

    def gradients(estimator, seed: int) -> Tensor:
        mean, log_variance = (torch.tensor([v], dtype=F64, requires_grad=True) for v in (0.7, 0.3))
        q = GaussianFixedVariance.from_mean(mean, log_variance.exp())
        value = estimator.expectation(q, lambda z: (z**3 + z**2).sum(-1), source(seed))
        return torch.cat(torch.autograd.grad(value, (mean, log_variance)))

    true = gradients(Exact(20), 0)
    estimates = torch.stack([gradients(Reinforce(2000), seed) for seed in range(40)])
    error = estimates.std(0) / 40**0.5
    assert ((estimates.mean(0) - true).abs() < 4 * error).all()
    assert (error < 0.2).all()


@pytest.mark.parametrize(("mean", "deviation"), [(3.0, 1e-3), (1.0, 1e-3), (-200.0, 0.5)])
def test_a_narrow_gaussian_in_single_precision(mean, deviation) -> None:
    """Beside closed forms in double precision."""
    location, variance = torch.tensor([mean]), torch.tensor([deviation**2])
    x = torch.tensor([mean + deviation])
    z = (x.double().item() - location.double().item()) / deviation  # of the rounded x
    true = stats.norm.logpdf(z) - math.log(deviation)
    for q in (Gaussian.from_mean_variance(location, variance), GaussianFixedVariance.from_mean(location, variance)):
        # a mean is rounded in its own last place, of which there are as many in a deviation
        rounding = 4 * abs(mean) / deviation * torch.finfo(torch.float32).eps
        assert q.log_prob(x).item() == pytest.approx(true, abs=1e-5 + rounding)
        assert q.entropy().item() == pytest.approx(stats.norm.entropy(scale=deviation), abs=1e-5)
    q, standard = Gaussian.from_mean_variance(location, variance), Gaussian(torch.tensor([0.0, -0.5]))
    kl = 0.5 * (deviation**2 + mean**2 - 1) - math.log(deviation)
    assert q.kl(standard).item() == pytest.approx(kl, rel=1e-6, abs=1e-5)


def test_dependence_is_seen_in_single_precision() -> None:
    counts = hashing.documents(4, 5)
    free = torch.randn(40, 3, generator=source(), dtype=F64)
    dependent = torch.cat([free, free @ torch.randn(3, 2, generator=source(1), dtype=F64)], 1)
    for dtype in (torch.float32, F64):
        assert minimal.independent_columns(counts.to(dtype)) == [0, 1, 2]
        assert minimal.span(dependent.to(dtype)).shape[1] == 3
        with pytest.raises(ValueError, match="not minimal"):
            minimal.anchors(dependent.to(dtype))


# --- models that do not fit their data -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "outputs"),
    [(Bernoulli, 1), (Gaussian.from_mean_log_variance, 2), (partial(GaussianFixedVariance, variance=1.0), 1)],
)
def test_values_of_another_width_are_refused(family, outputs) -> None:
    """They would broadcast against a decoder of one pixel."""
    q = family(torch.zeros(4, outputs, dtype=F64))
    with pytest.raises(ValueError, match=r"must end in the shape \(1,\), got \(4, 9\)"):
        q.log_prob(torch.zeros(4, 9, dtype=F64))


def test_oracles_refuse_values_that_are_no_bits() -> None:
    model = VAE(
        Prior(torch.zeros(2, dtype=F64), Bernoulli),
        Conditional(nn.Linear(2, 3, dtype=F64), Bernoulli),
        Conditional(nn.Linear(3, 2, dtype=F64), Bernoulli),
    )
    with pytest.raises(ValueError, match="law on 0 and 1, and x has values from -1 to 1"):
        exact.elbo(model, 2 * torch.eye(3, dtype=F64) - 1, exact.enumerate_states(Bernoulli(torch.zeros(2))))


def test_a_base_measure_that_is_not_one_must_give_its_mean() -> None:
    class Poisson(ExponentialFamily):
        event_shape = torch.Size([1])

        def sufficient_statistic(self, x: Tensor) -> Tensor:
            return x

        def log_base_measure(self, x: Tensor) -> Tensor:
            return -torch.lgamma(x + 1).sum(-1)

        def log_partition(self) -> Tensor:
            return self.eta.exp().sum(-1)

        def sample(self, sample_shape=(), generator=None) -> Tensor:
            return torch.poisson(self.eta.exp().expand(*sample_shape, *self.eta.shape), generator)

        def with_eta(self, eta: Tensor) -> Poisson:
            return Poisson(eta)

    q = Poisson(torch.tensor([1.5], dtype=F64))
    x = torch.arange(40, dtype=F64)[:, None]
    # and whether the sum over some codes may be all of it
    vae = VAE(
        Prior(q.eta, Poisson), Conditional(nn.Linear(1, 3).double(), Bernoulli), Conditional(nn.Identity(), Poisson)
    )
    with pytest.raises(ValueError, match="Poisson must say whether it has probabilities or a density: discrete = True"):
        exact.log_marginal(vae, torch.eye(3, dtype=F64), exact.Rule(x, torch.zeros(40, dtype=F64)))
    Poisson.discrete = True
    assert exact.log_marginal(vae, torch.eye(3, dtype=F64), exact.Rule(x, torch.zeros(40, dtype=F64))).isfinite().all()
    with pytest.raises(ValueError, match="the rule sums the prior to "):
        exact.log_marginal(vae, torch.eye(3, dtype=F64), exact.Rule(x[:3], torch.zeros(3, dtype=F64)))
    assert torch.allclose(q.log_prob(x), torch.from_numpy(stats.poisson.logpmf(x[:, 0].numpy(), math.exp(1.5))))
    with pytest.raises(ValueError, match=r"Poisson must give expected_log_base_measure, .*if h = 1"):
        q.entropy()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_density_is_not_compared_with_a_probability(swapped) -> None:
    """Both are over vectors of two numbers; the "ELBO" of a density on bits could exceed the likelihood."""
    bits = (Prior(torch.zeros(2, dtype=F64), Bernoulli), Bernoulli, 2)
    reals = (Prior(torch.tensor([0.0, 0.0, -0.5, -0.5], dtype=F64), Gaussian), Gaussian.from_mean_log_variance, 4)
    (prior, *_), (_, encoder, outputs) = (reals, bits) if swapped else (bits, reals)
    model = VAE(
        prior,
        Conditional(nn.Linear(2, 3, dtype=F64), Bernoulli),
        Conditional(nn.Linear(3, outputs, dtype=F64), encoder),
    )
    with pytest.raises(ValueError, match=r"the encoder's codes have .*, the prior's .*take two families"):
        model.encode(torch.zeros(4, 3, dtype=F64))


def test_a_conditional_of_another_library_is_refused() -> None:
    conditional = Conditional(nn.Linear(2, 3), lambda logits: torch.distributions.Bernoulli(logits=logits))
    with pytest.raises(TypeError, match=r"must make an efvae\.families\.ExponentialFamily, got Bernoulli"):
        conditional(torch.zeros(4, 2))


def test_a_family_of_ones_own_is_reparameterized() -> None:
    class Exponential(ExponentialFamily):
        discrete, event_shape = False, torch.Size([1])

        def sufficient_statistic(self, x: Tensor) -> Tensor:
            return -x

        def log_base_measure(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x[..., 0])

        def log_partition(self) -> Tensor:
            return -self.eta.log().sum(-1)

        def rsample(self, sample_shape=(), generator=None) -> Tensor:
            return -torch.rand(*sample_shape, *self.eta.shape, dtype=F64, generator=generator).log() / self.eta

        sample = rsample

        def with_eta(self, eta: Tensor) -> Exponential:
            return Exponential(eta)

    eta = torch.tensor([2.0], dtype=F64, requires_grad=True)
    mean = Reparameterized(20_000).expectation(Exponential(eta), lambda x: x[..., 0], source())
    mean.backward()
    assert mean.item() == pytest.approx(1 / 2, rel=0.03)
    assert eta.grad.item() == pytest.approx(-1 / 4, rel=0.03)


# --- rules that miss -----------------------------------------------------------------------------------------------


def test_a_rule_that_misses_a_thousandth_of_the_encoder_is_refused() -> None:
    """What is missed counts with the logarithm of a ratio, here a hundred nats and more."""
    line = nn.Linear(1, 1, dtype=F64)
    constant = nn.Linear(1, 2, dtype=F64)
    with torch.no_grad():
        for parameter in constant.parameters():
            parameter.zero_()
        constant.bias[1] = -0.5
        line.weight.fill_(1.0)
        line.bias.zero_()
    vae = VAE(
        Prior(torch.tensor([0.0, -0.5], dtype=F64), Gaussian),
        Conditional(line, partial(GaussianFixedVariance.from_mean, variance=0.0025)),
        Conditional(constant, Gaussian),
    )
    x = torch.zeros(1, 1, dtype=F64)
    precision = 1 + 1 / 0.0025
    true = 0.5 * (precision - 1 - math.log(precision))
    assert exact.posterior_kl(vae, x, exact.grid([-9.0], [9.0], 4001)).item() == pytest.approx(true, abs=1e-6)
    with pytest.raises(ValueError, match="not 1"):
        exact.posterior_kl(vae, x, exact.grid([-3.1], [9.0], 4001))


def test_a_rule_whose_weights_overflow_is_refused() -> None:
    like = torch.zeros(1, dtype=F64)
    assert gauss_hermite_nodes(370, 1, like)[1].isfinite().all()
    for nodes in (0, 371):
        with pytest.raises(ValueError, match=f"takes 1 to 370 nodes in each coordinate, got {nodes}"):
            gauss_hermite_nodes(nodes, 1, like)
    with pytest.raises(ValueError, match="takes 1 to 370 nodes in each coordinate, got 371"):
        Exact(371).expectation(Gaussian(torch.tensor([0.0, -0.5], dtype=F64)), lambda z: z[..., 0])
    with pytest.raises(ValueError, match="lower has 1 coordinates and upper 2"):
        exact.grid([0.0], [1.0, 1.0], 5)


def test_a_number_of_states_of_many_digits_is_told_in_few() -> None:
    with pytest.raises(ValueError, match=r"has about 10\^903 states"):
        Bernoulli(torch.zeros(3000)).support()


def test_the_gap_of_a_curve_needs_points_as_fine_as_its_posterior() -> None:
    line = torch.tensor([[0.0, 1.0]], dtype=F64)  # an affine decoder: the gap is zero
    x = torch.tensor([[0.3], [-1.0]], dtype=F64)
    rule = exact.grid([-9.0], [9.0], 361)
    assert gap_of_curve(line, torch.tensor(0.1, dtype=F64).log(), x, rule).abs().max() < 1e-6
    with pytest.raises(ValueError, match="take more points"):
        gap_of_curve(line, torch.tensor(1e-4, dtype=F64).log(), x, rule)


def test_tied_priors_of_two_harmonia_have_no_bregman_divergence() -> None:
    rule = exact.grid([-14.0], [14.0], 1401)
    one, same, other = (normal_conditionals(gelman_meng(c), rule).as_vae().prior() for c in (1.0, 1.0, 3.0))
    assert one.kl(same).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="one base measure"):
        one.kl(other)


# --- shapes and nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_draws_at_all(case: Case) -> None:
    family: ExponentialFamily = case.draw((2,), 0)
    assert family.sample((0,)).shape == (0, 2, *family.event_shape)


def test_no_observations() -> None:
    assert posterior_gap(torch.zeros(4, 0, dtype=F64), 2).shape == (0,)
    assert family_gap(torch.zeros(4, 0, dtype=F64), all_bits(2)).shape == (0,)


def test_more_latent_than_observed_dimensions_are_kept_by_a_rotation() -> None:
    loadings = torch.randn(2, 3, generator=source(), dtype=F64)
    turned = rotate_latent(loadings)
    assert turned.shape == loadings.shape
    assert torch.allclose(turned @ turned.T, loadings @ loadings.T)
    gram = turned.T @ turned
    assert (gram - torch.diag(gram.diagonal())).abs().max() < 1e-12


def test_a_class_of_documents_without_mass_does_not_count() -> None:
    documents = torch.cat([hashing.documents(3, 1), hashing.documents(3, 2)])
    table = torch.randn(4, len(documents), generator=source(), dtype=F64)
    weights = (documents[:, 0] == 0).double()
    weights /= weights.sum()
    kept = weights > 0
    found = frequencies.frequency_gap(table, weights, documents)
    alone = frequencies.frequency_gap(table[:, kept], weights[kept], documents[kept])
    assert found.total.item() == pytest.approx(alone.total.item(), abs=1e-12)


def test_a_decoder_without_parameters_has_its_interaction() -> None:
    class Sum(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.sum(-1, keepdim=True)

    fixed = rbm.pair_interaction(Conditional(Sum(), Bernoulli), 2)
    assert fixed[0, 1].item() == pytest.approx(math.log1p(math.e**2) - 2 * math.log1p(math.e) + math.log(2))


def test_recover_leaves_the_global_generator_alone() -> None:
    model = VAE(
        Prior(torch.zeros(2, dtype=F64), Bernoulli),
        Conditional(nn.Linear(2, 3, dtype=F64), Bernoulli),
        Conditional(nn.Linear(3, 2, dtype=F64), Bernoulli),
    )
    before = torch.get_rng_state()
    rbm.recover(model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.grid([1.0], [0.0], 5), "each lower corner must be below"),
        (
            lambda: best_bound(lambda t: t, torch.ones(1, dtype=F64), 1, torch.zeros(0, 2, dtype=F64)),
            "at least one start",
        ),
        (lambda: corpus(torch.tensor([1.5, 2.5]), 2), "different whole numbers"),
        (lambda: corpus(torch.tensor([1.0, 2.0]), 3), "2\\*\\*m codes"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def corpus(lengths: Tensor, codes: int) -> hashing.Corpus:
    even = torch.full((codes, 3), 1 / 3, dtype=F64).log()
    return hashing.Corpus(even, lengths, torch.full((2, codes), 1 / (2 * codes), dtype=F64).log())


# --- what would broadcast -----------------------------------------------------------------------------------------


def of_bits(decoder: Conditional) -> tuple[VAE, Tensor, exact.Rule]:
    vae = VAE(Prior(torch.zeros(3), Bernoulli), decoder, Conditional(nn.Linear(2, 3), Bernoulli)).double()
    return vae, torch.randn(8, 2, generator=source(3), dtype=F64), exact.enumerate_states(vae.prior())


def test_a_base_measure_that_depends_on_the_code_is_refused() -> None:
    """As many observations as codes: h(x) would be paired with the codes, and a distance come out."""
    network = nn.Linear(3, 4)

    def varying(raw: Tensor) -> GaussianFixedVariance:
        mean, log_variance = raw.chunk(2, -1)
        return GaussianFixedVariance.from_mean(mean, log_variance.exp())

    vae, x, rule = of_bits(Conditional(network, varying))
    with pytest.raises(ValueError, match="depends on the code"):
        log_bilinear.joint_table(vae, x, rule)
    with pytest.raises(ValueError, match="depends on the code"):
        bounds.tabulate(vae, x, torch.full((8,), 1 / 8, dtype=F64), rule)
    vae.decoder = Conditional(network, Gaussian.from_mean_log_variance)
    assert log_bilinear.distance(log_bilinear.joint_table(vae, x, rule)) > 0


def test_weights_of_another_shape_are_refused() -> None:
    vae, x, rule = of_bits(Conditional(nn.Linear(3, 4), Gaussian.from_mean_log_variance))
    weights, free = torch.full((8,), 1 / 8, dtype=F64), torch.zeros(8, dtype=F64)
    assert gap_parts(vae, x, weights, rule, free).family == 0
    with pytest.raises(ValueError, match=r"needs weights of shape \(8,\), got \(8, 1\)"):
        gap_parts(vae, x, weights[:, None], rule, free)
    with pytest.raises(ValueError, match=r"needs free of shape \(8,\), got \(8, 1\)"):
        gap_parts(vae, x, weights, rule, free[:, None])
    for impossible in (torch.nan, -1.0, float(exact.posterior_kl(vae, x, rule).detach().max()) + 0.01):
        with pytest.raises(ValueError, match="gap_parts: free must be ≥ 0 and not above the divergence"):
            gap_parts(vae, x, weights, rule, free + impossible)
    with pytest.raises(ValueError, match=r"train_encoder: needs weights of shape \(8,\), got \(8, 1\)"):
        train_encoder(vae, x, weights[:, None], rule)


def test_an_encoder_of_other_codes_than_the_prior_is_refused_by_the_distances_too() -> None:
    vae, x, rule = of_bits(Conditional(nn.Linear(3, 4), Gaussian.from_mean_log_variance))
    vae.encoder = Conditional(nn.Linear(2, 4), Bernoulli).double()
    for measure in (log_bilinear.joint_table, consistency.family_residual):
        with pytest.raises(ValueError, match="the encoder's codes have shape"):
            measure(vae, x, rule)


def test_an_odd_number_of_outputs_is_no_mean_and_variance() -> None:
    with pytest.raises(ValueError, match="even number of outputs, got 3"):
        Gaussian.from_mean_log_variance(torch.zeros(5, 3))


def test_grey_values_are_refused_however_the_family_is_made() -> None:
    vae, x, rule = of_bits(Conditional(nn.Linear(3, 2), partial(Bernoulli)))
    with pytest.raises(ValueError, match="a law on 0 and 1"):
        exact.log_marginal(vae, x, rule)


# --- what a user's first program meets ------------------------------------------------------------------------------


def small_vae() -> tuple[VAE, exact.Rule, Tensor]:
    torch.manual_seed(3)
    decoder, encoder = (
        Conditional(nn.Linear(3, 5).double(), Bernoulli),
        Conditional(nn.Linear(5, 3).double(), Bernoulli),
    )
    vae = VAE(Prior(torch.zeros(3, dtype=F64), Bernoulli), decoder, encoder).requires_grad_(requires_grad=False)
    return vae, exact.enumerate_states(vae.prior()), (torch.rand(8, 5, generator=source()) < 0.5).double()


def test_nan_in_an_encoder_is_no_zero_gap() -> None:
    vae, rule, x = small_vae()
    vae.encoder.network.weight[0, 0] = torch.nan
    for oracle in (exact.posterior_kl, exact.elbo):
        with pytest.raises(ValueError, match=r"the encoder's law q\(z \| x\) is not a number"):
            oracle(vae, x, rule)
    q = Bernoulli(torch.full((3,), torch.nan, dtype=F64))
    assert Exact().expectation(q, lambda z: z.sum(-1)).isnan()


def test_observations_that_no_code_explains_are_refused() -> None:
    vae, rule, x = small_vae()
    vae.decoder.family = lambda mean: GaussianFixedVariance.from_mean(mean, 1.0)
    x[2, 1] = torch.nan
    with pytest.raises(ValueError, match="x has 1 values that are not finite"):
        exact.log_marginal(vae, x, rule)
    vae.decoder.family = lambda eta: Multinomial(eta, 4)
    counts = torch.tensor([[4, 0, 0, 0, 0], [2, 2, 0, 0, 0], [2, 3, 0, 0, 0]], dtype=F64)
    assert exact.log_marginal(vae, counts[:2], rule).isfinite().all()
    with pytest.raises(ValueError, match="1 of 3 observations are no values of the decoder's Multinomial, such as doc"):
        exact.log_marginal(vae, counts, rule)
    for wrong in ([1.5, 2.5, 0, 0, 0], [-1, 5, 0, 0, 0]):  # their sum is right
        with pytest.raises(ValueError, match="1 of 3 observations are no values"):
            exact.log_marginal(vae, torch.cat([counts[:2], torch.tensor([wrong], dtype=F64)]), rule)


def test_more_batch_axes_are_refused_by_oracles_and_taken_by_objectives() -> None:
    """Eight codes beside eight rows would pair code k with row k."""
    vae, rule, x = small_vae()
    rows = torch.stack([x, 1 - x], 1)
    with pytest.raises(
        ValueError, match=r"oracles take x of shape \(batch, \*event\), here event \(5,\), got \(8, 2, 5\)"
    ):
        exact.log_marginal(vae, rows, rule)
    assert torch.allclose(elbo(vae, rows, Exact())[:, 0], exact.elbo(vae, x, rule))


def test_a_rule_needs_a_deviation_for_each_coordinate() -> None:
    mean = torch.zeros(2, dtype=F64)
    for std in (torch.tensor(0.5, dtype=F64), torch.full((1,), 0.5, dtype=F64)):
        with pytest.raises(ValueError, match="one number for each coordinate"):
            exact.gauss_hermite(20, mean, std)
    rule = exact.gauss_hermite(20, mean, torch.full((2,), 0.5, dtype=F64))
    law = Gaussian.from_mean_variance(mean, torch.full((2,), 0.25, dtype=F64))
    assert abs(float((law.log_prob(rule.points) + rule.log_weights).logsumexp(0))) < 1e-12


def test_settings_of_a_family_of_ones_own_belong_to_it() -> None:
    class Binomials(ExponentialFamily):
        event_shape = torch.Size([1])

        def __init__(self, eta: Tensor, trials: int) -> None:
            super().__init__(eta)
            self.trials = trials

        def sufficient_statistic(self, x: Tensor) -> Tensor:
            return x

        def log_base_measure(self, x: Tensor) -> Tensor:
            n = torch.tensor(float(self.trials))
            return (torch.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)).sum(-1)

        def log_partition(self) -> Tensor:
            return self.trials * Bernoulli(self.eta).log_partition()

        def sample(self, sample_shape=(), generator=None) -> Tensor:
            return Bernoulli(self.eta).sample((*sample_shape, self.trials), generator).sum(len(sample_shape))

        def with_eta(self, eta: Tensor) -> Binomials:
            return Binomials(eta, self.trials)

    five, ten = (Binomials(torch.zeros(1, dtype=F64), n) for n in (5, 10))
    assert five.kl(five.with_eta(five.eta + 1)) > 0
    with pytest.raises(ValueError, match="two members of one family with one base measure"):
        ten.kl(five)


def test_networks_for_one_batch_axis_have_to_say_so() -> None:
    """Batch normalisation takes the axis of the codes for channels where the numbers agree, and nobody notices."""
    layers = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 5)).double()
    with torch.no_grad():
        layers[1].running_mean.copy_(torch.randn(16, generator=source(1)))
    layers.eval()
    with pytest.raises(ValueError, match="BatchNorm1d takes one batch axis"):
        Conditional(layers, Bernoulli)
    image = nn.Sequential(nn.Unflatten(1, (1, 1, 3)), nn.ConvTranspose2d(1, 1, (1, 3)), nn.Flatten())
    with pytest.raises(ValueError, match="ConvTranspose2d takes one batch axis"):
        Conditional(image, Bernoulli)
    decoder = Conditional(layers, Bernoulli, event_axes=1)
    codes = torch.randn(16, 4, 3, generator=source(2), dtype=F64)
    with torch.no_grad():
        found = decoder(codes).eta
        assert torch.allclose(found, torch.stack([layers(codes[:, k]) for k in range(4)], 1))
        vae, rule, x = small_vae()
        vae.decoder = decoder
        by_hand = Bernoulli(layers(rule.points)).log_prob(x[:, None]).T + vae.prior().log_prob(rule.points)[:, None]
        assert torch.allclose(exact.log_joint(vae, x, rule), by_hand)
        vae.decoder = Conditional(image.double(), Bernoulli, event_axes=1)
        assert elbo(vae, x, Exact()).shape == (8,)


def test_a_table_with_a_state_of_probability_zero() -> None:
    states = all_bits(2)
    base = torch.tensor([0.0, 0.0, 0.0, -torch.inf], dtype=F64)
    law = Tabular(torch.zeros(2, dtype=F64), states, states, base)
    assert torch.allclose(law.log_prob(states).exp(), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=F64))
    assert float(law.entropy()) == pytest.approx(math.log(3))
    table = torch.zeros(4, 1, dtype=F64)
    table[3] = -torch.inf
    with pytest.raises(ValueError, match=r"mean_field: log p\(x, z\) must be finite"):
        exact.mean_field(table, 2)


def test_settings_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one for each law of the batch \(3,\), got the shape \(2,\)"):
        Multinomial(torch.zeros(3, 4), torch.tensor([2.0, 3.0]))
    assert Multinomial(torch.zeros(4), torch.tensor([2.0, 3.0])).sample((7,)).sum(-1).tolist() == [[2.0, 3.0]] * 7
    with pytest.raises(ValueError, match=r"broadcastable to the shape of eta, \(3,\), got \(5, 3\)"):
        GaussianFixedVariance(torch.zeros(3), torch.ones(5, 3))
    assert GaussianFixedVariance(torch.zeros(2, 3), torch.ones(2, 1)).sample().shape == (2, 3)


def test_distances_want_observations_and_weights_that_sum_to_one() -> None:
    vae, rule, x = small_vae()
    table = log_bilinear.joint_table(vae, x, rule)
    weights = torch.full((8,), 1 / 8, dtype=F64)
    assert torch.allclose(log_bilinear.distance(table, weights), log_bilinear.distance(table))
    for wrong in (weights[:, None], weights * 100, weights[:4] * 2):
        with pytest.raises(ValueError, match=r"needs weights of shape \(8,\)|sum to one"):
            log_bilinear.distance(table, wrong)
    with pytest.raises(ValueError, match="no observation"):
        log_bilinear.distance(log_bilinear.joint_table(vae, x[:0], rule))
    with pytest.raises(ValueError, match="no observation"):
        consistency.is_consistent(vae, x[:0], rule)


@pytest.mark.parametrize("size", [0.3, 5.0, 15.0, 40.0])
def test_bits_that_are_nearly_sure_keep_their_digits_in_single_precision(size) -> None:
    eta = torch.tensor([size, -size, size])
    q, other = Bernoulli(eta), Bernoulli(eta + torch.tensor([0.01, 0.5, -0.2]))
    q64, other64 = Bernoulli(eta.double()), Bernoulli(other.eta.double())
    assert float(q.entropy()) == pytest.approx(float(q64.entropy()), rel=1e-5)
    assert float(q.kl(other)) == pytest.approx(float(q64.kl(other64)), rel=1e-2)
    by_sum = sum(stats.bernoulli(1 / (1 + math.exp(-e))).entropy() for e in q64.eta.tolist() if abs(e) < 30)
    if size < 30:
        assert float(q64.entropy()) == pytest.approx(float(by_sum), rel=1e-8)


def test_a_checkpoint_may_be_named_by_text(tmp_path) -> None:
    model = nn.Linear(1, 1)
    settings = TrainConfig(4, checkpoint_every=2, eval_every=2)
    curve = fit(model, lambda x, g: model(x).square()[:, 0], lambda g: torch.randn(3, 1, generator=g), settings,
                checkpoint=str(tmp_path / "state.safetensors"))  # fmt: skip
    assert curve["step"] == [2.0, 4.0]
    assert (tmp_path / "state.safetensors").is_file()


def test_documents_of_several_lengths_in_one_batch() -> None:
    torch.manual_seed(5)
    x = torch.tensor([[2.0, 1, 0], [1, 1, 3]], dtype=F64)
    prior, networks = Prior(torch.zeros(2, dtype=F64), Bernoulli), (nn.Linear(2, 3).double(), nn.Linear(3, 2).double())

    def vae(lengths: Tensor) -> VAE:
        return VAE(
            prior, Conditional(networks[0], lambda eta: Multinomial(eta, lengths)), Conditional(networks[1], Bernoulli)
        )

    rule = exact.enumerate_states(prior())
    together = exact.elbo(vae(x.sum(1)), x, rule)
    alone = [exact.elbo(vae(row.sum()), row[None], rule) for row in x]
    assert torch.allclose(together, torch.cat(alone))
    assert torch.allclose(elbo(vae(x.sum(1)), x, Exact()), together)


@pytest.mark.parametrize("first", [0.0, 1e-6])
def test_a_learned_variance_has_its_gradient_where_two_variances_agree(first) -> None:
    """By finite differences of the oracle; at 0 the prior's variance and the encoder's are equal numbers."""
    log_variance = torch.tensor([first], dtype=F64, requires_grad=True)
    torch.manual_seed(0)
    linear = nn.Linear(1, 3).double(), nn.Linear(3, 1).double()
    x = torch.randn(6, 3, generator=source(4), dtype=F64)

    def bound(value: Tensor) -> Tensor:
        prior = Prior(torch.zeros(1, dtype=F64), lambda eta: GaussianFixedVariance(eta, value.exp()))
        decoder = Conditional(linear[0], lambda mean: GaussianFixedVariance.from_mean(mean, 0.5))
        one = torch.ones(1, dtype=F64)
        encoder = Conditional(linear[1], lambda mean: GaussianFixedVariance.from_mean(mean, one))
        return elbo(VAE(prior, decoder, encoder), x, Exact(60)).mean()

    (slope,) = torch.autograd.grad(bound(log_variance), log_variance)
    with torch.no_grad():
        difference = (bound(log_variance + 1e-4) - bound(log_variance - 1e-4)) / 2e-4
    assert float(slope) == pytest.approx(float(difference), abs=1e-5)
    assert abs(float(slope)) > 0.01


def test_equal_tables_are_not_the_same_where_one_is_learned() -> None:
    states, base = all_bits(2), torch.zeros(4, dtype=F64)
    learned = base.clone().requires_grad_()
    q = Tabular(torch.tensor([0.3, -0.5], dtype=F64), states, states, base)
    assert q.same_base_measure(Tabular(torch.zeros(2, dtype=F64), states, states, base.clone()))
    with pytest.raises(ValueError, match="one base measure"):
        q.kl(Tabular(torch.zeros(2, dtype=F64), states, states, learned))


def test_a_network_that_loses_the_axes_in_front_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> Tensor:
            return self.network(z.reshape(-1, z.shape[-1]))

    vae, rule, x = small_vae()
    right = exact.log_marginal(vae, x, rule), elbo(vae, x, Exact())
    vae.decoder = Conditional(Flat(vae.decoder.network), Bernoulli)
    for found in (
        lambda: exact.log_marginal(vae, x, rule),
        lambda: elbo(vae, x, Exact()),
        lambda: iwae_bound(vae, x, 8),
    ):
        with pytest.raises(ValueError, match="must keep the axes in front; Conditional's event_axes=1 does it"):
            found()
    vae.decoder = Conditional(vae.decoder.network, Bernoulli, event_axes=1)
    assert all(map(torch.allclose, (exact.log_marginal(vae, x, rule), elbo(vae, x, Exact())), right))


def test_layers_in_training_mode_are_refused_where_a_model_is_judged() -> None:
    vae, rule, x = small_vae()
    vae.decoder = Conditional(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 5)).double(), Bernoulli)
    for found in (lambda: exact.log_marginal(vae, x, rule), lambda: iwae_bound(vae, x, 8)):
        with pytest.raises(ValueError, match=r"Dropout is in training mode, .*call eval\(\) first"):
            found()
    assert elbo(vae, x, Exact()).isfinite().all()  # what training does
    vae.eval()
    assert torch.equal(exact.log_marginal(vae, x, rule), exact.log_marginal(vae, x, rule))


def test_a_rule_that_does_not_hold_the_codes_of_the_prior_is_refused() -> None:
    vae, rule, x = small_vae()
    half = exact.Rule(rule.points[:4], rule.log_weights[:4])
    for wrong in (half, exact.grid([-3.0] * 3, [4.0] * 3, 8)):
        for oracle in (exact.log_marginal, exact.log_posterior, consistency.is_consistent):
            with pytest.raises(ValueError, match=r"the rule sums the prior to .*, not 1: take enumerate_states"):
                oracle(vae, x, wrong)
    signs = exact.Rule(2 * rule.points - 1, rule.log_weights)
    with pytest.raises(ValueError, match=r"the rule has values from -1 to 1: take enumerate_states\(vae.prior\(\)\)"):
        log_bilinear.joint_table(vae, x, signs)
    assert len(log_bilinear.joint_table(vae, x, half).values) == 4  # a theorem of points that are listed


def test_values_that_are_no_bits_are_refused_wherever_they_come_in() -> None:
    vae, rule, x = small_vae()
    u, v = torch.zeros(5, dtype=F64), torch.zeros(3, dtype=F64)
    harmonium = Harmonium(Bernoulli, Bernoulli, torch.zeros(5, 3, dtype=F64), u, v)
    for oracle in (
        lambda x: exact.log_marginal(vae, x, rule),
        lambda x: vae.log_likelihood(x, rule.points[:, None]),
        lambda x: rbm.joint_table(vae, x, rule.points),
        harmonium.log_marginal,
    ):
        assert oracle(x).isfinite().all()
        with pytest.raises(
            ValueError, match=r"Bernoulli is a law on 0 and 1, and x has values from 0 to 0\.5: threshold"
        ):
            oracle(x / 2)
        with pytest.raises(ValueError, match="x has 5 values that are NaN"):
            oracle(x.index_fill(0, torch.tensor([2]), torch.nan))


def test_oracles_say_what_they_take() -> None:
    vae, rule, x = small_vae()
    with pytest.raises(ValueError, match=r"oracles take torch tensors, x is a ndarray: use torch.as_tensor"):
        exact.log_marginal(vae, x.numpy(), rule)
    with pytest.raises(ValueError, match="points must be finite"):
        exact.Rule(rule.points.index_fill(0, torch.tensor([2]), torch.inf), rule.log_weights)
    with pytest.raises(ValueError, match="logarithms of weights below infinity"):
        exact.Rule(rule.points, rule.log_weights.index_fill(0, torch.tensor([2]), torch.nan))
    table = exact.log_joint(vae, x, rule)
    with pytest.raises(ValueError, match=r"in float64, statistic is torch.float32"):
        family_gap(table, code_products(3, 1).float())


def test_a_joint_law_is_no_posterior() -> None:
    vae, rule, x = small_vae()
    posterior, starts = exact.log_posterior(vae, x, rule), torch.zeros(1, len(x), 3, dtype=F64)
    found, _ = best_free_encoder(Bernoulli, posterior, rule, starts)
    assert bool((found >= 0).all())
    with pytest.raises(ValueError, match=r"the rule sums log_post to masses from .*, not 1: give log_posterior"):
        best_free_encoder(Bernoulli, exact.log_joint(vae, x, rule), rule, starts)


def test_the_least_gap_of_a_family_that_lacks_states() -> None:
    """Against a search over the family itself."""
    vae, rule, x = small_vae()
    base = torch.tensor([0.3, 0.0, -0.5, 0.0, 0.0, 0.2, 0.0, -torch.inf], dtype=F64)
    posterior = exact.log_posterior(vae, x, rule)
    family = partial(Tabular, states=rule.points, statistic=rule.points, log_base=base)
    searched, _ = best_free_encoder(family, posterior, rule, torch.zeros(1, len(x), 3, dtype=F64))
    torch.testing.assert_close(family_gap(posterior, rule.points, base), searched, rtol=0, atol=1e-8)


@pytest.mark.parametrize("wrong", [[0.0, torch.nan, 0.0, 0.0], [torch.inf, 0.0, 0.0, 0.0], [-torch.inf] * 4])
def test_a_base_measure_is_a_measure(wrong: list[float]) -> None:
    states = all_bits(2)
    with pytest.raises(ValueError, match="log_base must be below infinity, and finite for at least one state"):
        Tabular(torch.zeros(2, dtype=F64), states, states, torch.tensor(wrong, dtype=F64))


def test_a_support_that_leaves_states_out_is_no_expectation() -> None:
    class Forgetful(Bernoulli):
        def with_eta(self, eta: Tensor) -> Forgetful:
            return Forgetful(eta)

        def support(self) -> Tensor:
            return super().support()[1:]

    eta = torch.tensor([[30.0, 40.0]], dtype=F64)  # where the state left out is never seen
    assert Exact().expectation(Bernoulli(eta), lambda z: z.sum(-1)).item() == pytest.approx(2)
    with pytest.raises(ValueError, match=r"the support of Forgetful miss 1 by 0\.25: support\(\) must list all"):
        Exact().expectation(Forgetful(eta), lambda z: z.sum(-1))


def test_rounding_is_no_missing_state() -> None:
    long = Multinomial(torch.zeros(1, 2), 20_000)
    assert Exact().expectation(long, lambda x: torch.ones(x.shape[:-1])).item() == pytest.approx(1, rel=0.1)
    few = Multinomial(torch.zeros(1, 3, dtype=torch.bfloat16), 30)
    assert Exact().expectation(few, lambda x: torch.ones(x.shape[:-1])).isfinite().all()


def test_values_that_cannot_be_looked_at_are_taken() -> None:
    """Under ``vmap`` and while a program is compiled."""
    vae, rule, x = small_vae()
    zeros = torch.zeros(5, dtype=F64), torch.zeros(3, dtype=F64)
    harmonium = Harmonium(Bernoulli, Bernoulli, torch.ones(5, 3, dtype=F64), *zeros)
    torch.testing.assert_close(torch.func.vmap(harmonium.log_marginal)(x), harmonium.log_marginal(x))
    table = rbm.joint_table(vae, x, rule.points)
    each = torch.func.vmap(lambda one: rbm.joint_table(vae, one[None], rule.points)[:, 0], out_dims=1)
    torch.testing.assert_close(each(x), table)
    eta = torch.randn(4, 3, generator=source(), dtype=F64)
    mean = torch.func.vmap(lambda eta: Exact().expectation(Bernoulli(eta), lambda z: z.sum(-1)))(eta)
    torch.testing.assert_close(mean, eta.sigmoid().sum(-1))
    bases = torch.randn(4, 8, generator=source(), dtype=F64)
    logs = torch.func.vmap(lambda base: Tabular(eta[0], rule.points, rule.points, base).log_partition())(bases)
    torch.testing.assert_close(logs, torch.logsumexp(rule.points @ eta[0] + bases, -1))
    compiled = torch.compile(harmonium.log_marginal, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), harmonium.log_marginal(x))


def test_other_first_mistakes_are_one_line() -> None:
    vae, _, x = small_vae()
    weight, u, v = torch.zeros(4, 3), torch.zeros(4), torch.zeros(3)
    for call, message in (
        (lambda: Prior(torch.zeros(2, 3), Bernoulli), r"eta must have the shape \(d,\) of one law, got \(2, 3\)"),
        (lambda: Harmonium(Bernoulli, Bernoulli, weight, u[:, None], v), r"must have the shapes \(n,\) and \(m,\)"),
        (lambda: elbo(vae, x.float(), Exact()), r"x is torch.float32, the encoder's parameters are torch.float64"),
        (lambda: Gaussian.from_mean_variance(torch.zeros(2), 0.0), "must be positive and finite, got 0 to 0"),
        (lambda: Gaussian.from_mean_log_variance(torch.tensor([1.0, 90.0])), "of log-variances keep to what"),
        (lambda: annealed_log_partition(Harmonium(Bernoulli, Bernoulli, weight, u, v), 10, 5, base=u - torch.inf),
         "base must be finite: keep means off 0 and 1"),
        (lambda: fit(nn.Linear(1, 1), lambda x, g: x, lambda g: x, TrainConfig(4), checkpoint="c"), "never be written"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
    assert CategoricalOver(all_bits(3))(torch.zeros(8)).sample((2,)).dtype == torch.float32


def test_weights_are_a_law_on_the_observations() -> None:
    vae, x, rule = of_bits(Conditional(nn.Linear(3, 4), Gaussian.from_mean_log_variance))
    weights, free = torch.full((8,), 1 / 8, dtype=F64), torch.zeros(8, dtype=F64)
    post, (other, its_rule, its_x) = posterior_table(vae, x, rule), small_vae()
    table = log_bilinear.joint_table(other, its_x, its_rule)
    negative = weights.clone()
    negative[:2] += torch.tensor([-0.25, 0.25], dtype=F64)
    for wrong in (8 * weights, negative, weights * torch.nan):
        for refused in (
            lambda w: gap_parts(vae, x, w, rule, free),
            lambda w: train_encoder(vae, x, w, rule),
            lambda w: log_bilinear.distance(table, w),
        ):
            with pytest.raises(ValueError, match=r"weights must be ≥ 0 and sum to one; got"):
                refused(wrong)
    for of in (reverse_gap, forward_cross_entropy):  # eight times eight numbers, if they were broadcast
        with pytest.raises(ValueError, match=r"needs weights of shape \(8,\), got \(8, 1\)"):
            of(vae.encoder, x, weights[:, None], post, rule)
        assert of(vae.encoder, x, weights, post, rule).ndim == 0


def test_a_table_of_part_of_the_data_has_at_most_its_mass() -> None:
    vae, rule, x = small_vae()
    assert bounds.tabulate(vae, x, torch.full((8,), 1 / 16, dtype=F64), rule).data.sum() == 0.5
    with pytest.raises(ValueError, match="tabulate: weights must be"):
        bounds.tabulate(vae, x, torch.full((8,), 1 / 4, dtype=F64), rule)


def test_shapes_are_refused_where_they_come_in() -> None:
    vae, rule, x = small_vae()
    post = posterior_table(vae, x[:5], rule)
    starts = torch.zeros(1, 5, 3, dtype=F64)
    assert best_free_encoder(Bernoulli, post, rule, starts)[0].shape == (5,)
    with pytest.raises(ValueError, match=r"best_free_encoder: needs starts of shape \(s, batch, d\)"):
        best_free_encoder(Bernoulli, post.T, rule, starts)
    with pytest.raises(ValueError, match="family_gap: needs log_joint of shape"):
        family_gap(post, code_products(2, 1))
    with pytest.raises(ValueError, match=r"and log_base of shape \(3,\)"):
        family_gap(post, torch.zeros(len(rule.points), 2, dtype=F64), torch.zeros(3, dtype=F64))
    table = log_bilinear.joint_table(vae, x, rule)
    with pytest.raises(ValueError, match=r"fit: needs x_weights ≥ 0 of shape \(8,\), got the shape \(8, 1\)"):
        log_bilinear.fit(table, torch.ones(8, 1, dtype=F64))
    with pytest.raises(ValueError, match="fit: needs z_weights ≥ 0"):
        log_bilinear.fit(table, z_weights=-torch.ones(len(rule.points), dtype=F64))


def test_grey_values_have_no_bound_under_a_decoder_of_bits() -> None:
    vae, _, x = small_vae()
    for bound in (lambda v: elbo(vae, v, Exact()), lambda v: iwae_bound(vae, v, 2)):
        assert bound(x).shape == (8,)
        with pytest.raises(ValueError, match=r"law on 0 and 1, and x has values from 0 to 0\.5"):
            bound(x / 2)


def test_a_finished_run_is_read_by_the_same_call_and_by_no_other(tmp_path) -> None:
    def trained(steps: int = 5, *, frozen: bool = False, wide: bool = False) -> tuple[nn.Linear, dict]:
        network = nn.Linear(2, 1)
        with torch.no_grad():
            network.weight.fill_(1.0)
        network.bias.requires_grad_(not frozen)
        network.to(torch.float64 if wide else torch.float32)
        curve = fit(
            network,
            lambda x, _: network(x).square()[:, 0],
            lambda generator: torch.randn(4, 2, generator=generator).to(network.weight.dtype),
            TrainConfig(steps=steps, learning_rate=0.1, eval_every=1, checkpoint_every=2),
            checkpoint=tmp_path / "run.safetensors",
        )
        return network, curve

    network, curve = trained()
    assert len(curve["loss"]) == 5
    (tmp_path / "run.safetensors").chmod(0o444)  # the last step is in it: nothing is left to be done
    before = (tmp_path / "run.safetensors").read_bytes()
    again, same = trained()
    assert same == curve
    assert all(map(torch.equal, network.parameters(), again.parameters()))
    assert (tmp_path / "run.safetensors").read_bytes() == before
    for other in ({"frozen": True}, {"wide": True}, {"steps": 6}):
        with pytest.raises(CheckpointError, match="belongs to another configuration"):
            trained(**other)


@pytest.mark.parametrize(("slope", "points"), [(20.0, 11), (20.0, 20), (20.0, 101), (5.0, 31), (5.0, 40)])
def test_a_grid_too_coarse_for_a_posterior_is_refused(slope: float, points: int) -> None:
    """p(x | z) = N(x | slope · z, 0.01): the likelihood in closed form, which coarse sums miss by tenths of a nat."""
    line = nn.Linear(1, 1).double()
    with torch.no_grad():
        line.weight.fill_(slope)
        line.bias.zero_()
    vae = VAE(
        Prior(torch.tensor([0.0, -0.5], dtype=F64), Gaussian),
        Conditional(line, partial(GaussianFixedVariance.from_mean, variance=0.01)),
        Conditional(nn.Linear(1, 2).double(), Gaussian.from_mean_log_variance),
    )
    x = torch.tensor([[0.0], [0.3]], dtype=F64)
    for oracle in (exact.log_marginal, exact.log_posterior):
        with pytest.raises(
            ValueError, match=r"narrower than the \d+ points along axis 0 of the grid are apart: one holds"
        ):
            oracle(vae, x, exact.grid([-6.0], [6.0], points))
    variance = slope**2 + 0.01
    truth = -0.5 * (x[:, 0].square() / variance + math.log(2 * math.pi * variance))
    assert (exact.log_marginal(vae, x, exact.grid([-6.0], [6.0], 6001)) - truth).abs().max() < 1e-9


def test_the_distance_of_a_continuous_code_is_an_integral() -> None:
    """With the prior's mass for weights a finer and wider rule changes nothing; with equal ones it does."""
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    prior = Prior(torch.tensor([0.0, -0.5], dtype=F64), Gaussian)
    vae = VAE(
        prior, Conditional(bent, Bernoulli), Conditional(nn.Linear(3, 2).double(), Gaussian.from_mean_log_variance)
    )
    x = all_bits(3).double()
    by_mass, alike = [], []
    for edge, points in ((6.0, 121), (7.0, 281)):
        rule = exact.grid([-edge], [edge], points)
        mass = (vae.prior().log_prob(rule.points) + rule.log_weights).softmax(0)
        with torch.no_grad():
            table = log_bilinear.joint_table(vae, x, rule)
        by_mass.append(float(log_bilinear.distance(table, z_weights=mass)))
        alike.append(float(log_bilinear.distance(table)))
    assert by_mass[0] == pytest.approx(by_mass[1], rel=1e-6)
    assert abs(alike[0] - alike[1]) > 0.01
    even = torch.full((len(table.psi),), 1 / len(table.psi), dtype=F64)
    assert float(log_bilinear.distance(table, z_weights=even)) == pytest.approx(alike[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda v: VAE(Bernoulli(torch.zeros(2)), v.decoder, v.encoder),
            r"prior must be a Prior\(eta, family\), got Bern",
        ),
        (
            lambda v: VAE(v.prior, Bernoulli, v.encoder),
            r"decoder must be a Conditional\(network, family\), got ABCMeta",
        ),
        (lambda v: VAE(nn.Identity(), v.decoder, v.encoder).encode(torch.zeros(4, 3)), "forward"),
        (
            lambda v: VAE(v.prior, nn.Linear(2, 3), v.encoder).decode(torch.zeros(4, 2)),
            "the decoder makes a Tensor, no f",
        ),
        (
            lambda v: VAE(v.prior, v.decoder, nn.Linear(3, 2)).encode(torch.zeros(4, 3)),
            "the encoder makes a Tensor, no f",
        ),
        (lambda _: Conditional(lambda z: z, Bernoulli), r"network must be a torch\.nn\.Module, got function"),
        (lambda v: exact.enumerate_states(v.prior), r"takes a family, such as vae\.prior\(\), got Prior"),
        (lambda v: elbo(v, torch.zeros(4, 3), DisARM), r"needs an estimator, such as DisARM\(\), got DisARM"),
        (lambda v: elbo(v, torch.zeros(4, 3), None), r"needs an estimator, such as DisARM\(\), got None"),
    ],
)
def test_another_thing_in_the_place_of_a_part_is_refused(make, message: str) -> None:
    vae = VAE(
        Prior(torch.zeros(2), Bernoulli),
        Conditional(nn.Linear(2, 3), Bernoulli),
        Conditional(nn.Linear(3, 2), Bernoulli),
    )
    with pytest.raises(TypeError, match=message):
        make(vae)


@pytest.mark.parametrize("make", [ARM, DisARM, Reinforce, StraightThrough, Reparameterized, Exact])
@pytest.mark.parametrize("number", [1.5, True, "2", -1, 0, np.int64(0)])
def test_a_number_of_samples_is_a_whole_number(make, number) -> None:
    with pytest.raises(
        ValueError, match=rf"^{make.__name__}: (samples|nodes) must be a whole number of at least \d, got "
    ):
        make(number)


def test_a_number_of_numpy_is_one() -> None:
    assert Exact(np.int64(8)).nodes == DisARM(np.int64(8)).samples == 8


def test_widths_and_depths_below_their_least_are_refused() -> None:
    vae, *_ = small_vae()
    with pytest.raises(ValueError, match=r"mlp: every width must be at least 1, got \[2, 0, 3\]"):
        mlp((2, 0, 3))
    with pytest.raises(ValueError, match="with_encoder: depth must be at least 0, got -1"):
        with_encoder(vae, Bernoulli, 5, 2, -1, 0)


@pytest.mark.parametrize("across", [0, 1])
def test_a_grid_too_coarse_along_one_axis_is_refused(across: int) -> None:
    """One coordinate is sharp, the other free: no point of the grid holds half of the posterior."""
    line = nn.Linear(2, 1).double()
    with torch.no_grad():
        line.weight.copy_(torch.eye(2, dtype=F64)[across : across + 1] * 20)
        line.bias.zero_()
    vae = VAE(
        Prior(torch.tensor([0.0, 0.0, -0.5, -0.5], dtype=F64), Gaussian),
        Conditional(line, partial(GaussianFixedVariance.from_mean, variance=0.01)),
        Conditional(nn.Linear(1, 4).double(), Gaussian.from_mean_log_variance),
    )
    x = torch.tensor([[0.1]], dtype=F64)
    with pytest.raises(ValueError, match=f"points along axis {across} of the grid are apart"):
        exact.log_marginal(vae, x, exact.grid([-6.0] * 2, [6.0] * 2, 161))


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_a_rule_of_few_nodes_that_is_exact_is_taken(nodes: int) -> None:
    """Gauss and Hermite's at the posterior of a linear model: one point may hold all of it."""
    line = nn.Linear(1, 1).double()
    vae = VAE(
        Prior(torch.tensor([0.0, -0.5], dtype=F64), Gaussian),
        Conditional(line, partial(GaussianFixedVariance.from_mean, variance=0.01)),
        Conditional(nn.Linear(1, 2).double(), Gaussian.from_mean_log_variance),
    )
    slope, shift = (float(p.detach()) for p in (line.weight, line.bias))
    precision = 1 + slope**2 / 0.01
    mean = torch.tensor([slope * (0.3 - shift) / 0.01 / precision], dtype=F64)
    rule = exact.gauss_hermite(nodes, mean, torch.tensor([precision**-0.5], dtype=F64))
    variance = slope**2 + 0.01
    truth = -0.5 * ((0.3 - shift) ** 2 / variance + math.log(2 * math.pi * variance))
    found = exact.log_marginal(vae, torch.tensor([[0.3]], dtype=F64), rule)
    assert found.item() == pytest.approx(truth, abs=1e-9)


def test_states_without_a_base_measure_are_not_of_the_support():
    states = all_bits(2, torch.zeros((), dtype=F64))
    base = torch.tensor([0, 0, 0, -torch.inf], dtype=F64)
    latent = partial(Tabular, states=states, statistic=states, log_base=base)
    assert torch.equal(latent(torch.zeros(2, dtype=F64)).support(), states[:3])
    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    zeros = torch.zeros(6, dtype=F64)
    vae = Harmonium(Bernoulli, latent, weight, zeros, torch.zeros(2, dtype=F64)).as_vae()  # tight by construction
    x, rule = all_bits(6, zeros), exact.enumerate_states(vae.prior())
    assert exact.posterior_kl(vae, x, rule).abs().max() < 1e-12
    assert consistency.is_consistent(vae, x, rule)
    assert log_bilinear.distance(log_bilinear.joint_table(vae, x, rule)) < 1e-9


def test_a_state_that_the_family_lacks_has_no_gradient() -> None:
    """−∞ times zero in the backward pass: an expectation, and the training of an encoder."""
    vae, rule, x = small_vae()
    base = torch.tensor([0.3, 0.0, -0.5, 0.0, 0.0, 0.2, 0.0, -torch.inf], dtype=F64)
    family = partial(Tabular, states=rule.points, statistic=rule.points, log_base=base)
    eta = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    q = family(eta)
    Exact().expectation(q, q.log_prob).sum().backward()
    assert eta.grad is not None
    assert eta.grad.isfinite().all()
    one = x[:1]
    found = train_encoder(
        VAE(vae.prior, vae.decoder, Conditional(nn.Linear(5, 3).double(), family)), one, torch.ones(1, dtype=F64), rule
    )
    assert found == pytest.approx(float(family_gap(exact.log_posterior(vae, one, rule), rule.points, base)), abs=1e-8)
