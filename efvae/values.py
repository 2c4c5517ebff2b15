"""Typed values from text, allowed ranges, the nearest name: for the command line and the experiments.

Nothing here evaluates text as code: a value is read by its declared type, or refused by a ``ValueError``
of one line.

Own: own-run
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["TYPES", "Range", "check_fields", "check_whole", "convert", "nearest", "parse", "parse_range"]

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]

SCALARS = ("bool", "int", "float", "str")
TYPES = (*SCALARS, "list[int]", "list[float]", "list[str]")

_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number such as 16",
    "float": "a finite number such as 0.5 or 1e-3",
    "str": "text",
    "list[int]": "whole numbers separated by commas, such as 1,2,3",
    "list[float]": "finite numbers separated by commas, such as 0.1,1e-3",
    "list[str]": "texts separated by commas, such as a,b",
}


#: Numbers beyond, or the steps that Adam makes of them, are zero, infinite or errors of torch in float32.
TAME = (1e-36, 1e36)

#: Writes a value with its first 20 items, to depth 3: all that can be seen of a message's 50 characters.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = _BRIEF.maxset = _BRIEF.maxfrozenset = 20
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 200


def check_fields(
    config: Any,
    *,
    choices: Mapping[str, Iterable[object]] | None = None,
    least: Mapping[str, int] | None = None,
    within: Mapping[str, tuple[int, int]] | None = None,
    positive: Sequence[str] = (),
) -> None:
    """Refuse a configuration with a value out of its range or of another type than its field.

    Args:
        config: an instance of a dataclass.
        choices: allowed values of some fields.
        least: smallest value of some whole numbers; all of them are below 2**31.
        within: smallest and largest value of some whole numbers.
        positive: fields that are positive numbers, between 1e-36 and 1e36.

    Raises:
        ValueError: the first that is wrong, in one line.

    Own: own-run
    """
    _check_numbers(config)
    for name, allowed in (choices or {}).items():
        if (value := getattr(config, name)) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}")
    for name, low in (least or {}).items():
        if (value := getattr(config, name)) < low:
            raise ValueError(f"{name} must be a whole number of at least {low}; got {value}")
        if value >= 2**31:
            raise ValueError(f"{name} must be below 2**31; got {value}")
    for name, (low, high) in (within or {}).items():
        if not low <= (value := getattr(config, name)) <= high:
            raise ValueError(f"{name} must be a whole number in [{low}, {high}]; got {value}")
    for name in positive:
        _check_positive(name, getattr(config, name))


def check_whole(where: str, name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or too small a one.

    Args:
        where: the caller, for the message.
        name: of the argument.
        value: as given.
        least: smallest value.

    Raises:
        ValueError: so it is.

    Own: own-records
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{where}: {name} must be a whole number of at least {least}, got {shown(value)}")


def _check_positive(name: str, value: object) -> None:
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise ValueError(f"{name} must be a positive number; got {shown(value)}")
    if not TAME[0] <= value <= TAME[1]:
        raise ValueError(f"{name} must be between {TAME[0]:g} and {TAME[1]:g}; got {shown(value)}")


def _check_numbers(config: Any) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        for type_, allowed, told in ((int, int, "a whole number"), (float, (int, float), "a number")):
            if field.type in (type_, type_.__name__) and (not isinstance(value, allowed) or isinstance(value, bool)):
                raise ValueError(f"{field.name} must be {told}; got {shown(value)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Write a clause that helps after an unknown name: the nearest known one, or all of them.

    Args:
        name: the unknown name.
        names: the known names.

    Own: own-run
    """
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"expected one of: {', '.join(known)}" if known else "there are none"


def shown(value: object) -> str:
    """Show a value in an error message: quoted, printable, on one line, cut after 50 characters.

    Of a value that is no text, such as lists in lists, no more is written out than is shown.

    Args:
        value: anything.

    Own: own-run
    """
    if isinstance(value, str):
        text = ascii(value)
        return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
    text = _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:50]}..."


def parse(text: str, kind: str) -> Value:
    """Read one value of a declared type from text.

    Args:
        text: as typed on a command line; lists are comma-separated, empty text is the empty list.
        kind: one of ``TYPES``.

    Raises:
        ValueError: the text is not of that type; the message says what was expected.

    Own: own-run
    """
    if kind.startswith("list["):
        inner = kind[5:-1]
        try:
            return [_scalar(part.strip(), inner) for part in text.split(",")] if text.strip() else []
        except ValueError:
            raise ValueError(f"expected {_EXPECTED[kind]}; got {shown(text)}") from None
    return _scalar(text, kind)


