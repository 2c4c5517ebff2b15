"""One epoch over the documents for several models: steps, then an evaluation; the host looks once, at the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from efvae.devices import Repeated, Streams, matmul_precision
from efvae.estimators import Estimator
from efvae.text import linear_steps
from efvae.text.batches import Documents
from efvae.text.dense import AnyBatch, DenseBatch, DenseDocuments
from efvae.text.model import TextVAE, divergence
from efvae.word_counts import WordCounts

__all__ = ["Corpora", "FixedPasses", "Passes", "SparsePasses", "evaluate", "passes"]

#: Documents in one piece of an evaluation, where their codes are too many to be listed.
PIECE = {"cpu": 4096, "cuda": 2048}
#: Steps of a model on a CPU before the next one has its turn: its weights and their moments stay in the caches so long.
STEPS = 16
#: Models whose steps may overlap on a CUDA device; small ones leave most of it idle.
STREAMS = 12


@dataclass(frozen=True)
class Corpora:
    """What a training run reads.

    Args:
        train: with a dense form if codes are listed and a decoder has hidden layers; sparse, see
            :class:`~efvae.text.batches.Documents`, or for an accelerator a table, see
            :class:`~efvae.text.dense.DenseDocuments`.
        test: evaluated after each epoch.
        held_out: evaluated likewise; None for none.

    Raises:
        ValueError: word counts that are not cut into batches, or documents with different vocabularies.

    Own: own-text-training
    """

    train: Documents | DenseDocuments
    test: Documents | DenseDocuments
    held_out: Documents | DenseDocuments | None = None

    def __post_init__(self) -> None:
        for name in ("train", "test", "held_out"):
            if isinstance(getattr(self, name), WordCounts):
                raise ValueError(f"Corpora: {name} must be Documents, got WordCounts: write Documents({name})")
        sizes = {x.n_words for x in (self.train, self.test, self.held_out) if x is not None}
        if len(sizes) > 1:
            raise ValueError(f"Corpora: the documents have vocabularies of different sizes: {sorted(sizes)}")

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of an epoch."""
        named = ("nelbo_train", "nelbo_test", "nelbo_test_even", "nelbo_test_odd", "kl_test")
        return named if self.held_out is None else (*named, "nelbo_held_out")


class Learner(Protocol):
    """A model that is being trained."""

    @property
    def model(self) -> TextVAE:
        """What is trained, in place."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its optimiser."""

    @property
    def generator(self) -> torch.Generator:
        """Source of its codes."""

    @property
    def clip(self) -> float:
        """Greatest norm of a step's gradient, 0 for any."""


class Passes(Protocol):
    """A way to go over the documents."""

    def epoch(self, learners: Sequence[Learner], estimator: Estimator, order: Tensor) -> Tensor:
        """Train for one epoch, then evaluate.

        Args:
            learners: trained in place.
            estimator: of the gradient.
            order: a permutation of the training documents, int64 on the host.

        Returns:
            :attr:`Corpora.figures` of each, float64, shape ``(learners, figures)``, still on the device.

        Own: own-text-training
        """
        ...


def descend(learner: Learner, batch: AnyBatch, estimator: Estimator) -> Tensor:
    """One step; the sum of the documents' NELBOs before it, still on the device."""
    if not learner.clip:
        done = linear_steps.step(learner.model, learner.optimizer, batch, estimator, learner.generator)
        if done is not None:
            return done
    learner.optimizer.zero_grad(set_to_none=True)
    nelbo, _ = learner.model.nelbo(batch, estimator, learner.generator)
    nelbo.mean().backward()
    if learner.clip:
        nn.utils.clip_grad_norm_(learner.model.parameters(), learner.clip)
    learner.optimizer.step()
    return nelbo.detach().sum()


