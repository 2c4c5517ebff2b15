"""What a machine can do to a sweep: nothing is lost, nothing is silently wrong, and one line says what happened.

A disk that is full is a limit on the size of files here (RLIMIT_FSIZE): the system refuses the write in the middle, as
it does when there is no space.
"""

from __future__ import annotations

import csv
import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import efvae.experiments
from efvae import cli, records
from efvae.checkpoint import load_checkpoint, save_checkpoint
from efvae.experiments import artificial
from efvae.records import RecordError
from efvae.sweep import Options, Outcome, cells_of, command, experiment, plan, pool, run, worker
from tests import faults
from tests.sweeps import FAULTY, ROOT, SITE, environment, full_disk, left_behind, recorded, start, sweep

TINY = artificial.Config(pretrain_steps=200, joint_steps=200, batch_size=8, width=4)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return faults.undisturbed(tmp_path_factory.mktemp("undisturbed"))


def last(told: str) -> str:
    return told.splitlines()[-1]


# --- death ---------------------------------------------------------------------------------------------------------


def test_a_sweep_killed_at_random_moments_ends_in_the_same_records(tmp_path, expected):
    trial = faults.kill_at_random(tmp_path, expected, 3, random.SystemRandom())  # other moments each time
    assert (trial.hits, trial.lost, trial.wrong) == (3, 0, 0), trial


def test_a_sweep_of_many_cells_killed_at_random_moments_loses_what_it_was_at(tmp_path):
    """Without torch, so that there is time for many cells; what is recorded is not computed again."""
    log, dice = tmp_path / "log", random.SystemRandom()
    words = [FAULTY, "--grid", "seed=0:40", "team=-1,1,2", "seconds=0.01", "--jobs", "2"]
    before: set[str] = set()
    for kills in range(1, 5):
        process = start(tmp_path, *words, FAULTY_LOG=str(log), EFVAE_FAULTS="slow-disk")
        goal = len(before) + dice.randrange(1, 6)
        while process.poll() is None and len(list(tmp_path.glob("results/*/*.json"))) < goal:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.1))
        workers = faults.children(process)
        process.kill()
        process.communicate()
        while any(map(faults.alive, workers)):
            time.sleep(0.01)
        now = set(recorded(tmp_path))  # each one whole
        assert before <= now
        before = now
        assert len(computed(log)) - len(now) <= 2 * kills
    assert len(before) < 120


def computed(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_a_terminated_or_interrupted_sweep_leaves_nothing_running(tmp_path):
    for number, code in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)):
        log = tmp_path / number.name
        process = start(tmp_path, FAULTY, "--grid", f"seed={int(number)}", "seconds=60", FAULTY_LOG=str(log))
        while not log.exists():
            assert process.poll() is None
            time.sleep(0.01)
        (child,) = faults.children(process)
        process.send_signal(number)
        told, errors = process.communicate(timeout=300)
        assert process.returncode == code
        if code == 130:
            assert last(told) == "interrupted: the same command continues it"
            assert errors == "efvae: interrupted\n"
        for _ in range(1000):
            time.sleep(0.01 * faults.alive(child))
        assert not faults.alive(child)


def test_a_sweep_whose_output_nobody_reads_goes_on(tmp_path):
    process = start(tmp_path, FAULTY, "--grid", "seed=0:3")
    process.stdout.close()  # as `| head -1` does after the first line
    process.stdout = None
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert len(recorded(tmp_path)) == 3
    assert left_behind(tmp_path) == []


def test_what_cannot_be_told_leaves_no_lock(tmp_path, monkeypatch, faulty):
    monkeypatch.setenv("PYTHONPATH", str(SITE))
    found = experiment(FAULTY)
    how = Options(tmp_path / "results", tmp_path / "work")

    def tell(line):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(plan(found, cells_of(found, [], ["seed=0:2"]), how.results), how, tell)
    assert len(recorded(tmp_path)) == 1
    assert left_behind(tmp_path) == []


# --- two at once ---------------------------------------------------------------------------------------------------


