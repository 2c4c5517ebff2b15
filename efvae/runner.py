"""Run a notebook with other parameters, checked before anything runs.

Own: own-run
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from efvae import places
from efvae.parameters import (
    Parameter,
    UsageError,
    chosen_values,
    declared_parameters,
    load_notebook,
    one_line,
)
from efvae.records import project_root, write_atomically
from efvae.values import Value, nearest, shown

__all__ = ["Parameter", "RunError", "UsageError", "chosen_values", "declared_parameters", "execute", "find_notebook"]

#: Variables that name a file or a folder.
_FOLDERS = ("EFVAE_RESULTS", "EFVAE_DATA", "EFVAE_CACHE", "EFVAE_IMAGES", "EFVAE_INCEPTION")

#: Bytes that the folder of the output must have room for.
_ROOM = 1 << 16

#: The kernel, as it starts, asks for SIGKILL when its parent dies (PR_SET_PDEATHSIG). Its own watch over the parent is
#: a thread, which sees nothing while a cell keeps Python's lock. Such lines of a user's own profile are not run then.
_END_WITH_US = "--IPKernelApp.exec_lines=__import__('ctypes').CDLL(None).prctl(1, 9);"


class RunError(RuntimeError):
    """A notebook failed while running; the message is one line.

    Own: own-run
    """


def find_notebook(name: str) -> Path:
    """Find a notebook by its stem, such as ``sec4_1_artificial``, or by a path.

    Args:
        name: a stem of the folder ``notebooks``, or a path to a ``.py`` (py:percent) or ``.ipynb`` file.

    Raises:
        UsageError: there is none; the message names the nearest stem.

    Own: own-run
    """
    path, folder = Path(name), project_root() / "notebooks"
    try:
        if path.suffix in (".py", ".ipynb") and path.is_file():
            return path
        for candidate in (folder / f"{name}.py", folder / f"{name}.ipynb"):
            if candidate.parent == folder and candidate.is_file():
                return candidate
    except (OSError, ValueError):
        pass  # a name too long for the system, or with a NUL, is no file either
    if not folder.is_dir():
        raise UsageError(f"no notebook {shown(name)}: name a file, or run this in a checkout of the project")
    stems = {path.stem for path in folder.glob("*.py")} | {path.stem for path in folder.glob("*.ipynb")}
    raise UsageError(f"no notebook {shown(name)}: {nearest(Path(name).stem, stems)}")


def execute(path: Path, values: Mapping[str, Value], output: Path | None = None) -> Path:
    """Execute a notebook with the given values; the result appears whole, under its final name.

    Args:
        path: the notebook.
        values: checked values, as ``chosen_values`` gives them.
        output: where the executed notebook goes, by default ``_build/runs/<stem>-<hash>.ipynb`` of the project.

    Returns:
        The path of the executed notebook.

    Raises:
        UsageError: the output cannot be written, or is the notebook itself; a parameter ``..._dir`` names a folder that
            cannot be written, or ``device`` one that is not there; or the values are refused together, by a cell with
            the tag ``check``. Nothing is computed or stored then. Or there is no room, for temporary files or, at the
            end, for the output: the message then names the temporary file that the executed notebook is in.
        RunError: a cell failed; the message names the error and the notebook that shows it.

    Own: own-run
    """
    node = load_notebook(path)
    defaults = {parameter.name: parameter.default for parameter in declared_parameters(path)}
    _refuse_unusable(values)
    output = output or _default_output(path, defaults | dict(values))
    _probe(output)
    if output.exists() and output.samefile(path):
        raise UsageError(f"the output {output} is the notebook itself, which would be lost: name another file")
    import papermill

    os.environ["PYTHONPATH"] = os.pathsep.join(  # the kernel must find this package, installed or not
        [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    for name in _FOLDERS:  # relative ones are of our folder; the kernel starts in the notebook's
        if (named := os.environ.get(name)) and not named.startswith("~"):
            os.environ[name] = str(Path(named).absolute())
    with tempfile.TemporaryDirectory(prefix="efvae-") as folder:
        scratch = Path(folder) / "run.ipynb"
        try:
            papermill.execute_notebook(
                node,
                scratch,
                parameters=dict(values),
                kernel_name="python3",
                cwd=path.resolve().parent,
                progress_bar=False,
                # else the kernel warns on every start that it uses TCP, and calls the interrupt that begins its
                # shutdown an error when that finds it busy; what a cell raises is in the notebook
                extra_arguments=["--log-level=CRITICAL", *([_END_WITH_US] if sys.platform == "linux" else [])],
            )
        except Exception as error:  # a failing cell, a kernel that died, a kernel that did not start
            # papermill writes after each cell; what a cell raises comes as papermill's error
            if isinstance(error, OSError) and error.errno in places.NO_ROOM:
                where = f"{tempfile.gettempdir()}, where the notebook is kept while it runs"
                raise UsageError(f"cannot write {where}: {error.strerror}; {places.mend(error)}") from None
            if _refused(scratch):
                raise UsageError(one_line(Exception(getattr(error, "evalue", error)))) from None
            raise RunError(_failure(error, scratch, output)) from error
        _store(scratch, output)
    return output


def _refuse_unusable(values: Mapping[str, Value]) -> None:
    """Folders and devices, which mean the same in every notebook, before an hour of computation, not in a cell."""
    try:
        tempfile.gettempdir()
    except OSError as error:  # it names those that it tried
        raise UsageError(
            f"{error.strerror}: free some space, or let TMPDIR name a folder that can be written"
        ) from None
    for name, value in values.items():
        if name.endswith("_dir") and value:
            try:
                places.probe(project_root() / str(value))
            except OSError as error:
                raise UsageError(f"{name}: cannot write {value}: {error.strerror}; {places.mend(error)}") from None
    if (device := str(values.get("device", "cpu"))) != "cpu":
        from efvae.devices import DeviceError, find  # brings torch

        try:
            find(device)
        except DeviceError as error:
            raise UsageError(str(error)) from None


def _refused(scratch: Path) -> bool:
    """Whether it was a cell that checks the values that failed."""
    cells = json.loads(scratch.read_text(encoding="utf-8"))["cells"] if scratch.is_file() else []
    return any(
        output.get("ename") in ("ValueError", "DataError", "WeightsError")
        and "check" in cell["metadata"].get("tags", ())
        for cell in cells
        for output in cell.get("outputs", ())
    )


def _failure(error: Exception, scratch: Path, output: Path) -> str:
    name, value = getattr(error, "ename", None), getattr(error, "evalue", "")  # papermill's error has both
    told = f"{name}: {value}" if name else one_line(error)
    if not scratch.is_file():
        return f"the notebook did not run: {told}"
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    told = f"a cell failed with {' '.join(told.split())[:300]}"
    try:
        _store(scratch, failed)
    except UsageError as unstored:
        return f"{told}; {unstored}"
    return f"{told}; see {failed}"


def _default_output(path: Path, values: Mapping[str, Value]) -> Path:
    digest = hashlib.sha256(json.dumps([path.stem, values], sort_keys=True).encode()).hexdigest()[:8]
    return project_root() / "_build" / "runs" / f"{path.stem}-{digest}.ipynb"


def _probe(output: Path) -> None:
    """Refuse an output that cannot be written before an hour of computation, not after it."""
    if output.suffix != ".ipynb":
        raise UsageError(f"the output must end in .ipynb; got {shown(str(output))}")
    try:
        if output.is_dir():
            raise UsageError(f"the output {shown(str(output))} is a folder; name a file")
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UsageError(f"cannot write {shown(str(output))}: {reason}; {places.mend(error)}") from None


def _store(scratch: Path, target: Path) -> None:
    """Put the executed notebook in place; if it cannot be written there, it stays with the temporary files."""
    try:
        write_atomically(target, scratch.read_text(encoding="utf-8"))
    except OSError as error:
        kept = scratch.replace(scratch.parent.with_suffix(".ipynb"))
        reason = f"{error.strerror or error}; {places.mend(error)}"
        raise UsageError(f"cannot write {target}: {reason}; the executed notebook is {kept}") from None
