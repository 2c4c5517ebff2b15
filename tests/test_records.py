"""Records: exact round trip, hash of everything that matters, whole files only, bad input named in one line."""

import dataclasses
import importlib
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from efvae import records
from efvae.records import Record, RecordError, command


@dataclasses.dataclass(frozen=True)
class Config:
    encoder: str = "factorized"
    seed: int = 0
    lr: float = 1e-3
    hidden: tuple[int, ...] = (64, 64)
    joint: bool = True

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive; got {self.lr}")


def made(config: Config = Config(), **changes) -> Record:
    fields = {"metrics": {"elbo": -3.7}, "curve": {"elbo": [-4.0, -3.7]}, "seconds": 1.0} | changes
    return records.make("sec9_test", config, **fields)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)  # each example waits for the disk
@given(finite, st.lists(finite, max_size=5))
def test_round_trip_is_exact_to_the_bit(tmp_path_factory, value, column):
    root = tmp_path_factory.mktemp("results")
    record = made(metrics={"a": value, "none": None}, curve={"c": column})
    back = records.read(records.write(record, root))
    assert back == record
    assert records.same(back, record)
    assert back.metrics["a"].hex() == value.hex()
    assert [x.hex() for x in back.curve["c"]] == [x.hex() for x in column]


def test_numbers_may_be_tensors_and_config_is_plain():
    record = made(metrics={"elbo": torch.tensor(-3.5)}, curve={"elbo": torch.tensor([1.0, 2.0])})
    assert record.metrics == {"elbo": -3.5}
    assert record.curve == {"elbo": [1.0, 2.0]}
    assert record.config["hidden"] == [64, 64]


@pytest.mark.parametrize(
    "change", [{"encoder": "oracle"}, {"seed": 1}, {"lr": 2e-3}, {"hidden": (64,)}, {"joint": False}]
)
def test_hash_changes_with_each_field(change):
    base, other = (records.config_dict(c) for c in (Config(), dataclasses.replace(Config(), **change)))
    assert records.config_hash("s", base) != records.config_hash("s", other)


def test_hash_covers_stem_and_data_but_not_the_spelling_of_a_float():
    plain = records.config_dict(Config())
    hashes = {
        records.config_hash("s", plain),
        records.config_hash("t", plain),
        records.config_hash("s", plain, "0" * 64),
        records.config_hash("s", plain, "1" * 64),
    }
    assert len(hashes) == 4
    assert records.config_dict(Config(lr=1)) == records.config_dict(Config(lr=1.0))
    assert json.dumps(records.config_dict(Config(lr=1))["lr"]) == "1.0"


def test_hash_is_the_same_in_every_process_and_never_changes():
    # committed files are named by it: a change here would orphan every record
    assert records.config_hash("sec9_test", {"seed": 0, "lr": 1e-3}, None)[:8] == "f317f8e1"


def test_cell_name_spells_the_chosen_fields_safely():
    plain = records.config_dict(Config(encoder="a/b c"))
    name = records.cell_name("s", plain, None, ("encoder", "seed"))
    assert name == f"encoder-a-b-c_seed-0_{records.config_hash('s', plain)[:8]}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value, tmp_path):
    with pytest.raises(RecordError, match="metric elbo must be a finite number"):
        made(metrics={"elbo": value})
    with pytest.raises(RecordError, match="curve elbo must be a list of finite"):
        made(curve={"elbo": [0.0, value]})
    smuggled = dataclasses.replace(made(), metrics={"elbo": value})
    with pytest.raises(RecordError, match="finite"):
        records.write(smuggled, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_same_ignores_provenance_and_nothing_else():
    record = made()
    assert records.same(record, dataclasses.replace(record, provenance={}))
    assert records.same(record, made(seconds=9.0))
    for change in ({"stem": "x"}, {"config": {}}, {"metrics": {}}, {"curve": {}}):
        assert not records.same(record, dataclasses.replace(record, **change))


def test_provenance_says_what_computed_it():
    told = records.provenance(seconds=2.5, data_sha256="f" * 64)
    assert told["versions"]["torch"] == str(torch.__version__)
    assert told["seconds"] == 2.5
    assert told["data_sha256"] == "f" * 64
    assert told["time"].endswith("+00:00")
    assert os.uname().nodename not in json.dumps([told["cpu"], told["device"]])


@pytest.mark.parametrize("git", [True, False])
def test_commit_comes_from_the_variable_if_it_is_set(monkeypatch, tmp_path, git):
    monkeypatch.delenv("EFVAE_COMMIT", raising=False)
    if not git:
        monkeypatch.setattr("efvae.records.origin.project_root", lambda: tmp_path)
        assert records.provenance(seconds=0)["commit"] is None
    monkeypatch.setenv("EFVAE_COMMIT", "abc")  # a copy of a checkout may have an older head
    told = records.provenance(seconds=0)
    assert (told["commit"], told["dirty"]) == ("abc", None)


def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path):
    blocked = tmp_path / "results"
    blocked.write_text("not a folder")
    with pytest.raises(RecordError, match=r"cannot write .*results.*name a folder that can be written") as info:
        records.write(made(), blocked)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("way", ["file", "file above", "link to nothing", "link to nothing above", "name"])
