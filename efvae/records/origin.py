"""Where things are and what computed a result: project folder, commit, versions, device, time.

Own: own-records
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from efvae.places import expanded

__all__ = ["device_name", "project_root", "provenance", "results_root"]


def project_root() -> Path:
    """Find the checkout that this package lies in; without one (an installed wheel), the current folder.

    Own: own-records
    """
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else Path.cwd()


def results_root() -> Path:
    """Find the folder of records: the environment variable ``EFVAE_RESULTS`` if set, else ``results``.

    Raises:
        RecordError: the variable begins with ``~`` and means no home folder that is known.

    Own: own-records
    """
    named = os.environ.get("EFVAE_RESULTS")
    if not named:
        return project_root() / "results"
    from efvae.records.record import RecordError  # that module imports this one

    try:
        return expanded(named) if named.startswith("~") else Path(named)
    except ValueError as error:
        raise RecordError(f"EFVAE_RESULTS: {error}") from None


def device_name(device: str) -> str:
    """How a record names a device: the product's name of a CUDA device, any other as it is.

    Args:
        device: as torch names it, such as "cpu" or "cuda:0"; a remark may follow "cpu".

    Own: own-records
    """
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def provenance(*, seconds: float, device: str = "cpu", data_sha256: str | None = None) -> dict[str, object]:
    """Describe what computed a result. None of it counts when two records are compared.

    ::

        commit   the variable EFVAE_COMMIT; without it of the checkout, or null where there is no git
        dirty    whether efvae/ differed from that commit; null where nobody can say

    Args:
        seconds: wall-clock time of the computation.
        device: see :func:`device_name`.
        data_sha256: checksum of the data, or None for data made on the spot.

    Own: own-records
    """
    import numpy as np
    import torch

    import efvae

    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "efvae": efvae.__version__,
            # where its compiled loops were taken, which compute in float32 whatever precision is asked for
            **({"numba": str(sys.modules["numba"].__version__)} if "efvae.text.kernels" in sys.modules else {}),
        },
        "device": device_name(device),
        "cpu": _cpu_model(),
        "seconds": round(float(seconds), 3),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_sha256": data_sha256,
    }


def _commit() -> tuple[str | None, bool | None]:
    if said := os.environ.get("EFVAE_COMMIT"):  # it is given where git does not know, and may tell another
        return said, None
    root = project_root()
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, None  # no git, or a checkout of something else around us
    changes = _git(root, "status", "--porcelain", "--", "efvae")
    return _git(root, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(root: Path, *words: str) -> str | None:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
