# %% [markdown]
# (sec-3-1-gaussian-lab)=
# # The Gaussian VAE, computed
#
# The statements of {ref}`case-gaussian` (Section 3.1, sec-3-1), each on models that it was not tuned to. Oracles are closed forms and
# quadrature in double precision; all quantities are in nats.

# %% tags=["parameters"]
seed: int = 0  # in [0, 2**31): of all random models, data and starts
n: int = 6  # in [4, 12]: dimension of the synthetic observations
k: int = 2  # in [1, 3]: dimension of the code, m on the page
real: str = "wine"  # in {wine, iris, digits}: the real data set, bundled with scikit-learn
steps: int = 1000  # in [100, 20000]: training steps with sampled gradients
curvature: float = 0.6  # in [0.1, 1]: size of the square in the curved decoder
pull: float = 4.0  # in [0, 5]: C of the law with Gaussian conditionals

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import torch
from sklearn import datasets, decomposition
from torch import nn

from efvae import exact
from efvae.plots import gaussian as plots
from efvae.consistency import family_residual
from efvae.estimators import Exact, Reparameterized, gauss_hermite_nodes
from efvae.families import Gaussian, GaussianFixedVariance
from efvae.gaussian.conditionals import (
    ContinuousHarmonium,
    gelman_meng,
    gelman_meng_modes,
    is_normalisable,
    normal_conditionals,
)
from efvae.gaussian.curves import CurveFit, curve_log_joint, fit_curve, gap_of_curve, powers
from efvae.gaussian.frames import fit_frame, oblique_frame
from efvae.gaussian.joint import TightGaussian, diagonal_gap, posterior_precision, rotate_latent
from efvae.gaussian.ppca import PPCA, linear_vae, loadings_of, maximize_elbo, principal_angles
from efvae.models import VAE, Conditional, Prior
from efvae.objectives import elbo
from efvae.train import TrainConfig, fit

torch.set_default_dtype(torch.float64)
_ = torch.manual_seed(seed)
defaults = (seed, n, k, real, steps, curvature, pull) == (0, 6, 2, "wine", 1000, 0.6, 4.0)

# %% [markdown]
# ## The joint law (10)
#
# Which joints {eq}`eq-10` exist? Two hundred random $(W, a, b, c, \sigma_{\mathrm{d}}^2)$ with $V = 0$, $c < 0$, on both sides
# of the condition of {prf:ref}`own-normalisable`. It is compared with the eigenvalues of the whole precision matrix of
# $(x, z)$; where it holds, decoder, encoder and prior are compared with the conditionals of that Gaussian.

# %%
counts = {True: 0, False: 0}
for _ in range(200):
    weight, noise = torch.randn(n, k), torch.rand(()) + 0.2
    c = -0.5 * noise * torch.linalg.eigvalsh(weight.T @ weight).max() * (0.6 + 0.8 * torch.rand(k)) - 0.05
    model = TightGaussian(weight, torch.randn(n), torch.randn(k), c, noise)
    precision = model.joint_precision
    exists = bool(torch.linalg.eigvalsh(precision).min() > 0)
    assert model.is_normalisable() == exists
    counts[exists] += 1
    if exists:
        linear = torch.cat([model.visible_bias, model.latent_bias])
        law = torch.distributions.MultivariateNormal(torch.linalg.solve(precision, linear), precision_matrix=precision)
        x, z = torch.randn(5, n), torch.randn(5, k)
        difference = model.log_prob(x, z) - law.log_prob(torch.cat([x, z], -1))
        by_bayes = model.log_prob(x, z) - torch.distributions.MultivariateNormal(
            law.mean[:n], law.covariance_matrix[:n, :n]
        ).log_prob(x)
        assert difference.abs().max() < 1e-8
        assert (model.encoder(x).log_prob(z) - by_bayes).abs().max() < 1e-7
print(f"exist: {counts[True]}, do not: {counts[False]}; Schur's condition and eigenvalues agree on all 200")

# %% [markdown]
# The same by brute force, $n = m = 1$, $\sigma_{\mathrm{d}}^2 W^2 = 1$: logarithm of the integral over the square
# $[-R, R]^2$. On the wrong side of $-2c > 1$ it grows with $R$ without end.