def test_a_folder_that_cannot_be_made_is_refused_before_the_computation(way, tmp_path):
    root = tmp_path / "results"
    folder = root / "sec9_test"
    blocked = root if way.endswith("above") else folder
    if way == "name":
        root = tmp_path / ("x" * 300)
    else:
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("") if "file" in way else blocked.symlink_to(tmp_path / "nothing")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RecordError, match=r"cannot write .*: (Not a directory|File name too long); name a folder"):
        records.stored("sec9_test", Config(), pytest.fail, results=root, refresh=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_not_there_can_be_made_and_is_not_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    records.check_folder(tmp_path / "link" / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_the_results_folder_may_be_named_from_home(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EFVAE_RESULTS", "~/x")
    assert records.results_root() == tmp_path / "x"
    monkeypatch.setenv("EFVAE_RESULTS", "~no-such-user/x")
    assert records.main(Config, run, []) == 2
    told = "error: EFVAE_RESULTS: ~no-such-user/x: there is no such home folder; write the path without ~\n"
    assert capsys.readouterr() == ("", told)


def test_a_file_system_without_permissions_is_written_to(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.chmod", refuse)
    assert records.read(records.write(made(), tmp_path)) == made()


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    path = records.write(made(), tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(RecordError, match=r"No space left on device; free some space$"):
        records.write(made(metrics={"elbo": -1.0}), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_is_never_visible(tmp_path, monkeypatch):
    seen = []

    def interrupted(_):
        seen.extend(p.name for p in (tmp_path / "sec9_test").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        records.write(made(), tmp_path)
    assert len(seen) == 1
    assert seen[0].startswith(".")  # while being written it is hidden from load ...
    assert list((tmp_path / "sec9_test").iterdir()) == []  # ... and gone afterwards


def test_load_does_not_see_temporary_files(tmp_path):
    path = records.write(made(), tmp_path)
    (path.parent / ".half.json").write_text("{")
    (path.parent / ".x.tmp").write_text("{")
    assert len(records.load("sec9_test", tmp_path)) == 1


def edited(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_text(p.read_text()[:-40]), "is not a record"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "is not a record"),
        (lambda p: p.write_text("[" * 100_000), "is not a record"),
        (lambda p: p.write_text("[]"), "expected the keys"),
        (lambda p: edited(p, extra=1), "expected the keys"),
        (lambda p: p.write_text(p.read_text().replace("-3.7", "NaN")), "NaN is not a finite number"),
        (lambda p: edited(p, metrics={"elbo": "high"}), "metric elbo must be a finite number"),
        (lambda p: edited(p, metrics={}), "metrics is empty"),
        (lambda p: edited(p, metrics={"elbo": True}), "metric elbo must be a finite number"),
        (lambda p: edited(p, metrics={"elbo": 10**400}), "metric elbo must be a finite number"),
        (lambda p: edited(p, curve={"elbo": 3}), "curve elbo"),
        (lambda p: edited(p, config=[]), "config must be a mapping"),
        (lambda p: edited(p, provenance={}), "provenance must have the keys"),
        (lambda p: edited(p, config={"seed": 7}), "was the config edited by hand"),
        (lambda p: edited(p, stem="../x"), "a stem has letters"),
        (lambda p: edited(p, cell="../x"), "a cell has letters"),
        (lambda p: p.rename(p.with_name("other.json")), "moved or renamed"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(damage, message, tmp_path):
    path = records.write(made(), tmp_path)
    damage(path)
    with pytest.raises(RecordError, match=message) as info:
        records.load("sec9_test", tmp_path)
    assert str(path.parent) in str(info.value)
    assert "\n" not in str(info.value)


def test_load_filters_by_config_and_names_a_mistyped_field(tmp_path):
    for seed in (0, 1):
        for encoder in ("factorized", "oracle"):
            records.write(made(Config(encoder=encoder, seed=seed)), tmp_path)
    assert len(records.load("sec9_test", tmp_path)) == 4
    assert [r.config["seed"] for r in records.load("sec9_test", tmp_path, encoder="oracle")] in ([0, 1], [1, 0])
    assert len(records.load("sec9_test", tmp_path, encoder="oracle", seed="1", joint="true", lr="0.001")) == 1
    assert records.load("sec9_test", tmp_path, seed="one") == []
    assert records.load("sec9_other", tmp_path, anything=1) == []
    with pytest.raises(RecordError, match="did you mean 'encoder'"):
        records.load("sec9_test", tmp_path, encodr="oracle")
    like = records.load_like("sec9_test", Config(encoder="oracle", seed=7), tmp_path)
    assert {(r.config["encoder"], r.config["seed"]) for r in like} == {("oracle", 0), ("oracle", 1)}
    assert len(records.load_like("sec9_test", Config(), tmp_path, free=["seed", "encoder"])) == 4
    assert records.load_like("sec9_test", Config(lr=0.5), tmp_path) == []


def test_find_returns_the_record_of_this_config_and_data_only(tmp_path):
    record = made(data_sha256="a" * 64)
    records.write(record, tmp_path)
    assert records.find("sec9_test", Config(), tmp_path, "a" * 64) == record
    assert records.find("sec9_test", Config(), tmp_path) is None
    assert records.find("sec9_test", Config(seed=1), tmp_path, "a" * 64) is None


def test_results_root_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))
    assert records.results_root() == tmp_path
    monkeypatch.delenv("EFVAE_RESULTS")
    assert records.results_root() == records.project_root() / "results"
    assert (records.project_root() / "efvae" / "records" / "store.py").is_file()


def run(config: Config, *, results=None, refresh=False, checkpoint=None) -> Record:
    hash(config)  # a frozen config holds tuples, no lists
    record = made(config, metrics={"refresh": refresh, "checkpoint": checkpoint is not None})
    if results is not None:
        records.write(record, results)
    return record


def test_command_reads_each_value_by_its_declared_type(tmp_path, capsys):
    words = ["seed=3", "lr=1e-2", "hidden=8,8", "joint=false", "encoder=oracle"]
    options = ["--results", str(tmp_path), "--refresh", "--checkpoint", str(tmp_path / "c")]
    assert records.main(Config, run, words + options) == 0
    (record,) = records.load("sec9_test", tmp_path)
    assert record.config == records.config_dict(Config("oracle", 3, 1e-2, (8, 8), joint=False))
    assert record.metrics == {"refresh": 1.0, "checkpoint": 1.0}
    assert record.cell in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sed=3", "did you mean 'seed'"),
        ("seed", "expected key=value"),
        ("--sed=3", "expected key=value"),
        ("seed=3.5", "seed: expected a whole number"),
        ("lr=fast", "lr: expected a finite number"),
        ("lr=nan", "lr: expected a finite number"),
        ("joint=1", "joint: expected true or false"),
        ("hidden=8,x", "hidden: expected whole numbers"),
        ("lr=-1", "lr must be positive; got -1.0"),
        ("--results", "needs a path"),
    ],
)
def test_command_refuses_bad_input_in_one_line(word, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))
    assert records.main(Config, run, [word]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--results", "--refresh"], ["--results", ""], ["--checkpoint", "--results", "x"]])
def test_command_takes_no_option_for_a_path(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))
    assert records.main(Config, run, words) == 2
    assert capsys.readouterr() == ("", f"error: {words[0]} needs a path after it\n")


def test_command_refuses_an_option_that_is_given_twice(tmp_path, capsys):
    assert records.main(Config, run, ["--results", str(tmp_path), "--results", "x"]) == 2
    assert capsys.readouterr().err == "error: --results is given twice: give it once\n"


def test_command_refuses_a_key_that_is_given_twice(tmp_path, capsys):
    assert records.main(Config, run, ["seed=1", "seed=2", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: key 'seed' is given twice: give it once\n"
    assert list(tmp_path.iterdir()) == []


def test_command_ends_in_one_line_when_interrupted(capsys):
    def interrupted(config, **options):
        raise KeyboardInterrupt

    assert records.main(Config, interrupted, []) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_command_says_which_package_is_missing(capsys, monkeypatch):
    for name, extra in (("safetensors", "train"), ("PIL", "images"), ("sklearn", "digits")):
        monkeypatch.setitem(sys.modules, name, None)
        assert records.main(Config, lambda config, name=name, **options: importlib.import_module(name), []) == 2
        told = f"error: this needs {name}, which is not installed: pip install 'efvae[{extra}]'\n"
        assert capsys.readouterr() == ("", told)
    for wrong in ("efvae_misspelled", "json.misspelled"):  # a fault of the code keeps its traceback
        with pytest.raises(ImportError):
            records.main(Config, lambda config, wrong=wrong, **options: importlib.import_module(wrong), [])


def test_command_says_that_memory_ran_out(capsys):
    def run(config, **options):
        torch.empty(2**60)

    assert records.main(Config, run, []) == 1
    out, told = capsys.readouterr()
    assert not out
    assert told.startswith("error: out of memory: ")
    assert told.endswith(": take a smaller width, size or batch\n")
    assert told.count("\n") == 1


def test_a_missing_package_is_looked_for_in_the_extra_that_brings_it():
    extras = tomllib.loads((records.project_root() / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    called = {"PIL": "pillow", "pytorch_fid": "pytorch-fid", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    for package, extra in command._EXTRAS.items():
        assert any(re.match(rf"{called.get(package, package)}\b", need) for need in extras[extra]), package


def test_command_ends_quietly_when_nobody_reads():
    code = (
        "import dataclasses, sys; from efvae import records\n"
        "config = dataclasses.make_dataclass('Config', [('seed', int, 0)])\n"
        "sys.exit(records.main(config, print, ['--help']))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_command_help_lists_the_keys(capsys):
    assert records.main(Config, run, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "lr: float (default 0.001)" in out
    assert "--checkpoint" in out


def test_importing_records_needs_nothing_heavy():
    code = "import sys, efvae.records; print([m for m in ('torch', 'numpy', 'matplotlib', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
