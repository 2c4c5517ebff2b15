"""The command ``efvae``: run a notebook, sweep an experiment, fetch data, compare the records with the paper.

Own: own-run
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from efvae import __version__
from efvae.data.cache import DataError
from efvae.parameters import UsageError
from efvae.records import RecordError
from efvae.records.command import complain, in_one_line
from efvae.sweep import command as sweep_command
from efvae.values import shown

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose refusals are one line, and that takes no word for another: ``--param`` is no option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Report bad input; exit code 2.

        Own: own-run
        """
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its words, by default those of the command line.

    Returns:
        The exit code: 0 done, 1 it ran and something failed, 2 bad input, no room on the disk (in a sweep: for a cell,
        whatever came of the others) or a package that is not installed, 130 interrupted, 141, as of a program that
        SIGPIPE ended, if nobody reads the output.

    Own: own-run
    """
    words, pairs = _take_pairs(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    options = parser.parse_args(words)
    if pairs and options.command != "run":
        parser.error("-p belongs to 'efvae run'")
    return in_one_line(lambda: _command(options, pairs), "efvae: ")


def _command(options: argparse.Namespace, pairs: list[tuple[str, str]]) -> int:
    try:
        if options.command == "run":
            return _run(options, pairs)
        return {"sweep": sweep_command.main, "data": _data, "scoreboard": _scoreboard}[options.command](options)
    except (UsageError, RecordError, DataError) as error:
        complain(f"efvae: error: {error}")
        return 2
    except OSError as error:
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        complain(f"efvae: error: cannot use {error.filename}: {error.strerror}")
        return 2


def _take_pairs(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Take ``-p NAME VALUE`` out first: a value may begin with a dash, which argparse would not let pass."""
    rest, pairs = [], []
    while words:
        word = words.pop(0)
        if word in ("-p", "--parameter") and len(words) >= 2:
            pairs.append((words.pop(0), words.pop(0)))
        else:
            rest.append(word)
    return rest, pairs


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="efvae", description="Executable companion of 'VAE Approximation Error'.")
    parser.add_argument("--version", action="version", version=f"efvae {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute a notebook with other parameters")
    run.add_argument("notebook", metavar="NOTEBOOK", help="its stem, such as sec4_1_artificial, or a path")
    run.add_argument("-p", "--parameter", nargs=2, metavar=("NAME", "VALUE"), help="set one parameter; may be repeated")
    run.add_argument(
        "--profile",
        metavar="NAME",
        help="a name of notebooks/params/<notebook>.NAME.yaml, such as smoke, or a YAML file",
    )
    run.add_argument("-o", "--output", type=Path, metavar="OUT.ipynb", help="default: a file in _build/runs")
    run.add_argument("--list", action="store_true", help="list the parameters and run nothing")

    sweep = commands.add_parser("sweep", help="compute many cells of an experiment; those recorded are skipped")
    sweep_command.add_arguments(sweep)

    data = commands.add_parser(
        "data", help="fetch or verify a data set, in EFVAE_DATA or in the cache; CelebA in EFVAE_IMAGES"
    )
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download what is missing, check it, install it; print its folder")
    fetch.add_argument("--from", dest="address", metavar="URL", help="a mirror that holds the same files")
    verify = actions.add_parser("verify", help="check each file; print its folder")
    for action in (fetch, verify):
        action.add_argument("name", metavar="NAME", help="20news, images or celeba")

    board = commands.add_parser(
        "scoreboard", help="compare the records with the paper's numbers, and write results/scoreboard.csv"
    )
    board.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the file is out of date")
    return parser


def _run(options: argparse.Namespace, pairs: list[tuple[str, str]]) -> int:
    from efvae import runner

    with contextlib.suppress(ValueError):  # called in a thread
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as after Ctrl-C the kernel stops, nothing is left

    for name in dict(pairs):
        if sum(name == given for given, _ in pairs) > 1:
            raise UsageError(f"parameter {shown(name)} is given twice: give it once")
    path = runner.find_notebook(options.notebook)
    parameters = runner.declared_parameters(path)
    values = runner.chosen_values(path, parameters, pairs, options.profile)
    if options.list:
        for p in parameters:
            allowed = f"{p.allowed.text}: " if p.allowed else ""
            print(f"{p.name}: {p.kind} = {values.get(p.name, p.default)!r}  # {allowed}{p.help}")
        return 0
    try:
        print(runner.execute(path, values, options.output))
    except runner.RunError as error:
        print(f"efvae: {error}", file=sys.stderr)
        return 1
    return 0


def _data(options: argparse.Namespace) -> int:
    from efvae.data import catalog

    if options.action == "verify":
        folder = catalog.verify(options.name)
    else:
        folder = catalog.fetch(options.name, options.address, lambda line: print(f"efvae: {line}", file=sys.stderr))
    print(folder)
    return 0


def _scoreboard(options: argparse.Namespace) -> int:
    from efvae import scoreboard

    return scoreboard.main(check=options.check)


if __name__ == "__main__":
    sys.exit(main())
