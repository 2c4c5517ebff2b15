"""One experiment from a shell, without Jupyter: ``python -m efvae.experiments.NAME key=value ...``.

Own: own-records
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from efvae import places
from efvae.records.origin import results_root
from efvae.records.record import Record
from efvae.values import TYPES, nearest, parse, shown

__all__ = ["complain", "config_kinds", "hush", "in_one_line", "lacking", "main", "out_of_memory", "read_value"]

#: How a failed allocation is told where it is no error of its own type.
ALLOCATION = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")

_USAGE = """usage: python -m {module} [key=value ...] [--results DIR] [--refresh]{options}

  --results DIR      folder of records (default: {root})
  --refresh          compute again although the record exists
{explained}keys:
{keys}"""


def main(config_type: type, run: Callable[..., Record], argv: Sequence[str] | None = None) -> int:
    """Run one experiment with values given as ``key=value``; print the record's name and its metrics.

    Args:
        config_type: the experiment's frozen dataclass; its annotations say how each value is read.
        run: ``run(config, results=..., refresh=...)``, and ``checkpoint=...`` and ``device=...`` where it takes them.
        argv: the words, by default those of the command line.

    Returns:
        The exit code: 0; 1 after a run that could not go on, for want of memory or since its loss became NaN; 2 after
        bad input, a checkpoint that cannot be used or written included, or a package that is not installed; 130 after
        Ctrl-C. Each is reported in one line. 141, as of a program that SIGPIPE ended, if nobody reads the output.

    Own: own-records
    """
    return in_one_line(lambda: _main(config_type, run, list(sys.argv[1:] if argv is None else argv)))


def in_one_line(command: Callable[[], int], prefix: str = "") -> int:
    """Run a command; that it was interrupted, lacks a package, room or its reader is a line and an exit code.

    Args:
        command: gives its exit code.
        prefix: of the line.

    Returns:
        What the command gave; 2 if an optional package is not installed or a disk is full, be it that of the output;
        130 after Ctrl-C; 141 if nobody reads the output.

    Own: own-records
    """
    try:
        code = command()
        sys.stdout.flush()  # a reader that is gone shows here, not while Python ends
    except ImportError as error:
        if not (told := lacking(error)):
            raise
        complain(f"{prefix}error: {told}")
        return 2
    except KeyboardInterrupt:
        complain(f"{prefix}interrupted")
        return 130
    except BrokenPipeError:
        hush()
        return 141
    except OSError as error:
        if error.errno not in places.NO_ROOM:
            raise
        hush()  # what could not be told would be tried once more when Python ends
        where = error.filename or "the output"
        complain(f"{prefix}error: cannot write {where}: {error.strerror}; free some space")
        return 2
    return code


def complain(line: str) -> None:
    """Tell an error, unless that cannot be told either: the exit code says it then.

    Args:
        line: what is told.

    Own: own-records
    """
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def lacking(error: ImportError) -> str | None:
    """What to install, in one line; None if the package is none of the optional ones.

    Args:
        error: what an import raised.

    Own: own-records
    """
    if "pip install" in str(error):  # says it itself
        return str(error)
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package) if isinstance(error, ModuleNotFoundError) else None
    return f"this needs {package}, which is not installed: pip install 'efvae[{extra}]'" if extra else None


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the host or on an accelerator.

    Args:
        error: what was raised.

    Own: own-records
    """
    torch = sys.modules.get("torch")  # what did not import it did not run out of its memory
    known = isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))
    return known or any(text in str(error) for text in ALLOCATION)


def hush() -> None:
    """Send further output nowhere: nobody reads it, and Python would complain of that when it ends.

    Own: own-records
    """
    with contextlib.suppress(OSError, ValueError):  # not a file, as under a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _main(config_type: type, run: Callable[..., Record], words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(_help(config_type, run))
        return 0
    try:
        values, options = _split(words, config_type, run)
        record = run(config_type(**values), **options)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:  # RecordError is a ValueError; what cannot be read or written an OSError
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            first = (str(error) or "an allocation failed").splitlines()[0]
            print(f"error: out of memory: {first}: take a smaller width, size or batch", file=sys.stderr)
            return 1
        if not type(error).__module__.startswith("efvae."):
            raise  # not one of ours, such as TrainingError: the traceback is wanted
        print(f"error: {error}", file=sys.stderr)
        return 2 if type(error).__module__ == "efvae.checkpoint" else 1  # by name: importing it would take torch
    print(f"{record.stem}/{record.cell}.json")
    for name, value in sorted(record.metrics.items()):  # as they are in the file, the next time
        print(f"  {name} = {value}")
    return 0


