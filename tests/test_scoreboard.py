"""The scoreboard: all 82 printed numbers, verdicts by hand-made records, and a committed file that is up to date."""

import csv
import dataclasses
import shutil
import statistics
from collections import Counter
from pathlib import Path

import pytest

from efvae import cli, records, scoreboard
from efvae.experiments import artificial
from efvae.records import RecordError
from efvae.scoreboard import Target


@dataclasses.dataclass(frozen=True)
class Config:
    encoder: str = "factorized"
    seed: int = 0
    steps: int = 10


TARGET = Target("app-c1", "ELBO", "-3.70", "nats", "0.01", "sec9_test", "encoder=factorized", "elbo", "paper")


def store(root, elbo, **config) -> None:
    record = records.make("sec9_test", Config(**config), {"elbo": elbo}, {}, seconds=0)
    records.write(record, root)


def test_all_82_printed_numbers_are_listed():
    paper = [target for target in scoreboard.targets() if target.source == "paper"]
    assert Counter(target.item for target in paper) == {"app-c1": 4, "tab-1": 6, "tab-2": 72}
    assert len({(target.stem, target.where, target.metric) for target in paper}) == 82
    assert len({(target.item, target.quantity) for target in paper}) == 82


def test_printed_numbers_by_their_sums():
    # sums taken from the paper's tables by hand, row by row; a swapped digit shows here
    paper = [target for target in scoreboard.targets() if target.source == "paper"]
    assert [t.paper for t in paper if t.item == "app-c1"] == ["-3.65", "-3.74", "-3.70", "-3.68"]
    assert [t.paper for t in paper if t.metric == "elbo"] == ["-364513.78", "-5898.94", "9035.69"]
    assert [t.paper for t in paper if t.metric == "fid"] == ["0.13", "77.10", "117.87"]
    by_bits = {
        (metric, bits): sum(int(t.paper) for t in paper if t.metric == metric and f"bits={bits};" in t.where)
        for metric in ("nelbo_train", "nelbo_test")
        for bits in (8, 16, 32, 64)
    }
    assert by_bits == {
        ("nelbo_train", 8): 3529, ("nelbo_train", 16): 2982, ("nelbo_train", 32): 2566, ("nelbo_train", 64): 2477,
        ("nelbo_test", 8): 3813, ("nelbo_test", 16): 3741, ("nelbo_test", 32): 3698, ("nelbo_test", 64): 3690,
    }  # fmt: skip


def test_without_a_record_a_row_is_open(tmp_path):
    row = scoreboard.score(TARGET, tmp_path)
    assert (row.verdict, row.ours, row.spread, row.n, row.record) == ("open", "", "", "0", "")
    store(tmp_path, None)  # computed, but not this metric
    assert scoreboard.score(TARGET, tmp_path).verdict == "open"


@pytest.mark.parametrize(
    ("elbo", "verdict"),
    [(-3.70, "within tolerance"), (-3.69, "within tolerance"), (-3.71, "within tolerance"), (-3.6899, "miss"),
     (-3.7101, "miss"), (3.70, "miss")],
)  # fmt: skip
def test_verdict_at_the_edges_of_the_tolerance(elbo, verdict, tmp_path):
    store(tmp_path, elbo)
    assert scoreboard.score(TARGET, tmp_path).verdict == verdict


def test_mean_over_seeds_and_spread_from_three_on(tmp_path):
    values = [-3.70, -3.68, -3.75, -3.71]
    for seed, value in enumerate(values, start=1):
        store(tmp_path, value, seed=seed)
        row = scoreboard.score(TARGET, tmp_path)
        assert row.n == str(seed)
        assert row.ours == f"{statistics.mean(values[:seed]):.4f}"
        assert row.spread == (f"{statistics.stdev(values[:seed]):.4f}" if seed >= 3 else "")
    assert row.record.count("sec9_test/") == 4
    store(tmp_path, 0.0, encoder="oracle")  # another encoder does not count
    assert scoreboard.score(TARGET, tmp_path) == row