def _scalar(text: str, kind: str) -> Scalar:
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.strip().lower()]
        if kind == "int":
            return int(text)
        if kind == "float":
            return _finite(float(text))
        text.encode()  # text that UTF-8 cannot hold (lone surrogates) could not be written into a notebook
        return text
    except (ValueError, KeyError):
        raise ValueError(f"expected {_EXPECTED[kind]}; got {shown(text)}") from None


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


def convert(value: object, kind: str) -> Value:
    """Bring an already typed value (a default), or text and lists of texts (from YAML), to a declared type.

    Text is read by ``parse``. A whole number serves as a float, nothing else changes its type.

    Args:
        value: as it came.
        kind: one of ``TYPES``.

    Raises:
        ValueError: wrong type; the message says what was expected.

    Own: own-run
    """
    if isinstance(value, str):
        return parse(value, kind)
    if kind.startswith("list[") and isinstance(value, (list, tuple)):
        return [_typed_scalar(item, kind[5:-1]) for item in value]
    return _typed_scalar(value, kind)


def _typed_scalar(value: object, kind: str) -> Scalar:
    if isinstance(value, str) and kind in SCALARS:
        return _scalar(value, kind)
    if isinstance(value, bool):
        if kind == "bool":
            return value
    elif isinstance(value, int) and kind == "int":
        return value
    elif isinstance(value, (int, float)) and kind == "float":
        try:
            return _finite(float(value))
        except (ValueError, OverflowError):
            pass  # falls through to the refusal
    raise ValueError(f"expected {_EXPECTED[kind]}; got {shown(value)}")


@dataclass(frozen=True)
class Range:
    """An allowed range: an interval, or a set of choices. ``text`` is what the author wrote, for messages.

    Own: own-run
    """

    text: str
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    choices: tuple[Scalar, ...] = ()

    def __contains__(self, value: object) -> bool:
        """Whether a value, or every item of a list, is allowed.

        Own: own-run
        """
        if isinstance(value, list):
            return all(item in self for item in value)
        if self.choices:
            return value in self.choices
        if not isinstance(value, (int, float)):
            return False
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below


_BOUND = r"[^\s,\[\](){}]+"
_INTERVAL = re.compile(rf"in\s*(?P<open>[\[(])\s*(?P<low>{_BOUND})\s*,\s*(?P<high>{_BOUND})\s*(?P<close>[\])])")
_CHOICES = re.compile(r"in\s*\{(?P<items>[^{}]+)\}")


def parse_range(comment: str, kind: str) -> tuple[Range | None, str]:
    """Split a parameter's comment into its allowed range (if it starts with one) and the help text.

    ::

        in [0, 1)  in (0, inf)  in [0, 2**31)      intervals, round brackets exclude the end
        in {cpu, cuda}                             choices, read by the parameter's type

    Args:
        comment: the text after ``#``.
        kind: the parameter's type, one of ``TYPES``; for a list the range holds for each item.

    Raises:
        ValueError: the comment starts like a range but is none.

    Own: own-run
    """
    comment = comment.strip()
    if not re.match(r"in\s*[\[({]", comment):
        return None, comment
    inner = kind[5:-1] if kind.startswith("list[") else kind
    match = _INTERVAL.match(comment) or _CHOICES.match(comment)
    if match is None or ("low" in match.groupdict() and inner not in ("int", "float")):
        raise ValueError(
            f"cannot read the range in {shown(comment)}; expected for instance 'in [0, 1)' or 'in {{a, b}}'"
        )
    text, rest = match.group(), comment[match.end() :].lstrip(" :")
    if "items" in match.groupdict():
        choices = tuple(_scalar(item.strip().strip("\"'"), inner) for item in match["items"].split(","))
        return Range(text, choices=choices), rest
    low, high = _bound(match["low"]), _bound(match["high"])
    return Range(text, low, high, match["open"] == "(", match["close"] == ")"), rest


def _bound(text: str) -> float:
    """Read a number, inf, -inf or a power such as 2**31; exact for whole numbers."""
    power = re.fullmatch(r"(-?)(\d+)\*\*(\d{1,3})", text)
    if power:
        return int((-1 if power[1] else 1) * int(power[2]) ** int(power[3]))
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if math.isnan(number):
            raise ValueError("a bound cannot be nan") from None
        return number
