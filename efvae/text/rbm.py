"""The multinomial–Bernoulli RBM of documents, trained directly: its likelihood is exact where codes can be listed.

At each length it is a tight VAE with the encoder e1; its prior then depends on the length, which a VAE's does not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efvae.families import all_bits
from efvae.text.batches import Batch
from efvae.text.fused import word_sums
from efvae.text.listed import LISTED, expected_partition, log_sum_exp_product, word_partition
from efvae.text.model import TextVAE
from efvae.word_counts import WordCounts, log_saturated

__all__ = ["PRIORS", "TextRBM"]

#: Laws of the code; the RBM's own, which depends on the length, or uniform bits as in a VAE.
PRIORS = ("own", "uniform")


class TextRBM(nn.Module):
    """Documents and codes in one log-bilinear law at each length, as a replicated softmax.

    ::

        p(x, z | l) = h(x | l) exp(⟨x, W z + a⟩ + ⟨b, z⟩) / Z_l,     Z_l = Σ_z exp(⟨b, z⟩ + l A(W z + a))
        p(z | x)    = Π_i Bernoulli(b_i + (Wᵀ x)_i),                 A(η) = log Σ_k exp η_k
        p(z | l)    = exp(⟨b, z⟩ + l A(W z + a)) / Z_l

    The posterior is factorized and its logits are linear in the counts. What makes it so is the prior: it is not free,
    and it depends on the length unless A(W z + a) is the same for all codes.

    Args:
        weight: W, shape ``(K, m)``.
        word_bias: a, shape ``(K,)``.
        code_bias: b, shape ``(m,)``.

    Raises:
        ValueError: shapes that do not fit, or more bits than can be listed.

    Paper: eq-15, sec-4-3
    Own: own-text-rbm, own-length-prior
    """

    def __init__(self, weight: Tensor, word_bias: Tensor, code_bias: Tensor) -> None:
        super().__init__()
        if weight.ndim != 2 or weight.shape != (len(word_bias), len(code_bias)):
            raise ValueError(
                f"TextRBM: expected W of shape (words, bits), a and b to fit; got {tuple(weight.shape)}, "
                f"{tuple(word_bias.shape)} and {tuple(code_bias.shape)}"
            )
        if not 1 <= weight.shape[1] <= LISTED:
            raise ValueError(f"bits must be in [1, {LISTED}], so that all codes can be listed; got {weight.shape[1]}")
        self.weight = nn.Parameter(weight)
        self.word_bias, self.code_bias = nn.Parameter(word_bias), nn.Parameter(code_bias)

    @classmethod
    def initial(cls, law: Tensor, bits: int, generator: torch.Generator, scale: float = 0.1) -> TextRBM:
        """Small random weights at which codes say little about words, and nothing about length.

        ::

            a = log p,   W_ki = s (ε_ki − Σ_j p_j ε_ji),   ε ~ N(0, 1),   b = 0:   ∂A/∂z is zero to first order in s

        Otherwise long documents would all have the code of the largest A.

        Args:
            law: p, positive law of words, shape ``(K,)``.
            bits: m.
            generator: of ε.
            scale: s.

        Own: own-text-rbm
        """
        if not 1 <= bits <= LISTED:
            raise ValueError(f"bits must be in [1, {LISTED}], so that all codes can be listed; got {bits}")
        p = law.float()
        weight = scale * torch.randn(len(p), bits, generator=generator)
        return cls(weight - p @ weight, p.log(), torch.zeros(bits))

    @property
    def n_words(self) -> int:
        """Size K of the vocabulary."""
        return len(self.word_bias)

    @property
    def bits(self) -> int:
        """Length m of the codes."""
        return len(self.code_bias)

    def sums(self, x: WordCounts) -> tuple[Tensor, Tensor]:
        """Wᵀ x and ⟨a, x⟩ of each document, shapes ``(documents, m)`` and ``(documents,)``.

        Raises:
            ValueError: documents of another vocabulary.

        Own: own-text-rbm
        """
        if x.n_words != self.n_words:
            raise ValueError(f"TextRBM: the model has {self.n_words} words, the documents {x.n_words}")
        table = torch.cat([self.weight, self.word_bias[:, None]], 1)
        counts, f = x.counts.to(table.dtype), x.smoothing.to(table.dtype)
        nothing = counts.new_empty(0)  # lengths and such are read elsewhere
        both = word_sums(table, Batch(x.indices.long(), counts, x.indptr[:-1], f, nothing, nothing))
        return both[:, :-1], both[:, -1]

    def encode(self, x: WordCounts) -> Tensor:
        """Logits of p(z | x), exact, shape ``(documents, m)``.

        Paper: eq-14
        """
        return self.sums(x)[0] + self.code_bias

    def decode(self, z: Tensor) -> Tensor:
        """Logits W z + a over words, shape ``(..., K)``.

        Paper: eq-13
        """
        return z @ self.weight.T + self.word_bias

    def partition(self) -> Tensor:
        """A(W z + a) of all codes in counting order, shape ``(2**m,)``.

        Paper: eq-13
        """
        return word_partition(self.weight, self.word_bias)

    def log_partition(self, length: Tensor) -> Tensor:
        """log Z_l, of the shape of ``length``; equal lengths share one sum over codes.

        Args:
            length: l, any positive numbers: smoothing makes them fractional.

        Own: own-text-rbm
        """
        different, place = length.to(self.weight.dtype).unique(return_inverse=True)
        prior = all_bits(self.bits, self.weight) @ self.code_bias
        scores = torch.stack([torch.ones_like(different), different], 1), torch.stack([prior, self.partition()])
        return log_sum_exp_product(*scores)[place]

    def log_prior(self, length: Tensor) -> Tensor:
        """log p(z | l) of all codes in counting order, shape ``(lengths, 2**m)``.

        Own: own-length-prior
        """
        prior = all_bits(self.bits, self.weight) @ self.code_bias
        return torch.log_softmax(prior + length.to(self.weight.dtype)[:, None] * self.partition(), 1)

    def length_information(self, length: Tensor, share: Tensor) -> dict[str, Tensor]:
        """How much the length says about the code before a word is read, in nats.

        ::

            length_information = I(l; z) = H(z) − Σ_l p(l) H(z | l),    prior_entropy = Σ_l p(l) H(z | l)

        Args:
            length: different lengths, shape ``(n,)``.
            share: p(l), shape ``(n,)``.

        Own: own-length-prior
        """
        pooled, within = torch.zeros(2**self.bits, dtype=share.dtype), share.new_zeros(())
        for some, weight in zip(length.split(32), share.split(32), strict=True):
            log_law = self.log_prior(some)
            law = log_law.exp().to(share.dtype)
            pooled += weight @ law
            within -= weight @ (law * log_law).sum(1).to(share.dtype)
        return {"length_information": torch.special.entr(pooled).sum() - within, "prior_entropy": within}

    def nll(self, x: WordCounts, prior: str = "own", saturated: Tensor | None = None) -> Tensor:
        """−log p(x | l) in nats relative to the saturated multinomial, as a NELBO, shape ``(documents,)``.

        ::

            own:      Σ_k x_k log(x_k / l) − ⟨a, x⟩ − Σ_i log(1 + exp(b_i + (Wᵀ x)_i)) + log Z_l
            uniform:  Σ_k x_k log(x_k / l) − ⟨a, x⟩ − log Σ_z 2^−m exp(⟨z, Wᵀ x⟩ − l A(W z + a))

        The second is of the same decoder as a VAE's with uniform bits, whatever its encoder: no ELBO is better.

        Args:
            x: the documents.
            prior: one of :data:`PRIORS`.
            saturated: Σ_k x_k log(x_k / l) of each document, if it is known already, shape ``(documents,)``.

        Raises:
            ValueError: an unknown prior.

        Paper: eq-13, eq-15
        Own: own-text-rbm
        """
        if prior not in PRIORS:
            raise ValueError(f"nll: prior must be one of {', '.join(PRIORS)}; got {prior!r}")
        inner, bias = self.sums(x)
        length, known = x.length().to(inner.dtype), log_saturated(x) if saturated is None else saturated
        if prior == "own":
            log_sum = torch.nn.functional.softplus(inner + self.code_bias).sum(1) - self.log_partition(length)
        else:
            log_sum = log_sum_exp_product(*self._uniform(inner, length)) - self.bits * math.log(2)
        return known.to(inner.dtype) - bias - log_sum

    def _uniform(self, inner: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of ⟨z, Wᵀ x⟩ − l A(W z + a), documents and codes."""
        codes = torch.cat([all_bits(self.bits, inner).T, -self.partition()[None]])
        return torch.cat([inner, length[:, None]], 1), codes

    def uniform_marginals(self, x: WordCounts) -> Tensor:
        """Probabilities of the bits given x under uniform bits, where the posterior is not factorized.

        Returns:
            shape ``(documents, m)``.

        Own: own-text-rbm
        """
        inner, _ = self.sums(x)
        with torch.enable_grad():  # the gradient of a log-partition is the mean
            leaf = inner.detach().requires_grad_()
            total = log_sum_exp_product(*self._uniform(leaf, x.length().to(inner.dtype))).sum()
            (mean,) = torch.autograd.grad(total, leaf)
        return mean

    def as_vae(self) -> TextVAE:
        """A VAE with this decoder and this encoder under uniform bits, a cell e1 with a linear decoder of Table 2.

        Paper: tab-2
        Own: own-text-rbm
        """
        vae = TextVAE(self.n_words, self.bits, "e1", 0)
        with torch.no_grad():
            for place, value in (
                (vae.reader, self.weight),
                (vae.reader_bias, self.code_bias),
                (vae.writer, self.weight),
                (vae.writer_bias, self.word_bias),
            ):
                place.copy_(value)
        return vae

    def nelbo_uniform(self, x: WordCounts) -> Tensor:
        """Negative ELBO under uniform bits with the RBM's own encoder, exact, relative to the saturated multinomial.

        ::

            Σ_k x_k log(x_k / l) − ⟨a, x⟩ − E_q[⟨z, Wᵀ x⟩ − l A(W z + a)] + KL(q ‖ uniform),    q = p(z | x)

        Returns:
            in nats, shape ``(documents,)``.

        Paper: eq-1a, tab-2
        Own: own-text-rbm
        """
        inner, bias = self.sums(x)
        logits, length = inner + self.code_bias, x.length().to(inner.dtype)
        mean = logits.sigmoid()
        entropy = (torch.nn.functional.softplus(logits) - mean * logits).sum(1)
        reconstruction = (mean * inner).sum(1) - length * expected_partition(self.partition(), logits)
        return log_saturated(x).to(inner.dtype) - bias - reconstruction + self.bits * math.log(2) - entropy