def test_two_sweeps_at_once_share_the_work(tmp_path):
    log, words = tmp_path / "log", [FAULTY, "--grid", "seed=0:6", "seconds=0.2"]
    both = [start(tmp_path, *words, FAULTY_LOG=str(log)) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(computed(log)) == [f"{seed} fine" for seed in range(6)]  # none twice, none missing
    counts = [list(map(int, re.findall(r"(\d+) (?:done|skipped|failed)", last(told)))) for told, _ in ends]
    assert sum(done for done, _, _ in counts) == 6
    assert all(done + skipped == 6 and not failed for done, skipped, failed in counts)
    assert left_behind(tmp_path) == []


def test_what_a_killed_sweep_computed_is_taken_over_by_the_one_that_waits(tmp_path):
    log, free, words = tmp_path / "log", tmp_path / "free", [FAULTY, "--grid", "seed=0"]
    environment = {"FAULTY_LOG": str(log), "FAULTY_UNTIL": str(free)}
    first = start(tmp_path, *words, **environment)
    while not log.exists():
        assert first.poll() is None
        time.sleep(0.01)
    (child,) = faults.children(first)
    second = start(tmp_path, *words, **environment)
    assert "another sweep computes this; waiting for it" in (second.stdout.readline() + second.stdout.readline())
    first.kill()
    first.communicate()
    while faults.alive(child):
        time.sleep(0.01)
    free.touch()
    told, _ = second.communicate(timeout=300)
    assert (second.returncode, last(told)) == (0, "1 done, 0 skipped, 0 failed")
    assert computed(log) == ["0 fine"] * 2
    assert left_behind(tmp_path) == []


# --- disks ---------------------------------------------------------------------------------------------------------


def test_a_record_that_finds_no_room_is_one_line_and_the_rest_is_kept(tmp_path):
    words = [FAULTY, "--grid", "seed=0:2", "entries=0,2000"]
    code, told, errors = sweep(tmp_path, *words, EFVAE_FAULTS="full-disk")
    assert (code, last(told)) == (2, "2 done, 0 skipped, 2 failed")
    assert errors == (
        f"efvae: error: no room in {tmp_path / 'results' / FAULTY}: 2 cells have failed; "
        "free some space and run the same command again, which leaves out what is recorded\n"
    )
    (line, _) = (line for line in told.splitlines() if line.startswith("failed "))
    assert re.search(r"entries=2000: cannot write .*\.json: File too large; free some space", line)
    assert len(recorded(tmp_path)) == 2
    assert left_behind(tmp_path) == []
    code, told, _ = sweep(tmp_path, *words)  # there is room again
    assert (code, last(told)) == (0, "2 done, 2 skipped, 0 failed")


def test_a_cell_without_room_counts_whatever_came_of_the_others(faulty, tmp_path, capsys, monkeypatch):
    """Its disk has to be mended first, and may be what the others failed of without a word."""
    full, other = cells_of(experiment(FAULTY), [], ["seed=0:2"])
    work, reason = tmp_path / "w" / FAULTY, "No space left on device"
    outcome = Outcome(failed={other.digest: ("the loss is nan", None)})
    monkeypatch.setattr(command, "run", lambda *_: outcome)
    words = ["sweep", FAULTY, "--grid", "seed=0:2", "--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    assert cli.main(words) == 1
    assert capsys.readouterr().err == ""
    outcome.failed[full.digest] = (f"cannot write the checkpoint {work / 'c'}: {reason}; free some space", None)
    outcome.full.add(full.digest)
    assert cli.main([*words, "--refresh"]) == 2
    told = capsys.readouterr()
    assert f"failed  seed=0: cannot write the checkpoint {work / 'c'}: {reason}" in told.out
    assert "failed  seed=1: the loss is nan" in told.out
    assert told.err == (
        f"efvae: error: no room in {work}: 1 cell has failed; "
        "free some space and run the same command again, which makes all cells again\n"
    )
    outcome.failed[full.digest] = (f"{reason}: '/tmp/scratch'", None)
    assert cli.main(words) == 2
    assert f"no room ({reason}: '/tmp/scratch'): 1 cell has failed; free some" in capsys.readouterr().err


def test_no_room_is_told_of_a_folder_of_checkpoints_and_by_last_words(faulty, tmp_path, monkeypatch):
    said, reason = [], "[Errno 28] No space left on device: 'c'"

    def mkdir(path, **how):
        raise OSError(28, "No space left on device", "c")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", mkdir)
        compute = functools.partial(worker._compute, tmp_path / "c", lambda _: pytest.fail("computed"), TINY)
        worker._settle(artificial, [TINY], compute, tmp_path, lambda **message: said.append(message))
    assert [(message["reason"], message["full"]) for message in said] == [(reason, True)]

    found = experiment(FAULTY)
    planned = plan(found, cells_of(found, [], ["seed=0:2"]), tmp_path / "results")
    sweeping = pool._Sweep(planned, Options(tmp_path / "results", tmp_path / "work"), said.append, said.append)
    for group, words in zip(planned.missing, (f"ended with code 1: OSError: {reason}", "without a word"), strict=True):
        ended = SimpleNamespace(group=group, log=None, messages=list, epitaph=lambda words=words: words)
        sweeping._take_in(ended)
    assert sweeping.outcome.full == {planned.cells[0].digest}
    assert set(sweeping.outcome.failed) == {cell.digest for cell in planned.cells}


def test_a_sweep_with_nothing_to_do_writes_nothing(faulty, tmp_path, capsys):
    found, where = experiment(FAULTY), ["--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    words = ["sweep", FAULTY, *where, "--grid", "seed=0:2"]
    for cell in cells_of(found, [], ["seed=0:2"]):
        found.module.run(cell.config, results=tmp_path / "r")
    stale = tmp_path / "r" / FAULTY / f".{cell.digest}.lock"
    stale.touch()  # as of a sweep that was killed
    before = sorted(tmp_path.rglob("*.json"))
    with full_disk(0):
        assert cli.main(words) == 0
    told = capsys.readouterr()
    assert (told.err, last(told.out)) == ("", "0 done, 2 skipped, 0 failed")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert not (tmp_path / "w").exists()
    with full_disk(0):
        assert "File too large; free some space" in refused(capsys, *where, "--grid", "seed=0:3")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_finds_no_room_is_one_line(tmp_path):
    words = ["sweep", FAULTY, "--grid", "seed=0", "--results", str(tmp_path / "results"), "--dry-run"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "efvae", *words], env=environment(), stdout=full, stderr=subprocess.PIPE
        )
    told = b"efvae: error: cannot write the output: No space left on device; free some space\n"
    assert (done.returncode, done.stderr) == (2, told)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "efvae", *words], env=environment(), stdout=full, stderr=full
        )
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_sweep_whose_log_finds_no_room_goes_on(tmp_path):
    words = [sys.executable, "-P", "-m", "efvae", "sweep", FAULTY, "--grid", "seed=0:2"]
    words += ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(words, env=environment(), stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(recorded(tmp_path)) == 2


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path):
    path, model = tmp_path / "c.safetensors", nn.Linear(60, 60)
    optimizer, generator = torch.optim.Adam(model.parameters()), torch.Generator()
    save_checkpoint(path, model, optimizer, generator, "f", 1, {})
    with (
        full_disk(),
        pytest.raises(OSError, match=r"cannot write the checkpoint .*File too large.*; free some") as info,
    ):
        save_checkpoint(path, model, optimizer, generator, "f", 2, {})
    assert "\n" not in str(info.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert load_checkpoint(path, model, optimizer, generator, "f")[0] == 1


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.setattr(efvae.experiments, "__path__", [*efvae.experiments.__path__, str(SITE / "experiments")])


def refused(capsys, *words) -> str:
    assert cli.main(["sweep", FAULTY, *map(str, words)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    return told.err


def read_only(folder: Path) -> Path:
    """A folder that cannot be written; the permissions of an ordinary one do not stop root."""
    if os.geteuid() == 0:
        return Path("/sys/kernel")
    folder.chmod(0o555)
    return folder


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder that root cannot write")
def test_a_read_only_folder_is_refused_before_anything_runs(faulty, tmp_path, capsys):
    (tmp_path / "ro").mkdir()
    where = read_only(tmp_path / "ro")
    assert f"cannot write {where / FAULTY}" in refused(capsys, "--results", where, "--work", tmp_path / "w")
    where = read_only(tmp_path / "ro")
    assert "cannot write" in refused(capsys, "--results", tmp_path / "r", "--work", where)
    assert not (tmp_path / "r").exists()
    with full_disk():
        assert "File too large; free some space" in refused(
            capsys, "--results", tmp_path / "r", "--work", tmp_path / "w"
        )
    assert recorded(tmp_path) == {}


def test_a_disk_that_fills_up_meanwhile_stops_a_group_before_it_starts(faulty, tmp_path, monkeypatch):
    found, told = experiment(FAULTY), []
    planned = plan(found, cells_of(found, [], ["seed=0"]), tmp_path / "results")
    sweeping = pool._Sweep(planned, pool.Options(tmp_path / "results", tmp_path / "work"), told.append, told.append)
    sweeping.probe()  # there is room at first
    monkeypatch.setattr(sweeping, "_start", lambda *_: pytest.fail("started"))
    with full_disk():
        sweeping._launch(*planned.missing)
    assert re.search(r"failed: not started: cannot write .*: File too large; free some space$", "".join(told))
    assert [reason for reason, _ in sweeping.outcome.failed.values()] == [told[0].split("failed: ", 1)[1]]
    assert left_behind(tmp_path) == []


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_corrupted_record_is_named_and_not_touched_until_refreshed(tmp_path):
    words = [FAULTY, "--grid", "seed=0:2"]
    assert sweep(tmp_path, *words)[0] == 0
    path, _ = sorted((tmp_path / "results").rglob("*.json"))
    half = path.read_bytes()[:100]
    path.write_bytes(half)
    code, told, _ = sweep(tmp_path, *words)
    assert (code, last(told)) == (1, "0 done, 1 skipped, 1 failed")
    assert f"{path} is not a record" in told.splitlines()[-2]
    assert path.read_bytes() == half
    assert sweep(tmp_path, *words, "--refresh")[0] == 0
    assert len(recorded(tmp_path)) == 2


def test_a_record_of_another_configuration_with_the_same_hash_is_not_taken(tmp_path, monkeypatch):
    record = artificial.run(TINY)
    path = records.write(record, tmp_path)
    monkeypatch.setattr("efvae.records.store.config_hash", lambda *_: path.stem[-8:])
    with pytest.raises(RecordError, match="has the hash of another configuration"):
        records.find(artificial.STEM, artificial.Config(seed=5), tmp_path)


def test_a_damaged_checkpoint_is_set_aside_and_said(tmp_path):
    folder, said = tmp_path / "c", []
    whole = artificial.run(TINY, checkpoint=folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    worker._settle(
        artificial,
        [TINY],
        lambda: artificial.run(TINY, results=tmp_path, checkpoint=folder),
        tmp_path,
        lambda **message: said.append(message),
    )
    assert [set(message) for message in said] == [{"note"}, {"note"}, {"done"}]
    assert re.fullmatch(r"checkpoint .* is damaged .*\.damaged, and its cell starts anew", said[0]["note"])
    (again,) = records.load(artificial.STEM, tmp_path)
    assert records.same(again, whole)


def test_a_checkpoint_of_other_code_or_data_is_not_continued(tmp_path, monkeypatch):
    said = []

    def folder(content: str) -> Path:
        found = worker._checkpoint_folder([content], tmp_path / "c", lambda **m: said.append(m["note"]))
        found.mkdir(parents=True, exist_ok=True)  # as a run does
        return found

    first = folder("a")
    assert folder("a") == first
    assert said == []
    assert folder("b") != first
    assert said == [f"checkpoints of other code or data in {tmp_path / 'c'} are not used"]
    code, source = worker._code, 'def f():\n    """Text."""\n    return 1  # a comment\n'
    (tmp_path / "m.py").write_text(source)
    plain = code(tmp_path / "m.py")
    (tmp_path / "m.py").write_text(source.replace("Text", "Other text").replace("a comment", "another"))
    assert code(tmp_path / "m.py") == plain
    (tmp_path / "m.py").write_text(source.replace("1", "2"))
    assert code(tmp_path / "m.py") != plain
    with monkeypatch.context() as patch:
        patch.setattr(worker, "version", {"torch": "1.0"}.__getitem__)
        assert folder("a") != first
    assert folder("a") == first
    monkeypatch.setattr(worker, "_code", lambda path: "other")
    assert folder("a") != first


# --- time and numbers ----------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path):
    words = [FAULTY, "--grid", "seed=0:2"]
    for count in ("2 done, 0 skipped", "0 done, 2 skipped"):
        code, told, errors = sweep(tmp_path, *words, EFVAE_FAULTS="clock-back")
        assert (code, errors, last(told)) == (0, "", f"{count}, 0 failed")
    assert "-" not in re.sub(r"\S*seed\S*", "", told)


def test_nobody_decides_by_the_wall_clock():
    """A duration comes from the monotonic clock, and no file is taken for newer by its time."""
    for folder in ("sweep", "records", "experiments"):
        for path in (ROOT / "efvae" / folder).glob("*.py"):
            source = path.read_text("utf-8")
            assert "time.time(" not in source, path
            assert "mtime" not in source, path


def test_nan_in_the_loss_is_one_line_and_no_record(tmp_path, capsys):
    words = ["learning_rate=1e30", "pretrain_steps=20", "joint_steps=20", "batch_size=8", "width=4"]
    assert records.main(artificial.Config, artificial.run, [*words, "--results", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert re.fullmatch(r"error: the loss is (nan|inf) at step \d+: lower the learning rate \(.*\)\n", told.err)
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_is_not_ours_keeps_its_traceback(tmp_path):
    def run(config, *, results, refresh):
        raise RuntimeError("not one of ours")

    with pytest.raises(RuntimeError, match="not one of ours"):
        records.main(artificial.Config, run, ["--results", str(tmp_path)])


def test_the_committed_torture_lost_nothing():
    with (ROOT / "results" / "torture.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["fault"].startswith("kill -9 (")
    assert {row["fault"] for row in rows[1:]} == set(faults.SINGLE)
    assert [(row["records lost"], row["records wrong"]) for row in rows] == [("0", "0")] * len(rows)
    assert all(row["what the user reads"] for row in rows)
