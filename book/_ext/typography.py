"""Keeps a formula and the punctuation after it on one line: browsers break between the two, as around a picture."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

CLOSING = ".,;:!?)]’”"


def glue_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Wrap inline math and the closing marks that follow it."""
    for math in list(doctree.findall(nodes.math)):
        following = math.next_node(descend=False, siblings=True)
        if not isinstance(following, nodes.Text):
            continue
        text = str(following)
        count = len(text) - len(text.lstrip(CLOSING))
        if count == 0:
            continue
        parent, index = math.parent, math.parent.index(math)
        kept = nodes.inline("", "", math.deepcopy(), nodes.Text(text[:count]), classes=["unbroken"])
        parent[index : index + 2] = [kept, nodes.Text(text[count:])]


def setup(app: Sphinx) -> dict[str, Any]:
    """Runs once references are text."""
    app.connect("doctree-resolved", glue_punctuation)
    return {"version": "1", "parallel_read_safe": True}
