# %% [markdown]
# (sec-2-lab)=
# # The problem, computed
#
# What {doc}`../book/sec2_problem` states, on a model of two latent bits and five binary pixels: $2^2 \cdot 2^5$ terms, so
# that every likelihood, posterior and bound below is a finite sum in double precision. Quantities are in nats.

# %% tags=["parameters"]
truth_1: float = 2.0  # in [-3, 3]: weight θ1 of the model that makes the data
truth_2: float = 1.5  # in [-3, 3]: weight θ2 of the model that makes the data
copies: int = 3  # in [2, 5]: how many pixels have the free weights θ
resolution: int = 81  # in [11, 161]: points of the map along each side
steps: int = 1500  # in [1, 20000]: training steps of each encoder network
seed: int = 0  # in [0, 2**31): of the random models and networks

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from torch import nn

from efvae import exact, objectives
from efvae.plots import problem as plots
from efvae.consistency import PixelPair, family_residual, is_consistent
from efvae.descent import maximize
from efvae.estimators import Exact
from efvae.families import Bernoulli, all_bits
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import mlp
from efvae.train import TrainConfig, fit

torch.set_default_dtype(torch.float64)
_ = torch.manual_seed(seed)
codes = exact.enumerate_states(Bernoulli(torch.zeros(2)))

# %% [markdown]
# ## Two forms of one bound
#
# {eq}`eq-1a` and {eq}`eq-1b` are computed by functions that share no code above the families' log-probabilities:
# {py:func}`efvae.objectives.elbo` never sees the posterior, {py:func}`efvae.exact.elbo` is made of it. Fifty random
# networks, all 32 images each:

# %%
images = all_bits(5)
difference = 0.0
for _ in range(50):
    random_vae = VAE(
        Prior(torch.randn(2), Bernoulli),
        Conditional(mlp((2, 4, 5)), Bernoulli),
        Conditional(mlp((5, 4, 2)), Bernoulli),
    )
    with torch.no_grad():
        eq_1a = objectives.elbo(random_vae, images, Exact())
        eq_1b = exact.elbo(random_vae, images, codes)
    difference = max(difference, float((eq_1a - eq_1b).abs().max()))
assert difference < 1e-12
print("(1a) = (1b) to 1e-12 nats:", difference < 1e-12)

# %% [markdown]
# ## The family
#
# Two pixels have the fixed weights $(2, 1.5)$, the others share the free weights $\theta = (\theta_1, \theta_2)$:
# {py:class}`efvae.consistency.PixelPair`. The data distribution is the model at a known truth, so
# $\theta_{\mathrm{ML}}$ is the truth and $\mathcal{L}(\theta_{\mathrm{ML}})$ is minus the entropy of the data. With the values
# above the truth gives all five pixels the same weights.

# %%
family = PixelPair(fixed=torch.tensor([[2.0, 1.5], [2.0, 1.5]]), copies=copies)
theta_ml = torch.tensor([truth_1, truth_2])
data = family.data(theta_ml)


def log_likelihood(theta: torch.Tensor) -> torch.Tensor:
    return family.log_likelihood(theta, data)


def gap(theta: torch.Tensor) -> torch.Tensor:
    return family.gap(theta, data)


def l_vae(theta: torch.Tensor) -> torch.Tensor:  # the ELBO with the best encoder: L − F
    return log_likelihood(theta) - gap(theta)


best_likelihood = float(log_likelihood(theta_ml))
assert abs(best_likelihood - float((data * data.log()).sum())) < 1e-12
print(f"L(θ_ML) = {best_likelihood:.4f}   F(θ_ML) = {gap(theta_ml):.4f}")

# %% [markdown]
# ## The consistent set
#
# {eq}`eq-3` asks whether each posterior is in the encoder's family. {py:func}`efvae.consistency.family_residual` answers
# by least squares on the enumerated log-posterior, for any model; for this family {prf:ref}`own-spin-curve` predicts the
# residual: the coefficient of $s_1 s_2$, the same for every image. Both are evaluated along the predicted curve and at
# random places beside it.

# %%
x = all_bits(family.n_pixels)
free_encoder = nn.Linear(family.n_pixels, 2)  # only its family matters here
place = torch.linspace(-4, 4, 81)
branches = [family.consistent_curve(place, sign) for sign in (1.0, -1.0)]

for theta in torch.cat([*[branch[::10] for branch in branches], 6 * torch.rand(20, 2) - 3, theta_ml[None]]):
    residual = family_residual(family.vae(theta, free_encoder), x, codes)
    assert (residual - family.interaction(theta).abs()).abs().max() < 1e-12
    assert is_consistent(family.vae(theta, free_encoder), x, codes) == (abs(family.interaction(theta)) < 1e-9)

assert all(gap(branch).max() < 1e-12 for branch in branches)
print("on the curve F = 0 (to 1e-12 nats) and the posterior test passes")
print(f"at θ_ML the interaction is {family.interaction(theta_ml):.4f}, F = {gap(theta_ml):.4f}")

# %% [markdown]
# ## Four values of θ
#
# $F$ takes the best factorized distribution for each image. The ELBO optimum is found by refining every local maximum of
# $\mathcal{L} - F$ on a coarse grid over $[-8, 8]^2$, and is called global with that window in mind. Turning both spins around is
# no symmetry of this family, since it also turns the two fixed weights. Turning $\theta$ around and inverting the free pixels is one, but
# changes the data, unless the truth is $\theta = 0$. So, but for that, the optima are single points; with the default values there are two
# local ones, and the better one is $\theta_{\mathrm{VAE}}$.


# %%
def over_square(axis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return grid, torch.stack([log_likelihood(row) for row in grid]), torch.stack([gap(row) for row in grid])


grid, grid_likelihood, grid_gap = over_square(torch.linspace(-8, 8, 41))
value = grid_likelihood - grid_gap
is_peak = value == nn.functional.max_pool2d(value[None], 3, 1, 1)[0]
peaks = [maximize(l_vae, start) for start in grid[is_peak]]
theta_vae = max(peaks, key=l_vae)
assert l_vae(theta_vae) >= value.max() - 1e-9

ends = []
for sign, branch in zip((1.0, -1.0), branches, strict=True):
    start = place[log_likelihood(branch).argmax()]
    u = maximize(lambda u, sign=sign: log_likelihood(family.consistent_curve(u, sign)), start)
    ends.append(family.consistent_curve(u, sign))
theta_consistent = max(ends, key=log_likelihood)

other = [peak for peak in peaks if (peak - theta_vae).norm() > 1e-3]
named = {"θ_ML": theta_ml, "θ_VAE": theta_vae, "best consistent θ": theta_consistent}
if other:
    named["another peak of L − F"] = other[0]
print(f"{'':22}{'θ1':>9}{'θ2':>9}{'lost L':>9}{'F':>9}{'error (2)':>11}")
for name, theta in named.items():
    lost, slack = best_likelihood - float(log_likelihood(theta)), float(gap(theta))
    lost, slack = (abs(v) if abs(v) < 1e-9 else v for v in (lost, slack))  # no "-0.0000"
    print(f"{name:22}{theta[0]:9.4f}{theta[1]:9.4f}{lost:9.4f}{slack:9.4f}{lost + slack:11.4f}")

# %% [markdown]
# Columns four and five are the two parts of the VAE approximation error {eq}`eq-2`: the likelihood that the decoder lost,
# and the gap that its best encoder leaves. The inequalities between the rows hold for every truth and are checked here:
# $\mathcal{L}(\theta_c) \le \mathcal{L}_{\mathrm{VAE}}(\theta_{\mathrm{VAE}}) \le \mathcal{L}(\theta_{\mathrm{VAE}}) \le \mathcal{L}(\theta_{\mathrm{ML}})$ with
# $\theta_c$ any consistent value, since there $F = 0$.

# %%
chain = [log_likelihood(theta_consistent), l_vae(theta_vae), log_likelihood(theta_vae), log_likelihood(theta_ml)]
assert all(low <= high + 1e-9 for low, high in pairwise(chain))
if (truth_1, truth_2, copies) == (2.0, 1.5, 3):
    reference = torch.tensor([-2.9537372, -2.8713919, -2.8266662, -2.7721334])
    assert (torch.stack(chain) - reference).abs().max() < 1e-6
    assert (theta_vae - torch.tensor([1.728105, 0.109936])).abs().max() < 1e-5
print("L(θ_c) ≤ L_VAE(θ_VAE) ≤ L(θ_VAE) ≤ L(θ_ML):  " + " ≤ ".join(f"{float(v):.4f}" for v in chain))

# %% [markdown]
# ## The two gradients
#
# {prf:ref}`own-balance`: at $\theta_{\mathrm{VAE}}$ the gradients of $\mathcal{L}$ and of $F$ are equal. Both come from automatic
# differentiation, that of $F$ at a fixed best encoder ({prf:ref}`own-envelope`). Central differences, which search the
# best encoder anew on both sides, must agree.

# %%
variable = theta_vae.clone().requires_grad_()
(gradient_l,) = torch.autograd.grad(log_likelihood(variable), variable)
(gradient_f,) = torch.autograd.grad(gap(variable), variable)
step = 1e-5 * torch.eye(2)
for function, gradient in ((log_likelihood, gradient_l), (gap, gradient_f)):
    numeric = (function(theta_vae + step) - function(theta_vae - step)) / 2e-5
    assert (numeric - gradient).abs().max() < 1e-6
assert (gradient_l - gradient_f).norm() < 1e-6
if (truth_1, truth_2, copies) == (2.0, 1.5, 3):
    assert (gradient_l - torch.tensor([-0.0294, 0.0871])).abs().max() < 1e-4
across = torch.tensor([3.0, 3.0]) + 1e-4 * torch.tensor([-1.0, 0.0, 1.0])[:, None] * torch.tensor([1.0, -1.0])
slopes = gap(across).diff() / 1e-4
print(f"slope of F across the ridge at θ = (3, 3): {slopes[0]:.2f} before it, {slopes[1]:.2f} behind it")
if (truth_1, truth_2, copies) == (2.0, 1.5, 3):
    assert slopes[0] > 0.3 > -0.3 > slopes[1]  # a kink: two encoders tie
pull = ", ".join(f"{v:.4f}" for v in gradient_l.tolist())
print(f"∇L(θ_VAE) = ∇F(θ_VAE) = ({pull}),  equal to 1e-6")

# %% [markdown]
# ## Likelihood and gap over a window
#
# The same two functions on a finer grid, around the values found.

# %%
half_width = max(4.0, 1.15 * float(torch.stack(list(named.values())[:3]).abs().max()))
axis = torch.linspace(-half_width, half_width, resolution)
grid, grid_likelihood, grid_gap = over_square(axis)
grid_interaction = family.interaction(grid)

assert (grid_likelihood <= best_likelihood + 1e-12).all()
assert (grid_likelihood - grid_gap <= l_vae(theta_vae) + 1e-9).all()
assert (grid_gap[grid_interaction.abs() > 1e-2] > 1e-12).all()  # off the consistent set the ELBO is never tight

# %% [markdown]
# ## In between, as a curve
#
# Fig. 1 of the paper says that the ELBO optimum is "in between". One way to give that a meaning: let a weight $\beta$ grow from 0 in
# $\mathcal{L} - \beta F$ and follow its maximiser, each search starting where the last one ended: once from
# $\theta_{\mathrm{ML}}$ on with growing $\beta$, once from the best consistent value back; of the two ends of each $\beta$ the higher one is kept. At $\beta = 1$ it must be a peak of $\mathcal{L} - F$; with the default values it is $\theta_{\mathrm{VAE}}$.
# By {prf:ref}`own-in-between` the global maximisers approach the best consistent value $\theta_c$ if no $\theta$ far away has $\mathcal{L} - \beta_0 F \ge
# \mathcal{L}(\theta_c)$, for some $\beta_0$. With the default values and $\beta_0 = 2$ none has on the borders of two large squares, and the path, a local
# search, comes near $\theta_c$. A small gap alone would not say so: far out there are $\theta$ with almost none and a large interaction.

# %%
beta = torch.logspace(-2, 2, 81)


def followed(weights: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    found = []
    for b in weights:
        theta = maximize(lambda t, b=b: log_likelihood(t) - b * gap(t), theta)
        found.append(theta)
    return torch.stack(found)


ends = torch.stack([followed(beta, theta_ml), followed(beta.flip(0), theta_consistent).flip(0)])
heights = torch.stack([log_likelihood(end) - beta * gap(end) for end in ends])
if (truth_1, truth_2, copies) == (2.0, 1.5, 3):  # no place on the grid is higher
    assert all(
        height > (grid_likelihood - b * grid_gap).max() - 1e-9 for b, height in zip(beta, heights.amax(0), strict=True)
    )
path = ends[heights.argmax(0), torch.arange(len(beta))]
lost, slack = best_likelihood - log_likelihood(path), gap(path)
side = torch.linspace(-1, 1, 161)
square = torch.cat([torch.stack(pair, 1) for one in (-(side**0), side**0) for pair in ((side, one), (one, side))])
far = [log_likelihood(r * square) - 2 * gap(r * square) for r in (8, 60)]
if (truth_1, truth_2, copies) == (2.0, 1.5, 3):
    assert (path[0] - theta_ml).norm() < 0.05
    assert (path[40] - theta_vae).norm() < 1e-5  # β = 1
    assert int((lost + slack).argmin()) == 40  # nowhere else on the path is the ELBO as large
    assert (path[-1] - theta_consistent).norm() < 0.02
    assert (lost.diff() > 0).all()
    assert (slack.diff() < 0).all()
    assert max(value.max() for value in far) < log_likelihood(theta_consistent) - 0.01
    outside = torch.tensor([30.0, 9.0])
    assert gap(outside) < 1e-9
    assert abs(family.interaction(outside)) > 14
print(f"distance of the last θ to the best consistent one: {(path[-1] - theta_consistent).norm():.3f}")

# %% mystnb={"figure": {"name": "fig-1", "caption": "The trade-off of a VAE, computed (in the paper a sketch). Lines: likelihood lost against $\\theta_{\\mathrm{ML}}$. Shading: least gap $F$, that of the best factorized encoder. The ELBO optimum $\\theta_{\\mathrm{VAE}}$ lies where the gradient of $\\mathcal{L}$ and that of $-F$ balance (arrows, directions only). Dots: maximisers of $\\mathcal{L} - \\beta F$ for $\\beta$ from 0.01 to 100, from $\\theta_{\\mathrm{ML}}$ to near the consistent set."}, "image": {"alt": "Map over the decoder weights theta 1 and theta 2. The maximum-likelihood point lies in a shaded region of large gap, the best consistent point on a dashed curve of zero gap; the ELBO optimum lies between them, with two opposite arrows for the gradient of the likelihood and of minus the gap."}}
figure = plots.trade_off(
    axis,
    best_likelihood - grid_likelihood,
    grid_gap,
    grid_interaction,
    ml=theta_ml,
    vae=theta_vae,
    consistent=theta_consistent,
    path=path,
    pull=gradient_l,
)
plt.show()

# %% [markdown]
# The three free pixels, which truly depend on both bits, are given up by the ELBO for the second bit: with the default
# values $\theta_2$ falls from 1.5 to 0.11. A pixel that sees one bit only adds nothing to the interaction in the posterior
# ({prf:ref}`own-spin-curve`). The decoder could represent the truth exactly, the data are unlimited, and the encoder is the
# best possible for each image; the loss is due to the encoder's family, under the prior that was fixed.

# %% mystnb={"figure": {"name": "own-beta-path", "caption": "The two parts of the error {eq}`eq-2` along the dots of {numref}`fig-1`. The ELBO minimises their sum. With the default values the dotted line is lowest at $\\beta = 1$, and the maximiser jumps below $\\beta = 1$, where another peak becomes the higher one."}, "image": {"alt": "Lost likelihood grows and the least gap falls with the weight beta; their sum is lowest at beta equal to one."}}
figure = plots.likelihood_and_gap_along(beta, lost, slack)
plt.show()

# %% [markdown]
# ## Optimal and tight, yet in error
#
# {prf:ref}`own-zero-error` needs the best *likelihood* besides tightness; the best *ELBO* is not enough. A class of two
# decoders shows it: the truth $(-1, -1)$ and the best consistent decoder for its data. The second has the larger ELBO and is
# tight, and still misses likelihood.

# %%
trio = PixelPair(fixed=torch.tensor([[2.0, 1.5], [2.0, 1.5]]), copies=3)
first = torch.tensor([-1.0, -1.0])
first_data = trio.data(first)
second = trio.consistent_curve(
    maximize(lambda u: trio.log_likelihood(trio.consistent_curve(u, -1.0), first_data), torch.tensor(0.0)), -1.0
)
likelihoods = [float(trio.log_likelihood(t, first_data)) for t in (first, second)]
gaps = [float(trio.gap(t, first_data)) for t in (first, second)]
assert abs(gaps[1]) < 1e-12
assert likelihoods[1] - gaps[1] > likelihoods[0] - gaps[0] + 0.05
assert likelihoods[0] - likelihoods[1] > 0.1
for name, likelihood, slack in zip(("truth", "consistent"), likelihoods, gaps, strict=True):
    print(f"{name:12} L = {likelihood:.4f}   F = {abs(slack):.4f}   largest ELBO = {likelihood - slack:.4f}")
print(f"error (2) of the ELBO-optimal, tight decoder: {likelihoods[0] - likelihoods[1]:.4f}")

# %% [markdown]
# ## What the fixed prior does
#
# Every decoder here is affine in the bits. The interaction in the posterior comes from the log-partition of the pixels, and a
# prior proportional to $\exp(-J(\theta) s_1 s_2)$, with $J$ the interaction, would cancel it: for each $\theta$ its own prior. The consistent set is a
# curve and not the whole plane because the prior was fixed as uniform.

# %%
spins = 2 * codes.points - 1


def with_prior_for(theta: torch.Tensor, other: torch.Tensor) -> VAE:  # decoder at θ, prior that cancels J(other)
    vae = family.vae(theta, free_encoder)
    return VAE(
        Prior(-family.interaction(other) * spins.prod(1), CategoricalOver(codes.points)), vae.decoder, vae.encoder
    )


several = torch.cat([theta_ml[None], 6 * torch.rand(20, 2) - 3])
for theta, other in zip(several, several.roll(1, 0), strict=True):
    assert is_consistent(with_prior_for(theta, theta), x, codes)
    off = (family.interaction(theta) - family.interaction(other)).abs()
    assert (family_residual(with_prior_for(theta, other), x, codes) - off).abs().max() < 1e-9
print(
    "θ_ML with the uniform prior, residual:",
    f"{family_residual(family.vae(theta_ml, free_encoder), x, codes).max():.4f}",
)
print(
    f"θ_ML and {len(several) - 1} random θ: consistent, each with its own cancelling prior,\nand not with each other's"
)

# %% [markdown]
# ## With an encoder network
#
# So far the encoder was free for each image. A network shares its weights among images; what it lacks to the free one is
# the *amortization gap*. First the decoder stays at $\theta_{\mathrm{ML}}$ and only the encoder learns, then both learn
# together, from there. Training sees every image with its probability, so nothing is sampled.

# %%
config = TrainConfig(steps=steps, learning_rate=0.03, final_learning_rate=1e-4, seed=seed, eval_every=steps)
n = family.n_pixels


def train(vae: VAE) -> float:  # the ELBO that training reaches
    weighted = len(x) * data
    fit(vae, lambda batch, g: -weighted * objectives.elbo(vae, batch, Exact(), g), lambda g: x, config)
    with torch.no_grad():
        return float(data @ exact.elbo(vae, x, codes))


print(f"{'decoder':10}{'encoder':26}{'ELBO':>9}{'error (2)':>11}{'amortization gap':>18}")
for name, network in (("linear", nn.Linear(n, 2)), ("16 hidden units", mlp((n, 16, 2), nn.Tanh))):
    vae = family.vae(theta_ml, network)
    vae.decoder.requires_grad_(requires_grad=False)
    bound, free_bound = train(vae), float(l_vae(theta_ml))
    assert bound <= free_bound + 1e-9
    print(f"{'θ_ML':10}{name:26}{bound:9.3f}{best_likelihood - bound:11.3f}{free_bound - bound:18.3f}")
print(f"{'θ_ML':10}{'free for each image':26}{free_bound:9.3f}{best_likelihood - free_bound:11.3f}{0:18.3f}")

vae.decoder.requires_grad_(requires_grad=True)
joint = train(vae)
learned = vae.decoder.network.theta.detach()
at_learned = float(l_vae(learned))
assert joint <= at_learned + 1e-9
assert at_learned <= float(l_vae(theta_vae)) + 1e-9
print(f"{'learned':10}{'16 hidden units':26}{joint:9.3f}{best_likelihood - joint:11.3f}{at_learned - joint:18.3f}")
print(
    f"{'θ_VAE':10}{'free for each image':26}{l_vae(theta_vae):9.3f}{best_likelihood - l_vae(theta_vae):11.3f}{0:18.3f}"
)
if (truth_1, truth_2, copies, steps, seed) == (2.0, 1.5, 3, 1500, 0):
    assert (learned - theta_vae).norm() < 0.01
    assert at_learned - joint < 1e-4
print(f"learned θ = ({learned[0]:.2f}, {learned[1]:.2f})")

# %% [markdown]
# Starting from the decoder of maximum likelihood, joint training raises the ELBO and moves the decoder away from the truth:
# the arrow $-\nabla F$ of {numref}`fig-1` at work, since at $\theta_{\mathrm{ML}}$ the gradient of $\mathcal{L}$ vanishes and
# nothing else pulls. At $\theta_{\mathrm{ML}}$ the trained networks also leave an amortization gap (what training did not
# reach included; it differs with the seed). After joint training it has vanished to the digits shown: the decoder moved to where the encoder's
# task is easy, which the decoder of maximum likelihood could not do.
#
# To try: a truth on the consistent set has zero error; `truth_1 = 1`, `truth_2 = -1` is close to one. Five copies in place of
# three strengthen the free pixels against the fixed ones and move the curve.
