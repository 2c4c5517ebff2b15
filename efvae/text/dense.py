"""Documents as a dense table on an accelerator: batches of one shape, so that a step can be recorded and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.text.batches import Batch, Documents
from efvae.word_counts import WordCounts

__all__ = ["AnyBatch", "DenseBatch", "DenseDocuments"]


@dataclass(frozen=True)
class DenseBatch:
    """Some documents with all their words; it offers what :class:`~efvae.text.batches.Batch` does.

    Args:
        x: counts with smoothing, float32, shape ``(documents, K)``.
        length: l = Σ_k x_k, shape ``(documents,)``.
        saturated: Σ_k x_k log(x_k / l) in nats, shape ``(documents,)``.
        dense: x in the precision of the products, where listed codes behind hidden layers need it.

    Own: own-fused-multinomial
    """

    x: Tensor
    length: Tensor
    saturated: Tensor
    dense: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def sums(self, table: Tensor) -> Tensor:
        """x T, shape ``(documents, width)``; no gradient.

        Args:
            table: T, one row for each word, shape ``(K, width)``.

        Own: own-fused-multinomial
        """
        return self.x @ table

    entries = sums

    @property
    def smoothing(self) -> Tensor:
        """Zeros, shape ``(K,)``, since all words are entries of x."""
        return self.x.new_zeros(self.x.shape[1])

    def shared(self, table: Tensor) -> Tensor:
        """The part of :meth:`sums` that is not of entries, shape ``(width,)``.

        Own: own-fused-multinomial
        """
        return table.new_zeros(table.shape[1])

    def subtract(self, numbers: Tensor, scale: Tensor) -> None:
        """See :meth:`Batch.subtract <efvae.text.batches.Batch.subtract>`.

        Own: own-fused-multinomial
        """
        # in float32, rounded once, in a single pass
        numbers.view(*scale.shape, -1).addcmul_(self.x, scale[..., None], value=-1)

    def weighted(self, numbers: Tensor) -> Tensor:
        """See :meth:`Batch.weighted <efvae.text.batches.Batch.weighted>`.

        Own: own-fused-multinomial
        """
        return (self.x * numbers).sum(-1)

    def pieces(self, size: int) -> Iterator[tuple[slice, DenseBatch]]:
        """All documents at once.

        Own: own-fused-multinomial
        """
        yield slice(None), self

    def transposed(self, values: Tensor) -> Tensor:
        """xᵀ V, shape ``(K, width)``; no gradient.

        Args:
            values: V, one row for each document, shape ``(documents, width)``.

        Own: own-fused-multinomial
        """
        return self.x.t() @ values.to(self.x.dtype)


#: Some documents, whichever way they are kept.
AnyBatch = Batch | DenseBatch


class DenseDocuments:
    """A corpus as a float32 table on its device, 4 K bytes a document: 450 MB for the training part of 20 Newsgroups.

    Args:
        x: the documents, on the CPU.
        dtype: of ``DenseBatch.dense``; None for none.
        device: where to.

    Attributes:
        uniform: see :class:`~efvae.text.batches.Documents`.

    Raises:
        ValueError: see :class:`~efvae.text.batches.Documents`.

    Own: own-fused-multinomial
    """

    def __init__(self, x: WordCounts, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> None:
        documents = Documents(x)
        whole = next(documents.batches(x.n_documents))
        self.uniform = documents.uniform
        self.n_documents, self.n_words, self.dtype = x.n_documents, x.n_words, dtype
        self._length, self._saturated = whole.length.to(device), whole.saturated.to(device)
        self._x = torch.empty(x.n_documents, x.n_words, device=device)
        for rows in torch.arange(x.n_documents).split(1024):
            self._x[int(rows[0]) : int(rows[-1]) + 1] = x.select(rows).dense().to(device)

    @property
    def smoothing(self) -> Tensor:
        """See :attr:`DenseBatch.smoothing`."""
        return self._x.new_zeros(self.n_words)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._x.device

    def batch(self, rows: Tensor) -> DenseBatch:
        """The documents of these numbers, in this order; as many as there are numbers, whatever they are.

        Args:
            rows: int64, on the documents' device, shape ``(n,)``.

        Own: own-fused-multinomial
        """
        x = self._x.index_select(0, rows)
        return DenseBatch(
            x,
            self._length.index_select(0, rows),
            self._saturated.index_select(0, rows),
            None if self.dtype is None else x.to(self.dtype),
        )

    def batches(self, size: int) -> Iterator[DenseBatch]:
        """The documents in batches, not copied, and without ``DenseBatch.dense``; the last may be smaller.

        Args:
            size: documents in a batch.

        Own: own-fused-multinomial
        """
        for parts in zip(self._x.split(size), self._length.split(size), self._saturated.split(size), strict=True):
            yield DenseBatch(*parts)
