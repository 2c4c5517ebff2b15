# %% [markdown]
# (sec-3-consistency-lab)=
# # The consistent set, computed
#
# The lab of {doc}`../book/sec3_consistency` and {doc}`../book/appA_1_theorem_1`: Section 3 (sec-3) up to its corollaries and
# Appendix A.1 (app-a, app-a1). Latent spaces are enumerated, so that posteriors, gaps and likelihoods are finite sums in
# double precision. Models are drawn at random unless a cell says otherwise.

# %% tags=["parameters"]
seed: int = 0  # in [0, 2**31): of all random models and networks
seeds: int = 3  # in [1, 20]: random decoders in each experiment
max_depth: int = 3  # in [0, 6]: most hidden layers of an encoder
width: int = 32  # in [1, 512]: units of a hidden layer
steps: int = 150  # in [10, 5000]: most evaluations in the training of an encoder
angles: int = 5  # in [2, 31]: angles between the columns of W, from 90° down to 30°

# %%
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import torch

from efvae import exact, log_bilinear
from efvae.plots import consistency as plots
from efvae.affine_decoder import AffineDecoder, best_bound, harmonium_log_joint, interaction
from efvae.consistency import posterior_gap
from efvae.descent import maximize
from efvae.encoder_gap import code_products, family_gap, train_encoder, with_encoder
from efvae.exact import Rule
from efvae.families import Bernoulli, GaussianFixedVariance, Multinomial, Tabular, all_bits
from efvae.harmonium import Harmonium
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import CodeTable

torch.set_default_dtype(torch.float64)
_ = torch.manual_seed(seed)

# %% [markdown]
# ## Pairs of families
#
# {prf:ref}`asm-1` leaves the two families open ({eq}`eq-4a`, {eq}`eq-4b`). Four families of $x$ and three of $z$ are paired here. One in each list is nobody's
# choice: a table of random statistics and base measures on random points ({py:class}`efvae.families.tabular.Tabular`).

# %%
points_x, table_x, base_x = torch.randn(9, 2), torch.randn(9, 4), torch.randn(9)
points_z, table_z, base_z = torch.randn(7, 1), torch.randn(7, 3), torch.randn(7)
visible = {
    "Bernoulli": (Bernoulli, 3, all_bits(3)),
    "multinomial": (lambda eta: Multinomial(eta, 4), 3, Multinomial(torch.zeros(3), 4).support()),
    "Gaussian": (lambda eta: GaussianFixedVariance(eta, 0.7), 2, 2 * torch.randn(40, 2)),
    "random table": (lambda eta: Tabular(eta, points_x, table_x, base_x), 4, points_x),
}
latent = {
    "bits": (Bernoulli, 3, all_bits(3)),
    "bits and pairs": (lambda eta: Tabular(eta, all_bits(3), code_products(3, 2)), 6, all_bits(3)),
    "random table": (lambda eta: Tabular(eta, points_z, table_z, base_z), 3, points_z),
}


def random_harmonium(of_x: tuple, of_z: tuple) -> Harmonium:
    (make_x, n, _), (make_z, m, _) = of_x, of_z
    return Harmonium(make_x, make_z, torch.randn(n, m), torch.randn(n), torch.randn(m))


def free_decoder(of_x: tuple, of_z: tuple, encoder: Conditional) -> VAE:
    """Any network and any prior on finitely many codes: a free row of f for each code, a free probability."""
    (make_x, n, _), (_, _, codes) = of_x, of_z
    rows = 1.5 * torch.randn(len(codes), n)
    network = Conditional(torch.nn.Identity(), lambda z: make_x((z[..., None, :] == codes).all(-1).double() @ rows))
    return VAE(Prior(torch.randn(len(codes)), CategoricalOver(codes)), network, encoder)


# %% [markdown]
# ## Theorem 1, both ways
#
# *If.* Each harmonium {eq}`eq-7`, taken as a VAE with its own prior, has the decoder {eq}`eq-5` and the encoder {eq}`eq-6`. Its
# posterior gap must be zero ({prf:ref}`thm-1`). *Only if.* A decoder and a prior without restriction must be off the consistent set:
# {py:func}`efvae.log_bilinear.distance` in log-probability, and the least gap of the encoder's family, which no network can
# go below, in nats.

