"""Section 3.1, the diagonal Gaussian VAE, on random models: eq-10, case-gaussian, sec-3-1, cor-2.

Each check is a function that says whether a statement holds; it must hold for the models drawn, and fail once the
statement is broken.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from efvae import exact
from efvae.consistency import family_residual
from efvae.descent import minimize
from efvae.families import Gaussian, GaussianFixedVariance
from efvae.gaussian.joint import (
    TightGaussian,
    average_log_likelihood,
    diagonal_gap,
    posterior_precision,
    rotate_latent,
)
from efvae.gaussian.ppca import PPCA
from efvae.models import VAE, Conditional, Prior

SEEDS = range(4)
SIZES = [(1, 1), (3, 2), (5, 3)]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joint(n: int, m: int, seed: int, margin: float = 0.5) -> TightGaussian:
    """A random joint (10) whose prior precision has least eigenvalue `margin`, negative on the wrong side."""
    noise = draw(seed + 3, 1)[0].exp()
    weight = draw(seed, n, m)
    weight = (weight + 0.8 * weight.sign()) / noise.sqrt()
    c = -0.5 * torch.linalg.eigvalsh(noise * weight.T @ weight).max() - 0.5 * draw(seed + 4, m).abs()
    lowest = torch.linalg.eigvalsh(torch.diag(-2 * c) - noise * weight.T @ weight).min()
    c = c - 0.5 * (margin - lowest)
    return TightGaussian(weight, draw(seed + 1, n), draw(seed + 2, m), c, noise)


def normal(model: TightGaussian) -> torch.distributions.MultivariateNormal:
    """The same law from its precision matrix and linear term alone."""
    precision = model.joint_precision
    linear = torch.cat([model.visible_bias, model.latent_bias])
    return torch.distributions.MultivariateNormal(torch.linalg.solve(precision, linear), precision_matrix=precision)


# --- the joint (10) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_normalisable_iff_joint_precision_is_positive(n, m, seed) -> None:
    """own-normalisable: Schur's condition on (c, W) against the eigenvalues of the whole precision matrix."""
    for margin in (0.3, 1e-3, -1e-3, -0.3):
        model = joint(n, m, seed, margin)
        positive = bool(torch.linalg.eigvalsh(model.joint_precision).min() > 0)
        assert model.is_normalisable() == positive == (margin > 0)
        broken = torch.diag(-2 * model.latent_square) - 2 * model.noise * model.weight.T @ model.weight
        if margin == 1e-3:  # a factor 2 in the condition
            assert bool(torch.linalg.eigvalsh(broken).min() > 0) != positive


@pytest.mark.parametrize("seed", SEEDS)
def test_integral_over_growing_boxes(seed) -> None:
    """own-normalisable, by brute force: the integral settles at Z on one side and grows on the other."""

    def box(model: TightGaussian, half: float) -> float:
        rule = exact.grid([-half, -half], [half, half], 600)
        log = model.log_unnormalised(rule.points[:, :1], rule.points[:, 1:])
        return float(torch.logsumexp(log + rule.log_weights, 0))

    good = TightGaussian(**_scalar(seed, 0.6))
    assert box(good, 15.0) == pytest.approx(float(good.log_partition()), rel=1e-9, abs=1e-9)
    bad = TightGaussian(**_scalar(seed, -0.3))
    assert bad.log_partition() == math.inf
    assert box(bad, 12.0) > box(bad, 9.0) + 1.0 > box(bad, 6.0) + 2.0


def _scalar(seed: int, margin: float) -> dict[str, Tensor]:
    """n = m = 1 with −2c = σ²w² + margin."""
    w, a, b = (
        draw(seed, 1, 1).sign() * (1 + 0.2 * draw(seed, 1, 1).abs()),
        0.3 * draw(seed + 1, 1),
        0.3 * draw(seed + 2, 1),
    )
    noise = torch.tensor(0.8, dtype=torch.float64)
    return {"weight": w, "visible_bias": a, "latent_bias": b, "noise": noise,
            "latent_square": -0.5 * (noise * w[0] ** 2 + margin)}  # fmt: skip


