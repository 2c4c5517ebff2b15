"""Images for section 4.2: the redistributable photographs, or a folder or zip of your own such as CelebA.

CelebA may not be redistributed. Let ``EFVAE_IMAGES`` name your ``img_align_celeba.zip``, or a folder of images;
``efvae data verify celeba`` checks them.

The photographs are 22012 of 34 kinds of fruit from Fruits-360, https://github.com/Horea94/Fruit-Images-Dataset, version
2018.07.01.0, commit 001248019d050f8c7616aeb2f52967df0d7b6e7c: MIT licence, copyright 2017-2018 Mihai Oltean and Horea
Muresan, whose text is in the zip. Only kinds that the readme of that version lists were taken, with their names and the
authors' split, 16477 to train on and 5535 held out; what later releases added is under another licence. The original
files of 100 x 100 pixels came unchanged from public repositories that hold parts of the data set:
Erkkapekka/Homework5CNN at 5963809 (apples, pears, orange, lemon Meyer: 10382 images), Icequeen12/fruits360 at 11a7a11
(14 other kinds: 9006), aviv275/fruits360-eacnn-full at 822111c (white grape, pineapple: 1312),
FarshidNooshi/Fruits-360-Dataset-Classifier at 26f66ea (mango: 656) and amirrezarajabi/Fruits360-Classifier at d34ee10
(cherry: 656). They were scaled to 64 x 64 by Pillow (bicubic) and saved as JPEG of quality 90. Cite: H. Muresan and
M. Oltean, Fruit recognition from images using deep learning, Acta Univ. Sapientiae, Informatica 10 (2018) 26-42.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import os
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efvae.data.cache import DataError, DataSet, SourceFile, data_folder, named_place, read

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FILES", "Images", "load_celeba", "load_folder", "load_photographs", "scaled", "verify_celeba"]

FILES = DataSet(
    name="images",
    address="",  # redistributable, but nobody serves this file
    sources=(),
    files=(
        SourceFile(
            "fruits360-34-64px.zip",
            48703881,
            "2149de22bdc2957fd774fd029aace20645ef8668024a981d28ff88ce69b1964f",
            served=False,
        ),
    ),
)

#: Files of the aligned images of CelebA.
CELEBA_IMAGES = 202599
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
#: Larger files and pictures are refused before they are read or decoded: a small zip may hold gigabytes of zeros.
MOST_BYTES = 2**27
MOST_PIXELS = 50_000_000
#: Pixels a side at most.
MOST_SIZE = 4096
#: Names of at most this many bad files are told.
TOLD = 5
#: What zipfile raises on damaged or encrypted archives, and Pillow on broken files.
BROKEN = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile, zlib.error,
          lzma.LZMAError)  # fmt: skip


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
            digest.update(part.contiguous().flatten().view(torch.uint8).numpy().data)  # no copy of gigabytes
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
        ValueError: ``size`` is no whole number in its range.

    Own: own-images
    """
    _check_size(size)
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
    converted, transparency is laid on white. Subfolders count as classes if there are several.

    Args:
        path: folder or zip; by default what ``EFVAE_IMAGES`` names.
        size: pixels a side.
        on_bad: ``stop`` at unreadable files and name them, or ``skip`` them and go on; a line to stderr counts them.
            Files of more than ``MOST_BYTES`` or ``MOST_PIXELS`` count as unreadable.
        held_out: share of images in (0, 1), chosen by a hash of their names, for the part ``test``.

    Raises:
        DataError: nothing there (a wrong place is told from a missing one), no images in it, unreadable files.
        ValueError: ``on_bad`` is neither of the two, or ``size`` or ``held_out`` out of its range.

    Own: own-images
    """
    if on_bad not in ("stop", "skip"):
        raise ValueError(f"on_bad must be stop or skip; got {on_bad!r}")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be a number in (0, 1); got {held_out}")
    _check_size(size)
    place = _place(path)
    bad: list[tuple[str, str]] = []
    with _opened(place) as (names, content):
        # by name, not by place in the list: an image stays in its part when others are added
        held = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64 < held_out for name in names]
        # made at once, for CelebA is gigabytes
        pixels = [np.empty((held.count(part), 3, size, size), np.uint8) for part in (False, True)]
        kept: list[list[str]] = [[], []]
        for name, part in zip(names, held, strict=True):
            try:
                pixels[part][len(kept[part])] = _square(content(name), size)
            except BROKEN as error:
                bad.append((name, _reason(error)))
            else:
                kept[part].append(name)
    readable = len(names) - len(bad)
    if bad:
        told = ", ".join(f"{name} ({why})" for name, why in bad[:TOLD]) + (", …" if bad[TOLD:] else "")
        line = f"{len(bad)} of {len(names)} images in {place} cannot be read: {told}"
        if on_bad == "stop":
            raise DataError(f"{line}; mend them, or go on without them by on_bad=skip")
        print(f"efvae: {line}; skipped", file=sys.stderr)
    if readable < 2:
        raise DataError(f"{place} holds {readable} readable images: expected at least 2 ({', '.join(ENDINGS)})")
    train, test = (torch.from_numpy(part[: len(of)]) for part, of in zip(pixels, kept, strict=True))
    return _split(train, test, kept, [name for name, _ in bad])


def load_celeba(size: int = 64, *, on_bad: str = "stop") -> Images:
    """The aligned images of CelebA, which ``EFVAE_IMAGES`` names, by :func:`load_folder`.

    Args:
        size, on_bad: see :func:`load_folder`; files that are skipped count among the 202599.

    Raises:
        DataError: another number of files, told before one is decoded; see :func:`load_folder`.

    Own: own-images
    """
    place = _place(None)
    with _opened(place) as (names, _):
        if len(names) != CELEBA_IMAGES:
            raise DataError(
                f"CelebA has {CELEBA_IMAGES} images, {place} holds {len(names)}: let EFVAE_IMAGES name "
                "img_align_celeba.zip or the folder of its files, or use data=folder for others"
            )
    return load_folder(place, size, on_bad=on_bad)


def verify_celeba() -> Path:
    """Check what ``EFVAE_IMAGES`` names as a training does: it is there, the number of files, each can be decoded.

    Returns:
        The folder or zip.

    Raises:
        DataError: see :func:`load_celeba`.

    Own: own-images
    """
    load_celeba(1)  # all of each file is decoded, one pixel is kept
    return _place(None)


def _check_size(size: object) -> None:
    if not isinstance(size, int) or not 1 <= size <= MOST_SIZE:
        raise ValueError(f"size must be a whole number of pixels in [1, {MOST_SIZE}]; got {size}")


def _split(train: Tensor, test: Tensor, names: list[list[str]], skipped: list[str]) -> Images:
    """With labels; where chance left a part empty, the last image alone is held out."""
    if not (names[0] and names[1]):
        whole, every = (train, names[0]) if names[0] else (test, names[1])
        train, test, names = whole[:-1], whole[-1:], [every[:-1], every[-1:]]
    folders = [[PurePosixPath(name).parent.name for name in part] for part in names]
    classes = sorted({*folders[0], *folders[1]})
    first, second = (torch.tensor([classes.index(folder) for folder in part]) for part in folders)
    return Images.of(train, test, (first, second), classes, skipped)


def _reason(error: BaseException) -> str:
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return said.splitlines()[0][:80] if said else type(error).__name__


def _place(path: Path | str | None) -> Path:
    named = path or os.environ.get("EFVAE_IMAGES")
    if not named:
        raise DataError(
            "no images were named: let EFVAE_IMAGES name a folder or a zip of images, such as img_align_celeba.zip"
        )
    place = named_place("images" if path else "EFVAE_IMAGES", named)
    try:
        if not place.exists():
            raise DataError(f"{place} does not exist: let EFVAE_IMAGES name a folder or a zip of images")
        if place.is_file() and not zipfile.is_zipfile(place):
            raise DataError(f"{place} is a file but no zip: let EFVAE_IMAGES name a folder or a zip of images")
        if place.is_dir():
            os.scandir(place).close()  # rglob passes over what may not be read
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error
    return place


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names of the image files in order, and what reads one; hidden files are passed over."""
    if place.is_dir():
        others = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]
        yield (
            _image_names(others, place),
            lambda name: _content((place / name).stat().st_size, lambda: (place / name).open("rb")),
        )
        return
    try:
        archive = zipfile.ZipFile(place)
    except BROKEN as error:
        raise DataError(f"{place} is a damaged zip ({_reason(error)}): get or make it anew") from error
    with archive:
        yield (
            _image_names(archive.namelist(), place),
            lambda name: _content(archive.getinfo(name).file_size, lambda: archive.open(name)),
        )