# %%
print(f"{'':29}{'harmonia':>10}{'free decoders':>22}")
print(f"{'x':13}{'z':16}{'zero gap':>10}{'distance':>11}{'least gap':>11}")
for (name_x, of_x), (name_z, of_z) in product(visible.items(), latent.items()):
    codes = Rule(of_z[2], torch.zeros(len(of_z[2])))
    tight, distances, least = [], [], []
    for _ in range(seeds):
        vae = random_harmonium(of_x, of_z).as_vae()
        tight.append(exact.posterior_kl(vae, of_x[2], codes).max())
        assert log_bilinear.distance(log_bilinear.joint_table(vae, of_x[2], codes)) < 1e-8
        free, some = free_decoder(of_x, of_z, vae.encoder), of_x[2][:4]
        table = log_bilinear.joint_table(free, of_x[2], codes)
        distances.append(log_bilinear.distance(table))
        base = vae.encoder(some).log_base_measure(of_z[2])
        least.append(family_gap(exact.log_joint(free, some, codes), table.psi, base).mean())
    assert max(tight) < 1e-9
    assert min(distances) > 1e-3
    assert min(least) > 1e-9
    mean = torch.stack(distances).mean(), torch.stack(least).mean()
    print(f"{name_x:13}{name_z:16}{'yes':>10}{mean[0]:11.2f}{mean[1]:11.3f}")

# %% [markdown]
# The gap is the mean over four observations. No pair is an exception, and none should be.
#
# ## W, u and v, three times
#
# At a consistent VAE the matrix of {eq}`eq-17` comes out of three computations that share little: least squares on the whole table
# of $\log p(x, z)$; $(n+1)(m+1)$ entries of it; and the step $N^{-1} G$ of the proof ({prf:ref}`thm-a1`), which looks at the encoder's
# network {eq}`eq-16b` at $n + 1$ observations, or at the decoder's {eq}`eq-16a` at $m + 1$ codes.

# %%
of_x, of_z = visible["random table"], latent["bits and pairs"]
codes = Rule(of_z[2], torch.zeros(8))
model = random_harmonium(of_x, of_z)
vae = model.as_vae()
table = log_bilinear.joint_table(vae, of_x[2], codes)
forms = {
    "least squares": log_bilinear.fit(table),
    f"{5 * 7} of {table.values.numel()} entries": log_bilinear.interpolate(table),
    "encoder network": log_bilinear.from_encoder(vae, of_x[2], codes),
    "decoder network": log_bilinear.from_decoder(vae, of_x[2], codes),
}
with torch.no_grad():
    for name, form in forms.items():
        parts = zip((form.weight, form.visible_bias, form.latent_bias), model.parameters(), strict=True)
        assert max((found - given).abs().max() for found, given in parts) < 1e-6
        assert abs(form.constant + model.log_partition()) < 1e-6
        print(f"{name:18} W, u, v, c as given, to 1e-6")
wrong = log_bilinear.LogBilinear(
    torch.cat([-forms["least squares"].extended[:-1], forms["least squares"].extended[-1:]])
)
assert (wrong.values(table.nu, table.psi) - table.values).abs().max() > 0.1  # the check can fail: another sign

# %% [markdown]
# ## The distance is a projection
#
# {prf:ref}`own-projection`: off the consistent set, the nearest log-bilinear joint is found for each $x$ alone, and weights over $x$
# do not change it. Checked on a free decoder.

# %%
free = free_decoder(of_x, of_z, vae.encoder)
table = log_bilinear.joint_table(free, of_x[2], codes)
psi = log_bilinear.extend(table.psi)
alone = psi @ torch.linalg.lstsq(psi, table.values).solution
form, other = log_bilinear.fit(table), log_bilinear.fit(table, x_weights=torch.rand(9) + 0.05)
assert (form.values(table.nu, table.psi) - alone).abs().max() < 1e-8
assert (form.extended - other.extended).abs().max() < 1e-6
print(f"distance {log_bilinear.distance(table):.3f} nats (root mean square), the same by regression for each x")

