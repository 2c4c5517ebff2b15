"""The Bernoulli autoencoder of documents: three encoders and decoders with up to two hidden layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from efvae.estimators import Estimator, Exact
from efvae.families import Bernoulli, all_bits
from efvae.networks import mlp
from efvae.text import bit_costs, compiled, dense_bound, row_kernels
from efvae.text.batches import Batch, Documents
from efvae.text.dense import AnyBatch, DenseDocuments
from efvae.text.distinct import distinct
from efvae.text.fused import FrozenLayer, code_costs, code_table, word_sums
from efvae.text.listed import LISTED, expected_partition, word_partition
from efvae.values import check_whole
from efvae.word_counts import WordCounts

__all__ = ["ACTIVATIONS", "ENCODERS", "LISTED_BITS", "WIDTH", "TextVAE", "divergence", "exact_bits", "table_cost"]

#: Linear on counts (e1), two hidden layers on frequencies (e2), linear on frequencies (e3).
ENCODERS = ("e1", "e2", "e3")

#: The functions of hidden units, max(t, 0) and max(t, t / 100).
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}

#: Most bits whose codes are listed in training.
LISTED_BITS = 8

#: Units of a hidden layer, in encoder and decoder.
WIDTH = 512


def exact_bits(depth: int) -> int:
    """Most bits whose exact expectations are affordable in training.

    ::

        LISTED_BITS     behind hidden layers each code goes through the network
        LISTED          an affine decoder's log-partitions of all codes are one product of two tables

    Args:
        depth: hidden layers of the decoder.

    Own: own-listed-partition
    """
    return LISTED_BITS if depth else LISTED


def table_cost(bits: int, depth: int, device: torch.device) -> float:
    """What the log-partitions of all codes cost, counted in codes that are each done by itself.

    ::

        2^m / 48 + 5 · 2^(m/2)      affine decoder, 9 to 20 bits, on a CPU: the product of two tables, and the tables;
                                    fitted to float32 steps of 9 to 17 bits on one CPU, four times as much with
                                    compiled loops, where each code by itself costs less

    Args:
        bits: m.
        depth: hidden layers of the decoder.
        device: an accelerator has products enough to do without the table.

    Own: own-listed-partition
    """
    if bits <= LISTED_BITS:
        return 2.0**bits
    if bits > exact_bits(depth) or device.type != "cpu":
        return math.inf
    return float(2**bits / 48 + 5 * 2 ** (bits / 2)) * (4 if compiled.available(device) else 1)


class TextVAE(nn.Module):
    """Uniform bits, a multinomial decoder, a factorized Bernoulli encoder.

    ::

        p(z) = 2^−m,   log p(x | z) = log h(x) + ⟨x, f(z)⟩ − l A(f(z)),   q(z | x) ∝ exp⟨g(x), z⟩
        e1: g(x) = Wᵀx + b     e2: g(x) = network(x / l)     e3: g(x) = Wᵀx / l + b

    f is affine (depth 0) or has one or two hidden layers of ReLUs, or of leaky ones. A tight posterior needs f to be
    affine *and* l A(f(z)) to be affine in z: with the uniform prior, linear layers alone do not make it a harmonium.

    Args:
        n_words: K.
        bits: m.
        encoder: one of :data:`ENCODERS`.
        depth: hidden layers of the decoder, 0, 1 or 2.
        width: units of each hidden layer.
        dtype: of products with all words during training, one by one or listed up to 8 bits; parameters are float32,
            evaluation always is, and so is what compiled loops do, see :mod:`efvae.text.compiled`.
        activation: of hidden layers, a key of :data:`ACTIVATIONS`.

    Raises:
        ValueError: an argument out of its range.

    Paper: eq-13, eq-14, sec-4-3
    """

    def __init__(
        self,
        n_words: int,
        bits: int,
        encoder: str = "e1",
        depth: int = 0,
        width: int = WIDTH,
        dtype: torch.dtype = torch.float32,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        for what, choice, choices in (("encoder", encoder, ENCODERS), ("activation", activation, ACTIVATIONS)):
            if choice not in choices:
                raise ValueError(f"{what} must be one of {', '.join(choices)}; got {choice!r}")
        for name, value, low in (("n_words", n_words, 2), ("bits", bits, 1), ("width", width, 1)):
            check_whole("TextVAE", name, value, low)
        if depth not in (0, 1, 2):
            raise ValueError(f"depth must be 0, 1 or 2 hidden layers; got {depth}")
        self.n_words, self.bits, self.encoder, self.depth, self.dtype = n_words, bits, encoder, depth, dtype
        deep = encoder == "e2"
        first, last = (width if deep else bits), (width if depth else bits)
        self.reader, self.reader_bias = _table(n_words, first, fan_in=n_words)
        unit = ACTIVATIONS[activation]
        self.code_net = nn.Sequential(unit(), mlp((width, width, bits), unit)) if deep else nn.Identity()
        self.hidden_net = nn.Sequential(mlp((bits, *[width] * depth), unit), unit()) if depth else nn.Identity()
        self.writer, self.writer_bias = _table(n_words, last, fan_in=last)
        # codes few enough to be listed share their log-partitions among all documents
        self.codes: Tensor | None
        self.register_buffer("codes", all_bits(bits).float() if bits <= LISTED_BITS else None, persistent=False)

    @torch.no_grad()
    def begin_by_he(self) -> None:
        """Draw all weights anew, from the global generator, by the law that keeps a signal's size through ReLUs.

        ::

            W ~ N(0, 2 / fan-in),   biases zero        (He, Zhang, Ren and Sun, 2015)

        The law of torch's linear layers, U(±1/√fan-in) for weights and biases, has a sixth of that variance.

        Paper: app-c2
        """
        for table, bias, fan_in in (
            (self.reader, self.reader_bias, self.n_words),
            (self.writer, self.writer_bias, self.writer.shape[1]),
        ):
            table.normal_(0, math.sqrt(2 / fan_in))
            bias.zero_()
        for layer in (*self.code_net.modules(), *self.hidden_net.modules()):
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def begin_at(self, x: WordCounts) -> None:
        """Set the decoder's last bias to the frequencies of the words, so that no code is needed for them.

        ::

            a_k = log(c_k + 1/K) + const,    c_k: count of word k in all documents

        Args:
            x: the training documents.

        Raises:
            ValueError: documents of another vocabulary.

        Own: own-not-the-optimum
        """
        self._refuse_another_vocabulary(x)
        totals = x.word_totals() + 1 / x.n_words
        self.writer_bias.copy_((totals / totals.sum()).log())

    def _refuse_another_vocabulary(self, x: WordCounts) -> None:
        if x.n_words != self.n_words:
            raise ValueError(f"TextVAE: the model has {self.n_words} words, the documents {x.n_words}")

    def posterior(self, batch: AnyBatch) -> Bernoulli:
        """q(z | x) of each document.

        Paper: eq-14
        """
        first = word_sums(self.reader, batch)
        if self.encoder != "e1":
            first = first / batch.length[:, None]
        with self._cast():
            logits: Tensor = self.code_net(first + self.reader_bias).float()
        return Bernoulli(logits)

    def costs(self, batch: AnyBatch, layer: FrozenLayer | None = None) -> Callable[[Tensor], Tensor]:
        """The function of codes, shape ``(s, documents, m)``, that gives their costs in nats, ``(s, documents)``.

        ::

            −log p(x | z) relative to the saturated multinomial

        Args:
            batch: the documents.
            layer: :meth:`frozen`, where no gradient is asked for and there are many batches.

        Paper: eq-13
        """

        def costs(z: Tensor) -> Tensor:
            if layer is not None:
                return layer.costs(self._hidden(z), batch)
            whose = isinstance(batch, Batch) and z.shape[1:] == (len(batch), self.bits)
            if not isinstance(batch, Batch) or not whose or self.codes is not None or z.requires_grad:
                return self._costs(z, batch)
            found = distinct(z) if z.device.type == "cpu" else None
            if found is None:
                return self._costs(z, batch)
            once = self._costs(found.codes[None], batch.repeated(found.document))[0]
            # indexing would add up its gradient in no fixed order
            return once.gather(0, found.place.flatten()).view_as(found.place)

        return costs

    def _costs(self, z: Tensor, batch: AnyBatch) -> Tensor:
        if self._table_pays(z[..., 0].numel()):
            place = self._place(z)
            # take would add up its gradient in no fixed order
            return self._affine_costs(batch, z, self._partition().gather(0, place.flatten()).view_as(place))
        if self.codes is None or not self._listing_pays(z[..., 0].numel()):
            found = self._bit_costs(z, batch)
            if found is not None:
                return found
            return code_costs(self._hidden(z), self.writer, self.writer_bias, batch, self._products)
        table = code_table(self._hidden(self.codes).float(), self.writer, self.writer_bias, batch, self._products)
        return table.gather(0, self._place(z))

    def lists(self, documents: Documents | DenseDocuments) -> bool:
        """Whether codes of these documents, one each, are looked up in a table of all codes.

        Own: own-listed-partition
        """
        return self.codes is not None or self._table_pays(documents.n_documents)

    def frozen(self, documents: Documents | DenseDocuments) -> FrozenLayer | None:
        """The last layer as it is now, for :meth:`costs` of these documents; None if other ways are cheaper.

        Own: own-fused-multinomial
        """
        tabulated = isinstance(documents, Documents) and self._tabulates()
        if tabulated or self.lists(documents):
            return None
        return FrozenLayer(self.writer, self.writer_bias, documents.smoothing)

    def nelbo(
        self, batch: AnyBatch, estimator: Estimator, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Negative ELBO and its KL term in nats, each of shape ``(documents,)``, relative to the saturated multinomial.

        The KL term has no gradient::

            E_q[−log p(x | z)] + Σ_k x_k log(x_k / l) + KL(q(z | x) ‖ uniform)

        Args:
            batch: the documents.
            estimator: of the expectation over q and its gradient.
            generator: source of randomness.

        Paper: eq-1a, tab-2
        """
        q = self.posterior(batch)
        if dense_bound.serves_estimator(estimator, q.eta):
            return dense_bound.pair_bound(q.eta, self.costs(batch), estimator, self._products, generator)
        kl = divergence(q.eta)
        if isinstance(estimator, Exact) and LISTED_BITS < self.bits <= exact_bits(self.depth):
            return self._affine_costs(batch, q.mean(), expected_partition(self._partition(), q.eta)) + kl, kl.detach()
        return estimator.expectation(q, self.costs(batch), generator) + kl, kl.detach()

    @torch.no_grad()
    def encode(self, x: WordCounts, chunk: int = 2048) -> Tensor:
        """Logits of q(z | x) in float32, shape ``(documents, m)``.

        Raises:
            ValueError: documents of another vocabulary.

        Paper: eq-14
        """
        self._refuse_another_vocabulary(x)
        documents = Documents(x, device=self.writer.device)
        training = self.training
        etas = [self.eval().posterior(batch).eta for batch in documents.batches(chunk)]
        self.train(training)
        return torch.cat(etas)

    @torch.no_grad()
    def silent(self, x: WordCounts, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Which hidden units of each layer are above zero for none of the documents.

        A ReLU that is silent gives nothing and learns nothing; a leaky one gives a hundredth, with a hundredth of the
        gradient, which Adam scales up again. The decoder sees one code of each document, drawn from q(z | x).

        Args:
            x: documents, on the model's device.
            generator: source of the codes.

        Returns:
            By layer, one truth value for each unit: ``encoder_1`` and ``encoder_2`` of e2, ``decoder_1`` and
            ``decoder_2`` as far as there are any.

        Raises:
            ValueError: documents of another vocabulary.

        Own: own-text-training
        """
        self._refuse_another_vocabulary(x)
        heard: dict[nn.Module, Tensor] = {}

        def listen(unit: nn.Module, _: Any, out: Tensor) -> None:
            here = (out > 0).flatten(0, -2).any(0)
            heard[unit] = heard.get(unit, torch.zeros_like(here)) | here

        kinds = tuple(ACTIVATIONS.values())
        nets = {"encoder": self.code_net, "decoder": self.hidden_net}
        layers = {
            f"{name}_{number}": unit
            for name, net in nets.items()
            for number, unit in enumerate((part for part in net.modules() if isinstance(part, kinds)), 1)
        }
        hooks = [unit.register_forward_hook(listen) for unit in layers.values()]
        training = self.training
        for batch in Documents(x, device=self.writer.device).batches(2048):
            self._hidden(self.eval().posterior(batch).sample((1,), generator))
        self.train(training)
        for hook in hooks:
            hook.remove()
        return {name: ~heard[unit] for name, unit in layers.items()}

    def silent_units(self, x: WordCounts, generator: torch.Generator | None = None) -> dict[str, float]:
        """Share of the hidden units of each layer that :meth:`silent` finds, with the same arguments and errors.

        Own: own-text-training
        """
        return {name: float(found.float().mean()) for name, found in self.silent(x, generator).items()}

    def decode(self, z: Tensor) -> Tensor:
        """Logits f(z) over words, shape ``(..., K)``; in float32 and with gradients.

        Paper: eq-13
        """
        hidden: Tensor = self.hidden_net(z.to(self.writer.dtype))
        return hidden @ self.writer.t() + self.writer_bias

    def _table_pays(self, n_codes: int) -> bool:
        """Whether the log-partitions of all codes cost less than those of some; up to 8 bits they are listed."""
        return self.bits > LISTED_BITS and n_codes > table_cost(self.bits, self.depth, self.writer.device)

    def _listing_pays(self, n_codes: int) -> bool:
        return self.codes is not None and len(self.codes) * _listing(self.writer.device) <= n_codes

    def _tabulates(self) -> bool:
        """Whether codes of sparse documents are done by tables of products of exponentials."""
        single = self.writer.dtype == torch.float32
        return not self.depth and single and compiled.available(self.writer.device)

    def by_tables(self, batch: AnyBatch, n_codes: int) -> bool:
        """Whether so many codes of these documents are done by tables of products of exponentials.

        Args:
            batch: the documents.
            n_codes: number of codes.

        Own: own-tabulated-products
        """
        other = self._listing_pays(n_codes) or self._table_pays(n_codes)
        return isinstance(batch, Batch) and self._tabulates() and not other

    def _bit_costs(self, z: Tensor, batch: AnyBatch) -> Tensor | None:
        if z.requires_grad or not (isinstance(batch, Batch) and self._tabulates()):
            return None
        return bit_costs.code_costs(z, self.writer, self.writer_bias, batch)

    def _partition(self) -> Tensor:
        return word_partition(self.writer, self.writer_bias)

    def _affine_costs(self, batch: AnyBatch, z: Tensor, partition: Tensor) -> Tensor:
        """Costs of an affine decoder where A, or its mean, is known; of mean bits z they are mean costs."""
        inner = (z * word_sums(self.writer, batch)).sum(-1) + word_sums(self.writer_bias[:, None], batch)[:, 0]
        return batch.length * partition - inner + batch.saturated

    def _place(self, z: Tensor) -> Tensor:
        """Where codes stand in counting order."""
        digits = 2 ** torch.arange(self.bits - 1, -1, -1, device=z.device)
        return (z.to(torch.int64) * digits).sum(-1)  # accelerators have no product of whole-number matrices

    @property
    def _products(self) -> torch.dtype:
        return self.dtype if self.training else torch.float32

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.writer.device.type, self._products, enabled=self._products != torch.float32)

    def _hidden(self, z: Tensor) -> Tensor:
        with self._cast():
            hidden: Tensor = self.hidden_net(z)
        return hidden if row_kernels.available(z.device) else hidden.float()


class _Divergence(Function):
    @staticmethod
    def forward(ctx: Any, eta: Tensor) -> Tensor:
        ctx.save_for_backward(eta)
        size = eta.abs()
        power = (-size).exp()
        entropy = power.log1p().addcmul_(size, power / (power + 1))
        kl: Tensor = eta.shape[-1] * math.log(2) - entropy.sum(-1)
        return kl

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (eta,) = ctx.saved_tensors
        rarer = torch.sigmoid(-eta.abs())
        result: Tensor = grad[..., None] * (eta * rarer * (1 - rarer))
        return result


def divergence(eta: Tensor) -> Tensor:
    """KL(q ‖ uniform) of bits in nats, ``m log 2 − H``.

    ::

        H = Σ_i log(1 + e^−|η_i|) + |η_i| σ(−|η_i|),   dKL / dη_i = η_i σ(η_i) σ(−η_i)

    Half of the operations of the entropy of :class:`~efvae.families.bernoulli.Bernoulli` and of its gradient.

    Args:
        eta: logits, shape ``(documents, m)``.

    Returns:
        Shape ``(documents,)``.

    Own: own-text-training
    """
    result: Tensor = _Divergence.apply(eta)  # type: ignore[no-untyped-call]
    return result


def _listing(device: torch.device) -> int:
    """How many drawn codes cost what one of a table of all codes does: in few launches a table does not pay."""
    return 8 if row_kernels.available(device) else 1


def _table(n_words: int, width: int, fan_in: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights with one row for each word and the bias of a linear layer, from the law that torch's Linear uses."""
    bound = fan_in**-0.5
    bias = width if fan_in == n_words else n_words
    return (
        nn.Parameter(torch.empty(n_words, width).uniform_(-bound, bound)),
        nn.Parameter(torch.empty(bias).uniform_(-bound, bound)),
    )
