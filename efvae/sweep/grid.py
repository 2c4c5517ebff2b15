"""From ``key=v1,v2 seed=0:3``, or a YAML file, to the cells of an experiment.

Own: own-sweep
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import os
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import efvae.experiments
from efvae.data.cache import DataError
from efvae.parameters import UsageError, one_line, read_texts
from efvae.records import config_dict, config_hash
from efvae.records.command import config_kinds, read_value
from efvae.values import nearest, shown

__all__ = ["MOST_CELLS", "Cell", "Experiment", "cells_of", "experiment", "read_file"]

#: More cells than this are a slip of the keyboard.
MOST_CELLS = 10_000

#: Texts of each key: alternatives as they were typed.
Grid = dict[str, list[str]]

_RANGE = re.compile(r"\s*(-?\d{1,18}):(-?\d{1,18})\s*")


@dataclass(frozen=True)
class Experiment:
    """A module of ``efvae.experiments`` that has ``STEM``, ``Config`` and ``run``.

    Args:
        stem: folder of its records.
        module: the module; it may also offer ``together(config)``, equal for cells that one process trains together,
            ``run_together(configs, ...)``; ``data_sha256(config)``, the checksum of the data; ``check(config)``, which
            raises a ValueError or DataError if data, weights or packages are not there or do not suffice;
            ``needed(config)``, the configuration that a record is kept under, if not all fields count.

    Own: own-sweep
    """

    stem: str
    module: ModuleType

    @property
    def kinds(self) -> dict[str, str]:
        """How each field of the config is read.

        Own: own-sweep
        """
        return config_kinds(self.module.Config)

    def data_sha256(self, config: object) -> str | None:
        """Checksum of the data of a cell, None if the experiment does not say.

        Args:
            config: the cell's.

        Own: own-sweep
        """
        told: str | None = self.module.data_sha256(config) if hasattr(self.module, "data_sha256") else None
        return told

    def check(self, cell: Cell) -> None:
        """Refuse a cell that data or weights do not suffice for, before anything starts.

        Args:
            cell: which.

        Raises:
            UsageError: they do not.
            efvae.data.cache.DataError: the data are missing or wrong.

        Own: own-sweep
        """
        try:
            if hasattr(self.module, "check"):
                self.module.check(cell.asked)
        except DataError:  # of no cell
            raise
        except ValueError as error:
            raise UsageError(f"cell {shown(cell.label)}: {one_line(error)}") from None


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep.

    Args:
        config: an instance of the experiment's ``Config``, as its record has it.
        asked: the same as it was asked for: also with fields that change no record, such as what to do with bad files.
        label: the values that the sweep sets, for people.
        digest: 8 hex digits of the hash of the configuration, without the data.

    Own: own-sweep
    """

    config: Any
    asked: Any
    label: str
    digest: str


def _stems() -> dict[str, str]:
    """Stem and module name of each experiment, from the sources: importing all of them would take seconds."""
    sources = {}
    for info in pkgutil.iter_modules(efvae.experiments.__path__, "efvae.experiments."):
        spec = importlib.util.find_spec(info.name)
        sources[info.name] = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    found = {}
    for name, source in sources.items():
        elsewhere = re.search(r"^from (efvae\.experiments\.\w+) import .*\bSTEM\b", source, re.MULTILINE)
        stem = re.search(r'^STEM = "(\w+)"', sources.get(elsewhere[1], "") if elsewhere else source, re.MULTILINE)
        if stem and "\ndef run(" in source:
            found[stem[1]] = name
    return found


def experiment(stem: str) -> Experiment:
    """Find an experiment by its stem, such as ``sec4_1_artificial``.

    Args:
        stem: its ``STEM``.

    Raises:
        UsageError: there is none; the message names the nearest.

    Own: own-sweep
    """
    stems = _stems()
    if stem not in stems:
        if Path(stem).suffix or os.sep in stem:
            raise UsageError(f"no experiment {shown(stem)}, nor a sweep file, whose name ends in .yaml or .yml")
        raise UsageError(f"no experiment {shown(stem)}: {nearest(stem, stems)}")
    return Experiment(stem, importlib.import_module(stems[stem]))


def read_file(path: Path) -> tuple[str, list[Grid]]:
    """Read a sweep file.

    ::

        stem: sec4_1_artificial
        grid:                       # or a list of such grids: their union
          encoder: [factorized, states]
          seed: 0:10                # 0, 1, ..., 9

    Every value is text here and read by the type of its field, so that YAML's own ideas (1:30 is ninety) do no harm.

    Args:
        path: a ``.yaml`` or ``.yml`` file.

    Returns:
        The stem, and the texts of each grid.

    Raises:
        UsageError: it cannot be read, or says something else.

    Own: own-sweep
    """
    import yaml

    try:
        content = read_texts(path.read_text(encoding="utf-8"), deepest=5)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the sweep file {shown(str(path))}: {one_line(error)}") from None
    expected = "expected 'stem: <experiment>' and 'grid:' with lines 'key: [v1, v2]'"
    if not isinstance(content, dict):
        raise UsageError(f"sweep file {shown(str(path))}: {expected}")
    if not isinstance(content.get("stem"), str):
        raise UsageError(f"sweep file {shown(str(path))} names no experiment: {expected}")
    for key in content:
        if key not in ("stem", "grid"):
            raise UsageError(f"sweep file {shown(str(path))}: unknown key {shown(key)}: {expected}")
    grids = content.get("grid")
    grids = grids if isinstance(grids, list) else [grids]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise UsageError(f"sweep file {shown(str(path))} has no grid, or an empty one: {expected}")
    return content["stem"], [{str(key): _texts(str(key), value) for key, value in grid.items()} for grid in grids]