# %% [markdown]
# ## The prior is pinned
#
# {prf:ref}`own-prior-pinned`: with an affine decoder, one function of the code decides, the prior against the log-partition.
# The harmonium's own prior fits. Tilted along $\psi$ it fits as well, since that only moves $v$. The uniform prior does not.

# %%
codes, images = exact.enumerate_states(Bernoulli(torch.zeros(3))), all_bits(5)
model = Harmonium(Bernoulli, Bernoulli, 1.5 * torch.randn(5, 3), torch.randn(5), torch.randn(3))
own = model.as_vae()
priors = {
    "the harmonium's own": own.prior,
    "its own, tilted along ψ": Prior(own.prior.eta.detach() + codes.points @ torch.randn(3), own.prior.family),
    "uniform": Prior(torch.zeros(3), Bernoulli),
}
for name, prior in priors.items():
    vae = VAE(prior, own.decoder, own.encoder)
    residual = log_bilinear.prior_residual(vae, images, codes).abs().max()
    distance = log_bilinear.distance(log_bilinear.joint_table(vae, images, codes))
    least = posterior_gap(exact.log_joint(vae, images, codes), 3).max()
    assert (residual < 1e-9) == (distance < 1e-9) == (least < 1e-9) == (name != "uniform")
    print(f"{name:25} consistent: {'yes' if residual < 1e-9 else 'no'}")

# %% [markdown]
# ## Where the decoder need not be affine
#
# Two ways out of {prf:ref}`thm-1`, both on {doc}`../book/appA_1_theorem_1`. Logits of a multinomial are not minimal, so any function of $z$
# may be added to all of them. And tightness on few observations asks little: with one observation and two bits, one number.

# %%
of_x, of_z = visible["multinomial"], latent["bits"]
model = random_harmonium(of_x, of_z)
with torch.no_grad():
    bent = CodeTable(model.visible_eta(of_z[2]) + 3 * torch.randn(8, 1))
vae = VAE(model.as_vae().prior, Conditional(bent, of_x[0]), model.as_vae().encoder)
assert log_bilinear.distance(log_bilinear.joint_table(vae, of_x[2], codes)) < 1e-8
f, psi = bent.table.detach(), log_bilinear.extend(all_bits(3))
assert (f - psi @ torch.linalg.pinv(psi) @ f).abs().max() > 1e-2
try:
    log_bilinear.interpolate(log_bilinear.joint_table(vae, of_x[2], codes))
except ValueError as error:
    print("bent network, consistent:", str(error).split(":")[1].strip())

two = exact.enumerate_states(Bernoulli(torch.zeros(2)))
rows, sign = torch.randn(4, 5), torch.tensor([1.0, -1.0, -1.0, 1.0])
decoder = Conditional(CodeTable(rows), Bernoulli)
coupling = (sign * decoder(two.points).log_prob(images[5])).sum().detach()
prior = Prior(-coupling * two.points.prod(1), CategoricalOver(two.points))
vae = VAE(prior, decoder, Conditional(torch.nn.Linear(5, 2), Bernoulli))
on_one = log_bilinear.distance(log_bilinear.joint_table(vae, images[5:6], two))
on_all = log_bilinear.distance(log_bilinear.joint_table(vae, images, two))
assert on_one < 1e-9 < 1e-3 < on_all
print("one prior weight set: tight on one observation, not on all")

# %% [markdown]
# ## Depth of the encoder
#
# {prf:ref}`cor-1` on five pixels and three bits, where data are all 32 images with the model's own probabilities, so nothing is
# sampled. Three kinds of decoder, fixed: a free row of logits for each code; an affine one with its harmonium's prior; the same affine one with uniform bits.
# Each encoder starts at random and is trained to convergence or to the given number of evaluations. Depth zero is an affine
# encoder, that is, the posterior of some harmonium {eq}`eq-6`.


# %%
def fixed_decoder(kind: str, draw: int) -> VAE:
    rng = torch.Generator().manual_seed(1000 * seed + draw)
    weights = [
        scale * torch.randn(shape, generator=rng) for scale, shape in ((1.5, (5, 3)), (1, (5,)), (1, (3,)), (2, (8, 5)))
    ]
    vae = Harmonium(Bernoulli, Bernoulli, *weights[:3]).as_vae()
    uniform = Prior(torch.zeros(3), Bernoulli)
    if kind == "nonlinear decoder, uniform prior":
        vae = VAE(uniform, Conditional(CodeTable(weights[3]), Bernoulli), vae.encoder)
    elif kind == "affine decoder, uniform prior":
        vae = VAE(uniform, vae.decoder, vae.encoder)
    _ = vae.decoder.requires_grad_(requires_grad=False)
    return vae


kinds = ("nonlinear decoder, uniform prior", "affine decoder, uniform prior", "affine decoder, its harmonium's prior")
gaps, floors = {}, {}
for kind in kinds:
    rows, least = [], []
    for draw in range(seeds):
        vae = fixed_decoder(kind, draw)
        joint = exact.log_joint(vae, images, codes).detach()
        weights = torch.logsumexp(joint, 0).exp()
        least.append((weights * posterior_gap(joint, 3)).sum())
        new = [with_encoder(vae, Bernoulli, 5, 3, depth, draw, width) for depth in range(max_depth + 1)]
        rows.append([train_encoder(deep, images, weights, codes, steps) for deep in new])
    gaps[kind], floors[kind] = torch.tensor(rows), torch.stack(least)
    assert (gaps[kind] >= floors[kind][:, None] - 1e-10).all()  # a law: no network is below the least gap of its family
    print(f"{kind:38} least gap {floors[kind].mean():.3f}")
assert floors[kinds[2]].max() < 1e-9
assert min(floors[kinds[0]].min(), floors[kinds[1]].min()) > 1e-9
if (seed, seeds, max_depth, width, steps) == (0, 3, 3, 32, 150):
    assert gaps[kinds[2]].max() < 1e-4
    assert (gaps[kinds[0]][:, 0] > floors[kinds[0]] + 0.05).all()

# %% mystnb={"figure": {"name": "own-depth", "caption": "Posterior gap of trained encoders over their number of hidden layers, one mark for each random decoder, lines through the geometric means. Dotted: least gap of the encoder's family, with a band over the decoders; no network gets below. With the harmonium's prior the least gap is zero: there the affine encoder reaches it to rounding, and what deeper ones leave is unfinished optimisation. Gaps below 1e-10 are drawn at 1e-10."}, "image": {"alt": "Posterior gap on a logarithmic axis over zero to three hidden layers. The marks of the nonlinear decoder and of the affine decoder with uniform prior stay at or above their dotted floors at every depth; those of the affine decoder with its harmonium's prior lie orders of magnitude lower."}}
figure = plots.gap_over_depth(gaps, floors)
plt.show()

# %% [markdown]
# ## Corollary 2: which prior
#
# {prf:ref}`own-parallelogram`. Four Gaussian centers at the corners of a parallelogram, equally likely: an affine decoder with uniform prior made the data, so
# the class holds the truth, and its likelihood is the largest possible. {py:func}`efvae.affine_decoder.best_bound`
# searches the best ELBO over all $W$, $u$ and over a free factorized $q$ for each $x$, from the truth and from a random start. The
# columns have lengths 2.4 and 1.8 noise standard deviations. The last columns show the decoder found: less oblique than the truth, and at the
# smallest angle with one column much shortened.

# %%
plane = exact.grid([-8.0, -8.0], [8.0, 8.0], 17)
unit_gaussian = partial(GaussianFixedVariance, variance=1.0)
uniform = torch.full((4,), 0.25).log()


def parallelogram(angle: float) -> torch.Tensor:
    a = torch.deg2rad(torch.tensor(angle))
    w1, w2 = torch.tensor([2.4, 0.0]), 1.8 * torch.stack([a.cos(), a.sin()])
    return torch.stack([w1, w2, -(w1 + w2) / 2], 1)


def lost_by_elbo(make, rule: Rule, truth: torch.Tensor, starts: int) -> tuple[float, float, torch.Tensor]:
    decoder = AffineDecoder(make, rule.points, uniform)
    log_p = torch.logsumexp(decoder.log_joint(truth), 0)
    data = (log_p + rule.log_weights).exp()
    first = truth + 0.8 * torch.randn(starts, *truth.shape) * (torch.arange(starts) > 0)[:, None, None]
    best = best_bound(decoder.log_joint, data, 2, first)
    return float((data * log_p).sum()) - best.elbo, best.log_likelihood - best.elbo, best.theta


def shape(theta: torch.Tensor) -> tuple[float, float, float]:
    """Angle between the columns in degrees, at most 90 (inverting a bit turns a column around), and their lengths."""
    w1, w2 = theta[:, 0], theta[:, 1]
    cosine = (w1 @ w2 / (w1.norm() * w2.norm())).abs().clamp(max=1)
    return float(torch.rad2deg(cosine.acos())), *sorted((float(w1.norm()), float(w2.norm())))


angle = torch.linspace(90, 30, angles).tolist()
found = [lost_by_elbo(unit_gaussian, plane, parallelogram(a), 2) for a in angle]
loss, gap = torch.tensor([pair[:2] for pair in found]).clamp(min=0).T
for a, (lost, _, theta) in zip(angle, found, strict=True):
    assert abs(interaction(unit_gaussian, parallelogram(a)) - 2.4 * 1.8 * torch.deg2rad(torch.tensor(a)).cos()) < 1e-9
    assert lost < 1e-8 if a == 90 else lost > 1e-6
    learned, short, long = shape(theta)
    if (seed, seeds, max_depth, width, steps, angles) == (0, 3, 3, 32, 150, 5):
        assert learned > a + 5 or a == 90
        assert short < 0.9 or a > 30
    print(
        f"{a:5.0f}°  lost by the best ELBO: {abs(lost):.4f}   best decoder: {learned:3.0f}°, columns {short:.1f} and {long:.1f}"
    )
if (seed, seeds, max_depth, width, steps, angles) == (0, 3, 3, 32, 150, 5):
    assert (loss.diff() > 0).all()  # of these angles, the smaller one loses more

# %% mystnb={"figure": {"name": "own-angle", "caption": "Top: four equally likely Gaussian centers, affine in the two bits of the code; circles of one noise standard deviation. Bottom: what the best ELBO with an affine decoder and uniform prior lacks to the likelihood of the truth, which is in the class, and the part of it that is posterior gap. Only the rectangle loses nothing."}, "image": {"alt": "Three layouts of four circles: a rectangle and two increasingly oblique parallelograms. Below, the likelihood lost by the best ELBO is zero at ninety degrees and grows as the angle between the columns shrinks."}}
shown = {f"{a:.0f}°": AffineDecoder.eta(parallelogram(a)) for a in (90.0, 60.0, 30.0)}
figure = plots.gap_over_angle(shown, angle, loss, gap)
plt.show()

# %% [markdown]
# ## The same for binary pixels, and with the prior tied
#
# {prf:ref}`own-cor-2` on six pixels and two bits. First a truth for which {prf:ref}`own-binary` says that no decoder of the class is both as likely
# and tight, then random ones. Then {prf:ref}`cor-2` in the form that holds: the class of all harmonia, on data from a harmonium.

# %%
six = exact.enumerate_states(Bernoulli(torch.zeros(6)))
proven = torch.tensor(
    [[2.0, 1.0, -1.5], [1.0, 2.0, -1.5], [1.5, 1.5, -1.0], [2.5, 0.5, -1.0], [0.5, 2.5, -2.0], [2.0, 1.2, -2.0]]
)
assert (proven[:, 0] * proven[:, 1] > 0).all()  # so the interaction of the two bits is positive
p = torch.sigmoid(AffineDecoder.eta(proven))
for i, j in ((0, 1), (3, 4)):  # the conditions of the proof: two pairs of full rank, and a pixel with four values
    assert torch.linalg.svdvals(torch.stack([torch.ones(4), p[:, i], p[:, j], p[:, i] * p[:, j]])).min() > 1e-3
assert torch.pdist(p[:, 5:]).min() > 1e-2
lost, gap, _ = lost_by_elbo(Bernoulli, six, proven, 3)
assert abs(lost - 0.0046246) < 1e-6
print(f"proven truth:  lost by the best ELBO {lost:.5f}, of this posterior gap {gap:.5f}")
random_loss = []
for _ in range(seeds):
    w = 0.5 + 2.5 * torch.rand(6, 2)  # every pixel pulls the same way, as in the proven truth
    random_loss.append(lost_by_elbo(Bernoulli, six, torch.cat([w, -w.mean(1, keepdim=True) - 1], 1), 2)[0])
assert min(random_loss) > 0
print(f"{seeds} random truths: lost {min(random_loss):.4f} to {max(random_loss):.4f}")

# %%
truth = torch.cat([proven, torch.tensor([[-3.0, -2.5, 0.0]])])
of_harmonia = harmonium_log_joint(Bernoulli, six.points, 2)
log_p = torch.logsumexp(of_harmonia(truth), 0)
data, likelihood = log_p.exp(), float((log_p.exp() * log_p).sum())
starts = truth + 0.3 * torch.randn(2, 7, 3)
tied = best_bound(of_harmonia, data, 2, starts)
fixed = AffineDecoder(Bernoulli, six.points, uniform).log_joint
untied = best_bound(fixed, data, 2, starts[:, :-1])
reach = maximize(lambda theta: (torch.logsumexp(fixed(theta), 0) * data).sum(), untied.theta)
reachable = float((torch.logsumexp(fixed(reach), 0) * data).sum())
assert abs(likelihood - tied.elbo) < 1e-6
assert tied.log_likelihood - tied.elbo < 1e-9  # every member is tight
assert reachable >= untied.log_likelihood - 1e-9 >= untied.elbo - 2e-9
print("data from a harmonium; lacking to the truth's likelihood:")
print(f"  all harmonia                   best ELBO {abs(likelihood - tied.elbo):.5f}")
print(
    f"  affine decoders, uniform prior best ELBO {likelihood - untied.elbo:.5f}, best likelihood {likelihood - reachable:.5f}"
)

# %% [markdown]
# ## More statistics
#
# What does help is a larger family: {prf:ref}`own-statistics`. For the nonlinear decoders from above, the least gap with bits alone (3 statistics),
# with bits and pairs (6), and with all products (7), where the family holds every distribution of the code.

# %%
least = []
for draw in range(seeds):
    vae = fixed_decoder(kinds[0], draw)
    joint = exact.log_joint(vae, images, codes).detach()
    weights = torch.logsumexp(joint, 0).exp()
    larger = [family_gap(joint, code_products(3, order), tolerance=1e-10) for order in (2, 3)]
    least.append(torch.stack([(weights * gap).sum() for gap in (posterior_gap(joint, 3), *larger)]))
least = torch.stack(least)
assert (least[:, 0] > least[:, 1]).all()
assert (least[:, 1] > least[:, 2]).all()
assert least[:, 2].max() < 1e-9
print("mean least gap with 3, 6, 7 statistics: " + ", ".join(f"{v:.3f}" for v in least.mean(0).tolist()))

# %% mystnb={"figure": {"name": "own-statistics-figure", "caption": "Least posterior gap over the number of statistics of the encoder: three bits, bits and pairs, all products. Grey-blue: random nonlinear decoders with five pixels and uniform prior; black: their mean."}, "image": {"alt": "Lines fall from three over six to seven statistics, where the gap is zero for every decoder."}}
figure = plots.gap_over_statistics((3, 6, 7), least)
plt.show()
