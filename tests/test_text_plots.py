"""Figures of codes and silent units: what is drawn is what was given.

Labels: own-idle-bits, own-retrieval, own-text-rbm, own-text-silent, own-text-slope.
"""

from __future__ import annotations

import matplotlib as mpl
import pytest

mpl.use("agg")
plt = pytest.importorskip("matplotlib.pyplot")

from efvae.plots import text, text_codes  # noqa: E402 - the backend is chosen first


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


def test_the_table_is_labelled_once_for_all_its_rows():
    paper = {
        (split, (m, depth, encoder)): 400.0 + m
        for split in ("train", "test")
        for m in (8, 16)
        for depth in (0, 1, 2)
        for encoder in ("e1", "e2", "e3")
    }
    figure = text.table_2(paper, {"ours": {key: value + 1 for key, value in paper.items()}})
    assert figure.get_supylabel() == "NELBO, saturated [nats a document]"
    assert not any(ax.get_ylabel() for ax in figure.axes)
    assert len(figure.axes) == 6


def test_training_curves_are_told_apart_by_markers_too():
    curve = {"epoch": [1, 2, 3], "nelbo_train": [3, 2, 1], "nelbo_test": [3, 2.5, 2]}
    (ax,) = text.learning_curves({"one": {"e1": {**curve}, "e2": {**curve}, "e3": {**curve}}}).axes
    dashed = [line for line in ax.get_lines() if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert len({line.get_marker() for line in dashed}) == len(dashed) == 3


def test_values_are_drawn_by_rate_with_a_level_across():
    values = {"e1": {0.1: [2.0, 4.0], 0.01: [1.0]}, "e3": {0.01: [5.0]}}
    figure = text.by_rate({"one": values, "two": {"e2": {0.01: [7.0]}}}, ("fit", 0.5), most=6.0)
    one, two = figure.axes
    assert one.get_ylim()[1] == 6.0
    (legend,) = figure.legends
    assert {entry.get_text() for entry in legend.get_texts()} == {"e1", "e2", "e3", "fit"}  # of all panels
    lines = drawn(one)
    assert lines["e1"] == ([0.01, 0.1], [1.0, 3.0])
    assert lines["e3"] == ([0.01], [5.0])
    assert ([0.1, 0.1], [2.0, 4.0]) in lines.values()  # both seeds
    assert lines["fit"][1] == drawn(two)["fit"][1] == [0.5, 0.5]
    assert one.get_xscale() == "log"
    markers = {line.get_marker() for line in one.get_lines() if line.get_label() in ("e1", "e3")}
    assert len(markers) == 2  # not by colour alone


def test_silent_units_are_drawn_for_each_cell_and_kind():
    def curve(*shares):
        return {"epoch": [0, 1, 2], "silent": list(shares)}

    panels = {
        "first": {"relu": [curve(0, 0.3, 0.4), curve(0.1, 0.4, 0.5)], "leaky_relu": [curve(0, 0.3, 0.1)]},
        "second": {"relu": [curve(0.2, 0.2, 0.2)]},
    }
    first, second = text.silent_units(panels).axes
    shares = [list(line.get_ydata()) for line in first.get_lines()]
    assert shares == [[0, 0.3, 0.4], [0.1, 0.4, 0.5], [0, 0.3, 0.1]]
    assert len({line.get_linestyle() for line in first.get_lines()}) == 2  # not by colour alone
    assert [entry.get_text() for entry in first.get_legend().get_texts()] == ["relu", "leaky_relu"]
    assert len(second.get_lines()) == 1
    assert (first.get_title(), second.get_title()) == ("first", "second")
    assert first.get_ylim() == second.get_ylim()


def test_kinds_of_units_are_drawn_as_means_with_their_range():
    def curve(*nats):
        return {"epoch": [10, 20, 30], "nelbo_train": list(nats)}

    panels = {
        "one": {"relu": [curve(9, 8, 7), curve(9, 6, 5)], "leaky": [curve(9, 5, 3)]},
        "two": {"recycled": [curve(4, 3, 2)], "relu": [curve(4, 3, 2)]},
    }
    figure = text.slopes(panels, {"recycled": 15})
    one, two = figure.axes
    lines = one.get_lines()[:2]
    assert [list(line.get_ydata()) for line in lines] == [[9, 7, 6], [9, 5, 3]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 2  # not by colour alone
    corners = {tuple(point) for point in one.collections[0].get_paths()[0].vertices.tolist()}
    assert {(30.0, 7.0), (30.0, 5.0)} <= corners
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["relu", "leaky", "recycled"]
    colours = [[line.get_color() for line in ax.get_lines()[:2]] for ax in (one, two)]
    assert colours[0][0] == colours[1][1]
    assert len({*colours[0], *colours[1]}) == 3
    assert one.get_ylim()[0] < 3 < 9 < one.get_ylim()[1]
    assert [list(two.get_lines()[-1].get_xdata()), two.get_title()] == [[15, 15], "two"]
    assert len(one.get_lines()) == 2  # no kind that changes
    assert len(text.slopes(panels).axes[1].get_lines()) == 2
    with pytest.raises(ValueError, match="at most 5 kinds of units can be told apart; got 0, 1, 2, 3, 4, 5"):
        text.slopes({"one": {str(number): [curve(1, 2, 3)] for number in range(6)}})
