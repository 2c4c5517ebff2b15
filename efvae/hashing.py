"""Documents and binary codes: the multinomial decoder, and what lengths do to its posterior.

Semantic hashing with a dictionary and lengths so small that every document can be listed. The law of words is kept as
λ(z) = log p(word | z), since the posterior is linear in it: log p(z | x) = log p(z | l) + ⟨x, λ(z)⟩ + const.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.families import Bernoulli, Multinomial, all_bits
from efvae.minimal import extend, span

__all__ = [
    "Corpus",
    "documents",
    "encoder_gap",
    "near_affine_bound",
    "not_affine",
    "paired_words",
]


def documents(n_words: int, length: int) -> Tensor:
    """All documents of one length as word counts, shape ``(batch, n_words)``, float64.

    Paper: eq-13
    """
    return Multinomial(torch.zeros(n_words, dtype=torch.float64), length).support()


@dataclass(frozen=True)
class Corpus:
    """Joint law of words, length and code, all of it enumerable.

    ::

        p(x, l, z) = p(l, z) h(x | l) exp⟨x, λ(z)⟩,    λ_k(z) = log p(word k | z),    h(x | l) = l! / Π_k x_k!

    Args:
        log_words: λ for all codes in counting order, in nats, shape ``(2**m, K)``.
        lengths: the different lengths, whole numbers ≥ 1, shape ``(n,)``.
        log_length_code: log p(l, z) in nats, shape ``(n, 2**m)``.

    Raises:
        ValueError: a length that is no whole number, below 1 or twice; tables whose shapes do not fit, or a number of
            codes that is no power of two; one of the two laws does not sum to one.

    Paper: eq-13, eq-15
    """

    log_words: Tensor
    lengths: Tensor
    log_length_code: Tensor

    def __post_init__(self) -> None:
        whole = self.lengths == self.lengths.floor()
        if not bool((whole & (self.lengths >= 1)).all()) or len(self.lengths.unique()) != len(self.lengths):
            raise ValueError(
                f"Corpus: lengths must be different whole numbers and at least 1, got {self.lengths.tolist()}"
            )
        codes = len(self.log_words)
        if codes & (codes - 1) or self.log_length_code.shape != (len(self.lengths), codes):
            raise ValueError(
                f"Corpus: needs 2**m codes and log p(l, z) of shape ({len(self.lengths)}, 2**m), got {codes} codes and "
                f"{tuple(self.log_length_code.shape)}"
            )
        for name, total in (
            ("p(word | z)", torch.logsumexp(self.log_words, 1)),
            ("p(l, z)", self.log_length_code.logsumexp((0, 1))),
        ):
            if not bool((total.abs() < 1e-9).all()):
                raise ValueError(f"Corpus: {name} must sum to one; subtract the log-sum-exp first")

    @classmethod
    def independent(cls, logits: Tensor, lengths: Tensor, log_length: Tensor, log_prior: Tensor) -> Corpus:
        """The VAE's model: words by the softmax of f(z), length independent of the code.

        ::

            p(x, l, z) = p(z) p(l) h(x | l) exp(⟨x, f(z)⟩ − l A(f(z))),    A(η) = log Σ_k exp η_k

        Args:
            logits: f(z), shape ``(2**m, K)``.
            lengths: shape ``(n,)``.
            log_length: log p(l), shape ``(n,)``.
            log_prior: log p(z), shape ``(2**m,)``.

        Paper: eq-13
        """
        return cls(torch.log_softmax(logits, 1), lengths, log_length[:, None] + log_prior)

    @classmethod
    def harmonium(
        cls, weight: Tensor, word_bias: Tensor, code_bias: Tensor, lengths: Tensor, log_base: Tensor
    ) -> Corpus:
        """The multinomial–Bernoulli RBM, all lengths in one law; its marginal of the length is not ``log_base``.

        ::

            p(x, l, z) = h(x | l) h(l) exp(⟨x, W z⟩ + ⟨a, x⟩ + ⟨b, z⟩ + c)
            p(l | z) ∝ h(l) exp(l A(W z + a))

        Args:
            weight: W, shape ``(K, m)``.
            word_bias: a, shape ``(K,)``.
            code_bias: b, shape ``(m,)``.
            lengths: shape ``(n,)``.
            log_base: log h(l), where the paper writes log p(l), shape ``(n,)``.

        Paper: eq-15
        Own: own-hashing-length
        """
        logits = all_bits(len(code_bias)) @ weight.T + word_bias
        joint = log_base[:, None] + all_bits(len(code_bias)) @ code_bias + lengths[:, None] * logits.logsumexp(1)
        return cls(torch.log_softmax(logits, 1), lengths, joint - joint.logsumexp((0, 1)))

    @classmethod
    def with_length_prior(
        cls, weight: Tensor, word_bias: Tensor, code_bias: Tensor, lengths: Tensor, log_length: Tensor
    ) -> Corpus:
        """The RBM at each length, with a given law of the length: the prior of the code depends on the length.

        ::

            p(z | l) ∝ exp(⟨b, z⟩ + l A(W z + a))

        Args:
            weight, word_bias, code_bias, lengths: see :meth:`harmonium`.
            log_length: log p(l), now the marginal, shape ``(n,)``.

        Own: own-length-prior
        """
        rbm = cls.harmonium(weight, word_bias, code_bias, lengths, torch.zeros_like(log_length))
        given_length = torch.log_softmax(rbm.log_length_code, 1)
        return cls(rbm.log_words, lengths, log_length[:, None] + given_length)

    @property
    def n_bits(self) -> int:
        """Number of bits of the code."""
        return (len(self.log_words) - 1).bit_length()

    def documents(self) -> Tensor:
        """All documents of all lengths, shape ``(batch, K)``."""
        return torch.cat([documents(self.log_words.shape[1], int(length)) for length in self.lengths])

    def log_joint(self) -> Tensor:
        """log p(x, l, z) in nats, codes in counting order, shape ``(2**m, batch)``; l is the sum of x."""
        x = self.documents()
        total = x.sum(1)
        log_h = torch.lgamma(total + 1) - torch.lgamma(x + 1).sum(1)
        place = (total[:, None] == self.lengths).double().argmax(1)
        return self.log_length_code[place].T + log_h + self.log_words @ x.T

    def data(self) -> Tensor:
        """p(x) of all documents, shape ``(batch,)``."""
        return torch.logsumexp(self.log_joint(), 0).exp()

    def length_information(self) -> Tensor:
        """Mutual information of length and code in nats, a scalar; zero in the VAE's model.

        Own: own-hashing-length
        """
        joint = self.log_length_code
        apart = joint.logsumexp(1, keepdim=True) + joint.logsumexp(0, keepdim=True)
        return (joint.exp() * (joint - apart)).sum()


def encoder_gap(log_joint: Tensor, eta: Tensor) -> Tensor:
    """KL(q(z | x) ‖ p(z | x)) of a given factorized encoder in nats, shape ``(batch,)``.

    Args:
        log_joint: log p(x, z) up to a constant for each x, shape ``(2**m, batch)``.
        eta: logits of the bits, shape ``(batch, m)``.

    Paper: eq-14, eq-1b
    """
    log_q = Bernoulli(eta).log_prob(all_bits(eta.shape[-1], eta)[:, None])
    log_post = log_joint - torch.logsumexp(log_joint, 0)
    return (log_q.exp() * (log_q - log_post)).sum(0)


def not_affine(values: Tensor) -> Tensor:
    """What is left of functions of the code after their best affine fit (least squares), shape as ``values``.

    Args:
        values: a column for each function, codes in counting order, shape ``(2**m, ...)``.

    Own: own-hashing-tight
    """
    basis = span(extend(all_bits((len(values) - 1).bit_length(), values)))
    flat = values.flatten(1) if values.ndim > 1 else values[:, None]
    return (flat - basis @ (basis.T @ flat)).reshape(values.shape)


def near_affine_bound(deviation: Tensor, length: Tensor) -> Tensor:
    """Bound of the posterior gap of a linear decoder with a factorized prior, in nats.

    ::

        min(l² δ² / 2, 2 l δ),    δ = max_z |A(W z + a) − its affine fit|

    Args:
        deviation: δ ≥ 0.
        length: l, broadcastable.

    Own: own-near-affine
    """
    return torch.minimum((length * deviation).square() / 2, 2 * length * deviation)


def paired_words(mass: Tensor, share: Tensor) -> Tensor:
    """A decoder that is tight under a uniform prior at all lengths: bit i moves mass within its own pair of words.

    ::

        p(word 2i | z) = mass_i share_i(z_i),   p(word 2i + 1 | z) = mass_i (1 − share_i(z_i))

    Args:
        mass: of the pairs, summing to one, shape ``(m,)``.
        share: of the first word at z_i = 0 and at z_i = 1, in (0, 1), shape ``(m, 2)``.

    Returns:
        λ(z), which is affine in z, shape ``(2**m, 2 m)``.

    Own: own-hashing-tight
    """
    bits = all_bits(len(mass))
    chosen = torch.where(bits == 1, share[:, 1], share[:, 0])
    return (mass[:, None] * torch.stack([chosen, 1 - chosen], -1)).log().flatten(1)
