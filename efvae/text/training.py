"""Training of text autoencoders, one or several at a time, as the paper's Appendix C.2 describes it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from efvae.checkpoint import load_checkpoint, save_checkpoint
from efvae.estimators import Estimator
from efvae.text.model import TextVAE
from efvae.text.passes import Corpora, evaluate, passes
from efvae.train import Curve, TrainingError
from efvae.values import check_whole, shown

__all__ = ["ASTRAY", "Corpora", "Phase", "Run", "evaluate", "train_together"]

#: A training ends where its NELBO, less the largest KL term, is so many times what it is with all words as frequent.
ASTRAY = 10.0


@dataclass(frozen=True)
class Phase:
    """Some epochs with one estimator.

    Args:
        epochs: how many, ≥ 0.
        estimator: of the gradient.

    Raises:
        ValueError: a negative number of epochs, or something else in place of an estimator, such as its class.

    Paper: app-c2
    """

    epochs: int
    estimator: Estimator

    def __post_init__(self) -> None:
        check_whole("Phase", "epochs", self.epochs, 0)
        if isinstance(self.estimator, type):
            name = self.estimator.__name__
            raise ValueError(f"Phase: expected an estimator, got the class {name}: write {name}()")
        if not isinstance(self.estimator, Estimator):
            raise ValueError(f"Phase: expected an estimator such as DisARM(1), got {shown(self.estimator)}")


class _Clock(nn.Module):
    """Seconds spent on a model, kept in its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))

    @property
    def seconds(self) -> float:
        return float(self.total)

    def spend(self, seconds: float) -> None:
        self.total += seconds


class Run:
    """One model on its way: its optimiser, its random numbers, its curve, and the model at its best epoch.

    Whether it is trained alone or with others changes nothing, on a CPU to the bit: all of this is its own.

    Args:
        model: trained in place.
        seed: of the codes drawn.
        learning_rate: of Adam.
        fingerprint: what a resuming run must agree in.
        checkpoint: file to resume from if it exists, and to write to; None for none.
        name: how messages call it.
        clip: greatest norm of a step's gradient, 0 for any.

    Raises:
        efvae.checkpoint.CheckpointError: the checkpoint is damaged or of another configuration.
        ValueError: a negative norm.

    Own: own-text-training
    """

    def __init__(
        self,
        model: TextVAE,
        seed: int = 0,
        learning_rate: float = 1e-3,
        fingerprint: str = "",
        checkpoint: Path | None = None,
        name: str = "the model",
        clip: float = 0.0,
    ) -> None:
        if not clip >= 0:
            raise ValueError(f"Run: clip must be a norm, at least 0; got {clip}")
        self.name, self.clip = name, clip
        self.model, self.best = model, copy.deepcopy(model)
        device = model.writer.device
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=learning_rate, fused=True, capturable=device.type != "cpu"
        )
        self.generator = torch.Generator(device).manual_seed(seed)
        self.fingerprint, self.checkpoint = fingerprint, checkpoint
        self.epoch, self.curve = 0, Curve()
        self.clock = _Clock()
        if checkpoint is not None and checkpoint.exists():
            self.epoch, self.curve = load_checkpoint(
                checkpoint, self._state(), self.optimizer, self.generator, fingerprint
            )

    def _state(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "best": self.best, "clock": self.clock})

    def save(self) -> None:
        """Write the checkpoint, if one was asked for.

        Own: own-text-training
        """
        if self.checkpoint is not None:
            save_checkpoint(
                self.checkpoint,
                self._state(),
                self.optimizer,
                self.generator,
                self.fingerprint,
                self.epoch,
                self.curve,
            )

    def enter(self, entries: dict[str, float], criterion: str, most: float = math.inf) -> None:
        """One epoch into the curve; the model is kept if it is the best so far.

        Args:
            entries: metrics of the epoch.
            criterion: the one that selects, smaller is better.
            most: of a NELBO, nats beyond which a training has gone astray.

        Raises:
            TrainingError: one is not a finite number, or a NELBO more than that.

        Own: own-text-training
        """
        for name, value in entries.items():
            astray = name.startswith("nelbo") and value > most
            if not math.isfinite(value) or astray:
                beyond = f", beyond {most:.4g}" if math.isfinite(value) else ""
                raise TrainingError(
                    f"{self.name}: {name} is {value:.4g} in epoch {self.epoch + 1}{beyond}: lower the learning rate "
                    f"({self.optimizer.param_groups[0]['lr']:g})"
                )
        self.epoch += 1
        if entries[criterion] < min(self.curve.get(criterion, [math.inf])):
            self.best.load_state_dict(self.model.state_dict())
        for name, value in {"epoch": float(self.epoch), **entries}.items():
            self.curve.setdefault(name, []).append(value)


def train_together(
    runs: Sequence[Run],
    corpora: Corpora,
    phases: Sequence[Phase],
    *,
    batch_size: int = 256,
    order_seed: int = 0,
    checkpoint_every: int = 25,
    graph: bool = True,
    progress: Callable[[int, int, Sequence[Run]], None] | None = None,
) -> None:
    """Train models in place, each document read once an epoch for all of them; resumable, on a CPU to the bit.

    The curve of a run gets, for each epoch and in nats relative to the saturated multinomial::

        nelbo_train                 mean over the documents, taken as the epoch goes
        nelbo_test, kl_test         after it, one code for each document, in float32
        nelbo_test_even, _odd       of the documents with even and odd numbers
        nelbo_held_out              if there are held-out documents

    The best model is that of the lowest ``nelbo_held_out`` if there is one, else of the lowest ``nelbo_test``. A run
    that was killed between the checkpoints of two others is first trained up to them.

    Args:
        runs: the models.
        corpora: the documents.
        phases: what to do, one after the other.
        batch_size: documents in a step.
        order_seed: of the order of the documents.
        checkpoint_every: epochs between two checkpoints.
        graph: whether a CUDA device replays recorded steps, see :class:`~efvae.text.passes.FixedPasses`.
        progress: called after each epoch with the number done, the number in all, and the runs that did it.

    Raises:
        TrainingError: the NELBO of some models became NaN, infinite or :data:`ASTRAY`; the others are trained to the
            end before, and the checkpoints on disk are the last sound ones.
        ValueError: no model, one of another vocabulary, no document in a step, no epoch between checkpoints, or fewer
            than two test documents: each half selects the epoch of the other.

    Paper: app-c2, sec-4-3
    """
    _refuse(runs, corpora, batch_size, checkpoint_every)
    plan = [phase.estimator for phase in phases for _ in range(phase.epochs)]
    criterion = "nelbo_test" if corpora.held_out is None else "nelbo_held_out"
    way = passes(corpora, batch_size, graph=graph)
    failed: dict[int, TrainingError] = {}
    for epoch in range(min(run.epoch for run in runs), len(plan)):
        active = [run for run in runs if run.epoch == epoch]  # no failed one: it stays at the epoch before
        if not active:
            break
        started = time.monotonic()
        order = _order(corpora.train.n_documents, order_seed, epoch)
        figures = way.epoch(active, plan[epoch], order).cpu().tolist()  # the host waits here, once an epoch
        for run, values in zip(active, figures, strict=True):
            try:
                run.enter(dict(zip(corpora.figures, values, strict=True)), criterion, _most(run, corpora))
            except TrainingError as error:
                failed[id(run)] = error
        for run in active:
            run.clock.spend((time.monotonic() - started) / len(active))
            if id(run) not in failed and (run.epoch % checkpoint_every == 0 or run.epoch == len(plan)):
                run.save()
        sound = [run for run in active if id(run) not in failed]
        if progress and sound:
            progress(epoch + 1, len(plan), sound)
    if failed:
        raise TrainingError("; ".join(map(str, failed.values())))


def _most(run: Run, corpora: Corpora) -> float:
    """Nats of a NELBO that no sound training has: the cost of the words is one part of it, the KL term the other."""
    return ASTRAY * corpora.train.uniform + run.model.bits * math.log(2)


def _refuse(runs: Sequence[Run], corpora: Corpora, batch_size: int, checkpoint_every: int) -> None:
    check_whole("train_together", "batch_size", batch_size, 1)
    check_whole("train_together", "checkpoint_every", checkpoint_every, 1)
    if not runs:
        raise ValueError("train_together: expected at least one model to train, got none")
    for run in runs:
        if run.model.n_words != corpora.train.n_words:
            raise ValueError(
                f"train_together: {run.name} has {run.model.n_words} words, the documents {corpora.train.n_words}"
            )
    if corpora.test.n_documents < 2:
        raise ValueError(f"train_together: expected at least 2 test documents, got {corpora.test.n_documents}")


def _order(n: int, seed: int, epoch: int) -> Tensor:
    # a function of the epoch, so that a resumed run needs no more than its number
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return torch.randperm(n, generator=generator)
