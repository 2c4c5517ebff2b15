"""The text autoencoder: fused products against dense ones, the NELBO against its definition, training that resumes.

Labels: own-fused-multinomial, own-text-training, eq-13, eq-14, tab-2, app-c2.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from efvae import cli, records
from efvae.checkpoint import CheckpointError
from efvae.data.newsgroups import load_newsgroups
from efvae.data.synthetic import curved_law, synthetic_text
from efvae.estimators import ARM, DisARM, Exact
from efvae.experiments import text
from efvae.families import Bernoulli, all_bits
from efvae.parameters import UsageError
from efvae.sweep import cells_of, experiment
from efvae.text import training
from efvae.text.batches import Documents
from efvae.text.fused import code_costs, code_table, word_sums
from efvae.text.model import ACTIVATIONS, TextVAE, divergence
from efvae.text.passes import descend
from efvae.text.rbm import TextRBM
from efvae.text.selection import hold_out
from efvae.text.training import Corpora, Phase, Run, evaluate, train_together
from efvae.train import TrainingError
from efvae.word_counts import WordCounts, base_measure_floor, cross_entropy, log_saturated

K = 60


@pytest.fixture(scope="module")
def documents():
    """A few smoothed documents and their dense form in float64."""
    law = curved_law(K, 4, 10, 30)
    raw = synthetic_text(law, 40, 20).train
    f = torch.linspace(0, 0.02, K, dtype=torch.float64)
    x = dataclasses.replace(raw, smoothing=f)
    return x, x.dense(torch.float64)


def dense_costs(logits, x):
    """Σ x log(x / l) − Σ x log p by the definition, over the last axis."""
    saturated = torch.special.xlogy(x, x / x.sum(-1, keepdim=True)).sum(-1)
    return saturated - (x * logits.log_softmax(-1)).sum(-1)


def leaves(generator, *shapes):
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("in_code", [True, False], ids=["hidden", "affine"])
@pytest.mark.parametrize("kind", [code_costs, code_table])
def test_fused_costs_and_gradients_are_the_dense_ones(documents, kind, in_code, dtype, tolerance):
    x, dense = documents
    generator = torch.Generator().manual_seed(3)
    shape = (2, len(dense), 5) if kind is code_costs else (7, 5)
    h, weight, bias = leaves(generator, shape, (K, 5), (K,))
    for leaf, wanted in ((h, in_code), (weight, True), (bias, True)):
        leaf.requires_grad_(wanted)
    logits = h @ weight.T + bias
    wanted = dense_costs(logits if kind is code_costs else logits[:, None], dense)
    upstream = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    wanted.backward(upstream)

    mine = [leaf.detach().float().requires_grad_(leaf.requires_grad) for leaf in (h, weight, bias)]
    batch = next(Documents(x, dtype if in_code else None).batches(len(dense)))
    got = kind(*mine, batch, dtype)
    got.backward(upstream.float())
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance * float(dense.sum(1).max()))
    for leaf, other in zip(mine, (h, weight, bias), strict=True):
        if other.grad is not None:
            assert (leaf.grad.double() - other.grad).norm() <= tolerance * other.grad.norm()


def test_a_decoder_that_begins_at_the_frequencies_is_the_unigram_model_where_the_code_is_zero(documents):
    x, dense = documents
    torch.manual_seed(0)
    model = TextVAE(K, 3, depth=0)
    before = model.writer.clone()
    model.begin_at(x)
    counts = (dense - x.smoothing).sum(0) + 1 / K
    torch.testing.assert_close(model.decode(torch.zeros(3)).softmax(0).double(), counts / counts.sum())
    assert torch.equal(model.writer, before)


def test_what_a_long_measurement_is_about_is_told():
    cells = [dataclasses.replace(CONFIG, epochs=1, epochs_many=0, bits=bits) for bits in (2, 3)]
    lines: list[str] = []
    text.solve(cells, progress=lines.append)
    assert lines[-2:] == ["trained; measuring model 1 of 2", "trained; measuring model 2 of 2"]
    assert lines[-3].startswith("epoch 1/1 ")


def test_the_first_bias_is_what_a_run_starts_from_and_part_of_what_it_is():
    first = {}
    for kind in text.FIRST_BIASES:
        config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-12, first_bias=kind)
        (trained,) = text.solve([config], progress=lambda line: None)
        first[kind] = trained.last.writer_bias, trained.record
    words = trained.train.word_totals() + 1 / trained.train.n_words
    torch.testing.assert_close(first["frequencies"][0].softmax(0).double(), words / words.sum(), atol=1e-6, rtol=1e-4)
    assert first["random"][0].abs().max() <= CONFIG.bits**-0.5  # torch's law for a linear layer
    assert first["random"][1].cell != first["frequencies"][1].cell


@pytest.mark.parametrize(("encoder", "depth"), [("e1", 0), ("e2", 2)])
def test_first_weights_are_torchs_or_hes_and_part_of_what_a_run_is(encoder, depth):
    first = {}
    for kind in text.FIRST_WEIGHTS:
        config = dataclasses.replace(
            CONFIG, epochs=1, learning_rate=1e-12, encoder=encoder, d_hidden=depth, first_weights=kind
        )
        (trained,) = text.solve([config], progress=lambda line: None)
        first[kind] = trained.last, trained.record
    assert first["torch"][1].cell != first["he"][1].cell
    for (name, torchs), hes in zip(first["torch"][0].named_parameters(), first["he"][0].parameters(), strict=True):
        if name.endswith("bias"):
            assert torchs.abs().max() > 1e-3
            assert hes.abs().max() < 1e-9
        elif torchs.numel() >= 200:
            ratio = (hes.var() / torchs.var()).item()
            assert (
                abs(ratio - 6) < 5 * 6 * (2.8 / torchs.numel()) ** 0.5
            )  # 2/fan-in and 1/(3 fan-in), by their fourth moments


def test_leaky_units_have_a_slope_of_a_hundredth_and_are_part_of_what_a_run_is():
    torch.manual_seed(0)
    plain, leaky = TextVAE(K, 4, "e2", 2, width=6), TextVAE(K, 4, "e2", 2, width=6, activation="leaky_relu")
    leaky.load_state_dict(plain.state_dict())
    z = (torch.rand(20, 4) > 0.5).float()
    for model, slope in ((plain, 0.0), (leaky, 0.01)):
        h = z
        for layer in (part for part in model.hidden_net.modules() if isinstance(part, torch.nn.Linear)):
            t = h @ layer.weight.T + layer.bias
            h = torch.where(t > 0, t, slope * t)
        torch.testing.assert_close(model.decode(z), h @ model.writer.T + model.writer_bias)
    assert not torch.allclose(plain.decode(z), leaky.decode(z))
    with pytest.raises(ValueError, match="activation must be one of relu, leaky_relu; got 'tanh'"):
        TextVAE(K, 4, activation="tanh")
    cells = []
    for kind in ACTIVATIONS:
        (trained,) = text.solve([dataclasses.replace(CONFIG, epochs=1, d_hidden=1, activation=kind)], None, print)
        cells.append(trained.record.cell)
    assert len(set(cells)) == 2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_units_that_are_above_zero_for_no_document_are_silent(documents, activation):
    x, _ = documents
    model = TextVAE(K, 3, "e2", 2, width=8, activation=activation)
    with torch.no_grad():
        for layer in (part for net in (model.code_net, model.hidden_net) for part in net.modules()):
            if isinstance(layer, torch.nn.Linear):
                layer.weight.abs_()
                layer.bias.fill_(1.0)
        model.reader.abs_()
        model.reader_bias.fill_(1.0)
        layers = ("encoder_1", "encoder_2", "decoder_1", "decoder_2")
        assert model.silent_units(x) == dict.fromkeys(layers, 0.0)
        model.reader_bias[:3] = -100.0
        first = model.hidden_net[0][0]
        first.bias[:5] = -10.0
        first.bias[5], first.weight[5] = -1.0, 2.0  # above zero for all codes but 000
    model.train()
    shares = model.silent_units(x, torch.Generator().manual_seed(0))
    assert shares == dict(zip(layers, (3 / 8, 0.0, 5 / 8, 0.0), strict=True))
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())
    assert model.silent_units(x.select(torch.arange(2)))["encoder_1"] == 3 / 8
    assert TextVAE(K, 3, "e1", 0).silent_units(x) == {}
    assert set(TextVAE(K, 3, "e1", 1, width=8).silent_units(x)) == {"decoder_1"}


def test_log_partitions_survive_logits_beyond_the_range_of_exp(documents):
    x, dense = documents
    batch = next(Documents(x).batches(len(dense)))
    weight, bias = torch.zeros(K, 1), torch.linspace(-150, 150, K)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        got = code_costs(torch.zeros(1, len(dense), 1), weight, bias, batch, dtype)[0]
        torch.testing.assert_close(got.double(), dense_costs(bias.double(), dense), rtol=tolerance, atol=0)


def test_word_sums_are_a_product_with_a_gradient(documents):
    x, dense = documents
    table = torch.randn(K, 3, requires_grad=True)
    got = word_sums(table, next(Documents(x).batches(len(dense))))
    torch.testing.assert_close(got, dense.float() @ table, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(got)
    got.backward(upstream)
    torch.testing.assert_close(table.grad, dense.float().T @ upstream, rtol=1e-5, atol=1e-5)


def test_listed_codes_through_hidden_layers_need_the_dense_form(documents):
    x, dense = documents
    batch = next(Documents(x).batches(len(dense)))
    h = torch.randn(len(dense), 3, requires_grad=True)
    with pytest.raises(ValueError, match="dense form"):
        code_table(h, torch.randn(K, 3), torch.zeros(K), batch).sum().backward()


def test_batches_of_shuffled_documents_are_the_documents(documents):
    x, dense = documents
    order = torch.randperm(len(dense), generator=torch.Generator().manual_seed(0))
    again = torch.randperm(len(dense), generator=torch.Generator().manual_seed(1))
    shuffled = Documents(x, torch.float32).shuffled(order).shuffled(again)
    batches = list(shuffled.batches(16))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    wanted = dense[order][again].float()
    torch.testing.assert_close(torch.cat([batch.dense for batch in batches]), wanted)
    eye = torch.eye(K)
    torch.testing.assert_close(torch.cat([batch.sums(eye) for batch in batches]), wanted)
    torch.testing.assert_close(torch.cat([batch.length for batch in batches]), wanted.sum(1))


def test_some_documents_may_be_picked_and_repeated(documents):
    x, dense = documents
    order = torch.tensor([7, 3, 3, 0, 11])
    batches = list(Documents(x).shuffled(order).batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    torch.testing.assert_close(torch.cat([batch.sums(torch.eye(K)) for batch in batches]), dense[order].float())


def test_the_divergence_is_that_of_the_family_with_both_derivatives():
    eta = torch.tensor([[0.0, 1e-8, -3.0], [20.0, -40.0, 1.5]], dtype=torch.float64, requires_grad=True)
    found = []
    for value in (divergence(eta), 3 * math.log(2) - Bernoulli(eta).entropy()):
        (grad,) = torch.autograd.grad(value.sum(), eta, create_graph=True)
        found.append((value, grad, *torch.autograd.grad(grad.sum(), eta)))
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


def test_an_empty_document_is_named(documents):
    raw = WordCounts.from_dense(torch.tensor([[1, 2], [0, 0]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="document 1 has no word"):
        Documents(raw)
    with pytest.raises(ValueError, match="got none"):
        Documents(raw.select(torch.tensor([], dtype=torch.int64)))


@pytest.mark.parametrize("encoder", ["e1", "e2", "e3"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_nelbo_is_its_definition(documents, encoder, depth):
    """Against an enumeration of the codes in float64 that uses neither sparse nor fused parts."""
    x, dense = documents
    torch.manual_seed(1)
    model = TextVAE(K, 3, encoder, depth, width=6)
    batch = next(Documents(x, torch.float32).batches(len(dense)))
    nelbo, kl = model.nelbo(batch, Exact())
    codes = all_bits(3)
    model.double()
    seen = dense if encoder == "e1" else dense / dense.sum(1, keepdim=True)
    eta = model.code_net(seen @ model.reader + model.reader_bias)
    log_q = codes @ torch.nn.functional.logsigmoid(eta).T + (1 - codes) @ torch.nn.functional.logsigmoid(-eta).T
    costs = dense_costs(model.decode(codes)[:, None], dense)
    wanted_kl = (log_q.exp() * (log_q + 3 * math.log(2))).sum(0)
    torch.testing.assert_close(kl.double(), wanted_kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(nelbo.double(), (log_q.exp() * costs).sum(0) + wanted_kl, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.float().encode(x), eta.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimator", [ARM(40), DisARM(40)])
@pytest.mark.parametrize("depth", [0, 1])
def test_sampled_gradients_agree_with_enumerated_ones(documents, estimator, depth):
    """All parameters, by z-scores over repetitions; the listed codes and the sampled ones take different paths."""
    x, dense = documents
    torch.manual_seed(2)
    model = TextVAE(K, 3, "e1", depth, width=4)
    batch = next(Documents(x, torch.float32).batches(len(dense)))

    def gradient(how, generator=None):
        model.zero_grad()
        model.nelbo(batch, how, generator)[0].mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]).double()

    wanted = gradient(Exact())
    generator = torch.Generator().manual_seed(5)
    draws = torch.stack([gradient(estimator, generator) for _ in range(60)])
    error = draws.std(0) / 60**0.5
    z = ((draws.mean(0) - wanted) / error.clamp_min(1e-4))[error > 1e-7]
    assert z.abs().max() < 5.5
    assert z.square().mean() < 1.6


def test_listed_codes_change_no_cost(documents):
    x, dense = documents
    torch.manual_seed(0)
    model = TextVAE(K, 4, "e1", 2, width=6)
    batch = next(Documents(x, torch.float32).batches(len(dense)))
    z = torch.randint(2, (3, len(dense), 4)).float()
    listed = model.costs(batch)(z)
    model.codes = None
    torch.testing.assert_close(listed, model.costs(batch)(z), rtol=1e-5, atol=1e-4)


@pytest.fixture
def corpora():
    made = synthetic_text(curved_law(K, 4, 10, 30), 150, 80)
    return Corpora(Documents(made.train, torch.float32), Documents(made.test))


def new_run(bits=4, seed=0, **options):
    torch.manual_seed(seed)
    return Run(TextVAE(K, bits, "e1"), seed, learning_rate=1e-2, **options)


PHASES = (Phase(4, DisARM()), Phase(2, ARM(3)))


def state_of(run):
    return run.model.state_dict(), run.best.state_dict(), run.curve


def test_training_lowers_the_nelbo_and_keeps_the_best(corpora):
    run = new_run()
    train_together([run], corpora, (Phase(40, DisARM()),), batch_size=32)
    curve = run.curve["nelbo_test"]
    assert min(curve) < curve[0] - 5
    estimate = [float(evaluate(run.best, corpora.test, torch.Generator().manual_seed(s))[0].mean()) for s in range(20)]
    assert sum(estimate) / 20 == pytest.approx(min(curve), abs=1.0)


def test_a_model_trained_with_others_is_the_one_trained_alone(corpora):
    alone = new_run()
    train_together([alone], corpora, PHASES, batch_size=32)
    others = [new_run(bits=3, seed=7), new_run()]
    train_together(others, corpora, PHASES, batch_size=32)
    torch.testing.assert_close(state_of(others[1]), state_of(alone), rtol=0, atol=0)


def test_a_killed_run_ends_like_one_that_was_not(corpora, tmp_path):
    whole = new_run()
    train_together([whole], corpora, PHASES, batch_size=32)

    class KilledError(Exception):
        pass

    def kill(epoch, epochs, runs):
        if epoch == 3:
            raise KilledError

    path = tmp_path / "run.safetensors"
    with pytest.raises(KilledError):
        train_together([new_run(checkpoint=path)], corpora, PHASES, batch_size=32, checkpoint_every=2, progress=kill)
    resumed = new_run(checkpoint=path)
    assert resumed.epoch == 2
    train_together([resumed], corpora, PHASES, batch_size=32)
    torch.testing.assert_close(state_of(resumed), state_of(whole), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="another configuration"):
        new_run(checkpoint=path, fingerprint="other")
    with pytest.raises(CheckpointError, match=r"of another architecture \(.* differs\): delete it"):
        Run(TextVAE(5, 2), checkpoint=path, fingerprint=resumed.fingerprint)
    # killed between the checkpoints of two runs of a group: the one behind catches up
    group = [new_run(), new_run(checkpoint=path)]
    train_together(group, corpora, PHASES, batch_size=32)
    for run in group:
        torch.testing.assert_close(state_of(run), state_of(whole), rtol=0, atol=0)


def test_nan_stops_the_training(corpora):
    run = new_run()
    with torch.no_grad():
        run.model.writer[0, 0] = math.nan
    sound = new_run(bits=3)
    with pytest.raises(TrainingError, match="the model: nelbo_train is nan in epoch 1: lower the learning rate"):
        train_together([run, sound], corpora, PHASES)
    assert (run.epoch, sound.epoch) == (0, 6)  # the others are not lost


def test_a_finite_nelbo_beyond_any_use_stops_the_training_too(corpora):
    run, sound = new_run(), new_run(bits=3)
    with torch.no_grad():
        run.model.writer_bias[0] = 1e6
    with pytest.raises(TrainingError, match=r"the model: nelbo_train is \d.* in epoch 1, beyond \d.*: lower the lea"):
        train_together([run, sound], corpora, PHASES)
    assert (run.epoch, sound.epoch) == (0, 6)
    # a model without codes, whose words are all as frequent, is well within
    with torch.no_grad():
        for weights in sound.model.parameters():
            weights.zero_()
    nelbo = float(evaluate(sound.model, corpora.train)[0].mean())
    assert nelbo == pytest.approx(corpora.train.uniform, rel=1e-5)


def test_the_seconds_of_an_epoch_are_shared_by_the_models_that_it_trains(corpora, monkeypatch):
    """An epoch of any models takes 12 seconds: those of all runs add up to those of the clock."""
    now = [5.0]

    class Passes:
        def epoch(self, active, estimator, order):
            now[0] += 12
            return torch.ones(len(active), len(corpora.figures))

    monkeypatch.setattr(training, "passes", lambda *_, **__: Passes())
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    runs = [new_run(seed=seed) for seed in range(3)]
    runs[2].epoch = 1  # resumed: it joins the others in the second epoch
    train_together(runs, corpora, (Phase(2, DisARM()),))
    assert [run.clock.seconds for run in runs] == [6 + 4, 6 + 4, 4]
    assert sum(run.clock.seconds for run in runs) == now[0] - 5


def test_one_test_document_cannot_select_for_itself(corpora):
    single = Corpora(corpora.train, Documents(synthetic_text(curved_law(K, 4, 10, 30), 10, 1).test))
    with pytest.raises(ValueError, match="at least 2 test documents, got 1"):
        train_together([new_run()], single, PHASES)


def _real_corpus_or_skip():
    root = os.environ.get("EFVAE_DATA")
    if not root or not (Path(root) / "20news").is_dir():
        pytest.skip("20 Newsgroups is not here: set EFVAE_DATA to the folder that holds 20news/")


def test_a_vocabulary_that_leaves_documents_without_a_word(capsys):
    _real_corpus_or_skip()
    for words in ([text.STEM, "--dry-run"], [text.STEM]):
        assert cli.main(["sweep", *words, "--grid", "corpus=20news", "vocabulary=1000", "epochs=1"]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "vocabulary=1000: training document " in line
        assert "has none of these words (2 such), and nothing could be learned from it: keep more words" in line


def test_the_collapsed_model_costs_what_the_unigram_law_does():
    """On the real corpus: 475.594 and 463.246 nats, computed here from the counts alone."""
    _real_corpus_or_skip()
    news = load_newsgroups()
    totals = news.train.word_totals() + news.train.n_documents * news.train.smoothing
    log_p = (totals / totals.sum()).log()
    model = TextVAE(news.train.n_words, 16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.writer_bias.copy_(log_p)
    for x, printed in ((news.train, 475.594), (news.test, 463.246)):
        nelbo, kl = evaluate(model, Documents(x))
        wanted = cross_entropy(x, log_p) + log_saturated(x)
        torch.testing.assert_close(nelbo.double(), wanted, rtol=1e-4, atol=1e-2)
        assert float(nelbo.mean()) == pytest.approx(printed, abs=2e-3)
        assert float(kl.abs().max()) < 1e-5


CONFIG = text.Config(
    corpus="curved",
    vocabulary=K,
    bits=3,
    epochs=3,
    epochs_many=0,
    samples_many=3,
    batch_size=64,
    precision="float32",
)


def test_a_cell_makes_a_record_once(tmp_path):
    record = text.run(CONFIG, results=tmp_path)
    assert record.metrics["nelbo_test"] == pytest.approx(min(record.curve["nelbo_test"]), abs=1e-3)
    assert record.metrics["nelbo_test_base"] > record.metrics["nelbo_test"]
    again = text.run(CONFIG, results=tmp_path)
    assert again.provenance == record.provenance  # read, not computed
    assert records.same(text.run(CONFIG), record)


def test_cells_trained_together_are_recorded_one_by_one(tmp_path, monkeypatch):
    configs = [dataclasses.replace(CONFIG, encoder=encoder) for encoder in ("e1", "e3")]
    measure, measured = text._trained, []

    def killed_in_the_second(config, *rest):
        measured.append(config.encoder)
        if len(measured) > 1:
            raise KeyboardInterrupt
        return measure(config, *rest)

    monkeypatch.setattr(text, "_trained", killed_in_the_second)
    for train in (text.run_together, text.solve):
        measured.clear()
        folder = tmp_path / train.__name__
        with pytest.raises(KeyboardInterrupt):
            train(configs, results=folder)
        assert measured == ["e1", "e3"]
        assert [record.config["encoder"] for record in records.load(text.STEM, folder)] == ["e1"]


def test_the_second_part_continues_the_first(tmp_path):
    both = dataclasses.replace(CONFIG, epochs_many=2)
    whole = text.run(both)
    text.run(CONFIG, checkpoint=tmp_path)
    assert records.same(text.run(both, checkpoint=tmp_path), whole)
    with pytest.raises(ValueError, match="has 5 epochs, more than the 3"):
        text.run(CONFIG, checkpoint=tmp_path)
    other = dataclasses.replace(both, samples_many=4)
    assert text.run(other, checkpoint=tmp_path).metrics != whole.metrics  # a checkpoint of its own
    assert len(list(tmp_path.iterdir())) == 2


def test_cells_together_give_the_records_of_cells_alone(tmp_path):
    configs = [CONFIG, dataclasses.replace(CONFIG, encoder="e2", d_hidden=1, width=8)]
    both = text.run_together(configs, results=tmp_path)
    for config, record in zip(configs, both, strict=True):
        assert records.same(text.run(config), record)
    with pytest.raises(ValueError, match="must agree"):
        text.run_together([CONFIG, dataclasses.replace(CONFIG, seed=1)])


def test_the_best_epochs_are_those_of_the_definition(monkeypatch):
    """With a rate so high that the order of the epochs is none: by hand from the curve, and from the kept model."""
    monkeypatch.setattr(text, "CURVE_POINTS", 1000)
    told_apart = []
    for seed in range(3):
        config = dataclasses.replace(CONFIG, learning_rate=1.0, epochs=40, seed=seed)
        record = text.solve([config])[0].record
        curve, m = record.curve, record.metrics
        even, odd, test = curve["nelbo_test_even"], curve["nelbo_test_odd"], curve["nelbo_test"]
        best = test.index(min(test))
        by_hand = (even[odd.index(min(odd))] + odd[even.index(min(even))]) / 2
        assert m["nelbo_test_cross"] == pytest.approx(by_hand, abs=2e-3)
        assert m["epoch_test"] == best + 1
        assert m["kl_test"] == pytest.approx(curve["kl_test"][best], abs=1e-3)
        assert m["nelbo_train"] == pytest.approx(min(curve["nelbo_train"]), abs=1e-3)
        assert -m["elbo_test"] == pytest.approx(test[best], abs=0.2)  # of the model at that epoch, codes enumerated
        made = text.corpus(config)
        for split in ("train", "test"):
            floor = float(base_measure_floor(getattr(made, split)).mean())
            assert m[f"nelbo_{split}_base"] - m[f"nelbo_{split}"] == pytest.approx(floor, abs=1e-6)
        halves_disagree = m["nelbo_test_cross"] > (min(even) + min(odd)) / 2 + 0.05
        told_apart.append((halves_disagree, test[-1] > test[best] + 0.5))
    assert all(map(any, zip(*told_apart, strict=True)))  # or the assertions above would hold for the last epoch, too


def test_held_out_documents_select_the_epoch(monkeypatch):
    monkeypatch.setattr(text, "CURVE_POINTS", 1000)
    told_apart = []
    for seed in range(3):
        config = dataclasses.replace(CONFIG, held_out=20, epochs=40, learning_rate=0.3, seed=seed)
        solved = text.solve([config])[0]
        curve, m = solved.record.curve, solved.record.metrics
        best = curve["nelbo_held_out"].index(min(curve["nelbo_held_out"]))
        assert m["epoch_held_out"] == best + 1
        assert m["nelbo_test_held_out"] == pytest.approx(curve["nelbo_test"][best], abs=1e-3)
        assert m["kl_test_held_out"] == pytest.approx(curve["kl_test"][best], abs=1e-3)
        assert -m["elbo_test"] == pytest.approx(curve["nelbo_test"][best], abs=0.2)
        assert solved.train.n_documents == 1980
        floor = float(base_measure_floor(solved.train).mean())
        assert m["nelbo_train_base"] - m["nelbo_train"] == pytest.approx(floor, abs=1e-6)
        told_apart.append(curve["nelbo_test"][best] > min(curve["nelbo_test"]) + 0.02)
    assert any(told_apart)
    monkeypatch.setattr(text, "train_together", lambda *_, **__: pytest.fail("trained"))
    for aside, line in ((2000, "must be less than the 2000"), (1901, "leaves 99 of 2000 .* hold out at most 1900")):
        for refuse in (lambda config: text.solve([config]), text.check):
            with pytest.raises(ValueError, match=f"held_out.*{line}"):
                refuse(dataclasses.replace(CONFIG, held_out=aside))


def test_without_hidden_units_their_kind_is_no_other_cell(tmp_path):
    linear = dataclasses.replace(CONFIG, encoder="e1", d_hidden=0)
    record = text.run(linear, results=tmp_path)
    other = dataclasses.replace(linear, width=9, activation="leaky_relu")
    assert text.run(other, results=tmp_path).provenance == record.provenance  # read, not computed
    assert text.needed(dataclasses.replace(other, encoder="e2")).width == 9
    assert [records.same(each, record) for each in text.run_together([linear, other])] == [True, True]
    with pytest.raises(ValueError, match="the same one is given twice"):
        text.solve([linear, other])


def test_values_may_matter_to_one_grid_of_a_sweep_only():
    found = experiment(text.STEM)
    grids = [{"encoder": ["e1"], "d_hidden": ["0"]}, {"encoder": ["e2"], "d_hidden": ["0", "2"]}]
    words = ["activation=relu,leaky_relu", "seed=0:1", "epochs=9,9"]
    assert len(cells_of(found, grids, words)) == 1 + 4
    with pytest.raises(UsageError, match="several values of 'activation', on which no record here depends: give one"):
        cells_of(found, grids[:1], words)


def test_a_made_corpus_of_too_many_words_is_refused_before_it_is_made(monkeypatch, capsys):
    monkeypatch.setattr(text, "curved_law", lambda _: pytest.fail("made"))
    words = ["sweep", text.STEM, "--dry-run", "--grid", "corpus=curved", "vocabulary=300000000"]
    assert cli.main(words) == 2
    line = "vocabulary must be at most 61188 with corpus=curved; got 300000000"
    assert line in capsys.readouterr().err


def test_a_cell_that_fails_takes_no_other_with_it(tmp_path):
    wild = dataclasses.replace(CONFIG, learning_rate=1e30, encoder="e2", width=8)
    with pytest.raises(TrainingError, match=r"encoder-e2.* is (nan|inf) in epoch \d"):
        text.run_together([wild, CONFIG], results=tmp_path)
    assert len(list((tmp_path / text.STEM).glob("*.json"))) == 1
    assert records.same(text.run(CONFIG, results=tmp_path), text.run(CONFIG))


@pytest.mark.parametrize(
    ("bits", "d_hidden", "estimator", "device", "left"),
    [
        (40, 0, "arm", "cpu", ["9.0", "8.0", "4.0", "0.0"]),  # a step takes two pairs beside its codes
        (16, 1, "arm", "cpu", ["15.0", "14.0", "7.0", "0.0"]),  # and half a pair without compiled loops
        (16, 0, "arm", "cuda", ["21.0", "20.0", "10.0", "0.0"]),
        (9, 0, "arm", "cpu", ["3.0", "2.0", "1.0", "0.0"]),  # one table of all codes in either part
        (16, 0, "exact", "cpu", ["3.0", "2.0", "1.0", "0.0"]),
        (6, 1, "arm", "cpu", ["3.0", "2.0", "1.0", "0.0"]),  # all codes are listed in any case
    ],
)
def test_the_time_left_counts_pairs_of_codes(monkeypatch, bits, d_hidden, estimator, device, left):
    lines: list[str] = []
    monkeypatch.setattr(text.compiled, "available", lambda where: where.type == "cpu")
    config = dataclasses.replace(
        CONFIG, bits=bits, d_hidden=d_hidden, estimator=estimator, batch_size=256, epochs=2, epochs_many=2,
        samples_many=10,
    )  # fmt: skip
    many = 30 * (float(left[1]) - float(left[2]))  # half of what is expected of an epoch in the second part
    clock = iter([0.0, 60.0, 120.0, 120.0 + many, 120.0 + 2 * many])
    monkeypatch.setattr(text.time, "monotonic", lambda: next(clock))
    report = text._reporter(config, lines.append, torch.device(device))
    run = type("Run", (), {"curve": {"nelbo_train": [1.0], "nelbo_test": [1.0]}})
    for epoch in (1, 2, 3, 4):
        report(epoch, 4, [run])
    left[2:] = [f"{float(minutes) / 2:.1f}" for minutes in left[2:]]  # the second part is measured by itself
    assert [line.split()[-3] for line in lines] == left
    may_be_less = device == "cpu" and float(left[0]) > 3  # several pairs may have few different codes
    assert ["at most" in line for line in lines] == [may_be_less, may_be_less, False, False]


def test_what_cannot_be_used_or_written_is_one_line_and_exit_code_2(tmp_path, capsys):
    words = [f"{name}={value}" for name, value in dataclasses.asdict(CONFIG).items()]
    options = ["--results", str(tmp_path / "results"), "--checkpoint", str(tmp_path / "checkpoints")]
    assert records.main(text.Config, text.run, [*words, *options]) == 0
    (path,) = (tmp_path / "checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    capsys.readouterr()
    assert records.main(text.Config, text.run, [*words, *options, "--refresh"]) == 2
    assert "is damaged" in capsys.readouterr().err
    (tmp_path / "file").touch()
    options[3] = str(tmp_path / "file" / "below")  # no folder can be made there
    assert records.main(text.Config, text.run, [*words, *options, "--refresh"]) == 2
    assert "below: Not a directory; name a folder that can be written" in capsys.readouterr().err.splitlines()[-1]
    assert (
        records.main(text.Config, text.run, [*(w for w in words if not w.startswith("seed=")), f"seed={10**30}"]) == 2
    )
    assert "seed must be below 2**31" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9, "estimator": "exact", "d_hidden": 1}, "bits must be at most 8 with d_hidden=1; got 9"),
        ({"bits": 10**9}, "bits must be at most 2048"),
        ({"bits": 0}, "bits must be a whole number of at least 1; got 0"),
        ({"encoder": "e4"}, "encoder must be one of e1, e2, e3; got 'e4'"),
        ({"d_hidden": 3}, "d_hidden must be 0, 1 or 2"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"corpus": "reuters"}, "corpus must be one of 20news"),
    ],
)
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_clipped_step_has_the_direction_of_the_gradient_and_the_norm_that_is_allowed(documents):
    x, _ = documents
    batch = next(Documents(x).batches(64))

    def step(clip: float) -> torch.Tensor:
        torch.manual_seed(0)
        run = Run(TextVAE(K, 4, "e2", 0, width=6), clip=clip)
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=1e-3)
        before = torch.nn.utils.parameters_to_vector(run.model.parameters()).detach().clone()
        descend(run, batch, ARM(1))
        return (torch.nn.utils.parameters_to_vector(run.model.parameters()).detach() - before) / -1e-3

    whole = step(0.0)
    torch.testing.assert_close(step(2 * float(whole.norm())), whole)
    half = float(whole.norm()) / 2
    torch.testing.assert_close(step(half), whole / 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("clip", [-1.0, math.nan, math.inf])
def test_a_norm_that_is_no_bound_is_refused(clip):
    with pytest.raises(ValueError, match=r"clip must be a (finite )?number"):
        dataclasses.replace(CONFIG, clip=clip)


def test_a_model_tells_documents_of_another_vocabulary(documents):
    x, _ = documents
    model, rbm = TextVAE(K + 1, 3), TextRBM.initial(torch.full((K + 1,), 1 / (K + 1)), 3, torch.Generator())
    for call in (model.encode, model.begin_at, model.silent_units, rbm.encode, rbm.nll):
        with pytest.raises(ValueError, match=f"the model has {K + 1} words, the documents {K}"):
            call(x)
    for sizes, line in (((2.5, 3), "n_words .* at least 2, got 2.5"), ((K, 0), "bits .* at least 1, got 0")):
        with pytest.raises(ValueError, match=line):
            TextVAE(*sizes)
    with pytest.raises(ValueError, match=r"width must be a whole number of at least 1, got 0"):
        TextVAE(K, 3, width=0)


def test_training_refuses_what_would_train_nothing(documents):
    x, _ = documents
    corpora = Corpora(Documents(x), Documents(x))
    run = Run(TextVAE(K, 3))
    for options, line in (
        ({"batch_size": -5}, "batch_size must be a whole number of at least 1, got -5"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=line):
            train_together([run], corpora, [Phase(1, DisARM())], **options)
    with pytest.raises(ValueError, match="expected at least one model to train, got none"):
        train_together([], corpora, [Phase(1, DisARM())])
    with pytest.raises(ValueError, match="epochs must be a whole number of at least 0, got -1"):
        Phase(-1, DisARM())
    with pytest.raises(ValueError, match=r"expected an estimator, got the class DisARM: write DisARM\(\)"):
        Phase(1, DisARM)
    with pytest.raises(ValueError, match=r"test must be Documents, got WordCounts: write Documents\(test\)"):
        Corpora(Documents(x), x)
    with pytest.raises(ValueError, match=r"expected an estimator such as DisARM\(1\), got None"):
        Phase(3, None)
    for clip in (-1, math.nan):
        with pytest.raises(ValueError, match="clip must be a norm, at least 0"):
            Run(TextVAE(K, 3), clip=clip)
    other = synthetic_text(curved_law(K + 1, 4, 10, 30), 20, 20).train
    with pytest.raises(ValueError, match=rf"vocabularies of different sizes: \[{K}, {K + 1}\]"):
        Corpora(Documents(x), Documents(other))
    with pytest.raises(ValueError, match=f"the model has {K + 1} words, the documents {K}"):
        train_together([Run(TextVAE(K + 1, 3))], corpora, [Phase(1, DisARM())])
    with pytest.raises(ValueError, match="aside must be a whole number of at least 0, got -5"):
        hold_out(x, -5)
    assert run.epoch == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": lambda x: -x.counts}, "counts must be positive whole numbers, got some from -"),
        ({"counts": lambda x: x.counts / 2}, "counts must be positive whole numbers, got some from 0.5"),
        ({"counts": lambda x: x.counts * math.nan}, "counts must be positive whole numbers, got some from nan"),
        ({"indices": lambda x: x.indices.clone().index_fill_(0, torch.tensor([1]), int(x.indices[0]))}, "each once"),
        ({"indices": lambda x: x.indices.flip(0)}, "words of a document must ascend"),
        ({"indptr": lambda x: x.indptr + 1}, "row bounds must not fall, from 0 to the .* entries; got 1 first"),
        ({"indptr": lambda x: x.indptr.flip(0)}, "row bounds must not fall"),
    ],
)
def test_counts_that_are_none_are_refused(documents, change, message):
    x, dense = documents
    (name, made), *_ = change.items()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(x, **{name: made(x)})
    # documents without a word, at all places
    sparse = dense - x.smoothing
    sparse[[0, 1, 7, -1]] = 0
    again = WordCounts.from_dense(sparse.round(), x.labels)
    assert again.empty().tolist() == [0, 1, 7, len(sparse) - 1]


def test_documents_are_selected_by_number_or_by_a_mask(documents):
    x, dense = documents
    mask = torch.arange(x.n_documents) % 2 == 1
    assert torch.equal(x.select(mask).dense(torch.float64), dense[mask])
    assert torch.equal(x.select(mask).labels, x.labels[mask])
    for rows in ([-2], [x.n_documents], [0, -1]):
        with pytest.raises(ValueError, match=f"rows must be numbers of the {x.n_documents} documents, from 0 on"):
            x.select(torch.tensor(rows))
    with pytest.raises(ValueError, match=r"or a mask of all 40; got torch.bool of shape \(2,\)"):
        x.select(torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"or a mask of all 40; got torch.bool of shape \(40, 1\)"):
        x.select(mask[:, None])
    assert x.select(torch.tensor([], dtype=torch.int64)).n_documents == 0
