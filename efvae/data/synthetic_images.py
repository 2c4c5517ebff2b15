"""Images made on the spot: shaded ellipses, with the factors that they were drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.data.images import Images

__all__ = ["CLASSES", "Ellipses", "draw_ellipses", "ellipse_images"]

#: Two colours by two shapes.
CLASSES = ("red round", "red long", "blue round", "blue long")


@dataclass(frozen=True)
class Ellipses:
    """Images with their factors.

    Args:
        images: uint8, shape ``(n, 3, size, size)``.
        label: which of :data:`CLASSES`, shape ``(n,)``.
        factors: centre (x, y in [−1, 1]), half axes, angle in radians, direction of the light in radians, brightness;
            shape ``(n, 7)``.

    Own: own-images
    """

    images: Tensor
    label: Tensor
    factors: Tensor


def draw_ellipses(n: int, size: int = 32, seed: int = 0) -> Ellipses:
    """n ellipses on white, lit from one side, with soft outlines.

    ::

        u = R(angle) (pixel − centre) / axes,   inside = sigmoid((1 − |u|)/softness)
        shade = brightness · (0.65 + 0.35 ⟨u, light⟩),   image = 1 − inside · (1 − shade · colour)

    Args:
        n: number of images, ≥ 1.
        size: pixels a side, ≥ 8.
        seed: of the factors.

    Raises:
        ValueError: a value out of its range.

    Own: own-images
    """
    if n < 1 or size < 8:
        raise ValueError(f"draw_ellipses: needs n >= 1 and size >= 8; got n={n}, size={size}")
    source = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 6, generator=source)
    label = torch.randint(len(CLASSES), (n,), generator=source)
    long = (label % 2 == 1).float()
    axis = 0.45 + 0.2 * u[:, 2]
    factors = torch.stack(
        [0.3 * (2 * u[:, 0] - 1), 0.3 * (2 * u[:, 1] - 1), axis, axis * (0.95 - 0.45 * long),
         math.pi * u[:, 3], 2 * math.pi * u[:, 4], 0.75 + 0.25 * u[:, 5]], 1)  # fmt: skip
    x, y, a, b, angle, light, brightness = (part.view(n, 1, 1) for part in factors.T)
    side = torch.linspace(-1, 1, size)
    across, down = side.view(1, 1, size) - x, side.view(1, size, 1) - y
    first = (angle.cos() * across + angle.sin() * down) / a
    second = (-angle.sin() * across + angle.cos() * down) / b
    inside = torch.sigmoid((1 - (first.square() + second.square()).sqrt()) * size / 4)
    shade = brightness * (0.65 + 0.35 * (light.cos() * first + light.sin() * second))
    colours = torch.tensor([[0.9, 0.25, 0.15], [0.2, 0.3, 0.9]])
    colour = colours[label // 2].view(n, 3, 1, 1)
    image = 1 - inside.unsqueeze(1) * (1 - (shade.unsqueeze(1) * colour).clamp(0, 1))
    return Ellipses((255 * image).round().to(torch.uint8), label, factors)


def ellipse_images(n: int = 4096, size: int = 32, seed: int = 0) -> Images:
    """Ellipses in two parts, a quarter held out, in the form of the photographs.

    Args:
        n: number of images, ≥ 4.
        size: pixels a side.
        seed: of the factors.

    Raises:
        ValueError: a value out of its range.

    Own: own-images
    """
    if n < 4:
        raise ValueError(f"ellipse_images: needs at least 4 images to split; got {n}")
    drawn, held = draw_ellipses(n, size, seed), n // 4
    labels = (drawn.label[held:], drawn.label[:held])
    return Images.of(drawn.images[held:], drawn.images[:held], labels, CLASSES)
