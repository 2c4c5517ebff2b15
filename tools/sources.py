"""Notebook sources, the code they run, and hashes that tell whether either changed."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from tools import KERNEL_ENV

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def kernel_env() -> dict[str, str]:
    """The environment of this process with the kernel's settings and no foreign results folder."""
    inherited = {k: v for k, v in os.environ.items() if k != "EFVAE_RESULTS"}
    return inherited | KERNEL_ENV | {"NO_COLOR": "1"}


def stems() -> list[str]:
    """Stems of all notebooks, from their sources."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def read_source(stem: str) -> nbformat.NotebookNode:
    """The notebook of notebooks/<stem>.py: fixed cell ids, kernel python3, no outputs, no foreign metadata."""
    notebook = jupytext.read(NOTEBOOKS / f"{stem}.py", fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{stem}-{index:02d}".replace("_", "-")
        cell.metadata.pop("lines_to_next_cell", None)  # blank lines that ruff keeps in the source
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def first_error(notebook: nbformat.NotebookNode) -> str | None:
    """`cell 5: ValueError: ...` for the first failed cell, else None."""
    number = 0
    for cell in notebook.cells:
        # the banner cell that papermill puts above a failure is not one of ours
        if cell.cell_type != "code" or "papermill-error-cell-tag" in cell.metadata.get("tags", []):
            continue
        number += 1
        for output in cell.outputs:
            if output.output_type == "error":
                lines = str(output.evalue).strip().splitlines() or [""]
                return f"code cell {number}: {output.ename}: {lines[0]}"
    return None


def code_only(source: str) -> str:
    """Python source without comments, docstrings and blank lines: what changes when behaviour can."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic
        return source
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        head = node.body[0]
        if isinstance(head, ast.Expr) and isinstance(head.value, ast.Constant) and isinstance(head.value.value, str):
            for row in range(head.lineno, (head.end_lineno or head.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def code_hash(notebook: nbformat.NotebookNode, modules: Iterable[str]) -> str:
    """sha256 over the notebook's code cells and the code of the named efvae modules."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            digest.update(code_only(cell.source).encode() + b"\0")
    for name in sorted(modules):
        digest.update(f"{name}\0{module_code(name)}\0".encode())
    return digest.hexdigest()


def module_code(name: str) -> str:
    """Code of an efvae module by its dotted name; empty for a module that is no more."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return code_only(path.read_text("utf-8"))
    return ""


def package_hash() -> str:
    """sha256 over the code of all of efvae."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "efvae").rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{code_only(path.read_text('utf-8'))}\0".encode())
    return digest.hexdigest()


def tree_hash(*roots: Path) -> str:
    """sha256 over the names and bytes of all files below the given files and folders."""
    digest = hashlib.sha256()
    for root in roots:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root.parent).as_posix()}\0".encode())
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def kernel_noise(output: Any) -> bool:
    """True for what ipykernel prints on its own account (P18: a warning on every run)."""
    return output.output_type == "stream" and output.name == "stderr" and "Kernel is running over TCP" in output.text
