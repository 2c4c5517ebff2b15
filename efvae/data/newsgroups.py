"""20 Newsgroups, processed version "bydate-matlab" of Jason Rennie, as bags of words.

What the paper does and does not print about the preprocessing is said at :func:`preprocess`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efvae.data.cache import DataError, DataSet, Source, SourceFile, cache_root, data_folder, read
from efvae.places import write_atomically
from efvae.word_counts import WordCounts

__all__ = ["FILES", "Newsgroups", "RawSplit", "load_newsgroups", "parse", "preprocess", "smoothing_vector"]

FILES = DataSet(
    name="20news",
    address="http://qwone.com/~jason/20Newsgroups/",
    sources=(
        Source(
            "20news-bydate-matlab.tgz",
            ("train.data", "train.label", "train.map", "test.data", "test.label", "test.map"),
            most=30_000_000,  # more than its files have without compression
        ),
        Source("vocabulary.txt", ("vocabulary.txt",)),
    ),
    files=(
        SourceFile("train.data", 17250240, "dc3bf23fa28511494ee406bd3baa6565ad156c0d48e56bc9aea247c4dd0b81be"),
        SourceFile("train.label", 28650, "90e46f67c51005c7bb707a61cd4a49bd996bc98c5c2acaaa36fbd22dc179101f"),
        SourceFile("train.map", 384, "5a9320e52d18d67df8997fea5fd1f8ee8c904281edb514ccacaae059a902f9a3"),
        SourceFile("test.data", 11174490, "2e739450e07c6201ae4eff90bb26cd69d26c45243bd923a29fc2caaae3a4c34a"),
        SourceFile("test.label", 19078, "5eb0491245caaffb86980dcd7b707e65815ae0a600b214ac99e62fa5a713e6e1"),
        SourceFile("test.map", 384, "5a9320e52d18d67df8997fea5fd1f8ee8c904281edb514ccacaae059a902f9a3"),
        SourceFile("vocabulary.txt", 494093, "3c0f0d64a814ba8836334a0f23925cef751fb3636baea55772f1f8ede4b791bc"),
    ),
)


@dataclass(frozen=True)
class RawSplit:
    """One split as its files have it, numbers from 0, sorted by document, then word.

    Args:
        document, word, count: of each entry, int32, shape ``(entries,)``.
        label: of each document, int32, shape ``(documents,)``.

    Own: own-newsgroups
    """

    document: NDArray[np.int32]
    word: NDArray[np.int32]
    count: NDArray[np.int32]
    label: NDArray[np.int32]

    def document_frequency(self, n_words: int) -> NDArray[np.int64]:
        """Number of documents in which each word occurs, shape ``(n_words,)``.

        Own: own-newsgroups
        """
        return np.bincount(self.word, minlength=n_words)


@dataclass(frozen=True)
class Newsgroups:
    """The corpus, ready for training.

    Args:
        train, test: the documents; both have the same smoothing.
        vocabulary: the kept words, in the order of the columns.
        words: their numbers in the full vocabulary, from 0, ascending, int64, shape ``(K,)``.
        groups: names of the labels 0 … 19.
        sha256: checksum of the files it was made from.

    Paper: sec-4-3
    """

    train: WordCounts
    test: WordCounts
    vocabulary: tuple[str, ...]
    words: Tensor
    groups: tuple[str, ...]
    sha256: str


def parse(data: bytes, label: bytes, name: str = "data") -> RawSplit:
    """Read ``docIdx wordIdx count`` lines, indices from 1, and one label a line.

    Args:
        data, label: content of the two files.
        name: what to call them in a message.

    Raises:
        DataError: not such lines, not sorted, a number below 1 or from 2^31 on, documents without a label, a document
            without a word.

    Own: own-newsgroups
    """
    triples, labels = _numbers(data, name), _numbers(label, f"labels of {name}")
    if len(triples) % 3 or not len(triples):
        raise DataError(f"{name}: expected lines of three numbers, docIdx wordIdx count; got {len(triples)} numbers")
    table = triples.reshape(-1, 3)
    for what, numbers in (("indices and counts", table), ("labels", labels)):
        for number in (numbers.min(initial=1), numbers.max(initial=1)):
            if not 1 <= number < 2**31:
                raise DataError(f"{name}: expected {what} from 1, below 2^31; got {number}")
    document, word, count = (np.ascontiguousarray(column, dtype=np.int32) for column in (table - [1, 1, 0]).T)
    order = np.diff(document.astype(np.int64) << 32 | word)
    if (order <= 0).any():
        raise DataError(f"{name}: expected entries sorted by document, then word; line {order.argmin() + 2} is not")
    if document[-1] >= len(labels):
        raise DataError(f"{name}: {document[-1] + 1} documents but {len(labels)} labels")
    empty = np.flatnonzero(np.bincount(document, minlength=len(labels)) == 0)
    if len(empty):
        raise DataError(f"{name}: document {empty[0] + 1} is empty ({len(empty)} such of {len(labels)})")
    return RawSplit(document, word, count, labels.astype(np.int32) - 1)


def _numbers(text: bytes, name: str) -> NDArray[np.int64]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's way to say: the rest is not a number
        try:
            return np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise DataError(f"{name}: expected whole numbers only") from error


def smoothing_vector(totals: Tensor) -> Tensor:
    """What every document gets: the law of words of the training set with one more token spread evenly, total mass 1.

    ::

        f = (c + 1/K) / Σ_k (c_k + 1/K),    c: training total counts

    Args:
        totals: c, float64, shape ``(K,)``.

    Own: own-newsgroups
    """
    raised = totals + 1 / len(totals)
    return raised / raised.sum()


def preprocess(
    train: RawSplit, test: RawSplit, n_words: int, size: int = 10000, *, smooth: bool = True
) -> tuple[WordCounts, WordCounts, Tensor]:
    """Keep the words of largest document frequency and smooth.

    ::

        kept: the K words that occur in most training documents, columns in word order
        x = counts of the kept words + f,    f = smoothing_vector(training totals)

    Of words that occur in equally many documents the lower number is kept. The paper prints neither that rule nor the
    smoothing. A document that loses all its words is then f, of length 1.

    Args:
        train, test: the splits.
        n_words: size of the full vocabulary.
        size: number K of words to keep.
        smooth: whether to add f.

    Returns:
        The splits, and the numbers of the kept words.

    Raises:
        DataError: a vocabulary larger than the data's, or a document left without a word where nothing is added.

    Paper: sec-4-3
    Own: own-newsgroups
    """
    frequency = train.document_frequency(n_words)
    occurring = int((frequency > 0).sum())
    if not 1 <= size <= occurring:
        raise DataError(f"vocabulary size must be in [1, {occurring}], the words of the training set; got {size}")
    words = np.sort(np.argsort(-frequency, kind="stable")[:size])  # a stable sort keeps ties in word order
    column = np.full(n_words, -1, dtype=np.int32)
    column[words] = np.arange(size, dtype=np.int32)
    splits = [_rows(split, column, size) for split in (train, test)]
    if smooth:
        f = smoothing_vector(splits[0].word_totals())
        splits = [WordCounts(x.indptr, x.indices, x.counts, f, x.labels) for x in splits]
    else:
        for name, x in zip(("training", "test"), splits, strict=True):
            if len(x.empty()):
                raise DataError(
                    f"{name} document {int(x.empty()[0]) + 1} has none of the {size} words ({len(x.empty())} such): "
                    "its frequencies are undefined; keep more words, or smooth"
                )
    return splits[0], splits[1], torch.from_numpy(words)


def _rows(split: RawSplit, column: NDArray[np.int32], size: int) -> WordCounts:
    kept = column[split.word] >= 0
    indptr = np.zeros(len(split.label) + 1, dtype=np.int64)
    np.cumsum(np.bincount(split.document[kept], minlength=len(split.label)), out=indptr[1:])
    return WordCounts(
        torch.from_numpy(indptr),
        torch.from_numpy(column[split.word[kept]]),
        torch.from_numpy(split.count[kept].astype(np.float32)),
        torch.zeros(size, dtype=torch.float64),
        torch.from_numpy(split.label.astype(np.int64)),
    )


def load_newsgroups(size: int = 10000, *, smooth: bool = True) -> Newsgroups:
    """The corpus from ``EFVAE_DATA`` or the cache; its files are checked each time, parsed once.

    Args:
        size: number of words to keep, 1 … 53975.
        smooth: see :func:`preprocess`.

    Raises:
        DataError: files that are missing or wrong, or a size that the data do not have.

    Paper: sec-4-3
    """
    folder = data_folder(FILES)
    content = {file.name: read(folder, file) for file in FILES.files}
    vocabulary = content["vocabulary.txt"].decode().split()
    splits = _parsed(content)
    train, test, words = preprocess(*splits, len(vocabulary), size, smooth=smooth)
    groups = tuple(line.split()[0] for line in content["train.map"].decode().splitlines())
    return Newsgroups(train, test, tuple(vocabulary[w] for w in words.tolist()), words, groups, FILES.sha256)


def _parsed(content: dict[str, bytes]) -> tuple[RawSplit, RawSplit]:
    """Both splits, from a stored copy keyed by the checksum of the files; where there is none, one is stored."""
    path = cache_root() / "parsed" / f"{FILES.name}-{FILES.sha256[:16]}.npz"
    columns = [(split, field) for split in ("train", "test") for field in RawSplit.__dataclass_fields__]
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = [stored[f"{split}_{field}"] for split, field in columns]
        return RawSplit(*found[:4]), RawSplit(*found[4:])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or a damaged one: it is only a copy
    train, test = (parse(content[f"{s}.data"], content[f"{s}.label"], f"{s}.data") for s in ("train", "test"))
    arrays = {f"{s}_{f}": getattr({"train": train, "test": test}[s], f) for s, f in columns}
    _store(path, arrays)
    return train, test


def _store(path: Path, arrays: dict[str, NDArray[np.int32]]) -> None:
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    with contextlib.suppress(OSError):  # a folder that cannot be written costs the next start half a second, no more
        write_atomically(path, packed.getvalue())