# %%
one, zero = torch.ones(1), torch.zeros(1)
print(f"{'-2c':>6}" + "".join(f"{f'R = {half}':>10}" for half in (6, 9, 12)) + f"{'log Z':>10}")
for minus_2c in (2.0, 1.3, 0.9, 0.7):
    model = TightGaussian(one[None], zero, zero, torch.tensor([-minus_2c / 2]), torch.tensor(1.0))
    logs = []
    for half in (6.0, 9.0, 12.0):
        box = exact.grid([-half, -half], [half, half], 400)
        value = model.log_unnormalised(box.points[:, :1], box.points[:, 1:])
        logs.append(float(torch.logsumexp(value + box.log_weights, 0)))
    print(f"{minus_2c:6.1f}" + "".join(f"{v:10.4f}" for v in logs) + f"{float(model.log_partition()):10.4f}")
    assert (abs(logs[2] - float(model.log_partition())) < 1e-6) if minus_2c > 1 else logs[2] > logs[1] + 0.5

# %% [markdown]
# ## Why $V = 0$
#
# Two observed coordinates and one code: the decoder $\mu_{\mathrm{d}}(z) = (z + v z^2,\, z)$, here with
# $\sigma_{\mathrm{d}}^2 = 0.5$, is affine in $\psi(z) = (z, z^2)$. The prior tied to it is
# $\exp(|\mu_{\mathrm{d}}(z)|^2 / 2\sigma_{\mathrm{d}}^2 + c z^2)$; its logarithm is printed for $c = -3$, enough at $v = 0$. It
# grows like $v^2 z^4 / 2\sigma_{\mathrm{d}}^2$ ({prf:ref}`own-v-zero`). Under the prior $N(0, 1)$ the posterior is not Gaussian. Last column: how far
# it is from the Gaussian family, {py:func}`efvae.consistency.family_residual` on $[-4, 4]$, in nats.

# %%
line = exact.grid([-4], [4], 401)
normal = Gaussian.from_mean_variance(torch.zeros(1), torch.ones(1))


class Quadratic(nn.Module):
    def __init__(self, v: float) -> None:
        super().__init__()
        self.v = v

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z + self.v * z * z, z], -1)


print(f"{'v':>6}{'log prior weight, z = 10':>26}{'z = 100':>14}{'residual':>12}")
for v in (0.0, 0.01, 0.1, 0.5):
    decoder = Conditional(Quadratic(v), lambda mean: GaussianFixedVariance.from_mean(mean, 0.5))
    far = torch.tensor([[10.0], [100.0]])
    tied = decoder(far).log_partition() - 3.0 * far[:, 0].square()  # c = −3, enough for the linear part
    vae = VAE(Prior(normal.eta, Gaussian), decoder, Conditional(nn.Linear(2, 2), Gaussian.from_mean_log_variance))
    residual = float(family_residual(vae, torch.randn(4, 2), line).detach().max())
    assert (residual < 1e-9) == (v == 0)
    print(f"{v:6.2f}{float(tied[0]):26.1f}{float(tied[1]):14.3g}{residual if v else 0:12.3g}")

# %% [markdown]
# On bounded observations the argument stops: with $x \in [-1, 1]$, the joint
# $\exp(-2x^2 + x(0.7 z + 0.8 z^2) - 1.2 z^2)$ is normalisable, its posterior is Gaussian for every $x$, and the
# variance of the encoder depends on $x$.

# %%
inside, wide = exact.grid([-1], [1], 9), exact.grid([-25], [25], 4001)
x, z = inside.points, wide.points.T
posterior = torch.softmax(x * (0.7 * z + 0.8 * z * z) - 1.2 * z * z + wide.log_weights, 1)
mean = posterior @ wide.points[:, 0]
variance = (posterior * (z - mean[:, None]) ** 2).sum(1)
assert (variance + 0.5 / (-1.2 + 0.8 * x[:, 0])).abs().max() < 1e-9
print("σ_e²(x) at x = -1, 0, 1:", ", ".join(f"{float(variance[i]):.3f}" for i in (0, 4, 8)), " = -1/(2(c + 0.8 x))")

