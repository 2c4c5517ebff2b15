"""The multinomial–Bernoulli RBM: its likelihood and gradient against lists of all documents and codes; its training.

Labels: eq-13, eq-14, eq-15, sec-4-3, own-text-rbm, own-length-prior.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from efvae import records
from efvae.data.synthetic import harmonium_law, log_likelihood
from efvae.estimators import Exact
from efvae.experiments import text_rbm
from efvae.families import all_bits
from efvae.hashing import Corpus
from efvae.scoreboard import targets
from efvae.text import listed
from efvae.text.batches import Documents
from efvae.text.rbm import TextRBM
from efvae.text.selection import lowest
from efvae.word_counts import WordCounts, base_measure_floor

LENGTHS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
LOG_LENGTH = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()


def random_rbm(n_words=3, bits=3, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n_words, bits), (n_words,), (bits,))
    return TextRBM(*(scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))


def table(model, prior="own"):
    """The same law as a list of all documents of all lengths and all codes; p(l) is given."""
    if prior == "own":
        return Corpus.with_length_prior(model.weight, model.word_bias, model.code_bias, LENGTHS, LOG_LENGTH)
    uniform = torch.full((2**model.bits,), -model.bits * math.log(2), dtype=torch.float64)
    return Corpus.independent(model.decode(all_bits(model.bits)), LENGTHS, LOG_LENGTH, uniform)


def every_document(corpus):
    x = corpus.documents()
    return WordCounts.from_dense(x, torch.zeros(len(x), dtype=torch.int64))


@pytest.mark.parametrize("prior", ["own", "uniform"])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_likelihood_is_that_of_the_list_and_sums_to_one_at_each_length(prior, bits):
    model = random_rbm(bits=bits, seed=bits)
    corpus = table(model, prior)
    x = every_document(corpus)
    with torch.no_grad():
        log_p = -model.nll(x, prior) - base_measure_floor(x)
    length = x.length()
    for one in LENGTHS:
        assert log_p[length == one].exp().sum().item() == pytest.approx(1, abs=1e-12)
    log_length = LOG_LENGTH[(length[:, None] == LENGTHS).double().argmax(1)]
    torch.testing.assert_close(log_p + log_length, corpus.data().log().detach(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("prior", ["own", "uniform"])
def test_the_gradient_is_that_of_the_list(prior, monkeypatch):
    monkeypatch.setattr(listed, "PIECE", 24)  # several pieces
    ours, theirs = random_rbm(seed=3), random_rbm(seed=3)
    corpus = table(theirs, prior)
    x = every_document(corpus)
    weights = torch.linspace(-1, 2, x.n_documents, dtype=torch.float64)
    (ours.nll(x, prior) @ weights).backward()
    (-corpus.data().log() @ weights).backward()
    for name, value in theirs.named_parameters():
        if (prior, name) != ("uniform", "code_bias"):
            torch.testing.assert_close(ours.get_parameter(name).grad, value.grad, rtol=1e-10, atol=1e-10)


def test_fractional_documents_are_what_training_sees():
    """Smoothed counts: ⟨x, W z⟩ and l are no whole numbers; the sums over codes written out."""
    model = random_rbm(n_words=4, bits=3, seed=5)
    f = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    counts = torch.tensor([[1.0, 0, 2, 0], [0, 3, 0, 1], [0, 0, 0, 7]])
    x = WordCounts.from_dense(counts, torch.zeros(3, dtype=torch.int64), f)
    dense, codes = counts.double() + f, all_bits(3)
    with torch.no_grad():
        logits = model.decode(codes)
        inner, a = dense @ logits.T, logits.exp().sum(1).log()
        joint = inner + codes @ model.code_bias
        log_z = (codes @ model.code_bias + dense.sum(1)[:, None] * a).exp().sum(1).log()
        saturated = (dense * (dense / dense.sum(1, keepdim=True)).log()).sum(1)
        torch.testing.assert_close(model.nll(x), saturated - joint.exp().sum(1).log() + log_z)
        uniform = (inner - dense.sum(1)[:, None] * a).exp().mean(1).log()
        torch.testing.assert_close(model.nll(x, "uniform"), saturated - uniform)
        torch.testing.assert_close(model.log_partition(x.length()), log_z)
        # the posterior has independent bits
        q = torch.softmax(joint, 1)
        torch.testing.assert_close(model.encode(x).sigmoid(), q @ codes)
        law = torch.distributions.Bernoulli(logits=model.encode(x))
        torch.testing.assert_close(law.log_prob(codes[:, None]).sum(-1).T.exp(), q)
        # under uniform bits they are not independent, and the RBM's encoder gives a bound
        cost = saturated[:, None] - inner + dense.sum(1)[:, None] * a
        exact = (q * (cost + (q * 8).log())).sum(1)
        torch.testing.assert_close(model.nelbo_uniform(x), exact)
        assert (exact > model.nll(x, "uniform") + 1e-3).all()
        torch.testing.assert_close(model.uniform_marginals(x), torch.softmax(-cost, 1) @ codes)


def test_its_elbo_under_uniform_bits_is_that_of_the_text_vae():
    """Another implementation, the one that Table 2 is trained with."""
    model = random_rbm(n_words=20, bits=4, seed=7, scale=0.4)
    counts = torch.poisson(torch.full((30, 20), 0.6), generator=torch.Generator().manual_seed(0))
    f = torch.softmax(torch.arange(20.0), 0).double()
    x = WordCounts.from_dense(counts, torch.zeros(30, dtype=torch.int64), f)
    vae = model.as_vae().eval()
    (batch,) = Documents(x).batches(30)
    with torch.no_grad():
        nelbo, _ = vae.nelbo(batch, Exact())
        torch.testing.assert_close(nelbo.double(), model.nelbo_uniform(x), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(vae.encode(x).double(), model.encode(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_partitions_by_halves_of_the_code(bits):
    model = random_rbm(n_words=30, bits=bits, seed=bits, scale=40.0)  # exp without a shift would overflow
    with torch.no_grad():
        dense = model.decode(all_bits(bits)).logsumexp(1)
        torch.testing.assert_close(model.partition(), dense, rtol=1e-12, atol=1e-9)
        logits = torch.randn(7, bits, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        law = torch.distributions.Bernoulli(logits=logits).log_prob(all_bits(bits)[:, None]).sum(-1).exp()
        torch.testing.assert_close(listed.expected_partition(dense, logits), law.T @ dense)


def test_the_log_sum_of_a_product(monkeypatch):
    monkeypatch.setattr(listed, "PIECE", 30)
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(shape, generator=generator, dtype=torch.float64) * 30 for shape in ((11, 3), (3, 9)))
    torch.testing.assert_close(listed.log_sum_exp_product(u, v), (u @ v).logsumexp(1), rtol=1e-13, atol=1e-12)
    leaves = (u / 30).requires_grad_(), (v / 30).requires_grad_()
    assert torch.autograd.gradcheck(listed.log_sum_exp_product, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_that_would_vanish_are_normal_numbers_and_change_nothing(dtype):
    """Else exp takes forty times as long, in products too."""
    least = torch.finfo(dtype).tiny
    assert listed._powers(torch.tensor([-1e4, -750.0, -100.0], dtype=dtype)).min() >= least
    assert listed._powers(torch.tensor([-1e4], dtype=dtype), 20.0).item() == pytest.approx(
        least * math.exp(20), rel=0.1
    )
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(shape, generator=generator, dtype=dtype) * 30 for shape in ((11, 3), (3, 900)))
    leaves = u.requires_grad_(), v.requires_grad_()
    values = listed.log_sum_exp_product(u, v), (u.double() @ v.double()).logsumexp(1)
    found = [(value.detach().double(), *torch.autograd.grad(value.sum(), leaves)) for value in values]
    assert (u @ v).amax() - (u @ v).amin() > 1000
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-4)


def test_the_code_tells_the_length_unless_all_partitions_are_equal():
    model = random_rbm(seed=2)
    information = model.length_information(LENGTHS, LOG_LENGTH.exp())
    joint = table(model).log_length_code
    assert information["length_information"].item() == pytest.approx(
        table(model).length_information().item(), abs=1e-12
    )
    assert information["length_information"].item() > 0.01
    conditional = joint - LOG_LENGTH[:, None]
    assert information["prior_entropy"].item() == pytest.approx(-(joint.exp() * conditional).sum().item(), abs=1e-12)
    flat = torch.zeros(4, dtype=torch.float64)
    same = TextRBM(torch.zeros(4, 2).double(), flat, torch.tensor([0.3, -1.0]).double())
    assert abs(same.length_information(LENGTHS, LOG_LENGTH.exp())["length_information"].item()) < 1e-12


def test_first_weights_do_not_tell_the_length():
    p = torch.softmax(torch.randn(500, generator=torch.Generator().manual_seed(0)), 0)
    model = TextRBM.initial(p, 4, torch.Generator().manual_seed(1), scale=0.1)
    with torch.no_grad():
        torch.testing.assert_close(model.word_bias.exp(), p)
        assert (p @ model.weight).abs().max() < 1e-6
        assert model.weight.std().item() == pytest.approx(0.1, rel=0.05)
        assert model.partition().abs().max() < 4 * 0.1**2  # second order in the scale


# one bit more than the truth has: with as many, training may end in a local optimum
QUICK = text_rbm.Config(corpus="harmonium", bits=7, vocabulary=60, epochs=40, batch_size=100, learning_rate=0.03)


@pytest.fixture(scope="module")
def solved():
    return text_rbm.solve(QUICK)


def test_training_finds_the_law_of_a_harmonium(solved):
    """The truth is in the family: maximum likelihood beats it where it was fitted, and loses little elsewhere."""
    law = harmonium_law(60)
    marginal = law.log_length_code.logsumexp(1)
    found = solved.record.metrics
    truth = {}
    for name in ("train", "test"):
        x = getattr(solved, name)
        log_length = marginal[(x.length()[:, None] == law.lengths).double().argmax(1)]
        truth[name] = float((log_length - log_likelihood(law, x)).mean())
    assert -1 < found["nll_train_base"] - truth["train"] < 0
    assert 0 < found["nll_test_base"] - truth["test"] < 1
    assert found["nll_kept_test"] == pytest.approx(found["nll_test"], abs=1e-3)
    # the prior is not free: uniform bits in its place cost, and then the encoder is not exact either
    assert found["nll_test"] + 0.1 < found["nll_uniform_test"] < found["nelbo_uniform_test"] - 0.1
    assert found["length_information"] > 0.01
    assert found["nll_train_last"] >= found["nll_train"]
    assert {"precision_at_100", "codes_used"} <= set(found)


def test_a_decoder_trained_for_uniform_bits_is_better_under_them(solved):
    found = text_rbm.solve(replace(QUICK, prior="uniform")).record.metrics
    for part in ("train", "test"):
        assert found[f"nll_{part}"] < solved.record.metrics[f"nll_uniform_{part}"] - 0.1
    assert found["nll_kept_test"] == pytest.approx(found["nll_test"], abs=1e-3)
    assert "nelbo_uniform_test" not in found  # the RBM's encoder is not this decoder's


def test_held_out_documents_select_the_epoch(solved):
    config = replace(QUICK, held_out=300, epochs=8, learning_rate=0.3)
    curve = (found := text_rbm.solve(config)).record.curve
    metrics = found.record.metrics
    best = curve["nll_held_out"].index(min(curve["nll_held_out"]))
    assert metrics["nll_held_out"] == pytest.approx(curve["nll_held_out"][best], abs=1e-3)
    assert metrics["nll_test_held_out"] == pytest.approx(curve["nll_test"][best], abs=1e-3)
    assert metrics["nll_kept_test"] == pytest.approx(curve["nll_test"][best], abs=1e-3)
    assert metrics["nll_train"] == pytest.approx(min(curve["nll_train"]), abs=1e-3)
    assert solved.record.metrics["nll_held_out"] is None
    assert curve["epoch"] == [1, 2, 3, 4, 5, 6, 7, 8]
    halves = torch.tensor([curve["nll_test_even"], curve["nll_test_odd"]])
    assert halves.mean(0).tolist() == pytest.approx(curve["nll_test"], abs=2e-3)


def test_the_selected_epochs_of_a_curve():
    curve = {
        "epoch": [2.0, 4.0, 6.0], "nll_train": [9.0, 7.0, 8.0], "nll_test": [6.0, 5.0, 5.5],
        "nll_test_even": [6.0, 5.0, 4.0], "nll_test_odd": [6.5, 6.0, 7.0], "nll_held_out": [3.0, 4.0, 5.0],
    }  # fmt: skip
    found = lowest(curve, "nll", {"train": 10.0, "test": 20.0})
    assert found["nll_test_cross"] == (5.0 + 7.0) / 2  # even at the epoch of odd, 4; odd at the epoch of even, 6
    expected = {"nll_train": 7, "nll_test": 5, "epoch_test": 4, "nll_held_out": 3, "nll_test_held_out": 6,
                "nll_train_last": 8, "nll_test_last": 5.5, "nll_train_base": 17, "nll_test_base": 25}  # fmt: skip
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("parts", "kept"), [(("test",), 1), (("test", "held_out"), 0)])
def test_the_kept_model_is_the_best_on_held_out_documents_if_there_are_any(parts, kept):
    labels = torch.zeros(2, dtype=torch.int64)
    of_words = {"test": [[0.0, 9], [0, 8]], "held_out": [[9.0, 0], [8, 0]]}
    corpora = {name: WordCounts.from_dense(torch.tensor(of_words[name]), labels) for name in parts}
    model = TextRBM(torch.zeros(2, 1), torch.zeros(2), torch.zeros(1))
    keeper = text_rbm._Keeper(model, corpora, "own")
    for step in range(2):  # the first model likes word 0, the second word 1
        with torch.no_grad():
            model.word_bias.copy_(torch.tensor([1.0 - step, step]))
        keeper.look()
    assert keeper.best.word_bias.tolist() == [1 - kept, kept]


def test_a_killed_run_goes_on_and_a_known_one_is_not_repeated(tmp_path, monkeypatch):
    config = replace(QUICK, epochs=6, evaluate_every=2)
    whole = text_rbm.solve(config).record
    folder = tmp_path / "checkpoints"
    text_rbm.run(config, checkpoint=folder)
    (path,) = folder.iterdir()  # where a run keeps its checkpoint
    path.unlink()

    def kill(step, curve):
        if len(curve["step"]) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        text_rbm.solve(config, path, kill)
    other = replace(config, prior="uniform")
    assert records.same(text_rbm.run(other, checkpoint=folder), text_rbm.solve(other).record)  # not this one's
    again = text_rbm.run(config, results=tmp_path, checkpoint=folder)
    assert records.same(again, whole)
    assert whole.curve["epoch"] == [2, 4, 6]
    assert whole.metrics["epoch_test"] in (2, 4, 6)
    monkeypatch.setattr(text_rbm, "solve", None)
    assert records.same(text_rbm.run(config, results=tmp_path), whole)


def test_what_the_stored_runs_say():
    """The RBM's decoder and encoder under uniform bits are a cell of Table 2, and a better one than the printed."""
    where = {"corpus": "20news", "bits": 8, "held_out": 0, "learning_rate": 0.02}
    rbm, uniform = (records.load(text_rbm.STEM, prior=prior, **where) for prior in ("own", "uniform"))
    assert [sorted(r.config["seed"] for r in some) for some in (rbm, uniform)] == [[0, 1, 2]] * 2
    for part in ("train", "test"):
        quantity = f"NELBO, {part}, 8 bits, 0 hidden layers, e1"
        (printed,) = {float(target.paper) for target in targets() if target.quantity == quantity}
        best = max(r.metrics[f"nll_{part}"] for r in uniform)
        for one in rbm:
            likelihood, elbo = one.metrics[f"nll_uniform_{part}"], one.metrics[f"nelbo_uniform_{part}"]
            assert best < likelihood < elbo < printed - 5
            assert elbo - likelihood < 0.5  # the encoder is nearly exact although the prior is another one
            assert likelihood - one.metrics[f"nll_kept_{part}"] > 0.5  # which says that its prior is used


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"bits": 0}, "[1, 20]"), ({"bits": 21}, "[1, 20]"), ({"prior": "free"}, "own, uniform"),
     ({"epochs": 0}, "epochs"), ({"corpus": "20new"}, "20news"), ({"learning_rate": math.inf}, "positive"),
     ({"seed": -1}, "seed"), ({"held_out": -1}, "held_out"), ({"vocabulary": 1}, "vocabulary")],
)  # fmt: skip
def test_a_value_out_of_range(wrong, message):
    with pytest.raises(ValueError) as caught:
        text_rbm.Config(**wrong)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_held_out_documents_than_there_are_and_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="less than the 2000 training documents; got 2000"):
        text_rbm.solve(replace(QUICK, held_out=2000))
    with pytest.raises(ValueError, match="to fit"):
        TextRBM(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"bits must be in \[1, 20\]"):
        TextRBM(torch.zeros(3, 21), torch.zeros(3), torch.zeros(21))
    with pytest.raises(ValueError, match=r"bits must be in \[1, 20\]"):
        TextRBM.initial(torch.ones(3) / 3, 21, torch.Generator())


def test_an_unknown_prior_is_not_taken_for_the_uniform_one():
    x = WordCounts.from_dense(torch.tensor([[1.0, 2.0, 0.0]]), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="prior must be one of own, uniform; got 'Own'"):
        TextRBM(torch.zeros(3, 2), torch.zeros(3), torch.zeros(2)).nll(x, prior="Own")
