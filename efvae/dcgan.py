"""The convolutional networks of the DCGAN tutorial, for any width and for images of 16, 32 or 64 pixels a side.

A truth must not depend on what else is in a batch: :func:`settle` measures the batch normalisation once and folds it
into the convolutions, which leaves the family of functions as it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

__all__ = ["SIZES", "discriminator", "encoder", "folded", "generator", "settle"]

#: Pixels a side that the networks are made for.
SIZES = (16, 32, 64)


def _doublings(size: int) -> int:
    if size not in SIZES:
        raise ValueError(f"image size must be one of {', '.join(map(str, SIZES))} pixels; got {size}")
    return int(math.log2(size)) - 2


def _check(**widths: int) -> None:
    for name, value in widths.items():
        if value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {value}")


def generator(latent: int = 100, width: int = 64, size: int = 64) -> nn.Sequential:
    """Network d: latent vectors, shape ``(b, latent)``, to images in [−1, 1], shape ``(b, 3, size, size)``.

    ::

        z → 4 × 4, then doubled to the image size; ReLU, batch normalisation; tanh
        at 64 pixels 8, 4, 2, 1 × width channels

    Args:
        latent: n_z.
        width: channels before the last layer, ngf of the tutorial.
        size: pixels a side, see :data:`SIZES`.

    Raises:
        ValueError: another size, or a width below 1.

    Paper: sec-4-2
    """
    _check(latent=latent, width=width)
    channels = [width << power for power in reversed(range(_doublings(size)))]
    layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1))]
    for index, (before, after) in enumerate(zip([latent, *channels], [*channels, 3], strict=True)):
        stride, padding = (2, 1) if index else (1, 0)
        layers.append(nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if index < len(channels) else [nn.Tanh()]
    return _initialised(nn.Sequential(*layers))


def discriminator(width: int = 64, size: int = 64) -> nn.Sequential:
    """Network that tells photographs from generated images: shape ``(b, 3, size, size)`` to logits, shape ``(b, 1)``.

    Args:
        width: channels after the first layer, ndf of the tutorial.
        size: pixels a side, see :data:`SIZES`.

    Raises:
        ValueError: another size, or a width below 1.

    Paper: sec-4-2
    """
    return encoder(1, width, size)


def encoder(outputs: int, width: int = 64, size: int = 64) -> nn.Sequential:
    """The discriminator with another output layer: shape ``(b, 3, size, size)`` to ``(b, outputs)``.

    Args:
        outputs: 2 n_z for the two moments of a Gaussian with independent coordinates.
        width: channels after the first layer.
        size: pixels a side, see :data:`SIZES`.

    Raises:
        ValueError: another size, or a width below 1.

    Paper: sec-4-2
    """
    _check(outputs=outputs, width=width)
    channels = [width << power for power in range(_doublings(size))]
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip([3, *channels], [*channels, outputs], strict=True)):
        last = index == len(channels)
        # the bias of the last layer is ours: means and log-variances are not centred at 0 as a logit may be
        layers.append(_Whole(before, after, 4) if last else nn.Conv2d(before, after, 4, 2, 1, bias=False))
        if not last:
            layers += [nn.BatchNorm2d(after)] if index else []
            layers.append(nn.LeakyReLU(0.2))
    return _initialised(nn.Sequential(*layers, nn.Flatten()))


class _Whole(nn.Conv2d):
    """A convolution whose kernel covers all of its input: a product of matrices, and computed as one.

    Its gradient as a convolution takes several times as long on a CPU where there are thousands of outputs.
    """

    def forward(self, x: Tensor) -> Tensor:
        # colour last, as images and weights lie in memory: no copies
        rows, weights = (part.permute(0, 2, 3, 1).flatten(1) for part in (x, self.weight))
        return nnf.linear(rows, weights, self.bias)[:, :, None, None]


def _initialised(network: nn.Sequential) -> nn.Sequential:
    """First weights of the tutorial: N(0, 0.02²), and N(1, 0.02²) for the scales of batch normalisation."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network


def settle(network: nn.Sequential, batches: Iterable[Tensor]) -> nn.Sequential:
    """A copy whose batch normalisation is fixed at the statistics of the given batches, and folded away.

    Running averages of training mix weights of different steps; here each layer has the plain average over ``batches``.

    Args:
        network: of this module; not changed.
        batches: inputs.

    Paper: sec-4-2
    """
    measured = copy.deepcopy(network).train()
    for module in measured.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # cumulative average
    with torch.no_grad():
        for batch in batches:
            measured(batch)
    return folded(measured)


def folded(network: nn.Sequential) -> nn.Sequential:
    """A copy in which each batch normalisation is part of the convolution before it, as it acts when evaluated.

    ::

        γ (w ∗ x − m)/√(v + ε) + β  =  (γ w/√(v + ε)) ∗ x + (β − γ m/√(v + ε))

    Args:
        network: of this module; not changed.

    Paper: sec-4-2
    """
    layers: list[nn.Module] = []
    for module in copy.deepcopy(network).eval():
        if not isinstance(module, nn.BatchNorm2d):
            layers.append(_with_bias(module))
            continue
        before, mean, variance = layers[-1], module.running_mean, module.running_var
        assert isinstance(before, (nn.Conv2d, nn.ConvTranspose2d))  # noqa: S101 - how this module builds them
        assert mean is not None  # noqa: S101
        assert variance is not None  # noqa: S101
        assert before.bias is not None  # noqa: S101
        scale = module.weight.detach() / (variance + module.eps).sqrt()
        shape = (1, -1, 1, 1) if isinstance(before, nn.ConvTranspose2d) else (-1, 1, 1, 1)
        with torch.no_grad():
            before.weight.mul_(scale.view(shape))
            before.bias.copy_(module.bias + (before.bias - mean) * scale)
    return nn.Sequential(*layers)


def _with_bias(module: nn.Module) -> nn.Module:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is None:
        module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))
    return module
