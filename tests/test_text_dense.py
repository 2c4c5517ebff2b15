"""The fixed-shape way of an accelerator: the same gradients and figures as the sparse way, and no look at the device.

Labels: own-fused-multinomial, own-text-training.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from efvae import devices, records
from efvae.checkpoint import CheckpointError
from efvae.data.synthetic import curved_law, synthetic_text
from efvae.estimators import ARM, DisARM, Exact
from efvae.experiments import text
from efvae.text import compiled
from efvae.text.batches import Documents
from efvae.text.dense import DenseDocuments
from efvae.text.model import TextVAE
from efvae.text.passes import descend
from efvae.text.training import Corpora, Phase, Run, train_together
from tests.pretend import pretended_gpu
from tests.test_devices import needs_gpu

K = 60
PHASES = (Phase(3, DisARM()), Phase(2, ARM(3)))
#: Bits, encoder, depth: listed codes and others, all kinds of layers.
KINDS = [(4, "e1", 0), (10, "e2", 1), (10, "e3", 2), (4, "e2", 2), (10, "e1", 0)]


@pytest.fixture(scope="module")
def made():
    """Documents with smoothing; with batches of 32 the last one of the 150 is smaller."""
    f = torch.linspace(0, 0.02, K, dtype=torch.float64)
    corpus = synthetic_text(curved_law(K, 4, 10, 30), 150, 80)
    return tuple(dataclasses.replace(x, smoothing=f) for x in (corpus.train, corpus.test))


def corpora(made, kind, device="cpu", dtype=torch.float32):
    train, test = made
    return Corpora(
        kind(train, dtype, device), kind(test, None, device), kind(test.select(torch.arange(9)), None, device)
    )


def new_run(kind=KINDS[0], device="cpu", dtype=torch.float32, **options):
    torch.manual_seed(0)
    bits, encoder, depth = kind
    return Run(TextVAE(K, bits, encoder, depth, width=8, dtype=dtype).to(device), 0, learning_rate=1e-2, **options)


def train(runs, made, kind=DenseDocuments, device="cpu", dtype=torch.float32, **options):
    train_together(runs, corpora(made, kind, device, dtype), PHASES, batch_size=32, **options)
    return runs


def test_a_dense_batch_is_the_sparse_one(made):
    rows = torch.randperm(150, generator=torch.Generator().manual_seed(0))[:20]
    sparse = next(Documents(made[0], torch.bfloat16).shuffled(rows.repeat(1)).batches(20))
    dense = DenseDocuments(made[0], torch.bfloat16).batch(rows)
    table, values = torch.randn(K, 5), torch.randn(20, 5)
    assert len(dense) == len(sparse) == 20
    torch.testing.assert_close(dense.sums(table), sparse.sums(table), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dense.transposed(values), sparse.transposed(values), rtol=1e-5, atol=1e-5)
    for name in ("length", "saturated", "dense"):
        torch.testing.assert_close(getattr(dense, name), getattr(sparse, name), rtol=0, atol=0)
    whole = DenseDocuments(made[0])
    assert [len(batch) for batch in whole.batches(64)] == [64, 64, 22]
    torch.testing.assert_close(torch.cat([batch.x for batch in whole.batches(64)]), made[0].dense(), rtol=0, atol=0)


@pytest.mark.parametrize("estimator", [DisARM(), ARM(3), Exact()], ids=["disarm", "arm-3", "exact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_step_has_the_gradients_of_the_sparse_one(made, kind, dtype, estimator, monkeypatch):
    if isinstance(estimator, Exact) and kind[0] > 8 and kind[2]:
        return
    monkeypatch.setattr(compiled, "available", lambda _: False)  # whose products are in float32 whatever is asked for
    rows = torch.arange(150)[5:37]
    batches = [
        next(Documents(made[0], dtype).shuffled(rows).batches(32)),
        DenseDocuments(made[0], dtype).batch(rows),
    ]
    sums, gradients = [], []
    for batch in batches:
        run = new_run(kind, dtype=dtype)
        sums.append(descend(run, batch, estimator))
        gradients.append([parameter.grad for parameter in run.model.parameters()])
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-6, atol=1e-3)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2  # a logit that rounds to another bfloat16
    for mine, wanted in zip(*gradients, strict=True):
        assert (mine - wanted).norm() <= tolerance * wanted.norm()


def test_training_several_cells_is_that_of_the_sparse_way(made):
    """Five epochs with a smaller last batch, several models, two parts, held-out documents."""
    sparse = train([new_run(kind) for kind in KINDS], made, Documents)
    dense = train([new_run(kind) for kind in KINDS], made)
    for mine, wanted in zip(dense, sparse, strict=True):
        assert mine.curve.keys() == wanted.curve.keys()
        for name, values in wanted.curve.items():
            assert mine.curve[name] == pytest.approx(values, rel=1e-4)
    alone = train([new_run(KINDS[1])], made)[0]
    assert alone.curve == dense[1].curve
    torch.testing.assert_close(alone.best.state_dict(), dense[1].best.state_dict(), rtol=0, atol=0)


def test_a_killed_run_ends_like_one_that_was_not(made, tmp_path):
    class KilledError(Exception):
        pass

    def kill(epoch, epochs, runs):
        if epoch == 4:
            raise KilledError

    def runs():
        return [new_run(kind, checkpoint=tmp_path / f"{kind}.safetensors") for kind in KINDS[:2]]

    whole = train([new_run(kind) for kind in KINDS[:2]], made)
    with pytest.raises(KilledError):
        train(runs(), made, checkpoint_every=3, progress=kill)
    resumed = runs()
    assert [run.epoch for run in resumed] == [3, 3]
    for mine, wanted in zip(train(resumed, made), whole, strict=True):
        assert mine.curve == wanted.curve
        torch.testing.assert_close(mine.model.state_dict(), wanted.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kinds", "phases"),
    [(KINDS, PHASES), ([(4, "e2", 0), (9, "e1", 0), (10, "e3", 0)], (Phase(5, Exact()),))],
    ids=["pairs", "exact"],
)
def test_training_on_a_device_looks_at_it_once_an_epoch(made, monkeypatch, kinds, phases):
    here = [new_run(kind) for kind in kinds]
    train_together(here, corpora(made, DenseDocuments), phases, batch_size=32)
    with pretended_gpu(monkeypatch) as looks:
        documents = corpora(made, DenseDocuments, "gpu")
        runs = [new_run(kind, "gpu") for kind in kinds]
        del looks[:], looks.uploads[:]
        train_together(runs, documents, phases, batch_size=32)
        assert list(looks) == ["aten._to_copy.default"] * 5
        assert looks.uploads == ["aten.copy_.default"] * 5  # the order of the documents
        for run, wanted in zip(runs, here, strict=True):
            assert {value.device.type for value in run.model.state_dict().values()} == {"gpu"}
            assert {v.device.type for entry in run.optimizer.state.values() for v in entry.values()} == {"gpu"}
            for name, values in wanted.curve.items():
                assert run.curve[name] == pytest.approx(values, rel=1e-4)


CONFIG = text.Config(
    corpus="curved", vocabulary=K, bits=3, epochs=2, epochs_many=1, samples_many=3, batch_size=64, width=8,
    precision="float32",
)  # fmt: skip
#: Enumerated in full, in part, and estimated; linear and deep.
CELLS = [CONFIG] + [
    dataclasses.replace(CONFIG, bits=bits, encoder=encoder, d_hidden=depth)
    for bits, encoder, depth in ((10, "e3", 2), (17, "e2", 1), (18, "e1", 0))
]


def test_a_whole_cell_runs_on_a_device(tmp_path, monkeypatch):
    """Training, enumeration, annealing, retrieval: the figures of the CPU, from tensors that never mix."""
    wanted = text.solve(CELLS, progress=lambda line: None)
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(devices, "find", lambda name: torch.device("gpu"))
        found = text.solve(CELLS, tmp_path, lambda line: None, device="gpu")
        assert all(path.name.endswith(".gpu.safetensors") for path in tmp_path.iterdir())
    for mine, reference in zip(found, wanted, strict=True):
        assert mine.record.provenance["device"] == "gpu"
        assert (mine.record.cell, mine.record.config) == (reference.record.cell, reference.record.config)
        assert {value.device.type for value in mine.best.state_dict().values()} == {"cpu"}
        for name, value in reference.record.metrics.items():
            close = {"rel": 0.02} if name in ("codes_used", "ais_effective_test") else {"rel": 1e-3, "abs": 2e-3}
            assert mine.record.metrics[name] == (None if value is None else pytest.approx(value, **close)), name


def test_a_checkpoint_is_continued_on_the_same_kind_of_device(tmp_path):
    path = tmp_path / "run.safetensors"
    new_run(checkpoint=path, fingerprint="a cell cuda").save()
    with pytest.raises(CheckpointError, match="another configuration"):
        new_run(checkpoint=path, fingerprint="a cell")


def test_a_device_that_is_not_there_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = [f"{name}={value}" for name, value in dataclasses.asdict(CONFIG).items()]
    words += ["--results", str(tmp_path)]
    assert records.main(text.Config, text.run, [*words, "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: device cuda is not there")
    assert records.main(text.Config, text.run, [*words, "--device"]) == 2
    assert "--device needs a name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert records.main(text.Config, text.run, [*words, "--device", "auto"]) == 0
    shown = _help(capsys)
    assert "[--device NAME]" in shown
    assert "--device NAME      where to compute: cpu (default), cuda" in shown


def _help(capsys) -> str:
    capsys.readouterr()
    records.main(text.Config, text.run, ["--help"])
    return capsys.readouterr().out


@needs_gpu
def test_on_cuda_a_graph_gives_what_eager_steps_give(made):
    kinds = [(4, "e1", 0), (10, "e2", 1), (10, "e3", 2), (10, "e1", 0)]
    eager, replayed = (
        train([new_run(kind, "cuda", torch.bfloat16) for kind in kinds], made, device="cuda", dtype=torch.bfloat16,
              graph=graph)
        for graph in (False, True)
    )  # fmt: skip
    for mine, wanted in zip(replayed, eager, strict=True):
        for name, values in wanted.curve.items():
            assert mine.curve[name] == pytest.approx(values, rel=2e-3)
        assert mine.generator.get_state().equal(wanted.generator.get_state())


@needs_gpu
def test_on_cuda_a_killed_run_ends_like_one_that_was_not(made, tmp_path):
    path = tmp_path / "run.safetensors"
    whole = train([new_run(KINDS[1], "cuda")], made, device="cuda")[0]
    half = new_run(KINDS[1], "cuda", checkpoint=path)
    train_together([half], corpora(made, DenseDocuments, "cuda"), PHASES[:1], batch_size=32)
    resumed = train([new_run(KINDS[1], "cuda", checkpoint=path)], made, device="cuda")[0]
    for name, values in whole.curve.items():
        assert resumed.curve[name] == pytest.approx(values, rel=1e-4)


@needs_gpu
def test_on_cuda_36_cells_train_at_once_and_are_recorded(tmp_path):
    base = dataclasses.replace(CONFIG, width=32, precision="bfloat16")
    cells = [
        dataclasses.replace(base, bits=bits, encoder=encoder, d_hidden=depth)
        for bits in (8, 16, 32, 64)
        for encoder in ("e1", "e2", "e3")
        for depth in (0, 1, 2)
    ]
    found = text.run_together(cells, results=tmp_path, device="cuda", progress=lambda line: None)
    assert len(list((tmp_path / text.STEM).glob("*.json"))) == 36
    assert all(record.provenance["device"] == torch.cuda.get_device_name() for record in found)
    wanted = text.solve(cells[:1], progress=lambda line: None)[0].record
    assert found[0].metrics["nelbo_test"] == pytest.approx(wanted.metrics["nelbo_test"], rel=0.1)