# %% [markdown]
# ## The fixed prior, and the escape by rotation
#
# Random loadings $M$: the gap of the best diagonal encoder under $N(0, I)$ is {eq}`own-diag-gap-formula`, the same for every
# $x$. After a rotation of the code it is zero and the law of $x$ is what it was.

# %%
for _ in range(50):
    loadings, noise = torch.randn(n, k), torch.rand(()) + 0.2
    turned = rotate_latent(loadings)
    assert (turned @ turned.T - loadings @ loadings.T).abs().max() < 1e-9
    assert abs(diagonal_gap(posterior_precision(turned, noise))) < 1e-9
before, after = (float(diagonal_gap(posterior_precision(m, noise))) for m in (loadings, turned))
print(f"gap of the last draw: {before:.4f}; rotated: {abs(after):.4f}")

# %% [markdown]
# ## The linear VAE finds probabilistic PCA
#
# Synthetic data, 400 points. {py:class}`efvae.gaussian.ppca.PPCA` is one eigendecomposition;
# {py:func}`efvae.gaussian.ppca.maximize_elbo` trains a randomly started linear VAE on the exact ELBO. {prf:ref}`own-ppca` says
# what must agree.

# %%
data = torch.randn(400, n) @ torch.randn(n, n) + torch.randn(n)
ppca, vae = PPCA.fit(data, k), linear_vae(n, k, seed)
reached, best = maximize_elbo(vae, data), float(ppca.log_prob(data).mean())
loadings, center, noise = loadings_of(vae)
order = loadings.square().sum(0).argsort(descending=True)
cosines = (loadings / loadings.norm(dim=0))[:, order].mul(ppca.axes).sum(0)
variance = vae.encoder(data[:1]).variance[0, order].detach()
predicted = ppca.noise / ppca.eigenvalues
means = vae.encoder(data).location.detach()[:, order] * cosines.sign() - ppca.posterior(data).location
checks = {
    "ELBO against the PPCA likelihood": (abs(reached - best), 1e-8),
    "largest principal angle of the subspaces": (float(principal_angles(loadings, ppca.axes).max()), 1e-3),
    "each column on its own axis, 1 − |cos|": (float((1 - cosines.abs()).max()), 1e-5),
    "σ_d², relative": (abs(float(noise / ppca.noise) - 1), 1e-4),
    "encoder variance against σ²/λ_j, relative": (float((variance / predicted - 1).abs().max()), 1e-3),
    "encoder mean map": (float(means.abs().max()), 1e-2),
    "posterior gap": (float(diagonal_gap(posterior_precision(loadings, noise))), 1e-8),
}
for name, (value, tolerance) in checks.items():
    assert abs(value) < tolerance, name
    print(f"{name:44} below {tolerance:g}")
print(f"ELBO = {reached:.6f},  log-likelihood of PPCA = {best:.6f}")

# %% [markdown]
# The same from another random start with one sample of $z$ for each data point and step:

# %%
sampled = linear_vae(n, k, seed + 1)
lost, gaps = [], []


def evaluate() -> dict[str, float]:
    m, mu, s = loadings_of(sampled)
    law = torch.distributions.MultivariateNormal(mu, m @ m.T + s * torch.eye(n))
    likelihood = float(law.log_prob(data).mean())
    with torch.no_grad():
        bound = float(elbo(sampled, data, Exact(nodes=2)).mean())
    return {"lost": best - likelihood, "gap": likelihood - bound}


