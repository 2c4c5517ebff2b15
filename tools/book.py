"""Executes the notebooks into a staging folder and renders the book from it: `make book`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from tools import pages, sources
from tools.sources import NOTEBOOKS, ROOT

BUILD = ROOT / "_build"
AT_ONCE = 2
# MathJax's parts that a page can ask for; the package ships 24 MB of other inputs, outputs and languages.
MATHJAX_KEPT = ("tex-chtml.js", "output/chtml/fonts/woff-v2/", "input/tex/extensions/", "a11y/", "sre/mathmaps/en.json",
                "sre/mathmaps/base.json")  # fmt: skip


class BuildError(Exception):
    """Ends the build with one readable message."""


class Edition:
    """Where one edition of the book is built: the default one, or one per profile."""

    def __init__(self, profile: str | None) -> None:
        self.profile = profile
        self.root = BUILD if profile is None else BUILD / "editions" / profile
        self.executed = self.root / "executed"
        self.stage = self.root / "stage"
        self.html = self.root / "html"
        self.log = self.root / "book.log"


def main(argv: list[str] | None = None) -> int:
    """Build the book and print the path of its first page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--profile", help="smoke, full, or another name in notebooks/params/<stem>.<name>.yaml")
    args = parser.parse_args(argv)
    if args.profile is not None and not re.fullmatch(r"[\w-]+", args.profile):
        print(f"book: a profile is a plain name such as smoke or full; got {args.profile!r}", file=sys.stderr)
        return 2
    edition = Edition(args.profile)
    try:
        with one_at_a_time():
            execute_all(edition)
            stage(edition)
            render(edition)
    except BuildError as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    print(f"book: open {edition.html / 'index.html'}")
    return 0


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two builds in one checkout would write over each other: the second waits."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("book: another build is running; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- execution -----------------------------------------------------------------------------------------------------


def execute_all(edition: Edition) -> None:
    """Execute every notebook whose inputs changed, two at a time; all failures are told, one line each."""
    stems = sources.stems()
    parameters = {stem: profile_file(stem, edition.profile) for stem in stems}
    if edition.profile is not None and not any(parameters.values()):
        known = sorted({path.name.split(".")[-2] for path in NOTEBOOKS.glob("params/*.*.yaml")})
        raise BuildError(f"no notebook has a profile {edition.profile!r}; there are {', '.join(known) or 'none yet'}")
    for stem, path in parameters.items():
        refuse_bad_values(stem, path)
    edition.executed.mkdir(parents=True, exist_ok=True)
    package, versions = sources.package_hash(), environment()
    keys = {stem: f"{inputs_hash(stem, parameters[stem])} {package} {versions}" for stem in stems}
    wanted = [stem for stem in stems if stale(edition, stem, keys[stem])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        errors = pool.map(lambda stem: execute(edition, stem, parameters[stem], keys[stem]), wanted)
        failures = [error for error in errors if error is not None]
    if kept := len(stems) - len(wanted):
        print(f"book: {kept} notebook{'s' * (kept > 1)} unchanged, not executed again", flush=True)
    if failures:
        raise BuildError("\nbook: ".join(failures))


def profile_file(stem: str, profile: str | None) -> Path | None:
    """The notebook's parameter file of that profile; a notebook without one runs with its defaults."""
    if profile is None:
        return None
    path = NOTEBOOKS / "params" / f"{stem}.{profile}.yaml"
    return path if path.is_file() else None


def refuse_bad_values(stem: str, profile: Path | None) -> None:
    """Refuse an unknown parameter or a bad value before anything runs, as `efvae run` does."""
    if profile is None:
        return
    from efvae.parameters import UsageError, chosen_values, declared_parameters

    source = NOTEBOOKS / f"{stem}.py"
    try:
        chosen_values(source, declared_parameters(source), profile=str(profile))
    except UsageError as error:
        raise BuildError(f"{profile.name}: {error}") from None


def inputs_hash(stem: str, parameters: Path | None) -> str:
    """Hash of what the notebook reads besides the package: source, parameters, printed numbers, records."""
    source = NOTEBOOKS / f"{stem}.py"
    inputs = [source, *([parameters] if parameters else []), ROOT / "results" / "paper_values.csv"]
    return sources.tree_hash(*inputs, *records_read(source.read_text("utf-8")))


def records_read(source: str) -> list[Path]:
    """Folders of records that a notebook may read: named in its text, or of an experiment that it imports."""
    texts = {path.stem: path.read_text("utf-8") for path in (ROOT / "efvae" / "experiments").glob("*.py")}
    named = {module: re.search(r'^STEM = "(\w+)"', text, re.MULTILINE) for module, text in texts.items()}
    stems = {module: found[1] for module, found in named.items() if found}
    for module, text in texts.items():  # the name may be imported from another module
        if found := re.search(r"^from efvae\.experiments\.(\w+) import .*\bSTEM\b", text, re.MULTILINE):
            stems[module] = stems[found[1]]
    imports = re.findall(r"^from efvae\.experiments(.*)$", source, re.MULTILINE)
    used = {stems.get(word) for line in imports for word in re.findall(r"\w+", line)}
    folders = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir())
    return [folder for folder in folders if folder.name in used or f'"{folder.name}"' in source]


def environment() -> str:
    """Versions that numbers and pictures may depend on."""
    packages = ("torch", "numpy", "matplotlib")
    return " ".join(
        [f"python-{platform.python_version()}", *(f"{p}-{importlib.metadata.version(p)}" for p in packages)]
    )


def stale(edition: Edition, stem: str, key: str) -> bool:
    """Whether the executed notebook is missing or was made from other inputs."""
    stamp = edition.executed / f"{stem}.key"
    return not ((edition.executed / f"{stem}.ipynb").is_file() and stamp.is_file() and stamp.read_text() == key)


def execute(edition: Edition, stem: str, parameters: Path | None, key: str) -> str | None:
    """Run one notebook through papermill into the edition; returns the failure in one line, or None."""
    source, target = edition.executed / f"{stem}.source.ipynb", edition.executed / f"{stem}.ipynb"
    failed = edition.executed / f"{stem}.failed.ipynb"
    (edition.executed / f"{stem}.key").unlink(missing_ok=True)
    nbformat.write(sources.read_source(stem), source)
    command = [sys.executable, "-m", "papermill", str(source), str(failed), "--kernel", "python3",
               "--cwd", str(NOTEBOOKS), "--no-progress-bar", "--log-level", "ERROR"]  # fmt: skip
    if parameters:
        command += ["--parameters_file", str(parameters)]
    print(f"book: executing notebooks/{stem}.py", flush=True)
    start = time.monotonic()
    done = subprocess.run(command, env=sources.kernel_env(), capture_output=True, text=True, check=False)
    source.unlink(missing_ok=True)
    if done.returncode:
        return describe(stem, failed, done.stderr)
    clean(failed, target)
    failed.unlink()
    (edition.executed / f"{stem}.key").write_text(key)
    print(f"book: notebooks/{stem}.py done in {time.monotonic() - start:.0f} s", flush=True)
    return None


def describe(stem: str, failed: Path, stderr: str) -> str:
    """The failure of a notebook in one line: the cell's error if a cell failed, else papermill's last word."""
    error = sources.first_error(nbformat.read(failed, as_version=4)) if failed.is_file() else None
    if error is None:
        error = (stderr.strip().splitlines() or ["papermill failed without a message"])[-1]
    where = f" (as far as it got: {failed})" if failed.is_file() else ""
    return f"notebooks/{stem}.py failed, {error}{where}"


def clean(executed: Path, target: Path) -> None:
    """Drop what papermill and the kernel leave behind: paths, times, warnings of their own."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not sources.kernel_noise(output)]
    nbformat.write(notebook, target)


# --- staging and rendering -----------------------------------------------------------------------------------------


def stage(edition: Edition) -> None:
    """Lay out a fresh tree for Jupyter Book: settings, pages, generated pages, executed notebooks."""
    shutil.rmtree(edition.stage, ignore_errors=True)
    edition.stage.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, edition.stage)
    shutil.copytree(ROOT / "book", edition.stage / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (edition.stage / "notebooks").mkdir()
    for stem in sources.stems():
        shutil.copy(edition.executed / f"{stem}.ipynb", edition.stage / "notebooks")
    (edition.stage / "results").mkdir()
    for table in (ROOT / "results").glob("*.csv"):  # pages include them, so that no number is copied by hand
        shutil.copy(table, edition.stage / "results")
    pages.generate(edition.stage)


def render(edition: Edition) -> None:
    """Render the staged tree, strictly and from scratch, unless the same tree was rendered before."""
    key = (
        f"{sources.tree_hash(edition.stage, ROOT / 'efvae', ROOT / 'requirements.txt', Path(__file__))} {environment()}"
    )
    stamp = edition.root / "html.key"
    if stamp.is_file() and stamp.read_text() == key and (edition.html / "index.html").is_file():
        print("book: pages unchanged, not rendered again")
        return
    stamp.unlink(missing_ok=True)
    print("book: rendering", flush=True)
    output = edition.root / "render"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
               "build", str(edition.stage), "--path-output", str(output),
               "--all", "-q", "-W", "-n", "--keep-going"]  # fmt: skip
    # the staged tree holds no package: autodoc reads efvae from the checkout
    env = sources.kernel_env() | {"PYTHONPATH": str(ROOT)}
    with edition.log.open("w") as log:
        done = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise BuildError(f"the pages do not build cleanly (whole log: {edition.log})\n{tail(edition.log)}")
    prune_mathjax(output / "_build" / "html" / "_static" / "mathjax")
    shutil.rmtree(edition.html, ignore_errors=True)
    (output / "_build" / "html").rename(edition.html)
    shutil.rmtree(output)
    stamp.write_text(key)


def tail(log: Path, lines: int = 20) -> str:
    """The warnings and errors of a Sphinx log, or its end where there are none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text("utf-8", "replace"))
    text = re.sub(rf"{re.escape(str(ROOT))}/(_build/(editions/[^/]+/)?stage/)?", "", plain).splitlines()
    told = [line for line in text if "WARNING" in line or "ERROR" in line or "Error" in line]
    return "\n".join((told or text)[-lines:])


def prune_mathjax(folder: Path) -> None:
    """Keep of the copied MathJax only what pages load."""
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty: it is kept
                path.rmdir()
        elif not name.startswith(MATHJAX_KEPT):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
