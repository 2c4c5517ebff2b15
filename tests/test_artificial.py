"""Section 4.1 (sec-4-1, fig-2, app-c1): the oracle against independent methods, the experiment, its records."""

import dataclasses
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
import yaml

from efvae import exact, records
from efvae.experiments import artificial
from efvae.experiments.artificial import Config
from efvae.experiments.artificial_oracle import MeanField, _renamed, fit_harmonium, mean_field_vae
from efvae.experiments.artificial_rectangle import fit_rectangle, rectangle_defect
from efvae.experiments.artificial_truth import CENTERS, SIGMA, centers_of, codes, evaluate, expectation_rule, truth
from efvae.families import all_bits

PAPER = {"negative_entropy": -3.65, "elbo_pretrained": -3.74, "elbo_joint": -3.70, "log_likelihood_joint": -3.68}
TINY = {"pretrain_steps": 3, "joint_steps": 4, "batch_size": 16, "width": 8}
BITS = all_bits(2)
ROOT = records.project_root()
COMMITTED = ROOT / "results"
FULL = yaml.safe_load((ROOT / "notebooks/params/sec4_1_artificial.full.yaml").read_text())


@pytest.fixture(scope="module")
def oracle():
    return artificial.solve(Config(encoder="oracle"))


@pytest.fixture(scope="module")
def harmonium(oracle):
    return fit_harmonium(oracle.truth, SIGMA, oracle.rule)


# --- the oracle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER)
def test_oracle_reproduces_the_printed_numbers(oracle, name):
    assert oracle.record.metrics[name] == pytest.approx(PAPER[name], abs=0.005)


def test_expectation_rule_integrates_the_truth(oracle):
    weights = oracle.rule.log_weights.exp()
    centers = torch.tensor(CENTERS, dtype=torch.float64)
    mean = centers.mean(0)
    covariance = (centers - mean).T @ (centers - mean) / 4 + SIGMA**2 * torch.eye(2)
    deviation = oracle.rule.points - mean
    assert weights.sum().item() == pytest.approx(1, abs=1e-8)
    torch.testing.assert_close(weights @ oracle.rule.points, mean, atol=1e-8, rtol=0)
    torch.testing.assert_close((weights[:, None] * deviation).T @ deviation, covariance, atol=1e-7, rtol=0)


def test_mean_field_is_the_best_factorized_posterior():
    # against minimisation over two logits by scipy, from 25 starts, with its own arithmetic
    generator = np.random.default_rng(0)
    centers = np.array(CENTERS)
    x = centers[generator.integers(4, size=12)] + SIGMA * generator.standard_normal((12, 2))
    mine = MeanField(torch.tensor(centers), SIGMA)(torch.tensor(x))
    log_joint = -0.5 * ((x[:, None] - centers) ** 2).sum(-1) / SIGMA**2

    def negative_elbo(eta, row):
        p = 1 / (1 + np.exp(-np.clip(eta, -40, 40)))
        q = np.outer([1 - p[0], p[0]], [1 - p[1], p[1]]).ravel()
        return -(q @ row) + (q * np.log(np.maximum(q, 1e-300))).sum()

    for eta, row in zip(mine.numpy(), log_joint, strict=True):
        starts = [np.array([a, b]) for a in (-6, -2, 0, 2, 6) for b in (-6, -2, 0, 2, 6)]
        best = min(scipy.optimize.minimize(negative_elbo, start, (row,)).fun for start in starts)
        assert negative_elbo(eta, row) == pytest.approx(best, abs=1e-9)


def test_elbo_and_likelihood_agree_with_samples(oracle):
    generator = torch.Generator().manual_seed(1)
    vae, n = mean_field_vae(centers_of(oracle.truth), SIGMA), 40_000
    x, _ = oracle.truth.sample(n, generator)
    q = vae.encoder(x)
    z = q.sample((), generator)
    bound = vae.log_joint(x, z) - q.log_prob(z)
    likelihood = torch.logsumexp(torch.stack([vae.log_joint(x, code) for code in BITS]), 0)
    for sample, value in (
        (bound, oracle.record.metrics["elbo_pretrained"]),
        (likelihood, oracle.record.metrics["negative_entropy"]),
    ):
        z_score = (sample.mean() - value) / sample.std() * math.sqrt(n)
        assert abs(z_score) < 4


def test_alternation_never_lowers_the_elbo(oracle):
    elbo = torch.tensor(oracle.record.curve["elbo"])
    assert (elbo.diff() > -1e-9).all()
    assert elbo[-1] > elbo[0] + 0.01


