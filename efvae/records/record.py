"""The record itself: its fields, its name, and what makes one valid.

Own: own-records
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from efvae.records.origin import provenance as _describe

__all__ = ["Record", "RecordError", "cell_name", "config_dict", "config_hash", "make", "refuse_invalid", "same"]

_PROVENANCE = {"commit", "dirty", "versions", "device", "cpu", "seconds", "time", "data_sha256"}


class RecordError(ValueError):
    """A record cannot be written or read; the message is one line and names the file.

    Own: own-records
    """


@dataclasses.dataclass(frozen=True)
class Record:
    """One result.

    ::

        results/<stem>/<cell>.json

    Args:
        stem: page, notebook and folder it belongs to, such as ``sec4_1_artificial``.
        cell: file name without ending: a readable slug and 8 hex digits of ``config_hash``.
        config: everything that determines the result, as plain JSON values.
        metrics: named numbers (in nats unless the name says another unit), None where not computed.
        curve: named columns over training, of equal meaning per index.
        provenance: what computed it.

    Own: own-records
    """

    stem: str
    cell: str
    config: dict[str, Any]
    metrics: dict[str, float | None]
    curve: dict[str, list[float]]
    provenance: dict[str, Any]


def config_dict(config: object) -> dict[str, Any]:
    """Turn a frozen config into plain JSON values: declared floats become floats, tuples become lists.

    Without this ``lr=1`` and ``lr=1.0`` would be two results.

    Args:
        config: an instance of a dataclass.

    Raises:
        TypeError: it is none, or holds something that JSON cannot.
        ValueError: it holds a NaN or an infinity.

    Own: own-records
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"expected an instance of a dataclass; got {type(config).__name__}")
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    for field in dataclasses.fields(config):
        # with postponed evaluation an annotation is its own text
        if str(getattr(field.type, "__name__", field.type)) == "float":
            plain[field.name] = float(plain[field.name])
    return plain


def config_hash(stem: str, config: Mapping[str, Any], data_sha256: str | None = None) -> str:
    """Hash (SHA-256, hex) what determines a result: stem, configuration, checksum of the data.

    The code version is provenance and not part of it.

    Args:
        stem: the experiment.
        config: plain values, as ``config_dict`` gives them.
        data_sha256: checksum of the data, or None.

    Own: own-records
    """
    text = json.dumps([stem, dict(config), data_sha256], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def cell_name(
    stem: str, config: Mapping[str, Any], data_sha256: str | None = None, show: Sequence[str] = ("seed",)
) -> str:
    """Name the file of a result: some fields for people, 8 hex digits of ``config_hash`` for machines.

    ::

        encoder-factorized_seed-0_1a2b3c4d

    Args:
        stem: the experiment.
        config: plain values, as ``config_dict`` gives them.
        data_sha256: checksum of the data, or None.
        show: fields of the config to spell out, in this order.

    Own: own-records
    """
    spelled = [re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{key}-{config[key]}") for key in show if key in config]
    return "_".join([*spelled, config_hash(stem, config, data_sha256)[:8]])


def make(
    stem: str,
    config: object,
    metrics: Mapping[str, SupportsFloat | None],
    curve: Mapping[str, Sequence[SupportsFloat]],
    *,
    seconds: float,
    device: str = "cpu",
    data_sha256: str | None = None,
    show: Sequence[str] = ("seed",),
) -> Record:
    """Make a record from a finished computation; its numbers may be tensors of one element.

    Args:
        stem: the experiment.
        config: an instance of a frozen dataclass.
        metrics: named numbers, None where not computed.
        curve: named columns.
        seconds: wall-clock time of the computation.
        device: as torch names it.
        data_sha256: checksum of the data, or None for data made on the spot.
        show: fields of the config to spell out in the file name.

    Raises:
        RecordError: a number is not finite.

    Own: own-records
    """
    plain = config_dict(config)
    record = Record(
        stem=stem,
        cell=cell_name(stem, plain, data_sha256, show),
        config=plain,
        metrics={name: None if value is None else float(value) for name, value in metrics.items()},
        curve={name: [float(value) for value in values] for name, values in curve.items()},
        provenance=_describe(seconds=seconds, device=device, data_sha256=data_sha256),
    )
    refuse_invalid(record, f"record {stem}/{record.cell}")
    return record


def same(a: Record, b: Record) -> bool:
    """Compare what two records say: stem, config, metrics and curve, bit for bit. Provenance does not count.

    Args:
        a: one record.
        b: the other.

    Own: own-records
    """
    return (a.stem, a.config, a.metrics, a.curve) == (b.stem, b.config, b.metrics, b.curve)


def refuse_invalid(record: Record, where: str) -> None:
    """Check types, finite numbers, and that the name carries the hash of the config.

    Args:
        record: possibly read from a file, so its fields may be anything.
        where: how the message names it.

    Raises:
        RecordError: the first thing that is wrong.

    Own: own-records
    """
    problem = _bad_name(record) or _bad_mapping(record) or _bad_number(record) or _bad_hash(record)
    if problem:
        raise RecordError(f"{where}: {problem}")


def _bad_name(record: Record) -> str | None:
    if not re.fullmatch(r"\w+", str(record.stem), re.ASCII):
        return f"a stem has letters, digits and _ only; got {record.stem!r}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", str(record.cell)):
        return f"a cell has letters, digits and . _ + - only; got {record.cell!r}"
    return None


def _bad_mapping(record: Record) -> str | None:
    for name in ("config", "metrics", "curve", "provenance"):
        if not isinstance(getattr(record, name), dict):
            return f"{name} must be a mapping"
    if not record.metrics:
        return "metrics is empty"
    if set(record.provenance) != _PROVENANCE:
        return f"provenance must have the keys {sorted(_PROVENANCE)}; got {sorted(record.provenance)}"
    return None


def _bad_number(record: Record) -> str | None:
    for name, value in record.metrics.items():
        if value is not None and not _finite(value):
            return f"metric {name} must be a finite number or null; got {value!r}"
    for name, column in record.curve.items():
        values: object = column
        if not isinstance(values, list) or not all(map(_finite, values)):
            return f"curve {name} must be a list of finite numbers"
    return None


def _bad_hash(record: Record) -> str | None:
    try:
        expected = config_hash(record.stem, record.config, record.provenance["data_sha256"])[:8]
    except (TypeError, ValueError) as error:
        return f"config must hold plain JSON values: {error}"
    if not record.cell.endswith(expected):
        return f"the name must end in {expected}, the hash of its config: was the config edited by hand?"
    return None


def _finite(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # also for whole numbers that no float can hold; false for NaN
