"""Figures of section 4.2: rows of pictures as in Fig. 3 and Fig. 4, and what changes along the joint training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

__all__ = ["along_training", "picture_rows"]

COLOURS = ("#0072b2", "#d55e00", "black", "#009e73", "#cc79a7")
STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def picture_rows(rows: Mapping[str, Tensor]) -> Figure:
    """Rows of pictures with their names on the left: Fig. 3 and Fig. 4.

    Args:
        rows: by name, shape ``(columns, size, size, 3)``, uint8, the same number of columns. Pictures of a record
            come from :func:`efvae.experiments.image_pictures.read_picture`.

    Raises:
        ValueError: no rows, or rows of different lengths.

    Paper: fig-3, fig-4
    """
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1:
        raise ValueError(f"picture_rows: expected rows of one length; got lengths {sorted(lengths)}")
    figure, axes = plt.subplots(len(rows), 1, figsize=(7.2, 0.74 * len(rows)), layout="constrained", squeeze=False)
    for ax, (name, row) in zip(axes[:, 0], rows.items(), strict=True):
        columns, height, width, _ = row.shape
        ax.imshow(row.permute(1, 0, 2, 3).reshape(height, columns * width, 3).numpy(), interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure


def along_training(
    curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]],
    distance: str = "frechet_classifier",
    named: str = "Fréchet distance\nin fruit-classifier features",
    bound: float | None = None,
) -> Figure:
    """ELBO, Fréchet distance and σ_d along the joint training, a line for each seed.

    Args:
        curves: by name of the variant, the curve of each seed: ``step``, ``elbo``, ``sigma`` and the distance.
        distance: name of the column of the Fréchet distance.
        named: what to call it; only Inception features make it FID.
        bound: entropy bound on the likelihood in nats: the first panel then shows how far below it the ELBO is.

    Paper: tab-1, fig-4
    """
    figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.7), layout="constrained")
    for (name, seeds), colour, style in zip(curves.items(), COLOURS, STYLES, strict=False):
        for index, curve in enumerate(seeds):
            for ax, column in zip(axes, ("elbo", distance, "sigma"), strict=True):
                label = {"label": name} if not index and column == "elbo" else {}
                values = curve[column]
                if column == "elbo" and bound is not None:
                    values = [bound - value for value in values]
                ax.plot(curve["step"], values, linestyle=style, color=colour, linewidth=1.3, **label)
    # the first ELBO lies orders of magnitude below the rest
    if bound is None:
        axes[0].set_yscale("symlog", linthresh=1000)
    else:
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes[0].yaxis.set_minor_formatter(NullFormatter())
        axes[0].invert_yaxis()
    first = "ELBO, nats per image" if bound is None else "ELBO, nats below\nthe noise's bound"
    for ax, title in zip(axes, (first, named, r"pixel noise $\sigma_d$"), strict=True):
        ax.set(xlabel="step")
        ax.set_title(title, fontsize=9.5)
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure
