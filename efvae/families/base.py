"""The exponential family: a few definitions per family, all laws derived once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["MAX_STATES", "ExponentialFamily", "agree", "check_state_count", "draw_states", "fits", "refuted", "uniform"]

#: Largest support that is enumerated; 2**20 states of a few float64 numbers each still fit a small machine.
MAX_STATES = 2**20


class ExponentialFamily(ABC):
    """A batch of distributions in natural parameters.

    ::

        log p(x; η) = log h(x) + ⟨ν(x), η⟩ − A(η),      A(η) = log Σ_x h(x) exp⟨ν(x), η⟩   (or ∫ dx)

    A subclass gives ν (:meth:`sufficient_statistic`), h (:meth:`log_base_measure`), A (:meth:`log_partition`),
    :meth:`sample`, :attr:`event_shape` and :meth:`with_eta`; for entropies :meth:`expected_log_base_measure`, for sums
    over all values :meth:`support`, and without one whether it is :attr:`discrete`, which the oracles have to know.
    Everything else follows and is written here, with live gradients in both arguments. A sample has shape
    ``sample + batch + event``.

    Args:
        eta: natural parameters η, shape ``(*batch, d)``, floating point.

    Raises:
        ValueError: ``eta`` is not a floating-point tensor with at least one dimension.

    Paper: asm-1, eq-4a, eq-4b
    """

    #: True if p(x) is a probability, False if it is a density (a ratio of the two has no meaning), None if unknown.
    #: A class that gives a support is discrete without saying so; one that passes on another's has to say it.
    discrete: ClassVar[bool | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.discrete is None and cls.support is not ExponentialFamily.support:
            cls.discrete = True

    def __init__(self, eta: Tensor) -> None:
        if not eta.is_floating_point() or eta.ndim < 1:
            raise ValueError(
                f"{type(self).__name__}: eta must be a floating-point tensor of shape (*batch, d), "
                f"got {eta.dtype} of shape {tuple(eta.shape)}"
            )
        self.eta = eta

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of distributions."""
        return self.eta.shape[:-1]

    @property
    @abstractmethod
    def event_shape(self) -> torch.Size:
        """Shape of one value x."""

    @abstractmethod
    def sufficient_statistic(self, x: Tensor) -> Tensor:
        """ν(x), shape ``(..., d)`` for x of shape ``(..., *event)``."""

    @abstractmethod
    def log_base_measure(self, x: Tensor) -> Tensor:
        """log h(x) in nats, shape ``(...)`` for x of shape ``(..., *event)``."""

    @abstractmethod
    def log_partition(self) -> Tensor:
        """A(η) in nats, shape ``batch``."""

    @abstractmethod
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Independent draws, shape ``sample + batch + event``; no gradient."""

    @abstractmethod
    def with_eta(self, eta: Tensor) -> ExponentialFamily:
        """The same family (same base measure) at other natural parameters."""

    def expected_log_base_measure(self) -> Tensor:
        """E log h(x) in nats, shape ``batch``; for h = 1 zeros, which a family has to say: no draws can show it.

        Raises:
            ValueError: the family does not give it.
        """
        raise ValueError(
            f"{type(self).__name__} must give expected_log_base_measure, E log h(x), for its entropy: "
            "torch.zeros_like(self.eta[..., 0]) if h = 1"
        )

    def support(self) -> Tensor:
        """All values x of a finite family, shape ``(n_states, *event)``.

        Raises:
            ValueError: the support is infinite or larger than :data:`~efvae.families.base.MAX_STATES`.
        """
        raise ValueError(f"{type(self).__name__} has no finite support to enumerate: use quadrature or samples")

    def same_base_measure(self, other: ExponentialFamily) -> bool:
        """Whether ``other`` belongs to the same family (same ν and h), so that KL is the Bregman divergence.

        Here: one class, one event shape, and attributes that agree but for η, such as a number of trials. So what is
        derived from η is to be a property. Two tensors with equal values are not the same where one has a gradient,
        which the divergence within one family would lose.
        """
        if type(self) is not type(other) or self.event_shape != other.event_shape:
            return False
        mine, theirs = ({name: v for name, v in vars(q).items() if name != "eta"} for q in (self, other))
        return mine.keys() == theirs.keys() and all(agree(mine[name], theirs[name]) for name in mine)

    # -- laws ------------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x; η) in nats, shape ``sample + batch``.

        ::

            log h(x) + ⟨ν(x), η⟩ − A(η)

        Args:
            x: values, broadcastable to ``sample + batch + event``.

        Raises:
            ValueError: the values have another event shape.
        """
        self._refuse_another_event(x)
        # a sum of products would hold them all: codes × observations × components
        statistic = self.sufficient_statistic(x)
        dtype = torch.promote_types(statistic.dtype, self.eta.dtype)
        inner = torch.einsum("...d,...d->...", statistic.to(dtype), self.eta.to(dtype))
        return self.log_base_measure(x) + inner - self.log_partition()

    def _refuse_another_event(self, x: Tensor) -> None:
        """Values of another shape would broadcast, and what comes out would look like a log-probability."""
        n = len(self.event_shape)
        if x.shape[x.ndim - n :] != self.event_shape:
            raise ValueError(
                f"{type(self).__name__}: values must end in the shape {tuple(self.event_shape)}, got {tuple(x.shape)}: "
                "flatten the data, take the points of this prior, or give the last layer of the network one output for "
                "each natural parameter"
            )

    def mean(self) -> Tensor:
        """Mean parameter E ν(x) = ∇A(η), shape ``(*batch, d)``.

        Computed as the gradient of the log-partition. A family may override it with the closed form for speed;
        the tests compare the two.
        """
        with torch.enable_grad():
            eta = self.eta if self.eta.requires_grad else self.eta.detach().requires_grad_()
            (mean,) = torch.autograd.grad(self.with_eta(eta).log_partition().sum(), eta, create_graph=True)
        return mean if self.eta.requires_grad and torch.is_grad_enabled() else mean.detach()

    def kl(self, other: ExponentialFamily) -> Tensor:
        """KL(self ‖ other) in nats, shape ``batch``.

        ::

            A(η') − A(η) − ⟨η' − η, ∇A(η)⟩

        Args:
            other: a member of the same family (same ν and h), batch broadcastable.

        Raises:
            ValueError: ``other`` is of another family or has another base measure.
        """
        self._refuse_another_family(other)
        inner = ((other.eta - self.eta) * self.mean()).sum(-1)
        return other.log_partition() - self.log_partition() - inner

    def _refuse_another_family(self, other: ExponentialFamily) -> None:
        if not self.same_base_measure(other):
            raise ValueError(
                f"KL in closed form needs two members of one family with one base measure, got {self!r} and {other!r}"
            )

    def entropy(self) -> Tensor:
        """Entropy −E log p(x; η) in nats (differential where x is continuous), shape ``batch``.

        ::

            A(η) − ⟨η, ∇A(η)⟩ − E log h(x)
        """
        return self.log_partition() - (self.eta * self.mean()).sum(-1) - self.expected_log_base_measure()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch={tuple(self.batch_shape)}, event={tuple(self.event_shape)})"


