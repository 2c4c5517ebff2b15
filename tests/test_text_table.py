"""Table 2 from records of the whole training: means and verdicts by hand, conclusions as paired differences.

Labels: tab-2, own-text-table, own-text-claims.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from pathlib import Path

import pytest

from efvae import records, scoreboard, text_claims, text_table
from efvae.experiments import text_rbm
from efvae.experiments.text import STEM
from efvae.text_claims import CLAIMS, compare
from efvae.text_table import Entry, cells_of, entries, printed, verdict, where


def store(root: Path, cell, train: float, test: float, *, kl: float = 5.0, **changes) -> None:
    config = dataclasses.replace(text_table.config(cell), **changes)
    metrics = {"nelbo_train": train, "nelbo_test": test, "kl_test": 5.0}  # there, at the epoch that is best on test
    records.write(records.make(STEM, config, metrics, {"kl_test": [1.0, kl]}, seconds=0), root)


@pytest.fixture(scope="module")
def paper():
    return printed()


def test_the_printed_table_is_read_whole(paper):
    assert len(paper) == 72
    assert paper["train", (8, 0, "e1")] == 419
    assert paper["test", (64, 2, "e3")] == 422
    assert paper["test", (16, 1, "e2")] == 422
    assert paper["test", (16, 1, "e3")] == 420


def test_rows_of_the_scoreboard_ask_for_the_whole_training():
    full = {(t.where, t.metric) for t in scoreboard.targets() if t.item == "tab-2"}
    cells = list(cells_of(Path("nowhere")))
    assert len(cells) == 36
    assert full == {(where(cell), metric) for cell in cells for metric in ("nelbo_train", "nelbo_test")}
    assert all("epochs=1000;epochs_many=500;samples_many=10;" in asked for asked, _ in full)


def test_fits_without_an_encoder_are_taken_by_prior_and_bits_if_of_the_size_of_the_table():
    def fit(**changes) -> records.Record:
        config = dataclasses.replace(text_rbm.Config(bits=8, prior="own", vocabulary=10000), **changes)
        return records.make(text_rbm.STEM, config, {"nll_test": 1.0}, {}, seconds=0)

    wanted = [fit(seed=1), fit(seed=0), fit(seed=0, prior="uniform"), fit(seed=2, epochs=text_rbm.Config().epochs - 1)]
    others = [fit(vocabulary=300), fit(batch_size=32), fit(held_out=100), fit(corpus="curved")]
    found = text_table.direct_fits([*others, *wanted])
    assert set(found) == {("own", 8), ("uniform", 8)}
    assert [r.config["seed"] for r in found["own", 8]] == [2, 0, 1]  # epochs before seeds


def test_a_record_tells_its_cell(tmp_path):
    for cell in ((8, 0, "e1"), (64, 2, "e3")):
        store(tmp_path, cell, 1, 1)
        assert text_table.cell_of(cells_of(tmp_path)[cell][0]) == cell


def test_a_filter_finds_the_records_of_a_cell_and_nothing_else(tmp_path):
    cell = (16, 0, "e2")
    store(tmp_path, cell, 1, 1, seed=0)
    store(tmp_path, cell, 2, 2, seed=1)
    others = {"epochs_many": 0, "estimator": "disarm", "held_out": 500, "precision": "float32", "corpus": "curved",
              "first_bias": "frequencies", "first_weights": "he", "activation": "leaky_relu", "clip": 1.0,
              "samples_many": 5, "vocabulary": 5000, "learning_rate": 1e-2}  # fmt: skip
    for name, value in others.items():
        store(tmp_path, cell, 9, 9, **{name: value})
    assert [r.metrics["nelbo_test"] for r in cells_of(tmp_path)[cell]] == [1, 2]
    pairs = dict(pair.split("=") for pair in where(cell).split(";"))
    assert sorted(r.metrics["nelbo_test"] for r in records.load(STEM, tmp_path, **pairs)) == [1, 2]
    assert sum(map(len, cells_of(tmp_path).values())) == 2


@pytest.mark.parametrize(
    ("ours", "said"),
    [(400.0, "within 1 %"), (404.0, "within 1 %"), (396.0, "within 1 %"), (404.1, "within 3 %"), (388.0, "within 3 %"),
     (412.0, "within 3 %"), (412.1, "miss"), (387.9, "miss"), (None, "open")],
)  # fmt: skip
def test_verdicts_at_their_edges(ours, said):
    assert verdict(ours, 400.0) == said


def test_mean_over_seeds_and_a_deviation_from_three_on(tmp_path, paper):
    cell, numbers = (8, 0, "e1"), [420.0, 418.0, 425.0]
    for seed, number in enumerate(numbers):
        store(tmp_path, cell, number, number + 4, seed=seed)
        rows = entries(cells_of(tmp_path), paper)
        row = next(r for r in rows if (r.split, r.cell) == ("train", cell))
        assert row.values == tuple(numbers[: seed + 1])
        assert row.ours == statistics.fmean(numbers[: seed + 1])
        assert row.difference == row.ours - 419
        assert row.spread == (statistics.stdev(numbers) if seed == 2 else None)
    assert (len(rows), Counter(r.verdict for r in rows)["open"]) == (72, 70)
    shown = text_table.told(rows)
    assert "train     8       0       e1    419    421.0 ± 3.6        +2.0  within 1 %" in shown
    assert shown.endswith("within 1 %: 2, open, not run: 70 of 72")
    assert Entry("train", cell, 419, ()).difference is None


def test_claims_by_the_printed_numbers(paper):
    def signs(name):
        nothing = {cell: [] for cell in cells_of(Path("nowhere"))}
        return Counter(
            "fails" if c.paper > 0 else "tie" if c.paper == 0 else "holds"
            for c in compare(CLAIMS[name], nothing, paper)
        )

    assert signs("e1-e2") == {"holds": 24}
    assert signs("e2-e3") == {"holds": 23, "fails": 1}
    assert signs("linear") == {"holds": 11, "tie": 1}
    assert signs("overfit") == {"holds": 12}
    broken = next(c for c in compare(CLAIMS["e2-e3"], {}, paper) if c.paper > 0)
    assert (broken.of, broken.first, broken.paper) == ("test", (16, 1, "e2"), 2)
    assert all(c.paper is None for c in compare(CLAIMS["collapse"], {}, paper))


def test_the_table_in_the_papers_layout(tmp_path, paper):
    for seed, nelbo in ((0, 166.4), (1, 165.4)):
        store(tmp_path, (32, 2, "e1"), nelbo, 405.0, seed=seed)
    lines = text_table.laid_out(text_table.entries(cells_of(tmp_path), paper)).splitlines()
    assert [line for line in lines if line.endswith("layers of the decoder")] == [lines[0], lines[7]]
    train, test = lines[5].split(), lines[12].split()
    assert train == [
        "32",
        "337/",
        "–",
        "358/",
        "–",
        "412/",
        "–",
        "165/",
        "–",
        "189/",
        "–",
        "403/",
        "–",
        "132/166!",
        *train[14:],
    ]
    assert test[13] == "406/405"
    assert max(map(len, lines)) <= 88


def test_differences_are_paired_by_seed(tmp_path, paper):
    for seed, first, second in ((0, 410.0, 430.0), (1, 415.0, 433.0), (2, 400.0, None), (3, None, 900.0)):
        for encoder, number in (("e1", first), ("e2", second)):
            if number is not None:
                store(tmp_path, (32, 0, encoder), 1.0, number, seed=seed)
    found = compare(CLAIMS["e1-e2"], cells_of(tmp_path), paper)
    (test,) = [c for c in found if c.differences and c.of == "test"]
    assert test.differences == (-20.0, -18.0)
    assert (test.ours, test.spread, test.paper) == (-19.0, None, 396 - 413)
    assert text_claims.summary(found) == ("holds in 24 of 24", "holds in 1 of 2 (1 by t), tie in 1, open in 22")
    assert "test         32 bits, layers 0 e1 − 0 e2    -17          -19.0  holds" in text_claims.told(found)
    store(tmp_path, (32, 0, "e2"), 1.0, 417.0, seed=2)
    (test,) = [c for c in compare(CLAIMS["e1-e2"], cells_of(tmp_path), paper) if c.differences and c.of == "test"]
    assert test.spread == statistics.stdev([-20, -18, -17])


@pytest.mark.parametrize("differences", [(-3.0, -0.1), (-3.0, -2.9), (1.0, 2.0, 0.5), (1.0, 2.0, 1.5), (0.0, 0.0)])
def test_a_pair_is_decided_by_more_than_the_critical_number_of_standard_errors(differences):
    found = text_claims.Comparison("test", (8, 0, "e1"), (8, 0, "e2"), None, differences)
    critical = {2: 12.706, 3: 4.303}[len(differences)]  # of Student's t, two-sided at 5 %, from a printed table
    error = statistics.stdev(differences) / len(differences) ** 0.5
    assert found.decided == (abs(statistics.fmean(differences)) > critical * error)
    assert not text_claims.Comparison("test", (8, 0, "e1"), (8, 0, "e2"), None, differences[:1]).decided


def test_depth_claims_use_gap_between_splits_and_kl(tmp_path, paper):
    store(tmp_path, (64, 0, "e1"), 300.0, 390.0, kl=20.0)
    store(tmp_path, (64, 2, "e1"), 130.0, 400.0, kl=15.0)
    cells = cells_of(tmp_path)
    only = {name: [c.ours for c in compare(CLAIMS[name], cells, paper) if c.ours is not None] for name in CLAIMS}
    assert only == {"e1-e2": [], "e2-e3": [], "linear": [-10.0], "overfit": [90.0 - 270.0], "collapse": [5.0]}
    collapse = text_claims.summary(compare(CLAIMS["collapse"], cells, paper))
    assert collapse == ("prints no numbers", "holds in 0 of 1, fails in 1 (0 by t), open in 23")
    assert text_claims.summary(compare(CLAIMS["e1-e2"], cells, paper))[1] == "open, no pair run"
