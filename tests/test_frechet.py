"""The Fréchet distance against closed forms, its moments against numpy, and the network of FID where it can be had.

Labels: tab-1, own-frechet.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from efvae import devices
from efvae.metrics import inception
from efvae.metrics.frechet import Moments, distance, frechet_distance, moments
from efvae.metrics.inception import WeightsError

ROOT = Path(__file__).resolve().parents[1]


def random_covariance(d: int, seed: int, rank: int | None = None) -> torch.Tensor:
    a = torch.randn(d, rank or d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / d


def test_commuting_covariances_have_a_closed_form():
    a, b = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([0.0, 2.0, 3.0]).double()
    s, t = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.25]).double()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    expected = 10 + ((s.sqrt() - t.sqrt()) ** 2).sum()  # |a − b|² + Σ (√s − √t)²
    found = frechet_distance(turn @ a, turn @ s.diag() @ turn.T, turn @ b, turn @ t.diag() @ turn.T)
    assert found == pytest.approx(float(expected), abs=1e-10)


def test_two_dimensions_by_trace_and_determinant():
    # tr √M = √(tr M + 2 √det M) for 2 × 2 matrices, here M = C₁ C₂ which does not commute
    first, second = random_covariance(2, 1), random_covariance(2, 2)
    assert not torch.allclose(first @ second, second @ first)
    m = first @ second
    root = (m.trace() + 2 * m.det().sqrt()).sqrt()
    zero = torch.zeros(2)
    expected = first.trace() + second.trace() - 2 * root
    assert frechet_distance(zero, first, zero, second) == pytest.approx(float(expected), rel=1e-10)


def test_it_is_symmetric_and_zero_at_itself_also_below_full_rank():
    first, second = random_covariance(40, 3, rank=10), random_covariance(40, 4, rank=10)
    a, b = torch.randn(2, 40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert frechet_distance(a, first, a, first) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, first, b, second) == pytest.approx(frechet_distance(b, second, a, first), rel=1e-7)


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected means \(d,\) and covariances \(d, d\)"):
        frechet_distance(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.zeros(2), torch.eye(2), torch.tensor([0, torch.nan]), torch.eye(2))
    with pytest.raises(ValueError, match="at least 2 rows"):
        _ = Moments.empty(2).covariance
    with pytest.raises(ValueError, match="no images"):
        moments([], lambda x: x)


def test_moments_by_batches_are_those_of_all_rows():
    rows = 1e3 + torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    streamed = Moments.empty(6)
    for part in rows.split([1, 99, 0, 250, 150]):
        streamed.add(part)
    assert streamed.count == 500
    np.testing.assert_allclose(streamed.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(rows.numpy().T), rtol=1e-9)


def test_the_distance_of_samples_nears_that_of_their_laws():
    source = torch.Generator().manual_seed(1)
    images = [torch.randn(20000, 3, 1, 1, generator=source).clamp(-0.9, 0.9) / k for k in (1, 2)]
    found = distance(*(moments(x.split(1000), lambda x: x.flatten(1)) for x in images))
    spread = float(images[0].double().std())
    assert found == pytest.approx(3 * (spread / 2) ** 2, rel=0.05)
    outside = moments([torch.full((4, 3, 1, 1), 7.0), -torch.ones(4, 3, 1, 1)], lambda x: x.flatten(1))
    assert outside.mean.tolist() == [0, 0, 0]  # clipped at 1


def test_pytorch_fid_says_the_same():
    try:
        inception.ensure_torchvision()
        from pytorch_fid.fid_score import calculate_frechet_distance
    except (ImportError, WeightsError):
        pytest.skip("pytorch-fid is not installed: pip install 'efvae[fid]'")
    first, second = random_covariance(16, 1), random_covariance(16, 2)
    a, b = torch.randn(2, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    theirs = calculate_frechet_distance(a.numpy(), first.numpy(), b.numpy(), second.numpy())
    assert frechet_distance(a, first, b, second) == pytest.approx(float(theirs), rel=1e-8)


def test_the_tests_install_what_they_compare_with():
    """Or the test above is skipped where it may not be."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["fid"]
    wanted = [line for line in extra if not line.startswith("pillow")]  # matplotlib brings it
    assert len(wanted) == 2
    assert set(wanted) <= set((ROOT / "requirements-test.txt").read_text().splitlines())


def test_missing_and_wrong_weights_are_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("EFVAE_INCEPTION", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"FID needs the weights pt_inception.*releases.*EFVAE_INCEPTION") as missing:
        inception.find_weights()
    assert "\n" not in str(missing.value)
    wrong = tmp_path / inception.WEIGHTS
    wrong.write_bytes(b"anything")
    monkeypatch.setenv("EFVAE_INCEPTION", str(wrong))
    with pytest.raises(WeightsError, match=r"is altered: sha256 .*expected 6726825d"):
        inception.features()