def conditionals_agree(model: TightGaussian, encoder_factor: float = 1.0) -> bool:
    """Whether decoder, encoder, prior and density are those of the whole Gaussian, by conditioning its covariance."""
    law, n = normal(model), len(model.weight)
    x, z = draw(91, 7, n), draw(92, 7, model.weight.shape[1])
    cov, mean = law.covariance_matrix, law.mean
    xx, xz, zz = cov[:n, :n], cov[:n, n:], cov[n:, n:]
    gain = torch.linalg.solve(xx, xz)
    pairs = [
        (model.log_prob(x, z), law.log_prob(torch.cat([x, z], -1))),
        (model.encoder(x).location, mean[n:] + (x - mean[:n]) @ gain),
        (encoder_factor * model.encoder(x).variance, torch.diagonal(zz - xz.T @ gain).expand_as(z)),
        (model.decoder(z).location, mean[:n] + (z - mean[n:]) @ torch.linalg.solve(zz, xz.T)),
        (model.prior_mean, mean[n:]),
        (torch.linalg.inv(model.prior_precision), zz),
    ]
    return all(torch.allclose(ours, other, rtol=1e-9, atol=1e-9) for ours, other in pairs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_conditionals_of_the_joint(n, m, seed) -> None:
    """eq-10: affine decoder, σ_e² = −1/(2c), affine μ_e, Gaussian prior; not with σ_e² = −1/c or another W."""
    model = joint(n, m, seed)
    assert conditionals_agree(model)
    assert not conditionals_agree(model, encoder_factor=2.0)
    wrong = replace(model, weight=1.01 * model.weight)
    x = draw(5, 4, n)
    assert not torch.allclose(wrong.encoder(x).location, model.encoder(x).location, rtol=1e-4)


def tightness(vae: VAE, x: Tensor) -> float:
    """Largest posterior gap by quadrature, in nats."""
    m = vae.prior().event_shape[0]
    rule = exact.grid([-10.0] * m, [10.0] * m, 1001 if m == 1 else 161)
    return float(exact.posterior_kl(vae, x, rule).detach().max())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 1), (3, 2), (5, 2)])
