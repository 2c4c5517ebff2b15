"""The benchmark of FID's features: both ways see the same pictures, on a CPU and on a device.

Labels: tab-1, own-frechet.
"""

from __future__ import annotations

import contextlib
import importlib

import pytest
import torch
from torch import nn

from benchmarks import image_features
from efvae import devices, records
from efvae.metrics import inception
from tests.pretend import pretended_gpu


class Small(nn.Module):
    """Stands for pytorch-fid's network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return [self.layer(x).square().mean((2, 3), keepdim=True)]


@pytest.fixture
def small(monkeypatch, tmp_path):
    try:
        inception.ensure_torchvision()
        importlib.import_module("pytorch_fid")
    except (ImportError, inception.WeightsError):
        pytest.skip("pytorch-fid is not installed: pip install 'efvae[fid]'")

    def package_network():
        torch.manual_seed(0)
        return Small().requires_grad_(requires_grad=False)

    monkeypatch.setattr(image_features, "package_network", package_network)
    monkeypatch.setattr(inception, "FEATURES", 8)
    monkeypatch.setattr(image_features, "WIDTH", 4)
    monkeypatch.setattr(image_features, "WORKERS", 0)
    monkeypatch.setattr(image_features, "BATCH", 16)
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path))


def measured(tmp_path, *words) -> dict[str, float]:
    image_features.main(["--images", "50", "--rounds", "2", "--record", *words])
    (record,) = [r for r in records.load(image_features.STEM, tmp_path) if r.config["device"] in words or not words]
    assert record.provenance["device"] == record.config["device"]
    return record.metrics


def check(found, ways) -> None:
    for way in ways:
        assert found[f"images_a_second_{way}"] > 0
    assert found["ratio"] == pytest.approx(found["images_a_second_tensors"] / found["images_a_second_files"])
    for way in set(ways) - {"tensors", "files"}:
        assert found[f"ratio_{way}"] == pytest.approx(found[f"images_a_second_{way}"] / found["images_a_second_files"])
    assert {name for name in found if name.startswith("distance_")} == {
        f"distance_{way}_relative" for way in set(ways) - {"tensors", "floor"}
    }
    assert found["distance_files_relative"] < 1e-4
    assert found["distance_bfloat16_relative"] < 0.1


@pytest.mark.usefixtures("small")
def test_files_and_tensors_are_the_same_pictures(tmp_path, capsys):
    check(measured(tmp_path), ("files", "tensors", "bfloat16", "floor"))
    assert "50 images, 1 threads, CPU time:" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_on_a_device_time_is_taken_when_its_work_is_done(tmp_path, monkeypatch, capsys):
    waited, tf32 = [], []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    forward = Small.forward

    def spy(self, x):
        if x.device.type == "gpu":
            tf32.append(torch.backends.cudnn.allow_tf32)
        return forward(self, x)

    monkeypatch.setattr(Small, "forward", spy)
    before = torch.backends.cudnn.allow_tf32
    measured(tmp_path)
    assert not waited
    monkeypatch.setattr(torch, "autocast", lambda *_: contextlib.nullcontext())  # the pretended device knows none
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(devices, "find", torch.device)
        found = measured(tmp_path, "--device", "gpu")
    check(found, ("files", "tensors", "bfloat16", "tf32", "floor"))
    assert found["distance_tf32_relative"] == found["distance_bfloat16_relative"] == 0
    assert set(waited) == {torch.device("gpu")}
    assert len(waited) == 2 * (4 * 2 + 3 * 2)  # ways and convolutions of the floor, at the start and at the end
    # twice files, 50 at a time, and tensors in TF32, 16 at a time; float32 and bfloat16; once other pictures
    assert (tf32.count(True), tf32.count(False)) == (2 * (1 + 4), 2 * (4 + 4) + 4)
    assert torch.backends.cudnn.allow_tf32 == before
    assert "time of the wall with gpu" in capsys.readouterr().out
    assert len(records.load(image_features.STEM, tmp_path)) == 2  # none in the place of the other


@pytest.mark.usefixtures("small")
def test_a_device_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        image_features.main(["--device", "cuda"])
    assert "error: device cuda is not there" in capsys.readouterr().err
