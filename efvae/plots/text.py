"""Figures of the text autoencoders: learning curves, rates, silent units, parts of the NELBO, Table 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["by_rate", "learning_curves", "parts", "silent_units", "slopes", "table_2"]

# Encoders are told apart by colour and marker, of different lightness.
_COLOURS = {"e1": "black", "e2": "#0072b2", "e3": "#d55e00"}
_MARKERS = {"e1": "o", "e2": "s", "e3": "^"}
_PARTS: tuple[dict[str, Any], ...] = (
    {"color": "0.8"},
    {"color": "#0072b2"},
    {"color": "white", "hatch": "////"},
    {"color": "#f0e442"},
)
# Kinds of hidden units, by colour, dashes and marker; the band has the colour alone.
_KINDS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"color": "black"}, {}),
    ({"color": "#0072b2"}, {"linestyle": "dashed"}),
    ({"color": "#d55e00"}, {"marker": "o", "markerfacecolor": "white"}),
    ({"color": "#009e73"}, {"marker": "^"}),
    ({"color": "#cc79a7"}, {"linestyle": "dashdot", "marker": "s"}),
)


def _grid(n: int, height: float = 2.9, **options: Any) -> tuple[Figure, list[Axes]]:
    """Panels in rows of two, the empty one hidden."""
    columns = min(2, n)
    rows = math.ceil(n / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, height * rows + 0.5), layout="constrained", squeeze=False, **options
    )
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:n])


def learning_curves(panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], change: int = 0) -> Figure:
    """NELBO over the epochs, on training documents (dashed) and on test documents (solid).

    Args:
        panels: by title and encoder, the columns ``epoch``, ``nelbo_train`` and ``nelbo_test`` in nats a document.
        change: epoch after which the second part of the training begins, marked where a run goes on; 0 for none.

    Paper: app-c2
    """
    figure, axes = _grid(len(panels))
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        lowest, late = math.inf, -math.inf
        for encoder, curve in curves.items():
            style: dict[str, Any] = {"color": _COLOURS[encoder], "linewidth": 1.6}
            marks: dict[str, Any] = {"marker": _MARKERS[encoder], "markersize": 4.5, "markevery": (0.08, 0.15)}
            ax.plot(curve["epoch"], curve["nelbo_train"], linestyle="dashed", markerfacecolor="white", **style, **marks)
            ax.plot(curve["epoch"], curve["nelbo_test"], label=encoder, **style, **marks)
            both = [*curve["nelbo_train"], *curve["nelbo_test"]]
            lowest = min(lowest, *both)
            later = curve["epoch"][0] + (curve["epoch"][-1] - curve["epoch"][0]) / 12
            late = max(
                late,
                *(
                    value
                    for name in ("nelbo_train", "nelbo_test")
                    for epoch, value in zip(curve["epoch"], curve[name], strict=True)
                    if epoch >= later
                ),
            )
        room = 0.05 * (late - lowest)
        ax.set(title=title, xlabel="epoch", ylim=(lowest - room, late + room), xlim=(0, None))
        ax.title.set_fontsize(10)
        if change and any(curve["epoch"][-1] > change for curve in curves.values()):
            ax.axvline(change, color="0.5", linewidth=0.8)
    for ax in axes[::2]:
        ax.set_ylabel("NELBO, saturated [nats a document]")
    axes[0].plot([], [], color="0.4", label="test")
    axes[0].plot([], [], color="0.4", linestyle="dashed", label="training")
    handles, labels = axes[0].get_legend_handles_labels()
    for ax in axes[1:]:  # an encoder may be missing in the first panel
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles, labels = [*handles, handle], [*labels, label]
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=8.5, frameon=False)
    return figure


def parts(panels: Mapping[str, Mapping[str, Mapping[str, float]]], ylabel: str) -> Figure:
    """Stacked bars of what an encoder's NELBO is made of, one panel for each decoder.

    Args:
        panels: by title, encoder and name of the part, nats a document; the same names everywhere.
        ylabel: of all panels.

    Paper: eq-1b
    """
    figure, axes = _grid(len(panels), height=3.3, sharey=True)
    for ax, (title, bars) in zip(axes, panels.items(), strict=True):
        bottom = [0.0] * len(bars)
        for name, style in zip(next(iter(bars.values())), _PARTS, strict=False):
            heights = [bar[name] for bar in bars.values()]
            ax.bar(list(bars), heights, 0.6, bottom=bottom, edgecolor="black", label=name, **style)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[::2]:
        ax.set_ylabel(ylabel)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=1, fontsize=8.5, frameon=False
    )
    return figure


def by_rate(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    level: tuple[str, float],
    most: float | None = None,
) -> Figure:
    """Training NELBO against the learning rate, by encoder: means over the seeds, and single seeds as ticks.

    Args:
        panels: by title, encoder and rate, of each seed the value in nats a document.
        level: name and height of a line across all panels.
        most: upper end of the range, None for that of the values.

    Own: own-idle-bits
    """
    figure, axes = _grid(len(panels), height=3.1, sharex=True, sharey=True)
    for ax, (title, encoders) in zip(axes, panels.items(), strict=True):
        for encoder, values in encoders.items():
            rates = sorted(values)
            means = [sum(values[rate]) / len(values[rate]) for rate in rates]
            style: dict[str, Any] = {"color": _COLOURS[encoder], "marker": _MARKERS[encoder]}
            ax.plot(rates, means, label=encoder, markersize=6, markerfacecolor="white", linewidth=1.5, **style)
            seeds = [(rate, value) for rate in rates if len(values[rate]) > 1 for value in values[rate]]
            if seeds:
                tick: dict[str, Any] = {"marker": "_", "markersize": 12, "color": _COLOURS[encoder], "zorder": 3}
                ax.plot(*zip(*seeds, strict=True), linestyle="none", **tick)
        ax.axhline(level[1], color="0.4", linestyle="dotted", label=level[0])
        ax.set(title=title, xlabel="learning rate", xscale="log")
        ax.title.set_fontsize(10)
    axes[0].set(ylabel="training NELBO, saturated [nats a document]", ylim=(None, most))
    named = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def silent_units(panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Sequence[float]]]]]) -> Figure:
    """Share of the units of a layer that are above zero for no document, over the epochs.

    Args:
        panels: by title and kind of unit, of each cell the columns ``epoch`` and ``silent``, a share. The kinds, at
            most two, are told apart by dashes and lightness.

    Own: own-text-silent
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.2 * len(panels), 2.9), layout="constrained", squeeze=False, sharey=True
    )
    for ax, (title, kinds) in zip(axes.flat, panels.items(), strict=True):
        styles: tuple[dict[str, Any], ...] = ({"color": "#0072b2"}, {"color": "#e69f00", "linestyle": "dashed"})
        for style, (kind, curves) in zip(styles, kinds.items(), strict=False):
            for number, curve in enumerate(curves):
                label = None if number else kind
                ax.plot(curve["epoch"], curve["silent"], linewidth=1.2, label=label, **style)
        ax.set(title=title, xlabel="epoch", ylim=(-0.02, 1))
        ax.title.set_size("medium")
    axes[0, 0].set_ylabel("share of units above zero\nfor no training document")
    axes[0, 0].legend(frameon=False)
    return figure


def slopes(
    panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Sequence[float]]]]], turns: Mapping[str, int] | None = None
) -> Figure:
    """Training NELBO over the epochs by kind of hidden unit: mean over the seeds, and lowest to highest.

    Args:
        panels: by title and kind, at most five, of each seed the columns ``epoch`` and ``nelbo_train`` in nats a
            document.
        turns: by kind the epoch after which it changes, marked in the panels that have it.

    Raises:
        ValueError: more kinds than five.

    Own: own-text-slope
    """
    every = list(dict.fromkeys(kind for kinds in panels.values() for kind in kinds))
    if len(every) > len(_KINDS):
        raise ValueError(f"at most {len(_KINDS)} kinds of units can be told apart; got {', '.join(every)}")
    styles = dict(zip(every, _KINDS, strict=False))
    figure, axes = _grid(len(panels), height=3.4)
    handles: dict[str, Any] = {}
    for ax, (title, kinds) in zip(axes, panels.items(), strict=True):
        late = []
        for kind, curves in kinds.items():
            epochs, (colour, marks) = curves[0]["epoch"], styles[kind]
            by_epoch = list(zip(*(curve["nelbo_train"] for curve in curves), strict=True))
            means = [sum(values) / len(values) for values in by_epoch]
            low, high = [min(values) for values in by_epoch], [max(values) for values in by_epoch]
            ax.fill_between(epochs, low, high, alpha=0.2, **colour)
            (handles[kind],) = ax.plot(epochs, means, markevery=4, markersize=4.5, linewidth=1.5, **colour, **marks)
            late += [
                v for both in (low, high) for epoch, v in zip(epochs, both, strict=True) if epoch >= epochs[-1] / 12
            ]
        room = 0.03 * (max(late) - min(late))
        ax.set(title=title, xlabel="epoch", ylim=(min(late) - room, max(late) + room))
        ax.title.set_fontsize(10)
        for turn in {turn for kind, turn in (turns or {}).items() if kind in kinds}:
            ax.axvline(turn, color="0.5", linewidth=0.8)
    figure.supylabel("training NELBO, saturated [nats a document]", fontsize=10)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def table_2(
    paper: Mapping[tuple[str, tuple[int, int, str]], float],
    ours: Mapping[str, Mapping[tuple[str, tuple[int, int, str]], float]],
) -> Figure:
    """Table 2 against the number of bits: printed as large open marks and lines, ours as filled and small open ones.

    Args:
        paper: printed numbers by split and cell (bits, hidden layers, encoder).
        ours: by name of the protocol, at most two; numbers likewise, where there are any.

    Paper: tab-2
    """
    splits = {"train": "training", "test": "test"}
    depths = sorted({cell[1] for _, cell in paper})
    bits = sorted({cell[0] for _, cell in paper})
    figure, axes = plt.subplots(len(depths), 2, figsize=(6.8, 8.2), layout="constrained", sharex=True, squeeze=False)
    for ax in axes[1:, 1]:  # depth makes little difference on test, and a large one in training
        ax.sharey(axes[0, 1])
    for row, depth in zip(axes, depths, strict=True):
        for ax, (split, name) in zip(row, splits.items(), strict=True):
            for encoder, colour in _COLOURS.items():
                line = [paper[split, (m, depth, encoder)] for m in bits]
                ax.plot(range(len(bits)), line, color=colour, linewidth=1, marker=_MARKERS[encoder], markersize=9,
                        markerfacecolor="white", label=f"{encoder}, paper")  # fmt: skip
                for face, (protocol, numbers) in zip((colour, "white"), ours.items(), strict=False):
                    there = [(i, numbers[split, (m, depth, encoder)]) for i, m in enumerate(bits)
                             if (split, (m, depth, encoder)) in numbers]  # fmt: skip
                    ax.plot(*zip(*there, strict=True) if there else ([], []), linestyle="none", markersize=4.5,
                            marker=_MARKERS[encoder], color=colour, markerfacecolor=face,
                            label=f"{encoder}, {protocol}")  # fmt: skip
            layers = {0: "linear decoder", 1: "1 hidden layer"}.get(depth, f"{depth} hidden layers")
            ax.set_title(f"{name}, {layers}", fontsize=10)
            ax.set_xticks(range(len(bits)), [str(m) for m in bits])
    for ax in axes[-1]:
        ax.set_xlabel("bits")
    figure.supylabel("NELBO, saturated [nats a document]", fontsize=10)  # a row is too low for it
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5, frameon=False
    )
    return figure