def _texts(key: str, value: object) -> list[str]:
    """The alternatives of one line of a sweep file; an inner list is one value of a list."""
    if isinstance(value, str):
        return [value]
    texts = [",".join(item) if _is_flat(item) else item for item in value] if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{shown(key)}: expected a value or a list of values; got {shown(value)}")
    return texts


def _is_flat(item: object) -> bool:
    return isinstance(item, list) and all(isinstance(part, str) for part in item)


def cells_of(found: Experiment, grids: Sequence[Mapping[str, Sequence[str]]], words: Sequence[str] = ()) -> list[Cell]:
    """All combinations of the values of each grid, without repetitions, in their order.

    Args:
        found: the experiment.
        grids: texts of each key; the cells are those of all grids.
        words: ``key=v1,v2`` as typed; these replace the same key of every grid.

    Raises:
        UsageError: an unknown key, a value of another type, a combination that the experiment refuses, too many cells;
            several values of a key that make no difference to any of them.

    Own: own-sweep
    """
    kinds = found.kinds
    typed: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"expected key=v1,v2 or key=first:end; got {shown(word)}")
        if name in typed:
            raise UsageError(f"key {shown(name)} is given twice: give it once, with its values separated by commas")
        typed[name] = [text]
    cells: dict[str, Cell] = {}
    matters: dict[str, bool] = {}
    for grid in grids or [{}]:
        values = {name: _alternatives(name, texts, kinds) for name, texts in {**grid, **typed}.items()}
        count = math.prod(map(len, values.values()))
        if count + len(cells) > MOST_CELLS:
            raise UsageError(f"{count} cells are more than {MOST_CELLS}: give fewer values")
        made = {chosen: _cell(found, dict(zip(values, chosen, strict=True)))
                for chosen in itertools.product(*values.values())}  # fmt: skip
        for place, name in enumerate(values):
            if len({chosen[place] for chosen in made}) > 1:
                matters[name] = matters.get(name, False) or _matters(place, made)
        for cell in made.values():
            cells.setdefault(cell.digest, cell)
    idle = next((name for name, does in matters.items() if not does), None)
    if idle is not None:  # as what to do with bad files: nobody could say which of the values counts
        raise UsageError(f"several values of {shown(idle)}, on which no record here depends: give one")
    return list(cells.values())


def _matters(place: int, made: Mapping[tuple[Any, ...], Cell]) -> bool:
    """Whether the values at a place of the combinations lead to different cells."""
    by_value: dict[Any, set[str]] = {}
    for chosen, cell in made.items():
        by_value.setdefault(chosen[place], set()).add(cell.digest)
    first, *others = by_value.values()
    return any(digests != first for digests in others)


def _alternatives(name: str, texts: Sequence[str], kinds: Mapping[str, str]) -> list[Any]:
    """The values of one key; a list of texts stands for one alternative each, a single text may hold several."""
    values: list[Any] = []
    for text in texts:
        kind = kinds.get(name, "")
        parts = [text] if kind.startswith("list[") or len(texts) > 1 else text.split(",")
        for part in parts:
            span = _RANGE.fullmatch(part) if kind == "int" else None
            try:
                values += _whole(span[1], span[2]) if span else [read_value(name, part, kinds)]
            except ValueError as error:
                raise UsageError(str(error)) from None
    return values


def _whole(first: str, end: str) -> range:
    count = int(end) - int(first)
    if count > MOST_CELLS:
        raise ValueError(f"the range {first}:{end} stands for more than {MOST_CELLS} values: give fewer")
    if count < 1:
        raise ValueError(f"the range {first}:{end} stands for no value: expected first:end, such as 0:3 for 0,1,2")
    return range(int(first), int(end))


def _cell(found: Experiment, values: Mapping[str, Any]) -> Cell:
    label = " ".join(f"{name}={_spelled(value)}" for name, value in values.items()) or "defaults"
    try:
        asked = found.module.Config(**values)
        config = found.module.needed(asked) if hasattr(found.module, "needed") else asked
        digest = config_hash(found.stem, config_dict(config))[:8]
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"cell {shown(label)}: {one_line(error)}") from None
    return Cell(config, asked, label, digest)


def _spelled(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
