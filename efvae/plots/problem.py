"""Figures: numbers in, a matplotlib figure out. The only module that imports matplotlib.

Everything is told apart by luminance, line style or marker, not by hue alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["likelihood_and_gap_along", "trade_off"]

BLACK, BLUE, VERMILION, YELLOW = "black", "#0072b2", "#d55e00", "#f0e442"
_HALO = [withStroke(linewidth=3, foreground="white")]


def trade_off(
    axis: Tensor,
    loss: Tensor,
    gap: Tensor,
    interaction: Tensor,
    *,
    ml: Tensor,
    vae: Tensor,
    consistent: Tensor,
    path: Tensor,
    pull: Tensor,
) -> Figure:
    """Fig. 1 of the paper, computed: contours of L, shading of F, the optima and what pulls at θ_VAE.

    Args:
        axis: values of θ1, and of θ2, on the grid, shape ``(r,)``.
        loss: L(θ_ML) − L(θ) in nats, rows by θ2, columns by θ1, shape ``(r, r)``.
        gap: F(θ) in nats, likewise.
        interaction: vanishes on the consistent set, likewise.
        ml, vae, consistent: θ_ML, θ_VAE and the best consistent θ, shape ``(2,)``.
        path: maximisers of L − βF as β grows, shape ``(n, 2)``.
        pull: ∇L(θ_VAE), shape ``(2,)``; only its direction is drawn.

    Paper: fig-1
    """
    figure, ax = plt.subplots(figsize=(5.2, 6.3), dpi=130, layout="constrained")
    # The valley around the zero set matters more than the peaks: unequal levels, and a norm that spreads small values.
    gap_levels = [0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5]
    norm = PowerNorm(0.5, 0.0, 1.0)
    shading = ax.contourf(axis, axis, gap, levels=gap_levels, cmap="Blues", norm=norm, extend="max")
    levels = [0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7]
    lines = ax.contour(axis, axis, loss, levels=levels, colors="0.25", linewidths=0.9)
    ax.clabel(lines, levels=levels[1::2], fontsize=8, fmt="%g")
    ax.contour(axis, axis, interaction, levels=[0.0], colors=VERMILION, linewidths=3, linestyles="dashed")
    ax.plot([], [], color=VERMILION, linewidth=3, linestyle="dashed", label=r"consistent set, $F=0$")
    ax.plot(
        [], [], color="0.25", linewidth=0.9, label=r"$\mathcal{L}(\theta_{\mathrm{ML}})-\mathcal{L}(\theta)$ [nats]"
    )
    ax.plot(*path.T, ".", color=BLACK, markersize=4, label=r"maximisers of $\mathcal{L}-\beta F$, growing $\beta$")
    marks: Sequence[tuple[Tensor, str, str, float, str]] = [
        (ml, "o", BLACK, 8, r"$\theta_{\mathrm{ML}}$"),
        (consistent, "s", VERMILION, 8, r"best consistent $\theta$"),
        (vae, "*", YELLOW, 15, r"$\theta_{\mathrm{VAE}}$"),
    ]
    for place, marker, colour, size, label in marks:
        ax.plot(*place, marker, color=colour, markersize=size, markeredgecolor=BLACK, label=label, zorder=4)
    step = 0.11 * float(axis[-1] - axis[0]) * pull / pull.norm()
    _arrow(ax, vae, step, BLACK, r"$\nabla\mathcal{L}$")
    _arrow(ax, vae, -step, BLUE, r"$-\nabla F$")
    ax.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", aspect="equal")
    figure.colorbar(
        shading,
        ax=ax,
        location="bottom",
        shrink=0.9,
        pad=0.02,
        ticks=gap_levels,
        format="%g",
        label=r"least gap $F(\theta)$ [nats]",
    )
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def _arrow(ax: Axes, tail: Tensor, step: Tensor, colour: str, label: str) -> None:
    (x, y), (dx, dy) = tail.tolist(), step.tolist()
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (x + dx, y + dy), (x, y), arrowprops=style, zorder=3)
    side = 0.5 if dy < 0 else -0.5  # always to the left
    beside = (x + 0.7 * dx + side * dy, y + 0.7 * dy - side * dx)
    ax.annotate(label, beside, color=colour, ha="center", va="center", path_effects=_HALO, zorder=5)


def likelihood_and_gap_along(beta: Tensor, loss: Tensor, gap: Tensor) -> Figure:
    """What is lost in likelihood and in tightness at the maximiser of L − βF, over β.

    Args:
        beta: weights, shape ``(n,)``, > 0.
        loss: L(θ_ML) − L(θ_β) in nats, shape ``(n,)``.
        gap: F(θ_β) in nats, shape ``(n,)``.

    Paper: eq-2, fig-1
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.4), dpi=130, layout="constrained")
    ax.plot(beta, loss, color=BLACK, label=r"lost likelihood $\mathcal{L}(\theta_{\mathrm{ML}})-\mathcal{L}(\theta)$")
    ax.plot(beta, gap, color=BLUE, linestyle="dashed", label=r"least gap $F(\theta)$")
    ax.plot(beta, loss + gap, color=VERMILION, linestyle="dotted", linewidth=2.5, label="their sum, the VAE error (2)")
    ax.axvline(1.0, color="0.5", linewidth=0.8)
    ax.annotate(r"ELBO, $\beta=1$", (1.08, 0.92), xycoords=("data", "axes fraction"))
    ax.set(xscale="log", xlabel=r"weight $\beta$ of the gap", ylabel="nats", ylim=(0, None))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", fontsize=8.5, frameon=False)
    return figure
