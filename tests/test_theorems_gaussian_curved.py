"""Section 3.1 beyond the tight case, on random models: curved decoders, Gaussian conditionals without a Gaussian joint,
and the linear VAE trained to its optimum. eq-10, case-gaussian, cor-2."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from efvae import exact
from efvae.consistency import family_residual
from efvae.estimators import Reparameterized, gauss_hermite_nodes
from efvae.families import Bernoulli, ExponentialFamily, Gaussian, all_bits
from efvae.gaussian.conditionals import (
    ContinuousHarmonium,
    TiedPrior,
    gelman_meng,
    gelman_meng_modes,
    is_normalisable,
    normal_conditionals,
)
from efvae.gaussian.curves import CurveFit, curve_log_joint, fit_curve, gap_curvature, gap_of_curve, powers
from efvae.gaussian.joint import diagonal_gap, posterior_precision
from efvae.gaussian.ppca import PPCA, linear_vae, loadings_of, maximize_elbo, principal_angles
from efvae.models import VAE, Conditional, Prior
from efvae.objectives import elbo
from efvae.train import TrainConfig, fit

SEEDS = range(4)
LINE = exact.grid([-14], [14], 1121)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the linear VAE ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "n", "k"), [(0, 3, 1), (1, 6, 2)])
def test_trained_linear_vae_is_ppca(seed, n, k) -> None:
    """cor-2, own-ppca: at the ELBO optimum the gap is zero; likelihood, axes and variances are those of PPCA."""
    x = draw(seed, 200, n) @ draw(seed + 1, n, n) + draw(seed + 2, n)
    model, vae = PPCA.fit(x, k), linear_vae(n, k, seed)
    reached = maximize_elbo(vae, x)
    assert reached == pytest.approx(float(model.log_prob(x).mean()), rel=1e-9)
    loadings, mean, noise = loadings_of(vae)
    assert diagonal_gap(posterior_precision(loadings, noise)) < 1e-8
    assert principal_angles(loadings, model.axes).max() < 1e-3
    assert float(noise) == pytest.approx(float(model.noise), rel=1e-4)
    torch.testing.assert_close(mean, model.mean, rtol=1e-3, atol=1e-3)
    order = loadings.square().sum(0).argsort(descending=True)
    cosines = (loadings / loadings.norm(dim=0))[:, order].mul(model.axes).sum(0)
    assert cosines.abs().min() > 1 - 1e-5  # each column is one principal axis: the rotation is fixed up to signs
    variance = vae.encoder(x[:1]).variance[0, order].detach()
    torch.testing.assert_close(variance, model.noise / model.eigenvalues, rtol=1e-3, atol=0)
    assert not torch.allclose(variance, 1 / model.eigenvalues, rtol=1e-2)  # a wrong factor
    ours, theirs = vae.encoder(x).location.detach()[:, order], model.posterior(x).location
    torch.testing.assert_close(ours * cosines.sign(), theirs, rtol=1e-3, atol=1e-3)


def test_sampled_gradients_come_near_the_same_optimum() -> None:
    x = draw(7, 100, 4) @ draw(8, 4, 4)
    vae, model = linear_vae(4, 1, 3), PPCA.fit(x, 1)
    config = TrainConfig(steps=600, learning_rate=3e-2, final_learning_rate=1e-4, eval_every=600)
    fit(vae, lambda b, g: -elbo(vae, b, Reparameterized(4), g), lambda g: x, config)
    loadings, _, noise = loadings_of(vae)
    assert float(noise) == pytest.approx(float(model.noise), rel=0.1)
    assert principal_angles(loadings, model.axes).max() < 0.1


# --- curvature -----------------------------------------------------------------------------------------------------


def least_gap_ratios(t: float, seed: int, family: str) -> tuple[float, float]:
    """min KL to the perturbed law, over t² times the predicted coefficient; and over the wrong one, ½ Var_q r."""
    if family == "bernoulli":
        q, rule = Bernoulli(draw(seed, 3)), exact.enumerate_states(Bernoulli(draw(seed, 3)))
        r = draw(seed + 1, 8)
        log_p = q.log_prob(all_bits(3)) + t * r
        best = exact.mean_field(log_p[:, None], 3)
        log_q = best.log_prob(all_bits(3)[:, None])[:, 0]
        gap = (log_q.exp() * (log_q - torch.log_softmax(log_p, 0))).sum()
        return _over_both(gap / t**2, q, r, rule)
    # a Gaussian posterior and a cubic perturbation of the decoder: one x of a curve with slope t
    slope, noise = 1.0 + 0.3 * float(draw(seed, 1)), torch.tensor(0.4, dtype=torch.float64)
    x = draw(seed + 1, 1, 2)
    b = torch.tensor([[0.0, slope, 0.0, 0.0], [0.0, 0.0, 0.0, t]], dtype=torch.float64)
    straight = b * torch.tensor([[1.0], [0.0]]).double()
    joint = curve_log_joint(straight, noise.log(), x, LINE.points[:, None])[:, 0]
    weight = torch.softmax(joint + LINE.log_weights, 0)
    z = LINE.points[:, 0]
    m = (weight * z).sum()
    q = Gaussian.from_mean_variance(m[None], (weight * (z - m) ** 2).sum()[None])
    return _over_both(gap_of_curve(b, noise.log(), x, LINE)[0] / t**2, q, x[0, 1] * z**3 / noise, LINE)


def _over_both(scaled: Tensor, q: ExponentialFamily, r: Tensor, rule: exact.Rule) -> tuple[float, float]:
    weight = (q.log_prob(rule.points) + rule.log_weights).exp()
    unprojected = 0.5 * (weight * (r - (weight * r).sum()) ** 2).sum()
    return float(scaled / gap_curvature(q, r, rule)), float(scaled / unprojected)


@pytest.mark.parametrize("family", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("seed", SEEDS)
def test_gap_grows_with_the_square_of_the_perturbation(family, seed) -> None:
    """own-gap-curvature: the ratio tends to 1 at rate t; without the projection it does not."""
    (coarse, _), (fine, wrong) = (least_gap_ratios(t, seed, family) for t in (1e-3, 1e-4))
    assert abs(fine - 1) < 0.02
    assert abs(fine - 1) < abs(coarse - 1) + 1e-3
    assert wrong < 0.95


def model_data(b: Tensor, log_noise: Tensor, codes: int, noises: int) -> tuple[Tensor, Tensor]:
    """Points and weights that integrate over the model's own law of x."""
    z, log_w = gauss_hermite_nodes(codes, 1, b)
    e, log_v = gauss_hermite_nodes(noises, len(b), b)
    x = (powers(z, b.shape[1] - 1) @ b.T)[:, None] + (0.5 * log_noise).exp() * e
    return x.flatten(0, 1), (log_w[:, None] + log_v).exp().flatten()


