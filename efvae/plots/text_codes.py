"""Figures of what the codes of documents are for, and of RBMs of documents in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

__all__ = ["precision"]

#: Marks and colours of the encoders, told apart without colour too.
STYLES = {"e1": ("o-", "black"), "e2": ("s--", "#0072b2"), "e3": ("^:", "#d55e00")}
OTHER = ("D-.", "#009e73")


def precision(
    found: Mapping[str, Mapping[int, Sequence[float]]], baselines: Mapping[str, float], k: int = 100
) -> Figure:
    """Share of documents of the same group among the nearest codes, over the number of bits; one mark for each seed.

    Args:
        found: for each model (``e1``, ``e2``, ``e3`` or another name) and number of bits, one value a seed.
        baselines: precision of other ways to search, drawn as lines across.
        k: how many documents a query looks at.

    Own: own-retrieval
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    for name, of_bits in found.items():
        style, colour = STYLES.get(name, OTHER)
        bits = sorted(of_bits)
        ax.plot(bits, [fmean(of_bits[m]) for m in bits], style, color=colour, markersize=4.5, label=name)
        marks = [(m, value) for m in bits for value in of_bits[m] if len(of_bits[m]) > 1]
        if marks:
            ax.plot(*zip(*marks, strict=True), "_", color=colour, markersize=10)
    every = sorted({m for of_bits in found.values() for m in of_bits})
    for name, value in baselines.items():
        ax.axhline(value, color="0.55", linewidth=0.8)
        ax.annotate(name, (1, value), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                    va="center", fontsize=8, color="0.35")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_xticks(every, [str(m) for m in every])
    ax.minorticks_off()
    ax.set(xlabel="bits", ylabel=f"precision among the {k} nearest", ylim=(0, None))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure
