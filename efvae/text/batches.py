"""Documents on their way into a network and gradients on their way back, both through the words that occur only."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from scipy import sparse
from torch import Tensor

from efvae.text import compiled
from efvae.text.compiled import spread
from efvae.word_counts import WordCounts, log_saturated

__all__ = ["Batch", "Documents"]

_LARGE = 2**18  # numbers in a table


@dataclass(frozen=True)
class Batch:
    """Some documents: about 116 entries of 10000 each, and, where the decoder's hidden layers need it, all of x.

    Args:
        words: entries of all documents one after the other, int32, shape ``(entries,)``.
        counts: c at the entries, shape ``(entries,)``.
        offsets: where each document begins, int32, shape ``(documents,)``.
        smoothing: f, shape ``(K,)``.
        length: l = Σ_k x_k, shape ``(documents,)``.
        saturated: Σ_k x_k log(x_k / l) in nats, shape ``(documents,)``.
        dense: x with smoothing in the precision of the products, shape ``(documents, K)``; or None.
        document: the document of each entry, int64, shape ``(entries,)``; found if it is None.

    Own: own-fused-multinomial
    """

    words: Tensor
    counts: Tensor
    offsets: Tensor
    smoothing: Tensor
    length: Tensor
    saturated: Tensor
    dense: Tensor | None = None
    document: Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def sums(self, table: Tensor) -> Tensor:
        """x T: rows of a table summed with the words' counts, shape ``(documents, width)``; no gradient.

        Args:
            table: T, one row for each word, shape ``(K, width)``.

        Own: own-fused-multinomial
        """
        return self.shared(table) + self.entries(table)

    def entries(self, table: Tensor) -> Tensor:
        """The part of the words that occur in :meth:`sums`, c T, shape ``(documents, width)``; no gradient.

        Own: own-fused-multinomial
        """
        result: Tensor = torch.nn.functional.embedding_bag(
            self.words, table, self.offsets, mode="sum", per_sample_weights=self.counts
        )
        return result

    def shared(self, table: Tensor) -> Tensor:
        """The part of the smoothing in :meth:`sums`, f T, the same for all documents, shape ``(width,)``; no gradient.

        Own: own-fused-multinomial
        """
        if table.numel() < _LARGE:
            return self.smoothing @ table
        pieces = math.gcd(len(table), 8)  # one product with a vector uses one core, several share them
        f, parts = self.smoothing.view(pieces, 1, -1), table.view(pieces, -1, table.shape[1])
        return torch.bmm(f, parts).sum((0, 1))

    def weighted(self, numbers: Tensor) -> Tensor:
        """Σ_k c_dk numbers[d, k], without the smoothing, shape ``(documents,)``; no gradient.

        Args:
            numbers: contiguous, shape ``(documents, K)``.

        Own: own-fused-multinomial
        """
        _, places = self._places
        result: Tensor = torch.nn.functional.embedding_bag(
            places, numbers.view(-1, 1), self.offsets, mode="sum", per_sample_weights=self.counts
        )
        return result[:, 0]

    def pieces(self, size: int) -> Iterator[tuple[slice, Batch]]:
        """Some documents at a time, and where they are; on an accelerator all at once, since it is not asked where.

        Own: own-fused-multinomial
        """
        if self.words.device.type != "cpu":
            yield slice(None), self
            return
        document, _ = self._places
        bounds = [*self.offsets.tolist(), len(self.words)]
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            low, high = bounds[start], bounds[stop]
            part = self.part(start, stop, low, high)
            yield slice(start, stop), replace(part, document=document[low:high] - start)

    def repeated(self, which: Tensor) -> Batch:
        """Some of the documents, any of them several times; what meets their words is computed once for each.

        Args:
            which: their numbers, int64, on the CPU, as the documents are.

        Own: own-fused-multinomial
        """
        sizes = torch.diff(self.offsets, append=self.offsets.new_full((1,), len(self.words))).index_select(0, which)
        ends = sizes.cumsum(0)
        begins = ends - sizes
        document = torch.arange(len(which), device=which.device).repeat_interleave(sizes, output_size=int(ends[-1]))
        moved = (self.offsets.index_select(0, which) - begins).index_select(0, document)
        entries = moved + torch.arange(len(document), device=which.device)
        return _Repeated(
            self.words.index_select(0, entries),
            self.counts.index_select(0, entries),
            begins.int(),
            self.smoothing,
            self.length.index_select(0, which),
            self.saturated.index_select(0, which),
            document=document,
            source=self,
            which=which,
        )

    def by_document(self, values: Tensor) -> Tensor:
        """Sums over the rows that are of the same document: the rows themselves, but for :meth:`repeated` ones.

        Args:
            values: one row for each of these documents.

        Own: own-fused-multinomial
        """
        return values

    def part(self, start: int, stop: int, low: int, high: int) -> Batch:
        """Documents from start to stop, whose entries are those from low to high.

        Own: own-fused-multinomial
        """
        return replace(
            self,
            words=self.words[low:high],
            counts=self.counts[low:high],
            offsets=self.offsets[start:stop] - low,
            length=self.length[start:stop],
            saturated=self.saturated[start:stop],
            dense=None if self.dense is None else self.dense[start:stop],
            document=None,
        )

    def subtract(self, numbers: Tensor, scale: Tensor) -> None:
        """Take the words that occur off one or several tables of all words, in place.

        ::

            numbers[s, d, k] ← numbers[s, d, k] − scale[s, d] c_dk

        Args:
            numbers: contiguous, shape ``(samples * documents, K)``.
            scale: shape ``(samples, documents)``.

        Own: own-fused-multinomial
        """
        document, place = self._places
        steps = torch.arange(len(scale), device=place.device) * (len(self) * len(self.smoothing))
        places = (steps[:, None] + place).flatten()
        taken = (scale.index_select(1, document) * self.counts).flatten()
        flat = numbers.view(-1)
        # no entry occurs twice, so that nothing has to be accumulated
        flat.put_(places, (flat.take(places).float() - taken).to(flat.dtype))

    def transposed(self, values: Tensor) -> Tensor:
        """xᵀ V: the gradient of :meth:`sums` in its table, shape ``(K, width)``; no gradient.

        Args:
            values: V, one row for each document, shape ``(documents, width)``.

        Own: own-fused-multinomial
        """
        if self._compiled(values):
            if len(values) != len(self):
                raise ValueError(f"transposed: expected a row for each of {len(self)} documents, got {len(values)}")
            result = values.new_empty(len(self.smoothing), values.shape[1])
            values, tiles = values.contiguous(), len(self.by_tile[0]) - 1
            shared = values, self.smoothing.contiguous(), values.sum(0), result
            spread(compiled.kernels().add_words, tiles, *self.by_tile, *shared, least=64)
            return result
        documents, counts, offsets = self._by_word
        entries = torch.nn.functional.embedding_bag(
            documents, values, offsets, mode="sum", per_sample_weights=counts.to(values.dtype)
        )
        return entries.addcmul_(self.smoothing.to(values.dtype)[:, None], values.sum(0))

    def _compiled(self, values: Tensor) -> bool:
        return values.dtype == self.smoothing.dtype == torch.float32 and compiled.available(values.device)

    @cached_property
    def by_tile(self) -> tuple[Tensor, ...]:
        """The entries sorted by tiles of words, for compiled loops, see :func:`efvae.text.kernels.by_tile`.

        Own: own-tabulated-products
        """
        if self.words.dtype != torch.int32 and bool((self.words != self.words.int()).any()):
            raise IndexError("a word is outside the vocabulary")
        parts = self.words.int(), self.counts.float(), self.offsets.int()
        documents = (part.detach().contiguous().numpy() for part in parts)
        return tuple(map(torch.from_numpy, compiled.kernels().by_tile(*documents, len(self.smoothing))))

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """The document of each entry and its place in a table with a row for each document."""
        document = self.document
        if document is None:
            size = torch.diff(self.offsets, append=self.offsets.new_full((1,), len(self.words)))
            document = torch.arange(len(size), device=size.device).repeat_interleave(size, output_size=len(self.words))
        return document, document * len(self.smoothing) + self.words

    @cached_property
    def _by_word(self) -> tuple[Tensor, Tensor, Tensor]:
        """The entries sorted by word: their documents, their counts, where each word begins."""
        if self.words.device.type == "cpu":
            bounds = torch.cat([self.offsets, self.offsets.new_full((1,), len(self.words))])
            return _by_columns(self.words, self.counts, bounds, len(self.smoothing))
        order = torch.argsort(self.words, stable=True)
        ends = torch.bincount(self.words, minlength=len(self.smoothing)).cumsum(0)
        document, _ = self._places
        return (
            document.index_select(0, order),
            self.counts.index_select(0, order),
            torch.cat([ends.new_zeros(1), ends[:-1]]),
        )


@dataclass(frozen=True)
class _Repeated(Batch):
    """See :meth:`Batch.repeated`; its entries by tile are those of the documents that it is made of."""

    source: Batch = field(kw_only=True)
    which: Tensor = field(kw_only=True)

    def entries(self, table: Tensor) -> Tensor:
        return self.source.entries(table).index_select(0, self.which)

    def by_document(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.source), *values.shape[1:]).index_add_(0, self.which, values)

    def transposed(self, values: Tensor) -> Tensor:
        return self.source.transposed(self.by_document(values))

    @cached_property
    def by_tile(self) -> tuple[Tensor, ...]:
        return self.source.by_tile

    def part(self, start: int, stop: int, low: int, high: int) -> Batch:
        alone = Batch(**{name: getattr(self, name) for name in Batch.__dataclass_fields__})
        return alone.part(start, stop, low, high)


def _by_columns(words: Tensor, counts: Tensor, bounds: Tensor, n_words: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, numbers and beginnings of the columns of a sparse matrix that is given by rows."""
    shape = (len(bounds) - 1, n_words)
    x = sparse.csr_matrix((counts.numpy(), words.numpy(), bounds.numpy()), shape=shape).tocsc()
    return torch.from_numpy(x.indices), torch.from_numpy(x.data), torch.from_numpy(x.indptr[:-1])


