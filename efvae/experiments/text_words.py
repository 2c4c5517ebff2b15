"""Section 4.3: retrieval by the words themselves, the baseline of retrieval by codes, on 20 Newsgroups.

Run it with ``python -m efvae.experiments.text_words``.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from efvae import records
from efvae.data.newsgroups import FILES, load_newsgroups
from efvae.records import Record
from efvae.text.retrieval import bag_of_words_metrics
from efvae.values import check_fields

__all__ = ["STEM", "Config", "check", "data_sha256", "run"]

STEM = "sec4_3_words"


@dataclass(frozen=True)
class Config:
    """What is searched.

    Args:
        words: size of the vocabulary.
        k: how many training documents are looked at.

    Raises:
        ValueError: a value below 1.

    Own: own-retrieval
    """

    words: int = 10000
    k: int = 100

    def __post_init__(self) -> None:
        check_fields(self, least={"words": 1, "k": 1})


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """The record, computed unless it is there already; metrics of :func:`efvae.text.retrieval.bag_of_words_metrics`.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.

    Raises:
        efvae.data.cache.DataError: the corpus is missing or damaged, or has fewer words.
        ValueError: more documents than the training set has.

    Own: own-retrieval
    """

    def compute() -> Record:
        started = time.monotonic()
        corpus = load_newsgroups(config.words)
        metrics = bag_of_words_metrics(corpus.train, corpus.test, config.k)
        seconds = time.monotonic() - started
        return records.make(STEM, config, metrics, {}, seconds=seconds, data_sha256=corpus.sha256, show=("words", "k"))

    return records.stored(STEM, config, compute, results=results, refresh=refresh, data_sha256=FILES.sha256)


def check(config: Config) -> None:
    """Refuse a search in more words or documents than the corpus has.

    Raises:
        efvae.data.cache.DataError: the corpus is missing or damaged, or has fewer words.
        ValueError: more documents than the training set has.

    Own: own-retrieval
    """
    n_documents = _n_documents(config.words)
    if config.k > n_documents:
        raise ValueError(f"k must be at most {n_documents}, the training documents; got {config.k}")


@functools.cache
def _n_documents(words: int) -> int:
    return load_newsgroups(words).train.n_documents


def data_sha256(config: Config) -> str:
    """Checksum of the corpus; ``efvae sweep`` finds records by it.

    Own: own-retrieval
    """
    return FILES.sha256


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