def test_records_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    store(tmp_path, -3.7, seed=0)
    store(tmp_path, -3.7, seed=1, steps=20)
    with pytest.raises(RecordError, match="the records differ in steps; add it to 'where'"):
        scoreboard.score(TARGET, tmp_path)


def test_a_run_with_other_settings_changes_no_row(tmp_path):
    """What the sweep of the README adds to the committed records, for instance."""
    root = Path(__file__).resolve().parents[1] / "results"
    shutil.copytree(root / artificial.STEM, tmp_path / artificial.STEM)
    shutil.copy(root / "paper_values.csv", tmp_path)
    mine = [target for target in scoreboard.targets() if target.stem == artificial.STEM]
    before = [scoreboard.score(target, tmp_path) for target in mine]
    (known, *_) = records.load_like(artificial.STEM, artificial.RECORDED, tmp_path)
    for encoder in artificial.ENCODERS:
        other = records.make(artificial.STEM, artificial.Config(encoder), known.metrics, {}, seconds=0)
        records.write(other, tmp_path)
    assert [scoreboard.score(target, tmp_path) for target in mine] == before


def test_a_small_spread_keeps_a_digit(tmp_path):
    for seed, elbo in enumerate((-3.7, -3.70003, -3.70006)):
        store(tmp_path, elbo, seed=seed)
    assert scoreboard.score(TARGET, tmp_path).spread == "0.00003"


def test_a_wrong_metric_or_filter_is_named(tmp_path):
    store(tmp_path, -3.7)
    with pytest.raises(RecordError, match=r"app-c1, ELBO: .* has no metric 'elb': did you mean 'elbo'"):
        scoreboard.score(dataclasses.replace(TARGET, metric="elb"), tmp_path)
    with pytest.raises(RecordError, match=r"app-c1, ELBO: .*did you mean 'encoder'"):
        scoreboard.score(dataclasses.replace(TARGET, where="encode=x"), tmp_path)


HEADER = ",".join(field.name for field in dataclasses.fields(Target)) + "\n"
LINE = ",".join(dataclasses.astuple(TARGET)) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns"),
        ("item\n", "expected the columns"),
        (HEADER + LINE + "app-c1,ELBO\n", "line 3: expected 9 fields"),
        (HEADER + LINE.replace("-3.70", "high"), "line 2: expected 9 fields, a number"),
        (HEADER + LINE.replace("0.01", "0"), "line 2"),
        (HEADER + LINE.replace("-3.70", "nan"), "line 2"),
    ],
)
def test_a_damaged_table_is_named(text, message, tmp_path):
    (tmp_path / "paper_values.csv").write_text(text)
    with pytest.raises(RecordError, match=message):
        scoreboard.targets(tmp_path)
    with pytest.raises(RecordError, match="is not there: run this in a checkout"):
        scoreboard.targets(tmp_path / "nowhere")


def test_command_writes_and_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))
    (tmp_path / "paper_values.csv").write_text(HEADER + LINE)
    assert cli.main(["scoreboard", "--check"]) == 1
    assert not (tmp_path / "scoreboard.csv").exists()
    assert cli.main(["scoreboard"]) == 0
    assert cli.main(["scoreboard", "--check"]) == 0
    store(tmp_path, -3.7)
    assert cli.main(["scoreboard", "--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    assert cli.main(["scoreboard"]) == 0
    with (tmp_path / "scoreboard.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["ours"], row["verdict"], row["n"]) == ("-3.7000", "within tolerance", "1")
    before = (tmp_path / "scoreboard.csv").read_bytes()
    assert cli.main(["scoreboard"]) == 0
    assert (tmp_path / "scoreboard.csv").read_bytes() == before
    (tmp_path / "sec9_test" / "broken.json").write_text("{")
    assert cli.main(["scoreboard"]) == 2
    assert "broken.json" in capsys.readouterr().err
    assert (tmp_path / "scoreboard.csv").read_bytes() == before


def test_the_committed_scoreboard_is_up_to_date(monkeypatch, capsys):
    monkeypatch.delenv("EFVAE_RESULTS", raising=False)
    assert cli.main(["scoreboard", "--check"]) == 0, capsys.readouterr().out
