"""log p(x, z) of documents and binary codes under a trained decoder, for listed codes or for codes of one's choice.

The prior is uniform on the bits unless one is given; the likelihood is relative to the saturated multinomial, so that
−log p(x) has the convention of Table 2. A code's log-partition is computed once for all documents, a document's words
enter by a sparse product or, for an affine decoder, by one number for each bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from efvae.families import all_bits
from efvae.word_counts import WordCounts, cross_entropy, log_saturated

__all__ = ["Chunk", "TextJoint"]

#: Codes are listed in runs that agree in all but their last bits, of which there are at most so many.
RUN_BITS = 8
_ELEMENTS = 2**24  # of the logits of sampled codes that are held at once

#: log p(x | z) from codes, their logits and their log-partitions.
_Term = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Chunk:
    """A run of consecutive codes and what is known about them.

    Args:
        start: place of the first in counting order.
        codes: shape ``(c, bits)``, float64.
        log_joint: log p(x, z) in nats, shape ``(documents, c)``, float64.
        log_words: log p(word | z), shape ``(c, K)``, float64.
        log_partition: A(f(z)), shape ``(c,)``, float64.

    Own: own-text-likelihood
    """

    start: int
    codes: Tensor
    log_joint: Tensor
    log_words: Tensor
    log_partition: Tensor


@dataclass(frozen=True)
class TextJoint:
    """The joint law of words and code relative to the saturated multinomial.

    ::

        log p(x, z) = log p(z) + Σ_k x_k log(p_k(z) / (x_k / l)),    log p_k(z) = f_k(z) − A(f(z))

    Args:
        decode: f, logits over words from codes, ``(..., bits)`` to ``(..., K)``.
        bits: length m of the code.
        n_words: K.
        like: a tensor of the decoder's dtype and device.

    Raises:
        ValueError: no bit, or logits of another shape.

    Paper: eq-13, sec-4-3
    Own: own-text-likelihood
    """

    decode: Callable[[Tensor], Tensor]
    bits: int
    n_words: int
    like: Tensor
    #: W and a, float64, shapes ``(bits, K)`` and ``(K,)``, where f(z) = zW + a; found by trying.
    affine: tuple[Tensor, Tensor] | None = field(init=False)
    #: Logits of an average code, float64; single precision then holds only differences from it.
    center: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise ValueError(f"TextJoint: expected at least one bit, got {self.bits}")
        units = torch.cat([torch.zeros(1, self.bits), torch.eye(self.bits)])
        some = torch.rand(64, self.bits, generator=torch.Generator().manual_seed(0)).round()
        codes = torch.cat([units, some]).to(self.like)
        logits = self._logits(codes).double()
        if logits.shape != (len(codes), self.n_words):
            raise ValueError(
                f"TextJoint: expected logits of shape {(len(codes), self.n_words)}, got {tuple(logits.shape)}"
            )
        bias = logits[0]
        weight = logits[1 : self.bits + 1] - bias
        rest = logits - (codes.double() @ weight + bias)
        # rounding of the decoder's own precision is no curvature
        rounding = 100 * torch.finfo(self.like.dtype).eps * (1 + logits.abs().max())
        object.__setattr__(self, "affine", (weight, bias) if bool(rest.abs().max() <= rounding) else None)
        object.__setattr__(self, "center", logits.mean(0))

    def _logits(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.decode(z)

    def runs(self, x: WordCounts, log_prior: Tensor | None = None) -> Iterator[Chunk]:
        """All 2**m codes in counting order, in runs of 2**min(m, 8).

        Args:
            x: the documents, all at once.
            log_prior: log p(z) if it is not uniform, shape ``(2**m,)`` or ``(documents, 2**m)``.

        Raises:
            ValueError: more codes than can be listed.

        Own: own-text-likelihood
        """
        codes = all_bits(self.bits, self.like)
        yield from self.listed(x, codes, 2 ** min(self.bits, RUN_BITS), log_prior)

    def listed(
        self, x: WordCounts, codes: Tensor, run: int = 2**RUN_BITS, log_prior: Tensor | None = None
    ) -> Iterator[Chunk]:
        """The given codes, the same for all documents, some at a time.

        Args:
            x: the documents.
            codes: shape ``(n, bits)``, of the decoder's dtype.
            run: how many at a time.
            log_prior: log p(z) of the codes if it is not uniform, shape ``(n,)`` or ``(documents, n)``.

        Own: own-text-likelihood
        """
        term = self._affine_term(x) if self.affine else self._sparse_term(x)
        for start in range(0, len(codes), run):
            z = codes[start : start + run]
            logits = self._logits(z)
            wide = logits.double()
            partition = wide.logsumexp(1)
            joint = term(z.double(), logits, partition)
            joint += -self.bits * math.log(2) if log_prior is None else log_prior[..., start : start + run]
            yield Chunk(start, z.double(), joint, wide - partition[:, None], partition)

    def _affine_term(self, x: WordCounts) -> _Term:
        """⟨W x, z⟩ + ⟨x, a⟩ − l A − Σ x log(x / l), all as one product of matrices."""
        weights, constant = self._fields(x)
        left = torch.cat([weights, -x.length()[:, None], (constant - log_saturated(x))[:, None]], 1)
        return lambda z, _, partition: left @ torch.cat([z.T, partition[None], torch.ones_like(partition)[None]])

    def _sparse_term(self, x: WordCounts) -> _Term:
        """⟨x, f(z) − center⟩ in the decoder's precision, the rest in double."""
        matrix, center = _sparse(x, self.like.dtype), self.center.to(self.like.dtype)
        length = x.length()
        constant = -cross_entropy(x, center.double()) - log_saturated(x)

        def term(_: Tensor, logits: Tensor, partition: Tensor) -> Tensor:
            rest = (logits - center).T.contiguous()
            joint = (matrix @ rest).double()
            joint += x.smoothing @ rest.double()
            return joint.addr_(length, partition, alpha=-1).add_(constant[:, None])

        return term

    def _fields(self, x: WordCounts) -> tuple[Tensor, Tensor]:
        """W x and ⟨x, a⟩ of an affine decoder: ⟨x, f(z)⟩ = ⟨W x, z⟩ + ⟨x, a⟩."""
        assert self.affine is not None  # noqa: S101  # for the type checker
        weight, bias = self.affine
        both = torch.cat([weight, bias[None]]).T.contiguous()
        product = _sparse(x, torch.float64) @ both + x.smoothing @ both
        return product[:, :-1], product[:, -1]

    def score(self, x: WordCounts) -> Callable[[Tensor], Tensor]:
        """A function that gives log p(x, z) in nats for codes of each document's own, uniform prior.

        ::

            z of shape (s, documents, bits)  ↦  log p(x_d, z_sd), shape (s, documents), float64

        Args:
            x: few documents.

        Own: own-text-likelihood
        """
        length, base = x.length(), -log_saturated(x) - self.bits * math.log(2)
        document, word, counts = x.documents(), x.indices.long(), x.counts.double()
        fields = self._fields(x) if self.affine else None
        run = max(1, _ELEMENTS // (x.n_documents * self.n_words))

        def term(z: Tensor, logits: Tensor) -> Tensor:
            if fields:
                return (z.double() * fields[0]).sum(-1) + fields[1]
            at_f = (logits @ x.smoothing.to(logits)).double()
            return at_f.index_add_(1, document, logits[:, document, word].double() * counts)

        def some(z: Tensor) -> Tensor:
            logits = self._logits(z)
            # in the decoder's precision: the error is the same for all words, some 1e-7 a token
            return term(z, logits) - length * logits.logsumexp(-1).double() + base

        return lambda z: torch.cat([some(part) for part in z.to(self.like).split(run)])


def _sparse(x: WordCounts, dtype: torch.dtype) -> Tensor:
    """The counts without smoothing as a CSR matrix, shape ``(documents, K)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "beta state", once in every process
        return torch.sparse_csr_tensor(
            x.indptr.int(), x.indices, x.counts.to(dtype), (x.n_documents, x.n_words), check_invariants=False
        )
