"""The process that trains one group: a JSON line in, a JSON line out for whatever is settled.

It ends when its driver does, so that a killed sweep leaves nothing running. What it prints goes to the log.

Own: own-sweep
"""

from __future__ import annotations

import ast
import contextlib
import glob
import hashlib
import importlib
import inspect
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from efvae import places
from efvae.parameters import one_line
from efvae.records import Record, config_dict, config_hash, read, same
from efvae.records.command import lacking, out_of_memory

__all__ = ["main"]

#: Modules that compute nothing of a result.
BESIDE = ("efvae.sweep", "efvae.records", "efvae.parameters", "efvae.values", "efvae.plots", "efvae.checkpoint")

Tell = Callable[..., None]


def main() -> int:
    """Train the group that the line on standard input describes.

    Returns:
        The exit code: 0, since something was said of every cell.

    Own: own-sweep
    """
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an experiment prints is for the log

    def tell(**message: object) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    module = importlib.import_module(request["module"])
    configs = [_config(module, values) for values in request["configs"]]
    folder = _checkpoint_folder(request["data"], Path(request["checkpoint"]), tell)
    offered = {
        "results": Path(request["results"]),
        "refresh": request["refresh"],
        "checkpoint": folder,
        "device": request["device"],
        "progress": lambda *words: tell(progress=" ".join(map(str, words))),
    }
    together = len(configs) > 1 and hasattr(module, "run_together")
    run = module.run_together if together else module.run
    taken = {name: value for name, value in offered.items() if name in inspect.signature(run).parameters}
    for batch in [configs] if together else [[config] for config in configs]:
        compute = partial(_compute, folder, run, batch if together else batch[0], **taken)
        _settle(module, batch, compute, Path(request["results"]), tell)
    return 0


def _settle(module: ModuleType, batch: Sequence[object], compute: Callable[[], Any], results: Path, tell: Tell) -> None:
    """Compute a batch and say what came of it."""
    of_record = getattr(module, "needed", lambda config: config)
    digests = [config_hash(module.STEM, config_dict(of_record(config)))[:8] for config in batch]
    try:
        answer = _past_damage(compute, tell)
        records: list[Record] = answer if isinstance(answer, list) else [answer]
        for record in records:
            path = results / record.stem / f"{record.cell}.json"
            if not same(read(path), record):
                raise RuntimeError(f"{path} holds something else than was computed")
        written = {config_hash(record.stem, record.config)[:8] for record in records}
        if written != set(digests):
            raise RuntimeError(f"{len(digests)} cells were asked for, {len(written & set(digests))} have a record")
    except Exception as error:  # whatever it is, it is this batch's own
        with contextlib.suppress(OSError):  # the disk may be full
            traceback.print_exc()
        tell(failed=digests, reason=_reason(error), full=places.is_full(error))
    else:
        tell(done=digests)


def _compute(folder: Path, run: Callable[..., Any], what: object, **taken: object) -> Any:
    """Run, with a folder of checkpoints: that there is no room for one is a reason like others."""
    folder.mkdir(parents=True, exist_ok=True)
    return run(what, **taken)


def _past_damage(compute: Callable[[], Any], tell: Tell) -> Any:
    """Compute; a checkpoint that turns out to be damaged is set aside, and its cell starts anew."""
    met: set[Path] = set()
    while True:
        try:
            return compute()
        except Exception as error:
            path = getattr(error, "path", None)
            if not _is_from(error, "efvae.checkpoint", "CheckpointError") or path is None or path in met:
                raise
            met.add(path)
            aside = path.with_name(f"{path.name}.damaged")
            for one in (path, *_parts(path)):  # without the first the others would have to be completed
                one.replace(one.with_name(f"{one.name}.damaged"))
            tell(note=f"{one_line(error).split(': delete', 1)[0]}; it is now {aside.name}, and its cell starts anew")


def _parts(path: Path) -> list[Path]:
    """Of a checkpoint in several files the other ones, ``<stem>.<number>.safetensors``."""
    others = path.parent.glob(f"{glob.escape(path.stem)}.*{path.suffix}")
    return [other for other in others if other.name[len(path.stem) + 1 : -len(path.suffix)].isdigit()]


def _config(module: ModuleType, values: dict[str, Any]) -> Any:
    return module.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _checkpoint_folder(data: Sequence[str | None], root: Path, tell: Tell) -> Path:
    """The part of the folder of checkpoints that belongs to this code and these data: nobody continues with others."""
    folder = root / _state(data)
    others = [other.name for other in root.glob("*")] if root.is_dir() else []
    if others and not folder.is_dir():
        tell(note=f"checkpoints of other code or data in {root} are not used")
    return folder


def _state(data: Sequence[str | None]) -> str:
    """Hash of what an unfinished run depends on besides its configuration."""
    digest = hashlib.sha256(version("torch").encode())
    for name, loaded in sorted(sys.modules.items()):
        if name.startswith("efvae.") and not name.startswith(BESIDE) and loaded.__file__:
            digest.update(f"{name}\0{_code(Path(loaded.__file__))}\0".encode())
    # as the driver told them: images would have to be decoded once more
    digest.update(repr(sorted(set(map(str, data)))).encode())
    return digest.hexdigest()[:8]


def _code(path: Path) -> str:
    """What a source file does: without comments and docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]
    return ast.dump(tree)


def _is_from(error: BaseException, module: str, name: str) -> bool:
    """Whether it is of a class of a module that only training loads."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError) and (lack := lacking(error)):
        return lack
    if out_of_memory(error):
        return f"out of memory: {one_line(error)}"
    told = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("efvae.")
    return one_line(error) if told else f"{type(error).__name__}: {one_line(error)}"


def _end_with_the_driver() -> None:
    while os.read(0, 1024):
        pass
    os._exit(3)  # the other end is closed: nobody waits for an answer


if __name__ == "__main__":
    sys.exit(main())
