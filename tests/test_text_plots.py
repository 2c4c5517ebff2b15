"""Figures of codes: what is drawn is what was given.

Labels: own-retrieval, own-text-rbm.
"""

from __future__ import annotations

import matplotlib as mpl
import pytest

mpl.use("agg")
plt = pytest.importorskip("matplotlib.pyplot")

from efvae.plots import text_codes  # noqa: E402 - the backend is chosen first


def drawn(ax):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_precision_is_drawn_over_the_bits():
    found = {"e1": {16: [0.3, 0.5], 8: [0.2]}, "e3": {8: [0.1], 16: [0.15]}, "RBM": {8: [0.6]}}
    (ax,) = text_codes.precision(found, {"chance": 0.05}, k=50).axes
    lines = drawn(ax)
    assert lines["e1"] == ([8, 16], [0.2, pytest.approx(0.4)])
    assert lines["e3"] == ([8, 16], [0.1, 0.15])
    assert lines["RBM"] == ([8], [0.6])
    assert ([16, 16], [0.3, 0.5]) in lines.values()  # both seeds
    assert [text.get_text() for text in ax.texts] == ["chance"]
    assert any(y == [0.05, 0.05] for _, y in lines.values())
    assert "50" in ax.get_ylabel()
    styles = {name: line.get_linestyle() for name, line in zip(lines, ax.get_lines(), strict=True)}
    assert styles["e1"] != styles["e3"]  # not by colour alone
