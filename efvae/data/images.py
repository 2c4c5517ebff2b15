"""Images for section 4.2: the redistributable photographs, or a folder or zip of your own such as CelebA.

CelebA may not be redistributed. Let ``EFVAE_IMAGES`` name your ``img_align_celeba.zip``, or a folder of images.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efvae.data.cache import DataError, DataSet, SourceFile, data_folder, read

__all__ = ["FILES", "Images", "load_folder", "load_photographs", "scaled"]

FILES = DataSet(
    name="images",
    address="",  # redistributable, but nobody serves this file: see data_folder's message
    sources=(),
    files=(
        SourceFile(
            "fruits360-34-64px.zip", 48703881, "2149de22bdc2957fd774fd029aace20645ef8668024a981d28ff88ce69b1964f"
        ),
    ),
)

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
#: Names of at most this many bad files are told.
TOLD = 5


@dataclass(frozen=True)
class Images:
    """Images in memory, in two parts.

    Args:
        train, test: uint8, shape ``(n, 3, size, size)``.
        train_label, test_label: number of the class, int64, shape ``(n,)``.
        classes: their names; one name if the images have no classes.
        sha256: checksum of pixels, labels and split.
        skipped: names of files that could not be read.

    Own: own-images
    """

    train: Tensor
    test: Tensor
    train_label: Tensor
    test_label: Tensor
    classes: tuple[str, ...]
    sha256: str
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, train: Tensor, test: Tensor, labels: tuple[Tensor, Tensor], classes: Sequence[str],
           skipped: Sequence[str] = ()) -> Images:  # fmt: skip
        """With its checksum."""
        digest = hashlib.sha256(repr((tuple(train.shape), tuple(test.shape), tuple(classes))).encode())
        for part in (train, test, *labels):
            digest.update(part.contiguous().numpy().tobytes())
        return cls(train, test, *labels, tuple(classes), digest.hexdigest(), tuple(skipped))


def scaled(pixels: Tensor) -> Tensor:
    """Pixels 0 … 255 as float32 in [−1, 1].

    Paper: sec-4-2
    """
    return pixels.float().div_(127.5).sub_(1)


@lru_cache(maxsize=2)
def load_photographs(size: int = 64) -> Images:
    """The 22012 photographs of 34 kinds of fruit, 16477 to train on and 5535 held out.

    The files are 64 × 64; a smaller size is made by averaging.

    Args:
        size: pixels a side.

    Raises:
        DataError: the zip is not there or not the known one.

    Own: own-images
    """
    content = read(data_folder(FILES), FILES.files[0])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(ENDINGS))
        pixels = np.stack([_square(archive.read(name), size) for name in names])
    classes = sorted({PurePosixPath(name).parent.name for name in names})
    label = torch.tensor([classes.index(PurePosixPath(name).parent.name) for name in names])
    train = torch.tensor([PurePosixPath(name).parts[0] == "train" for name in names])
    images = torch.from_numpy(pixels)
    return Images.of(images[train], images[~train], (label[train], label[~train]), classes)


def load_folder(
    path: Path | str | None = None, size: int = 64, *, on_bad: str = "stop", held_out: float = 0.1
) -> Images:
    """Images of a folder with its subfolders, or of a zip, scaled by the short side and cropped at the centre.

    That is what the DCGAN tutorial does with the aligned CelebA images of 178 × 218 pixels. Other modes than RGB are
    converted. Subfolders count as classes if there are several.

    Args:
        path: folder or zip; by default what ``EFVAE_IMAGES`` names.
        size: pixels a side.
        on_bad: ``stop`` at unreadable files and name them, or ``skip`` them and go on; a line to stderr counts them.
        held_out: share of images, chosen by a hash of their names, for the part ``test``.

    Raises:
        DataError: nothing there (a wrong place is told from a missing one), no images in it, unreadable files.
        ValueError: ``on_bad`` is neither of the two.

    Own: own-images
    """
    if on_bad not in ("stop", "skip"):
        raise ValueError(f"on_bad must be stop or skip; got {on_bad!r}")
    place = _place(path)
    pixels, names, bad = [], [], []
    for name, content in _contents(place):
        try:
            pixels.append(_square(content, size))
            names.append(name)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on broken files
            bad.append((name, str(error).splitlines()[0][:80] if str(error) else type(error).__name__))
    if bad:
        told = ", ".join(f"{name} ({why})" for name, why in bad[:TOLD]) + (", …" if bad[TOLD:] else "")
        line = f"{len(bad)} of {len(bad) + len(names)} images in {place} cannot be read: {told}"
        if on_bad == "stop":
            raise DataError(f"{line}; mend or remove them, or go on without them by on_bad=skip")
        print(f"efvae: {line}; skipped", file=sys.stderr)
    if len(names) < 2:
        raise DataError(f"{place} holds {len(names)} readable images: expected at least 2 ({', '.join(ENDINGS)})")
    return _split(np.stack(pixels), names, held_out, [name for name, _ in bad])


def _split(pixels: NDArray[np.uint8], names: list[str], held_out: float, skipped: list[str]) -> Images:
    folders = [PurePosixPath(name).parent.name for name in names]
    classes = sorted(set(folders))
    label = torch.tensor([classes.index(folder) for folder in folders])
    # by name, not by place in the list: an image stays in its part when others are added
    draws = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64 for name in names]
    test = torch.tensor([draw < held_out for draw in draws])
    if bool(test.all()) or not bool(test.any()):
        test = torch.arange(len(names)) == len(names) - 1
    images = torch.from_numpy(pixels)
    return Images.of(images[~test], images[test], (label[~test], label[test]), classes, skipped)


def _place(path: Path | str | None) -> Path:
    named = path or os.environ.get("EFVAE_IMAGES")
    if not named:
        raise DataError(
            "no images were named: let EFVAE_IMAGES name a folder or a zip of images, such as img_align_celeba.zip"
        )
    place = Path(named).expanduser().absolute()
    if not place.exists():
        raise DataError(f"{place} does not exist: let EFVAE_IMAGES name a folder or a zip of images")
    if place.is_file() and not zipfile.is_zipfile(place):
        raise DataError(f"{place} is a file but no zip: let EFVAE_IMAGES name a folder or a zip of images")
    return place


def _contents(place: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image file, in order of name; hidden files are passed over."""
    if place.is_file():
        with zipfile.ZipFile(place) as archive:
            names = sorted(name for name in archive.namelist() if _is_image(name))
            _refuse_none(names, place, archive.namelist())
            for name in names:
                yield name, archive.read(name)
        return
    files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    names = sorted(name for name in files if _is_image(name))
    _refuse_none(names, place, list(files))
    for name in names:
        yield name, files[name].read_bytes()


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(ENDINGS) and not any(part.startswith((".", "__MACOSX")) for part in parts)


def _refuse_none(names: list[str], place: Path, others: list[str]) -> None:
    if not names:
        what = f"{len(others)} other files (such as {others[0]})" if others else "nothing"
        raise DataError(f"{place} is the wrong place: it holds {what} and no image ({', '.join(ENDINGS)})")


def _square(content: bytes, size: int) -> NDArray[np.uint8]:
    """Decoded, RGB, short side scaled to ``size``, cropped at the centre; uint8, shape ``(3, size, size)``."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        rgb = image.convert("RGB")
    if rgb.size != (size, size):
        scale = size / min(rgb.size)
        width, height = (max(size, round(side * scale)) for side in rgb.size)
        # averaging where a whole number of pixels makes one, else the tutorial's bilinear with antialiasing
        whole = rgb.width == rgb.height and rgb.width % size == 0
        rgb = rgb.resize((width, height), Image.Resampling.BOX if whole else Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        rgb = rgb.crop((left, top, left + size, top + size))
    return np.asarray(rgb).transpose(2, 0, 1).copy()
