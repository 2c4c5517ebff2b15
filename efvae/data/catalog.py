"""The data sets that ``efvae data`` knows."""

from efvae.data import images, newsgroups
from efvae.data.cache import DataError, DataSet
from efvae.values import nearest

__all__ = ["DATA_SETS", "named"]

DATA_SETS = {data.name: data for data in (newsgroups.FILES, images.FILES)}


def named(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        DataError: there is none; the nearest name is given.

    Own: own-data
    """
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}: {nearest(name, DATA_SETS)}")
    return DATA_SETS[name]
