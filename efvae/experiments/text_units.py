"""Section 4.3: how many hidden units of a cell fall silent as its training begins.

Run one cell with ``python -m efvae.experiments.text_units bits=16 encoder=e1 d_hidden=2``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from efvae import records
from efvae.estimators import ARM
from efvae.experiments import text
from efvae.records import Record
from efvae.text.model import ACTIVATIONS, ENCODERS, WIDTH
from efvae.text.training import Phase, Run, train_together
from efvae.train import Curve
from efvae.values import check_fields

__all__ = ["STEM", "Config", "data_sha256", "run"]

STEM = "sec4_3_units"


@dataclass(frozen=True)
class Config:
    """A cell of Table 2 with hidden units, and how many epochs of its training are looked at.

    Args:
        corpus, bits, encoder, d_hidden, seed, activation, first_weights, width, vocabulary: as in
            :class:`efvae.experiments.text.Config`, whose other fields have their defaults.
        epochs: with one pair of codes for each document.

    Raises:
        ValueError: a value out of its range, or a cell without hidden units.

    Own: own-text-silent
    """

    corpus: str = "20news"
    bits: int = 16
    encoder: str = "e1"
    d_hidden: int = 2
    seed: int = 0
    epochs: int = 12
    activation: str = "relu"
    first_weights: str = "torch"
    width: int = WIDTH
    vocabulary: int = 10000

    def __post_init__(self) -> None:
        check_fields(
            self,
            choices={
                "corpus": text.CORPORA,
                "encoder": ENCODERS,
                "activation": tuple(ACTIVATIONS),
                "first_weights": text.FIRST_WEIGHTS,
            },
            least={"bits": 1, "seed": 0, "epochs": 1, "width": 1, "vocabulary": 2},
        )
        text.check_hidden_units(_cell(self))


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """Train a cell for some epochs and count its silent hidden units before and after each.

    Metrics after the last epoch; all but the last also as a curve, which begins before the training, with epoch 0::

        silent_encoder_1, silent_encoder_2    share of units above zero for no training document
        silent_decoder_1, silent_decoder_2    the same, with one code drawn for each document
        nelbo_train                           of the last epoch, in nats

    Args:
        config: the cell.
        results: folder of records; None: nowhere is looked, and nothing is written.
        refresh: compute again although the record exists.

    Raises:
        efvae.data.cache.DataError: files that are missing or wrong, or a vocabulary larger than the data's.
        efvae.train.TrainingError: the NELBO is not a finite number.

    Own: own-text-silent
    """

    def compute() -> Record:
        started = time.monotonic()
        curve, nelbo = _curve(_cell(config))
        metrics = {name: values[-1] for name, values in curve.items() if name != "epoch"} | {"nelbo_train": nelbo}
        return records.make(
            STEM,
            config,
            metrics,
            curve,
            seconds=time.monotonic() - started,
            data_sha256=data_sha256(config),
            show=("bits", "d_hidden", "encoder", "activation", "seed"),
        )

    return records.stored(STEM, config, compute, results=results, refresh=refresh, data_sha256=data_sha256(config))


def data_sha256(config: Config) -> str | None:
    """Checksum of the corpus of a cell, None if it is made on the spot; ``efvae sweep`` finds records by it.

    Own: own-text-silent
    """
    return text.data_sha256(_cell(config))


def _cell(config: Config) -> text.Config:
    return text.Config(**records.config_dict(config), epochs_many=0)


def _curve(cell: text.Config) -> tuple[Curve, float]:
    corpus = text.corpus(cell)
    corpora, kept, (learner,) = text.begin([cell], corpus, None, torch.device("cpu"))
    curve = Curve()

    def look(epoch: int) -> None:
        # codes of a source of its own: the training is that of the cell
        silent = learner.model.silent_units(kept, torch.Generator().manual_seed(cell.seed))
        for name, value in {"epoch": float(epoch), **{f"silent_{k}": share for k, share in silent.items()}}.items():
            curve.setdefault(name, []).append(value)

    def progress(epoch: int, epochs: int, _: Sequence[Run]) -> None:
        look(epoch)
        nelbo = learner.curve["nelbo_train"][-1]
        print(f"epoch {epoch}/{epochs}  NELBO train {nelbo:.1f}", file=sys.stderr, flush=True)

    look(0)
    phases = [Phase(cell.epochs, ARM(1))]
    train_together([learner], corpora, phases, batch_size=cell.batch_size, order_seed=cell.seed, progress=progress)
    return curve, learner.curve["nelbo_train"][-1]


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
