"""Documents on their way into a network and gradients on their way back, both through the words that occur only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from efvae.word_counts import WordCounts, log_saturated

__all__ = ["Batch", "Documents"]


@dataclass(frozen=True)
class Batch:
    """Some documents: about 116 entries of 10000 each, and, where the decoder's hidden layers need it, all of x.

    Args:
        words: entries of all documents one after the other, int64, shape ``(entries,)``.
        counts: c at the entries, shape ``(entries,)``.
        offsets: where each document begins, int64, shape ``(documents,)``.
        smoothing: f, shape ``(K,)``.
        length: l = Σ_k x_k, shape ``(documents,)``.
        saturated: Σ_k x_k log(x_k / l) in nats, shape ``(documents,)``.
        dense: x with smoothing in the precision of the products, shape ``(documents, K)``; or None.

    Own: own-fused-multinomial
    """

    words: Tensor
    counts: Tensor
    offsets: Tensor
    smoothing: Tensor
    length: Tensor
    saturated: Tensor
    dense: Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def sums(self, table: Tensor) -> Tensor:
        """x T: rows of a table summed with the words' counts, shape ``(documents, width)``; no gradient.

        Args:
            table: T, one row for each word, shape ``(K, width)``.

        Own: own-fused-multinomial
        """
        entries = torch.nn.functional.embedding_bag(
            self.words, table, self.offsets, mode="sum", per_sample_weights=self.counts
        )
        return entries + self.smoothing @ table

    def transposed(self, values: Tensor) -> Tensor:
        """xᵀ V: the gradient of :meth:`sums` in its table, shape ``(K, width)``; no gradient.

        Args:
            values: V, one row for each document, shape ``(documents, width)``.

        Own: own-fused-multinomial
        """
        documents, counts, offsets = self._by_word
        entries = torch.nn.functional.embedding_bag(
            documents, values, offsets, mode="sum", per_sample_weights=counts.to(values.dtype)
        )
        return entries.addr_(self.smoothing.to(values.dtype), values.sum(0))

    @cached_property
    def _by_word(self) -> tuple[Tensor, Tensor, Tensor]:
        """The entries sorted by word: their documents, their counts, where each word begins."""
        if self.words.device.type == "cpu" and len(self.smoothing) <= 1 << 16:
            # numpy sorts 16-bit numbers by radix, ten times as fast as torch
            order = torch.from_numpy(np.argsort(self.words.numpy().astype(np.uint16), kind="stable"))
        else:
            order = torch.argsort(self.words, stable=True)
        ends = torch.bincount(self.words, minlength=len(self.smoothing)).cumsum(0)
        size = torch.diff(self.offsets, append=self.offsets.new_full((1,), len(self.words)))
        document = torch.arange(len(size), device=size.device).repeat_interleave(size, output_size=len(self.words))
        return document[order], self.counts[order], torch.cat([ends.new_zeros(1), ends[:-1]])


class Documents:
    """A corpus on its device, cut into batches without looking at a device's numbers.

    Args:
        x: the documents.
        dtype: of the dense form, which decoders with hidden layers need for their gradient; it is made once, 2 K bytes
            a document in bfloat16. None: no dense form.
        device: where to.

    Raises:
        ValueError: no documents at all, or a document without a word, smoothing included: x / l is undefined for it.

    Own: own-fused-multinomial
    """

    def __init__(self, x: WordCounts, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> None:
        if not x.n_documents:
            raise ValueError("Documents: expected at least one document, got none")
        if not bool(x.smoothing.any()) and len(x.empty()):
            raise ValueError(
                f"Documents: document {int(x.empty()[0])} has no word, so that x / l is undefined: "
                "smooth the counts or leave it out"
            )
        self.n_documents, self.n_words = x.n_documents, x.n_words
        self._rows: Tensor | None = None  # of the dense form, where the documents are not in its order
        # row bounds stay with the host, so that cutting a batch waits for no device
        self._bounds = x.indptr.tolist()
        self._all = Batch(
            x.indices.long(),
            x.counts,
            x.indptr[:-1].clone(),
            x.smoothing.float(),
            x.length().float(),
            log_saturated(x).float(),
        )
        if dtype is not None:
            dense = torch.empty(x.n_documents, x.n_words, dtype=dtype)
            for start in range(0, x.n_documents, 1024):
                rows = torch.arange(start, min(start + 1024, x.n_documents))
                dense[rows] = x.select(rows).dense().to(dtype)
            self._all = replace(self._all, dense=dense)
        self._all = self._to(self._all, device)

    @staticmethod
    def _to(batch: Batch, device: torch.device | str) -> Batch:
        values = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
        return replace(batch, **{name: value.to(device) for name, value in values.items() if value is not None})

    def shuffled(self, order: Tensor) -> Self:
        """The same documents in another order; the dense form is not copied but read through the order.

        Args:
            order: a permutation, int64 on the host, shape ``(documents,)``.

        Own: own-fused-multinomial
        """
        bounds = torch.tensor(self._bounds)
        size = bounds.diff()[order]
        indptr = torch.cat([size.new_zeros(1), size.cumsum(0)])
        place = torch.arange(int(indptr[-1])) + (bounds[order] - indptr[:-1]).repeat_interleave(size)
        device = self._all.words.device
        here, place = order.to(device), place.to(device)
        other = object.__new__(type(self))
        other.n_documents, other.n_words, other._bounds = self.n_documents, self.n_words, indptr.tolist()
        other._all = replace(
            self._all,
            words=self._all.words[place],
            counts=self._all.counts[place],
            offsets=indptr[:-1].to(device),
            length=self._all.length[here],
            saturated=self._all.saturated[here],
        )
        other._rows = here if self._rows is None else self._rows[here]
        return other

    def batches(self, size: int) -> Iterator[Batch]:
        """The documents in batches; the last may be smaller.

        Args:
            size: documents in a batch.

        Own: own-fused-multinomial
        """
        for start in range(0, self.n_documents, size):
            stop = min(start + size, self.n_documents)
            low, high = self._bounds[start], self._bounds[stop]
            dense = self._all.dense
            if dense is not None:
                dense = dense[start:stop] if self._rows is None else dense.index_select(0, self._rows[start:stop])
            yield replace(
                self._all,
                words=self._all.words[low:high],
                counts=self._all.counts[low:high],
                offsets=self._all.offsets[start:stop] - low,
                length=self._all.length[start:stop],
                saturated=self._all.saturated[start:stop],
                dense=dense,
            )
