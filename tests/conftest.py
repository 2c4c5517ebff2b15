"""Settings shared by all tests: one thread and a quiet kernel, as `make` sets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import KERNEL_ENV  # noqa: E402 - the folder above must be on the path first

os.environ.update(KERNEL_ENV)
os.environ.pop("EFVAE_RESULTS", None)
if not torch.cuda.is_available():  # read when the kernels are defined
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def book() -> Path:
    """The folder of the built pages; built first where that is needed."""
    built = subprocess.run([sys.executable, "-m", "tools.book"], cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.fail(f"the book does not build:\n{built.stderr}", pytrace=False)
    return ROOT / "_build" / "html"