def test_alternation_ends_in_a_maximum(oracle):
    # A saddle would also be a fixed point: from 24 directions around the end, with the encoder chosen anew.
    centers, top = centers_of(oracle.vae), oracle.record.metrics["elbo_joint"]
    generator = torch.Generator().manual_seed(2)
    for _ in range(24):
        step = torch.randn(4, 2, generator=generator, dtype=torch.float64)
        moved = mean_field_vae(centers + 0.02 * step / step.norm(), SIGMA)
        assert evaluate(moved, oracle.rule)["elbo"] < top


# --- factorized posteriors and the harmonium -----------------------------------------------------------------------


def test_posterior_of_the_truth_is_far_from_factorized(oracle):
    p = exact.log_posterior(oracle.truth, oracle.rule.points, codes()).exp()
    assert (p[0] * p[3] - p[1] * p[2]).abs().max() > 0.05


def test_harmonium_is_tight_and_its_prior_is_its_marginal(oracle, harmonium):
    vae = harmonium[0].as_vae()
    values = evaluate_harmonium(vae, oracle.rule)
    assert abs(values["gap"]) < 1e-12
    assert values["log_likelihood"] == pytest.approx(harmonium[1], abs=1e-12)
    # p(z) = ∫ p(x, z) dx, over a box of the plane
    box = exact.grid((-12.0, -12.0), (12.0, 12.0), 201)
    joint = harmonium[0].log_joint(box.points, BITS[:, None])
    marginal = torch.logsumexp(joint + box.log_weights, 1)
    torch.testing.assert_close(marginal, vae.prior().log_prob(BITS), atol=1e-9, rtol=0)
    assert (marginal.exp() - 0.25).abs().max() > 0.01  # so it is not the uniform prior of the truth


def test_renaming_bits_changes_codes_and_no_likelihood(oracle, harmonium):
    x, before = oracle.rule.points, harmonium[0].log_marginal(oracle.rule.points)
    joint = harmonium[0].log_joint(x, BITS[:, None])
    for order in ([0, 1], [1, 0]):
        for flips in BITS:
            after = _renamed(harmonium[0], order, flips)
            torch.testing.assert_close(after.log_marginal(x), before)
            old = torch.empty_like(BITS)  # old bit order[i] is new bit i, flipped
            old[:, order] = (BITS - flips).abs()
            row = (old @ BITS.new_tensor([2.0, 1.0])).long()
            torch.testing.assert_close(after.log_joint(x, BITS[:, None]), joint[row])


def test_harmonium_is_the_likelihood_maximum(oracle, harmonium):
    # scipy with its own formula: a mixture whose log-weights and centers are tied to seven numbers
    x, weights = oracle.rule.points.numpy(), oracle.rule.log_weights.exp().numpy()
    bits = BITS.numpy()

    def negative(parameters):
        W, u, v = parameters[:4].reshape(2, 2), parameters[4:6], parameters[6:]
        eta = bits @ W.T + u
        prior = bits @ v + 0.5 * SIGMA**2 * (eta**2).sum(1)
        prior = prior - np.logaddexp.reduce(prior)
        log_x = -0.5 * ((x[:, None] - SIGMA**2 * eta) ** 2).sum(-1) / SIGMA**2 - np.log(2 * np.pi * SIGMA**2)
        return -weights @ np.logaddexp.reduce(prior + log_x, axis=1)

    generator = np.random.default_rng(4)
    ends = [scipy.optimize.minimize(negative, 1.5 * generator.standard_normal(8)).fun for _ in range(3)]
    assert harmonium[1] == pytest.approx(-min(ends), abs=1e-6)
    assert harmonium[1] < oracle.record.metrics["negative_entropy"] - 1e-3


def test_best_rectangle_by_scipy_and_what_the_optimum_lacks_to_one(oracle):
    # own-four-centers: half-sides e and r J e, in numpy, against the angle and two lengths of the library
    x, weights = oracle.rule.points.numpy(), oracle.rule.log_weights.exp().numpy()
    signs = 2 * BITS.numpy() - 1

    def negative(parameters):
        middle, e, ratio = parameters[:2], parameters[2:4], parameters[4]
        centers = middle + signs[:, :1] * e + signs[:, 1:] * ratio * np.array([-e[1], e[0]])
        log_x = -0.5 * ((x[:, None] - centers) ** 2).sum(-1) / SIGMA**2 - np.log(4 * 2 * np.pi * SIGMA**2)
        return -weights @ np.logaddexp.reduce(log_x, axis=1)

    centers, value = fit_rectangle(oracle.rule, SIGMA)
    generator = np.random.default_rng(5)
    ends = [scipy.optimize.minimize(negative, 1.5 * generator.standard_normal(5)).fun for _ in range(3)]
    assert value == pytest.approx(-min(ends), abs=1e-6)
    assert max(rectangle_defect(centers)) < 1e-9
    assert evaluate(mean_field_vae(centers, SIGMA), oracle.rule)["gap"] < 1e-9  # a rectangle is consistent
    assert value < oracle.record.metrics["elbo_pretrained"]  # tight, and worse than a VAE with a gap
    before, after = rectangle_defect(centers_of(oracle.truth)), rectangle_defect(centers_of(oracle.vae))
    assert all(b < 0.6 * a for a, b in zip(before, after, strict=True))


