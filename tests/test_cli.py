"""`efvae run`: what it injects, and that every bad input is refused in one line before anything runs."""

import ast
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from efvae import __version__, cli, records, runner, values
from efvae.experiments import rbm
from tests.faults import alive
from tests.sweeps import full_disk

ROOT = Path(__file__).parents[1]

NOTEBOOK = """\
# %% [markdown]
# # A tiny notebook

# %% tags=["parameters"]
seed: int = 0  # in [0, 2**31): seed of the run
rate: float = 0.5  # in (0, 1]: a step size
encoder: str = "factorized"  # in {factorized, joint}
joint: bool = True  # train both
name: str = "a"  # any text
bits: list[int] = [8, 16]  # in [1, 64]: sizes
rates: list[float] = []
tags: list[str] = ["x"]

# %%
import json

print(json.dumps([seed, rate, encoder, joint, name, bits, rates, tags]))

# %%
assert name != "fail", "told to\\nfail"
"""


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(NOTEBOOK)
    return path


def efvae(*words) -> int:
    """Run the command; argparse leaves by SystemExit."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def refused(capsys, *words) -> str:
    assert efvae(*words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("efvae")
    assert told.err.count("\n") == 1
    return told.err


def printed(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output.text for cell in cells for output in cell.get("outputs", []) if "text" in output]
    return json.loads(outputs[0])


def test_declared_parameters(notebook):
    seed, rate, encoder, joint, name, bits, rates, tags = runner.declared_parameters(notebook)
    assert (seed.name, seed.kind, seed.default, seed.help) == ("seed", "int", 0, "seed of the run")
    assert (2**31 - 1 in seed.allowed, 2**31 in seed.allowed, -1 in seed.allowed) == (True, False, False)
    assert (0.0 in rate.allowed, 1.0 in rate.allowed) == (False, True)
    assert (encoder.allowed.choices, joint.allowed, name.help) == (("factorized", "joint"), None, "any text")
    assert [p.kind for p in (bits, rates, tags)] == ["list[int]", "list[float]", "list[str]"]
    assert (bits.default, [1, 64] in bits.allowed, [0] in bits.allowed) == ([8, 16], True, False)


def test_values_that_a_checking_cell_refuses_are_bad_input(tmp_path, capsys):
    path = tmp_path / "checked.py"
    cells = (
        '# %% tags=["parameters"]\nseed: int = 0\n',
        '# %% tags=["check"]\nif seed == 1:\n    raise ValueError("no,\\nnot 1")\nassert seed != 2\n',
        '# %%\nif seed == 3:\n    raise ValueError("later")\n',
    )
    path.write_text("\n".join(cells))
    output = tmp_path / "out.ipynb"
    assert "no, not 1" in refused(capsys, "run", path, "-p", "seed", 1, "-o", output)
    assert sorted(tmp_path.iterdir()) == [path]
    for seed in (2, 3):  # other errors, other cells
        assert efvae("run", path, "-p", "seed", seed, "-o", output) == 1
    assert (tmp_path / "out.failed.ipynb").exists()


def test_declared_parameters_of_an_ipynb(notebook, tmp_path):
    import jupytext

    jupytext.write(jupytext.read(notebook), tmp_path / "tiny.ipynb")
    assert runner.declared_parameters(tmp_path / "tiny.ipynb") == runner.declared_parameters(notebook)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = 0", "expected a line such as"),
        ("seed: int", "expected a line such as"),
        ("seed: int = (\n    0)", "expected a line such as"),
        ("seed: complex = 0", "type complex is not one of"),
        ("seed: int = 2**31", "malformed node"),
        ("seed: int = 0.5", "parameter seed: expected a whole number"),
        ("seed: int = 5  # in [0, 2]", "parameter seed: expected in [0, 2]; got 5"),
        ("seed: int = 5  # in [0, many]", "could not convert"),
        ("seed: int = 5  # in [0; 2]", "cannot read the range"),
        ('name: str = "a"  # in [a, b]', "cannot read the range"),
        ("seed: int = 0  # set so that a = b", "papermill cannot read seed"),
        ("seed: int = (", "parameters cell"),
    ],
)
def test_a_wrong_declaration_is_named(line, message, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(f'# %% tags=["parameters"]\n{line}\n')
    with pytest.raises(runner.UsageError) as info:
        runner.declared_parameters(path)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("sede", "1"), "unknown parameter 'sede': did you mean 'seed'?"),
        (("seed", "abc"), "parameter seed: expected a whole number such as 16; got 'abc'"),
        (("seed", "1.0"), "parameter seed: expected a whole number"),
        (("seed", "-1"), "parameter seed: expected in [0, 2**31); got -1"),
        (("seed", str(2**31)), "parameter seed: expected in [0, 2**31)"),
        (("rate", "0"), "parameter rate: expected in (0, 1]; got 0.0"),
        (("rate", "nan"), "parameter rate: expected a finite number"),
        (("rate", "1e999"), "parameter rate: expected a finite number"),
        (("rate", "__import__('os')"), "parameter rate: expected a finite number"),
        (("encoder", "fatorized"), "expected in {factorized, joint}; got 'fatorized'"),
        (("joint", "1"), "parameter joint: expected true or false; got '1'"),
        (("bits", "8,100"), "parameter bits: expected each item in [1, 64]; got [8, 100]"),
        (("bits", "8;16"), "parameter bits: expected whole numbers separated by commas"),
        (("rates", "1,,2"), "parameter rates: expected finite numbers separated by commas"),
        (("name", "\udcff"), "parameter name: expected text"),
    ],
)
def test_bad_values_are_refused(given, message, notebook, capsys):
    assert message in refused(capsys, "run", notebook, "-p", *given)


def test_bad_words_are_refused(notebook, capsys):
    assert "expected 2 arguments" in refused(capsys, "run", notebook, "-p", "seed")
    assert "unrecognized arguments" in refused(capsys, "run", notebook, "--profil_", "x")
    assert "unrecognized arguments: --param" in refused(capsys, "run", notebook, "--param", "seed", "7", "--list")
    assert "unrecognized arguments: --lis" in refused(capsys, "run", notebook, "--lis")
    assert "unrecognized arguments: --dry" in refused(capsys, "sweep", "sec4_1_artificial", "--dry")
    assert "invalid choice" in refused(capsys, "rum")
    assert "parameter 'seed' is given twice" in refused(capsys, "run", notebook, "-p", "seed", 1, "-p", "seed", 2)
    assert "-p belongs to" in refused(capsys, "scoreboard", "-p", "a", "b")


def test_a_missing_notebook_names_the_nearest(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "sec4_1_artificial.py").write_text(NOTEBOOK)
    monkeypatch.setattr(runner, "project_root", lambda: tmp_path)
    assert "did you mean 'sec4_1_artificial'?" in refused(capsys, "run", "sec4_1_artifical")
    assert "did you mean 'sec4_1_artificial'?" in refused(capsys, "run", "notebooks/sec41_artificial.py")
    for odd in ("", "..", "/", "a\0b", "x" * 5000, "../notebooks/sec4_1_artificial"):
        assert "no notebook" in refused(capsys, "run", odd)
    assert runner.find_notebook("sec4_1_artificial").name == "sec4_1_artificial.py"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b'{"nbformat": 3}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 5}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [5]}',
    ],
)
def test_a_file_that_is_no_notebook_is_refused(content, tmp_path, capsys):
    path = tmp_path / "broken.ipynb"
    path.write_bytes(content)
    assert "is not a notebook" in refused(capsys, "run", path)


def write_profile(notebook: Path, text: str, name: str = "quick") -> None:
    (notebook.parent / "params").mkdir(exist_ok=True)
    (notebook.parent / "params" / f"tiny.{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", "unknown parameter 'sede' (in "),
        ("seed: true", "parameter seed: expected a whole number"),
        ("seed: 1.5", "parameter seed: expected a whole number"),
        ("seed: -1", "parameter seed: expected in [0, 2**31); got -1"),
        ("rate: fast", "parameter rate: expected a finite number"),
        ("rate: .nan", "parameter rate: expected a finite number"),
        ("seed: 1:30", "parameter seed: expected a whole number such as 16; got '1:30'"),
        ("seed: 0x10", "parameter seed: expected a whole number such as 16; got '0x10'"),
        ("joint: yes", "parameter joint: expected true or false; got 'yes'"),
        ("name: [16]", "parameter name: expected text; got ['16']"),
        ("seed: 1\nrate: 1\nseed: 2", "line 3: 'seed' is given twice; give it once"),
        ("bits: eight", "parameter bits: expected whole numbers"),
        ("bits: [[8]]", "line 1: expected at most 2 lists or dictionaries in each other"),
        ("bits: [" * 10_000, "line 1: expected at most 2 lists"),
        ("bits: &a [8]", "line 1: expected no anchors (&) and aliases (*); write the values out"),
        ("bits: *a", "line 1: expected no anchors"),
        ("seed: !!int 1", "line 1: expected no tags (!)"),
        ("[1]: 2", "line 1: expected a name before ':'"),
        ("- seed", "expected lines 'name: value'"),
        ("seed: [1", "cannot read the profile"),
        ("seed: !!python/object/apply:os.getcwd []", "cannot read the profile"),
        ("1: 2", "unknown parameter '1'"),
    ],
)
def test_a_bad_profile_is_refused(text, message, notebook, capsys):
    write_profile(notebook, text)
    assert message in refused(capsys, "run", notebook, "--profile", "quick")


def test_a_profile_is_read_as_the_command_line_is(notebook):
    write_profile(notebook, "seed: 010\nname: 010\nrate: 1_0e-2\nbits: 07\ntags: [no, 1.50, 'a,b']\n")
    chosen = runner.chosen_values(notebook, runner.declared_parameters(notebook), [], "quick")
    assert chosen == {"seed": 10, "name": "010", "rate": 0.1, "bits": [7], "tags": ["no", "1.50", "a,b"]}


def test_a_missing_profile_names_the_nearest(notebook, capsys):
    write_profile(notebook, "seed: 1", "smoke")
    assert "did you mean 'smoke'?" in refused(capsys, "run", notebook, "--profile", "smok")
    assert "no profile 'a/b.yaml'" in refused(capsys, "run", notebook, "--profile", "a/b.yaml")


def test_values_on_the_command_line_win_over_the_profile(notebook):
    write_profile(notebook, "seed: 1\nrate: 1e-3\njoint: false\nbits: [1, 2]\n")
    parameters = runner.declared_parameters(notebook)
    chosen = runner.chosen_values(notebook, parameters, [("seed", "2"), ("tags", "a, b"), ("rates", "")], "quick")
    assert chosen == {"seed": 2, "rate": 1e-3, "joint": False, "bits": [1, 2], "tags": ["a", "b"], "rates": []}
    by_path = runner.chosen_values(notebook, parameters, [], str(notebook.parent / "params" / "tiny.quick.yaml"))
    assert by_path["seed"] == 1


def test_an_output_that_cannot_be_written_is_refused_before_the_run(notebook, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", None)  # would fail if it were reached
    (tmp_path / "blocked").write_text("")
    assert "cannot write" in refused(capsys, "run", notebook, "-o", tmp_path / "blocked" / "out.ipynb")
    assert "is a folder" in refused(capsys, "run", notebook, "-o", _folder(tmp_path / "out.ipynb"))
    assert "must end in .ipynb" in refused(capsys, "run", notebook, "-o", tmp_path / "out.txt")
    assert "cannot write" in refused(capsys, "run", notebook, "-o", tmp_path / ("x" * 300 + ".ipynb"))


def test_folders_and_devices_among_the_parameters_are_checked_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", None)  # would fail if it were reached
    path = tmp_path / "tiny.py"
    path.write_text('# %% tags=["parameters"]\nresults_dir: str = ""\ndevice: str = "cpu"\n')
    (tmp_path / "blocked").write_text("")
    told = refused(capsys, "run", path, "-p", "results_dir", tmp_path / "blocked" / "runs")
    assert "results_dir: cannot write" in told
    assert "Not a directory; name a folder that can be written" in told
    assert "device cuda:99 is not there" in refused(capsys, "run", path, "-p", "device", "cuda:99")


def test_outside_a_checkout_the_command_says_what_it_needs(tmp_path, capsys, monkeypatch):
    for module in ("runner", "records.origin"):
        monkeypatch.setattr(f"efvae.{module}.project_root", lambda: tmp_path)
    monkeypatch.delenv("EFVAE_RESULTS", raising=False)
    assert "no notebook 'sec2_tightness': name a file, or run this in a check" in refused(
        capsys, "run", "sec2_tightness"
    )
    assert re.search(r"paper_values.csv is not there: run this in a checkout", refused(capsys, "scoreboard"))


def test_a_file_that_cannot_be_used_is_one_line(capsys, monkeypatch):
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr("efvae.runner.find_notebook", denied)
    assert refused(capsys, "run", "x") == "efvae: error: cannot use /secret: Permission denied\n"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


NASTY = 'it\'s "quoted" \\ \n\t {seed} ; import os # é 漢 \x00 \\" \u2028'


def test_a_notebook_is_not_overwritten_by_its_own_run(notebook, tmp_path, capsys):
    source = tmp_path / "mine.ipynb"
    nbformat.write(runner.load_notebook(notebook), source)
    before = source.read_bytes()
    assert "is the notebook itself" in refused(capsys, "run", source, "-o", source)
    assert source.read_bytes() == before


def test_values_are_really_injected(notebook, tmp_path, capfd):
    out = tmp_path / "deep" / "{seed}.ipynb"  # papermill would fill in braces of a path
    words = ["-p", "seed", "7", "-p", "rate", "1e-3", "-p", "joint", "false", "-p", "name", NASTY]
    words += ["-p", "bits", "", "-p", "rates", "-1,2", "-p", "tags", 'a"b,--c']
    assert efvae("run", notebook, *words, "-o", out) == 0
    assert capfd.readouterr() == (f"{out}\n", "")
    assert printed(out) == [7, 1e-3, "factorized", False, NASTY, [], [-1.0, 2.0], ['a"b', "--c"]]
    assert [p.name for p in out.parent.iterdir()] == ["{seed}.ipynb"]


def test_what_the_kernel_logs_about_itself_is_not_told(tmp_path, capfd):
    path = tmp_path / "noisy.py"
    path.write_text(f"{NOTEBOOK}\n# %%\nget_ipython().kernel.log.error('interrupted')\n")
    assert efvae("run", path, "-o", tmp_path / "out.ipynb") == 0
    assert capfd.readouterr().err == ""


@contextlib.contextmanager
def running(folder: Path, cell: str):
    """A run whose last cell is under way, and the process of its kernel; temporary files go to `scratch`."""
    scratch = _folder(folder / "scratch")
    started, path = folder / "started", folder / "slow.py"
    cell = f"import os, time, pathlib\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n{cell}\n"
    path.write_text(f"{NOTEBOOK}\n# %%\n{cell}")
    words = [sys.executable, "-m", "efvae", "run", str(path), "-o", str(folder / "out.ipynb")]
    process = subprocess.Popen(words, env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)})
    try:
        assert _within(120, lambda: started.exists() and started.read_text())
        yield process, int(started.read_text())
    finally:
        process.kill()
        process.wait()


def test_a_terminated_run_leaves_nothing(tmp_path):
    with running(tmp_path, "time.sleep(600)") as (process, kernel):
        process.terminate()
        assert process.wait(timeout=60) == 143
        assert _within(60, lambda: not Path(f"/proc/{kernel}").exists()) or not Path("/proc").exists()
    assert [path.name for path in (tmp_path / "scratch").iterdir() if not path.name.startswith("torch")] == []
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a kernel ends only once its cell lets Python's lock go")
def test_the_kernel_of_a_killed_run_ends_though_its_cell_keeps_pythons_lock(tmp_path):
    with running(tmp_path, "sum(range(10**12))") as (process, kernel):
        process.kill()
        try:
            assert _within(10, lambda: not alive(kernel))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernel, signal.SIGKILL)


def _within(seconds: float, done: Callable[[], object]) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_a_failing_cell_is_one_line_and_keeps_the_notebook(notebook, tmp_path, capsys):
    out = tmp_path / "out.ipynb"
    assert efvae("run", notebook, "-p", "name", "fail", "-o", out) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "AssertionError: told to fail" in told
    assert str(tmp_path / "out.failed.ipynb") in told
    assert not out.exists()
    assert printed(tmp_path / "out.failed.ipynb")[4] == "fail"


def test_a_disk_that_is_full_is_refused_before_the_run(notebook, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", None)  # would fail if it were reached
    with full_disk():
        told = refused(capsys, "run", notebook, "-o", tmp_path / "out.ipynb")
    assert re.search(r"cannot write '.*: File too large; free some space$", told)
    monkeypatch.setattr("tempfile.tempdir", None)  # not looked for yet
    with full_disk(0):
        told = refused(capsys, "run", notebook, "-o", tmp_path / "out.ipynb")
    assert re.search(r"No usable temporary directory .*: free some space, or let TMPDIR name a folder", told)
    assert list(tmp_path.iterdir()) == [notebook]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder of temporary files, on a disk of its own as far as the tests are concerned."""
    folder = _folder(tmp_path / "scratch")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_notebook_that_finds_no_room_while_it_runs_is_one_line(notebook, scratch, tmp_path, capsys):
    size = 1 << 17  # there is room until a cell prints more
    notebook.write_text(f"{NOTEBOOK}\n# %%\nprint('x' * {size})\n")
    with full_disk(size):
        told = refused(capsys, "run", notebook, "-o", tmp_path / "out.ipynb")
    assert re.search(rf"cannot write {scratch}, where .*: File too large; free some space$", told)
    assert (list(scratch.iterdir()), sorted(tmp_path.iterdir())) == ([], [scratch, notebook])


