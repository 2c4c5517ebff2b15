"""Figures of semantic hashing: lengths given codes or of a corpus, gaps and confidence against the length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["confidence", "length_survival", "lengths_and_gap", "what_frequencies_cost"]

# Told apart by lightness, line style and marker.
_STYLES = (
    ("black", "solid", "o"),
    ("#0072b2", "dashed", "s"),
    ("#d55e00", "dashdot", "^"),
    ("#b58900", "dotted", "D"),
)


def what_frequencies_cost(scale: Tensor, counts: Tensor, blind: Tensor, total: Tensor) -> Figure:
    """Least gap of encoders of counts and of frequencies, against the strength of the decoder.

    Args:
        scale: factor of W, shape ``(n,)``.
        counts: the best factorized encoder of counts, in nats, shape ``(n,)``.
        blind: the best encoder of frequencies of any family, likewise.
        total: the best factorized encoder of frequencies, likewise.

    Own: own-frequency-collapse
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.4), dpi=130, layout="constrained")
    for values, label, (colour, line, marker) in zip(
        (total, blind, counts),
        ("frequencies, factorized", "frequencies, any family", "counts, factorized"),
        _STYLES,
        strict=False,
    ):
        ax.plot(scale, values, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
    ax.set(xlabel=r"strength $s$ of the decoder, $f(z)=s\,Wz+a$", ylabel="least gap [nats]", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure


def lengths_and_gap(
    lengths: Tensor, given_code: Mapping[str, Tensor], gap: Mapping[str, Tensor], bound: Mapping[str, Tensor]
) -> Figure:
    """Left: the length given the code in the RBM. Right: gap of a linear decoder under a uniform prior.

    Args:
        lengths: shape ``(n,)``.
        given_code: p(l | z) for each code by name, shape ``(n,)``; "base" is the base measure.
        gap: least gap in nats against length, by name of the decoder, shape ``(n,)``.
        bound: the bound of it, by the same names.

    Own: own-hashing-length, own-near-affine
    """
    figure, (left, right) = plt.subplots(2, 1, figsize=(5.2, 6.6), dpi=130, layout="constrained")
    left.bar(lengths, given_code["base"], width=0.9, color="0.88", label="base $h(l)$")
    codes = [(name, values) for name, values in given_code.items() if name != "base"]
    for (name, values), (colour, line, marker) in zip(codes, _STYLES, strict=False):
        left.plot(lengths, values, color=colour, linestyle=line, marker=marker, markersize=4, label=f"$z={name}$")
    left.set(xlabel="length $l$ [words]", ylabel=r"$p(l \mid z)$ in the RBM", ylim=(0, None))
    left.legend(frameon=False, fontsize=8.5, ncols=2)
    for (name, values), (colour, line, marker) in zip(gap.items(), _STYLES, strict=False):
        right.plot(lengths, values, color=colour, linestyle=line, marker=marker, markersize=4, label=name)
        right.plot(lengths, bound[name], color=colour, linestyle=line, linewidth=0.8)
    right.plot([], [], color="0.4", linewidth=0.8, label="thin: bound")
    lowest = min(float(values.min()) for values in gap.values())
    right.set(
        xlabel="length $l$ [words]",
        ylabel="gap of the best factorized\nencoder of counts [nats]",
        yscale="log",
        ylim=(max(lowest, 1e-12) / 3, 20),
    )
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def confidence(
    lengths: Tensor, true_entropy: Tensor, entropy: Mapping[str, Tensor], gap: Mapping[str, Tensor], family_gap: Tensor
) -> Figure:
    """How sure of the code the posterior and trained encoders are, and their gap, against the length.

    Args:
        lengths: shape ``(n,)``.
        true_entropy: mean entropy of the true posterior in nats, shape ``(n,)``.
        entropy: mean entropy of each encoder, by name, shape ``(n,)``.
        gap: mean gap of each encoder in nats, by the same names.
        family_gap: least mean gap of factorized encoders in nats, shape ``(n,)``.

    Paper: eq-14
    Own: own-average-length
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(5.2, 6.6), dpi=130, layout="constrained", sharex=True)
    top.plot(lengths, true_entropy, color="0.7", linewidth=5, label="true posterior")
    bottom.plot(lengths, family_gap, color="0.7", linewidth=5, label="best factorized")
    for name, (colour, line, marker) in zip(entropy, _STYLES, strict=False):
        top.plot(lengths, entropy[name], color=colour, linestyle=line, marker=marker, markersize=4, label=name)
        bottom.plot(lengths, gap[name], color=colour, linestyle=line, marker=marker, markersize=4, label=name)
    top.set(ylabel="mean entropy of the code [nats]", ylim=(0, None))
    top.legend(frameon=False, fontsize=8.5)
    bottom.set(xlabel="length $l$ [words]", ylabel="mean gap [nats]", yscale="log")
    bottom.set_xscale("log", base=2)
    bottom.set_xticks(lengths.tolist(), [f"{int(n)}" for n in lengths])
    bottom.legend(frameon=False, fontsize=8.5)
    return figure


def length_survival(lengths: Sequence[float], data: Sequence[float], laws: Mapping[str, Sequence[float]]) -> Figure:
    """Share of documents that are at least so long, in a corpus and by fitted laws, both axes logarithmic.

    Args:
        lengths: whole numbers from 1, ascending, shape ``(n,)``.
        data: share of the documents, likewise.
        laws: P(length ≥ l) of each law, by name, likewise; where it is below the data's range it is not drawn.

    Paper: case-hashing
    Own: own-hashing-length
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.8), dpi=130, layout="constrained")
    ax.plot(lengths, data, color="0.35", linestyle="none", marker="o", markersize=4, label="documents")
    for (name, values), (colour, line, _) in zip(laws.items(), _STYLES, strict=False):
        ax.plot(lengths, values, color=colour, linestyle=line, label=name)
    ax.set(xlabel="length $l$ [words]", ylabel=r"share of documents of length $\geq l$", xscale="log", yscale="log")
    ax.set_ylim(min(share for share in data if share > 0) / 2, 1.5)
    ax.legend(frameon=False, fontsize=8.5, loc="lower left")
    return figure
