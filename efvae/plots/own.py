"""Figures of the notebook in which readers put their own VAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

__all__ = ["likelihood_and_bound"]

STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("0.55", "D"), ("black", "^"))


def likelihood_and_bound(curves: Mapping[str, Mapping[str, Sequence[float]]], encoderless: str = "") -> Figure:
    """Log-likelihood and ELBO over the steps of several trainings.

    Args:
        curves: ``step``, ``log_marginal`` and ``elbo`` in nats for each name, at most four.
        encoderless: the one whose ELBO is left out.

    Own: own-your-vae
    """
    figure, ax = plt.subplots(figsize=(6.0, 3.6), dpi=130, layout="constrained")
    for (name, curve), (colour, marker) in zip(curves.items(), STYLES, strict=False):
        ax.plot(
            curve["step"],
            curve["log_marginal"],
            "-",
            color=colour,
            marker=marker,
            markersize=3.5,
            label=f"trained by {name}: log p(x)",
        )
        if name != encoderless:
            ax.plot(curve["step"], curve["elbo"], "--", color=colour, label=f"trained by {name}: ELBO")
    ax.set_xlabel("training step")
    ax.set_ylabel("nats for each image")
    ax.legend(fontsize=8, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