@pytest.mark.parametrize(("slope", "noise"), [(1.0, 0.25), (0.7, 0.5)])
def test_gap_of_two_curves_to_leading_order(slope, noise) -> None:
    """own-curved-gap: z³ gives 3 t² s⁶/σ²; z² − 1, absorbed to first order, t⁴ (12 (1−s²) s⁶ + 3 s⁸)/σ⁴."""
    s2, log_noise = 1 / (1 + slope**2 / noise), torch.tensor(noise, dtype=torch.float64).log()
    rule = exact.grid([-9], [9], 361)

    def gap(t: float, degree: int) -> float:
        b = torch.zeros(2, degree + 1, dtype=torch.float64)
        b[0, 1], b[1, degree] = slope, t
        if degree == 2:
            b[1, 0] = -t
        x, weight = model_data(b, log_noise, 14, 6)
        return float((weight * gap_of_curve(b, log_noise, x, rule)).sum())

    for t, degree, power, leading in [
        (1e-3, 3, 2, 3 * s2**3 / noise),
        (1e-2, 2, 4, (12 * (1 - s2) * s2**3 + 3 * s2**4) / noise**2),
    ]:
        small, double = gap(t, degree), gap(2 * t, degree)
        assert small / (leading * t**power) == pytest.approx(1, abs=0.02)
        assert math.log2(double / small) == pytest.approx(power, abs=0.05)  # the power, whatever the coefficient


def test_elbo_bends_a_curve_towards_a_line() -> None:
    """own-curved-gap, eq-2: the ELBO optimum has less curvature than the ML curve, and less likelihood."""
    b = torch.tensor([[0.0, 0.6, 0.0], [-0.6, 0.0, 0.6]], dtype=torch.float64)
    log_noise = torch.tensor(0.2, dtype=torch.float64).log()
    x, weight = model_data(b, log_noise, 12, 4)
    rule = exact.grid([-8], [8], 121)
    truth = CurveFit(b, log_noise, math.nan)
    ml = fit_curve(truth, x, weight, rule, objective="likelihood")
    bound = fit_curve(truth, x, weight, rule, objective="elbo")
    joint = curve_log_joint(bound.coefficients, bound.log_noise, x, rule.points[:, None])
    likelihood = float((weight * torch.logsumexp(joint + rule.log_weights[:, None], 0)).sum())
    assert bound.value < likelihood < ml.value
    assert float(bound.coefficients[1, 2].abs()) < 0.97 * float(ml.coefficients[1, 2].abs())
    with pytest.raises(ValueError, match="must be 'likelihood' or 'elbo'"):
        fit_curve(truth, x, weight, rule, objective="ELBO")


# --- Gaussian conditionals, joint not Gaussian ----------------------------------------------------------------------


def random_table(seed: int, margin: float) -> Tensor:
    """A random 3 × 3 table; for margin > 0 its law is normalisable, for margin < 0 it misses one condition."""
    g = draw(seed, 8)
    m22 = -0.2 - 0.3 * g[0].abs()
    m12, m21 = 0.6 * g[1], 0.6 * g[2]
    m02, m20 = m12**2 / (4 * m22) - margin, m21**2 / (4 * m22) - abs(margin)
    return torch.stack([torch.stack([m22 * 0, g[3], m02]), torch.stack([g[4], g[5], m12]),
                        torch.stack([m20, m21, m22])])  # fmt: skip