def evaluate_harmonium(vae, rule):
    weights = rule.log_weights.exp()
    return {
        "log_likelihood": float(weights @ exact.log_marginal(vae, rule.points, codes())),
        "gap": float(weights @ exact.posterior_kl(vae, rule.points, codes())),
    }


def posterior_determinant(centers, log_prior, x):
    log_p = log_prior[:, None] - 0.5 * (x - centers[:, None]).square().sum(-1) / SIGMA**2
    p = torch.softmax(log_p, 0)
    return (p[0] * p[3] - p[1] * p[2]).abs().max().item()


@pytest.mark.parametrize("seed", range(5))
def test_posterior_factorizes_for_parallelograms_with_their_prior_only(seed):
    """own-four-centers holds; with its sign turned, another prior or a center moved it does not."""
    generator = torch.Generator().manual_seed(seed)
    c, a, b, x = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (1, 1, 1, 200))
    centers = torch.cat([c + a, c + b, c - b, c - a])
    interaction = ((a.square().sum() - b.square().sum()) / SIGMA**2).item()
    free = torch.randn(2, generator=generator, dtype=torch.float64)

    def prior(value):  # any biases of the bits, and this interaction
        return BITS @ free + value * BITS.prod(1)

    assert posterior_determinant(centers, prior(interaction), x) < 1e-12
    assert posterior_determinant(centers, prior(-interaction), x) > 1e-3
    assert posterior_determinant(centers, prior(0.0), x) > 1e-3
    assert posterior_determinant(torch.cat([centers[:3], centers[3:] + 0.3]), prior(interaction), x) > 1e-3
    turned = torch.cat([c + a, c + b * a.norm() / b.norm(), c - b * a.norm() / b.norm(), c - a])  # a rectangle
    assert posterior_determinant(turned, torch.zeros(4), x) < 1e-12


def test_gap_on_a_forbidden_edge_is_that_of_the_better_corner():
    # own-two-bit-switch: p on the edge 00–11, approached from inside the tetrahedron
    for share in (0.5, 0.7, 0.9):
        p = torch.tensor([share, 1e-13, 1e-13, 1 - share], dtype=torch.float64)[:, None]
        q = exact.mean_field(p.log(), 2).log_prob(BITS[:, None])
        assert (q.exp() * (q - p.log())).sum().item() == pytest.approx(-math.log(max(share, 1 - share)), abs=1e-6)


