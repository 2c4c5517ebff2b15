"""`efvae sweep`: what it plans, what it runs, what it refuses; no fault of one cell stops another."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import efvae.experiments
from efvae import cli, records
from efvae.experiments import text
from efvae.locks import try_lock
from efvae.parameters import UsageError
from efvae.records import Record
from efvae.sweep import Group, cells_of, command, experiment, plan, pool, read_file
from efvae.sweep.plan import _estimate, duration
from tests.sweeps import FAULTY, ROOT, SITE, environment, left_behind, recorded, sweep


@pytest.fixture
def faulty(monkeypatch):
    """The experiment that fails on demand, in this process."""
    monkeypatch.setattr(efvae.experiments, "__path__", [*efvae.experiments.__path__, str(SITE / "experiments")])
    monkeypatch.syspath_prepend(str(SITE.parent))
    return experiment(FAULTY)


def efvae_(*words) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def labels(found, *words, grids=()) -> list[str]:
    return [cell.label for cell in cells_of(found, list(grids), words)]


# --- the grid ------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_in_its_order(faulty):
    assert labels(faulty, "seed=0:2", "rate=1,1e-3") == [
        "seed=0 rate=1.0",
        "seed=0 rate=0.001",
        "seed=1 rate=1.0",
        "seed=1 rate=0.001",
    ]
    assert labels(faulty, "seed=7,1:3,-1:1") == ["seed=7", "seed=1", "seed=2", "seed=-1", "seed=0"]
    assert labels(faulty, "seed=1,1,0:2") == ["seed=1", "seed=0"]  # no cell twice
    assert labels(faulty) == ["defaults"]


def test_each_value_is_read_by_its_declared_type(faulty):
    (cell,) = cells_of(faulty, [], ["joint=false", "sizes=3,4", "rate=1", "kind=nan"])
    assert cell.config == faulty.module.Config(joint=False, sizes=(3, 4), rate=1.0, kind="nan")
    assert cell.digest == records.config_hash(FAULTY, records.config_dict(cell.config))[:8]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sed=0"], "unknown key 'sed': did you mean 'seed'?"),
        (["seed"], "expected key=v1,v2 or key=first:end; got 'seed'"),
        (["seed=0", "seed=1"], "key 'seed' is given twice"),
        (["seed=3:3"], "stands for no value"),
        (["seed=3:1"], "stands for no value"),
        (["seed=0:999999999999"], "stands for more than 10000 values: give fewer"),
        (["seed=0:5000", "team=0:5000"], "25000000 cells are more than 10000"),
        (["seed=1.5"], "seed: expected a whole number"),
        (["seed="], "seed: expected a whole number"),
        (["rate=nan"], "rate: expected a finite number"),
        (["rate=0:3"], "rate: expected a finite number"),
        (["kind=odd"], "cell 'kind=odd': kind must be one of"),
        (["kind=fine,a\nb"], "kind must be one of"),
    ],
)
def test_a_bad_grid_is_refused_in_one_line(words, message, faulty, tmp_path, capsys):
    assert efvae_("sweep", FAULTY, "--grid", *words, "--results", tmp_path / "r", "--work", tmp_path / "w") == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--refresh"]])
def test_cells_that_the_data_do_not_suffice_for_are_refused_before_anything_starts(more, tmp_path, capsys, monkeypatch):
    text._check.cache_clear()
    monkeypatch.setenv("EFVAE_DATA", str(tmp_path / "none"))
    for stem, words, message in (
        ("sec4_3_text", ["corpus=curved", "held_out=20000"], "held_out must be less than the 2000 training documents"),
        ("sec4_3_rbm", ["corpus=curved", "held_out=0,2000"], "held_out=2000': held_out must be less than the 2000"),
        ("sec4_3_text", ["bits=8"], "none"),
        ("sec4_3_words", ["k=5"], "none"),
    ):
        where = ["--results", tmp_path / "r", "--work", tmp_path / "w"]
        assert efvae_("sweep", stem, "--grid", *words, *more, *where) == 2, words
        told = capsys.readouterr()
        assert message in told.err
        assert told.err.count("\n") == 1
        assert told.out == ""
    assert list(tmp_path.iterdir()) == []


def test_other_bad_words_are_refused(faulty, tmp_path, capsys):
    for words, message in (
        (["sec0_fautly"], "did you mean 'sec0_faulty'"),
        (["../faulty"], "no experiment '../faulty', nor a sweep file, whose name ends in .yaml or .yml"),
        (["grid.txt"], "no experiment 'grid.txt', nor a sweep file"),
        (["efvae.cli"], "no experiment"),
        ([str(tmp_path / "no.yaml")], "cannot read the sweep file"),
        ([FAULTY, "--jobs", "0"], "--jobs must be a whole number in [1, 1024]; got 0"),
        ([FAULTY, "--threads", "-1"], "--threads must be"),
        ([FAULTY, "--jobs", "two"], "invalid int value"),
        ([FAULTY, "--json"], "give --dry-run with it"),
        ([FAULTY, "--only", "12345678"], "this sweep has no cell '12345678'"),
    ):
        assert efvae_("sweep", *words, "--results", tmp_path / "r", "--work", tmp_path / "w") == 2, words
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def write(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_sweep_file_reads_as_the_command_line_does(faulty, tmp_path):
    text = """
