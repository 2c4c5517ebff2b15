"""The pictures of Fig. 3 and Fig. 4 as rows of images, stored as small PNG files beside the records."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from efvae import places
from efvae.devices import current as device
from efvae.experiments.image_truth import Truth
from efvae.image_vae import ImageVAE
from efvae.records import write_atomically

__all__ = ["drawn", "picture_path", "read_picture", "reconstructions", "write_picture"]

COLUMNS = 10
SEED = 7


def drawn(decoder: torch.nn.Module, latent: int, sigma: float, columns: int = COLUMNS) -> Tensor:
    """One row of Fig. 4: x = d(z) + σ_d ε for latents and noise that are the same for every model.

    Args:
        decoder: d.
        latent: n_z.
        sigma: σ_d.
        columns: number of images.

    Returns:
        Shape ``(1, columns, 3, size, size)``, in [−1, 1] but for the noise.

    Paper: fig-4
    """
    source = torch.Generator(device()).manual_seed(SEED)
    model = Truth(decoder, latent, sigma)
    return model.images(model.latents(columns, source), source).unsqueeze(0)


def reconstructions(vae: ImageVAE, truth: Truth, columns: int = COLUMNS) -> Tensor:
    """The rows of Fig. 3.

    ::

        x ~ p*;   x ~ p*(x | z = μ(x));   x ~ p*(x | z),  z ~ q(z | x)

    Args:
        vae: the truth's decoder with an encoder.
        truth: p*.
        columns: number of images.

    Returns:
        Shape ``(3, columns, 3, size, size)``.

    Paper: fig-3
    """
    source = torch.Generator(device()).manual_seed(SEED)
    x = truth.images(truth.latents(columns, source), source)
    with torch.no_grad():
        q = vae.posterior(x)
        z = q.draw(torch.randn(q.mean.shape, generator=source, device=x.device))
    return torch.stack([x, truth.images(q.mean, source), truth.images(z, source)])


def picture_path(folder: Path, cell: str) -> Path:
    """File of the picture that belongs to a record."""
    return folder / f"{cell}.png"


def write_picture(path: Path, rows: Tensor) -> None:
    """Store rows of images as one PNG, in one step.

    Args:
        path: where.
        rows: shape ``(rows, columns, 3, size, size)``, in [−1, 1]; what lies outside is clipped.

    Raises:
        OSError: it cannot be written, in one line; nothing is left behind.

    Own: own-images
    """
    from PIL import Image

    n, columns, _, size, _ = rows.shape
    grid = ((rows.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    grid = grid.permute(0, 3, 1, 4, 2).reshape(n * size, columns * size, 3)
    content = io.BytesIO()
    Image.fromarray(grid.numpy()).save(content, "PNG", optimize=True)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; {places.mend(error)}") from error


def read_picture(path: Path, columns: int = COLUMNS) -> Tensor:
    """The rows of a stored picture, uint8, shape ``(rows, columns, size, size, 3)``: colour last, as they are drawn.

    Args:
        path: its file.
        columns: images in a row.

    Own: own-images
    """
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        grid = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    size = grid.shape[1] // columns
    return grid.reshape(-1, size, columns, size, 3).permute(0, 2, 1, 3, 4)
