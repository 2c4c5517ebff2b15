"""Block Gibbs, persistent chains, annealed importance sampling, tables, digits: own-block-gibbs, own-pcd, own-ais."""

from __future__ import annotations

import contextlib
import copy
import math
import sys

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from efvae import exact
from efvae.data.digits import Digits
from efvae.estimators import Exact
from efvae.experiments import rbm_few, rbm_training
from efvae.experiments.rbm import Config, run, solve
from efvae.families import Bernoulli, Categorical, GaussianFixedVariance, Multinomial, all_bits
from efvae.gibbs import PersistentChains, annealed_log_partition, gibbs
from efvae.harmonium import Harmonium
from efvae.log_weights import LogWeights
from efvae.objectives import elbo
from efvae.rbm import joint_table, table_elbo
from efvae.train import TrainConfig, fit
from tests.cases import EXACT, Z_MAX
from tests.models import binary_vae, bits, saturated_vae

VARIANCE = torch.tensor([0.5, 1.4, 0.9], dtype=torch.float64)
VISIBLE = {
    "bernoulli": (Bernoulli, 4),
    "categorical": (Categorical, 4),
    "multinomial": (lambda eta: Multinomial(eta, 5), 4),
    "gaussian": (lambda eta: GaussianFixedVariance(eta, VARIANCE), 3),
}


def harmonium(seed: int, visible: str = "bernoulli", m: int = 3, scale: float = 1.0) -> Harmonium:
    generator = torch.Generator().manual_seed(seed)
    family, n = VISIBLE[visible]
    w, u, v = (scale * torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, m), (n,), (m,)))
    return Harmonium(family, Bernoulli, w, u, v)


def draw(model: Harmonium, n: int, generator: torch.Generator) -> Tensor:
    """Independent draws of x: z from its enumerated marginal, then x."""
    return model.as_vae().sample(n, generator)[0]


@pytest.mark.parametrize("visible", ["bernoulli", "categorical", "multinomial"])
@pytest.mark.parametrize("seed", range(3))
def test_both_sides_give_one_partition_function(visible: str, seed: int) -> None:
    model = harmonium(seed, visible)
    other = Harmonium(model.visible, Bernoulli, model.weight.data, model.visible_bias.data, model.latent_bias.data,
                      sum_over="visible")  # fmt: skip
    torch.testing.assert_close(other.log_partition(), model.log_partition(), rtol=1e-12, atol=1e-12)
    x = model.visible(model.visible_bias).support()
    torch.testing.assert_close(other.log_marginal(x), model.log_marginal(x), rtol=1e-10, atol=1e-10)


def test_the_large_side_is_never_enumerated() -> None:
    w, u, v = torch.randn(5, 200).double(), torch.zeros(5).double(), torch.zeros(200).double()
    small = Harmonium(Bernoulli, Bernoulli, w, u, v, sum_over="visible")
    assert torch.logsumexp(small.log_marginal(all_bits(5)), 0).abs() < 1e-10
    with pytest.raises(ValueError, match="enumeration stops"):
        Harmonium(Bernoulli, Bernoulli, w, u, v).log_partition()
    with pytest.raises(ValueError, match="sum_over must be"):
        Harmonium(Bernoulli, Bernoulli, w, u, v, sum_over="both")


@pytest.mark.parametrize("visible", VISIBLE)
def test_gibbs_leaves_the_marginal_unchanged(visible: str) -> None:
    """From exact draws, one sweep: means of statistics by z-score; the wrong conditional moves them."""
    model, generator, chains = harmonium(1, visible), torch.Generator().manual_seed(2), 40_000
    start = draw(model, chains, generator)
    statistic = model.visible(model.visible_bias).sufficient_statistic

    def z_score(x: Tensor) -> float:
        a, b = statistic(start), statistic(x)
        second = torch.cat([b - a, b**2 - a**2], 1)  # paired: the start is exact
        return float((second.mean(0) / (second.std(0) + 1e-12) * math.sqrt(chains)).abs().max())

    assert z_score(gibbs(model, start, 1, generator)) < Z_MAX
    with torch.no_grad():
        model.latent_bias.neg_()
    assert z_score(gibbs(model, start, 1, generator)) > 10


def test_gibbs_reaches_the_law_from_afar() -> None:
    model, generator = harmonium(3, m=2), torch.Generator().manual_seed(0)
    x = gibbs(model, torch.zeros(60_000, 4).double(), 60, generator)
    states = all_bits(4)
    code = (x @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()
    counts = torch.bincount(code, minlength=16).double() / len(x)
    p = model.log_marginal(states).exp().detach()
    assert ((counts - p) / (p * (1 - p) / len(x)).sqrt()).abs().max() < Z_MAX
    assert torch.equal(gibbs(model, x, 0), x)


def exact_gradient(model: Harmonium, data: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(-model.log_marginal(data).mean(), list(model.parameters())))


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_long_chains_against_the_exact_one(seed: int) -> None:
    """Independent long chains: each gives an unbiased gradient; z-scores of all parameters, own-pcd."""
    model, generator = harmonium(seed, m=2), torch.Generator().manual_seed(seed)
    data = bits(4, 7, seed)
    chains = PersistentChains(model, torch.zeros(8000, 4).double(), sweeps=60)
    loss = chains.loss(data, generator).mean()
    have = torch.autograd.grad(loss, list(model.parameters()))
    want = exact_gradient(model, data)
    # the spread of one chain's gradient: of its statistic ν ψ̄, ν and ψ̄
    nu, psi = chains.x, torch.sigmoid(model.latent_eta(chains.x)).detach()
    for value, target, sample in zip(have, want, (nu[:, :, None] * psi[:, None], nu, psi), strict=True):
        error = sample.std(0) / math.sqrt(len(sample))
        assert ((value - target) / error).abs().max() < Z_MAX
    wrong = exact_gradient(model, 1 - data)
    assert ((have[1] - wrong[1]) / (nu.std(0) / math.sqrt(len(nu)))).abs().max() > 10


def test_persistent_chains_learn_what_exact_likelihood_learns() -> None:
    truth, generator = harmonium(5, m=2, scale=1.5), torch.Generator().manual_seed(0)
    data = draw(truth, 400, generator)
    likelihood = []
    for persistent in (False, True):
        model = harmonium(6, m=2, scale=0.1)
        chains = PersistentChains(model, data[:200], sweeps=2)
        loss = chains.loss if persistent else (lambda x, _, model=model: -model.log_marginal(x))
        before = model.log_marginal(data).mean().item()
        fit(chains, loss, lambda _: data, TrainConfig(500, 0.05, 0.001))
        likelihood.append(model.log_marginal(data).mean().item())
        assert likelihood[-1] > before + 0.1
    assert likelihood[1] <= likelihood[0] + 1e-6
    assert likelihood[0] - likelihood[1] < 0.01


def test_chains_are_part_of_a_checkpoint(tmp_path) -> None:
    data = bits(4, 20)

    def train(steps: int, resume: bool) -> tuple[Tensor, Tensor]:
        model = harmonium(7)
        chains = PersistentChains(model, data.clone())
        config = TrainConfig(6, 0.05, checkpoint_every=3)
        count = iter(range(steps))
        with contextlib.suppress(ZeroDivisionError):
            fit(chains, chains.loss, lambda _: data if next(count, None) is not None else 1 / 0, config,
                checkpoint=tmp_path / "c.safetensors" if resume else None)  # fmt: skip
        return model.weight.detach().clone(), chains.x.clone()

    whole = train(99, resume=False)
    train(4, resume=True)
    resumed = train(99, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


@pytest.mark.parametrize("visible", VISIBLE)
@pytest.mark.parametrize("seed", range(2))
def test_annealed_log_partition_against_enumeration(visible: str, seed: int) -> None:
    model, generator = harmonium(seed, visible), torch.Generator().manual_seed(seed)
    base = torch.randn(model.visible_bias.shape, generator=generator).double() if seed else None
    estimate = annealed_log_partition(model, 2000, 50, generator, base=base)
    log_z = model.log_partition().item()
    assert abs(estimate.log_mean - log_z) < Z_MAX * estimate.standard_error
    assert estimate.standard_error < 0.05
    assert 1000 < float(estimate.effective_samples) <= 2000
    # what the check must reject: the partition function of the model with W negated
    with torch.no_grad():
        model.weight.neg_()
    assert abs(estimate.log_mean - model.log_partition().item()) > Z_MAX * estimate.standard_error


@pytest.mark.parametrize("temperatures", [1, 2, 5])
def test_the_estimate_of_z_is_unbiased_and_that_of_its_log_is_not(temperatures: int) -> None:
    """However few temperatures: E w = Z, while E log w < log Z by Jensen; own-ais."""
    model = harmonium(4, scale=1.2)
    estimate = annealed_log_partition(model, 50_000, temperatures, torch.Generator().manual_seed(temperatures))
    relative = (estimate.values - model.log_partition().item()).exp()
    z = float((relative.mean() - 1) / relative.std() * math.sqrt(len(relative)))
    assert abs(z) < Z_MAX
    logs = estimate.values - model.log_partition().item()
    assert float(logs.mean() / logs.std() * math.sqrt(len(logs))) < -10


def test_annealed_standard_error_covers() -> None:
    """200 independent runs: the z-scores have spread 1."""
    model = harmonium(2)
    log_w = annealed_log_partition(model, 200 * 400, 20, torch.Generator().manual_seed(0)).values
    runs = [LogWeights(part) for part in log_w.split(400)]
    z = torch.tensor([(run.log_mean - model.log_partition().item()) / run.standard_error for run in runs])
    assert abs(float(z.mean())) < Z_MAX / math.sqrt(200)
    assert 0.8 < float(z.std()) < 1.2


def test_effective_sample_size() -> None:
    assert LogWeights(torch.zeros(10)).effective_samples.item() == pytest.approx(10)
    assert LogWeights(torch.tensor([0.0, -80.0, -80.0])).effective_samples.item() == pytest.approx(1)
    assert LogWeights(torch.tensor([700.0, 700.0]).double()).log_mean.item() == pytest.approx(700)


def test_bad_input_is_refused() -> None:
    model = harmonium(0)
    with pytest.raises(ValueError, match="at least 2 chains"):
        annealed_log_partition(model, 1, 10)
    with pytest.raises(ValueError, match="base must have shape"):
        annealed_log_partition(model, 2, 10, base=torch.zeros(3))
    with pytest.raises(ValueError, match="needs a sweep"):
        PersistentChains(model, torch.zeros(2, 4).double(), sweeps=0)


@pytest.mark.parametrize("make", [binary_vae, saturated_vae])
def test_tables_agree_with_the_oracles(make) -> None:
    vae, x = make(1), bits(4, 6)
    rule = exact.enumerate_states(vae.prior())
    table = joint_table(vae, x, rule.points)
    torch.testing.assert_close(table, exact.log_joint(vae, x, rule), rtol=EXACT, atol=EXACT)
    bound = table_elbo(vae, x, rule.points)
    torch.testing.assert_close(bound, exact.elbo(vae, x, rule), rtol=EXACT, atol=EXACT)
    other = elbo(vae, x, Exact())
    for a, b in zip(*(torch.autograd.grad(e.sum(), list(vae.parameters()), allow_unused=True) for e in (bound, other)),
                    strict=True):  # fmt: skip
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# --- own-digits-baseline -------------------------------------------------------------------------------------------

FOUR = Digits(*bits(4, 12).float().split(4), sha256="")  # images of four pixels, four in each part


@pytest.mark.parametrize(
    ("kind", "curves"),
    [
        ("rbm", {"log_likelihood_validation": (-3.0, -1.0, -2.0)}),
        ("vae", {"elbo_validation": (-3.0, -1.0, -2.0), "log_likelihood_validation": (-1.0, -2.0, -3.0)}),
    ],
)
def test_the_model_that_is_kept_is_the_best_on_the_validation_images(monkeypatch, kind, curves) -> None:
    """By a hand-made curve that peaks at the second of three steps, and keeps rising on the training images."""
    curves |= {name.replace("validation", "train"): (-3.0, -2.0, -1.0) for name in curves}
    seen: list[dict[str, Tensor]] = []

    def metrics(keeper: rbm_training._Keeper) -> dict[str, float]:
        seen.append(copy.deepcopy(dict(keeper.model.state_dict())))
        return {name: values[len(seen) - 1] for name, values in curves.items()}

    monkeypatch.setattr(rbm_training._Keeper, "_metrics", metrics)
    model, curve, best_step = rbm_training.train(Config(model=kind, latent=2, steps=3, batch_size=4), FOUR)
    assert best_step == 2
    assert {name: tuple(curve[name]) for name in curves} == curves
    torch.testing.assert_close(dict(model.state_dict()), seen[1], rtol=0, atol=0)
    assert not torch.equal(*(torch.cat([value.flatten() for value in state.values()]) for state in seen[1:]))


def test_uniform_bits_in_the_place_of_the_prior_of_an_rbm_against_the_definition() -> None:
    """Σ_z q(z | x) (log p(x | z) − m log 2 − log q(z | x)), the factors of q and of p(x | z) written out."""
    model, z = harmonium(0), all_bits(3).double()
    metrics = rbm_training.evaluate(model, FOUR, 2, torch.Generator().manual_seed(0))
    for part in ("train", "validation", "test"):
        x = getattr(FOUR, part).double()
        with torch.no_grad():
            code, pixel = x @ model.weight + model.latent_bias, z @ model.weight.T + model.visible_bias
            log_q = nnf.logsigmoid((2 * z - 1) * code[:, None]).sum(-1)
            log_x = nnf.logsigmoid((2 * x[:, None] - 1) * pixel).sum(-1)
            elbo_uniform = (log_q.exp() * (log_x - 3 * math.log(2) - log_q)).sum(1).mean()
        assert metrics[f"elbo_uniform_{part}"] == pytest.approx(float(elbo_uniform), abs=1e-10)
        assert abs(metrics[f"elbo_uniform_{part}"] - metrics[f"elbo_{part}"]) > 0.1  # the priors differ


class TestDigits:
    @pytest.fixture(autouse=True)
    def _needs_scikit_learn(self) -> None:
        pytest.importorskip("sklearn")

    def test_split_is_a_partition_that_follows_the_seed(self) -> None:
        from efvae.data.digits import load_digits

        a, b, again = load_digits(0), load_digits(1), load_digits(0)
        assert [len(part) for part in (a.train, a.validation, a.test)] == [1197, 300, 300]
        assert torch.equal(a.test, again.test)
        assert not torch.equal(a.test, b.test)
        whole = [torch.cat([d.train, d.validation, d.test]).sum(0) for d in (a, b)]
        assert torch.equal(*whole)
        assert set(a.train.unique().tolist()) == {0.0, 1.0}

    def test_threshold(self) -> None:
        from efvae.data.digits import load_digits

        assert load_digits(0, 1).train.mean() > load_digits(0, 16).train.mean() > 0
        with pytest.raises(ValueError, match=r"threshold must be in \[1, 16\], got 17"):
            load_digits(0, 17)

    def test_one_cell_of_each_kind(self, tmp_path) -> None:
        small = {"steps": 20, "latent": 3, "width": 4, "chains": 20, "temperatures": 50}
        for config in (
            Config(model="rbm", **small),
            Config(model="rbm-pcd", **small),
            Config(model="vae", decoder="mlp", encoder="mlp", **small),
        ):
            solution = solve(config)
            metrics = solution.record.metrics
            for part in ("train", "validation", "test"):
                gap = metrics[f"log_likelihood_{part}"] - metrics[f"elbo_{part}"]
                assert metrics[f"gap_{part}"] == pytest.approx(gap, abs=1e-9)
                assert gap > -1e-9
                if config.model != "vae":
                    assert gap < 1e-9
            assert math.isfinite(metrics["best_step"])
        assert run(config, results=tmp_path) == run(config, results=tmp_path)  # the second one is read

    def test_likelihoods_of_a_cell_against_the_oracle(self) -> None:
        solution = solve(Config(model="vae", decoder="mlp", latent=3, steps=20, width=4))
        rule = exact.enumerate_states(solution.model.prior())
        x = solution.digits.test.double()
        likelihood = float(exact.log_marginal(solution.model, x, rule).mean())
        assert solution.record.metrics["log_likelihood_test"] == pytest.approx(likelihood, rel=1e-10)
        bound = float(elbo(solution.model, x, Exact()).mean())
        assert solution.record.metrics["elbo_test"] == pytest.approx(bound, rel=1e-9)

    def test_a_vae_with_more_bits_than_are_listed(self) -> None:
        """Its first steps raise the ELBO; what is estimated of it obeys the bounds that are known."""
        solution = solve(Config(model="vae", latent=13, encoder="mlp", steps=300, width=8, temperatures=50))
        record = solution.record
        assert record.curve["elbo_validation"][-1] > record.curve["elbo_validation"][0] + 1
        rule = exact.enumerate_states(solution.model.prior())
        for part in ("train", "validation", "test"):
            x = getattr(solution.digits, part).double()[:: 40 if part == "train" else 10]
            found = rbm_training._estimates(solution.model, {part: x}, 50, torch.Generator().manual_seed(3))
            for name, true in (
                ("log_likelihood", exact.log_marginal(solution.model, x, rule)),
                ("elbo", exact.elbo(solution.model, x, rule)),
            ):
                error = found[f"{name}_error_{part}"]
                assert 0 < error < 0.1
                assert abs(found[f"{name}_{part}"] - float(true.mean())) < 4.5 * error
                assert 0 < record.metrics[f"{name}_error_{part}"] < 0.1
            gap = record.metrics[f"log_likelihood_{part}"] - record.metrics[f"elbo_{part}"]
            assert record.metrics[f"gap_{part}"] == pytest.approx(gap, abs=1e-12)

    def test_few_images(self, tmp_path) -> None:
        """Of equal first weights the likelihood is larger where it is trained, and the bounds hold in their order."""
        small = {"images": 30, "latent": 3, "width": 8, "steps": 150, "batch_size": 30}
        found = {o: rbm_few.run(rbm_few.Config(objective=o, **small), results=tmp_path) for o in rbm_few.OBJECTIVES}
        metrics = {objective: record.metrics for objective, record in found.items()}
        for objective in ("elbo", "rbm"):
            gap = metrics[objective]["log_likelihood_test"] - metrics[objective]["elbo_test"]
            assert gap >= metrics[objective]["least_gap_test"] - 1e-9
        assert abs(gap) < 1e-9  # of the RBM
        assert abs(metrics["rbm"]["least_gap_test"]) < 1e-9
        assert metrics["elbo"]["least_gap_test"] > 1e-4
        assert "elbo_test" not in metrics["likelihood"]
        first, second = (found[o].curve["log_likelihood_train"] for o in ("elbo", "likelihood"))
        assert first[0] == pytest.approx(second[0], abs=0.1)
        assert second[-1] > first[-1] + 0.1
        assert len(second) == 150
        best = max(range(150), key=found["likelihood"].curve["log_likelihood_validation"].__getitem__)
        assert metrics["likelihood"]["best_step"] == best + 1

    def test_few_images_are_the_first_of_the_split(self, monkeypatch) -> None:
        from efvae.data.digits import load_digits

        def stop(plan, digits, **_: object) -> None:
            assert torch.equal(digits.train, load_digits(4).train[:7])
            assert len(digits.validation) == len(digits.test) == 300
            raise KeyboardInterrupt

        monkeypatch.setattr(rbm_few, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            rbm_few.run(rbm_few.Config(images=7, seed=4))
        with pytest.raises(ValueError, match=r"images must be a whole number in \[1, 1197\]; got 1198"):
            rbm_few.Config(images=1198)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"model": "gan"}, "model must be one of rbm, rbm-pcd, vae; got 'gan'"),
            ({"latent": 13}, r"latent must be a whole number in \[1, 12\]; got 13"),
            ({"threshold": 17}, r"threshold must be a whole number in \[1, 16\]"),
            ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
            ({"learning_rate": 1e300}, "learning_rate must be between 1e-36 and 1e.36"),
        ],
    )
    def test_bad_configs_are_refused(self, values, message) -> None:
        with pytest.raises(ValueError, match=message):
            Config(**values)


def test_missing_scikit_learn_is_one_clear_line(monkeypatch) -> None:
    from efvae.data.digits import load_digits

    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"come with scikit-learn, which is missing: pip install"):
        load_digits()