def log_law(table: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return sum(table[i, j] * x**i * z**j for i in range(3) for j in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", SEEDS)
def test_normalisability_of_gaussian_conditionals(seed) -> None:
    """own-normal-conditionals against integrals over growing boxes."""

    def box(table: Tensor, half: float) -> float:
        rule = exact.grid([-half, -half], [half, half], 1000)
        return float(torch.logsumexp(log_law(table, *rule.points.T) + rule.log_weights, 0))

    good, bad = random_table(seed, 0.8), random_table(seed, -0.3)
    assert is_normalisable(good)
    assert not is_normalisable(bad)
    assert is_normalisable(good.T)
    assert not is_normalisable(bad.T)
    assert box(good, 16.0) == pytest.approx(box(good, 11.0), abs=1e-9)
    assert box(bad, 16.0) > box(bad, 11.0) + 1 > box(bad, 8.0) + 2
    rule = exact.grid([-16], [16], 1601)
    model = normal_conditionals(good, rule)  # its base measures hold a factor 1/√(2π) each
    assert float(model.log_partition().detach()) + math.log(2 * math.pi) == pytest.approx(box(good, 16.0), abs=1e-8)
    with pytest.raises(ValueError, match="no finite integral"):
        normal_conditionals(bad, rule)


def excess(log_density: Tensor, rule: exact.Rule) -> Tensor:
    """|skewness| + |excess kurtosis| of densities given on a line, shape ``(batch,)``."""
    weight = torch.softmax(log_density + rule.log_weights[:, None], 0)
    z = rule.points[:, :1]
    centred = z - (weight * z).sum(0)
    m2, m3, m4 = ((weight * centred**k).sum(0) for k in (2, 3, 4))
    return (m3 / m2**1.5).abs() + (m4 / m2**2 - 3).abs()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("broken", [0.0, 0.02])
def test_both_conditionals_are_gaussian_and_the_vae_is_tight(seed, broken) -> None:
    """own-normal-conditionals, by quadrature; a small term x⁴z⁴ breaks it."""
    table = random_table(seed, 0.8)
    rule, fixed = exact.grid([-14], [14], 2001), draw(seed + 9, 5)
    line = rule.points

    def density(x: Tensor, z: Tensor) -> Tensor:
        return log_law(table, x, z) - broken * x**4 * z**4

    measured = torch.cat([excess(density(line, fixed), rule), excess(density(fixed, line), rule)])
    assert bool((measured < 1e-9).all()) == (broken == 0)
    if not broken:
        vae = normal_conditionals(table, rule).as_vae()
        assert exact.posterior_kl(vae, fixed[:, None], rule).abs().max() < 1e-11
        assert excess(vae.prior().log_prob(line)[:, None], rule) > 1e-3  # the prior is no Gaussian
        normal = Gaussian.from_mean_variance(torch.zeros(1).double(), torch.ones(1).double())
        other = VAE(Prior(normal.eta, Gaussian), vae.decoder, vae.encoder)
        assert exact.posterior_kl(other, fixed[:, None], rule).min() > 1e-6


@pytest.mark.parametrize("pull", [0.5, 1.9, 2.1, 3.0, 5.0])
def test_modes_of_the_symmetric_law(pull) -> None:
    """own-bimodal: the stationary points are maxima, and a brute-force count on a grid agrees; two exactly if C > 2."""
    table, modes = gelman_meng(pull), gelman_meng_modes(pull)
    assert len(modes) == (2 if pull > 2 else 1)
    for mode in modes:
        gradient = torch.autograd.functional.jacobian(lambda p: log_law(table, p[0], p[1]), mode)
        hessian = torch.autograd.functional.hessian(lambda p: log_law(table, p[0], p[1]), mode)
        assert gradient.abs().max() < 1e-12 * max(1.0, pull**2)
        assert torch.linalg.eigvalsh(hessian).max() < 0
    axis = torch.linspace(-0.5, 6, 1301, dtype=torch.float64)
    value = log_law(table, axis[:, None], axis[None, :])
    inner = value[1:-1, 1:-1]
    around = [value[1 + i : 1300 + i, 1 + j : 1300 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    peak = torch.stack([inner > other for other in around]).all(0).nonzero()
    assert len({tuple(round(float(axis[k + 1]), 1) for k in row) for row in peak}) == len(modes)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gaussian_prior_leaves_no_room_for_a_varying_noise(seed) -> None:
    """own-constant-noise: under a Gaussian prior, a varying η2(z) or a square in η1(z) spoils the posterior."""
    g = draw(seed, 6)
    normal = Gaussian.from_mean_variance(torch.zeros(1).double(), torch.ones(1).double())

    def residual(weight: Tensor) -> float:
        bias = torch.stack([g[4], -0.5 - g[5].abs()])
        affine = ContinuousHarmonium(Gaussian, Gaussian, weight, bias, torch.tensor([0.0, -0.5]).double(), LINE)
        vae = VAE(Prior(normal.eta, Gaussian), affine.as_vae().decoder, Conditional(nn.Linear(1, 2).double(), _encoder))
        return float(family_residual(vae, draw(seed + 5, 4, 1), exact.grid([-3], [3], 121)).detach().max())

    zero = torch.zeros(()).double()
    straight = torch.stack([torch.stack([g[0], zero]), torch.stack([zero, zero])])
    assert residual(straight) < 1e-9
    noisy = straight.clone()
    noisy[1, 1] = -0.05 - 0.3 * g[3].abs()
    assert residual(noisy) > 1e-3
    curved = straight.clone()
    curved[0, 1] = 0.2 + g[1].abs()
    assert residual(curved) > 1e-3


def _encoder(raw: Tensor) -> Gaussian:
    return Gaussian.from_mean_log_variance(raw)


def test_tied_prior_is_a_density_with_a_gradient_and_samples() -> None:
    model = normal_conditionals(gelman_meng(3.0), LINE)
    prior = model.as_vae().prior()
    assert isinstance(prior, TiedPrior)
    mass = torch.logsumexp(prior.log_prob(LINE.points) + LINE.log_weights, 0)
    assert float(mass.detach()) == pytest.approx(0, abs=1e-12)
    z = prior.sample((4000,), torch.Generator().manual_seed(0))
    mean, second = prior.mean().detach()
    error = float((second - mean**2) / 4000) ** 0.5
    assert abs(float(z.mean() - mean)) < 4.5 * error