config = TrainConfig(
    steps=steps, learning_rate=0.03, final_learning_rate=1e-4, seed=seed, eval_every=max(steps // 50, 1)
)
curve = fit(sampled, lambda b, g: -elbo(sampled, b, Reparameterized(), g), lambda g: data, config, evaluate=evaluate)
assert min(curve["lost"]) > -1e-9
assert min(curve["gap"]) > -1e-9
if defaults:
    assert curve["lost"][-1] + curve["gap"][-1] < 0.01

# %% mystnb={"figure": {"name": "own-linear-vae-training", "caption": "A linear VAE trained with sampled gradients on the synthetic data. Both parts of its error fall by orders of magnitude, until the falling learning rate holds them. With exact gradients, in the cell above, they are zero to rounding."}, "image": {"alt": "Two curves on a logarithmic axis, lost likelihood and posterior gap, fall over the training steps by two to three orders of magnitude."}}
figure = plots.training(curve["step"], curve["lost"], curve["gap"])
plt.show()

# %% [markdown]
# ## Real data
#
# One of scikit-learn's bundled data sets (standardised, constant columns removed). Third witness:
# `PCA.score` of scikit-learn, which uses the covariance with $1/(N-1)$.

# %%
raw = torch.tensor(getattr(datasets, f"load_{real}")().data)
raw = raw[:, raw.std(0) > 0]
standard = (raw - raw.mean(0)) / raw.std(0)
print(f"{real}: {standard.shape[0]} × {standard.shape[1]}")
print(f"{'k':>2}{'PPCA':>12}{'linear VAE':>12}{'σ_d²':>9}   encoder variances σ²/λ_j")
for components in range(1, min(3, standard.shape[1] - 1) + 1):
    ppca_real, vae_real = PPCA.fit(standard, components), linear_vae(standard.shape[1], components, seed)
    bound, best_real = maximize_elbo(vae_real, standard), float(ppca_real.log_prob(standard).mean())
    assert -1e-9 < best_real - bound < 1e-6
    got = vae_real.encoder(standard[:1]).variance[0].detach().sort().values
    assert (got / (ppca_real.noise / ppca_real.eigenvalues) - 1).abs().max() < 1e-2
    print(f"{components:2}{best_real:12.5f}{bound:12.5f}{float(ppca_real.noise):9.4f}   "
          + ", ".join(f"{v:.4f}" for v in got.tolist()))  # fmt: skip
    theirs = decomposition.PCA(n_components=components, svd_solver="full").fit(standard.numpy()).score(standard.numpy())
    ours = PPCA.from_moments(standard.mean(0), standard.T.cov(), components).log_prob(standard).mean()
    assert abs(float(ours) / theirs - 1) < 1e-9
print("PCA.score agrees to 1e-9")

# %% [markdown]
# ## A decoder that cannot be rotated
#
# Two fixed unit directions in $\R^4$ with an angle between them, free lengths, free noise, data from such a model with lengths 2
# and 1.5 and noise 0.5. Maximum likelihood recovers the truth; the ELBO cannot, except at 90 degrees ({prf:ref}`own-oblique-frame`).

# %%
angles = torch.linspace(10, 90, 21)
truth_scales, truth_noise = torch.tensor([2.0, 1.5]), 0.5
rows = []
for angle in angles.tolist():
    frame = oblique_frame(4, angle)
    m = frame * truth_scales
    covariance = m @ m.T + truth_noise * torch.eye(4)
    starts = [truth_scales, torch.tensor([2.0, 0.1])]  # both directions, or the longer one alone
    ml, bound = fit_frame(frame, covariance, 0.0, starts[:1]), fit_frame(frame, covariance, 1.0, starts)
    assert (ml.scales - truth_scales).abs().max() < 1e-3
    assert bound.likelihood <= ml.likelihood + 1e-9
    assert ml.likelihood - (bound.likelihood - bound.gap) <= ml.gap + 1e-9
    rows.append([ml.gap, ml.likelihood - bound.likelihood, bound.gap])
gap_ml, lost_vae, gap_vae = torch.tensor(rows).clamp(min=0).T
assert gap_ml[-1] + lost_vae[-1] + gap_vae[-1] < 1e-9
at = [0, 5, 10, 20]
for name, values in (("angle", angles), ("gap at ML", gap_ml), ("lost likelihood", lost_vae), ("gap left", gap_vae)):
    print(f"{name:16}" + "".join(f"{float(values[i]):9.3f}" for i in at))

# %% mystnb={"figure": {"name": "own-oblique-figure", "caption": "A linear Gaussian VAE with fixed decoder directions, over the angle between them. Only at a right angle is the posterior diagonal and the ELBO as good as the likelihood. Left of the jump the ELBO optimum gives up one of the two directions: the gap is closed at the price of likelihood. At very small angles one direction is nearly enough, and the price falls again."}, "image": {"alt": "Over the angle from 10 to 90 degrees: gap at maximum likelihood, error at the ELBO optimum and its two parts; all fall to zero at 90 degrees; at about 38 degrees lost likelihood and gap change places."}}
figure = plots.oblique(angles, gap_ml, lost_vae, gap_vae)
plt.show()

# %% [markdown]
# ## The gap of a curved decoder
#
# One code, two observed coordinates: $\mu_{\mathrm{d}}(z) = (z, t z^3)$ and $\mu_{\mathrm{d}}(z) = (z, t(z^2 - 1))$,
# $\sigma_{\mathrm{d}}^2 = 1/4$. For each $x$ of a quadrature over the model's own data the best Gaussian is searched, so the gap is that
# of a perfect encoder network. {prf:ref}`own-curved-gap` predicts $t^2$ for the cube and $t^4$ for the square, with these
# coefficients.


# %%
def observations(
    b: torch.Tensor, log_noise: torch.Tensor, codes: int, noises: int
) -> tuple[torch.Tensor, torch.Tensor]:
    z, log_w = gauss_hermite_nodes(codes, 1, b)
    e, log_v = gauss_hermite_nodes(noises, 2, b)
    points = (powers(z, b.shape[1] - 1) @ b.T)[:, None] + (0.5 * log_noise).exp() * e
    return points.flatten(0, 1), (log_w[:, None] + log_v).exp().flatten()


rule = exact.grid([-9], [9], 3601)  # posteriors far out on the cube are narrow
log_noise, s2 = torch.tensor(0.25).log(), 1 / (1 + 1 / 0.25)
sizes = torch.tensor([0.001, 0.003, 0.01, 0.03, 0.1, 0.3])
measured = {}
for name, degree in (("cube", 3), ("square", 2)):
    values = []
    for t in sizes.tolist():
        b = torch.zeros(2, degree + 1)
        b[0, 1], b[1, degree] = 1.0, t
        if degree == 2:
            b[1, 0] = -t
        x, weight = observations(b, log_noise, 12, 5)
        values.append(float((weight * gap_of_curve(b, log_noise, x, rule)).sum()))
    leading = 3 * sizes**2 * s2**3 / 0.25 if degree == 3 else sizes**4 * (12 * (1 - s2) * s2**3 + 3 * s2**4) / 0.25**2
    measured[name] = (torch.tensor(values), leading)
    smallest = 0 if degree == 3 else 2  # below, the quartic gap drowns in rounding
    assert abs(values[smallest] / float(leading[smallest]) - 1) < 0.02
    print(f"{name:7}gap at t = 0.3 about {values[-1]:.1g}")  # by 12 × 5 × 5 points, 4 % off for the cube

# %% mystnb={"figure": {"name": "own-curved-figure", "caption": "Posterior gap of two curved decoders with the best Gaussian for each observation. The cube leaves the encoder's family at first order, so its gap starts as $t^2$. The square's first-order effect on the posterior is again Gaussian, so its gap starts as $t^4$. Where the marks leave the lines, higher orders count."}, "image": {"alt": "Log-log plot of posterior gap over the size of the nonlinear term from 0.001 to 0.3: circles for the cube follow a dashed line of slope two at small size, squares for the square one of slope four."}}
shown = {name: (gap.where(gap > 1e-13, math.nan), leading) for name, (gap, leading) in measured.items()}
figure = plots.curvature(sizes, shown)
plt.show()

# %% [markdown]
# ## The ELBO straightens a decoder
#
# Truth: $\mu_{\mathrm{d}}(z) = (0.5 z,\, t(z^2 - 1))$, $\sigma_{\mathrm{d}}^2 = 0.2$. The decoder class, all pairs of cubic
# polynomials, contains it. Both searches start there and see 192 weighted points, a quadrature of the data distribution. The
# posterior of a point inside the bow has two modes, so the best Gaussian is searched from several starts. The decoder is
# searched from one start, so what is found is a local optimum.
#
# *square*: size of the coefficient of $z^2$; *nonlinear*: share of the variance of the decoder's mean that is not linear in $z$; *error (2)*: the likelihood
# lost and the gap together, {eq}`eq-2`.

# %%
b = torch.zeros(2, 4)
b[0, 1], b[1, 0], b[1, 2] = 0.5, -curvature, curvature
log_noise = torch.tensor(0.2).log()
x, weight = observations(b, log_noise, 12, 4)
coarse = exact.grid([-8], [8], 257)
truth = CurveFit(b, log_noise, math.nan)
ml = fit_curve(truth, x, weight, coarse, objective="likelihood")
bound = fit_curve(truth, x, weight, coarse, objective="elbo")


def likelihood_of(fitted: CurveFit) -> float:
    joint = curve_log_joint(fitted.coefficients, fitted.log_noise, x, coarse.points[:, None])
    return float((weight * torch.logsumexp(joint + coarse.log_weights[:, None], 0)).sum())


gap_of_ml = float((weight * gap_of_curve(ml.coefficients, ml.log_noise, x, rule)).sum())
assert bound.value <= likelihood_of(bound) + 1e-9 <= ml.value + 2e-9
assert ml.value - bound.value <= gap_of_ml + 1e-6


def nonlinear_share(fitted: CurveFit) -> float:  # of the variance of the decoder mean under the prior
    z, log_w = gauss_hermite_nodes(8, 1, x)
    mean, w = powers(z, 3) @ fitted.coefficients.T, log_w.exp()
    mean = mean - w @ mean
    slope = (w[:, None] * z * mean).sum(0)
    return float((w @ (mean - z * slope) ** 2).sum() / (w @ mean**2).sum())


print(f"{'':12}{'square':>9}{'nonlinear':>11}{'σ_d²':>9}{'lost L':>9}{'gap':>9}{'error (2)':>11}")
for name, fitted, slack in (("likelihood", ml, gap_of_ml), ("ELBO", bound, likelihood_of(bound) - bound.value)):
    lost_here = ml.value - likelihood_of(fitted)
    print(f"{name:12}{abs(float(fitted.coefficients[1, 2])):9.3f}{nonlinear_share(fitted):11.1%}{float(fitted.log_noise.exp()):9.3f}"
          f"{lost_here:9.4f}{slack:9.4f}{lost_here + slack:11.4f}")  # fmt: skip
if defaults:
    assert nonlinear_share(bound) < 0.95 * nonlinear_share(ml)
    assert abs(float(bound.coefficients[1, 2])) < 0.95 * abs(float(ml.coefficients[1, 2]))

# %% mystnb={"figure": {"name": "own-straightened", "caption": "The decoder mean in data space, for codes from −2.5 to 2.5, under maximum likelihood and at a local optimum of the ELBO, both reached from the truth. The best Gaussian encoder for each point is granted. By eye the two differ little: that the second is straighter is read off the table above, in the coefficient of the square and in the nonlinear share of the variance of the mean."}, "image": {"alt": "A parabola-shaped decoder curve through a cloud of points; the curve of the ELBO optimum, dashed, is less high than the maximum-likelihood one."}}
span = torch.linspace(-2.5, 2.5, 101)[:, None]
generator = torch.Generator().manual_seed(seed)
cloud_codes = torch.randn(500, 1, generator=generator)
cloud = powers(cloud_codes, 3) @ b.T + (0.5 * log_noise).exp() * torch.randn(500, 2, generator=generator)
named = {"maximum likelihood": ml, "local ELBO optimum": bound}
figure = plots.curves(cloud, {name: powers(span, 3) @ f.coefficients.T for name, f in named.items()})
plt.show()

# %% [markdown]
# ## When the noise may depend on the code
#
# With $\nu(x) = (x, x^2)$ and $\psi(z) = (z, z^2)$ the joint gains the term $x^2 z^2$. The law
# $\exp(-\tfrac12(x^2 z^2 + x^2 + z^2) + C(x + z))$ has two Gaussian conditionals and, for $C > 2$, two modes
# ({prf:ref}`own-bimodal`). {py:class}`efvae.gaussian.conditionals.ContinuousHarmonium` makes it a VAE, whose prior is the
# marginal of $z$.

# %%
wide = exact.grid([-14], [14], 2801)
table = gelman_meng(pull)
assert is_normalisable(table)
tight = normal_conditionals(table, wide)
tight_vae = tight.as_vae()
probe = torch.linspace(-2, 5, 8)[:, None]
with torch.no_grad():
    worst = float(exact.posterior_kl(tight_vae, probe, wide).abs().max())
    against = VAE(Prior(normal.eta, Gaussian), tight_vae.decoder, tight_vae.encoder)
    with_normal = float(exact.posterior_kl(against, probe, wide).mean())
    joint = tight_vae.log_joint(probe, wide.points[:, None])
weights = torch.softmax(joint + wide.log_weights[:, None], 0)
moments = [(weights * (wide.points - (weights * wide.points).sum(0)) ** j).sum(0) for j in (2, 3, 4)]
kurtosis = float((moments[2] / moments[0] ** 2 - 3).abs().max())
skewness = float((moments[1] / moments[0] ** 1.5).abs().max())
modes = gelman_meng_modes(pull)
assert worst < 1e-10
assert max(kurtosis, skewness) < 1e-8
assert len(modes) == (2 if pull > 2 else 1)
print("modes (x, z):", "  ".join(f"({p[0]:.3f}, {p[1]:.3f})" for p in modes.tolist()))
print("gap with the tied prior below 1e-10; skewness and excess kurtosis of p(z | x) below 1e-8")
print(f"same decoder and encoder under the prior N(0, 1): mean gap {with_normal:.2f}")

# %% mystnb={"figure": {"name": "own-bimodal-figure", "caption": "A tight VAE whose joint law is not Gaussian. Above: contours of the joint, whose sections along either axis are all Gaussian; the conditional means cross at the stationary points. Below: the prior that it needs."}, "image": {"alt": "Contour plot of a joint density with two peaks near the ends of a hyperbola, the two conditional mean curves, and below it the prior density of z."}}
axis = torch.linspace(-1.5, 6.5, 321)
with torch.no_grad():
    log_density = tight.log_joint(axis[:, None, None], axis[None, :, None])
    prior = tight_vae.prior().log_prob(axis[:, None]).exp()
    decoder_mean = tight.visible(tight.visible_eta(axis[:, None])).location[:, 0]
figure = plots.joint_with_modes(axis, log_density, decoder_mean, modes, prior)
plt.show()

# %% [markdown]
# ## A Gaussian prior takes it all back
#
# {prf:ref}`own-constant-noise`: under a Gaussian prior no decoder with varying noise is tight, even if its natural
# parameters are affine in $\psi(z)$. Largest distance of the posteriors from the Gaussian family, on $[-3, 3]$, over 20 random draws:

# %%
short = exact.grid([-3], [3], 121)


def residual_of(w: torch.Tensor) -> float:
    bias = torch.tensor([0.3, -0.7])
    harmonium = ContinuousHarmonium(Gaussian, Gaussian, w, bias, torch.tensor([0.0, -0.5]), wide)
    encoder = Conditional(nn.Linear(1, 2), Gaussian.from_mean_log_variance)
    vae = VAE(Prior(normal.eta, Gaussian), harmonium.as_vae().decoder, encoder)
    return float(family_residual(vae, torch.tensor([[-1.0], [0.0], [2.0]]), short).detach().max())


straight, varying, square = [], [], []
for _ in range(20):
    w, v = torch.randn(2)
    straight.append(residual_of(torch.tensor([[w, 0.0], [0.0, 0.0]])))
    varying.append(residual_of(torch.tensor([[w, 0.0], [0.0, -0.05 - 0.5 * v.abs()]])))
    square.append(residual_of(torch.tensor([[w, 0.1 + v.abs()], [0.0, 0.0]])))
assert max(straight) < 1e-9
assert min(varying) > 1e-3
assert min(square) > 1e-3
print("constant noise, affine mean:  below 1e-9 in all")
print(f"noise depends on z:           {min(varying):.3f} or more")
print(f"square in the mean:           {min(square):.3f} or more")