def _content(size: int, opened: Callable[[], IO[bytes]]) -> bytes:
    """A file's bytes, unless it is longer than an image may be; where the size is a lie, no more than it says."""
    if size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    with opened() as file:
        return file.read(size + 1)


def _image_names(others: list[str], place: Path) -> list[str]:
    names = sorted(name for name in others if _is_image(name))
    if not names:
        if not others:
            raise DataError(f"{place} is empty: name a folder or archive of images ({', '.join(ENDINGS)})")
        what = f"{len(others)} other files (such as {others[0]})"
        raise DataError(f"{place} is the wrong place: it holds {what} and no image ({', '.join(ENDINGS)})")
    return names


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(ENDINGS) and not any(part.startswith((".", "__MACOSX")) for part in parts)


def _square(content: bytes, size: int) -> NDArray[np.uint8]:
    """Decoded, RGB, short side scaled to ``size``, cropped at the centre; uint8, shape ``(3, size, size)``."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > MOST_PIXELS:  # known before anything is decoded
                    raise Image.DecompressionBombError
                rgb = _rgb(image)
        except UnidentifiedImageError:  # its message names a buffer
            raise ValueError("no image of a known kind" if content else "an empty file") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"more than {MOST_PIXELS} pixels") from None
    if rgb.size != (size, size):
        scale = size / min(rgb.size)
        width, height = (max(size, round(side * scale)) for side in rgb.size)
        if width * height > MOST_PIXELS:
            raise ValueError(f"too narrow: {rgb.width} x {rgb.height} pixels")
        # averaging where a whole number of pixels makes one, else the tutorial's bilinear with antialiasing
        whole = rgb.width == rgb.height and rgb.width % size == 0
        rgb = rgb.resize((width, height), Image.Resampling.BOX if whole else Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        rgb = rgb.crop((left, top, left + size, top + size))
    return np.asarray(rgb).transpose(2, 0, 1).copy()


def _rgb(image: Image.Image) -> Image.Image:
    """RGB: 16 bits of grey scaled to 8, where Pillow cuts at 255, and transparency on white, where Pillow drops it."""
    from PIL import Image

    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")
