"""Corpora from a known law: one from a harmonium, one from a decoder that no harmonium has.

Small enough in bits that log p(x) of any document is a sum over all codes. Documents are raw counts, without smoothing:
it is for them that the law is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.families import all_bits
from efvae.hashing import Corpus
from efvae.word_counts import WordCounts, log_base_measure

__all__ = ["SyntheticText", "curved_law", "harmonium_law", "log_likelihood", "sample_documents", "synthetic_text"]


@dataclass(frozen=True)
class SyntheticText:
    """Two splits of a corpus and the law they were drawn from.

    Args:
        train, test: documents; the label of a document is the number of its true code.
        law: the joint law of words, length and code.

    Own: own-synthetic-text
    """

    train: WordCounts
    test: WordCounts
    law: Corpus


def _lengths(shortest: int, longest: int) -> tuple[Tensor, Tensor]:
    """All lengths of a range and log p(l) ∝ −log l: many short documents, few long ones."""
    if not 1 <= shortest <= longest:
        raise ValueError(f"synthetic corpus: expected 1 <= shortest <= longest; got {shortest} and {longest}")
    lengths = torch.arange(shortest, longest + 1, dtype=torch.float64)
    return lengths, torch.log_softmax(-lengths.log(), 0)


def _draw(n_words: int, bits: int, seed: int) -> tuple[Tensor, torch.Generator]:
    """Word biases −log rank, as in Zipf's law, and the generator for the rest."""
    if n_words < 2 or not 1 <= bits <= 16:
        raise ValueError(
            f"synthetic corpus: expected at least 2 words, and bits in [1, 16] so that codes can be listed; "
            f"got {n_words} and {bits}"
        )
    generator = torch.Generator().manual_seed(seed)
    rank = torch.arange(1, n_words + 1, dtype=torch.float64)
    return -rank.log(), generator


def harmonium_law(
    n_words: int = 200, bits: int = 6, shortest: int = 20, longest: int = 100, scale: float = 1.0, seed: int = 0
) -> Corpus:
    """A multinomial–Bernoulli RBM at each length: its posterior is factorized, its encoder linear on counts, exactly.

    ::

        p(x | l, z) = h(x | l) exp(⟨x, W z + a⟩ − l A(W z + a)),   p(z | l) ∝ exp(l A(W z + a))
        A(η) = log Σ_k exp η_k
        W_ki = −s_i + scale N(0, 1) for one bit i of each word, −s_i for the others

    s is the slope of the best linear fit of A. It changes no law of words, and keeps long documents from having all the
    same code: what is left of A in p(z | l) is what no prior of the code alone can be.

    Args:
        n_words: K.
        bits: m, 1 … 16.
        shortest, longest: range of the length, p(l) ∝ 1 / l.
        scale: standard deviation of a word's weight.
        seed: of W.

    Raises:
        ValueError: a size out of range.

    Own: own-synthetic-text, own-length-prior
    """
    lengths, log_length = _lengths(shortest, longest)
    bias, generator = _draw(n_words, bits, seed)
    own = torch.nn.functional.one_hot(torch.randint(bits, (n_words,), generator=generator), bits)
    weight = scale * own * torch.randn(n_words, bits, generator=generator, dtype=torch.float64)
    codes = all_bits(bits)
    partition = (codes @ weight.T + bias).logsumexp(1)
    # bits in counting order are orthogonal once centred, so that each slope is a difference of two means
    slope = ((codes - 0.5).T @ partition) * 4 / len(codes)
    zero = torch.zeros(bits, dtype=torch.float64)
    return Corpus.with_length_prior(weight - slope, bias, zero, lengths, log_length)


