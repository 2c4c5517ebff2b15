"""The data sets that ``efvae data`` knows."""

from collections.abc import Callable
from pathlib import Path

from efvae.data import download, images, newsgroups
from efvae.data.cache import DataError, DataSet
from efvae.values import nearest

__all__ = ["CELEBA", "DATA_SETS", "fetch", "named", "verify"]

DATA_SETS = {data.name: data for data in (newsgroups.FILES, images.FILES)}
#: Images that the user has to bring. ``EFVAE_IMAGES`` names their place; no checksum of the files is known.
CELEBA = "celeba"


def verify(name: str) -> Path:
    """Check a data set where it lies.

    Args:
        name: of one of ``DATA_SETS``, or ``celeba``.

    Returns:
        Its folder, or the zip of CelebA.

    Raises:
        DataError: see :func:`efvae.data.download.verify`, :func:`efvae.data.images.verify_celeba` and :func:`named`.

    Own: own-data
    """
    return images.verify_celeba() if name == CELEBA else download.verify(named(name))


def fetch(name: str, address: str | None = None, tell: Callable[[str], None] = lambda line: None) -> Path:
    """Make a data set available.

    Args:
        name: of one of ``DATA_SETS``.
        address, tell: see :func:`efvae.data.download.fetch`.

    Returns:
        Its folder.

    Raises:
        DataError: it is ``celeba``, which the user has to bring; see :func:`efvae.data.download.fetch`.

    Own: own-data
    """
    if name == CELEBA:
        raise DataError(
            "celeba is not downloaded, for it may not be redistributed: get img_align_celeba.zip from "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, put it anywhere, and let EFVAE_IMAGES name it"
        )
    return download.fetch(named(name), address, tell)


def named(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        DataError: there is none; the nearest name is given.

    Own: own-data
    """
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}: {nearest(name, (*DATA_SETS, CELEBA))}")
    return DATA_SETS[name]