stem: sec0_faulty
grid:
  - {kind: [fine, nan], seed: 1:3}      # YAML 1.1 would read sixty-three
  - {kind: fine, seed: "2,5", sizes: [[1, 2], [3]], joint: no}
"""
    with pytest.raises(UsageError, match="joint: expected true or false; got 'no'"):
        cells_of(faulty, read_file(write(tmp_path, text))[1])
    stem, grids = read_file(write(tmp_path, text.replace("joint: no", "rate: 1e-3")))
    assert stem == FAULTY
    assert labels(faulty, grids=grids) == [
        "kind=fine seed=1",
        "kind=fine seed=2",
        "kind=nan seed=1",
        "kind=nan seed=2",
        "kind=fine seed=2 sizes=1,2 rate=0.001",
        "kind=fine seed=2 sizes=3 rate=0.001",
        "kind=fine seed=5 sizes=1,2 rate=0.001",
        "kind=fine seed=5 sizes=3 rate=0.001",
    ]
    assert labels(faulty, "seed=9", grids=grids[:1]) == ["kind=fine seed=9", "kind=nan seed=9"]  # typed words win


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 'stem: <experiment>'"),
        ("[1, 2]", "expected 'stem: <experiment>'"),
        ("stem: [a]", "expected 'stem: <experiment>'"),
        ("stem: sec0_faulty\ngird: {}", "unknown key 'gird'"),
        ("stem: sec0_faulty\ngrid: 3", "expected 'stem"),
        ("grid:\n  seed: 0", "names no experiment"),
        ("stem: sec0_faulty", "has no grid, or an empty one"),
        ("stem: sec0_faulty\ngrid: []", "has no grid, or an empty one"),
        ("stem: sec0_faulty\ngrid:\n  - seed: 0\n  - {}", "has no grid, or an empty one"),
        ("stem: sec0_faulty\ngrid: {seed: {a: 1}}", "'seed': expected a value or a list of values"),
        ("stem: sec0_faulty\ngrid: {seed: []}", "'seed': expected a value or a list"),
        ("stem: sec0_faulty\ngrid: {seed: [[[1]]]}", "'seed': expected a value or a list"),
        ("stem: !!python/object/apply:os.getcwd []", "line 1: expected no tags (!)"),
        ("stem: sec0_faulty\ngrid: {seed: 1, seed: 2}", "line 2: 'seed' is given twice; give it once"),
        ("stem: {", "cannot read the sweep file"),
        ("[" * 600, "cannot read the sweep file"),
        ("stem: sec0_faulty\ngrid: {? [a] : 1}", "cannot read the sweep file"),
    ],
)
def test_a_bad_sweep_file_is_refused_in_one_line(text, message, faulty, tmp_path, capsys):
    assert efvae_("sweep", write(tmp_path, text), "--dry-run") == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


# --- the plan ------------------------------------------------------------------------------------------------------


def record_cells(found, words, results) -> None:
    for cell in cells_of(found, [], words):
        found.module.run(cell.config, results=results)


def test_the_plan_skips_groups_and_estimates(faulty, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))
    words = ["kind=fine,nan", "seed=0:3", "team=-1,4"]
    assert efvae_("sweep", FAULTY, "--grid", *words, "--dry-run", "--jobs", "2") == 0
    told = capsys.readouterr().out
    assert "no record of this experiment to estimate the time from" in told
    assert list(tmp_path.iterdir()) == []
    record_cells(faulty, ["kind=fine", "seed=0:2", "team=-1"], tmp_path)
    planned = plan(faulty, cells_of(faulty, [], words), tmp_path)
    assert [group.label for group in planned.missing] == [
        "team=4 (6 cells)",
        "kind=fine seed=2 team=-1",
        "kind=nan seed=0 team=-1",
        "kind=nan seed=1 team=-1",
        "kind=nan seed=2 team=-1",
    ]
    assert efvae_("sweep", FAULTY, "--grid", *words, "--dry-run", "--jobs", "2") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "skip   kind=fine seed=0 team=-1: recorded"
    assert "run    team=4 (6 cells): about 12 s" in told
    # two seconds each: six in a row, or ten on two processes, whichever takes longer
    assert told[-1] == (
        "sec0_faulty: 12 cells, 2 recorded, 10 to run in 5 groups, 2 at a time; about 12 s, by the seconds of 2 records"
    )
    assert plan(faulty, cells_of(faulty, [], words), tmp_path, refresh=True).recorded == frozenset()


def test_the_time_is_told_by_records_of_the_same_kind_of_device(faulty, tmp_path, monkeypatch):
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))
    record_cells(faulty, ["kind=fine", "seed=0:2"], tmp_path)
    (path, other) = sorted((tmp_path / FAULTY).glob("[!.]*.json"))
    record = records.read(path)
    path.unlink()
    moved = dataclasses.replace(record, provenance=record.provenance | {"device": "a GPU", "seconds": 0.5})
    records.write(moved, tmp_path)
    cells = cells_of(faulty, [], ["seed=7"])
    here, there = (plan(faulty, cells, tmp_path, accelerator=accelerator) for accelerator in (False, True))
    assert ([*here.seconds.values()], here.basis, here.elsewhere) == ([2.0], 1, False)
    assert ([*there.seconds.values()], there.basis, there.elsewhere) == ([0.5], 1, False)
    other.unlink()
    assert "about 0 s, by the seconds of 1 record of another kind of device" in plan(faulty, cells, tmp_path).summary(1)


def test_an_estimate_is_of_the_most_similar_records_for_as_many_steps():
    def record(seconds, **config) -> Record:
        return Record("s", "c", config, {}, {}, {"seconds": seconds})

    known = [
        record(10.0, seed=0, model="a", pretrain_steps=100, joint_steps=100),
        record(30.0, seed=1, model="a", pretrain_steps=100, joint_steps=100),
        record(900.0, seed=0, model="b", pretrain_steps=100, joint_steps=100),
    ]
    wanted = {"seed": 7, "model": "a", "pretrain_steps": 100, "joint_steps": 300}
    assert _estimate(wanted, known) == 40.0  # twice the median of 10 and 30
    known[2] = record(6.0, model="b", joint_steps=300)
    assert _estimate(wanted | {"model": "b"}, known) == pytest.approx(8.0)


def test_the_time_left_is_that_of_the_seconds_expected_of_what_is_missing(faulty, tmp_path, monkeypatch):
    """Ten expected seconds took twenty: the ninety that are left will take three minutes."""
    cells = cells_of(faulty, [], ["seed=0:3"])
    expected = {cell.digest: seconds for cell, seconds in zip(cells, (10.0, 30.0, 60.0), strict=True)}
    planned = dataclasses.replace(plan(faulty, cells, tmp_path), seconds=expected)
    sweeping = pool._Sweep(planned, pool.Options(tmp_path, tmp_path), print, print)
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: sweeping.started + 20))
    assert sweeping._left() == ""  # nothing to go by
    sweeping.outcome.done[cells[0].digest] = 20.0
    assert sweeping._left() == f"; 2 left, about {duration(180)}"
    sweeping.plan = dataclasses.replace(planned, seconds={})  # no record yet: each cell is worth the same
    assert sweeping._left() == f"; 2 left, about {duration(40)}"


def test_the_plan_as_json_keeps_its_groups_while_cells_are_recorded(faulty, tmp_path, capsys):
    words = ["sweep", FAULTY, "--grid", "seed=0:2", "team=-1,4", "--results", tmp_path, "--dry-run", "--json"]
    assert efvae_(*words) == 0
    before = json.loads(capsys.readouterr().out)
    assert [(len(g["cells"]), g["recorded"]) for g in before] == [(1, False), (2, False), (1, False)]
    record_cells(faulty, ["seed=0", "team=-1,4"], tmp_path)
    efvae_(*words)
    after = json.loads(capsys.readouterr().out)
    assert [g["group"] for g in after] == [g["group"] for g in before]
    assert [g["recorded"] for g in after] == [True, False, False]


def test_other_data_are_another_cell(faulty, tmp_path, monkeypatch):
    data = tmp_path / "data"
    monkeypatch.setenv("FAULTY_DATA", str(data))
    data.write_text("a" * 64)
    record_cells(faulty, ["seed=0"], tmp_path)
    cells = cells_of(faulty, [], ["seed=0"])
    assert plan(faulty, cells, tmp_path).recorded
    data.write_text("b" * 64)
    assert not plan(faulty, cells, tmp_path).recorded


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "1 min 40 s"), (3000, "50 min"), (7500, "2 h 5 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("stem", sorted(path.name for path in (ROOT / "results").glob("sec*")))
def test_every_experiment_of_the_project_can_be_swept(stem, monkeypatch):
    if stem == "sec4_2_images":  # the others name their data without having them
        have_photographs(monkeypatch)
    found = experiment(stem)
    config = records.load(stem, ROOT / "results")[0].config
    words = [f"{name}={','.join(map(str, v)) if isinstance(v, list) else v}" for name, v in config.items()]
    (cell,) = cells_of(found, [], words)
    assert plan(found, [cell], ROOT / "results").recorded == {cell.digest}


def have_photographs(monkeypatch) -> None:
    beside = ROOT.parent / "shared" / "data"
    root = os.environ.get("EFVAE_DATA") or str(beside)
    if not (Path(root) / "images").is_dir():
        pytest.skip("the photographs are not here: set EFVAE_DATA to the folder that holds images/")
    monkeypatch.setenv("EFVAE_DATA", root)


def test_the_digits_are_read_once_for_a_plan(tmp_path, monkeypatch):
    found, read = experiment("sec3_1_rbm"), []
    load = found.module.load_digits
    monkeypatch.setattr(found.module, "load_digits", lambda *words: read.append(words) or load(*words))
    found.module._sha256.cache_clear()
    plan(found, cells_of(found, [], ["seed=0:3", "threshold=4,8"]), tmp_path)
    assert len(read) == 1


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from efvae import cli\n"
        "try: cli.main(['sweep', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--dry-run" in done.stdout


# --- running -------------------------------------------------------------------------------------------------------


def test_no_failing_cell_stops_another(tmp_path):
    words = [FAULTY, "--grid", "kind=nan,fine,exit,killed,value,bare,lying", "--jobs", "2"]
    code, told, errors = sweep(tmp_path, *words)
    assert (code, errors) == (1, "")
    table = {line.split()[1].rstrip(":"): line for line in told.splitlines() if line.startswith(("done ", "failed "))}
    assert table["kind=fine"] == "done    kind=fine"
    assert "FloatingPointError: the loss is nan" in table["kind=nan"]
    assert "ended with code 7: last words" in table["kind=exit"]
    assert "killed by SIGKILL" in table["kind=killed"]
    assert ": this cell cannot be (log: " in table["kind=value"]
    assert "No such file" in table["kind=lying"]
    assert told.splitlines()[-1] == "2 done, 0 skipped, 5 failed"
    log = Path(table["kind=nan"].rpartition("(log: ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    assert len(recorded(tmp_path)) == 2
    assert left_behind(tmp_path) == []
    code, told, _ = sweep(tmp_path, FAULTY, "--grid", "kind=fine,bare")  # and again: nothing is computed
    assert (code, told.splitlines()[-1]) == (0, "0 done, 2 skipped, 0 failed")


def test_a_process_takes_no_code_from_the_current_folder(tmp_path):
    here = tmp_path / "here"
    (here / "efvae").mkdir(parents=True)
    for name in ("ast.py", "hashlib.py", "queue.py", "efvae/__init__.py"):
        (here / name).write_text("raise SystemExit('code of the current folder')")
    code, told, errors = sweep(tmp_path, FAULTY, "--grid", "kind=fine", cwd=here)
    assert (code, told.splitlines()[-1], errors) == (0, "1 done, 0 skipped, 0 failed", "")


def test_a_process_computes_with_the_code_of_its_driver(tmp_path, monkeypatch):
    """Another checkout on PYTHONPATH comes after ours."""
    from efvae.sweep.process import start

    monkeypatch.setenv("PYTHONPATH", str(SITE))
    asked = {}

    class Child:
        stdin = (tmp_path / "stdin").open("wb")

    monkeypatch.setattr("subprocess.Popen", lambda *words, **how: asked.update(how) or Child())
    process = start(Group(()), [], {}, tmp_path / "log", 1)
    process.report.close()
    Child.stdin.close()
    assert asked["env"]["PYTHONPATH"] == os.pathsep.join([str(ROOT), str(SITE)])


def computed(log: Path) -> list[str]:
    return sorted(log.read_text().splitlines()) if log.exists() else []


def test_a_group_out_of_memory_is_split_until_it_fits(tmp_path):
    log = tmp_path / "log"
    words = [FAULTY, "--grid", "team=1", "seed=0:5"]
    code, told, _ = sweep(tmp_path, *words, FAULTY_ROOM="2", FAULTY_LOG=str(log))
    assert code == 0
    assert "team=1 (5 cells): out of memory: no room for so many; split in two and tried again" in told
    assert computed(log) == [f"{seed} fine" for seed in range(5)]  # none twice
    assert len(recorded(tmp_path)) == 5
    assert "failed" not in {line.split()[0] for line in told.splitlines()}


def test_the_guilty_cell_of_a_group_is_found(tmp_path):
    code, told, _ = sweep(tmp_path, FAULTY, "--grid", "team=1", "kind=fine,killed,bare", "seed=0")
    assert code == 1
    assert [r.config["kind"] for r in recorded(tmp_path).values()] == ["bare", "fine"] or len(recorded(tmp_path)) == 2
    assert told.splitlines()[-1] == "2 done, 0 skipped, 1 failed"
    assert "killed by SIGKILL" in told.splitlines()[-2]


def test_refresh_computes_again_and_only_chooses(faulty, tmp_path):
    log = tmp_path / "log"
    record_cells(faulty, ["seed=0:2"], tmp_path / "results")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    (cell,) = cells_of(faulty, [], ["seed=1"])
    words = [FAULTY, "--grid", "seed=0:2", "--refresh", "--only", cell.digest]
    code, told, _ = sweep(tmp_path, *words, FAULTY_LOG=str(log))
    assert (code, told.splitlines()[-1]) == (0, "1 done, 0 skipped, 0 failed")
    assert computed(log) == ["1 fine"]
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} == {
        tmp_path / "results" / FAULTY / f"seed-1_{cell.digest}.json"
    }


def test_looking_at_what_a_process_says_does_not_disturb_it(tmp_path):
    """The file is shared with it, and so would be the place in it."""
    from efvae.sweep.process import Process, _memory_file

    with _memory_file() as report:
        process = Process(Group(()), [], None, report, tmp_path, 0.0)
        for count in range(1, 4):
            os.write(report.fileno(), json.dumps({"progress": count}).encode() + b"\n")
            assert [message["progress"] for message in process.messages()] == list(range(1, count + 1))
        os.write(report.fileno(), b'{"done": ["a')  # killed while writing
        assert len(process.messages()) == 3
        assert os.lseek(report.fileno(), 0, os.SEEK_CUR) == os.fstat(report.fileno()).st_size


# --- locks ---------------------------------------------------------------------------------------------------------


def test_a_lock_has_one_holder_and_is_gone_with_it(tmp_path):
    path = tmp_path / ".a.lock"
    lock = try_lock(path)
    assert lock is not None
    assert try_lock(path) is None
    lock.release()
    assert list(tmp_path.iterdir()) == []
    again = try_lock(path)
    assert again is not None
    again.release()


def test_a_lock_that_was_removed_while_we_waited_is_not_ours(tmp_path, monkeypatch):
    """Between opening the file and locking it, its holder lets go and a third process locks a new file."""
    path = tmp_path / ".a.lock"
    import fcntl

    first, third, lock = try_lock(path), [], fcntl.flock

    def flock(handle, how):
        if first is not None and not third:
            third.append(None)
            first.release()
            third[0] = try_lock(path)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert try_lock(path) is None
    assert third[0] is not None


def test_a_killed_holder_frees_its_lock(tmp_path):
    path = tmp_path / ".a.lock"
    code = (
        "import os, signal, sys; from pathlib import Path; from efvae.locks import try_lock\n"
        "assert try_lock(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment(), check=False)
    assert done.returncode == -9
    assert path.exists()
    lock = try_lock(path)
    assert lock is not None
    lock.release()


def test_a_worker_ends_with_its_driver(tmp_path):
    """Its standard input ends: nobody would take its answer."""
    request = {"module": "efvae.experiments.faulty", "configs": [{"seconds": 60.0}], "results": str(tmp_path),
               "checkpoint": str(tmp_path / "c"), "refresh": False, "device": "cpu", "data": [None]}  # fmt: skip
    worker = [sys.executable, "-m", "efvae.sweep.worker"]
    log = tmp_path / "log"
    child = subprocess.Popen(worker, stdin=subprocess.PIPE, env=environment(FAULTY_LOG=str(log)))
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()
    while not log.exists():
        assert child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=300) == 3
    assert not list(tmp_path.glob("*.json"))
    assert os.path.exists(log)  # noqa: PTH110


def test_a_device_is_handed_on_or_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = (
        "sec4_3_text",
        "--grid",
        "corpus=curved",
        "bits=8",
        "--results",
        tmp_path / "results",
        "--work",
        tmp_path / "work",
    )
    assert efvae_("sweep", *text, "--device", "cuda") == 2
    assert "--device cuda is not there" in capsys.readouterr().err
    assert efvae_("sweep", "sec4_1_artificial", "--device", "auto", "--dry-run") == 2
    assert "sec4_1_artificial computes on the CPU only" in capsys.readouterr().err
    asked = []

    def start(group, locks, request, log, threads):
        asked.append(request["device"])
        raise OSError(28, "No space left on device", str(log))  # far enough

    monkeypatch.setattr("efvae.sweep.pool.start", start)
    assert efvae_("sweep", *text, "--device", "auto") == 2
    assert asked == ["cuda" if torch.cuda.is_available() else "cpu"]


def test_into_a_log_a_sweep_says_once_a_minute_how_far_it_is(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: clock[0])
    tell = command._now_and_then()
    for second in range(0, 200, 10):
        clock[0] = second
        tell(f"at {second}")
    assert capsys.readouterr().out == "at 70\nat 140\n"


def test_the_time_is_estimated_from_records_of_the_same_choices_and_of_the_nearest_length():
    def record(seconds, **config):
        return SimpleNamespace(config=config, provenance={"seconds": seconds})

    known = [
        record(9.0, encoder="oracle", steps=4000, seed=0),
        record(7.0, encoder="factorized", steps=5, seed=0),  # nearly all of it to start
        record(100.0, encoder="factorized", steps=4000, seed=0),
    ]
    wanted = {"encoder": "oracle", "steps": 4000, "seed": 3}
    assert _estimate(wanted, known) == 9
    assert _estimate(wanted | {"encoder": "factorized"}, known) == 100
    assert _estimate(wanted | {"encoder": "factorized", "steps": 8000}, known) == 200
    assert _estimate(wanted | {"encoder": "states"}, known[1:]) == 100  # of other choices, the nearest length
