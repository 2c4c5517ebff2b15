"""An experiment of no time at all, without torch, that fails as its configuration says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from efvae import records
from efvae.records import Record

STEM = "sec0_faulty"
KINDS = ("fine", "nan", "exit", "killed", "value", "bare", "lying")


@dataclass(frozen=True)
class Config:
    kind: str = "fine"
    seed: int = 0
    team: int = -1
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    joint: bool = True
    seconds: float = 0.0
    entries: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")


def data_sha256(config: Config) -> str | None:
    path = os.environ.get("FAULTY_DATA")
    return Path(path).read_text("utf-8") if path else None


def together(config: Config) -> object:
    return ("team", config.team) if config.team >= 0 else config


def run(config: Config, *, results: Path, refresh: bool = False) -> Record:
    known = None if refresh else records.find(STEM, config, results, data_sha256(config))
    return known or _compute(config, results)


def run_together(
    configs: list[Config], *, results: Path, refresh: bool, checkpoint: Path, progress: Callable[..., None]
) -> list[Record]:
    progress("step", 1, "of", 2)
    if len(configs) > int(os.environ.get("FAULTY_ROOM", "1000")):
        raise MemoryError("no room for so many")
    return [run(config, results=results, refresh=refresh) for config in configs]


def _compute(config: Config, results: Path) -> Record:
    if log := os.environ.get("FAULTY_LOG"):  # one line for each computation: double work shows
        with Path(log).open("a") as file:
            file.write(f"{config.seed} {config.kind}\n")
    if held := os.environ.get("FAULTY_UNTIL"):  # computing, until the test says that it is done
        while not Path(held).exists():
            time.sleep(0.01)
    time.sleep(config.seconds)
    if config.kind == "nan":
        raise FloatingPointError("the loss is nan")
    if config.kind == "value":
        raise ValueError("this cell\ncannot be")
    if config.kind == "exit":
        print("last words", flush=True)
        os._exit(7)
    if config.kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    plain = records.config_dict(config)
    data = data_sha256(config)
    provenance = dict.fromkeys(("commit", "dirty", "versions", "cpu", "time"), None) | {"device": "cpu"}
    record = Record(
        STEM,
        records.cell_name(STEM, plain, data),
        plain,
        {"value": float(config.seed)},
        {"entry": [0.0] * config.entries},
        provenance | {"seconds": 2.0, "data_sha256": data},
    )
    if config.kind != "lying":
        records.write(record, results)
    return record
