"""Figures of section 3: gaps over encoder depth, over the angle of two columns, over the number of statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

__all__ = ["gap_over_angle", "gap_over_depth", "gap_over_statistics"]

BLACK, BLUE, VERMILION, GREY = "black", "#0072b2", "#d55e00", "0.55"
_STYLES = ((VERMILION, "o"), (BLUE, "s"), (BLACK, "^"))
#: Smaller gaps are drawn here: below it only rounding and the end of the optimisation show.
ZERO = 1e-10


def gap_over_depth(gaps: Mapping[str, Tensor], floors: Mapping[str, Tensor]) -> Figure:
    """Gap left by trained encoders over their number of hidden layers, and the least gap of their family.

    Args:
        gaps: for each kind of decoder the gaps in nats, rows by seed, columns by depth from 0, shape ``(s, d)``.
        floors: for each kind the least gap in nats of each seed's decoder, shape ``(s,)``.

    Paper: cor-1, cor-2
    """
    figure, ax = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
    for (name, gap), (colour, marker) in zip(gaps.items(), _STYLES, strict=False):
        depth = range(gap.shape[1])
        shown, floor = gap.clamp(min=ZERO), floors[name]
        ax.plot(depth, shown.T, marker, color=colour, markersize=5, alpha=0.6, markerfacecolor="none")
        ax.plot(depth, shown.log().mean(0).exp(), color=colour, linewidth=1.2)
        ax.plot([], [], marker + "-", color=colour, markerfacecolor="none", label=name)
        if float(floor.mean()) > ZERO:
            ax.axhspan(float(floor.min()), float(floor.max()), color=colour, alpha=0.15, linewidth=0)
            ax.axhline(float(floor.log().mean().exp()), color=colour, linestyle="dotted", linewidth=2)
    ax.plot([], [], color=GREY, linestyle="dotted", linewidth=2, label="least gap of the family (band: seeds)")
    ax.set(yscale="log", xlabel="hidden layers of the encoder", ylabel="posterior gap [nats]", xticks=list(depth))
    ax.set_ylim(ZERO / 2, 3)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", fontsize=8.5, frameon=False)
    return figure


def gap_over_angle(centers: Mapping[str, Tensor], angle: Sequence[float], loss: Tensor, gap: Tensor) -> Figure:
    """Four Gaussian centers at some angles, and what the best ELBO loses over the angle.

    Args:
        centers: by title, the centers of the codes 00, 01, 10, 11, shape ``(4, 2)``, in standard deviations.
        angle: angles between the columns in degrees.
        loss: likelihood of the truth minus best ELBO, in nats, shape ``(a,)``.
        gap: the part of it that is posterior gap, in nats, shape ``(a,)``.

    Own: own-parallelogram
    """
    figure, axes = plt.subplot_mosaic([[*centers], ["loss"] * len(centers)], figsize=(5.4, 5.2), layout="constrained",
                                      height_ratios=[1, 1.4])  # fmt: skip
    for title, points in centers.items():
        ax = axes[title]
        ax.plot(*points[[0, 1, 3, 2, 0]].T, color=GREY, linewidth=1)
        for code, point in zip(("00", "01", "10", "11"), points.tolist(), strict=True):
            ax.add_patch(Circle(tuple(point), 1.0, facecolor="none", edgecolor=BLUE, linewidth=0.8))
            ax.annotate(code, point, ha="center", va="center", fontsize=8)
        ax.set(title=title, aspect="equal", xlim=(-4, 4), ylim=(-3, 3), xlabel=r"$x_1$ [σ]")
    axes[next(iter(centers))].set_ylabel(r"$x_2$ [σ]")
    ax = axes["loss"]
    ax.plot(angle, loss, "o-", color=VERMILION, label="lost by the best ELBO")
    ax.plot(angle, gap, "s--", color=BLUE, markerfacecolor="none", label="of this, posterior gap")
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set(xlabel="angle between the columns of $W$ [degrees]", ylabel="nats", ylim=(-0.03 * float(loss.max()), None))
    ax.legend(fontsize=8.5, frameon=False)
    return figure


def gap_over_statistics(counts: Sequence[int], gaps: Tensor) -> Figure:
    """Least gap of the encoder family over its number of statistics.

    Args:
        counts: numbers of statistics.
        gaps: least gap in nats, rows by decoder, columns by family, shape ``(s, len(counts))``.

    Own: own-statistics
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    ax.plot(counts, gaps.T, "o-", color=BLUE, alpha=0.45, markersize=4, linewidth=1)
    ax.plot(counts, gaps.mean(0), "s-", color=BLACK, linewidth=2, label="mean over decoders")
    ax.plot([], [], "o-", color=BLUE, alpha=0.45, label="one random decoder")
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set(xlabel="number of statistics of the encoder", ylabel="least posterior gap [nats]", xticks=list(counts))
    ax.legend(fontsize=8.5, frameon=False)
    return figure
