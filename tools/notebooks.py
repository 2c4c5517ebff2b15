"""Rebuilds notebooks/*.ipynb from the py:percent sources, with outputs: `make notebooks`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from efvae.places import write_atomically
from tools import KERNEL_ENV, sources

# Runs last in the kernel and is dropped: which modules the outputs depend on.
PROBE = 'import json as _j, sys as _s\nprint(_j.dumps(sorted(m for m in _s.modules if m.split(".")[0] == "efvae")))'


def main(argv: list[str] | None = None) -> int:
    """Rebuild the named notebooks, or all; only those whose source or code changed unless forced."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("stems", nargs="*")
    parser.add_argument("--force", action="store_true")
    args = parser.parse_args(argv)
    known = sources.stems()
    unknown = [stem for stem in args.stems if stem not in known]
    if unknown:
        print(f"no notebook {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = 0
    for stem in args.stems or known:
        if not args.force and stale(stem) is None:
            print(f"{stem}: up to date")
            continue
        error = rebuild(stem)
        print(f"{stem}: {'executed' if error is None else error + '; the committed notebook is left as it was'}")
        failed += error is not None
    return 1 if failed else 0


def stale(stem: str) -> str | None:
    """Why notebooks/<stem>.ipynb is not what its source would give, or None."""
    path = sources.NOTEBOOKS / f"{stem}.ipynb"
    if not path.is_file():
        return "there is no .ipynb"
    built, source = nbformat.read(path, as_version=4), sources.read_source(stem)
    if [signature(cell) for cell in built.cells] != [signature(cell) for cell in source.cells]:
        return "the .py and the .ipynb differ"
    stamp = built.metadata.get("efvae", {})
    if stamp.get("code_sha256") != sources.code_hash(built, stamp.get("modules", [])):
        return "the code it was executed with has changed"
    return None


def signature(cell: nbformat.NotebookNode) -> tuple[str, str, tuple[str, ...], str]:
    """What a cell and its twin must share: type, source, tags, figure and other MyST settings."""
    settings = json.dumps(cell.metadata.get("mystnb", {}), sort_keys=True)
    return cell.cell_type, cell.source, tuple(cell.metadata.get("tags", [])), settings


def rebuild(stem: str) -> str | None:
    """Execute the source and replace the .ipynb; returns the error in one line, or None."""
    notebook = sources.read_source(stem)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(sources.NOTEBOOKS)}},
    )  # fmt: skip
    os.environ.pop("EFVAE_RESULTS", None)
    os.environ.update(KERNEL_ENV)
    try:
        client.execute(stderr=subprocess.DEVNULL)  # the kernel's own log; a cell's errors come through the notebook
    except CellExecutionError:
        return f"{sources.NOTEBOOKS.name}/{stem}.py, {sources.first_error(notebook)}"
    modules = json.loads(notebook.cells.pop().outputs[0].text)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not sources.kernel_noise(output)]
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": sources.KERNELSPEC,
            "language_info": {"name": "python"},
            "efvae": {"code_sha256": sources.code_hash(notebook, modules), "modules": modules},
        }
    )
    nbformat.validate(notebook)
    write_atomically(sources.NOTEBOOKS / f"{stem}.ipynb", nbformat.writes(notebook) + "\n")
    return None


if __name__ == "__main__":
    sys.exit(main())