def test_a_kernel_that_is_too_slow_is_no_full_disk(notebook, scratch, tmp_path, capsys, monkeypatch):
    """Though nbclient's error is one of the system, by its class."""

    def execute(node, path, **how):
        path.write_text(json.dumps({"cells": []}))
        raise TimeoutError("Timeout waiting for IOPub output")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    assert efvae("run", notebook, "-o", tmp_path / "out.ipynb") == 1
    assert "failed with Timeout waiting for IOPub output; see" in capsys.readouterr().err
    assert (tmp_path / "out.failed.ipynb").is_file()


@pytest.mark.parametrize("fails", [False, True])
def test_an_executed_notebook_that_finds_no_room_is_kept(fails, notebook, scratch, tmp_path, capsys, monkeypatch):
    executed = json.dumps({"cells": [], "long": "x" * 5000})
    with contextlib.ExitStack() as until_the_end:

        def execute(node, path, **how):
            path.write_text(executed)
            until_the_end.enter_context(full_disk())
            if fails:
                raise RuntimeError("told to fail")

        monkeypatch.setattr("papermill.execute_notebook", execute)
        code = efvae("run", notebook, "-o", tmp_path / "out.ipynb")
    told = capsys.readouterr().err
    (kept,) = scratch.iterdir()
    assert (code, told.count("\n"), "a cell failed with told to fail; cannot" in told) == (1 if fails else 2, 1, fails)
    name = "out.failed.ipynb" if fails else "out.ipynb"
    assert f"cannot write {tmp_path / name}: File too large; free some space; the executed notebook is {kept}" in told
    assert kept.read_text() == executed
    assert sorted(tmp_path.iterdir()) == [scratch, notebook]


def test_default_output_depends_on_the_values_only(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "project_root", lambda: tmp_path)
    paths = [runner._default_output(Path("a/tiny.py"), {"seed": seed}) for seed in (0, 0, 1)]
    assert paths[0] == paths[1] != paths[2]
    assert paths[0].parent == tmp_path / "_build" / "runs"


def test_list_shows_the_declarations(notebook, capsys):
    assert efvae("run", notebook, "--list", "-p", "seed", "3") == 0
    assert "seed: int = 3  # in [0, 2**31): seed of the run" in capsys.readouterr().out


def test_nobody_reads_the_list(notebook):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "efvae", "run", notebook, "--list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=records.project_root())
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_folders_named_by_variables_are_ours_and_not_the_kernels(notebook, tmp_path, monkeypatch):
    named = ("EFVAE_RESULTS", "EFVAE_DATA", "EFVAE_IMAGES", "EFVAE_CACHE", "PYTHONPATH")
    for name, value in zip(named, ("mine", "../data", "~/images", "", ""), strict=True):
        monkeypatch.setenv(name, value)
    met = {}

    def execute(node, scratch, **how):
        met.update({name: os.environ[name] for name in named[:4]})
        scratch.write_text("{}")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    monkeypatch.chdir(tmp_path)
    assert efvae("run", notebook, "-o", tmp_path / "out.ipynb") == 0
    assert met == {
        "EFVAE_RESULTS": str(tmp_path / "mine"),
        "EFVAE_DATA": str(tmp_path / "../data"),
        "EFVAE_IMAGES": "~/images",
        "EFVAE_CACHE": "",
    }


