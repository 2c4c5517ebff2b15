"""Records on disk: written in one step, checked when read, found by configuration.

Own: own-records
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from efvae import places
from efvae.places import write_atomically
from efvae.records.origin import results_root
from efvae.records.record import Record, RecordError, config_dict, config_hash, refuse_invalid
from efvae.values import convert, nearest

__all__ = ["check_folder", "find", "load", "load_like", "read", "stored", "write", "write_atomically"]


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written before hours of computation, not after them; nothing is made.

    Args:
        folder: of one stem's records, or of checkpoints.

    Raises:
        RecordError: it cannot be made or written.

    Own: own-records
    """
    try:
        places.probe(folder)
    except OSError as error:
        raise RecordError(f"cannot write {folder}: {error.strerror or error}; {places.mend(error)}") from error


def write(record: Record, root: Path | None = None) -> Path:
    """Store a record as ``<root>/<stem>/<cell>.json``; an older file is replaced in one step.

    Args:
        record: what to store.
        root: the folder of records, by default ``results_root()``.

    Returns:
        The path of the file.

    Raises:
        RecordError: the record is invalid (a NaN, say), or the folder cannot be written.

    Own: own-records
    """
    path = (results_root() if root is None else Path(root)) / str(record.stem) / f"{record.cell}.json"
    refuse_invalid(record, str(path))
    text = json.dumps(dataclasses.asdict(record), indent=1, sort_keys=True, allow_nan=False) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}; {places.mend(error)}") from error
    return path


def read(path: Path) -> Record:
    """Read and check one record.

    Args:
        path: its file.

    Raises:
        RecordError: missing, not JSON, or not a record; the message names the file.

    Own: own-records
    """
    path = Path(path)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a record ({error}): remove it, or compute it again with --refresh") from error
    expected = {field.name for field in dataclasses.fields(Record)}
    if not isinstance(fields, dict) or set(fields) != expected:
        found = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
        raise RecordError(f"{path} is not a record: expected the keys {sorted(expected)}; got {found}")
    record = Record(**fields)
    refuse_invalid(record, str(path))
    if (path.parent.resolve().name, path.stem) != (record.stem, record.cell):
        raise RecordError(f"{path} holds the record {record.stem}/{record.cell}.json: was it moved or renamed?")
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def find(stem: str, config: object, root: Path | None = None, data_sha256: str | None = None) -> Record | None:
    """Look up the stored record of a configuration, so that a finished computation is not repeated.

    Args:
        stem: the experiment.
        config: an instance of its frozen dataclass.
        root: the folder of records, by default ``results_root()``.
        data_sha256: checksum of the data, or None.

    Returns:
        The record, or None if there is none.

    Raises:
        RecordError: there is a file, but it is corrupt.

    Own: own-records
    """
    digest = config_hash(stem, config_dict(config), data_sha256)[:8]
    folder = (results_root() if root is None else Path(root)) / stem
    paths = sorted(folder.glob(f"[!.]*{digest}.json"))
    if not paths:
        return None
    record = read(paths[0])
    if record.config != config_dict(config):  # eight digits may agree by chance, in one of some billion pairs
        raise RecordError(f"{paths[0]} has the hash of another configuration: move it into another results folder")
    return record


def stored(
    stem: str,
    config: object,
    compute: Callable[[], Record],
    *,
    results: Path | None = None,
    refresh: bool = False,
    data_sha256: str | None = None,
) -> Record:
    """The record of a configuration, computed and written unless it is there already.

    Args:
        stem: the experiment.
        config: an instance of its frozen dataclass.
        compute: makes the record.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists; the old one stays until the new one replaces it.
        data_sha256: checksum of the data, or None.

    Raises:
        RecordError: there is a record, but it is corrupt; or it cannot be written.

    Own: own-records
    """
    known = None if results is None or refresh else find(stem, config, results, data_sha256)
    if known is not None:
        return known
    if results is not None:
        check_folder(results / stem)
    record = compute()
    if results is not None:
        write(record, results)
    return record


def load(stem: str, root: Path | None = None, **where: object) -> list[Record]:
    """Load the records of a stem whose config has the given values, sorted by file name.

    Args:
        stem: the folder under the root; if there is none, there are no records.
        root: the folder of records, by default ``results_root()``.
        **where: required values of config fields; text is read by the type that the field has.

    Raises:
        RecordError: a corrupt file, or a field that no record of this stem has.

    Own: own-records
    """
    folder = (results_root() if root is None else Path(root)) / stem
    records = [read(path) for path in sorted(folder.glob("[!.]*.json"))]
    known = {key for record in records for key in record.config}
    for key in where:
        if records and key not in known:
            raise RecordError(f"no record in {folder} has {key!r} in its config: {nearest(key, known)}")
    return [record for record in records if all(_matches(record.config, key, where[key]) for key in where)]


def load_like(stem: str, config: object, root: Path | None = None, free: Sequence[str] = ("seed",)) -> list[Record]:
    """Load the records of a configuration, whatever the named fields are, sorted by file name.

    Args:
        stem: see :func:`load`.
        config: the configuration.
        root: see :func:`load`.
        free: fields in which the records may differ from it and from each other.

    Raises:
        RecordError: a corrupt file, or a field that no record of this stem has.

    Own: own-records
    """
    return load(stem, root, **{key: value for key, value in config_dict(config).items() if key not in free})


def _matches(config: Mapping[str, Any], key: str, wanted: object) -> bool:
    if key not in config:
        return False
    have: object = config[key]
    if isinstance(wanted, str) and isinstance(have, (bool, int, float)):
        try:
            return convert(wanted, type(have).__name__) == have
        except ValueError:
            return False
    return bool(have == wanted)