def fits(shape: torch.Size, batch: torch.Size) -> bool:
    """Whether a setting of some shape is one for all laws of a batch, or one for each."""
    try:
        return bool(torch.broadcast_shapes(shape, batch) == batch)
    except RuntimeError:
        return False


def refuted(values: Tensor, condition: Callable[[Tensor], Tensor]) -> bool:
    """Whether values do not meet a condition, if they can be looked at for nothing.

    On an accelerator they would be waited for, while a program is compiled and under ``torch.vmap`` there are none.

    Args:
        values: any.
        condition: of them, a scalar.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    with torch.no_grad():
        met = condition(values)
    try:
        return not bool(met)
    except RuntimeError:  # vmap's
        return False


def agree(one: object, other: object) -> bool:
    """Whether two settings of a family are the same, see :meth:`ExponentialFamily.same_base_measure`."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        live = one.requires_grad or other.requires_grad
        return not live and one.shape == other.shape and torch.equal(one, other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def uniform(eta: Tensor, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
    """Uniform variables in [0, 1) to draw bits with, shape ``sample + eta.shape``, in single precision at least.

    In bfloat16 they would have 8 bits, and a probability below 1/256 would become 0 or 1/256.

    Args:
        eta: tensor whose shape and device are taken, and its dtype if that is float32 or wider.
        sample_shape: shape in front of it.
        generator: source of randomness; the global one if None.
    """
    dtype = torch.promote_types(eta.dtype, torch.float32)
    # torch.rand draws the same numbers, but does not compile with a generator argument and a shape that varies
    empty = torch.empty((*sample_shape, *eta.shape), dtype=dtype, device=eta.device)
    return empty.uniform_(generator=generator)


def draw_states(probs: Tensor, sample_shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Indices drawn by the rows of ``probs``, shape ``(draws, rows)``; no draws at all are allowed."""
    n = int(torch.Size(sample_shape).numel())
    if not n:
        return torch.zeros(0, len(probs), dtype=torch.long, device=probs.device)
    return torch.multinomial(probs, n, replacement=True, generator=generator).T


def check_state_count(count: int, what: str) -> None:
    """Refuse an enumeration that cannot fit.

    Raises:
        ValueError: ``count`` exceeds :data:`~efvae.families.base.MAX_STATES`.
    """
    if count > MAX_STATES:
        many = str(count) if count < 10**9 else f"about 10^{int(math.log10(count))}"
        raise ValueError(f"{what} has {many} states, enumeration stops at {MAX_STATES}: use fewer bits or samples")