def curved_law(
    n_words: int = 200, bits: int = 6, shortest: int = 20, longest: int = 100, scale: float = 2.0, seed: int = 0
) -> Corpus:
    """No harmonium: logits through a hidden layer, a uniform prior, length independent of the code.

    ::

        f(z) = V tanh(U (2z − 1)) + a,   U_ij ~ N(0, 2 / m),   V_ki ~ N(0, scale² / H),   H = 4 m

    Args:
        n_words, bits, shortest, longest, seed: see :func:`harmonium_law`.
        scale: size of the logits.

    Raises:
        ValueError: a size out of range.

    Own: own-synthetic-text
    """
    lengths, log_length = _lengths(shortest, longest)
    bias, generator = _draw(n_words, bits, seed)
    hidden = 4 * bits
    inner = torch.randn(hidden, bits, generator=generator, dtype=torch.float64) * (2 / bits) ** 0.5
    outer = torch.randn(n_words, hidden, generator=generator, dtype=torch.float64) * scale / hidden**0.5
    logits = torch.tanh((2 * all_bits(bits) - 1) @ inner.T) @ outer.T + bias
    uniform = torch.full((2**bits,), -bits * math.log(2), dtype=torch.float64)
    return Corpus.independent(logits, lengths, log_length, uniform)


def sample_documents(law: Corpus, n: int, generator: torch.Generator) -> WordCounts:
    """Draw documents: length and code together, then words.

    Args:
        law: see :func:`harmonium_law`.
        n: how many, at least 1.
        generator: a seeded one.

    Own: own-synthetic-text
    """
    joint = law.log_length_code
    place = torch.multinomial(joint.exp().flatten(), n, replacement=True, generator=generator)
    length, code = law.lengths[place // joint.shape[1]].long(), place % joint.shape[1]
    # one uniform number for each token, turned into a word by the cumulative law of its document's code
    owner = torch.arange(n).repeat_interleave(length)
    cumulative = law.log_words.exp().cumsum(1)
    u = torch.rand(len(owner), generator=generator, dtype=torch.float64)
    counts = torch.zeros(n, law.log_words.shape[1], dtype=torch.float64)
    for z in code.unique():
        mine = code[owner] == z
        word = torch.searchsorted(cumulative[z], u[mine] * cumulative[z, -1], right=True)
        counts.index_put_((owner[mine], word), counts.new_ones(()), accumulate=True)
    return WordCounts.from_dense(counts, code)


def log_likelihood(law: Corpus, x: WordCounts) -> Tensor:
    """Exact log p(x, l) in nats by a sum over all codes, float64, shape ``(documents,)``.

    ::

        log Σ_z p(l, z) h(x | l) exp⟨x, λ(z)⟩

    Args:
        law: the law.
        x: raw counts, without smoothing.

    Raises:
        ValueError: smoothed documents, or a length that the law does not have.

    Paper: eq-13
    Own: own-synthetic-text
    """
    if bool(x.smoothing.any()):
        raise ValueError("log_likelihood: expected raw counts; smoothed documents are not what the law describes")
    length = x.length()
    known = length[:, None] == law.lengths
    if not bool(known.any(1).all()):
        raise ValueError(f"log_likelihood: lengths must be among those of the law, {law.lengths.tolist()[:3]} …")
    inner = torch.zeros(x.n_documents, len(law.log_words), dtype=torch.float64)
    inner.index_add_(0, x.documents(), law.log_words.T[x.indices.long()] * x.counts.double()[:, None])
    given: Tensor = torch.logsumexp(law.log_length_code[known.double().argmax(1)] + inner, 1)
    return given + log_base_measure(x)


def synthetic_text(law: Corpus, n_train: int = 2000, n_test: int = 1000, seed: int = 0) -> SyntheticText:
    """A corpus of two splits.

    Args:
        law: :func:`harmonium_law` or :func:`curved_law`, for instance.
        n_train, n_test: number of documents.
        seed: of the draws.

    Own: own-synthetic-text
    """
    generator = torch.Generator().manual_seed(seed)
    return SyntheticText(sample_documents(law, n_train, generator), sample_documents(law, n_test, generator), law)
