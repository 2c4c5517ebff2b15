"""Random VAEs on small finite spaces, at a chosen distance from consistency."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from efvae.exact import Rule, enumerate_states
from efvae.families import Bernoulli, Categorical, Multinomial
from efvae.harmonium import Harmonium
from efvae.models import VAE, CategoricalOver, Conditional, MakeFamily, Prior

__all__ = ["FAMILY_PAIRS", "random_vae"]

#: Families of x and z by name, as functions of the two sizes n and m.
FAMILY_PAIRS: dict[str, Callable[[], tuple[MakeFamily, MakeFamily]]] = {
    "bernoulli-bernoulli": lambda: (Bernoulli, Bernoulli),
    "bernoulli-categorical": lambda: (Bernoulli, Categorical),
    "multinomial-bernoulli": lambda: (partial(Multinomial, total=3), Bernoulli),
    "categorical-bernoulli": lambda: (Categorical, Bernoulli),
    "multinomial-categorical": lambda: (partial(Multinomial, total=2), Categorical),
}


class _Bent(nn.Module):
    """An affine map of the statistic plus ``bend`` times a random network with one hidden layer of tanh units."""

    def __init__(self, affine: nn.Module, sizes: tuple[int, int], bend: float, generator: torch.Generator) -> None:
        super().__init__()
        self.affine, self.bend = affine, bend
        n_in, n_out = sizes
        self.into = nn.Parameter(torch.randn(n_in, 8, dtype=torch.float64, generator=generator) * 2)
        self.shift = nn.Parameter(torch.randn(8, dtype=torch.float64, generator=generator))
        self.out = nn.Parameter(torch.randn(8, n_out, dtype=torch.float64, generator=generator) / 8**0.5)

    def forward(self, value: Tensor) -> Tensor:
        bent: Tensor = self.affine(value) + self.bend * torch.tanh(value @ self.into + self.shift) @ self.out
        return bent


def random_vae(
    families: str, n: int, m: int, bend: float, generator: torch.Generator, *, scale: float = 1.0, skew: float = 1.0
) -> tuple[VAE, Tensor, Tensor, Rule]:
    """A random harmonium as a VAE, with decoder, encoder and prior bent away from it.

    Args:
        families: a key of :data:`~efvae.bounds.draws.FAMILY_PAIRS`.
        n: number of natural parameters of the decoder's family.
        m: likewise of the encoder's.
        bend: size of the change; 0 leaves the VAE tight, 1 and more leaves nothing of the harmonium.
        generator: source of randomness.
        scale: standard deviation of W, u and v.
        skew: standard deviation of log p_d before it is normalised.

    Returns:
        The VAE in float64, all observations, a random data distribution p_d over them, all latent states.

    Paper: thm-2
    """
    visible, latent = FAMILY_PAIRS[families]()
    draw = partial(torch.randn, dtype=torch.float64, generator=generator)
    u, v = scale * draw(n), scale * draw(m)
    harmonium = Harmonium(visible, latent, scale * draw(n, m), u, v)
    tight = harmonium.as_vae()
    rule = enumerate_states(latent(v))
    x = visible(u).support()
    prior = tight.prior().eta
    vae = VAE(
        Prior(prior + bend * draw(len(prior)), CategoricalOver(rule.points)),
        Conditional(_Bent(tight.decoder.network, (m, n), bend, generator), visible),
        Conditional(_Bent(tight.encoder.network, (n, m), bend, generator), latent),
    )
    return vae, x, torch.softmax(skew * draw(len(x)), 0), rule