# --- the experiment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["factorized", "states"])
def test_run_stores_one_record_and_finds_it_again(tmp_path, monkeypatch, encoder):
    config = Config(encoder=encoder, **TINY)
    record = artificial.run(config, results=tmp_path)
    assert set(PAPER) < set(record.metrics)
    assert record.curve["step"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(record.curve["elbo"]) == 8
    again = artificial.run(config, results=tmp_path, refresh=True)
    assert records.same(record, again)
    monkeypatch.setattr(artificial, "solve", lambda *_: pytest.fail("computed although the record exists"))
    assert records.same(record, artificial.run(config, results=tmp_path))
    assert [path.stem for path in tmp_path.rglob("*.json")] == [record.cell]


def test_decoder_stays_at_the_truth_while_the_encoder_is_pretrained():
    short = artificial.solve(Config(**TINY)).record
    metrics = short.metrics
    assert short.curve["log_likelihood"][3] == pytest.approx(metrics["negative_entropy"], abs=1e-6)
    assert metrics["log_likelihood_joint"] != pytest.approx(metrics["negative_entropy"], abs=1e-6)
    assert metrics["gap_pretrained"] == pytest.approx(
        metrics["negative_entropy"] - metrics["elbo_pretrained"], abs=1e-6
    )


def test_consistent_encoder_starts_to_close_the_gap():
    steps = {"pretrain_steps": 250, "joint_steps": 50, "batch_size": 256}
    gaps = {name: artificial.solve(Config(encoder=name, **steps)).record.metrics for name in ("states", "factorized")}
    assert gaps["states"]["gap_pretrained"] < 0.01 < 0.08 < gaps["factorized"]["gap_pretrained"]


def test_distance_scales_the_centers():
    torch.testing.assert_close(centers_of(truth(2.0)), 2 * centers_of(truth(1.0)))
    far = truth(8.0)
    assert evaluate(mean_field_vae(centers_of(far), SIGMA), expectation_rule(far, SIGMA))["gap"] < 1e-3


@pytest.mark.parametrize(
    "values",
    [
        {"encoder": "factorised"},
        {"distance": 0.0},
        {"distance": math.inf},
        {"sigma": -1.0},
        {"pretrain_steps": 0},
        {"joint_steps": 0},
        {"seed": -1},
        {"width": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
    ],
    ids="-".join,
)
def test_bad_values_are_refused_in_one_line(values):
    with pytest.raises(ValueError, match=next(iter(values))) as caught:
        Config(**values)
    assert "\n" not in str(caught.value)


# --- killed and resumed --------------------------------------------------------------------------------------------

LONG = ["pretrain_steps=600", "joint_steps=600", "batch_size=32", "width=16", "seed=5"]


def command(*options):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "efvae.experiments.artificial", *LONG, *map(str, options)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_in(stage: str, folder: Path, delay: float, *options) -> None:
    process = command(*options)
    deadline = time.monotonic() + 300
    while not list(folder.glob(f"*.{stage}.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it had ended before the kill: make the run longer"


def test_a_run_killed_in_both_stages_ends_in_the_same_record(tmp_path):
    delay = float(np.random.default_rng().uniform(0, 0.15))  # anywhere between two checkpoints; shown on failure
    options = ("--results", tmp_path / "killed", "--checkpoint", tmp_path / "checkpoints")
    for stage in ("pretrain", "joint"):
        kill_in(stage, tmp_path / "checkpoints", delay, *options)
    assert not list(tmp_path.glob("killed/**/*.json"))
    for process in (command(*options), command("--results", tmp_path / "whole")):
        _, error = process.communicate()
        assert process.returncode == 0, error
    (resumed,), (whole,) = (records.load(artificial.STEM, tmp_path / name) for name in ("killed", "whole"))
    assert records.same(resumed, whole)


# --- the committed records -----------------------------------------------------------------------------------------


def committed(**values):
    names = {field.name for field in dataclasses.fields(Config)}
    record = records.find(artificial.STEM, Config(**{k: v for k, v in FULL.items() if k in names} | values), COMMITTED)
    assert record is not None, f"no record of the full profile with {values}"
    return record


def test_appendix_page_shows_the_centers_of_the_code():
    page = (ROOT / "book/appC_1_artificial.md").read_text("utf-8")
    (row,) = re.findall(r"^\| center \|(.*)\|$", page, re.MULTILINE)
    shown = [tuple(float(v) for v in re.findall(r"-?[\d.]+", cell)) for cell in row.split("|")]
    assert shown == list(CENTERS)
    again = re.findall(r"\\mu\^\*_\{([01]{2})\} = \((.*?)\)", (ROOT / "book/sec4_1_artificial.md").read_text("utf-8"))
    assert [code for code, _ in again] == ["00", "01", "10", "11"]
    assert [tuple(map(float, pair.split(","))) for _, pair in again] == list(CENTERS)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", PAPER)
def test_committed_networks_reproduce_the_printed_numbers(seed, name):
    record = committed(seed=seed)
    assert record.metrics[name] == pytest.approx(PAPER[name], abs=0.01)


def test_committed_consistent_encoders_are_tight():
    for seed in range(3):
        record = committed(encoder="states", seed=seed)
        assert record.metrics["gap_joint"] < 1e-3
        assert record.metrics["approximation_error"] < 1e-3


def test_committed_records_are_of_the_present_layout(oracle):
    # the centers are no part of the config, so a new layout must be noticed here
    stored = committed(encoder="oracle")
    for name, value in oracle.record.metrics.items():
        assert stored.metrics[name] == pytest.approx(value, abs=1e-5), name
    for record in records.load(artificial.STEM, COMMITTED):
        model = truth(record.config["distance"], record.config["sigma"])
        entropy = evaluate(model, expectation_rule(model, record.config["sigma"]))["log_likelihood"]
        assert record.metrics["negative_entropy"] == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize(("distance", "sigma"), [(50.0, 1.0), (1.0, 0.02), (1e-300, 1.0), (0.001, 1.0)])
def test_centers_that_the_grid_does_not_resolve_are_refused(distance, sigma):
    with pytest.raises(ValueError, match="distance must be"):
        Config(distance=distance, sigma=sigma)


def test_a_grid_that_is_too_coarse_for_the_truth_is_refused():
    for scale in (0.01, 20.0):  # the ends of what is allowed
        rule = expectation_rule(truth(scale, SIGMA), SIGMA)
        assert float(rule.log_weights.exp().sum()) == pytest.approx(1, abs=1e-7)
    with pytest.raises(ValueError, match=r"a grid of 101 points a side sums the truth to one \+5\.1e-03"):
        expectation_rule(truth(50.0, SIGMA), SIGMA)