@torch.no_grad()
def evaluate(
    model: TextVAE, documents: Documents | DenseDocuments, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """NELBO and KL of each document in nats, float32, from one code drawn for each.

    Args:
        model: evaluated in float32.
        documents: the documents.
        generator: source of randomness.

    Returns:
        NELBO relative to the saturated multinomial and KL(q ‖ uniform), each of shape ``(documents,)``.

    Paper: tab-2
    """
    training = model.training
    model.eval()
    layer = model.frozen(documents)
    piece = PIECE["cpu" if model.writer.device.type == "cpu" else "cuda"]
    if model.lists(documents):
        piece = documents.n_documents
    nelbos, kls = [], []
    for batch in documents.batches(piece):
        q = model.posterior(batch)
        kl = divergence(q.eta)
        nelbos.append(model.costs(batch, layer)(q.sample((1,), generator))[0] + kl)
        kls.append(kl)
    model.train(training)
    return torch.cat(nelbos), torch.cat(kls)


def _after(learner: Learner, corpora: Corpora) -> Tensor:
    """The figures of an epoch but the first, float64, still on the device."""
    nelbo, kl = evaluate(learner.model, corpora.test, learner.generator)
    found = [nelbo.mean(), nelbo[0::2].mean(), nelbo[1::2].mean(), kl.mean()]
    if corpora.held_out is not None:
        found.append(evaluate(learner.model, corpora.held_out, learner.generator)[0].mean())
    return torch.stack(found).double()


@dataclass(frozen=True)
class SparsePasses:
    """Through the words that occur only, as is fastest on a CPU.

    Args:
        corpora: with sparse documents to train on.
        batch_size: documents in a step.

    Own: own-text-training
    """

    corpora: Corpora
    batch_size: int

    def epoch(self, learners: Sequence[Learner], estimator: Estimator, order: Tensor) -> Tensor:
        """See :meth:`Passes.epoch`."""
        train = self.corpora.train
        assert isinstance(train, Documents)  # noqa: S101 - how passes() makes it
        totals = [torch.zeros((), dtype=torch.float64, device=each.model.writer.device) for each in learners]
        batches = train.shuffled(order).batches(self.batch_size)
        steps = STEPS if len(learners) > 1 else 1
        while some := list(itertools.islice(batches, steps)):
            for total, learner in zip(totals, learners, strict=True):
                for batch in some:
                    total.add_(descend(learner, batch, estimator))
        return torch.stack(
            [
                torch.cat([total[None] / train.n_documents, _after(each, self.corpora)])
                for total, each in zip(totals, learners, strict=True)
            ]
        )


class FixedPasses:
    """In steps of fixed shape, of which an accelerator is told once: by a CUDA graph of all models' steps.

    The same numbers are drawn as by :class:`SparsePasses` on the same device.

    Args:
        corpora: dense, all on one device.
        batch_size: documents in a step; the last one of an epoch may have fewer, and has a graph of its own.
        graph: whether to record graphs, where the device is a CUDA one.

    Own: own-text-training
    """

    def __init__(self, corpora: Corpora, batch_size: int, *, graph: bool = True) -> None:
        assert isinstance(corpora.train, DenseDocuments)  # noqa: S101 - how passes() makes it
        self.corpora, self.train, self.batch_size = corpora, corpora.train, batch_size
        device = self.train.device
        self._graph, self._streams = graph and device.type == "cuda", Streams(device, STREAMS)
        self._order = torch.zeros(self.train.n_documents, dtype=torch.int64, device=device)
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._offsets = torch.arange(batch_size, device=device)
        self._prepared: tuple[object, ...] = ()
        self._works: list[Repeated] = []

    def epoch(self, learners: Sequence[Learner], estimator: Estimator, order: Tensor) -> Tensor:
        """See :meth:`Passes.epoch`."""
        if self._prepared != (estimator, *map(id, learners)):
            self._prepare(learners, estimator)
        self._order.copy_(order)
        self._position.zero_()
        self._figures.zero_()
        whole, rest = divmod(self.train.n_documents, self.batch_size)
        step, last, evaluation = self._works
        for _ in range(whole):
            step()
        if rest:
            last()
        evaluation()
        figures = self._figures.clone()
        figures[:, 0] /= self.train.n_documents
        return figures

    def _prepare(self, learners: Sequence[Learner], estimator: Estimator) -> None:
        """Make the pieces of an epoch, without running them; the graphs of other models or estimators go first."""
        self._prepared = (estimator, *map(id, learners))
        self._works.clear()
        self._figures = torch.zeros(
            len(learners), len(self.corpora.figures), dtype=torch.float64, device=self.train.device
        )

        def step(size: int) -> Callable[[], None]:
            def work() -> None:
                batch = self.train.batch(self._order.index_select(0, self._position + self._offsets[:size]))
                self._each(learners, lambda index, learner: self._descend(index, learner, batch, estimator))
                self._position.add_(size)

            return work

        def evaluation() -> None:
            self._each(learners, lambda index, learner: self._figures[index, 1:].copy_(_after(learner, self.corpora)))

        works = [step(self.batch_size), step(self.train.n_documents % self.batch_size), evaluation]
        sources = [learner.generator for learner in learners]
        self._works = [Repeated(work, sources, graph=self._graph) for work in works]

    def _descend(self, index: int, learner: Learner, batch: DenseBatch, estimator: Estimator) -> None:
        with matmul_precision("highest" if learner.model.dtype == torch.float32 else "high"):
            self._figures[index, 0].add_(descend(learner, batch, estimator))

    def _each(self, learners: Sequence[Learner], work: Callable[[int, Learner], object]) -> None:
        self._streams.begin()
        for index, learner in enumerate(learners):
            with self._streams.branch(index):
                work(index, learner)
        self._streams.end()


def passes(corpora: Corpora, batch_size: int, *, graph: bool = True) -> Passes:
    """The way that suits the documents.

    Args:
        corpora: sparse or dense.
        batch_size: documents in a step.
        graph: see :class:`FixedPasses`.

    Own: own-text-training
    """
    if isinstance(corpora.train, DenseDocuments):
        return FixedPasses(corpora, batch_size, graph=graph)
    return SparsePasses(corpora, batch_size)
