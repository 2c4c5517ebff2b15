"""The paper map: every numbered item of the paper, and where its page, code, notebook cell and test are.

Pointers are found by the label: a page that defines it, a docstring whose last line names it, a notebook cell and a
test that mention it. A table also needs records of all its numbers.
"""

from __future__ import annotations

import ast
import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tools.sources import ROOT

# what a closed item needs, by the kind of its label
STATEMENT = ("page", "code", "notebook", "test")
NEEDS = {"sec": ("page", "notebook"), "app": ("page", "notebook"), "fig": ("page", "notebook"),
         "tab": ("page", "notebook", "records"), "case": ("page", "notebook"), "fn": ("page",)}  # fmt: skip

# tests of the book itself mention labels without testing what they stand for
NO_WITNESS = {"test_paper_map.py", "test_book.py", "test_notebooks.py", "test_scoreboard.py", "test_pages.py"}

TARGETS = re.compile(
    r"""^\(([\w-]+)\)=\s*$              # (label)= above a heading or block
    | ^\s*:(?:label|name):\s*([\w-]+)   # option of a directive
    | \$\$\s*\(([\w-]+)\)\s*$           # label of a displayed formula
    | ["']name["']\s*:\s*["']([\w-]+)["']  # figure made by a notebook cell
    """,
    re.MULTILINE | re.VERBOSE,
)
SOURCE_LINE = re.compile(r"^\s*(?:Paper|Own):\s*(.+?)\.?\s*$", re.MULTILINE)
LABEL = r"(?<![\w-]){}(?![\w-])"


@dataclass(frozen=True)
class Item:
    """One row of book/paper_map.yml."""

    id: str
    title: str
    status: str
    page: str
    exempt: dict[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """The pointers that a closed row must have."""
        wanted = NEEDS.get(self.id.split("-")[0], STATEMENT)
        return tuple(kind for kind in wanted if kind not in self.exempt)


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    title: str
    items: tuple[Item, ...]


@dataclass
class Pointers:
    """Where each label was found: label -> places, per kind."""

    page: dict[str, list[str]] = field(default_factory=dict)
    code: dict[str, list[str]] = field(default_factory=dict)
    notebook: dict[str, list[str]] = field(default_factory=dict)
    test: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, list[str]] = field(default_factory=dict)

    def of(self, kind: str, label: str) -> list[str]:
        """The places of one kind where a label was found."""
        places: dict[str, list[str]] = getattr(self, kind)
        return places.get(label, [])


def read_map(root: Path = ROOT) -> list[Group]:
    """Read book/paper_map.yml; a malformed row is a ValueError that quotes it."""
    path = root / "book" / "paper_map.yml"
    groups = []
    for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
        items = tuple(_item(row, group["page"]) for row in group["items"])
        groups.append(Group(group["title"], items))
    return groups


def _item(row: dict[str, Any], page: str) -> Item:
    fields = {"page": page, **row}
    if set(fields) - {"exempt"} != {"id", "title", "status", "page"} or fields["status"] not in ("open", "closed"):
        raise ValueError(f"book/paper_map.yml: expected id, title, status open or closed, [page], [exempt]; got {row}")
    item = Item(**fields)
    if set(item.exempt) - set(STATEMENT) or not all(item.exempt.values()):
        raise ValueError(f"book/paper_map.yml: exempt of {item.id} must give a reason for one of {STATEMENT}")
    return item


def missing(item: Item, found: Pointers) -> list[str]:
    """The pointers that an item needs and that were not found."""
    return [kind for kind in item.needs if not found.of(kind, item.id)]


def discover(root: Path = ROOT) -> Pointers:
    """Find every label in pages, docstrings, notebooks and tests."""
    found = Pointers(page=_pages(root), code=_docstrings(root), records=_answered(root))
    items = [item for group in read_map(root) for item in group.items]
    labels = {item.id for item in items}
    for path in sorted((root / "notebooks").glob("*.py")):
        # the notebook of a section is known by its stem and need not say its label
        whole = {item.id for item in items if item.page == path.stem and item.id.startswith(("sec-", "app-"))}
        _mentions(path.read_text("utf-8"), labels - whole, path.stem, found.notebook)
        for label in whole:
            found.notebook.setdefault(label, []).append(path.stem)
    for path in sorted((root / "tests").rglob("*.py")):
        if path.name not in NO_WITNESS:
            _mentions(path.read_text("utf-8"), labels, path.relative_to(root).as_posix(), found.test)
    return found


def _mentions(text: str, labels: set[str], place: str, into: dict[str, list[str]]) -> None:
    for label in labels:
        if re.search(LABEL.format(re.escape(label)), text):
            into.setdefault(label, []).append(place)


def _pages(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    texts = {f"book/{path.stem}": path.read_text("utf-8") for path in sorted((root / "book").glob("*.md"))}
    for path in sorted((root / "notebooks").glob("*.py")):
        # a py:percent text cell is commented out: its lines begin with "# "
        texts[f"notebooks/{path.stem}"] = re.sub(r"^# ?(?!%%)", "", path.read_text("utf-8"), flags=re.MULTILINE)
    for page, text in texts.items():
        for match in TARGETS.finditer(text):
            label = next(group for group in match.groups() if group)
            if page not in found.setdefault(label, []):
                found[label].append(page)
    return found


def _answered(root: Path) -> dict[str, list[str]]:
    """The tables of which the scoreboard has all numbers, within the tolerance or not."""
    path = root / "results" / "scoreboard.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "paper"]
    items = {row["item"] for row in rows} - {row["item"] for row in rows if row["verdict"] == "open"}
    return {item: ["results/scoreboard.csv"] for item in items}


def _docstrings(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted((root / "efvae").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for name, text in _documented(ast.parse(path.read_text("utf-8")), module):
            for label in source_labels(text):
                found.setdefault(label, []).append(name)
    return found


def source_labels(docstring: str) -> list[str]:
    """The labels of a docstring's `Paper:` or `Own:` line."""
    return [label.strip(" `") for match in SOURCE_LINE.finditer(docstring) for label in match[1].split(",")]


def _documented(node: ast.Module | ast.ClassDef, name: str) -> list[tuple[str, str]]:
    """Dotted names and docstrings of a module or class and what it defines; private names are left out."""
    found = [(name, ast.get_docstring(node) or "")]
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            inner = f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                found += _documented(child, inner)
            else:
                found.append((inner, ast.get_docstring(child) or ""))
    return found


def main() -> None:
    """Tell what stands between each started item and a closed row: `python -m tools.paper_map`."""
    found = discover()
    for item in (item for group in read_map() for item in group.items):
        lacks = missing(item, found)
        if item.status == "closed" or found.of("page", item.id):
            print(f"{item.id:12} {item.status:7} {'lacks ' + ', '.join(lacks) if lacks else 'has all it needs'}")


if __name__ == "__main__":
    main()
