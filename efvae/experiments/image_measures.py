"""What is measured on a VAE that started from the truth: ELBO, distance, active latents, how linear the decoder is.

Samples are fresh: their seeds are streams of :func:`efvae.experiments.image_store.measuring`, which no training with
seeds below 2**30 draws from.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.devices import current as device
from efvae.experiments.image_store import measuring
from efvae.experiments.image_truth import Truth
from efvae.image_vae import ImageVAE
from efvae.metrics.frechet import Moments, distance, moments

__all__ = [
    "Comparison",
    "affine_share",
    "elbo_on_fresh_samples",
    "flat",
    "latents_in_use",
    "settled",
    "support_of_encoder",
]

#: A latent dimension is active if its posterior mean varies by more than this over x (prior variance: 1).
ACTIVE = 0.01
RESAMPLES = 3
_BATCH = 256


def elbo_on_fresh_samples(vae: ImageVAE, truth: Truth, n: int, seed: int) -> dict[str, float]:
    """ELBO under p* with its standard error, and its parts; one draw of z for each of n fresh samples.

    ::

        elbo = E_p* [ E_q log p(x | z) − KL(q ‖ p) ],   elbo_error = standard deviation/√n

    Args:
        vae: to judge.
        truth: to sample from.
        n: number of samples.
        seed: of samples and draws.

    Paper: tab-1, eq-1a
    """
    source = measuring(seed)
    elbos, kls = [], []
    with torch.no_grad():
        for x in truth.batches(n, source, _BATCH):
            noise = torch.randn(len(x), vae.latent, generator=source, device=x.device)
            q = vae.posterior(x)
            kls.append(q.kl_terms().sum(-1).double())
            elbos.append(vae.log_likelihood(x, q.draw(noise)).double() - kls[-1])
    elbo, kl = torch.cat(elbos), torch.cat(kls)
    return {
        "elbo": float(elbo.mean()),
        "elbo_error": float(elbo.std() / math.sqrt(n)),
        "kl": float(kl.mean()),
        "reconstruction": float((elbo + kl).mean()),
    }


def conditional_log_likelihood(vae: ImageVAE, truth: Truth, n: int, seed: int) -> float:
    """E_p*(x,z) log q(z | x) in nats, over n fresh pairs.

    Paper: sec-4-2
    """
    source, total = measuring(seed), 0.0
    with torch.no_grad():
        for start in range(0, n, _BATCH):
            z = truth.latents(min(_BATCH, n - start), source)
            total += float(vae.posterior(truth.images(z, source)).log_prob(z).double().sum())
    return total / n


def latents_in_use(vae: ImageVAE, truth: Truth, n: int, seed: int) -> dict[str, float]:
    """Number of latent dimensions that tell something of x.

    ::

        active if Var_x E_q[z_i] > 0.01

    Args:
        vae: its encoder is looked at.
        truth: to sample x from.
        n: number of samples.
        seed: of the samples.

    Own: own-active-latents
    """
    means = Moments.empty(vae.latent, device())
    with torch.no_grad():
        for x in truth.batches(n, measuring(seed), _BATCH):
            means.add(vae.posterior(x).mean)
    variance = means.covariance.diagonal()
    return {"active_latents": float((variance > ACTIVE).sum()), "posterior_mean_variance": float(variance.mean())}


def support_of_encoder(vae: ImageVAE, truth: Truth, n: int, seed: int) -> Tensor:
    """Draws z ~ E_p*(x) q(z | x), the latents that the decoder is trained on; shape ``(n, n_z)``.

    Own: own-affine-share
    """
    source = measuring(seed)

    def draw(x: Tensor) -> Tensor:
        return vae.posterior(x).draw(torch.randn(len(x), vae.latent, generator=source, device=x.device))

    with torch.no_grad():
        return torch.cat([draw(x) for x in truth.batches(n, source, _BATCH)])


def affine_share(decoder: Callable[[Tensor], Tensor], z: Tensor) -> float:
    """Share of the variance of d(z) that the best affine function of z explains.

    ::

        1 − Σ |d(z) − A z − b|² / Σ |d(z) − mean d|²

    A and b are fitted by least squares on the first three quarters, the share is taken on the rest. Section 3.1 says
    what a tight Gaussian VAE is: a jointly Gaussian one, whose decoder is affine and has the share 1.

    Args:
        decoder: d.
        z: latents, shape ``(n, n_z)``; n well above n_z.

    Raises:
        ValueError: fewer than 2 n_z latents.

    Own: own-affine-share
    """
    if len(z) < 2 * z.shape[1]:
        raise ValueError(f"affine_share: needs at least {2 * z.shape[1]} latents for a fit, got {len(z)}")
    with torch.no_grad():
        y = torch.cat([decoder(part).flatten(1) for part in z.split(_BATCH)]).double()
    design = torch.cat([torch.ones_like(z[:, :1]), z], 1).double()
    fitted = 3 * len(z) // 4
    gram = design[:fitted].T @ design[:fitted]
    coefficients = torch.linalg.lstsq(gram.cpu(), (design[:fitted].T @ y[:fitted]).cpu(), driver="gelsd").solution
    rest = (y[fitted:] - design[fitted:] @ coefficients.to(y.device)).square().sum()
    return float(1 - rest / (y[fitted:] - y[:fitted].mean(0)).square().sum())


@dataclass(frozen=True)
class Comparison:
    """Fréchet distance of a model's samples to samples of p*.

    Args:
        truth: p*.
        features: of the distance.
        reference, clean: moments of samples of p* with and without pixel noise.
        n: images of a sample.

    Paper: tab-1
    """

    truth: Truth
    features: Callable[[Tensor], Tensor]
    reference: Moments
    clean: Moments
    n: int

    @classmethod
    def with_truth(cls, truth: Truth, features: Callable[[Tensor], Tensor], n: int) -> Comparison:
        """With reference samples of its own."""
        bare = Truth(truth.decoder, truth.latent, 0.0)
        return cls(truth, features, moments(truth.batches(n, measuring(11)), features),
                   moments(bare.batches(n, measuring(12)), features), n)  # fmt: skip

    def samples(self, vae: ImageVAE, seed: int, n: int, *, noise: bool = True) -> Iterator[Tensor]:
        """Draws x ~ p_θ(x), or the means d(z) of the decoder."""
        return Truth(vae.decoder, vae.latent, vae.sigma if noise else 0.0).batches(n, measuring(seed), _BATCH)

    def quick(self, vae: ImageVAE, n: int) -> float:
        """One distance from n images, for a curve."""
        return distance(moments(self.samples(vae, 13, n), self.features), self.reference)

    def measure(self, vae: ImageVAE) -> dict[str, float]:
        """Mean and spread over resamples; the distance without pixel noise, and the one that the noise alone makes.

        The last is that of the truth's own decoder with the σ_d of the VAE. Of a VAE with the truth's decoder and noise
        all compare two samples of p*: the zero of the scale.

        Paper: tab-1
        """
        ours = [distance(moments(self.samples(vae, 20 + k, self.n), self.features), self.reference)
                for k in range(RESAMPLES)]  # fmt: skip
        bare = distance(moments(self.samples(vae, 60, self.n, noise=False), self.features), self.clean)
        noisy = Truth(self.truth.decoder, self.truth.latent, vae.sigma)
        return {
            "frechet": statistics.fmean(ours),
            "frechet_spread": statistics.stdev(ours),
            "frechet_without_noise": bare,
            "frechet_of_noise": distance(moments(noisy.batches(self.n, measuring(70), _BATCH), self.features),
                                         self.reference),
        }  # fmt: skip


def flat(values: list[float], start: int = 0) -> tuple[bool, float]:
    """Whether a curve has become flat: its last fifth changes it by less than 1 % of the total gain.

    ::

        change = mean of the last tenth − mean of the tenth before the last fifth,   |change| < 0.01 · |end − start|

    Args:
        values: at equal distances, the start first.
        start: place of the value that the gain counts from.

    Returns:
        Whether, and the change.

    Own: own-images
    """
    window = max(1, len(values) // 10)
    end = statistics.fmean(values[-window:])
    four_fifths = max(window, len(values) - len(values) // 5)
    change = end - statistics.fmean(values[four_fifths - window : four_fifths])
    return abs(change) < 0.01 * abs(end - values[start]), change


def settled(elbo: list[float]) -> dict[str, float]:
    """Whether the ELBO has become flat, by the whole gain and by the gain after the first tenth of the steps.

    An encoder that is far from what the ELBO wants makes nearly all of the gain in its first steps, and one percent of
    that is much; the second rule leaves those steps out.

    Args:
        elbo: at equal distances, the start first.

    Own: own-images
    """
    tenth = (len(elbo) - 1) // 10
    (of_all, change), (of_late, _) = flat(elbo), flat(elbo, tenth)
    end = statistics.fmean(elbo[-max(1, len(elbo) // 10) :])
    return {
        "converged": float(of_all),
        "last_fifth_change": change,
        "gain": end - elbo[0],
        "gain_after_tenth": end - elbo[tenth],
        "converged_after_tenth": float(of_late),
    }
