"""What Table 2 could not show about a trained model: likelihood, gap and its parts, distance to tightness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from efvae.devices import matmul_precision
from efvae.families import Bernoulli, all_bits
from efvae.text.affine_fit import posterior_residual
from efvae.text.annealed import anneal, importance
from efvae.text.enumerated import Deviation, Enumerated, aggregated, enumerate_codes
from efvae.text.factorized import best_factorized, starting_points
from efvae.text.fitted import broadened, fit_factorized
from efvae.text.likelihood import TextJoint
from efvae.word_counts import WordCounts, base_measure_floor

__all__ = ["IDLE", "METRICS", "Budget", "TextModel", "bit_information", "encode_all", "evaluate"]

#: A bit that tells less than so many nats of the document is idle; it could tell log 2 = 0.69. One that is the same in
#: all but one of a hundred documents tells at most 0.06.
IDLE = 0.1

#: Name of each figure without its split, and what it is; nats a document relative to the saturated multinomial.
METRICS: dict[str, str] = {
    "log_likelihood": "L: mean log p(x), codes enumerated",
    "elbo": "mean ELBO, codes enumerated",
    "gap": "L − ELBO, codes enumerated",
    "gap_family": "least gap of factorized posteriors, one for each document: L − their ELBO",
    "gap_family_se": "its standard error, if not all documents of the split were taken",
    "gap_amortization": "what the encoder loses against them",
    "gap_amortization_se": "its standard error, if not all documents of the split were taken",
    "gap_documents": "number of documents of the two parts",
    "log_likelihood_iw": "importance-weighted bound of L, by draws of posteriors fitted to some documents",
    "log_likelihood_iw_se": "its Monte Carlo error",
    "log_likelihood_ais": "L by annealed importance sampling, too small on average; the same documents",
    "log_likelihood_ais_se": "its Monte Carlo error",
    "elbo_ais": "ELBO of the same documents, by draws of the encoder",
    "gap_ais": "log_likelihood_ais − elbo_ais: a lower bound of the gap on average",
    "gap_ais_se": "its standard error, over documents and draws",
    "gap_fitted_ais": "log_likelihood_ais − ELBO of posteriors fitted to each document: about gap_family",
    "gap_fitted_ais_se": "its standard error, over documents and draws",
    "ais_effective": "median over documents of the effective number of chains",
    "ais_documents": "number of those documents",
    "distance_words": "deviation of log p(word | z) from affine in z, root mean square, nats a token",
    "distance_documents": "deviation of log p(x | z) from affine in z, root mean square, nats a document",
    "distance_posterior": "deviation of log p(z | x) from affine where the posterior lies, root mean square, nats",
    "bit_information": "sum over the bits of what each by itself tells of the document, at most m log 2",
    "idle_bits": "number of bits that tell less than 0.1 nats: nearly constant, or drawn nearly without looking",
    "base_measure_floor": "what to subtract from L or the ELBO to count the multinomial coefficient",
}

_TABLE_ELEMENTS = 2**23  # of log p(x, z), 64 MB: so much is always affordable


class TextModel(Protocol):
    """What is asked of a model: a uniform prior of bits, an encoder and a decoder.

    Paper: sec-4-3
    """

    bits: int
    n_words: int

    def encode(self, x: WordCounts) -> Tensor:
        """Logits of the factorized posterior, shape ``(documents, bits)``."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Logits over words, shape ``(..., n_words)``."""
        ...


@dataclass(frozen=True)
class Budget:
    """How much to compute.

    Args:
        enumerate_bits: most bits whose codes are listed; for more, L is estimated.
        gap_documents: documents of each split whose gap is parted, at 16 bits; of shorter codes all that fit in memory.
        ais_documents: test documents whose L is estimated.
        samples: draws of the encoder for each of them.
        chains, temperatures: of the annealing.
        codes: drawn for the distance where they are not listed.

    Raises:
        ValueError: a number that is too small, or more bits than can be listed.

    Own: own-text-gap
    """

    enumerate_bits: int = 16
    gap_documents: int = 500
    ais_documents: int = 200
    samples: int = 200
    chains: int = 8
    temperatures: int = 50
    codes: int = 4096

    def __post_init__(self) -> None:
        for name, least in (("gap_documents", 2), ("ais_documents", 2), ("samples", 2), ("chains", 2), ("codes", 200)):
            if getattr(self, name) < least:
                raise ValueError(f"Budget: {name} must be at least {least}, got {getattr(self, name)}")
        if self.temperatures < 1 or not 1 <= self.enumerate_bits <= 20:
            raise ValueError(
                f"Budget: expected temperatures >= 1 and enumerate_bits in [1, 20], got {self.temperatures} and "
                f"{self.enumerate_bits}"
            )


def encode_all(model: TextModel, x: WordCounts, batch: int = 1024) -> Tensor:
    """The encoder's logits for all documents, float64, shape ``(documents, bits)``, without gradient.

    Own: own-text-gap
    """
    rows = torch.arange(x.n_documents, device=x.indptr.device).split(batch)
    with torch.no_grad():
        return torch.cat([model.encode(x.select(part)).double() for part in rows])


def bit_information(eta: Tensor) -> Tensor:
    """What each bit by itself tells of the document, in nats, shape ``(bits,)``.

    ::

        I(z_j; x) = H(mean_d q_dj) − mean_d H(q_dj),    q_dj = σ(η_dj),    H(q) = −q log q − (1 − q) log(1 − q)

    At most log 2. It is zero of a bit that is the same for all documents, which costs log 2 of KL under uniform bits,
    and of one that is drawn without looking at the document, which costs nothing.

    Args:
        eta: logits of the bits of each document, shape ``(documents, bits)``.

    Own: own-idle-bits
    """
    q = eta.double().sigmoid()
    both = torch.stack([q, 1 - q])
    told: Tensor = (torch.special.entr(both.mean(1)) - torch.special.entr(both).mean(1)).sum(0)
    return told


def evaluate(
    model: TextModel, train: WordCounts, test: WordCounts, *, seed: int = 0, budget: Budget | None = None
) -> dict[str, float]:
    """All figures of :data:`METRICS` that the number of bits allows, as ``name_split``; distance_words has no split.

    Up to ``enumerate_bits`` everything is exact but the two parts of the gap of long codes, which are means over a
    random subset. Beyond, test documents are drawn, and L is estimated from below.

    Args:
        model: on the device of the documents.
        train, test: documents.
        seed: of the documents and draws.
        budget: how much to compute.

    Raises:
        ValueError: documents with another vocabulary than the model's or of different smoothing, fewer than two of
            them, or more bits than ``budget.codes`` can tell of.

    Paper: sec-4-3, eq-1b
    Own: own-text-gap, own-text-distance
    """
    budget = budget or Budget()
    for x in (train, test):
        if x.n_words != model.n_words:
            raise ValueError(f"evaluate: the model has {model.n_words} words, the documents {x.n_words}")
        if x.n_documents < 2:
            raise ValueError(f"evaluate: expected at least 2 documents, for standard errors; got {x.n_documents}")
    if not torch.equal(train.smoothing, test.smoothing):
        raise ValueError("evaluate: train and test have different smoothing: build both with the same f")
    if model.bits > budget.enumerate_bits and model.bits + 1 >= budget.codes:
        raise ValueError(f"evaluate: {budget.codes} codes are too few for affine functions of {model.bits} bits")
    # tf32 keeps 10 bits of a logit, times a document's length
    with matmul_precision("highest"), torch.no_grad():
        figures = {f"base_measure_floor_{s}": _mean(base_measure_floor(x)) for s, x in _named(train, test)}
        for split, x in _named(train, test):
            told = bit_information(encode_all(model, x))
            figures |= {f"bit_information_{split}": float(told.sum()), f"idle_bits_{split}": float((told < IDLE).sum())}
        like = model.encode(test.select(torch.arange(1, device=test.indptr.device)))
        joint = TextJoint(model.decode, model.bits, model.n_words, like.new_empty(0))
        run = _enumerated if model.bits <= budget.enumerate_bits else _estimated
        return figures | run(model, joint, train, test, seed, budget)


def _named(train: WordCounts, test: WordCounts) -> list[tuple[str, WordCounts]]:
    return [("train", train), ("test", test)]


def _mean(values: Tensor) -> float:
    return float(values.mean())


def _some(x: WordCounts, n: int, seed: int) -> Tensor:
    """Numbers of n random documents, ascending; all if there are fewer."""
    order = torch.randperm(x.n_documents, generator=torch.Generator().manual_seed(seed))
    return order[:n].sort().values.to(x.indptr.device)


def _word_distance(residual: Tensor, train: WordCounts) -> float:
    """Root mean square over words as often as they occur in training; one entry stands for all words."""
    frequency = train.word_totals() + train.n_documents * train.smoothing
    return math.sqrt(_mean(residual) if len(residual) == 1 else float(residual @ frequency / frequency.sum()))


def _joined(train: WordCounts, test: WordCounts) -> WordCounts:
    return WordCounts(
        torch.cat([train.indptr, train.indptr[-1] + test.indptr[1:]]),
        torch.cat([train.indices, test.indices]),
        torch.cat([train.counts, test.counts]),
        test.smoothing,
        torch.cat([train.labels, test.labels]),
    )


def _enumerated(
    model: TextModel, joint: TextJoint, train: WordCounts, test: WordCounts, seed: int, budget: Budget
) -> dict[str, float]:
    most = max(budget.gap_documents, _TABLE_ELEMENTS >> joint.bits)
    eta = torch.cat([encode_all(model, x) for x in (train, test)])
    chosen = [_some(x, most, seed + i) for i, x in enumerate((train, test))]
    rows = torch.cat([chosen[0], chosen[1] + train.n_documents])
    weight = aggregated(eta[: train.n_documents])
    # both splits in one pass, for the sake of decoders with hidden layers, whose codes are dear
    result = enumerate_codes(joint, _joined(train, test), eta, rows=rows, weight=weight)
    figures = {"distance_words": _word_distance(result.word_residual, train)}
    begin, first = 0, 0
    for (split, x), some in zip(_named(train, test), chosen, strict=True):
        end, last = begin + x.n_documents, first + len(some)
        part = Enumerated(
            result.log_likelihood[begin:end],
            result.elbo[begin:end],
            result.table[first:last],
            result.word_residual,
            result.document_residual[first:last],
        )
        for name, value in _split_figures(part, eta[begin:end], some, joint.bits).items():
            figures[f"{name}_{split}"] = value
        begin, first = end, last
    return figures


def _split_figures(part: Enumerated, eta: Tensor, some: Tensor, bits: int) -> dict[str, float]:
    starts = starting_points(part.table, eta[some], bits)
    best = best_factorized(part.table, starts).elbo
    # the encoder's own answer is a factorized one, and ascent begins there: rounding apart it cannot be better
    family, amortization = part.log_likelihood[some] - best, best - part.elbo[some]
    n, share = len(some), len(some) / len(eta)
    figures = {
        "log_likelihood": _mean(part.log_likelihood),
        "elbo": _mean(part.elbo),
        "gap": _mean(part.log_likelihood - part.elbo),
        "gap_documents": float(n),
        "distance_documents": math.sqrt(_mean(part.document_residual)),
        "distance_posterior": math.sqrt(_mean(posterior_residual(part.table, all_bits(bits, part.table)))),
    }
    for name, value in (("gap_family", family), ("gap_amortization", amortization)):
        figures[name] = _mean(value)
        figures[f"{name}_se"] = float(value.std()) * math.sqrt((1 - share) / n)
    return figures


def _estimated(
    model: TextModel, joint: TextJoint, train: WordCounts, test: WordCounts, seed: int, budget: Budget
) -> dict[str, float]:
    generator = torch.Generator(train.indptr.device).manual_seed(seed)
    x = test.select(_some(test, budget.ais_documents, seed))
    eta, score, n = encode_all(model, x), joint.score(x), x.n_documents
    draws = importance(score, eta, budget.samples, generator)
    # the encoder may be far off on test documents: weights are taken against a posterior fitted to each document
    fitted = fit_factorized(score, eta, generator=generator)
    near = importance(score, fitted, budget.samples, generator)
    broad = broadened(fitted, eta)
    weights = importance(score, broad, budget.samples, generator)
    chains = anneal(score, broad, budget.chains, budget.temperatures, generator)
    gap, family = chains.log_mean - draws.mean, chains.log_mean - near.mean
    figures = {
        "log_likelihood_iw": _mean(weights.log_mean),
        "log_likelihood_iw_se": float(weights.standard_error.norm()) / n,
        "log_likelihood_ais": _mean(chains.log_mean),
        "log_likelihood_ais_se": float(chains.standard_error.norm()) / n,
        "elbo_ais": _mean(draws.mean),
        "gap_ais": _mean(gap),
        "gap_ais_se": float(gap.std()) / math.sqrt(n),
        "gap_fitted_ais": _mean(family),
        "gap_fitted_ais_se": float(family.std()) / math.sqrt(n),
        "ais_effective": float(chains.effective_samples.median()),
        "ais_documents": float(n),
    }
    # one code of each of many training documents: a sample of the mean posterior
    pick = torch.randint(train.n_documents, (budget.codes,), generator=torch.Generator().manual_seed(seed))
    codes = Bernoulli(encode_all(model, train.select(pick.to(train.indptr.device)))).sample((), generator)
    fit = Deviation(joint, x.length())
    for chunk in joint.listed(x, codes.to(joint.like)):
        fit.add(chunk, torch.ones_like(chunk.log_partition), chunk.log_joint)
    words, documents = fit.residuals(sampled=True)
    figures["distance_documents"] = math.sqrt(_mean(documents))
    distance = _word_distance(words, train)
    return {"distance_words": distance} | {f"{name}_test": value for name, value in figures.items()}
