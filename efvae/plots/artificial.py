"""Figures of the artificial example: Fig. 2 of the paper, learning curves, gap against distance.

The four codes have four colours of different hue and of different lightness, from dark to light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

__all__ = ["COLOURS", "NAMES", "distances", "fig_2", "learning_curves"]

NAMES = ("00", "01", "10", "11")
#: Colours of the codes (indigo, sky blue, vermilion, yellow), of lightness L* about 22, 70, 53, 89.
COLOURS = ("#332288", "#56b4e9", "#d55e00", "#f0e442")
BLACK, BLUE, VERMILION = "black", "#0072b2", "#d55e00"
_HALO = [withStroke(linewidth=3, foreground="white")]
_STYLE: dict[str, Any] = {"fontsize": 10, "fontweight": "bold", "ha": "center", "va": "center", "path_effects": _HALO}


def fig_2(axis: Tensor, panels: Sequence[tuple[str, Tensor, Tensor]]) -> Figure:
    """Fig. 2: posterior in mixed colours, decision maps, and the simplex with the factorized distributions.

    Args:
        axis: values of x1, and of x2, on the grid, shape ``(r,)``.
        panels: title, probabilities of the codes with rows by x2 and columns by x1, shape ``(4, r, r)``, and centers,
            shape ``(4, 2)``. The first is drawn in mixed colours, the others as decision maps.

    Paper: fig-2
    """
    figure = plt.figure(figsize=(6.4, 9.6), layout="constrained")
    for index, (title, probability, centers) in enumerate(panels):
        ax = figure.add_subplot(3, 2, index + 1)
        colours = torch.tensor([to_rgb(colour) for colour in COLOURS], dtype=probability.dtype)
        low, high = float(axis[0]), float(axis[-1])
        if index == 0:
            mixed = torch.einsum("kij,kc->ijc", probability, colours)
            ax.imshow(mixed, origin="lower", extent=(low, high, low, high), interpolation="nearest")
        else:
            _decision_map(ax, axis, probability, centers)
        ax.plot(*centers.T, "o", color=BLACK, markersize=6, markeredgecolor="white")
        if index == 0:
            for name, center in zip(NAMES, centers, strict=True):
                _name(ax, _beside(center, axis), name)
        ax.set_title(f"({'abcde'[index]}) {title}", fontsize=10)
        ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$", xlim=(low, high), ylim=(low, high))
        ax.label_outer()
    _simplex(figure.add_subplot(3, 2, 6, projection="3d"))
    return figure


def _decision_map(ax: Axes, axis: Tensor, probability: Tensor, centers: Tensor) -> None:
    """Regions in the codes' colours with black borders, and in each region its code."""
    low, high = float(axis[0]), float(axis[-1])
    code = probability.argmax(0)
    ax.imshow(
        code,
        cmap=ListedColormap(COLOURS),
        vmin=-0.5,
        vmax=3.5,
        origin="lower",
        extent=(low, high, low, high),
        interpolation="nearest",
    )
    for k, name in enumerate(NAMES):
        others = probability[[j for j in range(len(NAMES)) if j != k]].amax(0)
        if 0 < (code == k).sum() < code.numel():
            ax.contour(axis, axis, probability[k] - others, levels=[0.0], colors=BLACK, linewidths=1.2)
        place = _beside(centers[k], axis)
        column, row = (int(torch.searchsorted(axis, value).clamp(max=len(axis) - 1)) for value in place)
        if code[row, column] == k:
            _name(ax, place, name)
        elif (code == k).any():
            _name(ax, _innermost(axis, code == k), name)


def _beside(center: Tensor, axis: Tensor) -> tuple[float, float]:
    x, y = center.tolist()
    return x + 0.08 * float(axis[-1] - axis[0]), y


def _name(ax: Axes, place: tuple[float, float], name: str) -> None:
    ax.text(place[0], place[1], name, **_STYLE)


def _innermost(axis: Tensor, inside: Tensor) -> tuple[float, float]:
    """The point of a region farthest from all others and from the frame, on every fourth pixel if it has one."""
    every = 4 if inside[::4, ::4].any() else 1
    axis, inside = axis[::every].double(), inside[::every, ::every].flatten()
    points = torch.cartesian_prod(axis, axis).flip(1)
    mine = points[inside]
    reach = 0.7 * torch.minimum(mine - axis[0], axis[-1] - mine).amin(1)  # a label may be nearer to the frame
    if not inside.all():
        reach = torch.minimum(reach, torch.cdist(mine, points[~inside]).amin(1))
    x, y = mine[reach.argmax()].tolist()
    return x, y


def _simplex(ax: Any) -> None:
    """Tetrahedron of all distributions on two bits, with the surface of the factorized ones."""
    # two opposite edges at right angles, so that the two missing edges lie at the bottom and at the top
    corners = torch.tensor([[-1.0, 0, -0.7], [0, -1.0, 0.7], [0, 1.0, 0.7], [1.0, 0, -0.7]])
    share = torch.linspace(0, 1, 13)
    first, second = torch.meshgrid(share, share, indexing="ij")  # probability that a bit is 1
    q = torch.stack([(1 - first) * (1 - second), (1 - first) * second, first * (1 - second), first * second], -1)
    surface = q @ corners
    ax.plot_surface(
        *surface.movedim(-1, 0).numpy(), color="0.8", edgecolor="0.45", linewidth=0.4, alpha=0.75, shade=False
    )
    for a, b, absent in ((0, 1, False), (0, 2, False), (1, 3, False), (2, 3, False), (0, 3, True), (1, 2, True)):
        style: dict[str, Any] = {"color": VERMILION, "linestyle": "dashed"} if absent else {"color": BLACK}
        ax.plot(*corners[[a, b]].T.numpy(), linewidth=2.2, **style)
    for name, colour, corner in zip(NAMES, COLOURS, corners, strict=True):
        ax.scatter(*corner, color=colour, edgecolor=BLACK, s=90, depthshade=False)
        ax.text(*(1.22 * corner), name, zorder=9, **_STYLE)
    ax.plot([], [], [], color=VERMILION, linestyle="dashed", linewidth=2.2, label="two bits switch: not contained")
    ax.plot([], [], [], color=BLACK, linewidth=2.2, label="one bit switches: contained")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), fontsize=8, frameon=False)
    ax.set_title("(f) factorized distributions", fontsize=10)
    ax.view_init(elev=18, azim=-58)
    ax.set_box_aspect((1, 1, 0.75), zoom=1.25)
    ax.set_axis_off()


def learning_curves(
    runs: Sequence[tuple[Mapping[str, Sequence[float]], float]],
    live: tuple[Mapping[str, Sequence[float]], float],
    levels: Mapping[str, float],
) -> Figure:
    """ELBO and log-likelihood through both stages.

    Args:
        runs: curve and number of pre-training steps of each stored run.
        live: the same of the run of this notebook.
        levels: named values of the oracle in nats, drawn as lines; names may have several lines.

    Paper: app-c1
    """
    figure, ax = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    for index, (curve, first) in enumerate([*runs, live]):
        step = torch.tensor(curve["step"])
        progress = torch.where(step <= first, step / first, 1 + (step - first) / (step[-1] - first))
        mine = index == len(runs)
        for name, colour, line in (("log_likelihood", BLUE, "dashed"), ("elbo", BLACK, "solid")):
            label = f"{name.replace('_', '-').replace('elbo', 'ELBO')}, this run" if mine else None
            width = 2.0 if mine else 0.6
            ax.plot(progress, curve[name], color=colour, linestyle=line, linewidth=width, label=label)
    ax.plot([], [], color="0.4", linewidth=0.6, label=f"stored runs, {len(runs)} seeds")
    for name, value in levels.items():
        ax.axhline(value, color=VERMILION, linewidth=1, linestyle="dotted")
        ax.annotate(name, (2.02, value), fontsize=8, va="center", annotation_clip=False)
    ax.axvline(1, color="0.5", linewidth=0.8)
    lowest = min(levels.values())
    ax.set(ylim=(lowest - 0.04, max(levels.values()) + 0.02), xlim=(0, 2), ylabel="nats", xticks=[0, 1, 2])
    ax.set_xticklabels(["start", "encoder trained", "both trained"])
    ax.set_xlabel("steps, each stage scaled to the same length")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=1, fontsize=8.5, frameon=False)
    return figure


def distances(
    oracle: Mapping[str, Sequence[float]],
    networks: Mapping[str, Sequence[float]],
    consistent: Mapping[str, Sequence[float]],
) -> Figure:
    """Posterior gap and approximation error against the distance between the centers.

    Args:
        oracle: columns ``distance``, ``gap_pretrained``, ``gap_joint``, ``approximation_error`` in nats, by distance.
        networks: the same of networks with the factorized encoder.
        consistent: the same of networks with the consistent encoder.

    Paper: sec-4-1
    """
    figure, ax = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    series = (
        ("gap_pretrained", BLACK, "solid", "o", "gap, decoder at the truth"),
        ("gap_joint", BLUE, "dashed", "s", "gap after joint training"),
        ("approximation_error", VERMILION, "dotted", "^", "likelihood lost by joint training"),
    )
    for name, colour, line, marker, label in series:
        ax.plot(oracle["distance"], oracle[name], color=colour, linestyle=line, linewidth=2, label=label)
        ax.plot(networks["distance"], networks[name], marker, color=colour, markersize=6, markerfacecolor="white")
    total = [gap + loss for gap, loss in zip(oracle["gap_joint"], oracle["approximation_error"], strict=True)]
    ax.plot(oracle["distance"], total, color="0.75", linewidth=5, zorder=1, label="the last two together")
    ax.plot([], [], "o", color="0.3", markerfacecolor="white", label="open marks: networks")
    ax.plot(consistent["distance"], consistent["gap_joint"], "x", color=BLACK, label="gap, consistent encoder")
    ax.set(xlabel="scale of the centers (1: the layout of Fig. 2)", ylabel="nats", xlim=(0, None), ylim=(-0.003, None))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=1, fontsize=8.5, frameon=False)
    return figure
