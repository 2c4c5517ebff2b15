"""Everything that one pass over all codes can tell: likelihood, ELBO, posteriors, distance from the affine decoders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.families import Bernoulli
from efvae.text.affine_fit import AffineFit
from efvae.text.factorized import code_law
from efvae.text.likelihood import RUN_BITS, Chunk, TextJoint
from efvae.word_counts import WordCounts

__all__ = ["Deviation", "Enumerated", "aggregated", "enumerate_codes"]


class Deviation:
    """What affine functions of the code leave of log p(word | z) and of log p(x | z), in one pass over codes.

    An affine decoder's words differ from one another by affine functions of the code. So one residual stands for all of
    them, that of the log-partition, and a document's is its length times as large.

    Args:
        joint: the decoder.
        length: of the documents, shape ``(documents,)``.

    Own: own-text-distance
    """

    def __init__(self, joint: TextJoint, length: Tensor) -> None:
        self.length = length if joint.affine else None
        self.words, self.documents = AffineFit(joint.bits), AffineFit(joint.bits)

    def add(self, chunk: Chunk, weight: Tensor, log_likelihood: Tensor) -> None:
        """Some codes with their weights, and log p(x | z), up to an affine function, shape ``(documents, c)``."""
        if self.length is None:
            self.words.add(chunk.codes, weight, chunk.log_words.T)
            self.documents.add(chunk.codes, weight, log_likelihood)
        else:
            self.words.add(chunk.codes, weight, -chunk.log_partition[None])

    def residuals(self, *, sampled: bool = False) -> tuple[Tensor, Tensor]:
        """Mean squares of the words, shape ``(K,)`` or ``(1,)``, and of the documents, shape ``(documents,)``."""
        words = self.words.residual(sampled=sampled)
        if self.length is None:
            return words, self.documents.residual(sampled=sampled)
        return words, self.length.square() * words


@dataclass(frozen=True)
class Enumerated:
    """Exact figures of each document, in nats relative to the saturated multinomial.

    Args:
        log_likelihood: log p(x), shape ``(documents,)``.
        elbo: shape ``(documents,)``.
        table: log p(x, z) of the rows asked for, shape ``(rows, 2**m)``.
        word_residual: mean square that an affine map leaves of each log p(word | z), shape ``(K,)``; for an affine
            decoder it is the same for all words, shape ``(1,)``.
        document_residual: the same of log p(x | z) for the rows asked for, shape ``(rows,)``.

    Own: own-text-likelihood, own-text-distance
    """

    log_likelihood: Tensor
    elbo: Tensor
    table: Tensor
    word_residual: Tensor
    document_residual: Tensor


def _halves(eta: Tensor) -> tuple[Tensor, Tensor]:
    """Laws of the first bits, and of the last bits that a run of codes goes through."""
    low = min(eta.shape[1], RUN_BITS)
    return code_law(eta[:, :-low]), code_law(eta[:, -low:])


def aggregated(eta: Tensor) -> Tensor:
    """The mean posterior of the encoder over documents, shape ``(2**m,)``, codes in counting order.

    ::

        q̄(z) = mean over x of q(z | x)

    Args:
        eta: logits, shape ``(documents, m)``.

    Own: own-text-distance
    """
    high, low = _halves(eta)
    return (high.mT @ low).flatten() / len(eta)


def enumerate_codes(
    joint: TextJoint,
    x: WordCounts,
    eta: Tensor,
    *,
    rows: Tensor | None = None,
    weight: Tensor | None = None,
    log_prior: Tensor | None = None,
) -> Enumerated:
    """Log-likelihood and ELBO of each document, without sampling.

    ::

        log p(x) = log Σ_z p(x, z),   ELBO(x) = Σ_z q(z | x) log p(x, z) + H(q)

    Args:
        joint: the decoder; at most 20 bits.
        x: the documents.
        eta: the encoder's logits, shape ``(documents, m)``.
        rows: documents whose table and residual are wanted; none without.
        weight: weights of the codes in the affine fits, shape ``(2**m,)``; :func:`aggregated` of ``eta`` without.
        log_prior: log p(z) if it is not uniform, shape ``(2**m,)`` or ``(documents, 2**m)``.

    Raises:
        ValueError: documents of another vocabulary than the decoder's, or one of the shapes is another.

    Paper: eq-1a, eq-13
    Own: own-text-likelihood
    """
    _require_shapes(joint, x, eta, weight, log_prior)
    eta = eta.double()
    law_high, law_low = _halves(eta)
    weight = aggregated(eta) if weight is None else weight
    total = eta.new_full((x.n_documents,), -torch.inf)
    expected = torch.zeros_like(total)
    rows = torch.arange(0, device=eta.device) if rows is None else rows
    table = eta.new_empty(len(rows), 2**joint.bits)
    fit = Deviation(joint, x.length()[rows])
    for chunk in joint.runs(x, log_prior):
        here = slice(chunk.start, chunk.start + len(chunk.codes))
        total = torch.logaddexp(total, chunk.log_joint.logsumexp(1))
        expected += law_high[:, chunk.start // law_low.shape[1]] * torch.linalg.vecdot(law_low, chunk.log_joint)
        table[:, here] = chunk.log_joint[rows]
        prior = 0.0 if log_prior is None else log_prior[rows, here] if log_prior.ndim > 1 else log_prior[here]
        fit.add(chunk, weight[here], table[:, here] - prior)
    return Enumerated(total, expected + Bernoulli(eta).entropy(), table, *fit.residuals())


def _require_shapes(
    joint: TextJoint, x: WordCounts, eta: Tensor, weight: Tensor | None, log_prior: Tensor | None
) -> None:
    if x.n_words != joint.n_words:
        raise ValueError(f"enumerate_codes: the decoder has {joint.n_words} words, the documents {x.n_words}")
    n, k = x.n_documents, 2**joint.bits
    for name, value, shapes in (
        ("eta", eta, [(n, joint.bits)]),
        ("weight", weight, [(k,)]),
        ("log_prior", log_prior, [(k,), (n, k)]),
    ):
        if value is not None and tuple(value.shape) not in shapes:
            raise ValueError(
                f"enumerate_codes: {name} must have the shape {' or '.join(map(str, shapes))}, got {tuple(value.shape)}"
            )