def _parameters(folder: Path) -> tuple[Path, list[runner.Parameter]]:
    path = folder / "tiny.py"
    path.write_text(NOTEBOOK)
    return path, runner.declared_parameters(path)


NAMES = st.sampled_from(["seed", "rate", "encoder", "joint", "name", "bits", "rates", "tags"]) | st.text()
TEXT = st.text(st.characters(codec=None)) | st.integers().map(str) | st.floats().map(str)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return _parameters(tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(NAMES, TEXT | st.lists(TEXT).map(",".join)), max_size=4))
@example([("seed", "9" * 5000)])
@example([("bits", "1_0,٣")])
@example([("rate", "-0")])
def test_no_value_ends_in_a_traceback(tiny, pairs):
    path, parameters = tiny
    try:
        chosen = runner.chosen_values(path, parameters, pairs)
    except runner.UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
    else:  # what is let through has the declared type and range, and survives the way into the notebook
        known = {p.name: p for p in parameters}
        for name, value in chosen.items():
            assert known[name].check(value, from_text=False) == value
            assert ast.literal_eval(_injected(value)) == value


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(values.TYPES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
@example("float", 10**400)
def test_no_yaml_value_ends_in_a_traceback(kind, value):
    try:
        values.convert(value, kind)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017


def _injected(value) -> str:
    from papermill.translators import PythonTranslator

    return PythonTranslator.translate(value)


def test_help_is_fast_and_needs_no_notebook_packages():
    code = (
        "import sys; from efvae import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'papermill', 'jupytext', 'yaml', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "scoreboard" in done.stdout


def test_version(capsys):
    assert efvae("--version") == 0
    assert capsys.readouterr().out == f"efvae {__version__}\n"


def test_without_papermill_one_line_says_how_to_get_it(notebook, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    told = refused(capsys, "run", notebook)
    assert "papermill" in told
    assert "pip install" in told


def test_without_an_optional_package_one_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.yaml").write_text("stem: sec4_1_artificial")
    monkeypatch.setitem(sys.modules, "yaml", None)
    told = refused(capsys, "sweep", tmp_path / "a.yaml", "--dry-run")
    assert told == "efvae: error: this needs yaml, which is not installed: pip install 'efvae[notebooks]'\n"
    rbm._sha256.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "pip install 'efvae[digits]'" in refused(capsys, "sweep", "sec3_1_rbm", "--dry-run")


def test_every_notebook_of_the_project_declares_its_parameters():
    folder = records.project_root() / "notebooks"
    for path in sorted(folder.glob("*.py")):
        declared = runner.declared_parameters(path)
        assert [p.name for p in declared], path
        for profile in (folder / "params").glob(f"{path.stem}.*.yaml"):
            runner.chosen_values(path, declared, [], str(profile))
