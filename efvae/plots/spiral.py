"""Figures of section 4.2's exact case: densities with the decoder's curve, training, decoders by coordinate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

__all__ = ["coordinates", "densities", "learning_curves"]

BLACK, BLUE, VERMILION, GREY = "black", "#0072b2", "#d55e00", "0.55"
#: Codes marked on each curve, and those of them that are named.
MARKS, NAMED = (-2.0, -1.0, 0.0, 1.0, 2.0), (-2.0, 0.0, 2.0)


def densities(axes: tuple[Tensor, Tensor], panels: Sequence[tuple[str, Tensor, Tensor | None]], z: Tensor) -> Figure:
    """Densities of x in grey, on one scale, with the decoder's curve μ_d(z) for −2.5 ≤ z ≤ 2.5 and codes marked on it.

    Args:
        axes: values of x1 and of x2.
        panels: title, p(x) with rows by x2, and μ_d on ``z``, shape ``(k, 2)``, or None for no curve; at most six.
        z: latent points, shape ``(k,)``.

    Paper: sec-4-2
    """
    figure, grid = plt.subplots(3, 2, figsize=(6.2, 9.4), layout="constrained", sharex=True, sharey=True)
    top = max(float(density.max()) for _, density, _ in panels)
    image = None
    for ax, (title, density, mean) in zip(grid.flat, panels, strict=False):
        image = ax.pcolormesh(*axes, density, cmap="Greys", vmin=0, vmax=1.15 * top, rasterized=True, shading="auto")
        if mean is not None:
            _curve(ax, mean, z)
        ax.set_title(title, fontsize=10)
        ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
        ax.label_outer()
    if image is not None:
        figure.colorbar(image, ax=grid, location="bottom", shrink=0.6, aspect=40, label="density of $x$, per unit area")
    return figure


def _curve(ax: Axes, mean: Tensor, z: Tensor) -> None:
    shown = z.abs() <= 2.5
    ax.plot(*mean[shown].T, color="white", linewidth=3.6)
    ax.plot(*mean[shown].T, color=VERMILION, linewidth=2)
    for mark in MARKS:
        x, y = mean[int((z - mark).abs().argmin())].tolist()
        ax.plot(x, y, "o", color=VERMILION, markeredgecolor="white", markersize=7)
        if mark in NAMED:
            text = ax.annotate(f"{mark:g}".replace("-", "−"), (x, y), xytext=(5, 5), textcoords="offset points")
            text.set(fontsize=9, path_effects=[withStroke(linewidth=2.5, foreground="white")])


def learning_curves(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    stored: Mapping[str, Sequence[Mapping[str, Sequence[float]]]],
    levels: Mapping[str, float],
) -> Figure:
    """ELBO and likelihood, bend, and noise: through the two stages of the encoder, then through both joint trainings.

    Args:
        curves: of this run, by stage: columns ``step``, ``elbo``, ``log_likelihood`` (nats), ``bent``, ``noise``.
        stored: the same of stored runs, by stage, drawn thin.
        levels: horizontal lines in the first panel, in nats.

    Paper: sec-4-2
    """
    figure, (bound, bend, noise) = plt.subplots(
        3, 1, figsize=(6.2, 7.6), layout="constrained", sharex=True, height_ratios=(2.2, 1, 1)
    )
    start = {"conditional": 0, "encoder": 1, "fixed": 2, "learned": 2}
    styles = {"conditional": BLACK, "encoder": BLACK, "fixed": BLUE, "learned": VERMILION}
    for name, at in start.items():
        for column, width in [*((c, 0.7) for c in stored.get(name, ())), (curves[name], 2.0)]:
            x = at + torch.tensor(column["step"]) / max(*column["step"], 1.0)
            bound.plot(x, column["log_likelihood"], color=styles[name], linewidth=width, linestyle="dashed")
            marker = "o" if name == "fixed" and width > 1 else None  # the two joint trainings lie over each other
            bound.plot(x, column["elbo"], color=styles[name], linewidth=width, marker=marker, markersize=4)
            bend.plot(x, column["bent"], color=styles[name], linewidth=width, marker=marker, markersize=4)
            noise.plot(x, column["noise"], color=styles[name], linewidth=width, marker=marker, markersize=4)
    for index, (text, level) in enumerate(levels.items()):
        bound.axhline(level, color=GREY, linewidth=1.2, linestyle="dotted")
        below = {"xytext": (0, -11 if index else 3), "textcoords": "offset points"}  # the first two are close
        bound.annotate(text, (0.03, level), fontsize=8.5, color="0.3", **below)
    for ax in (bound, bend, noise):
        for border in (1, 2):
            ax.axvline(border, color="0.8", linewidth=1, zorder=0)
    for name, label in (
        ("encoder", "encoder only"),
        ("fixed", "both, noise fixed"),
        ("learned", "both, noise learned"),
    ):
        marker = "o" if name == "fixed" else None
        bound.plot([], [], color=styles[name], linewidth=2, marker=marker, markersize=4, label=label)
    bound.plot([], [], color="0.3", label="solid: ELBO")
    bound.plot([], [], color="0.3", linestyle="dashed", label="dashed: log-likelihood")
    bound.set(ylabel="nats", ylim=(min(levels.values()) - 0.35, max(levels.values()) + 0.07))
    bend.set(ylabel="bend (share of the\ndecoder not affine)", ylim=(0, 1))
    noise.set(ylabel=r"$\sigma_{\mathrm{d}}$", xlim=(0, 3))
    noise.set_xticks([0.5, 1.5, 2.5], ["encoder,\nconditional likelihood", "encoder,\nELBO", "both,\nELBO"])
    noise.tick_params(axis="x", length=0)
    figure.legend(*bound.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def coordinates(z: Tensor, decoders: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Both coordinates of decoders against z, each with its best affine fit under the prior.

    Args:
        z: latent points, shape ``(k,)``.
        decoders: for each name μ_d on ``z`` and its affine fit, shape ``(k, 2)`` each; at most three.

    Paper: sec-4-2
    """
    figure, both = plt.subplots(2, 1, figsize=(6.2, 6.0), layout="constrained", sharex=True)
    styles = [(BLACK, "solid"), (BLUE, "dashed"), (VERMILION, "dashdot")]
    shown = z.abs() <= 3
    for index, ax in enumerate(both):
        for (name, (mean, fit)), (colour, line) in zip(decoders.items(), styles, strict=False):
            ax.plot(z[shown], mean[shown, index], color=colour, linestyle=line, linewidth=2, label=name)
            ax.plot(z[shown], fit[shown, index], color=colour, linewidth=0.9, linestyle=line)
        ax.set(ylabel=rf"$\mu_{{\mathrm{{d}},{index + 1}}}(z)$")
    both[0].plot([], [], color="0.4", linewidth=0.9, label="thin: best affine fit")
    both[1].set(xlabel="$z$  (prior: standard normal)", xlim=(-3, 3))
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure
