"""The declared parameters of a notebook: read, typed, with their allowed ranges; and values checked against them.

A notebook's first code cell, tagged ``parameters``, holds one typed assignment a line; the comment may begin with
the allowed range::

    seed: int = 0  # in [0, 2**31): seed of the run
    encoder: str = "factorized"  # in {factorized, joint}

Own: own-run
"""

from __future__ import annotations

import ast
import io
import os
import tokenize
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efvae.values import TYPES, Range, Value, convert, nearest, parse, parse_range, shown

__all__ = [
    "Parameter",
    "UsageError",
    "chosen_values",
    "declared_parameters",
    "load_notebook",
    "one_line",
    "read_texts",
]


class UsageError(ValueError):
    """Bad input, in one line: what is wrong, what was expected.

    Own: own-run
    """


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a notebook.

    Args:
        name: the variable.
        kind: its type, one of ``efvae.values.TYPES``.
        default: the value it has in the notebook.
        allowed: the allowed range, or None if every value of the type is.
        help: the rest of the comment.

    Own: own-run
    """

    name: str
    kind: str
    default: Value
    allowed: Range | None
    help: str

    def check(self, given: object, *, from_text: bool) -> Value:
        """Bring a given value to the declared type and range.

        Args:
            given: text from a command line, or a default, or text or a list of texts from YAML.
            from_text: whether it is the former.

        Raises:
            UsageError: it does not fit.

        Own: own-run
        """
        try:
            value = parse(str(given), self.kind) if from_text else convert(given, self.kind)
        except ValueError as error:
            raise UsageError(f"parameter {self.name}: {error}") from None
        if self.allowed is not None and value not in self.allowed:
            each = "each item " if self.kind.startswith("list[") else ""
            raise UsageError(f"parameter {self.name}: expected {each}{self.allowed.text}; got {shown(value)}")
        return value


def load_notebook(path: Path) -> Any:
    """Read a notebook, from either form, as a node that says it needs the kernel ``python3``.

    Args:
        path: a ``.py`` (py:percent) or ``.ipynb`` file.

    Raises:
        UsageError: it cannot be read, or papermill or jupytext is not installed.

    Own: own-run
    """
    try:
        import jupytext
        import nbformat
        import papermill  # noqa: F401 - so that its absence shows here, in one line
    except ImportError as error:
        raise UsageError(
            f"running notebooks needs {error.name}: pip install -r requirements.txt (or 'efvae[notebooks]')"
        ) from None
    try:
        form = "py:percent" if path.suffix == ".py" else "ipynb"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cells without a number, which get one
            node = jupytext.reads(path.read_text(encoding="utf-8"), fmt=form)
        _require_cells(node)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        raise UsageError(f"{path} is not a notebook: {one_line(error)}") from None
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    node.metadata["kernelspec"] = kernel
    node.metadata.setdefault("language_info", {})["name"] = "python"
    return node


def _require_cells(node: Any) -> None:
    """What is used of a notebook; much else in it may be against the format."""
    cells = node.get("cells")
    if not isinstance(cells, list) or not isinstance(node.get("metadata"), dict):
        raise ValueError("it has no list of cells, or no metadata")
    for cell in cells:
        if not isinstance(cell, dict) or "cell_type" not in cell or not isinstance(cell.get("source"), str):
            raise ValueError("a cell has no type or no source")


def declared_parameters(path: Path) -> list[Parameter]:
    """Read the declared parameters of a notebook, in their order.

    Args:
        path: a ``.py`` (py:percent) or ``.ipynb`` file.

    Returns:
        The parameters; none if no cell is tagged ``parameters``.

    Raises:
        UsageError: a line of that cell is no typed one-line assignment, its default does not fit its range,
            or papermill would read the cell differently.

    Own: own-run
    """
    node = load_notebook(Path(path))
    import papermill

    tagged = [c for c in node.cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])]
    if not tagged:
        return []
    try:
        parameters = _read_cell(str(tagged[0].source))
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise UsageError(f"{path}: parameters cell: {one_line(error)}") from None
    # papermill has its own reading, and skips what it does not understand: both must see the same names
    seen = set(papermill.inspect_notebook(node))
    for parameter in parameters:
        if parameter.name not in seen:
            raise UsageError(f"{path}: papermill cannot read {parameter.name}: keep it to one line with one '='")
    return parameters


def _read_cell(source: str) -> list[Parameter]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    parameters = []
    for node in ast.parse(source).body:
        one_line = node.lineno == node.end_lineno
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value and one_line):
            raise ValueError(f"line {node.lineno}: expected a line such as 'seed: int = 0  # in [0, 10]: what it is'")
        name, kind = node.target.id, ast.unparse(node.annotation)
        if kind not in TYPES:
            raise ValueError(f"{name}: type {kind} is not one of {', '.join(TYPES)}")
        allowed, text = parse_range(comments.get(node.lineno, ""), kind)
        default = ast.literal_eval(node.value)
        parameter = Parameter(name, kind, default, allowed, text)
        parameters.append(Parameter(name, kind, parameter.check(default, from_text=False), allowed, text))
    return parameters


def chosen_values(
    path: Path, parameters: Sequence[Parameter], pairs: Iterable[tuple[str, str]] = (), profile: str | None = None
) -> dict[str, Value]:
    """Check a profile and values from the command line against the declared parameters; the latter win.

    Args:
        path: the notebook; its profiles are ``params/<stem>.<profile>.yaml`` beside it.
        parameters: what it declares.
        pairs: names and values as typed.
        profile: the name of a profile, or a path to a YAML file.

    Raises:
        UsageError: an unknown name, a wrong type, a value out of range, or a profile that cannot be read.

    Own: own-run
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Value] = {}
    if profile is not None:
        source = _profile_path(path, profile)
        for name, given in _read_profile(source).items():
            values[name] = _lookup(known, name, f" (in {source})").check(given, from_text=False)
    for name, text in pairs:
        values[name] = _lookup(known, name).check(text, from_text=True)
    return values


