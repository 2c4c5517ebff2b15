"""Trainings with and without a slope below zero, and silent units drawn anew.

Labels: own-text-slope, own-text-training.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import statistics

import pytest
import torch

from efvae import records
from efvae.data.synthetic import harmonium_law, synthetic_text
from efvae.estimators import ARM
from efvae.experiments import text, text_slope
from efvae.text.batches import Documents
from efvae.text.model import TextVAE
from efvae.text.recycling import recycle

SMALL = text_slope.Config(
    corpus="harmonium", bits=4, encoder="e2", epochs=20, every=1, batch_size=256, width=32, vocabulary=300, seed=3
)
X = synthetic_text(harmonium_law(300)).train


@pytest.mark.parametrize(
    ("units", "activation", "many"), [("relu", "relu", 0), ("leaky", "leaky_relu", 0), ("leaky", "leaky_relu", 10)]
)
def test_all_documents_and_one_kind_of_unit_are_the_training_of_the_cell(units, activation, many):
    small = dataclasses.replace(SMALL, units=units, epochs=20 - many, epochs_many=many)
    record = text_slope.run(dataclasses.replace(small, turn=5))
    shared = {
        key: value
        for key, value in records.config_dict(small).items()
        if key in {field.name for field in dataclasses.fields(text.Config)}
    }
    (trained,) = text.solve([text.Config(**shared, activation=activation)], None, lambda line: None)
    nelbo = trained.record.curve["nelbo_train"]
    tens = [statistics.median(nelbo[first : first + 10]) for first in (0, 10)]
    assert record.curve["epoch"] == [10.0, 20.0]
    assert record.curve["nelbo_train"] == pytest.approx(tens, abs=1e-3)
    assert record.metrics["nelbo_train"] == record.curve["nelbo_train"][-1]
    assert record.metrics["nelbo_train_lowest"] == pytest.approx(trained.record.metrics["nelbo_train"], rel=1e-6)
    assert record.metrics["recycled"] == 0
    assert record.metrics["nelbo_test"] == pytest.approx(trained.record.metrics["nelbo_test"], rel=1e-6)
    for network in ("encoder", "decoder"):
        by_layer = (record.metrics[f"silent_{network}_{layer}"] for layer in (1, 2))
        assert sum(by_layer) / 2 == pytest.approx(trained.record.metrics[f"silent_{network}_last"])


@pytest.mark.parametrize(
    ("units", "encoder", "decoder"),
    [
        ("relu", ("", ""), ("", "")),
        ("recycled", ("", ""), ("", "")),
        ("leaky", ("leaks", "leaks"), ("leaks", "leaks")),
        ("leaky_encoder", ("leaks", "leaks"), ("", "")),
        ("leaky_decoder", ("", ""), ("leaks", "leaks")),
        ("leaky_first", ("leaks", ""), ("leaks", "")),
        ("leaky_later", ("", "leaks"), ("", "leaks")),
    ],
)
def test_what_leaks_in_the_epochs_before_and_after_the_turn(monkeypatch, units, encoder, decoder):
    seen = []

    class Watched(TextVAE):
        def nelbo(self, *args):
            parts = (self.code_net, self.hidden_net)
            seen.append(
                [{u.negative_slope for u in net.modules() if isinstance(u, torch.nn.LeakyReLU)} for net in parts]
            )
            return super().nelbo(*args)

    monkeypatch.setattr(text, "TextVAE", Watched)
    text_slope.run(dataclasses.replace(SMALL, units=units, turn=6))
    steps = math.ceil(X.n_documents / SMALL.batch_size)
    first, later = seen[: 6 * steps], seen[6 * steps : SMALL.epochs * steps]
    assert len(later) == (SMALL.epochs - 6) * steps
    for place, slopes in enumerate((encoder, decoder)):
        for moment, told in ((first, slopes[0]), (later, slopes[1])):
            assert {value for nets in moment for value in nets[place]} == {0.01 if told else 0.0}


def test_every_nth_document_of_both_splits_is_taken(monkeypatch):
    seen = []

    def begin(cells, corpus, *rest):
        seen.append(corpus)
        return text_begin(cells, corpus, *rest)

    text_begin = text.begin
    monkeypatch.setattr(text, "begin", begin)
    text_slope.run(dataclasses.replace(SMALL, every=3, epochs=10))
    whole = text.corpus(text.Config(corpus="harmonium", vocabulary=300))
    for split in ("train", "test"):
        part, documents = getattr(seen[0], split), getattr(whole, split)
        assert torch.equal(part.dense(), documents.dense()[::3])


def _silenced(encoder, depth):
    """A model in training, of which some units of each layer are below zero whatever comes."""
    torch.manual_seed(0)
    model = TextVAE(X.n_words, 10, encoder, depth, width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = next(iter(Documents(X).batches(64)))
    for _ in range(3):
        optimizer.zero_grad()
        model.nelbo(batch, ARM(1), torch.Generator().manual_seed(1))[0].mean().backward()
        optimizer.step()
    biases = [
        part.bias for net in (model.code_net, model.hidden_net) for part in net.modules() if hasattr(part, "bias")
    ]
    if encoder == "e2":
        biases = [model.reader_bias, *biases[:1], *biases[2:]]  # the last of the encoder has no unit
    with torch.no_grad():
        for number, bias in enumerate(biases, 2):
            bias[:number] = -1e3
    return model, optimizer, len(biases)


@pytest.mark.parametrize(
    ("encoder", "depth", "by_he"),
    [("e1", 1, False), ("e1", 2, True), ("e2", 0, False), ("e2", 1, True), ("e2", 2, False), ("e3", 2, False)],
)
def test_recycling_changes_nothing_but_what_can_be_learned(encoder, depth, by_he):
    model, optimizer, layers = _silenced(encoder, depth)
    silent = model.silent(X, torch.Generator().manual_seed(5))
    assert len(silent) == layers
    assert all(which[:number].all() for number, which in enumerate(silent.values(), 2))
    z = (torch.rand(50, 10, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    before = model.encode(X), model.decode(z)
    old = {name: weights.clone() for name, weights in model.named_parameters()}
    moments = {name: copy.deepcopy(optimizer.state[weights]) for name, weights in model.named_parameters()}

    count = recycle(model, optimizer, silent, torch.Generator().manual_seed(6), by_he=by_he)
    assert count == sum(int(which.sum()) for which in silent.values()) >= 2 * layers
    torch.testing.assert_close((model.encode(X), model.decode(z)), before)
    again = model.silent(X, torch.Generator().manual_seed(5))
    assert sum(int((a & b).sum()) for a, b in zip(silent.values(), again.values(), strict=True)) < count / 2

    # of units that were heard nothing is changed but the weights to and from silent ones
    tables = _tables(model)
    for name, weights in model.named_parameters():
        rows, columns = tables[name]
        touched = torch.zeros_like(weights, dtype=torch.bool)
        if rows is not None:
            touched[silent[rows]] = True
        if columns is not None:
            touched[:, silent[columns]] = True
        state = optimizer.state[weights]
        assert not (weights != old[name])[~touched].any()
        assert (state["exp_avg"][touched] == 0).all()
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[moment][~touched], moments[name][moment][~touched])
        assert state["step"] == moments[name]["step"]

    # into each silent unit new weights of the layer's law; what leads out of it is zero, but to other new units
    into, out = _into(model, tables), _out(model, tables)
    for layer, which in silent.items():
        new, bias = (weights[which] for weights in into[layer])
        bound = new.shape[1] ** -0.5
        if by_he:
            assert new.std().item() == pytest.approx(bound * math.sqrt(2), rel=2 / math.sqrt(new.numel()))
            assert new.abs().max() > 2 * bound
            assert (bias == 0).all()
        else:
            assert 0.9 * bound < new.abs().max() <= bound
            assert new.std().item() == pytest.approx(bound / math.sqrt(3), rel=1.1 / math.sqrt(new.numel()))
            assert 0 < bias.abs().max() <= bound
            assert bias.abs().min() > 0
        later = silent.get(f"{layer[:-1]}{int(layer[-1]) + 1}", torch.zeros(len(out[layer]), dtype=torch.bool))
        assert (out[layer][~later][:, which] == 0).all()
        assert (out[layer][later][:, which] != 0).all()

    # second moments as those of the units that were heard: the lower median, by hand
    weights = into[next(iter(silent))][1]
    which = next(iter(silent.values()))
    heard = sorted(moments[_name(model, weights)]["exp_avg_sq"][~which].tolist())
    assert optimizer.state[weights]["exp_avg_sq"][which].tolist() == [heard[(len(heard) - 1) // 2]] * int(which.sum())
    # and now they learn: what comes out of a unit that is heard has a gradient
    optimizer.zero_grad()
    batch = next(iter(Documents(X).batches(X.n_documents)))
    model.nelbo(batch, ARM(1), torch.Generator().manual_seed(1))[0].mean().backward()
    if depth:
        alive = silent[f"decoder_{depth}"] & ~again[f"decoder_{depth}"]
        assert alive.any()
        assert (model.writer.grad[:, alive].abs().sum(0) > 0).all()


def _tables(model):
    """For each parameter the layer whose units are its rows, and that whose units are its columns."""
    tables = {name: (None, None) for name, _ in model.named_parameters()}
    tables["writer"] = None, f"decoder_{model.depth}" if model.depth else None
    if model.encoder == "e2":
        tables |= {"reader": (None, "encoder_1"), "reader_bias": ("encoder_1", None)}
    owners = {id(weights): name for name, weights in model.named_parameters()}
    for name, net, first in (("encoder", model.code_net, 2), ("decoder", model.hidden_net, 1)):
        linear = [part for part in net.modules() if isinstance(part, torch.nn.Linear)]
        for number, part in enumerate(linear, first):
            last = name == "encoder" and number == len(linear) + 1  # to the codes
            before = f"{name}_{number - 1}" if number > 1 else None
            tables[owners[id(part.weight)]] = None if last else f"{name}_{number}", before
            tables[owners[id(part.bias)]] = None if last else f"{name}_{number}", None
    return tables


def _name(model, weights):
    return next(name for name, other in model.named_parameters() if other is weights)


def _into(model, tables):
    """Weights into the units of each layer, by rows, and their biases."""
    found = {}
    for name, weights in model.named_parameters():
        if name == "reader":
            found.setdefault("encoder_1", [None, None])[0] = weights.t()
        elif tables[name][0] is not None:
            found.setdefault(tables[name][0], [None, None])[weights.dim() == 1] = weights
    return found


def _out(model, tables):
    """Weights out of the units of each layer, by columns."""
    return {
        tables[name][1]: weights for name, weights in model.named_parameters() if tables[name][1] and name != "reader"
    }


def test_before_the_first_step_there_are_no_moments():
    model, _, _ = _silenced("e2", 2)
    optimizer = torch.optim.Adam(model.parameters())
    silent = model.silent(X, torch.Generator().manual_seed(5))
    assert recycle(model, optimizer, silent, torch.Generator().manual_seed(6)) > 0
    assert not optimizer.state


def test_units_are_drawn_anew_after_each_epoch_but_the_last(monkeypatch):
    calls, draws, laws = [], [], []

    def watched(model, optimizer, silent, generator, *, by_he):
        # the codes of the training come from another source
        draws.append(generator.initial_seed())
        laws.append(by_he)
        calls.append(recycle(model, optimizer, silent, generator, by_he=by_he))
        return calls[-1]

    monkeypatch.setattr(text_slope, "recycle", watched)
    for units in ("relu", "leaky_later"):
        assert text_slope.run(dataclasses.replace(SMALL, units=units, turn=6)).metrics["recycled"] == 0
    assert not calls
    relu, recycled = (text_slope.run(dataclasses.replace(SMALL, units=units)) for units in ("relu", "recycled"))
    assert recycled.metrics["recycled"] == sum(calls) > 0
    assert len(calls) == SMALL.epochs - 1
    assert set(draws) == {(1 << 20) + SMALL.seed}
    assert recycled.metrics["silent_encoder_2"] < relu.metrics["silent_encoder_2"] / 2
    # by the law of the first weights
    assert not any(laws)
    text_slope.run(dataclasses.replace(SMALL, units="recycled", first_weights="he"))
    assert all(laws[len(laws) // 2 :])


def test_all_units_of_a_layer_may_be_silent():
    model, optimizer, _ = _silenced("e1", 2)
    silent = model.silent(X, torch.Generator().manual_seed(5)) | {"decoder_2": torch.ones(16, dtype=torch.bool)}
    assert recycle(model, optimizer, silent, torch.Generator().manual_seed(6)) >= 16
    assert (optimizer.state[model.writer]["exp_avg_sq"] == 0).all()


def test_a_record_is_found_again_and_bad_trainings_are_refused(tmp_path, capsys):
    words = [f"{key}={value}" for key, value in records.config_dict(SMALL).items()]
    for _ in range(2):
        assert records.main(text_slope.Config, text_slope.run, [*words, "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("epoch 20/20  NELBO train") == 1  # the second time it is read
    (path,) = tmp_path.glob("sec4_3_slope/*.json")
    assert math.isfinite(json.loads(path.read_text())["metrics"]["nelbo_train"])
    for bad, line in (
        (["d_hidden=0"], "encoder=e1 with d_hidden=0 has no hidden units: take encoder=e2, or d_hidden=1 or 2"),
        (["units=tanh"], "units must be one of relu, leaky, leaky_encoder, leaky_decoder, leaky_first, leaky_later, "),
        (["epochs=15"], "epochs must be a multiple of 10; got 15"),
        (["epochs_many=5"], "epochs_many must be a multiple of 10; got 5"),
        (["epochs=0"], "epochs must be a whole number of at least 10; got 0"),
        (["units=leaky_first", "turn=300"], "turn must be below epochs, 300, with units=leaky_first; got 300"),
        (["units=leaky_encoder"], "units=leaky_encoder with encoder=e1 and d_hidden=2: that network has no hidden"),
        (["units=leaky_decoder", "encoder=e2", "d_hidden=0"], "that network has no hidden units, take another kind"),
        (["corpus=harmonium", "vocabulary=300", "every=900"], "take a smaller one"),
    ):
        assert records.main(text_slope.Config, text_slope.run, [*bad, "--results", str(tmp_path)]) == 2
        assert line in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*.json"))) == 1