def test_tight_with_a_standard_prior(n, m, seed) -> None:
    """own-standard-prior: orthogonal columns are tight under N(0, I); oblique ones are refused, and have a gap."""
    loadings, mean, noise = draw(seed, n, m), draw(seed + 1, n), 0.5 + draw(seed + 2, 1)[0].abs()
    model = TightGaussian.with_standard_prior(rotate_latent(loadings), mean, noise)
    torch.testing.assert_close(model.prior_precision, torch.eye(m).double(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.prior_mean, torch.zeros(m).double(), rtol=0, atol=1e-9)
    x = mean + draw(seed + 3, 4, n)
    assert tightness(model.as_vae(), x) < 1e-10
    assert tightness(_off(model), x) > 1e-5
    if m > 1:
        with pytest.raises(ValueError, match="not orthogonal"):
            TightGaussian.with_standard_prior(loadings, mean, noise)
        assert diagonal_gap(posterior_precision(loadings, noise)) > 1e-6


def _off(model: TightGaussian) -> VAE:
    """The tight VAE with its encoder variance 2 % off."""
    vae = model.as_vae()
    with torch.no_grad():
        vae.encoder.network.bias[len(model.latent_bias) :] *= 1.02
    return vae


@pytest.mark.parametrize("seed", SEEDS)
def test_rotation_keeps_the_law_of_x(seed) -> None:
    """own-rotation, cor-2 for a fixed rotation-invariant prior: same likelihood, zero gap."""
    loadings, noise = draw(seed, 6, 3), 0.3
    turned = rotate_latent(loadings)
    torch.testing.assert_close(turned @ turned.T, loadings @ loadings.T, rtol=1e-9, atol=1e-9)
    assert diagonal_gap(posterior_precision(turned, noise)) < 1e-12
    assert diagonal_gap(posterior_precision(loadings, noise)) > 1e-3
    assert diagonal_gap(posterior_precision(loadings.T @ turned, noise)) > -1e-12


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("v", [0.0, 0.05, 0.3])
def test_quadratic_decoder_is_tight_only_without_the_square(v, seed) -> None:
    """eq-10 with V ≠ 0 under the prior N(0, 1): affine in ψ(z) = (z, z²), yet no Gaussian posterior."""
    w, a, noise = draw(seed, 2), draw(seed + 1, 2), 0.4
    direction = draw(seed + 2, 2)

    class Decoder(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return a + z * w + v * z * z * direction

    prior = Gaussian.from_mean_variance(torch.zeros(1).double(), torch.ones(1).double())
    vae = VAE(
        Prior(prior.eta, Gaussian),
        Conditional(Decoder(), lambda mean: GaussianFixedVariance.from_mean(mean, noise)),
        Conditional(nn.Linear(2, 2).double(), Gaussian.from_mean_log_variance),
    )
    residual = family_residual(vae, a + draw(seed + 3, 5, 2), exact.grid([-4], [4], 201)).max()
    assert (residual < 1e-9) == (v == 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("v", [0.0, 1e-3, 0.2])
def test_the_prior_of_the_joint_explodes_with_the_square(v, seed) -> None:
    """own-v-zero: the marginal of z is exp(quartic) with leading coefficient σ²|V_j|²/2 > 0, whatever the data are."""
    w, column, a, noise, b, c = draw(seed, 3), draw(seed + 1, 3), draw(seed + 2, 3), 0.7, 0.4, -20.0
    z = torch.tensor([1e5, 1e6, 1e7], dtype=torch.float64)
    eta = a + z[:, None] * w + z[:, None].square() * v * column
    log_prior = b * z + c * z * z + GaussianFixedVariance(eta, noise).log_partition()
    assert bool(log_prior.diff().gt(0).all()) == (v != 0)
    if v:
        assert log_prior[-1] / z[-1] ** 4 == pytest.approx(0.5 * noise * v**2 * float(column.square().sum()), rel=0.2)


@pytest.mark.parametrize("seed", SEEDS)
def test_bounded_observations_allow_a_square(seed) -> None:
    """own-v-zero needs unbounded x: on x ∈ [−1, 1] a joint with V ≠ 0 is normalisable, its posterior Gaussian, and
    the posterior's variance depends on x."""
    w, b = draw(seed, 1)[0], draw(seed + 1, 1)[0]
    v, c = 0.8, -1.2
    x, z = exact.grid([-1], [1], 201), exact.grid([-25], [25], 4001)
    table = x.points * (w * z.points.T + v * z.points.T**2) - 2 * x.points**2 + b * z.points.T + c * z.points.T**2
    halves = [torch.logsumexp((table + z.log_weights)[:, z.points[:, 0].abs() < r].flatten(), 0) for r in (12.5, 25)]
    assert halves[0] == pytest.approx(float(halves[1]), abs=1e-9)  # normalisable
    post = torch.softmax(table + z.log_weights, 1)
    mean = post @ z.points[:, 0]
    variance = (post * (z.points[:, 0] - mean[:, None]) ** 2).sum(1)
    torch.testing.assert_close(variance, -0.5 / (c + v * x.points[:, 0]), rtol=1e-9, atol=1e-12)
    assert variance.max() / variance.min() > 3


# --- the diagonal gap ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("m", [1, 2, 4])
def test_gap_of_the_best_diagonal_gaussian(m, seed) -> None:
    """own-diag-gap against KL of full Gaussians and a numerical search; the covariance's own diagonal is no optimum."""
    root = draw(seed, m, m + 1)
    precision, mean = root @ root.T + 0.1 * torch.eye(m).double(), draw(seed + 1, m)
    target = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)

    def kl(location: Tensor, variance: Tensor) -> Tensor:
        q = torch.distributions.MultivariateNormal(location, torch.diag(variance))
        return torch.distributions.kl_divergence(q, target)

    gap = diagonal_gap(precision)
    torch.testing.assert_close(kl(mean, 1 / precision.diagonal()), gap, rtol=1e-9, atol=1e-12)
    location, log_variance = (mean + draw(seed + 2, m)).requires_grad_(), draw(seed + 3, m).requires_grad_()
    found = minimize(lambda: kl(location, log_variance.exp()), [location, log_variance])
    assert found == pytest.approx(float(gap), rel=1e-9, abs=1e-11)
    marginal = torch.linalg.inv(precision).diagonal()
    assert (kl(mean, marginal) > gap + 1e-6) == (m > 1)
    if m > 1:  # the statement with the covariance in place of the precision
        assert diagonal_gap(torch.linalg.inv(precision)) != pytest.approx(float(gap), rel=1e-3) or m == 2


# --- probabilistic PCA ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 2), (8, 3)])
def test_ppca_is_the_maximum_of_the_likelihood(n, k, seed) -> None:
    """own-ppca against the general Gaussian density and against L-BFGS on (M, σ²) from a random start."""
    x = draw(seed, 60, n) @ draw(seed + 1, n, n) + draw(seed + 2, n)
    model = PPCA.fit(x, k)
    law = torch.distributions.MultivariateNormal(model.mean, model.covariance)
    torch.testing.assert_close(model.log_prob(x), law.log_prob(x), rtol=1e-9, atol=1e-9)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / len(x)
    torch.testing.assert_close(model.log_likelihood(covariance), law.log_prob(x).mean(), rtol=1e-9, atol=1e-9)
    loadings, log_noise = draw(seed + 3, n, k).requires_grad_(), torch.zeros(()).double().requires_grad_()
    zero = torch.zeros(n).double()

    def loss(factor: float = 1.0) -> Tensor:
        c = loadings @ loadings.T + factor * log_noise.exp() * torch.eye(n).double()
        return -average_log_likelihood(c, zero, covariance)

    found = -minimize(loss, [loadings, log_noise])
    assert found == pytest.approx(float(model.log_likelihood(covariance)), rel=1e-9)
    assert float(log_noise.detach().exp()) == pytest.approx(float(model.noise), rel=1e-3)
    for factor in (0.9, 1.1):  # a wrong noise is worse
        assert replace(model, noise=factor * model.noise).log_likelihood(covariance) < found - 1e-5


def posterior_agrees(model: PPCA, x: Tensor, power: float = 1.0) -> bool:
    """Whether PPCA.posterior is Bayes' rule in the covariance; `power` breaks σ²/λ into σ²/λ^power."""
    precision = posterior_precision(model.loadings, model.noise)
    mean = torch.linalg.solve(precision, ((x - model.mean) @ model.loadings / model.noise).T).T
    q = model.posterior(x)
    variance = q.variance * model.eigenvalues ** (1 - power)
    return torch.allclose(q.location, mean, rtol=1e-9, atol=1e-9) and torch.allclose(
        torch.diag_embed(variance), torch.linalg.inv(precision).expand(len(x), -1, -1), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_encoder_variance_is_noise_over_eigenvalue(seed) -> None:
    """own-ppca: σ_e² = σ²/λ_j, and the tight VAE of the same model has gap zero."""
    x = draw(seed, 40, 5) @ draw(seed + 1, 5, 5)
    model = PPCA.fit(x, 2)
    assert posterior_agrees(model, x[:6])
    assert not posterior_agrees(model, x[:6], power=2.0)
    vae = model.as_vae()
    torch.testing.assert_close(vae.encoder(x).location, model.posterior(x).location, rtol=1e-9, atol=1e-9)
    rule = exact.grid([-11, -11], [11, 11], 241)
    torch.testing.assert_close(exact.log_marginal(vae, x[:5], rule), model.log_prob(x[:5]), rtol=1e-9, atol=1e-9)
    assert exact.posterior_kl(vae, x[:5], rule).abs().max() < 1e-10


def test_ppca_agrees_with_scikit_learn() -> None:
    """A third party on real data: mean log-likelihood of PCA.score (covariance with 1/(N − 1))."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    datasets = pytest.importorskip("sklearn.datasets")
    x = torch.tensor(datasets.load_wine().data, dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0)
    for k in (1, 3, 8):
        model = PPCA.from_moments(x.mean(0), x.T.cov(), k)
        theirs = decomposition.PCA(n_components=k, svd_solver="full").fit(x.numpy()).score(x.numpy())
        assert float(model.log_prob(x).mean()) == pytest.approx(float(theirs), rel=1e-9)


def test_bad_input_is_refused() -> None:
    good = joint(3, 2, 0)
    with pytest.raises(ValueError, match="every c must be negative"):
        replace(good, latent_square=-good.latent_square)
    with pytest.raises(ValueError, match="noise variance must be positive"):
        replace(good, noise=-good.noise)
    with pytest.raises(ValueError, match="dependent coordinates"):
        good.as_vae()
    with pytest.raises(ValueError, match="number of components"):
        PPCA.fit(draw(0, 10, 3), 3)
    with pytest.raises(ValueError, match="lie in 1 dim"):
        PPCA.fit(draw(0, 10, 1) @ draw(1, 1, 3), 1)
