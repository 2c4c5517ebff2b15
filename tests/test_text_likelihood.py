"""Likelihood, gap and distance of text models against dense sums, known laws, restarts and many samples.

Labels: own-text-likelihood, own-text-gap, own-text-distance, own-text-annealed, own-idle-bits, own-length-prior,
own-hashing-tight, own-near-affine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from efvae.data import synthetic
from efvae.exact import mean_field
from efvae.families import Bernoulli, all_bits
from efvae.hashing import near_affine_bound, not_affine, paired_words
from efvae.log_weights import LogWeights
from efvae.networks import CodeTable, mlp
from efvae.text import evaluate as ev
from efvae.text.affine_fit import AffineFit, posterior_residual
from efvae.text.annealed import anneal, importance
from efvae.text.enumerated import aggregated, enumerate_codes
from efvae.text.factorized import best_factorized, code_law, starting_points
from efvae.text.fitted import broadened, fit_factorized
from efvae.text.likelihood import TextJoint
from efvae.text.model import TextVAE
from efvae.word_counts import WordCounts, log_base_measure, log_saturated

DOUBLE = torch.empty(0, dtype=torch.float64)


@dataclass
class Model:
    """A text model of two callables."""

    bits: int
    n_words: int
    decoder: nn.Module
    weight: Tensor

    def encode(self, x: WordCounts) -> Tensor:
        return x.dense(self.weight.dtype) @ self.weight

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def make(bits: int, hidden: int, k: int = 20, scale: float = 1.0, seed: int = 0) -> Model:
    generator = torch.Generator().manual_seed(seed)
    network = mlp((bits, *[16] * hidden, k), nn.Tanh).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Model(bits, k, network, 0.3 * torch.randn(k, bits, generator=generator, dtype=torch.float64))


def corpus(n: int = 25, k: int = 20, seed: int = 1, smooth: bool = True) -> WordCounts:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((n, k), 0.4, dtype=torch.float64), generator)
    counts[:, 0] += 1
    f = torch.rand(k, generator=generator, dtype=torch.float64)
    return WordCounts.from_dense(counts, torch.zeros(n, dtype=torch.int64), f / f.sum() if smooth else None)


def dense_table(model: Model, x: WordCounts) -> Tensor:
    """log p(x, z) by the definition, shape (documents, codes)."""
    dense = x.dense(torch.float64)
    with torch.no_grad():
        log_words = torch.log_softmax(model.decode(all_bits(model.bits)), 1)
    own = (dense / dense.sum(1, keepdim=True)).clamp(min=1e-300).log()
    return (dense[:, None] * (log_words - own[:, None])).sum(-1) - model.bits * math.log(2)


# --- own-text-likelihood -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "hidden"), [(1, 0), (3, 0), (9, 0), (1, 1), (4, 2), (9, 1)])
@pytest.mark.parametrize("smooth", [True, False])
def test_one_pass_gives_the_dense_sums(bits, hidden, smooth):
    model, x = make(bits, hidden), corpus(smooth=smooth)
    joint = TextJoint(model.decode, bits, 20, DOUBLE)
    # one bit is affine whatever the network
    assert (joint.affine is None) == (hidden > 0 and bits > 1)
    table, eta = dense_table(model, x), model.encode(x)
    rows = torch.tensor([3, 17])
    result = enumerate_codes(joint, x, eta, rows=rows)
    close = {"rtol": 1e-10, "atol": 1e-9}
    torch.testing.assert_close(result.log_likelihood, table.logsumexp(1), **close)
    torch.testing.assert_close(result.table, table[rows], **close)
    log_q = Bernoulli(eta).log_prob(all_bits(bits)[:, None]).T
    torch.testing.assert_close(result.elbo, (log_q.exp() * (table - log_q)).sum(1), **close)
    torch.testing.assert_close(aggregated(eta), log_q.exp().mean(0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("hidden", [0, 1])
def test_codes_of_each_document_s_own(hidden):
    model, x = make(5, hidden), corpus()
    table = dense_table(model, x)
    z = torch.randint(2, (7, 25, 5), generator=torch.Generator().manual_seed(0)).double()
    place = (z @ torch.tensor([16.0, 8, 4, 2, 1], dtype=torch.float64)).long()
    expected = table[torch.arange(25), place]
    for like in (DOUBLE, DOUBLE.float()):
        network = model.decoder.to(like.dtype)
        joint = TextJoint(network, 5, 20, like)
        tolerance = 1e-9 if like.dtype == torch.float64 else 2e-3
        torch.testing.assert_close(joint.score(x)(z), expected, rtol=0, atol=tolerance)


def test_codes_in_parts(monkeypatch):
    """Few elements at a time change nothing."""
    model, x = make(5, 1), corpus()
    z = torch.ones(9, 25, 5, dtype=torch.float64)
    joint = TextJoint(model.decode, 5, 20, DOUBLE)
    whole = joint.score(x)(z)
    monkeypatch.setattr("efvae.text.likelihood._ELEMENTS", 2 * 25 * 20)
    torch.testing.assert_close(joint.score(x)(z), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [0, 2])
def test_single_precision_decoder(hidden):
    model, x = make(9, hidden), corpus()
    table = dense_table(model, x)
    network = model.decoder.float()
    result = enumerate_codes(TextJoint(network, 9, 20, DOUBLE.float()), x, model.encode(x))
    torch.testing.assert_close(result.log_likelihood, table.logsumexp(1), rtol=0, atol=2e-3)
    assert result.log_likelihood.dtype == torch.float64


@pytest.mark.parametrize("gauge", ["log-probabilities", "affine logits"])
def test_harmonium_with_its_own_prior_has_no_gap(gauge):
    """p(z | l) of the law, which depends on the length: exact likelihood, zero gap, one affine map of counts."""
    law = synthetic.harmonium_law(n_words=50, bits=5, shortest=5, longest=30)
    x = synthetic.synthetic_text(law, 10, 60).test
    logits = law.log_words - (law.log_words[:, :1] if gauge == "affine logits" else 0)
    joint = TextJoint(CodeTable(logits), 5, 50, DOUBLE)
    assert (joint.affine is not None) == (gauge == "affine logits")
    at = (x.length()[:, None] == law.lengths).double().argmax(1)
    prior = torch.log_softmax(law.log_length_code, 1)
    # log p(x, l, z) is affine in z: its values at 0 and at the unit codes are the encoder, affine in counts and length
    unit, tilt = 2 ** torch.arange(4, -1, -1), law.log_length_code
    counts = x.dense(torch.float64)
    eta = counts @ (law.log_words[unit] - law.log_words[0]).T + (tilt[:, unit] - tilt[:, :1])[at]
    result = enumerate_codes(joint, x, eta, rows=torch.arange(60), log_prior=prior[at])
    log_length = law.log_length_code.logsumexp(1)[at]
    truth = synthetic.log_likelihood(law, x) - log_length - log_base_measure(x) - log_saturated(x)
    torch.testing.assert_close(result.log_likelihood, truth, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(result.elbo, truth, rtol=1e-10, atol=1e-9)
    assert posterior_residual(result.table, all_bits(5)).max() < 1e-5
    # under a uniform prior the same decoder is not tight: own-length-prior
    uniform = enumerate_codes(joint, x, eta, rows=torch.arange(60))
    best = best_factorized(uniform.table, starting_points(uniform.table, eta, 5))
    assert (uniform.log_likelihood - best.elbo).mean() > 1e-4
    assert posterior_residual(uniform.table, all_bits(5)).mean() > 1e-4


@pytest.mark.parametrize("each", [True, False])
def test_a_prior_of_many_codes(each):
    """One law for all documents or one for each; the part of the table that is the prior is no distance."""
    model, x = make(9, 1), corpus()
    generator = torch.Generator().manual_seed(0)
    prior = torch.randn(*([25] if each else []), 512, generator=generator, dtype=torch.float64).log_softmax(-1)
    joint, eta, rows = TextJoint(model.decode, 9, 20, DOUBLE), model.encode(x), torch.tensor([2, 9])
    result = enumerate_codes(joint, x, eta, rows=rows, log_prior=prior)
    table = dense_table(model, x) + 9 * math.log(2) + prior
    torch.testing.assert_close(result.log_likelihood, table.logsumexp(1), rtol=1e-10, atol=1e-9)
    uniform = enumerate_codes(joint, x, eta, rows=rows)
    torch.testing.assert_close(result.document_residual, uniform.document_residual, rtol=1e-8, atol=1e-8)


# --- own-text-gap --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_best_factorized_against_gradient_ascent_from_random_restarts(bits):
    generator = torch.Generator().manual_seed(bits)
    table = 3 * torch.randn(12, 2**bits, generator=generator, dtype=torch.float64)
    best = best_factorized(table, starting_points(table, torch.zeros(12, bits), bits))
    assert best.converged.all()
    codes = all_bits(bits)
    log_q = Bernoulli(best.eta).log_prob(codes[:, None]).T
    torch.testing.assert_close(best.elbo, (log_q.exp() * (table - log_q)).sum(1), rtol=1e-9, atol=1e-9)
    free = (2 * torch.randn(40, 12, bits, generator=generator, dtype=torch.float64)).requires_grad_()

    def value() -> Tensor:
        log_q = Bernoulli(free).log_prob(codes[:, None, None]).movedim(0, -1)
        return (log_q.exp() * (table - log_q)).sum(-1)

    optimizer = torch.optim.Adam([free], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        (-value().sum()).backward()
        optimizer.step()
    found = value().detach().amax(0)
    assert (best.elbo >= found - 1e-6).double().mean() >= 0.9  # of random tables; a few have many optima
    assert (best.elbo <= table.logsumexp(1) + 1e-9).all()
    assert (best.elbo - found).abs().median() < 1e-3


def test_best_factorized_against_the_oracle_that_starts_at_every_code():
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(30, 16, generator=generator, dtype=torch.float64) * 2
    eta = mean_field(table.T.contiguous(), 4).eta
    log_q = Bernoulli(eta).log_prob(all_bits(4)[:, None]).T
    oracle = (log_q.exp() * (table - log_q)).sum(1)
    ours = best_factorized(table, starting_points(table, torch.zeros(30, 4), 4, peaks=16), tolerance=1e-10).elbo
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-8)


def test_blocks_of_documents_and_the_law_of_codes(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    eta = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    expected = Bernoulli(eta).log_prob(all_bits(3)[:, None]).exp().T
    torch.testing.assert_close(code_law(eta), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(code_law(eta[:, :0]), torch.ones(7, 1, dtype=torch.float64))
    # a factorized posterior is found as it is
    best = best_factorized(expected.log() + 5.0, torch.zeros(7, 1, 3, dtype=torch.float64), tolerance=1e-12)
    torch.testing.assert_close(best.eta, eta, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(best.elbo, torch.full_like(best.elbo, 5.0), rtol=1e-12, atol=1e-12)


# --- own-text-distance ---------------------------------------------------------------------------------------------


def test_affine_fit_is_least_squares():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    codes = all_bits(4)

    def fitted(weight: Tensor) -> Tensor:
        fit = AffineFit(4)
        for part in torch.arange(16).split(5):
            fit.add(codes[part], weight[part], 100 + values[part].T)
        return fit.residual()

    torch.testing.assert_close(fitted(torch.ones(16).double()), not_affine(values).square().mean(0))
    weight = torch.rand(16, generator=generator, dtype=torch.float64)
    root = weight.sqrt()[:, None]
    design = torch.cat([codes, torch.ones(16, 1)], 1)
    solution = torch.linalg.lstsq(root * design, root * values).solution
    expected = (weight[:, None] * (values - design @ solution).square()).sum(0) / weight.sum()
    torch.testing.assert_close(fitted(weight), expected)
    # a bit that is always on takes no part
    on = AffineFit(4)
    on.add(codes[8:], torch.ones(8).double(), values[8:].T)
    torch.testing.assert_close(on.residual(), not_affine(values[8:]).square().mean(0))


def test_a_sample_of_codes_is_not_too_small_on_average():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(2, (40, 10), generator=generator).double()
    noise = torch.randn(4000, 40, generator=generator, dtype=torch.float64)
    fit = AffineFit(10)
    fit.add(codes, torch.ones(40).double(), noise)
    residual = fit.residual(sampled=True)
    assert abs(float((residual.mean() - 1) / (residual.std() / 4000**0.5))) < 4


def test_half_the_posterior_residual_is_the_gap_to_second_order():
    generator = torch.Generator().manual_seed(5)
    codes = all_bits(5)
    affine = codes @ torch.randn(5, 20, generator=generator, dtype=torch.float64)
    bend = torch.randn(32, 20, generator=generator, dtype=torch.float64)
    assert posterior_residual(affine.T.contiguous(), codes).max() < 1e-10
    for size, tolerance in ((0.2, 0.2), (0.02, 0.03)):
        table = (affine + size * bend).T.contiguous()
        best = best_factorized(table, starting_points(table, torch.zeros(20, 5), 5), tolerance=1e-11)
        gap = table.logsumexp(1) - best.elbo
        assert (0.5 * posterior_residual(table, codes) / gap - 1).abs().max() < tolerance


def test_distance_of_a_linear_decoder_is_that_of_its_log_partition():
    model, x = make(5, 0), corpus()
    eta = model.encode(x)
    joint = TextJoint(model.decode, 5, 20, DOUBLE)
    short = enumerate_codes(joint, x, eta, rows=torch.arange(25))
    object.__setattr__(joint, "affine", None)
    full = enumerate_codes(joint, x, eta, rows=torch.arange(25))
    torch.testing.assert_close(full.word_residual, short.word_residual.expand(20))
    torch.testing.assert_close(full.document_residual, short.document_residual)
    torch.testing.assert_close(full.log_likelihood, short.log_likelihood)
    assert short.word_residual > 1e-3
    # own-near-affine bounds the best gap by the largest deviation
    rest = not_affine(torch.logsumexp(model.decode(all_bits(5)).detach(), 1)).abs().max()
    gap = short.log_likelihood - best_factorized(short.table, starting_points(short.table, eta, 5)).elbo
    assert (gap <= near_affine_bound(rest, x.length())).all()
    assert gap.max() > 1e-3


# --- own-text-annealed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 1])
@pytest.mark.parametrize("temperatures", [1, 2, 12])
def test_annealed_weights_are_unbiased(hidden, temperatures):
    """z-scores of the mean weight against enumeration, from a poor encoder."""
    model, x = make(6, hidden, scale=0.7), corpus(8)
    eta = 0.5 * model.encode(x)
    truth = dense_table(model, x).logsumexp(1)
    score = TextJoint(model.decode, 6, 20, DOUBLE).score(x)
    weights = anneal(score, eta, 4000, temperatures, torch.Generator().manual_seed(temperatures))
    ratio = (weights.values - truth).exp()
    z = (ratio.mean(0) - 1) / (ratio.std(0) / 4000**0.5)
    assert z.abs().max() < 4
    assert (weights.mean < truth).all()
    torch.testing.assert_close(weights.log_mean, truth + ratio.mean(0).log())
    torch.testing.assert_close(weights.standard_error, ratio.std(0) / ratio.mean(0) / 4000**0.5)
    torch.testing.assert_close(weights.effective_samples, ratio.sum(0).square() / ratio.square().sum(0))


def test_more_temperatures_help_and_importance_weights_give_the_elbo():
    model, x = make(10, 1, scale=0.7), corpus(8)
    eta = 0.5 * model.encode(x)
    joint = TextJoint(model.decode, 10, 20, DOUBLE)
    exact = enumerate_codes(joint, x, eta)
    generator = torch.Generator().manual_seed(0)
    draws = importance(joint.score(x), eta, 3000, generator)
    z = (draws.mean - exact.elbo) / (draws.values.std(0) / 3000**0.5)
    assert z.abs().max() < 4
    assert (draws.log_mean - exact.log_likelihood).abs().max() < 5 * draws.standard_error.max()
    hot = anneal(joint.score(x), eta, 50, 2, generator)
    cold = anneal(joint.score(x), eta, 50, 60, generator)
    assert (exact.log_likelihood - cold.mean).mean() < 0.3 * (exact.log_likelihood - hot.mean).mean()


@pytest.mark.parametrize("hidden", [0, 1])
def test_fitted_posteriors_are_near_the_best(hidden):
    """From an encoder that is far off; against ascent on the enumerated table."""
    model, x = make(7, hidden, scale=0.6), corpus(40)
    joint = TextJoint(model.decode, 7, 20, DOUBLE)
    eta = -2 * model.encode(x)
    exact = enumerate_codes(joint, x, eta, rows=torch.arange(40))
    best = best_factorized(exact.table, starting_points(exact.table, eta, 7))
    fitted = fit_factorized(joint.score(x), eta, samples=16, generator=torch.Generator().manual_seed(0))
    elbo = enumerate_codes(joint, x, fitted).elbo
    assert (best.elbo - exact.elbo).mean() > 2
    assert (best.elbo - elbo).mean() < 0.1 * (best.elbo - exact.elbo).mean()
    assert (best.elbo - elbo).min() > -1e-6
    assert (best.elbo - elbo).median() < 0.1


def test_where_the_posterior_factorizes_one_draw_finds_it():
    eta = 2 * torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = fit_factorized(lambda z: (z * eta).sum(-1) + 3, -eta, samples=1, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, eta)
    # what is drawn from in its place has all codes that either holds for possible
    wide = broadened(torch.tensor([[30.0, -2.0]]).double(), torch.tensor([[-30.0, 2.0]]).double()).sigmoid()
    small = 1 / (1 + math.exp(1.6))
    torch.testing.assert_close(wide, torch.tensor([[0.8, 0.8 * small + 0.2 / (1 + math.exp(-2))]]).double())


def test_annealing_reaches_codes_that_the_encoder_excludes():
    """Bits of q that never change: only the flips get there."""
    model, x = make(4, 0, scale=0.5), corpus(6)
    eta = torch.full((6, 4), -12.0, dtype=torch.float64)
    truth = dense_table(model, x).logsumexp(1)
    score = TextJoint(model.decode, 4, 20, DOUBLE).score(x)
    generator = torch.Generator().manual_seed(0)
    start = importance(score, eta, 2000, generator).log_mean
    end = anneal(score, eta, 300, 400, generator).log_mean
    assert (truth - start).mean() > 1
    assert (truth - end).mean() < 0.3 * (truth - start).mean()


def test_no_chain():
    with pytest.raises(ValueError, match="at least 2 chains and 1 temperature, got 1 and 5"):
        anneal(lambda z: z.sum(-1), torch.zeros(2, 3), 1, 5)


# --- evaluate ------------------------------------------------------------------------------------------------------


def test_a_tight_model_has_no_gap_and_no_distance():
    """Words in pairs, one for each bit: affine log-probabilities, uniform prior; own-hashing-tight."""
    mass = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    share = torch.tensor([[0.1, 0.7], [0.6, 0.2], [0.5, 0.9]], dtype=torch.float64)
    log_words = paired_words(mass, share)
    weight = torch.stack([log_words[4] - log_words[0], log_words[2] - log_words[0], log_words[1] - log_words[0]], 1)
    model = Model(3, 6, CodeTable(log_words), weight)
    train, test = corpus(40, 6, 1), replace(corpus(30, 6, 2), smoothing=corpus(40, 6, 1).smoothing)
    figures = ev.evaluate(model, train, test)
    for name in ("gap", "gap_family", "gap_amortization", "distance_documents", "distance_posterior"):
        for split in ("train", "test"):
            assert abs(figures[f"{name}_{split}"]) < 1e-5, name
    assert figures["distance_words"] < 1e-7
    truth = dense_table(model, test).logsumexp(1).mean()
    assert figures["log_likelihood_test"] == pytest.approx(float(truth), abs=1e-9)


def test_bit_information_is_the_divergence_of_the_joint_law_from_its_marginals():
    eta = torch.tensor([[40.0, 0.0, -3.0, 1.0], [40.0, 0.0, 3.0, -1.5], [40.0, 0.0, 3.0, 0.5]], dtype=torch.float64)
    q = eta.sigmoid()
    joint = torch.stack([q, 1 - q], -1) / 3  # documents, bits, values of the bit
    apart = joint.sum(0, keepdim=True) * joint.sum(2, keepdim=True)
    wanted = (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, apart)).sum((0, 2))
    got = ev.bit_information(eta)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-9)
    assert (got < ev.IDLE).tolist() == [True, True, False, False]  # constant, a coin, two that look


def test_figures_are_those_of_their_names():
    model, x, y = make(6, 1), corpus(40), corpus(30, seed=2)
    y = replace(y, smoothing=x.smoothing)
    figures = ev.evaluate(model, x, y)
    splits = ("_train", "_test")
    known = {f"{name}{split}" for name in ev.METRICS for split in splits} | {"distance_words"}
    assert set(figures) <= known
    for split, documents in zip(splits, (x, y), strict=True):
        table, eta = dense_table(model, documents), model.encode(documents)
        log_q = Bernoulli(eta).log_prob(all_bits(6)[:, None]).T
        elbo = (log_q.exp() * (table - log_q)).sum(1).mean()
        loglik = table.logsumexp(1).mean()
        assert figures[f"log_likelihood{split}"] == pytest.approx(float(loglik), abs=1e-8)
        assert figures[f"elbo{split}"] == pytest.approx(float(elbo), abs=1e-8)
        assert figures[f"gap{split}"] == pytest.approx(float(loglik - elbo), abs=1e-8)
        parts = figures[f"gap_family{split}"] + figures[f"gap_amortization{split}"]
        assert parts == pytest.approx(figures[f"gap{split}"], abs=1e-8)
        assert figures[f"gap_family{split}"] > 0.01
        assert figures[f"gap_amortization{split}"] > 0.01
        assert figures[f"gap_documents{split}"] == documents.n_documents
        assert figures[f"gap_family_se{split}"] == 0
    # the distance in words, by least squares with the weights written out
    weight = Bernoulli(model.encode(x)).log_prob(all_bits(6)[:, None]).exp().mean(1)
    root = weight.sqrt()[:, None]
    design = torch.cat([all_bits(6), torch.ones(64, 1)], 1)
    log_words = torch.log_softmax(model.decode(all_bits(6)).detach(), 1)
    rest = root * (log_words - design @ torch.linalg.lstsq(root * design, root * log_words).solution)
    frequency = x.dense(torch.float64).sum(0)
    expected = (rest.square().sum(0) @ frequency / frequency.sum()).sqrt()
    assert figures["distance_words"] == pytest.approx(float(expected), rel=1e-6)


def test_a_subset_estimates_the_whole(monkeypatch):
    monkeypatch.setattr("efvae.text.evaluate._TABLE_ELEMENTS", 2**7 * 150)
    model, x, y = make(7, 0, scale=0.6), corpus(40), replace(corpus(400, seed=2), smoothing=corpus(40).smoothing)
    whole = ev.evaluate(model, x, y, budget=ev.Budget(gap_documents=400))
    part = ev.evaluate(model, x, y, budget=ev.Budget(gap_documents=100))
    assert part["gap_documents_test"] == 150  # what fits in memory anyway
    assert ev.evaluate(model, x, y, budget=ev.Budget(gap_documents=160))["gap_documents_test"] == 160
    assert part["gap_test"] == pytest.approx(whole["gap_test"], abs=1e-9)
    # both parts are of the same documents
    table, log_q = dense_table(model, y), Bernoulli(model.encode(y)).log_prob(all_bits(7)[:, None]).T
    gap = (log_q.exp() * (log_q - table.log_softmax(1))).sum(1)[ev._some(y, 150, 1)].mean()
    assert part["gap_family_test"] + part["gap_amortization_test"] == pytest.approx(float(gap), abs=1e-8)
    for name in ("gap_family", "gap_amortization"):
        error = part[f"{name}_se_test"]
        assert 0 < error < 0.2 * part[f"{name}_test"]
        assert abs(part[f"{name}_test"] - whole[f"{name}_test"]) < 4 * error


@pytest.mark.parametrize("hidden", [0, 1])
def test_estimates_where_codes_are_too_many(hidden):
    model, x = make(7, hidden, scale=0.6), corpus(60)
    y = replace(corpus(50, seed=2), smoothing=x.smoothing)
    exact = ev.evaluate(model, x, y)
    budget = ev.Budget(enumerate_bits=6, ais_documents=50, samples=400, chains=50, temperatures=30)
    some = ev.evaluate(model, x, y, budget=budget)
    assert some["ais_documents_test"] == 50
    assert 1 <= some["ais_effective_test"] <= 50
    for name in ("log_likelihood_ais", "log_likelihood_iw"):
        error = some[f"{name}_se_test"]
        assert error < 0.1
        assert abs(some[f"{name}_test"] - exact["log_likelihood_test"]) < 5 * error
    assert abs(some["gap_fitted_ais_test"] - exact["gap_family_test"]) < 0.1 * exact["gap_test"]
    assert some["elbo_ais_test"] == pytest.approx(exact["elbo_test"], rel=0.02)
    assert abs(some["gap_ais_test"] - exact["gap_test"]) < 4 * some["gap_ais_se_test"]
    assert some["distance_words"] == pytest.approx(exact["distance_words"], rel=0.1)
    assert some["distance_documents_test"] == pytest.approx(exact["distance_documents_test"], rel=0.1)
    assert some == ev.evaluate(model, x, y, budget=budget)
    assert some != ev.evaluate(model, x, y, budget=budget, seed=1)
    known = {f"{name}_{split}" for name in ev.METRICS for split in ("train", "test")} | {"distance_words"}
    assert set(some) <= known


def test_errors_and_effective_chains_of_hand_made_weights(monkeypatch):
    """Of six chains of each document some weigh nothing and the others the same, so that all has a closed form."""
    weighing = (1, 6, 2, 1, 6)
    values = torch.zeros(6, 5).double()
    for document, n in enumerate(weighing):
        values[n:, document] = -1e9
    level = torch.tensor(weighing).double().div(6).log()  # the log of the mean weight
    gap, family = torch.tensor([1.0, 2, 3, 4, 10]).double(), torch.tensor([0.0, 0, 2, 4, 4]).double()
    draws = iter([LogWeights((level - gap)[None]), LogWeights((level - family)[None]), LogWeights(values)])
    monkeypatch.setattr(ev, "importance", lambda *_: next(draws))
    monkeypatch.setattr(ev, "fit_factorized", lambda score, eta, generator: eta)
    monkeypatch.setattr(ev, "anneal", lambda *_: LogWeights(values))
    figures = ev.evaluate(
        make(3, 0),
        corpus(),
        replace(corpus(5, seed=2), smoothing=corpus().smoothing),
        budget=ev.Budget(enumerate_bits=2),
    )
    for name, mean, error in (("gap_ais", 4, math.sqrt(12.5 / 5)), ("gap_fitted_ais", 2, math.sqrt(4 / 5))):
        assert figures[f"{name}_test"] == pytest.approx(mean)
        assert figures[f"{name}_se_test"] == pytest.approx(error)
    assert figures["ais_effective_test"] == pytest.approx(2)


def test_wrong_input():
    model, x = make(3, 0), corpus()
    with pytest.raises(ValueError, match="the model has 20 words, the documents 19"):
        ev.evaluate(model, x, corpus(k=19))
    with pytest.raises(ValueError, match="expected at least 2 documents, for standard errors; got 1"):
        ev.evaluate(model, x, corpus(1))
    joint, eta, code = TextJoint(model.decode, 3, 20, DOUBLE), model.encode(x), torch.zeros(8, dtype=torch.float64)
    for wrong, line in (
        ((x, eta[:, :2]), r"eta must have the shape \(25, 3\), got \(25, 2\)"),
        ((x, eta[:1]), r"eta must have the shape \(25, 3\), got \(1, 3\)"),
        ((corpus(k=19), eta), "the decoder has 20 words, the documents 19"),
    ):
        with pytest.raises(ValueError, match=line):
            enumerate_codes(joint, *wrong)
    with pytest.raises(ValueError, match=r"weight must have the shape \(8,\), got \(7,\)"):
        enumerate_codes(joint, x, eta, weight=code[:7])
    with pytest.raises(ValueError, match=r"log_prior must have the shape \(8,\) or \(25, 8\), got \(25, 1\)"):
        enumerate_codes(joint, x, eta, log_prior=code[:1].expand(25, 1))
    with pytest.raises(ValueError, match="expected logits of shape"):
        TextJoint(model.decode, 3, 21, DOUBLE)
    with pytest.raises(ValueError, match="at least one bit, got 0"):
        TextJoint(model.decode, 0, 20, DOUBLE)
    with pytest.raises(ValueError, match="chains must be at least 2, got 1"):
        ev.Budget(chains=1)
    with pytest.raises(ValueError, match=r"enumerate_bits in \[1, 20\], got 50 and 21"):
        ev.Budget(enumerate_bits=21)


def test_more_bits_than_drawn_codes_can_tell_of_are_refused():
    model, x = TextVAE(5, 40), WordCounts.from_dense(torch.ones(3, 5), torch.zeros(3, dtype=torch.long))
    few = ev.Budget(codes=200, ais_documents=2, samples=2, chains=2, temperatures=1)
    assert math.isfinite(ev.evaluate(model, x, x, budget=few)["distance_words"])
    with pytest.raises(ValueError, match="200 codes are too few for affine functions of 199 bits"):
        ev.evaluate(TextVAE(5, 199), x, x, budget=few)


def test_both_splits_have_one_smoothing():
    x = corpus()
    with pytest.raises(ValueError, match="train and test have different smoothing: build both with the same f"):
        ev.evaluate(TextVAE(20, 3).eval(), corpus(smooth=False), x)
