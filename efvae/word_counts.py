"""Word counts of many documents, kept sparse, and the two conventions of a negative ELBO of text.

A document enters a model as x = c + f: its counts c, few of them not zero, and one vector f shared by all documents.
c is stored by rows (CSR) and f beside it, so that adding f costs no sparsity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

__all__ = [
    "WordCounts",
    "base_measure_floor",
    "cross_entropy",
    "log_base_measure",
    "log_saturated",
    "to_base_measure",
    "to_saturated",
]


@dataclass(frozen=True)
class WordCounts:
    """Documents as rows of a sparse matrix plus a vector f that every document gets.

    ::

        x_dk = c_dk + f_k,   entries of document d: indices[indptr[d]:indptr[d + 1]]

    Args:
        indptr: where each document begins, int64, shape ``(documents + 1,)``.
        indices: words, ascending within a document, int32, shape ``(entries,)``.
        counts: c, positive whole numbers, float32, shape ``(entries,)``.
        smoothing: f ≥ 0, zeros for none, float64, shape ``(K,)``.
        labels: class of each document from 0, int64, shape ``(documents,)``.

    Raises:
        ValueError: shapes that do not fit together; or (on the CPU) row bounds that do not go through the entries, a
            word number outside the vocabulary or twice in a document, or counts that are not positive whole numbers.

    Paper: sec-4-3
    """

    indptr: Tensor
    indices: Tensor
    counts: Tensor
    smoothing: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.indptr) != len(self.labels) + 1 or self.indices.shape != self.counts.shape:
            raise ValueError(
                f"WordCounts: expected n + 1 row bounds for n labels and as many words as counts; got "
                f"{len(self.indptr)}, {len(self.labels)}, {len(self.indices)}, {len(self.counts)}"
            )
        if self.indices.device.type == "cpu":  # elsewhere a look would wait for the device
            self._refuse_bounds()
            self._refuse_entries()

    def _refuse_bounds(self) -> None:
        first, last, entries = int(self.indptr[0]), int(self.indptr[-1]), len(self.indices)
        if first != 0 or last != entries or bool((self.indptr.diff() < 0).any()):
            raise ValueError(
                f"WordCounts: row bounds must not fall, from 0 to the {entries} entries; got {first} first, {last} last"
            )

    def _refuse_entries(self) -> None:
        if not len(self.indices):
            return
        low, high = int(self.indices.min()), int(self.indices.max())
        if low < 0 or high >= len(self.smoothing):
            raise ValueError(f"WordCounts: words must be in [0, {len(self.smoothing)}), got some from {low} to {high}")
        bounds = self.indptr.contiguous()
        falls = (self.indices.diff() <= 0).nonzero().flatten().to(bounds) + 1  # only where a document begins
        begins = bounds[torch.searchsorted(bounds, falls).clamp(max=len(self.labels))]
        if bool((begins != falls).any()):
            raise ValueError(
                "WordCounts: the words of a document must ascend, each once: add up the counts of a word and sort"
            )
        if not bool(((self.counts > 0) & (self.counts == self.counts.round()) & self.counts.isfinite()).all()):
            raise ValueError(
                f"WordCounts: counts must be positive whole numbers, got some from {float(self.counts.min()):g} to "
                f"{float(self.counts.max()):g}"
            )

    @classmethod
    def from_dense(cls, counts: Tensor, labels: Tensor, smoothing: Tensor | None = None) -> Self:
        """From a matrix of counts, shape ``(documents, K)``; small corpora.

        Own: own-word-counts
        """
        document, word = counts.nonzero(as_tuple=True)
        ends = torch.bincount(document, minlength=len(counts)).cumsum(0)
        f = torch.zeros(counts.shape[1], dtype=torch.float64) if smoothing is None else smoothing
        return cls(torch.cat([ends.new_zeros(1), ends]), word.int(), counts[document, word].float(), f, labels)

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.labels)

    @property
    def n_words(self) -> int:
        """Size K of the vocabulary."""
        return len(self.smoothing)

    def documents(self) -> Tensor:
        """The document of each entry, int64, shape ``(entries,)``.

        Own: own-word-counts
        """
        rows = torch.arange(self.n_documents, device=self.indptr.device)
        return rows.repeat_interleave(self.indptr.diff(), output_size=len(self.indices))

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the entries of each document, shape ``(documents,)``.

        Args:
            values: one number for each entry, shape ``(entries,)``.

        Own: own-word-counts
        """
        return values.new_zeros(self.n_documents).index_add_(0, self.documents(), values)

    def length(self) -> Tensor:
        """l = Σ_k x_k with the smoothing's mass, float64, shape ``(documents,)``.

        Own: own-word-counts
        """
        return self.sums(self.counts.double()) + self.smoothing.sum()

    def empty(self) -> Tensor:
        """Numbers of the documents without an entry. Smoothed, such a document is f itself; else x / l is undefined.

        Own: own-word-counts
        """
        return (self.indptr.diff() == 0).nonzero().flatten()

    def word_totals(self) -> Tensor:
        """Σ_d c_dk without smoothing, float64, shape ``(K,)``.

        Own: own-word-counts
        """
        return self.smoothing.new_zeros(self.n_words).index_add_(0, self.indices.long(), self.counts.double())

    def select(self, rows: Tensor) -> Self:
        """Some documents, in the order of ``rows``.

        Args:
            rows: their numbers, int64, shape ``(n,)``; or which ones, bool, shape ``(documents,)``.

        Raises:
            ValueError: rows of another type or shape; on a CPU, a number below 0 or beyond the last document.

        Own: own-word-counts
        """
        if rows.dtype == torch.bool and rows.shape == (self.n_documents,):
            rows = rows.nonzero().flatten()
        if rows.dtype not in (torch.int64, torch.int32) or rows.ndim != 1:
            raise ValueError(
                f"select: rows must be numbers of documents, or a mask of all {self.n_documents}; got {rows.dtype} of "
                f"shape {tuple(rows.shape)}"
            )
        if rows.device.type == "cpu" and len(rows):  # a device would have to be waited for
            low, high = int(rows.min()), int(rows.max())
            if low < 0 or high >= self.n_documents:
                raise ValueError(
                    f"select: rows must be numbers of the {self.n_documents} documents, from 0 on, or a mask of all; "
                    f"got {len(rows)} from {low} to {high}"
                )
        size = self.indptr.diff()[rows]
        indptr = torch.cat([size.new_zeros(1), size.cumsum(0)])
        place = torch.arange(int(indptr[-1]), device=rows.device)
        place = place + (self.indptr[rows] - indptr[:-1]).repeat_interleave(size)
        return replace(
            self, indptr=indptr, indices=self.indices[place], counts=self.counts[place], labels=self.labels[rows]
        )

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """x with smoothing, shape ``(documents, K)``; for few documents, take :meth:`select` first.

        Own: own-word-counts
        """
        x = self.smoothing.to(dtype).repeat(self.n_documents, 1)
        x[self.documents(), self.indices.long()] += self.counts.to(dtype)
        return x

    def to(self, device: torch.device | str) -> Self:
        """The same documents on another device.

        Own: own-word-counts
        """
        moved = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        return replace(self, **moved)


def _changed(x: WordCounts) -> tuple[Tensor, Tensor]:
    """x_k and f_k at the entries, float64: what a sum over all words needs beyond its value at f."""
    f = x.smoothing[x.indices.long()]
    return x.counts.double() + f, f


def log_saturated(x: WordCounts) -> Tensor:
    """Cross term of a document with its own frequencies, the largest any model reaches, in nats.

    ::

        Σ_k x_k log(x_k / l),    0 log 0 = 0

    Returns:
        float64, shape ``(documents,)``.

    Paper: sec-4-3
    Own: own-nelbo
    """
    here, f = _changed(x)
    length = x.length()
    at_f = torch.special.xlogy(x.smoothing, x.smoothing).sum()
    entries = x.sums(torch.special.xlogy(here, here) - torch.special.xlogy(f, f))
    result: Tensor = at_f + entries - torch.special.xlogy(length, length)
    return result


def log_base_measure(x: WordCounts) -> Tensor:
    """The multinomial coefficient, by Γ where smoothing makes counts fractional, in nats.

    ::

        log h(x) = log Γ(l + 1) − Σ_k log Γ(x_k + 1)

    Returns:
        float64, shape ``(documents,)``.

    Paper: eq-13
    Own: own-nelbo
    """
    here, f = _changed(x)
    at_f = torch.lgamma(x.smoothing + 1).sum()
    return torch.lgamma(x.length() + 1) - at_f - x.sums(torch.lgamma(here + 1) - torch.lgamma(f + 1))


def cross_entropy(x: WordCounts, log_p: Tensor) -> Tensor:
    """The term of the data in nats under one law of words for all documents, float64, shape ``(documents,)``.

    ::

        −Σ_k x_k log p_k

    Args:
        x: the documents.
        log_p: float64, shape ``(K,)``.

    Own: own-nelbo
    """
    return -(x.smoothing @ log_p + x.sums(x.counts.double() * log_p[x.indices.long()]))


def base_measure_floor(x: WordCounts) -> Tensor:
    """−log of the saturated multinomial's probability of x in nats: the least NELBO that contains log h.

    ::

        −log h(x) − Σ_k x_k log(x_k / l) ≥ 0 for whole counts

    Returns:
        float64, shape ``(documents,)``.

    Own: own-nelbo
    """
    return -log_base_measure(x) - log_saturated(x)


def to_base_measure(nelbo: Tensor, x: WordCounts) -> Tensor:
    """From the NELBO relative to the saturated model, which Table 2 reports, to the negative ELBO of log p(x).

    ::

        NELBO_sat  = Σ_k x_k log((x_k / l) / p_k(z)) + KL     expectation over z implied; least value 0
        NELBO_base = −log h(x) − Σ_k x_k log p_k(z) + KL      = NELBO_sat + base_measure_floor(x)

    Args:
        nelbo: NELBO_sat of each document in nats, shape ``(..., documents)``.
        x: the documents.

    Paper: tab-2
    Own: own-nelbo
    """
    return nelbo + base_measure_floor(x)


def to_saturated(nelbo: Tensor, x: WordCounts) -> Tensor:
    """The inverse of :func:`to_base_measure`.

    Args:
        nelbo: NELBO_base of each document in nats, shape ``(..., documents)``.
        x: the documents.

    Paper: tab-2
    Own: own-nelbo
    """
    return nelbo - base_measure_floor(x)
