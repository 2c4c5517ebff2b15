"""Who selects the epoch: the test set, as in the paper, each half of it for the other, or documents held out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch

from efvae.train import Curve
from efvae.values import check_whole
from efvae.word_counts import WordCounts

__all__ = ["hold_out", "lowest"]


def hold_out(x: WordCounts, aside: int) -> tuple[WordCounts, WordCounts | None]:
    """Documents to train on and held-out ones: one split for all cells, whatever their seed, to compare them.

    Args:
        x: the training documents.
        aside: how many are held out; 0: none.

    Raises:
        ValueError: a negative number, as many as there are, or more.

    Own: own-text-training
    """
    check_whole("hold_out", "aside", aside, 0)
    if aside >= x.n_documents:
        raise ValueError(f"held_out must be less than the {x.n_documents} training documents; got {aside}")
    if not aside:
        return x, None
    order = torch.randperm(x.n_documents, generator=torch.Generator().manual_seed(0))
    return x.select(order[aside:].sort().values), x.select(order[:aside].sort().values)


def lowest(curve: Curve, quantity: str, floors: Mapping[str, float]) -> dict[str, float | None]:
    """Figures of a training run from its curve, with Q for the quantity, such as ``nelbo``, in nats.

    ::

        Q_train, Q_test                lowest over the epochs: the test set selects the epoch
        Q_test_cross                   each half of the test set at the epoch that the other half selects
        Q_held_out, Q_test_held_out    lowest of the held-out documents, and test at that epoch; None without any
        epoch_test, epoch_held_out     the epochs of Q_test and Q_held_out
        Q_train_last, Q_test_last      after the last epoch
        Q_train_base, Q_test_base      Q_train and Q_test with the base measure

    Args:
        curve: columns ``epoch``, ``Q_train``, ``Q_test``, ``Q_test_even``, ``Q_test_odd`` and, if documents were held
            out, ``Q_held_out``.
        quantity: Q.
        floors: mean of :func:`~efvae.word_counts.base_measure_floor` over each split.

    Own: own-text-training
    """

    def column(name: str) -> list[float]:
        return curve[f"{quantity}_{name}"]

    def best(name: str) -> int:
        return min(range(len(column(name))), key=column(name).__getitem__)

    test, train = column("test")[best("test")], min(column("train"))
    held_out = best("held_out") if f"{quantity}_held_out" in curve else None
    figures = {
        "train": train,
        "test": test,
        "test_cross": statistics.fmean([column("test_even")[best("test_odd")], column("test_odd")[best("test_even")]]),
        "held_out": None if held_out is None else column("held_out")[held_out],
        "test_held_out": None if held_out is None else column("test")[held_out],
        "train_last": column("train")[-1],
        "test_last": column("test")[-1],
        "train_base": train + floors["train"],
        "test_base": test + floors["test"],
    }
    return {f"{quantity}_{name}": value for name, value in figures.items()} | {
        "epoch_test": curve["epoch"][best("test")],
        "epoch_held_out": None if held_out is None else curve["epoch"][held_out],
    }