def _lookup(known: Mapping[str, Parameter], name: str, where: str = "") -> Parameter:
    if name not in known:
        raise UsageError(f"unknown parameter {shown(name)}{where}: {nearest(name, known)}")
    return known[name]


def _profile_path(notebook: Path, profile: str) -> Path:
    folder, stem = notebook.parent / "params", notebook.stem
    named = folder / f"{stem}.{profile}.yaml"
    if profile.endswith((".yaml", ".yml")) or os.sep in profile:
        named = Path(profile)
    try:
        if named.is_file():
            return named
    except (OSError, ValueError):
        pass  # as in find_notebook
    profiles = [p.name.removeprefix(f"{stem}.").removesuffix(".yaml") for p in folder.glob(f"{stem}.*.yaml")]
    raise UsageError(f"no profile {shown(profile)} for {stem}: {nearest(profile, profiles)}")


def _read_profile(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        content = read_texts(path.read_text(encoding="utf-8"), deepest=2)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the profile {path}: {one_line(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"profile {path}: expected lines 'name: value'; got {shown(content)}")
    return content


def read_texts(text: str, deepest: int) -> Any:
    """Read YAML as texts, lists and dictionaries: what a text means is for the declared type to say.

    Anchors, of which a few lines make gigabytes, tags, and keys that are given twice are refused.

    Args:
        text: the YAML.
        deepest: how deep lists and dictionaries may lie in each other.

    Raises:
        ValueError: one of these. PyYAML raises its own ``YAMLError`` where the text is no YAML.

    Own: own-run
    """
    import yaml

    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            raise ValueError(f"line {line}: expected no anchors (&) and aliases (*); write the values out")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line}: expected no tags (!); leave them away, or put the text in quotes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            raise ValueError(f"line {line}: expected at most {deepest} lists or dictionaries in each other")
    return _texts(yaml.compose(text, Loader=yaml.BaseLoader))


def _texts(node: Any) -> Any:
    if node is None or isinstance(node.value, str):
        return node and node.value
    if node.id == "sequence":
        return [_texts(item) for item in node.value]
    texts: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key.value, str):
            raise ValueError(f"line {line}: expected a name before ':'")
        if key.value in texts:
            raise ValueError(f"line {line}: {shown(key.value)} is given twice; give it once")
        texts[key.value] = _texts(value)
    return texts


def one_line(error: BaseException) -> str:
    """Put an error's message on one line of at most 300 characters.

    Args:
        error: any.

    Own: own-run
    """
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