class Documents:
    """A corpus on its device, cut into batches without looking at a device's numbers.

    Args:
        x: the documents.
        dtype: of the dense form, which decoders with hidden layers need for their gradient where codes are listed; it
            is made once, 2 K bytes a document in bfloat16. None: no dense form.
        device: where to.

    Attributes:
        uniform: mean −log p(x) in nats, relative to the saturated multinomial, if all words are as frequent.

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
        self._order: Tensor | None = None  # on the host
        # row bounds stay with the host, so that cutting a batch waits for no device
        self._bounds = x.indptr.to("cpu", torch.int64)
        self._all = Batch(
            x.indices.int(),
            x.counts,
            x.indptr[:-1].int(),
            x.smoothing.float().contiguous(),
            x.length().float(),
            log_saturated(x).float(),
        )
        self.uniform = float((self._all.length * math.log(x.n_words) + self._all.saturated).mean())
        if dtype is not None:
            dense = torch.empty(x.n_documents, x.n_words, dtype=dtype)
            for start in range(0, x.n_documents, 1024):
                rows = torch.arange(start, min(start + 1024, x.n_documents))
                dense[rows] = x.select(rows).dense().to(dtype)
            self._all = replace(self._all, dense=dense)
        by_rows = tuple(part.cpu().numpy() for part in (x.counts, x.indices, x.indptr))
        self._rows = sparse.csr_matrix(by_rows, shape=(x.n_documents, x.n_words))  # to pick documents from
        self._all = self._to(self._all, device)

    @staticmethod
    def _to(batch: Batch, device: torch.device | str) -> Batch:
        values = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
        return replace(batch, **{name: value.to(device) for name, value in values.items() if value is not None})

    @property
    def smoothing(self) -> Tensor:
        """f, float32, shape ``(K,)``."""
        return self._all.smoothing

    def shuffled(self, order: Tensor) -> Self:
        """The same documents in another order; no large copy is made.

        Args:
            order: numbers of documents, a permutation or some of them, int64 on the host.

        Own: own-fused-multinomial
        """
        other = copy.copy(self)
        other._order = order if self._order is None else self._order[order]
        return other

    def batches(self, size: int) -> Iterator[Batch]:
        """The documents in batches; the last may be smaller. A batch shares its memory with the others of the epoch.

        Args:
            size: documents in a batch.

        Own: own-fused-multinomial
        """
        # the entries are put in their order at once, x in its dense form, if any, batch by batch
        entries, bounds = self._all, self._bounds
        if self._order is not None:
            entries, sizes = self._some(self._order), bounds.diff()[self._order]
            bounds = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        ends = bounds.tolist()
        for start in range(0, len(ends) - 1, size):
            stop = min(start + size, len(ends) - 1)
            batch = entries.part(start, stop, ends[start], ends[stop])
            if self._order is not None:
                batch = replace(batch, dense=self._dense(self._order[start:stop]))
            yield batch

    def _some(self, rows: Tensor) -> Batch:
        """The entries of documents by their numbers, int64 on the host."""
        picked = self._rows[rows.numpy()]  # scipy does it in a fifth of the time of torch's operations
        device = self._all.words.device
        here = rows.to(device)
        return replace(
            self._all,
            words=torch.from_numpy(picked.indices).to(device),
            counts=torch.from_numpy(picked.data).to(device),
            offsets=torch.from_numpy(picked.indptr[:-1]).to(device),
            length=self._all.length.index_select(0, here),
            saturated=self._all.saturated.index_select(0, here),
            dense=None,
        )

    def _dense(self, rows: Tensor) -> Tensor | None:
        dense = self._all.dense
        return None if dense is None else dense.index_select(0, rows.to(dense.device))
