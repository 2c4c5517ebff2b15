"""Section 4.3: what leaky hidden units have that ReLUs have not, in an eighth of the corpus.

Run one training with ``python -m efvae.experiments.text_slope units=recycled``.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from efvae import devices, records
from efvae.estimators import ARM
from efvae.experiments import text
from efvae.records import Record
from efvae.text.model import ENCODERS, WIDTH, TextVAE
from efvae.text.recycling import recycle
from efvae.text.training import Phase, Run, train_together
from efvae.train import Curve
from efvae.values import check_fields

__all__ = ["LOOK", "SLOPE", "STEM", "UNITS", "Config", "data_sha256", "run"]

STEM = "sec4_3_slope"

#: The kinds of hidden units, with a slope below zero everywhere, in one network, up to an epoch or from it on; without
#: one; and without one, silent units being drawn anew after each epoch.
UNITS = ("relu", "leaky", "leaky_encoder", "leaky_decoder", "leaky_first", "leaky_later", "recycled")

#: Below zero.
SLOPE = 0.01

#: Epochs between two entries of the curve.
LOOK = 10


@dataclass(frozen=True)
class Config:
    """A small version of a cell of Table 2 with hidden units.

    Args:
        corpus, bits, encoder, d_hidden, seed, first_weights, width: as in :class:`efvae.experiments.text.Config`.
        every: documents of which this one is taken, 8 for the first, the ninth and so on, of both splits.
        vocabulary: number of words.
        batch_size: documents in a step; with 32 and an eighth of the documents there are as many steps as in Table 2.
        epochs: with one pair of codes for each document, a multiple of :data:`LOOK`.
        epochs_many: after them with ten pairs, likewise.
        units: one of :data:`UNITS`.
        turn: epoch after which ``leaky_first`` loses and ``leaky_later`` gains its slope.

    Raises:
        ValueError: a value out of its range, a cell without hidden units, or a slope in a network without them.

    Own: own-text-slope
    """

    corpus: str = "20news"
    bits: int = 16
    encoder: str = "e1"
    d_hidden: int = 2
    seed: int = 0
    every: int = 8
    vocabulary: int = 3000
    batch_size: int = 32
    epochs: int = 300
    epochs_many: int = 0
    units: str = "relu"
    turn: int = 100
    first_weights: str = "torch"
    width: int = WIDTH

    def __post_init__(self) -> None:
        check_fields(
            self,
            choices={
                "corpus": text.CORPORA,
                "encoder": ENCODERS,
                "units": UNITS,
                "first_weights": text.FIRST_WEIGHTS,
            },
            least={
                "bits": 1,
                "seed": 0,
                "every": 1,
                "batch_size": 1,
                "epochs": LOOK,
                "epochs_many": 0,
                "turn": 1,
                "width": 1,
            },
        )
        text.check_hidden_units(_cell(self))
        for name in ("epochs", "epochs_many"):
            if getattr(self, name) % LOOK:
                raise ValueError(f"{name} must be a multiple of {LOOK}; got {getattr(self, name)}")
        if self.turn >= self.epochs and self.units in ("leaky_first", "leaky_later"):
            raise ValueError(f"turn must be below epochs, {self.epochs}, with units={self.units}; got {self.turn}")
        if (self.units == "leaky_encoder" and self.encoder != "e2") or (
            self.units == "leaky_decoder" and not self.d_hidden
        ):
            raise ValueError(
                f"units={self.units} with encoder={self.encoder} and d_hidden={self.d_hidden}: that network has no "
                "hidden units, take another kind"
            )


def run(
    config: Config,
    *,
    results: Path | None = None,
    refresh: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Train a small cell, and count its silent hidden units on the way.

    Metrics; of the first and the silent shares there is a curve, an entry for each ten epochs::

        nelbo_train    median of the last ten epochs, in nats, relative to the saturated multinomial
        nelbo_train_lowest   over the epochs, as Table 2 has it; the older records lack it
        nelbo_test     lowest over the epochs; that is an early one, often before the turn
        silent_encoder_1, silent_encoder_2, silent_decoder_1, silent_decoder_2
                       share of units above zero for no training document after the last epoch, see
                       efvae.text.model.TextVAE.silent; with units=recycled before any is drawn anew
        recycled       units drawn anew, in all

    Args:
        config: the training.
        results: folder of records; None: nowhere is looked, and nothing is written.
        refresh: compute again although the record exists.
        progress: receives one line after each ten epochs; to the terminal by default.

    Raises:
        efvae.data.cache.DataError: see :func:`efvae.experiments.text.corpus`.
        efvae.train.TrainingError: the NELBO is not a finite number.
        ValueError: too few documents are left.

    Own: own-text-slope
    """

    def compute() -> Record:
        started = time.monotonic()
        metrics, curve = _train(config, progress or functools.partial(print, file=sys.stderr, flush=True))
        return records.make(
            STEM,
            config,
            metrics,
            curve,
            seconds=time.monotonic() - started,
            data_sha256=data_sha256(config),
            device=devices.described(_cell(config).precision, torch.device("cpu")),
            show=("bits", "d_hidden", "encoder", "units", "seed"),
        )

    return records.stored(STEM, config, compute, results=results, refresh=refresh, data_sha256=data_sha256(config))


def data_sha256(config: Config) -> str | None:
    """Checksum of the corpus, None if it is made on the spot; ``efvae sweep`` finds records by it.

    Own: own-text-slope
    """
    return text.data_sha256(_cell(config))


def _cell(config: Config) -> text.Config:
    own = {key: value for key, value in records.config_dict(config).items() if key not in ("every", "units", "turn")}
    # a slope of zero makes a ReLU of a leaky unit
    return text.Config(**own, activation="leaky_relu")


def _slope(model: TextVAE, config: Config, epoch: int) -> None:
    """Give the hidden units the slope that they have after so many epochs."""
    now = "leaky_later" if epoch >= config.turn else "leaky_first"
    leaks = {name: config.units in ("leaky", f"leaky_{name}", now) for name in ("encoder", "decoder")}
    for name, net in (("encoder", model.code_net), ("decoder", model.hidden_net)):
        for unit in net.modules():
            if isinstance(unit, nn.LeakyReLU):
                unit.negative_slope = SLOPE if leaks[name] else 0.0


def _train(config: Config, tell: Callable[[str], None]) -> tuple[dict[str, float], Curve]:
    cell = _cell(config)
    whole = text.corpus(cell)
    train, test = (
        documents.select(torch.arange(0, documents.n_documents, config.every))
        for documents in (whole.train, whole.test)
    )
    if train.n_documents < text.RETRIEVED or test.n_documents < 2:
        raise ValueError(
            f"every={config.every} leaves {train.n_documents} documents to train on and {test.n_documents} to test, "
            f"at least {text.RETRIEVED} and 2 are needed: take a smaller one"
        )
    part = dataclasses.replace(whole, train=train, test=test)
    corpora, kept, (learner,) = text.begin([cell], part, None, torch.device("cpu"))
    model, curve, count = learner.model, Curve(), 0
    # sources of their own: looking changes nothing in the training
    redrawn = torch.Generator().manual_seed((1 << 20) + config.seed)
    seen = kept, torch.Generator().manual_seed(config.seed)

    def progress(epoch: int, epochs: int, _: Sequence[Run]) -> None:
        nonlocal count
        if epoch % LOOK == 0:
            entries = {"epoch": float(epoch), "nelbo_train": statistics.median(learner.curve["nelbo_train"][-LOOK:])}
            shares = {f"silent_{layer}": share for layer, share in model.silent_units(*seen).items()}
            for name, value in (entries | shares).items():
                curve.setdefault(name, []).append(value)
            tell(f"epoch {epoch}/{epochs}  NELBO train {entries['nelbo_train']:.1f}")
        if epoch < epochs:
            _slope(model, config, epoch)
            if config.units == "recycled":
                count += recycle(
                    model, learner.optimizer, model.silent(*seen), redrawn, by_he=config.first_weights == "he"
                )

    _slope(model, config, 0)
    phases = [Phase(cell.epochs, ARM(1)), Phase(cell.epochs_many, ARM(cell.samples_many))]
    train_together([learner], corpora, phases, batch_size=cell.batch_size, order_seed=cell.seed, progress=progress)
    last = {name: values[-1] for name, values in curve.items() if name != "epoch"}
    lowest = {"nelbo_train_lowest": min(learner.curve["nelbo_train"]), "nelbo_test": min(learner.curve["nelbo_test"])}
    return last | lowest | {"recycled": float(count)}, curve


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
