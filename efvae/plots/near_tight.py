"""Figures of Theorem 2 and of Appendix A.2: numbers in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from efvae import bounds
from efvae.plots.problem import BLACK, BLUE, VERMILION

__all__ = ["bound_ladder", "curve_stages", "error_against_bound", "escape", "worst_cases"]

_MARKERS = ("o", "s", "^", "D", "v")


def bound_ladder(alpha: Tensor, found: Tensor, found_alpha: Tensor) -> Figure:
    """The constants in front of ε, each divided by the sharp one 2(1 − α)/α.

    Args:
        alpha: floors for the curves, shape ``(k,)``.
        found: largest ratio log²(q/p)/KL of a search, divided by the sharp constant, shape ``(states, s)``.
        found_alpha: floors of the search, shape ``(s,)``; rows of ``found`` are for 2, 3, … states.

    Own: own-bound-sharp
    """
    figure, ax = plt.subplots(figsize=(5.6, 3.9), layout="constrained")
    sharp = 2 * (1 - alpha) / alpha
    total = (1 + bounds.PAPER_CONSTANT) / 2
    curves: Sequence[tuple[Tensor, str, str, str]] = [
        (total / alpha.square(), VERMILION, "dashdot", r"the paper's route, $0.824\,/\alpha^2$"),
        (0.5 / alpha.square(), VERMILION, "dashed", r"Pinsker, $1/(2\alpha^2)$"),
        (2 / alpha, BLUE, "dashed", r"$2/\alpha$"),
        (sharp, BLACK, "solid", r"sharp, $2(1-\alpha)/\alpha$"),
    ]
    for constant, colour, style, label in curves:
        ax.plot(alpha, constant / sharp, color=colour, linestyle=style, label=label)
    for row, (ratio, marker) in enumerate(zip(found, _MARKERS, strict=False)):
        keep = ratio > 0
        ax.plot(found_alpha[keep], ratio[keep], marker, color="0.35", markersize=4, markerfacecolor="none",
                label=f"found by search, {row + 2} states")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel=r"floor $\alpha$ of encoder and posterior",
           ylabel="constant / sharp constant", ylim=(0.5, None))  # fmt: skip
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def worst_cases(epsilon: Tensor, alphas: Sequence[float]) -> Figure:
    """Exact worst case and its linear bound over ε, for several floors; two latent states.

    Own: own-worst-case
    """
    figure, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    for alpha, colour, style in zip(alphas, (BLACK, BLUE, VERMILION), ("solid", "dashed", "dashdot"), strict=False):
        floor = torch.tensor(alpha, dtype=torch.float64)
        ax.plot(epsilon, bounds.worst_case(epsilon, floor), color=colour, linestyle=style, label=rf"$\alpha={alpha}$")
        ax.plot(epsilon, bounds.bound_sharp(epsilon, floor), color=colour, linestyle="dotted", linewidth=1)
        end = bounds.saturation(floor)
        ax.plot(end, bounds.worst_case(end, floor), "o", color=colour)
    ax.plot([], [], color="0.3", linestyle="dotted", label=r"line $2(1-\alpha)\varepsilon/\alpha$")
    ax.set(xscale="log", yscale="log", xlabel=r"posterior gap $\varepsilon$ [nats]", ylim=(1e-4, 1e3),
           ylabel=r"largest $\sum_x p_d \log^2(q/p)$ [nats$^2$]")  # fmt: skip
    ax.legend(fontsize=8.5, frameon=False)
    return figure


def error_against_bound(groups: dict[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """True error of the projected harmonium against the sharp bound, and their ratio over α.

    Args:
        groups: by name: α of each VAE, its bound 2(1 − α)ε/α, its true error at the worst z, each of shape ``(k,)``.

    Paper: thm-2, eq-9
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.9), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(groups)))
    for (name, (alpha, bound, error)), marker, colour in zip(groups.items(), _MARKERS, colours, strict=False):
        style = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 3.5, "alpha": 0.8}
        left.plot(bound, error, label=name, **style)
        right.plot(alpha, error / bound, **style)
    low, high = left.get_xlim()
    left.plot([low, high], [low, high], color=BLACK, linewidth=1, label="error = bound")
    axis = torch.logspace(-6, np.log10(0.5), 50, dtype=torch.float64)
    right.plot(axis, torch.ones_like(axis), color=BLACK, linewidth=1)
    right.plot(axis, axis / (2 * (1 - axis)), color="0.4", linestyle="dashed", label=r"error $=\varepsilon$")
    left.set(xscale="log", yscale="log", xlabel=r"$2(1-\alpha)\varepsilon/\alpha$ [nats$^2$]",
             ylabel=r"error of the harmonium, worst $z$ [nats$^2$]")  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel=r"floor $\alpha$", ylabel="error / bound", ylim=(1e-6, 2))
    right.legend(fontsize=8.5, frameon=False, loc="lower right")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def escape(beta: Tensor) -> Figure:
    """Example A.1 over β: what vanishes, and what grows.

    Paper: ex-a1
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4), layout="constrained")
    kl, alpha = bounds.escape_kl(beta), bounds.escape_alpha(beta)
    left.plot(beta, kl, color=BLACK, label=r"gap $\varepsilon$ [nats]")
    left.plot(beta, alpha, color=BLUE, linestyle="dashed", label=r"floor $\alpha$")
    left.set(yscale="log", xlabel=r"$\beta$", ylabel=r"$\varepsilon$ [nats], $\alpha$", ylim=(1e-9, 2))
    curves: Sequence[tuple[Tensor, str, str, str]] = [
        (bounds.bound_sharp(kl, alpha), "0.4", "dotted", r"bound $2(1-\alpha)\varepsilon/\alpha$"),
        (bounds.escape_error(beta), BLACK, "solid", r"$\sum_x p_d\log^2(q/p)=2\beta^2$"),
        (bounds.escape_projection_error(beta), VERMILION, "dashed", r"nearest harmonium, $\beta^2$"),
    ]
    for value, colour, style, label in curves:
        right.plot(beta, value, color=colour, linestyle=style, label=label)
    right.set(yscale="log", xlabel=r"$\beta$", ylabel=r"squared log-ratio [nats$^2$]", ylim=(1e-3, 1e6))
    for ax in (left, right):
        ax.legend(fontsize=8.5, frameon=False)
    return figure


def curve_stages(
    variance: Sequence[float],
    gap: Sequence[float],
    least: Sequence[float],
    ideal: Sequence[float],
    rate: float,
    decoders: Sequence[Tensor],
    data: Tensor,
) -> Figure:
    """The Gaussian VAE on a curve: decoder means in the plane, and the gap over the decoder's variance.

    Args:
        variance: σ_d² of each stage.
        gap: posterior gap of the trained VAE in nats, one for each stage.
        least: least gap with the trained decoder and the best Gaussian for each x, one for each stage.
        ideal: least gap with the curve itself as decoder, in nats, one for each stage.
        rate: slope of the least gap at variance zero.
        decoders: μ(z) along z, shape ``(k, 2)``, one for each stage; the first and the last are drawn.
        data: observations, shape ``(k, 2)``.

    Paper: app-a2
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.6), layout="constrained")
    left.plot(*data.T, "o", color="0.6", markersize=5, markerfacecolor="none", label="data")
    for stage, colour, style in ((0, BLUE, "dashed"), (-1, BLACK, "solid")):
        label = rf"decoder, $\sigma_d^2={variance[stage]:g}$"
        left.plot(*decoders[stage].T, color=colour, linestyle=style, linewidth=1.5, label=label)
    left.set(xlabel=r"$x_1$", ylabel=r"$x_2$", ylim=(-1.2, 2.0))  # room for the legend
    left.legend(fontsize=8.5, frameon=False, loc="upper left")
    right.plot(variance, gap, "o-", color=BLACK, label="trained VAE")
    right.plot(variance, least, "^-", color="0.45", markerfacecolor="none", label="trained decoder, best Gaussian")
    right.plot(variance, ideal, "s--", color=BLUE, markerfacecolor="none", label="decoder = curve, best Gaussian")
    first_order = rate * np.asarray(variance)
    right.plot(variance, first_order, color=VERMILION, linestyle="dotted", label="first order, its slope at zero")
    right.set(xscale="log", yscale="log", xlabel=r"decoder variance $\sigma_d^2$", ylabel="posterior gap [nats]")
    right.legend(fontsize=8.5, frameon=False)
    return figure
