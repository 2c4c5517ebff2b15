"""Figures of encoder families: the two parts of the gap, chains that mix or do not, divergences along a ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["along_ray", "mixing", "parts_of_gap"]

BLACK, BLUE, VERMILION, YELLOW, GREY = "black", "#0072b2", "#d55e00", "#f0e442", "0.75"


def parts_of_gap(names: Sequence[str], family: Tensor, amortization: Mapping[str, Tensor]) -> Figure:
    """Mean family part and amortization part for each encoder family, one panel for each network; dots: seeds.

    Args:
        names: of the encoder families.
        family: family part in nats, shape ``(seeds, families)``.
        amortization: amortization part for each kind of network, likewise.

    Own: own-gap-parts
    """
    figure, axes = plt.subplots(
        1, len(amortization), figsize=(6.6, 3.4), dpi=105, sharey=True, layout="constrained", squeeze=False
    )
    place = range(len(names))
    for ax, (network, extra) in zip(axes[0], amortization.items(), strict=True):
        low, high = family.mean(0), extra.mean(0)
        ax.bar(place, low, 0.6, color=BLUE, edgecolor=BLACK, label="family part")
        ax.bar(place, high, 0.6, bottom=low, color="white", edgecolor=BLACK, hatch="////", label="amortization part")
        for seed in range(len(family)):
            total = family[seed] + extra[seed]
            ax.plot(place, total, "o", color=YELLOW, markersize=4, markeredgecolor=BLACK, markeredgewidth=0.6,
                    label="sum, each seed" if seed == 0 else None)  # fmt: skip
        ax.set_xticks(place, names, fontsize=8)
        ax.set_title(network, fontsize=10)
        ax.set_xlabel("encoder family")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("posterior gap (nats)")
    axes[0][-1].legend(fontsize=8, frameon=False)
    return figure


def mixing(sweeps: Sequence[int], errors: Mapping[str, Tensor], noise: Tensor) -> Figure:
    """Error of the bits' means after a number of Gibbs sweeps.

    Args:
        sweeps: numbers of sweeps.
        errors: largest absolute error of a mean over the chains, for each case, shape ``(len(sweeps),)``.
        noise: the error that independent exact draws make, a scalar.

    Own: own-code-gibbs
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.4), dpi=130, layout="constrained")
    styles = [("-", "o", BLUE), ("--", "s", VERMILION), (":", "^", BLACK)]
    for (name, error), (line, marker, colour) in zip(errors.items(), styles, strict=False):
        ax.plot(sweeps, error, line, marker=marker, color=colour, label=name)
    ax.axhline(float(noise), color=GREY, zorder=0, label="exact draws, as many")
    ax.set(xlabel="Gibbs sweeps", ylabel="largest error of a mean of a bit", yscale="log")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks(sweeps, [str(s) for s in sweeps])
    ax.set_xlim(-0.2, 1.2 * max(sweeps))
    ax.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)
    return figure


def along_ray(t: Tensor, reverse: Tensor, forward: Tensor) -> Figure:
    """Both divergences while the encoder moves away from the exact posterior along a ray.

    Args:
        t: distance, 0 at the posterior.
        reverse: E KL(q ‖ p) in nats.
        forward: E KL(p ‖ q) in nats.

    Own: own-ray
    """
    figure, ax = plt.subplots(figsize=(5.2, 3.4), dpi=130, layout="constrained")
    ax.plot(t, forward, "--", color=VERMILION, linewidth=2, label=r"forward, $\mathrm{KL}(p\,\|\,q)$: convex")
    ax.plot(t, reverse, "-", color=BLUE, linewidth=2, label=r"reverse, $\mathrm{KL}(q\,\|\,p)$: rising, then flat")
    ax.set(xlabel="distance $t$ from the posterior along the ray", ylabel="divergence (nats)")
    ax.set_ylim(0, 1.6 * float(reverse.max()))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
