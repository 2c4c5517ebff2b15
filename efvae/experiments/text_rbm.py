"""Section 4.3: the multinomial–Bernoulli RBM trained directly, by exact maximum likelihood.

Run one cell of it with ``python -m efvae.experiments.text_rbm bits=8 prior=own seed=0``.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from efvae import records
from efvae.experiments import text
from efvae.records import Record
from efvae.text.listed import LISTED
from efvae.text.rbm import PRIORS, TextRBM
from efvae.text.retrieval import CodeModel, retrieval_metrics
from efvae.text.selection import hold_out, lowest
from efvae.train import Curve, TrainConfig, fit
from efvae.values import check_fields
from efvae.word_counts import WordCounts, base_measure_floor, log_saturated

__all__ = ["STEM", "Config", "Solution", "check", "data_sha256", "run", "solve"]

STEM = "sec4_3_rbm"
#: Fields that name a record's file.
SHOW = ("prior", "bits", "held_out", "seed")
#: Share of the learning rate that is left at the last step.
FINAL_RATE = 0.01
#: Documents that a query looks at.
NEAREST = 100


@dataclass(frozen=True)
class Config:
    """One cell: a linear decoder of words, trained by its exact likelihood at the given lengths.

    Args:
        corpus: ``20news``, ``harmonium`` or ``curved``, as in :class:`efvae.experiments.text.Config`.
        bits: length m of the codes, 1 … 20; the time of a step grows with 2^m.
        prior: ``own``, the RBM; ``uniform``, the best that a VAE with uniform bits and a linear decoder can be.
        seed: of first weights and batches.
        epochs: as many steps as make so many passes over the training documents.
        batch_size: documents in a step, drawn with replacement.
        learning_rate: of Adam at the first step; it falls along a half cosine.
        vocabulary: number of words K.
        held_out: training documents that are not trained on, but select the epoch; 0: the test set selects it, as in
            the paper.
        evaluate_every: epochs between two evaluations, which are the candidates for the selected epoch.

    Raises:
        ValueError: a value out of its range.

    Own: own-text-rbm
    """

    corpus: str = "20news"
    bits: int = 8
    prior: str = "own"
    seed: int = 0
    epochs: int = 150
    batch_size: int = 256
    learning_rate: float = 1e-2
    vocabulary: int = 10000
    held_out: int = 0
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        least = {"seed": 0, "epochs": 1, "batch_size": 1, "vocabulary": 2, "held_out": 0, "evaluate_every": 1}
        choices = {"corpus": text.CORPORA, "prior": PRIORS}
        check_fields(self, choices=choices, least=least, positive=("learning_rate",))
        if not 1 <= self.bits <= LISTED:
            raise ValueError(f"bits must be in [1, {LISTED}], so that all codes can be listed; got {self.bits}")


def check(config: Config) -> None:
    """See :func:`efvae.experiments.text.check`.

    Own: own-text-rbm
    """
    text.check(text.Config(corpus=config.corpus, vocabulary=config.vocabulary, held_out=config.held_out))


@dataclass(frozen=True)
class Solution:
    """A record together with the model it speaks of.

    Args:
        record: config, metrics, curve and provenance.
        model: at the epoch that was selected, float64.
        train, test: the documents.

    Own: own-text-rbm
    """

    record: Record
    model: TextRBM
    train: WordCounts
    test: WordCounts


@dataclass(frozen=True)
class _Marginals:
    """Codes by the marginals of the bits under uniform bits, where the posterior is not factorized."""

    model: TextRBM

    @property
    def n_words(self) -> int:
        return self.model.n_words

    def encode(self, x: WordCounts) -> Tensor:
        return torch.logit(self.model.uniform_marginals(x), eps=1e-12)


def solve(
    config: Config, checkpoint: Path | None = None, progress: Callable[[int, Curve], None] | None = None
) -> Solution:
    """Train one cell and evaluate it; nothing but a checkpoint is stored.

    Metrics in nats for each document, on average; all but those called ``_base`` are relative to the saturated
    multinomial, whose own value is 0, so that they stand beside the NELBO of Table 2::

        nll_train, nll_test          −log p(x | l), exact, lowest over the epochs: the test set selects the epoch
        nll_test_cross               each half of the test set at the epoch that the other half selects
        nll_held_out                 lowest over the epochs, of held-out training documents; None without any
        nll_test_held_out            on test at that epoch
        epoch_test
        nll_train_last, nll_test_last
        nll_train_base, nll_test_base    with the base measure

    and of the model of the selected epoch, which is that of ``nll_held_out`` or else of ``nll_test``::

        nll_kept_PART                the same quantity
        nll_uniform_PART             of an RBM with uniform bits in place of its prior
        nelbo_uniform_PART           −ELBO of that model with the RBM's encoder
        length_information           of an RBM, I(l; z) in nats, lengths as in training: 0 in a VAE
        prior_entropy                of an RBM, mean of H(z | l) in nats; m log 2 for uniform bits

    and those of :func:`efvae.text.retrieval.retrieval_metrics`.

    Args:
        config: the cell.
        checkpoint: file to resume from if it exists, and to write to after each epoch.
        progress: see :func:`efvae.train.fit`.

    Raises:
        ValueError: more held-out documents than there are.
        efvae.train.TrainingError: the loss became NaN or infinite.
        efvae.data.cache.DataError: the corpus is missing or altered.

    Own: own-text-rbm
    """
    started = time.monotonic()
    found = text.corpus(text.Config(corpus=config.corpus, vocabulary=config.vocabulary))
    train, held_out = hold_out(found.train, config.held_out)
    totals = found.train.word_totals() + 1 / found.train.n_words
    generator = torch.Generator().manual_seed(config.seed)
    model = TextRBM.initial(totals / totals.sum(), config.bits, generator)
    parts = {"train": train, "test": found.test} | ({} if held_out is None else {"held_out": held_out})
    keeper = _Keeper(model, parts, config.prior)
    steps = math.ceil(train.n_documents / config.batch_size)
    curve = fit(
        keeper,
        lambda rows, _: model.nll(train.select(rows), config.prior, keeper.saturated["train"][rows]),
        lambda g: torch.randint(train.n_documents, (config.batch_size,), generator=g),
        TrainConfig(config.epochs * steps, config.learning_rate, FINAL_RATE * config.learning_rate, seed=config.seed,
                    eval_every=config.evaluate_every * steps, checkpoint_every=0 if checkpoint is None else steps),
        evaluate=keeper.look,
        checkpoint=checkpoint,
        progress=progress,
    )  # fmt: skip
    curve["epoch"] = [step / steps for step in curve["step"]]
    kept = copy.deepcopy(keeper.best).double()
    floors = {name: float(base_measure_floor(x).mean()) for name, x in parts.items()}
    metrics = lowest(curve, "nll", floors) | _of_kept(kept, parts, config.prior)
    encoder: CodeModel = kept if config.prior == "own" else _Marginals(kept)
    metrics |= retrieval_metrics(encoder, found.train, found.test, min(NEAREST, found.train.n_documents))
    record = records.make(
        STEM,
        config,
        metrics,
        {name: [round(value, 3) for value in values] for name, values in curve.items()},
        seconds=time.monotonic() - started,
        data_sha256=data_sha256(config),
        show=SHOW,
    )
    return Solution(record, kept, found.train, found.test)


def run(
    config: Config, *, results: Path | None = None, refresh: bool = False, checkpoint: Path | None = None
) -> Record:
    """The record of one cell, computed unless it is there already.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.
        checkpoint: folder for checkpoints, a file for each configuration; a killed run continues from there.

    Raises:
        efvae.train.TrainingError: the loss became NaN or infinite.
        efvae.checkpoint.CheckpointError: the checkpoint is damaged or of another configuration.
        efvae.data.cache.DataError: the corpus is missing or altered.

    Own: own-text-rbm
    """
    checksum = data_sha256(config)
    name = records.cell_name(STEM, records.config_dict(config), checksum, SHOW)
    path = None if checkpoint is None else checkpoint / f"{name}.safetensors"
    return records.stored(
        STEM, config, lambda: solve(config, path).record, results=results, refresh=refresh, data_sha256=checksum
    )


def data_sha256(config: Config) -> str | None:
    """Checksum of the corpus of a cell, None if it is made on the spot; ``efvae sweep`` finds records by it.

    Own: own-text-rbm
    """
    return text.data_sha256(text.Config(corpus=config.corpus))


class _Keeper(nn.Module):
    """The model in training and a copy of it at its best epoch, so that a checkpoint holds both."""

    def __init__(self, model: TextRBM, parts: dict[str, WordCounts], prior: str) -> None:
        super().__init__()
        self.model, self.parts, self.prior = model, parts, prior
        self.saturated = {name: log_saturated(x) for name, x in parts.items()}
        self.best = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.lowest: Tensor
        self.register_buffer("lowest", torch.tensor(math.inf, dtype=torch.float64))

    @torch.no_grad()
    def look(self) -> dict[str, float]:
        """Entries of the curve, in float64."""
        exact = copy.deepcopy(self.model).double()
        nll = {name: exact.nll(x, self.prior, self.saturated[name]) for name, x in self.parts.items()}
        found = {f"nll_{name}": float(value.mean()) for name, value in nll.items()}
        chosen = found.get("nll_held_out", found["nll_test"])
        if chosen < self.lowest:
            self.lowest.fill_(chosen)
            self.best.load_state_dict(self.model.state_dict())
        halves = {"even": nll["test"][::2], "odd": nll["test"][1::2]}
        return found | {f"nll_test_{name}": float(value.mean()) for name, value in halves.items()}


@torch.no_grad()
def _of_kept(model: TextRBM, parts: dict[str, WordCounts], prior: str) -> dict[str, float]:
    """See :func:`solve`."""
    splits = {name: parts[name] for name in ("train", "test")}
    metrics = {f"nll_kept_{name}": float(model.nll(x, prior).mean()) for name, x in splits.items()}
    if prior == "uniform":
        return metrics
    for name, x in splits.items():
        metrics[f"nll_uniform_{name}"] = float(model.nll(x, "uniform").mean())
        metrics[f"nelbo_uniform_{name}"] = float(model.nelbo_uniform(x).mean())
    length, times = parts["train"].length().unique(return_counts=True)
    found = model.length_information(length, times.double() / times.sum())
    return metrics | {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
