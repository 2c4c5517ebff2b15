"""Figures of section 3.1's Gaussian VAE: numbers in, a matplotlib figure out."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

BLACK, BLUE, VERMILION = "black", "#0072b2", "#d55e00"

__all__ = ["curvature", "curves", "joint_with_modes", "oblique", "training"]


def training(step: list[float], lost: list[float], gap: list[float]) -> Figure:
    """What a linear VAE in training lacks to probabilistic PCA: likelihood and posterior gap, on a logarithmic axis."""
    figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    ax.plot(step, lost, color=BLACK, label=r"likelihood lost against PCA")
    ax.plot(step, gap, color=BLUE, linestyle="dashed", label="posterior gap")
    ax.set(yscale="log", xlabel="steps with sampled gradients", ylabel="nats")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def oblique(degrees: Tensor, gap_ml: Tensor, lost: Tensor, gap: Tensor) -> Figure:
    """The parts of the error of a linear VAE with fixed directions, over the angle between them.

    Args:
        degrees: angle, shape ``(k,)``.
        gap_ml: gap at maximum likelihood in nats.
        lost: likelihood lost at the ELBO optimum in nats.
        gap: gap left there in nats.
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    ax.plot(degrees, gap_ml, color="0.45", linestyle="dashdot", label="gap at maximum likelihood")
    ax.plot(
        degrees, lost + gap, color=VERMILION, linestyle="dotted", linewidth=2.5, label="VAE error at the ELBO optimum"
    )
    ax.plot(degrees, gap, color=BLUE, linestyle="dashed", label="  of which posterior gap")
    ax.plot(degrees, lost, color=BLACK, label="  of which lost likelihood")
    ax.set(xlabel="angle between the two decoder directions [degrees]", ylabel="nats", ylim=(0, None))
    ax.set_xticks(range(0, 91, 15))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def curvature(t: Tensor, gaps: dict[str, tuple[Tensor, Tensor]]) -> Figure:
    """Posterior gap over the size of a decoder's nonlinear term, with its leading order, both axes logarithmic.

    Args:
        t: size, shape ``(k,)``.
        gaps: for each curve its name, the gap and the leading order in nats; at most two.
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for (name, (gap, leading)), colour, marker in zip(gaps.items(), (BLACK, VERMILION), "os", strict=False):
        ax.plot(t, gap, marker, color=colour, markersize=5, label=name)
        ax.plot(t, leading, color=colour, linewidth=1, linestyle="dashed")
    ax.plot([], [], color="0.4", linewidth=1, linestyle="dashed", label="leading order, in closed form")
    top = max(float(gap.max()) for gap, _ in gaps.values())
    ax.set(xscale="log", yscale="log", xlabel="size $t$ of the nonlinear term", ylabel="posterior gap [nats]")
    ax.set_ylim(top=10 * top)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def curves(x: Tensor, named: dict[str, Tensor]) -> Figure:
    """Decoder curves in data space.

    Args:
        x: data, shape ``(N, 2)``.
        named: points of up to three curves, shape ``(k, 2)`` each.
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    ax.plot(*x.T, ".", color="0.75", markersize=3, label="data")
    styles = [(BLACK, "solid", 2.2), (VERMILION, "dashed", 2.2), (BLUE, "dotted", 2.5)]
    for (name, curve), (colour, style, width) in zip(named.items(), styles, strict=False):
        ax.plot(*curve.T, color=colour, linestyle=style, linewidth=width, label=name)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def joint_with_modes(axis: Tensor, log_density: Tensor, mean: Tensor, modes: Tensor, prior: Tensor) -> Figure:
    """A law with Gaussian conditionals: contours, both conditional means, modes; and its marginal of z.

    Args:
        axis: values of x and of z, shape ``(r,)``.
        log_density: log p(x, z), rows by x, columns by z.
        mean: E[x | z] on the axis; the law is symmetric, so also E[z | x].
        modes: local maxima, shape ``(k, 2)``.
        prior: density of z on the axis.
    """
    figure, (ax, side) = plt.subplots(2, 1, figsize=(5.2, 6.6), layout="constrained", height_ratios=(3, 1), sharex=True)
    top = float(log_density.max())
    levels = [top - d for d in (8.0, 5.0, 3.0, 2.0, 1.25, 0.75, 0.4, 0.15)]
    ax.contourf(axis, axis, log_density, levels=[*levels, top], cmap="Greys", vmax=top + 4)
    ax.contour(axis, axis, log_density, levels=levels, colors="0.4", linewidths=0.7, linestyles="solid")
    ax.plot(axis, mean, color=BLUE, linewidth=2, label=r"decoder mean $\mathrm{E}[x\mid z]$")
    ax.plot(mean, axis, color=VERMILION, linewidth=2, linestyle="dashed", label=r"encoder mean $\mathrm{E}[z\mid x]$")
    ax.plot(*modes.T, "*", color="white", markeredgecolor=BLACK, markersize=14, label="modes", linestyle="none")
    ax.set(ylabel="$x$", xlim=(axis[0], axis[-1]), ylim=(axis[0], axis[-1]))
    side.plot(axis, prior, color=BLACK, label="prior of the tight VAE")
    side.set(xlabel="$z$", ylabel="$p(z)$", ylim=(0, None))
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure
