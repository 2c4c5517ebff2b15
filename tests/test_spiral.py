"""Section 4.2 on the spiral (sec-4-2, fn-3): each quantity computed in another way, the stages, the records.

Labels: own-spiral, own-spiral-oracle, own-affine-residual, own-noise-bound, own-two-directions, own-certificate.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
import yaml

from efvae import exact, records
from efvae.estimators import gauss_hermite_nodes
from efvae.experiments import spiral, spiral_oracle
from efvae.experiments.spiral import Config
from efvae.experiments.spiral_encoder import Mixture, best_gaussians
from efvae.experiments.spiral_measure import affine_residual, evaluate, least_gap, linear_optimum, summarize
from efvae.experiments.spiral_model import SpiralVAE, expectation_rule, latent_line, log_joint, sample
from efvae.experiments.spiral_model import spiral as curve
from efvae.experiments.spiral_oracle import COARSE, FINE, ascend, decoder_step
from efvae.families import Gaussian, GaussianFixedVariance
from efvae.image_vae import entropy_bound
from efvae.models import VAE, Conditional, Prior

NOISE = 0.6
TINY = {"conditional_steps": 3, "encoder_steps": 3, "joint_steps": 4, "batch_size": 8, "width": 4}
ROOT = records.project_root()
STORED = {name: records.load_like(spiral.STEM, spiral.RECORDED[name], ROOT / "results") for name in spiral.ENCODERS}


def model(components: int, seed: int = 0, *, bent: bool = True) -> SpiralVAE:
    """A VAE with random networks, the decoder off the truth."""
    torch.manual_seed(seed)
    vae = SpiralVAE(components, 0.5, 6).double().requires_grad_(requires_grad=False)
    for layer in (vae.encoder[-1], vae.decoder.network[-1]) if bent else ():
        layer.weight.normal_(0, 0.4)
        layer.bias.add_(0.3 * torch.randn(layer.bias.shape, dtype=torch.float64))
    return vae


@pytest.fixture(scope="module")
def rule():
    return expectation_rule(NOISE, 31, latent_line(161))[0]


# --- the truth -----------------------------------------------------------------------------------------------------


def test_curve_is_the_printed_one():
    z = np.linspace(-4, 4, 41)
    t = np.tanh(0.8 * z)
    complex_curve = (1.2 + 0.6 * t) * np.exp(4.2j * t)
    mine = curve(torch.tensor(z)[:, None]).numpy()
    np.testing.assert_allclose(mine, np.stack([complex_curve.real, complex_curve.imag], -1), atol=1e-12)


def test_expectation_rule_has_the_moments_and_the_entropy_of_the_truth():
    rule, log_p = expectation_rule(NOISE)
    weight = rule.log_weights.exp()
    nodes, log_w = gauss_hermite_nodes(120, 1, like=weight)  # another rule, in z
    mean = log_w.exp() @ curve(nodes)
    centred = curve(nodes) - mean
    covariance = (log_w.exp()[:, None] * centred).T @ centred + NOISE**2 * torch.eye(2)
    torch.testing.assert_close(weight @ rule.points, mean, atol=1e-5, rtol=0)
    off = rule.points - mean
    torch.testing.assert_close((weight[:, None] * off).T @ off, covariance, atol=3e-5, rtol=0)
    drawn = sample(NOISE, 4000, torch.Generator().manual_seed(0)).double()
    density = scipy.stats.norm(scale=NOISE).logpdf(drawn[:, None, :2] - curve(nodes)).sum(-1)
    at_draws = torch.logsumexp(torch.tensor(density) + log_w, 1)
    score = (float(weight @ log_p) - at_draws.mean()) / (at_draws.std() / math.sqrt(len(drawn)))
    assert abs(score) < 4
    # own-noise-bound: the information that x has about z is what lacks to the bound
    assert float(weight @ log_p) < entropy_bound(2, NOISE)
    given_z = scipy.stats.norm(scale=NOISE).logpdf(drawn[:, :2] - curve(drawn[:, 2:])).sum(-1)
    assert np.mean(given_z) == pytest.approx(entropy_bound(2, NOISE), abs=4 * np.std(given_z) / math.sqrt(len(drawn)))


def test_log_joint_is_two_normals():
    z, x = torch.tensor([0.3, -1.2]), torch.tensor([[0.5, 0.1], [-1.0, 2.0]])
    mean = torch.tensor([[0.2, 0.4], [1.0, -0.5]])
    mine = log_joint(mean, torch.tensor(0.7).log(), x, z)
    for k in range(2):
        theirs = scipy.stats.norm.logpdf(z[k]) + scipy.stats.multivariate_normal(mean[k], 0.49).logpdf(x[k])
        assert float(mine[k]) == pytest.approx(theirs, abs=1e-5)


def test_nearly_all_posteriors_have_two_modes():
    rule, _ = expectation_rule(NOISE)
    line = latent_line(961)
    joint = log_joint(curve(line.points)[:, None], torch.tensor(NOISE).double().log(), rule.points, line.points)
    modes = ((joint[1:-1] > joint[:-2]) & (joint[1:-1] > joint[2:])).sum(0)
    share = [float(rule.log_weights.exp()[modes == k].sum()) for k in (1, 2, 3)]
    assert sum(share) == pytest.approx(1, abs=1e-5)
    assert share[1] > 0.9
    assert share[2] > 0.01


# --- the encoder ---------------------------------------------------------------------------------------------------


def test_mixture_against_torch_distributions():
    raw = torch.randn(5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q = Mixture.from_raw(raw)
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=raw[:, :3]), torch.distributions.Normal(raw[:, 3:6], q.log_std.exp())
    )
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None].expand(-1, 5)
    torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z))
    wild = Mixture.from_raw(torch.tensor([[0.0, 0.0, 50.0], [0.0, 0.0, -50.0]]))
    assert wild.log_std[:, 0].tolist() == pytest.approx([1.5, -3.5])


def test_draws_are_unbiased():
    q = Mixture.from_raw(torch.tensor([[0.4, -0.3, 0.1, -0.8, 0.9, 2.0, -1.0, -0.5, 0.2]], dtype=torch.float64))
    source = torch.Generator().manual_seed(2)

    def f(z):
        return torch.sin(3 * z) + z.square()  # 4 nodes of a fixed rule would be far off the sine

    found = []
    for _ in range(4000):
        z, weight = q.draws(4, source)
        assert z.shape == (12, 1)
        assert float(weight.sum()) == pytest.approx(1)
        found.append(float((weight * f(z)).sum()))
    integral = scipy.integrate.quad(
        lambda t: float(q.log_prob(torch.tensor([[t]])).exp() * f(torch.tensor(t))), -12, 12, limit=400
    )[0]
    assert abs(np.mean(found) - integral) < 4 * np.std(found) / math.sqrt(len(found))


def test_trained_bound_is_the_evaluated_one(rule):
    """eq-1a against eq-1b: stratified draws and the grid agree, for one component and for three."""
    for components in (1, 3):
        vae = model(components)
        weight = rule.log_weights.exp()
        source = torch.Generator().manual_seed(3)
        draws = torch.stack([weight @ vae.elbo(rule.points, source) for _ in range(40)])
        mine = evaluate(vae, rule)["elbo"]
        assert abs(float(draws.mean()) - mine) < 4 * float(draws.std()) / math.sqrt(len(draws)) + 1e-3


# --- what is measured ----------------------------------------------------------------------------------------------


def test_evaluate_against_the_oracles_of_the_library(rule):
    vae = model(1)

    def as_gaussian(raw):
        q = Mixture.from_raw(raw)
        return Gaussian.from_mean_variance(q.mean, (2 * q.log_std).exp())

    with torch.no_grad():
        q = as_gaussian(vae.encoder(rule.points))
    inside = (q.location.abs() + 6 * q.variance.sqrt() < 6)[:, 0]  # far out the untrained encoder leaves the line
    rule = exact.Rule(rule.points[inside], rule.log_weights[inside])
    weight = rule.log_weights.exp()
    assert weight.sum() > 0.4
    unit = torch.ones(1, dtype=torch.float64)
    other = VAE(
        Prior(Gaussian.from_mean_variance(0 * unit, unit).eta, Gaussian),
        Conditional(vae.decoder, partial(GaussianFixedVariance.from_mean, variance=float(vae.noise) ** 2)),
        Conditional(vae.encoder, as_gaussian),
    )
    line, mine = latent_line(), evaluate(vae, rule)
    assert mine["gap"] == pytest.approx(float(weight @ exact.posterior_kl(other, rule.points, line)), abs=1e-9)
    assert mine["elbo"] == pytest.approx(float(weight @ exact.elbo(other, rule.points, line)), abs=1e-9)
    assert mine["log_likelihood"] == pytest.approx(
        float(weight @ exact.log_marginal(other, rule.points, line)), abs=1e-9
    )
    assert mine["noise"] == pytest.approx(0.5)
    assert 0 < mine["bent"] < 1


def test_bends_are_those_of_draws_from_prior_and_encoder(rule):
    """Regression on draws; q(z | x) = N(x1 + 1, 0.3²), so that the codes are far from the prior."""
    line, weight = latent_line(), rule.log_weights.exp()
    normal = torch.distributions.Normal(rule.points[:, 0] + 1, 0.3)
    found = summarize(curve(line.points), torch.tensor(0.5).double().log(), normal.log_prob(line.points), rule, line)
    source = torch.Generator().manual_seed(6)
    x1 = rule.points[torch.multinomial(weight, 40000, replacement=True, generator=source), 0]
    codes = {
        "bent": torch.randn(40000, generator=source, dtype=torch.float64),
        "bent_encoder": x1 + 1 + 0.3 * torch.randn(40000, generator=source, dtype=torch.float64),
    }
    for name, z in codes.items():
        y = curve(z[:, None]).numpy()
        fit = np.linalg.lstsq(np.column_stack([np.ones(len(z)), z]), y, rcond=None)
        assert found[name] == pytest.approx(fit[1].sum() / (len(y) * y.var(0).sum()), abs=0.008)
    assert abs(found["bent"] - found["bent_encoder"]) > 0.05


@pytest.mark.parametrize(
    ("mean", "share"),
    [
        (lambda z: torch.stack([2 * z + 1, -z], -1), 0.0),
        (lambda z: torch.stack([z, z * z], -1), 2 / 3),  # variances 1 and 2, the square uncorrelated with z
        (lambda z: torch.stack([z.square(), 0 * z], -1), 1.0),
        (lambda z: torch.stack([z**3, 0 * z], -1), 6 / 15),  # Var z³ = 15, Cov(z, z³) = 3
    ],
)
def test_affine_residual_in_closed_form(mean, share):
    nodes, log_w = gauss_hermite_nodes(20, 1, like=torch.zeros(1, dtype=torch.float64))
    z = nodes[:, 0]
    assert affine_residual(mean(z), z, 7 * log_w.exp()) == pytest.approx(share, abs=1e-10)


def test_linear_optimum_is_the_gaussian_of_the_data_and_has_no_gap():
    rule, _ = expectation_rule(NOISE)
    ppca, bound = linear_optimum(rule)
    z = latent_line().points
    drawn = sample(NOISE, 200_000, torch.Generator().manual_seed(1))[:, :2].numpy().astype(float)
    values = scipy.stats.multivariate_normal(drawn.mean(0), np.cov(drawn.T)).logpdf(drawn)
    assert bound == pytest.approx(values.mean(), abs=4 * values.std() / math.sqrt(len(drawn)))
    log_noise = 0.5 * ppca.noise.log()
    straight = ppca.mean + z * ppca.loadings[:, 0]
    q = ppca.posterior(rule.points)
    found = summarize(straight, log_noise, q.log_prob(z[:, None]), rule, latent_line())
    assert found["elbo"] == pytest.approx(bound, abs=1e-4)
    assert found["gap"] == pytest.approx(0, abs=1e-6)
    assert found["bent"] == pytest.approx(0, abs=1e-9)


# --- the best Gaussian, the oracle ---------------------------------------------------------------------------------


def test_best_gaussians_against_scipy():
    """Minimisation by scipy from eight starts, with its own arithmetic."""
    x = sample(NOISE, 6, torch.Generator().manual_seed(5))[:, :2].double()
    line = latent_line()
    joint = log_joint(curve(line.points)[:, None], torch.tensor(NOISE).double().log(), x, line.points)
    mine = best_gaussians(joint, line)[1]
    nodes, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    for k in range(len(x)):

        def negative_elbo(free, k=k):
            mean, log_std = free[0], np.clip(free[1], -6, 2)
            z = torch.tensor(mean + np.exp(log_std) * nodes)[:, None]
            at = scipy.stats.norm.logpdf(z[:, 0]) + scipy.stats.norm(scale=NOISE).logpdf(x[k] - curve(z)).sum(-1)
            return -(w @ at + log_std + 0.5 * math.log(2 * math.pi * math.e))

        best = min(
            scipy.optimize.minimize(negative_elbo, (m, s), method="Nelder-Mead", options={"xatol": 1e-6}).fun
            for m in (-1.5, -0.5, 0.5, 1.5) for s in (-1.5, -0.5)
        )  # fmt: skip
        assert float(mine[k]) == pytest.approx(-best, abs=2e-4)


def test_least_gap_lies_below_any_network_and_vanishes_for_a_line(rule):
    vae = model(1)
    assert 0 < least_gap(vae, rule) < evaluate(vae, rule)["gap"]
    line = latent_line()
    straight = line.points * torch.tensor([[1.1, -0.4]]).double()
    joint = log_joint(straight[:, None], torch.tensor(NOISE).double().log(), rule.points, line.points)
    log_p = torch.logsumexp(joint + line.log_weights[:, None], 0)
    gap = rule.log_weights.exp() @ (log_p - best_gaussians(joint, line)[1])
    assert float(gap) == pytest.approx(0, abs=1e-4)


def test_decoder_step_is_a_maximum(rule):
    line, weight = latent_line(61), rule.log_weights.exp()
    q = model(1).posterior(rule.points).log_prob(line.points)
    mass = (q + line.log_weights[:, None]).exp()
    start = curve(line.points)
    log_noise = torch.tensor(0.5).double().log()
    best = decoder_step(mass, rule.points, weight, start)

    def bound(mean):
        return float(weight @ (mass * log_joint(mean[:, None], log_noise, rule.points, line.points)).sum(0))

    assert bound(best) > bound(start)
    for seed in range(5):
        off = 0.1 * torch.randn(best.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert bound(best + off) < bound(best)
    torch.testing.assert_close(decoder_step(0 * mass, rule.points, weight, start), start)


@pytest.mark.parametrize("learn_noise", [False, True])
def test_ascent_rises_and_straightens(rule, learn_noise):
    end = ascend(rule, NOISE, learn_noise=learn_noise, iterations=6, line=latent_line(161))
    elbo = end.curve["elbo"]
    assert all(b > a - 1e-4 for a, b in itertools.pairwise(elbo))
    assert elbo[-1] > elbo[0] + 0.02
    assert end.curve["log_likelihood"][-1] < end.curve["log_likelihood"][0] - 0.003
    assert end.curve["bent"][-1] < end.curve["bent"][0]
    assert (float(end.log_noise.exp()) != NOISE) == learn_noise


def test_a_drop_of_the_coarse_search_does_not_end_the_ascent(monkeypatch):
    """On this grid the tenth entry is lower than the ninth by the coarse search; the fine one climbs on from there."""
    line = latent_line(101)
    rule, _ = expectation_rule(NOISE, 17, line)
    used = []

    def search(joint, line, halvings):
        used.append(halvings)
        return best_gaussians(joint, line, halvings)

    monkeypatch.setattr(spiral_oracle, "best_gaussians", search)
    end = ascend(rule, NOISE, learn_noise=False, iterations=100, line=line)
    elbo, coarse = end.curve["elbo"], used.count(COARSE)
    assert used == [COARSE] * coarse + [FINE] * (len(elbo) - coarse)
    gains = np.diff(elbo)
    before, drop, after, last = gains[: coarse - 2], gains[coarse - 2], gains[coarse - 1 : -1], gains[-1]
    assert drop < 0
    assert last < 1e-6 <= min([*before, *after])
    assert elbo[-1] > elbo[coarse - 1] + 5e-4
    used.clear()
    ascend(rule, NOISE, learn_noise=False, iterations=3, line=line)
    assert used == [COARSE, COARSE, COARSE, FINE]


def test_two_directions_of_the_divergence():
    """own-two-directions: both minima and the divergence of the wide fit, against scipy and torch."""
    p = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.7], [0.7, 1.5]]))
    precision = p.precision_matrix

    def q(free):
        return torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor(np.exp(free)).float().diag())

    kl = torch.distributions.kl_divergence
    forward = scipy.optimize.minimize(lambda f: float(kl(p, q(f))), np.zeros(2), method="Nelder-Mead").x
    reverse = scipy.optimize.minimize(lambda f: float(kl(q(f), p)), np.zeros(2), method="Nelder-Mead").x
    wide = p.covariance_matrix.diagonal()
    np.testing.assert_allclose(np.exp(forward), wide, rtol=2e-2)
    np.testing.assert_allclose(np.exp(reverse), 1 / precision.diagonal(), rtol=2e-2)
    formula = 0.5 * ((precision.diagonal() * wide).sum() - 2 - wide.log().sum() - torch.logdet(precision))
    assert float(formula) == pytest.approx(float(kl(q(wide.log().numpy()), p)), rel=1e-4)


# --- the experiment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"encoder": "flow"}, "encoder must be one of gaussian, mixture, oracle; got 'flow'"),
        ({"noise": 0.05}, "noise must be in"),
        ({"noise": math.nan}, "noise must be in"),
        ({"noise": "wide"}, "noise must be a number; got 'wide'"),
        ({"joint_steps": 0}, "joint_steps must be a whole number of at least 1; got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive number"),
    ],
)
def test_bad_config_is_one_clear_line(wrong, told):
    with pytest.raises(ValueError) as error:
        Config(**wrong)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_word_on_the_command_line_is_refused():
    words = [sys.executable, "-m", "efvae.experiments.spiral", "encoder=flow"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.fixture
def _coarse(monkeypatch):
    """A coarser grid of observations: these tests are about the stages."""
    monkeypatch.setattr(spiral, "expectation_rule", partial(expectation_rule, side=17))


@pytest.mark.usefixtures("_coarse")
@pytest.mark.parametrize("encoder", ["gaussian", "mixture", "oracle"])
def test_a_cell_runs_its_stages_and_is_found_again(encoder, tmp_path):
    config = Config(encoder=encoder, **TINY)
    record = spiral.run(config, results=tmp_path)
    assert records.same(record, spiral.run(config))
    assert spiral.run(config, results=tmp_path).provenance == record.provenance
    stages = spiral.STAGES if encoder != "oracle" else spiral.STAGES[1:]
    for stage in stages:
        got = {name.removesuffix(f"_{stage}"): value for name, value in record.metrics.items() if name.endswith(stage)}
        assert got["elbo"] == pytest.approx(got["log_likelihood"] - got["gap"], abs=1e-9)
        assert got["approximation_error"] == pytest.approx(
            record.metrics["negative_entropy"] - got["log_likelihood"], abs=1e-9
        )
        changes = stage in ("fixed", "learned")
        assert (abs(got["approximation_error"]) > 1e-7) == changes  # the encoder alone leaves the decoder
        assert (abs(got["noise"] - config.noise) > 1e-6) == (stage == "learned")
    # both joint trainings start at the same place
    assert record.curve["elbo_fixed"][0] == record.curve["elbo_learned"][0]
    assert len(record.curve["mean_z"]) == len(record.curve["mean_x1_fixed"]) == len(record.curve["mean_x2_learned"])


@pytest.mark.parametrize("stage", ["conditional", "fixed"])
def test_the_seed_is_that_of_the_samples_too(stage):
    """From the same first weights two seeds end at two places, and one seed at one."""
    rule, _ = expectation_rule(NOISE, 17)

    def trained(seed):
        vae = model(1).float().requires_grad_(requires_grad=True)
        spiral._stage(Config(seed=seed, **TINY), stage, vae, rule)
        return torch.cat([value.flatten() for value in vae.state_dict().values()])

    first = trained(0)
    assert torch.equal(first, trained(0))
    assert not torch.allclose(first, trained(1), atol=1e-3)


@pytest.mark.usefixtures("_coarse")
def test_without_the_middle_stage_the_joint_training_starts_as_in_the_paper():
    record = spiral.run(Config(**TINY | {"encoder_steps": 0}))
    assert record.metrics["elbo_encoder"] == record.metrics["elbo_conditional"]
    assert record.curve["elbo_fixed"][0] == record.metrics["elbo_conditional"]


# --- the committed records -----------------------------------------------------------------------------------------


def test_records_are_those_of_the_full_profile():
    full = yaml.safe_load((ROOT / "notebooks/params/sec4_2_images.full.yaml").read_text())
    steps = {name: full[name] for name in ("conditional_steps", "encoder_steps", "joint_steps")}
    for name in ("gaussian", "mixture"):
        assert {row.config["seed"] for row in STORED[name]} >= {0, 1, 2}
        for row in STORED[name]:
            assert steps.items() <= row.config.items()
    assert len(STORED["oracle"]) == 1


@pytest.mark.parametrize("stage", ["fixed", "learned"])
def test_records_say_what_the_page_says(stage):
    """own-certificate: the ELBO prefers the trained decoder to the truth with any Gaussian encoder."""
    for row in STORED["gaussian"] + STORED["oracle"]:
        m = row.metrics
        assert m[f"elbo_{stage}"] > m["negative_entropy"] - m["least_gap_encoder"]
        assert m[f"log_likelihood_{stage}"] < m["negative_entropy"] - 0.015
        assert m[f"bent_{stage}"] < m["bent_encoder"]
        assert m[f"elbo_{stage}"] < m["linear_elbo"]
    for row in STORED["mixture"]:
        assert row.metrics[f"elbo_{stage}"] > row.metrics["linear_elbo"]
        assert row.metrics[f"approximation_error_{stage}"] < 0.004
        assert row.metrics[f"bent_{stage}"] > 0.93
        assert row.metrics[f"least_gap_{stage}"] > 0.19


def test_records_with_learned_noise_end_at_the_linear_model():
    for row in STORED["gaussian"]:
        m = row.metrics
        assert m["linear_elbo"] - 0.003 < m["elbo_learned"] < m["linear_elbo"]
        assert m["bent_learned"] < 0.1
        assert m["noise_learned"] == pytest.approx(1, abs=0.05)
        assert m["elbo_conditional"] < m["elbo_encoder"] - 1
        assert 0.6 < STORED["oracle"][0].metrics["approximation_error_fixed"] / m["approximation_error_fixed"] < 0.9


def test_a_recorded_decoder_has_the_recorded_likelihood():
    row = STORED["mixture"][0]
    mean = torch.stack([torch.tensor(row.curve[f"mean_x{k}_learned"], dtype=torch.float64) for k in (1, 2)], -1)
    rule, _ = expectation_rule(row.config["noise"])
    line = latent_line()
    assert line.points[:, 0].tolist() == row.curve["mean_z"]
    log_noise = torch.tensor(row.metrics["noise_learned"], dtype=torch.float64).log()
    joint = log_joint(mean[:, None], log_noise, rule.points, line.points) + line.log_weights[:, None]
    likelihood = float(rule.log_weights.exp() @ torch.logsumexp(joint, 0))
    assert likelihood == pytest.approx(row.metrics["log_likelihood_learned"], abs=1e-5)


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plots():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from efvae.plots import spiral as module

    pyplot.switch_backend("Agg")
    yield module
    pyplot.close("all")


def test_figures_show_what_they_are_given(plots):
    z = latent_line().points[:, 0]
    axis = torch.linspace(-3, 3, 11)
    figure = plots.densities(
        (axis, axis), [("a", torch.ones(11, 11), curve(z[:, None])), ("b", torch.ones(11, 11), None)], z
    )
    titled = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in titled] == ["a", "b"]
    assert [len(ax.texts) for ax in titled] == [3, 0]
    drawn = titled[0].lines[0].get_xydata()
    assert np.abs(drawn - curve(z[z.abs() <= 2.5][:, None]).numpy()).max() < 1e-12
    assert "density" in figure.axes[-1].get_xlabel()

    column = {"step": [0, 2], "elbo": [-4, -3.0], "log_likelihood": [-3, -3.0], "bent": [0.9, 0.5], "noise": [0.6, 0.7]}
    figure = plots.learning_curves(dict.fromkeys(spiral.STAGES, column), {"fixed": [column]}, {"truth": -2.9})
    first, bend, noise = figure.axes
    assert first.get_ylabel() == "nats"
    assert [list(line.get_ydata()) for line in bend.lines if len(line.get_xdata()) == 2].count([0.9, 0.5]) == 5
    assert {tuple(line.get_xdata()) for line in noise.lines if list(line.get_ydata()) == [0.6, 0.7]} == {
        (0, 1), (1, 2), (2, 3)}  # fmt: skip

    mean = curve(z[:, None])
    figure = plots.coordinates(z, {"truth": (mean, 0 * mean)})
    for k, ax in enumerate(figure.axes):
        assert np.abs(ax.lines[0].get_ydata() - mean[z.abs() <= 3, k].numpy()).max() < 1e-12
        assert np.abs(ax.lines[1].get_ydata()).max() == 0
