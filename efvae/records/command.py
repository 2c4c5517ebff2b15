"""One experiment from a shell, without Jupyter: ``python -m efvae.experiments.NAME key=value ...``.

Own: own-records
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from efvae.records.origin import results_root
from efvae.records.record import Record
from efvae.values import TYPES, nearest, parse

__all__ = ["main"]

_USAGE = """usage: python -m {module} [key=value ...] [--results DIR] [--refresh]{checkpoint}

  --results DIR      folder of records (default: {root})
  --refresh          compute again although the record exists
keys:
{keys}"""


def main(config_type: type, run: Callable[..., Record], argv: Sequence[str] | None = None) -> int:
    """Run one experiment with values given as ``key=value``; print the record's name and its metrics.

    Args:
        config_type: the experiment's frozen dataclass; its annotations say how each value is read.
        run: ``run(config, results=..., refresh=...)``, and ``checkpoint=...`` where it takes one.
        argv: the words, by default those of the command line.

    Returns:
        The exit code: 0, or 2 after bad input, which is reported in one line before anything runs.

    Own: own-records
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "-h" in words or "--help" in words:
        print(_help(config_type, run))
        return 0
    try:
        values, options = _split(words, config_type, run)
        record = run(config_type(**values), **options)
    except ValueError as error:  # RecordError is one
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{record.stem}/{record.cell}.json")
    for name, value in record.metrics.items():
        print(f"  {name} = {value}")
    return 0


def _kinds(config_type: type) -> dict[str, str]:
    # annotations are text under postponed evaluation, types otherwise
    kinds = {field.name: field.type for field in dataclasses.fields(config_type)}
    return {name: kind.__name__ if isinstance(kind, type) else str(kind) for name, kind in kinds.items()}


def _split(words: list[str], config_type: type, run: Callable[..., Record]) -> tuple[dict[str, Any], dict[str, Any]]:
    kinds = _kinds(config_type)
    values: dict[str, Any] = {}
    options: dict[str, Any] = {"results": results_root(), "refresh": False}
    while words:
        word = words.pop(0)
        if word == "--refresh":
            options["refresh"] = True
        elif word == "--results" or (word == "--checkpoint" and _takes_checkpoint(run)):
            if not words:
                raise ValueError(f"{word} needs a path after it")
            options[word[2:]] = Path(words.pop(0))
        else:
            values.update([_pair(word, kinds)])
    return values, options


def _pair(word: str, kinds: dict[str, str]) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or word.startswith("-"):
        raise ValueError(f"expected key=value; got {word!r}")
    if name not in kinds:
        raise ValueError(f"unknown key {name!r}: {nearest(name, kinds)}")
    kind = kinds[name]
    if kind.startswith("tuple["):
        kind = f"list[{kind[6:].split(',')[0].strip(' ]')}]"
    if kind not in TYPES:
        raise ValueError(f"{name}: a value of type {kinds[name]} cannot be given here")
    try:
        value = parse(text, kind)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return name, tuple(value) if isinstance(value, list) else value


def _takes_checkpoint(run: Callable[..., Record]) -> bool:
    return "checkpoint" in inspect.signature(run).parameters


def _help(config_type: type, run: Callable[..., Record]) -> str:
    kinds = _kinds(config_type)
    keys = []
    for field in dataclasses.fields(config_type):
        default = "required" if field.default is dataclasses.MISSING else f"default {field.default!r}"
        keys.append(f"  {field.name}: {kinds[field.name]} ({default})")
    checkpoint = " [--checkpoint PATH]" if _takes_checkpoint(run) else ""
    spec = sys.modules["__main__"].__spec__  # under -m the config's own module is called __main__
    module = spec.name if spec else config_type.__module__
    return _USAGE.format(module=module, root=results_root(), keys="\n".join(keys), checkpoint=checkpoint)
