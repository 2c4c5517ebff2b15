"""The benchmark of cells together and one after the other: both train the same, and times are told apart as it says.

Labels: own-accelerator, own-text-training.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import text_accelerator, text_together
from benchmarks.text_together import FIRST, STEM, depth_figures, main
from efvae import devices, records, text_table
from efvae.data.newsgroups import FILES
from efvae.text.training import train_together
from tests.pretend import pretended_gpu
from tests.test_devices import needs_gpu
from tests.test_text_accelerator import Counted

FIGURES = {
    "protocol_together", "protocol_alone", "nelbo_apart", "rounds",
    *(f"share_{pairs}{end}" for pairs in (1, 10) for end in ("", "_low", "_high")),
    *(f"seconds_{pairs}_{way}" for pairs in (1, 10) for way in ("together", "alone")),
    *(f"prepared_{pairs}_{way}" for pairs in (1, 10) for way in ("together", "alone", "first")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    """Fewer cells, whose codes are listed in one half of them."""
    monkeypatch.setattr(text_table, "BITS", (4, 10))
    monkeypatch.setattr(text_together, "ENCODERS", ("e1", "e2"))
    monkeypatch.setattr(text_together, "TABLE", text_together.REHEARSAL)
    monkeypatch.setattr(text_accelerator, "OFTEN", 1)
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))


@pytest.fixture
def trained(monkeypatch):
    """Names of the cells in each training, and their epochs after it."""
    calls = []

    def spy(runs, *args, **options):
        train_together(runs, *args, **options)
        calls.append([(run.name, run.epoch) for run in runs])

    monkeypatch.setattr(text_together, "train_together", spy)
    return calls


def test_cells_reach_the_same_together_and_alone(trained, monkeypatch):
    found = depth_figures(2, 2, 1)
    assert found.keys() == FIGURES
    assert found["nelbo_apart"] == 0
    names = [name for name, _ in trained[0]]
    assert len(set(names)) == 4
    for number in (1, 2):
        done = 2 * number * (FIRST + 1)
        assert trained[5 * number - 5] == [(name, done) for name in names]
        assert trained[5 * number - 4 : 5 * number] == [[(name, done)] for name in names]

    begin, seeds = text_together.begin, iter((0, 1))

    def other(configs, *rest):
        seed = next(seeds)
        return begin([replace(config, seed=seed) for config in configs], *rest)

    monkeypatch.setattr(text_together, "begin", other)
    assert depth_figures(2, 1, 1)["nelbo_apart"] > 1e-4


def test_first_epochs_are_told_apart(monkeypatch):
    """By a clock that goes on by 1 and twice the cells in an epoch, ten times as far with ten pairs."""
    now, calls = [0.0], []
    monkeypatch.setattr(text_together, "clock", lambda: now[0])

    def stand_in(runs, corpora, phases, *, progress, **_):
        calls.append(len(runs))
        number = sum(n == len(runs) for n in calls)
        slower = number if len(runs) > 1 else 1  # each round together takes longer than the one before
        for run in runs:
            run.curve["nelbo_train"] = [1.0]
        for phase in phases[-2:]:
            for epoch in range(phase.epochs):
                now[0] += phase.estimator.samples * slower * (1 + 2 * len(runs)) + (
                    100 / number if epoch < FIRST else 0
                )
                progress(epoch, phase.epochs, runs)

    monkeypatch.setattr(text_together, "train_together", stand_in)
    found = depth_figures(0, 3, 4)
    assert (found["seconds_1_together"], found["seconds_1_alone"]) == pytest.approx((2 * 9, 4 * 3))
    assert (found["seconds_10_together"], found["seconds_10_alone"]) == pytest.approx((180, 120))
    assert [found[f"share_10{end}"] for end in ("_low", "", "_high")] == pytest.approx([9 / 12, 18 / 12, 27 / 12])
    assert (found["prepared_1_first"], found["prepared_10_together"]) == pytest.approx((200, 100))
    assert found["protocol_together"] == pytest.approx(1000 * 18 + 500 * 180 + 200)


def test_rates_are_of_the_operations_that_are_timed(monkeypatch):
    """Two seconds for each work, whatever it is; three products of each kind, once each in both rounds."""
    precisions = []

    def timed(work):
        precisions.append(torch.get_float32_matmul_precision())
        work()
        return 2.0

    monkeypatch.setattr(text_accelerator, "timed", timed)
    with Counted() as counted:
        found = text_accelerator.rates(64, 8, 30, 1)
    assert (found.bf16, found.tf32, found.float32) == (64 * 8 * 30,) * 3
    assert counted.products == {torch.bfloat16: 2 * 3 * 2 * found.bf16, torch.float32: 2 * 3 * 2 * 2 * found.bf16}
    assert precisions[:18] == ["high"] * 12 + ["highest"] * 6
    assert found.bytes == 5 * 64 * 30 * 4  # read, and written, in two seconds


def test_on_a_device_it_waits_and_the_record_says_what_it_is_of(trained, monkeypatch, tmp_path, capsys):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    # which knows no autocast
    monkeypatch.setattr(text_together, "TABLE", {**text_together.REHEARSAL, "precision": "float32"})
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(devices, "find", torch.device)
        main(["rates", "depth-1", "--device", "gpu", "--rounds", "1", "--epochs", "1", "--record"])
    rates, depth = sorted(records.load(STEM, tmp_path), key=lambda record: record.config["part"], reverse=True)
    assert rates.metrics.keys() == {"bf16", "tf32", "float32", "memory"}
    assert depth.metrics.keys() == FIGURES
    assert depth.metrics["nelbo_apart"] < 1e-6
    assert {len(names) for names in trained} == {4, 1}
    for record in (rates, depth):
        assert record.provenance["device"] == record.config["device"] == "gpu"
        assert record.provenance["data_sha256"] is None  # a corpus made on the spot
    assert set(waited) == {torch.device("gpu")}
    assert len(waited) == 2 * 2 * (3 * 3 + 1) + 5 * (1 + 2 * (FIRST + 1))  # rates; at the start and after each epoch
    shown = capsys.readouterr().out
    assert f"at {rates.metrics['bf16']:.4g} (bfloat16)" in shown
    assert "s by the clock" in shown.splitlines()[-1]


def test_without_a_device_or_data_it_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main(["--device", "cuda"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: device cuda is not there")
    monkeypatch.setattr(text_together, "TABLE", {})
    monkeypatch.setenv("EFVAE_DATA", str(tmp_path))
    monkeypatch.setattr(devices, "find", torch.device)
    with pretended_gpu(monkeypatch), pytest.raises(SystemExit, match="2"):
        main(["depth-0", "--device", "gpu"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for words, told in ((["depth-3"], "unknown part 'depth-3'"), (["--epochs", "0"], "must be at least 1")):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert told in capsys.readouterr().err


def test_on_a_device_it_is_the_table(monkeypatch):
    monkeypatch.undo()
    for depth in text_table.DEPTHS:
        monkeypatch.setattr(devices, "current", lambda: torch.device("cuda"))
        configs = text_together.cells(depth)
        assert configs == [text_table.config((bits, depth, e)) for bits in (8, 16, 32, 64) for e in ("e1", "e2", "e3")]
        assert {text_together.data_sha256(config) for config in configs} == {FILES.sha256}
    monkeypatch.undo()
    assert {config.vocabulary for config in text_together.cells(0)} == {40}


@needs_gpu
def test_on_cuda_cells_reach_the_same_together_and_alone():
    with devices.on("cuda"):
        found = depth_figures(2, 2, 2)
    assert found["nelbo_apart"] < 0.02
    assert min(found[name] for name in FIGURES if name.startswith("seconds")) > 0
    assert found["prepared_1_first"] > 0