def config_kinds(config_type: type) -> dict[str, str]:
    """The fields of a config and how each is read: one of ``efvae.values.TYPES``, or the type as it is written.

    Args:
        config_type: a dataclass.

    Own: own-records
    """
    # annotations are text under postponed evaluation, types otherwise
    kinds = {field.name: field.type for field in dataclasses.fields(config_type)}
    names = {name: kind.__name__ if isinstance(kind, type) else str(kind) for name, kind in kinds.items()}
    return {
        name: f"list[{kind[6:].split(',')[0].strip(' ]')}]" if kind.startswith("tuple[") else kind
        for name, kind in names.items()
    }


def read_value(name: str, text: str, kinds: Mapping[str, str]) -> Any:
    """Read the value of one field of a config from text; a list comes as a tuple.

    Args:
        name: the field.
        text: as typed.
        kinds: what ``config_kinds`` says.

    Raises:
        ValueError: no such field, or text of another type; the message is one line.

    Own: own-records
    """
    if name not in kinds:
        raise ValueError(f"unknown key {shown(name)}: {nearest(name, kinds)}")
    if kinds[name] not in TYPES:
        raise ValueError(f"{name}: a value of type {kinds[name]} cannot be given here")
    try:
        value = parse(text, kinds[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return tuple(value) if isinstance(value, list) else value


def _split(words: list[str], config_type: type, run: Callable[..., Record]) -> tuple[dict[str, Any], dict[str, Any]]:
    kinds = config_kinds(config_type)
    values: dict[str, Any] = {}
    options: dict[str, Any] = {"refresh": False}
    while words:
        word = words.pop(0)
        if word == "--refresh":
            options["refresh"] = True
        elif word == "--results" or (word in _OPTIONS and _takes(run, word)):
            if not words or not words[0] or words[0].startswith("--"):
                raise ValueError(f"{word} needs a {'name' if word == '--device' else 'path'} after it")
            if word[2:] in options:
                raise ValueError(f"{word} is given twice: give it once")
            options[word[2:]] = words.pop(0) if word == "--device" else Path(words.pop(0))
        else:
            name, value = _pair(word, kinds)
            if name in values:
                raise ValueError(f"key {shown(name)} is given twice: give it once")
            values[name] = value
    return values, {"results": results_root()} | options


def _pair(word: str, kinds: dict[str, str]) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or word.startswith("-"):
        raise ValueError(f"expected key=value; got {shown(word)}")
    return name, read_value(name, text, kinds)


#: The extra of pyproject.toml that brings each optional package.
_EXTRAS = {
    "PIL": "images",
    "matplotlib": "notebooks",
    "papermill": "notebooks",
    "pytorch_fid": "fid",
    "safetensors": "train",
    "sklearn": "digits",
    "torchvision": "fid",
    "yaml": "notebooks",
}

#: Options that not every experiment takes: how their value is written, and what they do.
_OPTIONS = {
    "--checkpoint": ("DIR", "where to save the state of training, and to go on from if there is one"),
    "--device": ("NAME", "where to compute: cpu (default), cuda, cuda:1, or auto for cuda where there is one"),
}


def _takes(run: Callable[..., Record], option: str) -> bool:
    return option[2:] in inspect.signature(run).parameters


def _help(config_type: type, run: Callable[..., Record]) -> str:
    kinds = config_kinds(config_type)
    keys = []
    for field in dataclasses.fields(config_type):
        default = "required" if field.default is dataclasses.MISSING else f"default {field.default!r}"
        keys.append(f"  {field.name}: {kinds[field.name]} ({default})")
    taken = {option: told for option, told in _OPTIONS.items() if _takes(run, option)}
    options = "".join(f" [{option} {value}]" for option, (value, _) in taken.items())
    explained = "".join(f"  {f'{option} {value}':<19}{text}\n" for option, (value, text) in taken.items())
    spec = sys.modules["__main__"].__spec__  # under -m the config's own module is called __main__
    module = spec.name if spec else config_type.__module__
    return _USAGE.format(module=module, root=results_root(), keys="\n".join(keys), options=options, explained=explained)
