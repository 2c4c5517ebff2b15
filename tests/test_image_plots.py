"""Figures of section 4.2 show what they are given.

Labels: fig-3, fig-4, tab-1.
"""

from __future__ import annotations

import math

import matplotlib as mpl
import pytest
import torch
from torch import nn

mpl.use("Agg")

from efvae.experiments.image_pictures import drawn, reconstructions
from efvae.experiments.image_truth import Truth
from efvae.image_vae import ImageVAE
from efvae.plots import images as plots


@pytest.fixture(autouse=True)
def _closed():
    yield
    mpl.pyplot.close("all")


class Wide(nn.Module):
    """q(z | x) = N(x, 4 I)."""

    def forward(self, x):
        mean = x.flatten(1)
        return torch.cat([mean, 0 * mean + math.log(4)], 1)


def test_the_rows_of_fig_3_are_of_the_mean_code_and_of_a_sampled_one():
    """An image is its code with noise 0.1: the second row is off the first by the noise, the third by 2 more."""
    truth, columns = Truth(nn.Unflatten(1, (3, 1, 1)), 3, 0.1), 500
    rows = reconstructions(ImageVAE(truth.decoder, Wide(), 3, 0.1), truth, columns)
    assert rows.shape == (3, columns, 3, 1, 1)
    error = 1 / math.sqrt(2 * 3 * columns)  # of a standard deviation, relative
    for row, wanted in (
        (rows[0], math.hypot(1, 0.1)),
        (rows[1] - rows[0], 0.1),
        (rows[2] - rows[0], math.hypot(2, 0.1)),
    ):
        assert abs(float(row.std()) / wanted - 1) < 4 * error


def test_the_rows_of_fig_4_have_the_noise_of_their_model_and_the_same_latents():
    decoder, columns = nn.Unflatten(1, (3, 1, 1)), 500
    bare, little, much = (drawn(decoder, 3, sigma, columns)[0] for sigma in (0.0, 0.1, 0.3))
    error = 1 / math.sqrt(2 * 3 * columns)
    assert abs(float(bare.std()) - 1) < 4 * error
    assert abs(float((little - bare).std()) / 0.1 - 1) < 4 * error
    torch.testing.assert_close(much - bare, 3 * (little - bare))


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
