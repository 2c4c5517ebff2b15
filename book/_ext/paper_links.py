"""The paper's labels in the book: its numbers on statements, and links from docstrings to them.

A label says the number: eq-1a is "(1a)", thm-2 "Theorem 2", prop-a1 "Proposition A.1". Whatever carries such a
label gets that number; our own statements count E1, E2, ... in the book's order: neither is taken for the other.
A docstring's last line `Paper: eq-1a, thm-2` links each label that the book has; the others stay plain text.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole

KINDS = {
    "eq": "Eq.",
    "thm": "Theorem",
    "cor": "Corollary",
    "prop": "Proposition",
    "lem": "Lemma",
    "def": "Definition",
    "asm": "Assumption",
    "ex": "Example",
    "rem": "Remark",
    "sec": "Section",
    "app": "Appendix",
    "fig": "Fig.",
    "tab": "Table",
    "fn": "Footnote",
}
LABEL = re.compile(rf"({'|'.join(KINDS)})-([0-9a-z]+(?:-[0-9a-z]+)*)")
SOURCE_LINE = re.compile(r"\s*(Paper|Own):\s*(.+?)\.?\s*$")


def paper_number(label: str) -> str | None:
    """The number that a label of the paper says ("2", "1a", "A.1", "4.1"); None for one of our own."""
    if not (match := LABEL.fullmatch(label)):
        return None
    number = match[2].replace("-", ".")
    if letter := re.fullmatch(r"([a-d])(?:\.?(\d.*))?", number):
        return letter[1].upper() + (f".{letter[2]}" if letter[2] else "")
    return number


def paper_name(label: str) -> str:
    """The label in words: `thm-2` is "Theorem 2", `eq-1a` "Eq. (1a)"; our own labels lose their prefix."""
    number = paper_number(label)
    if number is None:
        return label.removeprefix("own-").replace("-", " ")
    kind = KINDS[label.split("-", 1)[0]]
    return f"{kind} ({number})" if kind == "Eq." else f"{kind} {number}"


# --- numbers -------------------------------------------------------------------------------------------------------


def number_by_label(app: Sphinx, env: BuildEnvironment) -> None:
    """Once all pages are read, replace running numbers of statements, figures and equations by the labels' numbers."""
    order = {name: index for index, name in enumerate(reading_order(env, env.config.root_doc))}
    running: dict[str, list[tuple[tuple[int, ...], str, str]]] = {}
    for docname, by_type in env.toc_fignumbers.items():
        for figtype, numbers in by_type.items():
            for node_id, number in numbers.items():
                # equations are counted here under `equation-<label>` when they follow the figures' scheme
                if (named := paper_number(node_id.removeprefix("equation-"))) is not None:
                    numbers[node_id] = (named,)
                else:
                    running.setdefault(figtype, []).append(((order.get(docname, 0), *number), docname, node_id))
    for figtype, entries in running.items():
        for count, (_, docname, node_id) in enumerate(sorted(entries), start=1):
            env.toc_fignumbers[docname][figtype][node_id] = (f"E{count}",)
    equations = env.get_domain("math").equations
    own = sorted((order.get(doc, 0), number, label) for label, (doc, number) in equations.items()
                 if paper_number(label) is None)  # fmt: skip
    names = {label: f"E{count}" for count, (_, _, label) in enumerate(own, start=1)}
    for label, (docname, _) in list(equations.items()):
        equations[label] = (docname, paper_number(label) or names[label])


def reading_order(env: BuildEnvironment, docname: str) -> list[str]:
    """Page names in the order of the table of contents."""
    names = [docname]
    for child in env.toctree_includes.get(docname, []):
        names += reading_order(env, child)
    return names


def write_equation_numbers(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Equation numbers sit in the pages themselves as well: put the final ones there."""
    equations = app.env.get_domain("math").equations
    for node in doctree.findall(nodes.math_block):
        if node.get("label") in equations:
            node["number"] = equations[node["label"]][1]


# --- links ---------------------------------------------------------------------------------------------------------


class PaperRole(SphinxRole):
    """`{paper}`thm-2``: the paper's item by its name, linked once all pages are known."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """A placeholder that `resolve_links` fills."""
        return [nodes.inline("", paper_name(self.text), classes=["paper-item"], paper_label=self.text)], []


def link_source_line(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring's last line `Paper: eq-1a, thm-2` into references."""
    for index in range(len(lines) - 1, -1, -1):
        if not lines[index].strip():
            continue
        if match := SOURCE_LINE.match(lines[index]):
            labels = [label.strip(" `") for label in match[2].split(",")]
            links = ", ".join(f":paper:`{label}`" for label in labels)
            source = "In the paper" if match[1] == "Paper" else "In the book"
            lines[index:] = ["", f"*{source}:* {links}", ""]
        return


def resolve_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link the placeholders whose labels the book has; a statement of ours that no page makes is not mentioned."""
    for node in list(doctree.findall(lambda n: isinstance(n, nodes.inline) and "paper_label" in n)):
        if (target := find(app.env, node["paper_label"])) is None:
            if node["paper_label"].startswith("own-") and isinstance(node.parent, nodes.paragraph):
                node.parent.replace_self([]) if len(node.parent) == 3 else node.parent.remove(node)
            continue
        page, anchor = target
        uri = app.builder.get_relative_uri(docname, page) if page != docname else ""
        link = nodes.reference("", "", nodes.Text(node.astext()), internal=True, refuri=f"{uri}#{anchor}")
        node.replace_self(link)


def find(env: BuildEnvironment, label: str) -> tuple[str, str] | None:
    """Page and anchor of a label: equation, statement, or any titled or plain target."""
    if found := env.get_domain("math").equations.get(label):
        return found[0], f"equation-{label}"
    if found := getattr(env, "proof_list", {}).get(label):
        return found["docname"], label
    found = env.get_domain("std").anonlabels.get(label)
    return (found[0], found[1]) if found else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the two halves; links come after numbers."""
    app.add_role("paper", PaperRole())
    app.connect("autodoc-process-docstring", link_source_line, priority=400)
    app.connect("env-check-consistency", number_by_label)
    app.connect("doctree-resolved", write_equation_numbers)
    app.connect("doctree-resolved", resolve_links)
    return {"version": "1", "parallel_read_safe": True}
