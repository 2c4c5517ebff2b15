"""Figures of the Bernoulli VAE and the restricted Boltzmann machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["annealing", "baselines", "few_images", "prior_and_gap"]

BLACK, BLUE, VERMILION = "black", "#0072b2", "#d55e00"


def prior_and_gap(scale: Sequence[float], correlation: Tensor, gap: Tensor) -> Figure:
    """How far an RBM's prior is from independent bits, and the gap that a uniform prior opens, over the weights' scale.

    Args:
        scale: standard deviation of the weights.
        correlation: total correlation of the prior in nats: lower quartile, median, upper quartile, shape ``(k, 3)``.
        gap: posterior gap under uniform bits in nats, the same.

    Own: own-rbm-prior, own-rbm-uniform
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    drawn = [(correlation, "o-", BLACK, 0.97, "own prior: total correlation")]
    drawn.append((gap, "s--", BLUE, 1.03, "uniform prior: posterior gap"))
    for values, style, colour, shift, label in drawn:
        low, median, high = values.T
        ax.errorbar(
            [shift * s for s in scale],  # side by side
            median,
            torch.stack([median - low, high - median]),
            fmt=style,
            color=colour,
            markersize=4,
            capsize=3,
            label=label,
        )
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(scale, [f"{value:g}" for value in scale])
    ax.minorticks_off()
    ax.set(xlabel="standard deviation of the weights $W$", ylabel="nats")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def annealing(temperatures: Sequence[int], error: Sequence[float], spread: Sequence[float]) -> Figure:
    """Error of log Z by annealed importance sampling against the number of temperatures.

    Args:
        temperatures: T.
        error: estimate − exact, in nats.
        spread: standard error that the estimate claims, in nats.

    Own: own-ais
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    bars = [2 * value for value in spread]
    ax.errorbar(temperatures, error, bars, fmt="o", color=BLACK, markersize=4, capsize=3, label="estimate ± 2 errors")
    ax.axhline(0.0, color=BLUE, linestyle="dashed", label=r"exact $\log Z$")
    ax.set(xscale="log")
    ax.set_xticks(temperatures, [str(value) for value in temperatures])
    ax.minorticks_off()
    ax.set(xlabel="temperatures $T$", ylabel=r"estimate − $\log Z$ [nats]")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def baselines(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Log-likelihood and ELBO of each model on training and test images; one mark for each seed.

    Args:
        rows: for each model its columns ``log_likelihood_train``, ``elbo_train``, the same for test, one value a seed.

    Own: own-digits-baseline
    """
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 0.36 * len(rows) + 1.5), sharey=True, layout="constrained")
    for ax, part in zip(axes, ("train", "test"), strict=True):
        for place, columns in enumerate(rows.values()):
            likelihood, elbo = columns[f"log_likelihood_{part}"], columns[f"elbo_{part}"]
            for a, b in zip(likelihood, elbo, strict=True):
                ax.plot([b, a], [place, place], color="0.7", linewidth=1, zorder=1)
            label = {"label": "log-likelihood"} if not place else {}
            ax.plot(likelihood, [place] * len(likelihood), "o", color=BLACK, markersize=4.5, **label)
            label = {"label": "ELBO"} if not place else {}
            face = {"markerfacecolor": "none", "markersize": 7}
            ax.plot(elbo, [place] * len(elbo), "s", color=VERMILION, **face, **label)
        ax.set(title=part, xlabel="nats per image")
        ax.grid(axis="x", color="0.9")
    axes[0].set_yticks(range(len(rows)), list(rows))
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure


def few_images(found: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """Test log-likelihood against the number of training images: means, with a mark for each seed.

    Args:
        found: for each model, for each number of images, one value a seed; at most four models.

    Own: own-digits-few
    """
    figure, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
    styles = [("o-", BLACK), ("s--", VERMILION), ("^:", BLUE), ("d-.", "0.5")]
    sizes = sorted({n for values in found.values() for n in values})
    for (name, values), (style, colour), shift in zip(found.items(), styles, (0.96, 1.0, 1.04, 1.08), strict=False):
        own = sorted(values)
        places = [shift * n for n in own]  # side by side
        means = [sum(values[n]) / len(values[n]) for n in own]
        ax.plot(places, means, style, color=colour, markersize=6, label=name)
        for place, n in zip(places, own, strict=True):
            ax.plot([place] * len(values[n]), values[n], style[0], color=colour, markersize=2.5, markerfacecolor="none")
    ax.set(xscale="log", xlabel="training images", ylabel=r"$\log p(x)$ on test images [nats]")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.grid(axis="y", color="0.9")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure
