"""Figures of section 4.2 show what they are given.

Labels: fig-3, fig-4, tab-1.
"""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")

from efvae.plots import images as plots


@pytest.fixture(autouse=True)
def _closed():
    yield
    mpl.pyplot.close("all")


def test_rows_of_pictures_side_by_side():
    row = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    row[2] = 200
    figure = plots.picture_rows({"truth": row, "learned": 255 - row})
    assert [ax.get_ylabel() for ax in figure.axes] == ["truth", "learned"]
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown.shape == (8, 32, 3)
    assert (shown[:, 16:24] == 200).all()
    assert shown.sum() == 200 * 8 * 8 * 3
    with pytest.raises(ValueError, match="rows of one length"):
        plots.picture_rows({"a": row, "b": row[:2]})


def test_a_line_for_each_seed_in_each_panel():
    curve = {
        "step": [0.0, 10, 20],
        "elbo": [-5e4, 100, 200],
        "frechet_classifier": [1.0, 5, 6],
        "sigma": [0.05, 0.1, 0.1],
    }
    figure = plots.along_training({"fixed": [curve, curve], "learned": [curve]}, bound=4843.9)
    assert [len(ax.lines) for ax in figure.axes] == [3, 3, 3]
    assert list(figure.axes[0].lines[0].get_ydata()) == [4843.9 - elbo for elbo in curve["elbo"]]
    assert figure.axes[0].yaxis_inverted()  # a larger ELBO is higher up
    plain = plots.along_training({"fixed": [curve]})
    assert list(plain.axes[0].lines[0].get_ydata()) == curve["elbo"]
    assert list(figure.axes[1].lines[0].get_ydata()) == curve["frechet_classifier"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["fixed", "learned"]
    assert "FID" not in "".join(ax.get_title() for ax in figure.axes)