def test_weights_are_compared_by_the_whole_checksum(tmp_path, monkeypatch):
    assert re.fullmatch("[0-9a-f]{64}", inception.SHA256)
    assert inception.WEIGHTS.endswith(f"-{inception.SHA256[:8]}.pth")
    found = hashlib.sha256(b"anything").hexdigest()
    (tmp_path / "w.pth").write_bytes(b"anything")
    monkeypatch.setattr(inception, "SHA256", found)
    assert inception.find_weights(tmp_path / "w.pth") == tmp_path / "w.pth"
    monkeypatch.setattr(inception, "SHA256", found[:-1] + ("0" if found[-1] != "0" else "1"))
    with pytest.raises(WeightsError, match="is altered"):
        inception.find_weights(tmp_path / "w.pth")


def test_features_go_through_pytorch_fids_network_in_eight_bits(tmp_path, monkeypatch):
    """A stand-in for the package: what it is given, and where its weights come from."""
    seen = {}

    class InceptionV3(torch.nn.Module):
        BLOCK_INDEX_BY_DIM: ClassVar = {2048: 3}

        def __init__(self, blocks):
            super().__init__()
            seen["blocks"] = blocks
            seen["state"] = package.load_state_dict_from_url("an address", progress=True)

        def forward(self, x):
            seen["input"] = x
            return [x.mean((2, 3), keepdim=True)]

    package = types.ModuleType("pytorch_fid.inception")
    package.InceptionV3 = InceptionV3
    package.load_state_dict_from_url = lambda *_, **__: pytest.fail("it must not go to the network")
    monkeypatch.setitem(sys.modules, "pytorch_fid", types.ModuleType("pytorch_fid"))
    monkeypatch.setitem(sys.modules, "pytorch_fid.inception", package)
    monkeypatch.setattr(inception, "ensure_torchvision", lambda: None)
    weights = tmp_path / "w.pth"
    torch.save({"w": torch.ones(2)}, weights)
    monkeypatch.setattr(inception, "find_weights", lambda path: weights)
    compute = inception.features()
    assert seen["blocks"] == [3]
    assert seen["state"]["w"].tolist() == [1, 1]
    found = compute(torch.tensor([-1.0, 0.001, 3.0]).view(1, 3, 1, 1))
    assert found.shape == (1, 3)
    assert torch.allclose(found[0] * 255, torch.tensor([0.0, 128.0, 255.0]))


@pytest.mark.parametrize("precision", inception.PRECISIONS)
def test_features_in_other_precisions(precision):
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 5, 3)

        def forward(self, x):
            found = self.layer(x)
            seen.append((found.dtype, torch.backends.cudnn.allow_tf32))
            return [found]

    torch.manual_seed(0)
    network, images = Network(), torch.rand(40, 3, 6, 6) * 2 - 1
    exact = inception.from_tensors(network)(images)
    with devices.on("cpu"):
        found = inception.from_tensors(network, precision)(images)
        assert not torch.backends.cudnn.allow_tf32
    assert seen[-1] == (torch.bfloat16 if precision == "bfloat16" else torch.float32, precision == "tf32")
    assert found.dtype == torch.float32
    assert torch.equal(found, exact) == (precision != "bfloat16")
    torch.testing.assert_close(found, exact, rtol=2e-2, atol=2e-2)


def test_an_unknown_precision_of_features_is_refused():
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16; got 'half'"):
        inception.from_tensors(torch.nn.Conv2d(3, 5, 3), "half")


def test_normalisations_in_convolutions_change_no_feature():
    class Block(torch.nn.Module):
        """As torchvision's BasicConv2d."""

        def __init__(self, channels, to):
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, to, 3, bias=False)
            self.bn = torch.nn.BatchNorm2d(to, eps=0.001)

        def forward(self, x):
            return self.bn(self.conv(x)).relu()

    class Network(torch.nn.Sequential):
        def forward(self, x):
            return [super().forward(x)]

    torch.manual_seed(0)
    network = Network(Block(3, 8), Block(8, 5))
    for block in network:
        block.bn.running_mean.normal_()
        block.bn.running_var.uniform_(0.5, 2)
        torch.nn.init.normal_(block.bn.weight)
    images = torch.rand(40, 3, 9, 9) * 2 - 1
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = inception.from_tensors(network)(images)
    eight_bit = ((images + 1) * 127.5).round() / 255
    torch.testing.assert_close(found, network.eval()(eight_bit)[0].flatten(1), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    kinds = [type(module) for module in inception._folded(network).modules()]
    assert torch.nn.BatchNorm2d not in kinds
    assert kinds.count(torch.nn.Identity) == 2
