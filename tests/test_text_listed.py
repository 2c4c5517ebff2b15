"""Affine decoders whose log-partitions come from one table of all codes, against one softmax a code.

Labels: own-listed-partition, own-partition-table, eq-13, tab-2.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

import efvae.text.model as text_model
from efvae.data.synthetic import curved_law, synthetic_text
from efvae.estimators import ARM, DisARM, Exact
from efvae.experiments import text
from efvae.families import all_bits
from efvae.text import compiled
from efvae.text.batches import Documents
from efvae.text.dense import DenseDocuments
from efvae.text.listed import word_partition
from efvae.text.model import TextVAE, table_cost
from efvae.text.passes import evaluate

K, BITS, CPU = 60, 10, torch.device("cpu")


@pytest.fixture(scope="module")
def documents():
    """A few smoothed documents and their dense form in float64."""
    raw = synthetic_text(curved_law(K, 4, 10, 30), 40, 20).train
    x = dataclasses.replace(raw, smoothing=torch.linspace(0, 0.02, K, dtype=torch.float64))
    return x, x.dense(torch.float64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = TextVAE(K, BITS, "e3")
    with torch.no_grad():
        made.writer.normal_()
        made.reader.normal_()
    return made


def gradients(model, value):
    """Of a sum, by name."""
    model.zero_grad()
    value.sum().backward()
    return {name: part.grad.double() for name, part in model.named_parameters()}


def assert_same_gradients(got, wanted):
    for name, other in wanted.items():
        assert (got[name] - other).norm() <= 2e-5 * other.norm(), name


def enumerated(model, dense):
    """NELBO by the definition, each code by itself, float64: from a model in float64."""
    x = dense / dense.sum(1, keepdim=True)
    logits = x @ model.reader + model.reader_bias
    codes = all_bits(BITS, dense)
    log_q = logits @ codes.T - torch.nn.functional.softplus(logits).sum(1, keepdim=True)
    log_p = dense @ (codes @ model.writer.T + model.writer_bias).log_softmax(1).T - BITS * torch.log(torch.tensor(2.0))
    saturated = torch.special.xlogy(dense, x).sum(1)
    return (log_q.exp() * (log_q - log_p)).sum(1) + saturated


@pytest.mark.parametrize("kind", [Documents, DenseDocuments])
def test_the_exact_nelbo_of_many_bits_is_the_sum_over_all_codes(documents, model, kind):
    x, dense = documents
    batch = next(kind(x).batches(len(dense)))
    wide = TextVAE(K, BITS, "e3").double()
    wide.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    wanted = enumerated(wide, dense)
    nelbo, kl = model.nelbo(batch, Exact())
    torch.testing.assert_close(nelbo.double(), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(kl, BITS * torch.log(torch.tensor(2.0)) - model.posterior(batch).entropy())
    assert_same_gradients(gradients(model, nelbo), gradients(wide, wanted))


@pytest.mark.parametrize("estimator", [ARM(3), DisARM(2)])
def test_codes_from_the_table_give_what_each_code_by_itself_gives(documents, model, estimator, monkeypatch):
    batch = next(Documents(documents[0]).batches(40))
    found = []
    for cost in (math.inf, 0):
        monkeypatch.setattr(text_model, "table_cost", lambda *_, cost=cost: cost)
        assert model._table_pays(2 * estimator.samples * 40) == (cost == 0)
        nelbo, _ = model.nelbo(batch, estimator, torch.Generator().manual_seed(1))
        found.append((nelbo.detach(), gradients(model, nelbo)))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-4)
    assert_same_gradients(found[1][1], found[0][1])


def test_an_evaluation_from_the_table_is_that_of_each_code(documents, model, monkeypatch):
    monkeypatch.setattr(compiled, "available", lambda _: False)
    found = []
    for cost in (math.inf, 0):
        monkeypatch.setattr(text_model, "table_cost", lambda *_, cost=cost: cost)
        assert (model.frozen(Documents(documents[0])) is None) == (cost == 0)
        found.append(evaluate(model, Documents(documents[0]), torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-4)


def test_a_table_is_taken_where_it_is_cheaper_only(model):
    cost = table_cost(BITS, 0, CPU)
    assert not model._table_pays(int(cost))
    assert model._table_pays(int(cost) + 1)
    for bits, depth in ((BITS, 1), (8, 0), (21, 0)):  # hidden layers, codes that are listed, too many codes
        assert not TextVAE(K, bits, depth=depth, width=8)._table_pays(10**9)
    assert not model.to("meta")._table_pays(10**9)  # no CPU


def test_training_from_the_table_is_the_same_to_the_bit(documents, model):
    """With two threads, and so many codes that torch adds up some gradients in no fixed order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = documents[0]
        batch = next(Documents(x.select(torch.arange(40).repeat(20))).batches(800))
        found = []
        for _ in range(4):
            nelbo, _ = model.nelbo(batch, ARM(25), torch.Generator().manual_seed(1))
            found.append(torch.autograd.grad(nelbo.sum(), model.writer)[0])
        assert all(torch.equal(each, found[0]) for each in found)
    finally:
        torch.set_num_threads(threads)


def test_more_codes_than_a_table_has_room_for_are_refused(documents):
    batch = next(Documents(documents[0]).batches(40))
    with pytest.raises(ValueError, match="enumeration stops"):
        TextVAE(K, 21).nelbo(batch, Exact())


@pytest.mark.parametrize("distance", [30.0, 85.0, 90.0, 400.0])
def test_log_partitions_survive_halves_of_the_code_that_want_other_words(distance):
    """The words with the largest logit in either half are not those of the whole code; float32 ends at exp(−87)."""
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]]).repeat_interleave(2, 1) * distance
    bias = torch.tensor([-2 * distance, -2 * distance, 0.3])
    weight.requires_grad_()
    wanted = torch.stack([(weight.double() @ z + bias).logsumexp(0) for z in all_bits(4)])
    got = word_partition(weight, bias)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=1e-5)
    slopes = [torch.autograd.grad((values * torch.arange(16)).sum(), weight)[0] for values in (got, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)


def test_exact_gradients_of_more_than_20_bits_or_behind_hidden_layers_are_refused():
    assert text.Config(estimator="exact", bits=16).bits == 16
    for (bits, d_hidden), most in (((21, 0), 20), ((9, 1), 8)):
        with pytest.raises(ValueError, match=f"bits must be at most {most} with d_hidden={d_hidden}; got {bits}"):
            text.Config(estimator="exact", bits=bits, d_hidden=d_hidden)


def test_exact_gradients_lower_the_exact_nelbo_of_many_bits():
    config = text.Config(corpus="curved", vocabulary=K, bits=12, estimator="exact", epochs=4, epochs_many=0,
                         learning_rate=0.02, precision="float32")  # fmt: skip
    (trained,) = text.solve([config], progress=lambda line: None)
    curve = trained.record.curve["nelbo_train"]
    assert all(later < sooner for sooner, later in itertools.pairwise(curve))
    assert trained.record.metrics["elbo_train"] == pytest.approx(-curve[-1], rel=0.1)
