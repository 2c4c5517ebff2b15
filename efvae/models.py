"""Conditional exponential families and the VAE they form. No loss inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from efvae.families import Categorical, ExponentialFamily
from efvae.families.bernoulli import require_bits

__all__ = ["VAE", "CategoricalOver", "Conditional", "MakeFamily", "Prior", "require_settled"]

#: Turns a network's output into a family, e.g. ``Bernoulli`` or ``Gaussian.from_mean_log_variance``.
MakeFamily = Callable[[Tensor], ExponentialFamily]


#: Layers to which the second axis is the channels'.
_ONE_BATCH_AXIS = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,  # instance normalisation too
    nn.GroupNorm,
)


class Conditional(nn.Module):
    """A conditional exponential family: a network that gives the parameters of a family.

    ::

        p(x | z) = h(x) exp(⟨ν(x), f(z)⟩ − A(f(z)))

    Estimators and oracles ask for many codes at once, with axes in front: ``network`` sees ``(samples, *batch,
    *event)``. Linear layers do not mind; those of convolution and normalisation take the second axis for channels.

    Args:
        network: maps the condition, shape ``(*batch, *event)``, to the input of ``family``.
        family: maps the network's output to a family; a module if it holds parameters of its own.
        event_axes: number of axes of one condition, 1 for a code. If given, ``network`` is called with the axes in
            front made one, ``(batch, *event)``.

    Raises:
        TypeError: ``network`` is no module.
        ValueError: ``network`` has layers of convolution or normalisation, and ``event_axes`` is not given.

    Paper: asm-1, eq-4a, eq-4b
    """

    def __init__(self, network: nn.Module, family: MakeFamily, *, event_axes: int | None = None) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"Conditional: network must be a torch.nn.Module, got {type(network).__name__}")
        self.network = network
        self.family = family
        self.event_axes = event_axes
        for layer in network.modules():
            if event_axes is None and isinstance(layer, _ONE_BATCH_AXIS):
                raise ValueError(
                    f"Conditional: {type(layer).__name__} takes one batch axis, estimators and oracles send several: "
                    "give event_axes=1, for conditions that are vectors; a network of images begins with nn.Unflatten"
                )

    def forward(self, condition: Tensor) -> ExponentialFamily:
        """The family given the condition, with batch shape ``(*batch)``.

        Raises:
            TypeError: ``family`` makes something else, such as a ``torch.distributions`` law.
        """
        made = self.family(self._natural(condition))
        if not isinstance(made, ExponentialFamily):
            raise TypeError(
                f"Conditional: family must make an efvae.families.ExponentialFamily, got {type(made).__name__}: "
                "take one of efvae.families, or write a subclass with its statistic, base measure and log-partition"
            )
        return made

    def _natural(self, condition: Tensor) -> Tensor:
        if self.event_axes is None:
            found: Tensor = self.network(condition)
            return found
        lead = condition.shape[: condition.ndim - self.event_axes]
        found = self.network(condition.reshape(-1, *condition.shape[len(lead) :]))
        return found.reshape(*lead, *found.shape[1:])

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, condition: Tensor) -> ExponentialFamily: ...  # noqa: D102


def require_settled(model: nn.Module) -> None:
    """Refuse layers that act on chance, or on the other examples of a batch, while a model is in training mode.

    Raises:
        ValueError: there is dropout or batch normalisation in training mode.
    """
    for layer in model.modules():
        if layer.training and isinstance(layer, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)):
            raise ValueError(
                f"{type(layer).__name__} is in training mode, where laws depend on chance or on the rest of the batch: "
                "call eval() first"
            )


class CategoricalOver(nn.Module):
    """Makes the categorical family over given states from logits: for an encoder or prior that knows no restriction.

    Args:
        states: shape ``(k, n)``, pairwise different.

    Raises:
        ValueError: a state is repeated.

    Paper: sec-4-1
    """

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        if len(states.unique(dim=0)) != len(states):
            raise ValueError(f"CategoricalOver: {len(states) - len(states.unique(dim=0))} of the states are repeated")
        self.states: Tensor
        self.register_buffer("states", states.clone())

    def forward(self, eta: Tensor) -> Categorical:
        """The family with logits ``eta`` of shape ``(*batch, k)``."""
        return Categorical(eta, self.states.to(eta.dtype))


class Prior(nn.Module):
    """A distribution p(z) without a condition.

    The paper fixes it in advance. A tight VAE's prior is the marginal of its harmonium
    (:meth:`efvae.harmonium.Harmonium.as_vae`), which in general is no member of a chosen simple family.

    Args:
        eta: natural parameters, shape ``(d,)``.
        family: maps ``eta`` to a family.
        learn: whether ``eta`` is a parameter or fixed.

    Raises:
        ValueError: ``eta`` has another number of axes.

    Paper: sec-2
    """

    def __init__(self, eta: Tensor, family: MakeFamily, *, learn: bool = False) -> None:
        super().__init__()
        if eta.ndim != 1:
            raise ValueError(f"Prior: eta must have the shape (d,) of one law, got {tuple(eta.shape)}")
        self.family = family
        self.eta: Tensor
        if learn:
            self.eta = nn.Parameter(eta.clone())
        else:
            self.register_buffer("eta", eta.clone())

    def forward(self) -> ExponentialFamily:
        """The distribution p(z)."""
        return self.family(self.eta)

    if TYPE_CHECKING:

        def __call__(self) -> ExponentialFamily: ...  # noqa: D102


def _family(name: str, made: object) -> ExponentialFamily:
    """What a module made, if it is a law."""
    if not isinstance(made, ExponentialFamily):
        raise TypeError(
            f"VAE: the {name} makes a {type(made).__name__}, no family: use Conditional(network, family), or "
            "Prior(eta, family)"
        )
    return made


class VAE(nn.Module):
    """Prior p(z), decoder p(x | z) and encoder q(z | x).

    Args:
        prior: distribution of z.
        decoder: p(x | z).
        encoder: q(z | x), with the same event shape as the prior.

    Raises:
        TypeError: a family or a function in the place of one of the three; where it is another module, when it is used.

    Paper: sec-2, asm-1
    """

    def __init__(self, prior: Prior, decoder: Conditional, encoder: Conditional) -> None:
        super().__init__()
        parts: dict[str, object] = {"prior": prior, "decoder": decoder, "encoder": encoder}
        for name, part in parts.items():
            if not isinstance(part, nn.Module):
                kind = "Prior(eta, family)" if name == "prior" else "Conditional(network, family)"
                raise TypeError(f"VAE: {name} must be a {kind}, got {type(part).__name__}")
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(z) + log p(x | z) in nats.

        Args:
            x: observations, shape ``(*batch, *event)``.
            z: latent values, shape ``(*sample, *batch, *event)``; the leading axes broadcast.

        Returns:
            Tensor of shape ``sample + batch``.
        """
        return _family("prior", self.prior()).log_prob(z) + self.log_likelihood(x, z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats.

        Args:
            x, z: see :meth:`log_joint`.

        Returns:
            Tensor of shape ``sample + batch``.

        Raises:
            ValueError: the decoder is over bits, and x has other values than 0 and 1. On an accelerator, which would
                have to be asked and waited for, they are taken as they are.
        """
        p = self.decode(z)
        require_bits(p, x, "x")
        return p.log_prob(x)

    def decode(self, z: Tensor) -> ExponentialFamily:
        """The distribution p(x | z), with the axes of z in front of a code as batch shape.

        Args:
            z: latent values, shape ``(*batch, *event)``.

        Raises:
            ValueError: the decoder gives another batch shape, which would broadcast with the data to wrong pairs.
        """
        made = _family("decoder", self.decoder(z))
        axes = z.shape[: z.ndim - len(self.prior().event_shape)]
        found = made.batch_shape
        if len(found) != len(axes) or any(a not in (1, b) for a, b in zip(axes, found, strict=True)):
            raise ValueError(
                f"the decoder makes laws of batch shape {tuple(found)} from codes of batch shape {tuple(axes)}: its "
                "network must keep the axes in front; Conditional's event_axes=1 does it for a network that takes one"
            )
        return made

    def encode(self, x: Tensor) -> ExponentialFamily:
        """The distribution q(z | x), with batch shape ``(*batch)``.

        Raises:
            ValueError: x has another dtype than the encoder's parameters; or q is over codes of another shape than the
                prior, or one is a density and the other counts.
        """
        own = next((p.dtype for p in self.encoder.parameters() if p.is_floating_point()), x.dtype)
        if x.dtype != own:
            raise ValueError(f"x is {x.dtype}, the encoder's parameters are {own}: give x.to({own})")
        q, prior = _family("encoder", self.encoder(x)), _family("prior", self.prior())
        if q.event_shape != prior.event_shape:
            raise ValueError(
                f"the encoder's codes have shape {tuple(q.event_shape)}, the prior's {tuple(prior.event_shape)}: "
                "change the output width of the encoder's network, or the prior"
            )
        if None not in (q.discrete, prior.discrete) and q.discrete != prior.discrete:
            kinds = {True: "probabilities", False: "densities"}
            raise ValueError(
                f"the encoder's codes have {kinds[bool(q.discrete)]}, the prior's {kinds[bool(prior.discrete)]} "
                f"({type(q).__name__} and {type(prior).__name__}): take two families over the same codes"
            )
        return q

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n draws (x, z) from the model, each of shape ``(n, *event)``; no gradient."""
        with torch.no_grad():
            z = self.prior().sample((n,), generator)
            return self.decoder(z).sample((), generator), z
