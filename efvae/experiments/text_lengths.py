"""Section 3.1: is a log-normal law a good fit to the lengths of documents? Asked of 20 Newsgroups.

Run it with ``python -m efvae.experiments.text_lengths``.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from efvae import records
from efvae.data.newsgroups import FILES, load_newsgroups
from efvae.descent import minimize
from efvae.records import Record
from efvae.values import check_fields
from efvae.word_counts import WordCounts

__all__ = [
    "LAWS",
    "STEM",
    "Config",
    "data_sha256",
    "fit",
    "length_metrics",
    "lognormal",
    "negative_binomial",
    "poisson",
    "run",
    "survival",
]

STEM = "sec3_1_lengths"


@dataclass(frozen=True)
class Config:
    """Which words count.

    Args:
        words: size of the vocabulary; 53975 for all words of the training set.

    Raises:
        ValueError: a value below 1.

    Paper: case-hashing
    """

    words: int = 10000

    def __post_init__(self) -> None:
        check_fields(self, least={"words": 1})


def lognormal(length: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of lengths, log-normal rounded to whole numbers; the first cell begins at 0.

    ::

        P(l) = Φ((log(l + ½) − μ) / σ) − Φ((log(l − ½) − μ) / σ),    P(1) = Φ((log 1.5 − μ) / σ)

    Args:
        length: whole numbers from 1, float64, shape ``(n,)``.
        theta: μ and log σ, shape ``(2,)``.

    Paper: case-hashing
    Own: own-hashing-length
    """
    mean, scale = theta[0], theta[1].exp()
    first = length == 1
    high = ((length + 0.5).log() - mean) / scale
    low = ((length - 0.5).log() - mean) / scale
    right = high + low > 0  # Φ(b) − Φ(a) = Φ(−a) − Φ(−b): the side where both are small
    large = torch.special.log_ndtr(torch.where(right, -low, high))
    small = torch.special.log_ndtr(torch.where(right, -high, low))
    between = large + torch.log(-torch.expm1(small - large))
    return torch.where(first, torch.special.log_ndtr(high), between)


def negative_binomial(length: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of lengths, Poisson with a gamma-distributed mean, given that they are not 0.

    ::

        P(l) = Γ(l + r) / (Γ(r) l!) (r / (r + m))^r (m / (r + m))^l / (1 − (r / (r + m))^r)

    Args:
        length: whole numbers from 1, float64, shape ``(n,)``.
        theta: log m and log r, mean and shape before conditioning, shape ``(2,)``.

    Own: own-hashing-length
    """
    mean, shape = theta[0].exp(), theta[1].exp()
    log_zero = -shape * torch.log1p(mean / shape)
    ways = torch.lgamma(length + shape) - torch.lgamma(shape) - torch.lgamma(length + 1)
    return ways + log_zero - length * torch.log1p(shape / mean) - torch.log(-torch.expm1(log_zero))


def poisson(length: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of lengths, Poisson, given that they are not 0.

    ::

        P(l) = m^l e^(−m) / (l! (1 − e^(−m)))

    Args:
        length: whole numbers from 1, float64, shape ``(n,)``.
        theta: log m, mean before conditioning, shape ``(1,)``.

    Own: own-hashing-length
    """
    mean = theta[0].exp()
    return length * theta[0] - mean - torch.lgamma(length + 1) - torch.log(-torch.expm1(-mean))


#: Names of laws on 1, 2, …, and what gives their log-probabilities at lengths from parameters.
LAWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lognormal": lognormal,
    "negative_binomial": negative_binomial,
    "poisson": poisson,
}


def fit(name: str, length: Tensor) -> Tensor:
    """Parameters of largest likelihood.

    Args:
        name: a law of :data:`LAWS`.
        length: whole numbers from 1, float64, shape ``(n,)``.

    Returns:
        theta as the law takes it, float64.

    Raises:
        ValueError: all lengths are the same.

    Own: own-hashing-length
    """
    values, count = length.unique(return_counts=True)
    if len(values) < 2:
        raise ValueError(f"a law of the length needs documents of two lengths or more; got {len(values)}")
    share = count.double() / len(length)
    mean, variance = length.mean(), length.var()
    gamma_shape = mean**2 / (variance - mean).clamp(min=0.01 * mean)
    theta = {
        "lognormal": torch.stack([length.log().mean(), length.log().std().log()]),
        "negative_binomial": torch.stack([mean, gamma_shape]).log(),
        "poisson": mean[None].log(),
    }[name].requires_grad_()
    minimize(lambda: -(share @ LAWS[name](values, theta)), [theta], rounds=5)
    return theta.detach()


def survival(log_p: Tensor) -> Tensor:
    """P(length ≥ l) at l = 1, …, n.

    Args:
        log_p: log-probabilities at l = 1, …, n, shape ``(n,)``.

    Own: own-hashing-length
    """
    p = log_p.exp()
    return (1 - p.cumsum(0) + p).clamp(0, 1)


def length_metrics(train: Tensor, test: Tensor) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Fit each law to the training documents; say how well it does and what its tail is.

    A Kolmogorov–Smirnov distance beyond ``ks_limit`` = 1.36 / √n rejects the law at 5 %. That limit is for a continuous
    law fixed in advance; for a law on whole numbers with fitted parameters it is too large, so what it rejects is
    rejected all the more, and a distance below it would prove nothing. With the n ≈ 11 300 training documents it is
    0.013: a law can be a useful fit and be rejected. A log-normal law has the skewness and the excess kurtosis 0 of
    log l.

    Args:
        train, test: lengths from 1, float64.

    Returns:
        Metrics: of each law the parameters, the mean log-likelihood in nats per document of both splits and the
        distance on the training split; by how much the log-normal law leads the negative binomial one on the test
        documents, with the standard error of that mean. Curve: P(length ≥ l) of the training documents and of each law.

    Raises:
        ValueError: all training lengths are the same.

    Paper: case-hashing
    Own: own-hashing-length
    """
    every = torch.arange(1.0, float(train.max()) + 1, dtype=torch.float64)
    data = torch.bincount(train.long())[1:].double() / len(train)
    at = torch.logspace(0, math.log10(len(every)), 60, dtype=torch.float64).round().long().unique()
    log_length = train.log()
    score = (log_length - log_length.mean()) / log_length.std(correction=0)
    metrics = {
        "documents_train": float(len(train)),
        "documents_test": float(len(test)),
        "mean_length_train": float(train.mean()),
        "median_length_train": float(train.quantile(0.5)),
        "largest_length_train": float(train.max()),
        "log_length_skewness": float((score**3).mean()),
        "log_length_excess_kurtosis": float((score**4).mean()) - 3,
        "ks_limit": 1.36 / math.sqrt(len(train)),
    }
    curve = {"length": at.tolist(), "data": survival(data.log())[at - 1].tolist()}
    on_test = {}
    for name, law in LAWS.items():
        theta = fit(name, train)
        log_p = law(every, theta)
        on_test[name] = law(test, theta)
        metrics[f"log_likelihood_train_{name}"] = float(law(train, theta).mean())
        metrics[f"log_likelihood_test_{name}"] = float(on_test[name].mean())
        metrics[f"ks_{name}"] = float((log_p.exp().cumsum(0) - data.cumsum(0)).abs().max())
        metrics |= _parameters(name, theta)
        curve[name] = survival(log_p)[at - 1].tolist()
    lead = on_test["lognormal"] - on_test["negative_binomial"]
    metrics["lead_test"] = float(lead.mean())
    metrics["lead_test_se"] = float(lead.std()) / math.sqrt(len(lead))
    return metrics, curve


def _parameters(name: str, theta: Tensor) -> dict[str, float]:
    if name == "lognormal":
        return {"lognormal_mu": float(theta[0]), "lognormal_sigma": float(theta[1].exp())}
    return {f"{name}_{part}": float(t.exp()) for part, t in zip(("mean", "shape"), theta, strict=False)}


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """The record, computed unless it is there already; metrics and curve of :func:`length_metrics`.

    The length of a document is the sum of its counts of the kept words, without smoothing. Documents of length 0 are
    left out, and their number is a metric.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.

    Raises:
        efvae.data.cache.DataError: the corpus is missing or damaged, or has fewer words.

    Paper: case-hashing
    """

    def compute() -> Record:
        started = time.monotonic()
        corpus = load_newsgroups(config.words)
        lengths = [_lengths(x) for x in (corpus.train, corpus.test)]
        metrics, curve = length_metrics(*(length[length > 0] for length in lengths))
        for split, length in zip(("train", "test"), lengths, strict=True):
            metrics[f"empty_{split}"] = float((length == 0).sum())
        seconds = time.monotonic() - started
        return records.make(STEM, config, metrics, curve, seconds=seconds, data_sha256=corpus.sha256, show=("words",))

    return records.stored(STEM, config, compute, results=results, refresh=refresh, data_sha256=FILES.sha256)


def _lengths(x: WordCounts) -> Tensor:
    return x.sums(x.counts.double())


def data_sha256(config: Config) -> str:
    """Checksum of the corpus; ``efvae sweep`` finds records by it.

    Own: own-hashing-length
    """
    return FILES.sha256


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
