"""Kernels of a CUDA device against torch in float64, and a step by them against torch's own operators.

Without a CUDA device they run in Triton's interpreter, if Triton is installed.

Label: own-fused-multinomial.
"""

from __future__ import annotations

import os

import pytest
import torch

from efvae.estimators import ARM, DisARM
from efvae.families import Bernoulli
from efvae.text import row_kernels
from efvae.text.dense import DenseDocuments
from efvae.text.passes import descend
from tests.test_text_dense import KINDS, made, new_run

__all__ = ["made"]

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = pytest.mark.skipif(
    row_kernels.triton is None or not (torch.cuda.is_available() or _INTERPRETED),
    reason="Triton is not installed, which has no package for this system",
)


@pytest.fixture(autouse=True)
def _served(monkeypatch):
    if _INTERPRETED:
        monkeypatch.setattr(row_kernels, "available", lambda device: True)


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype).to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [7, 2048, 5000])
def test_rows_are_those_of_float64(n, dtype):
    y, x = (5 * random(6, n)).to(dtype), random(3, n).abs()
    x, y[0, 0] = x.where(x > 1, 1e-4), 80.0  # one logit far above the rest
    length, saturated = x.sum(1), random(3)
    wide, counts = y.double(), x.double().repeat(2, 1)
    partition = wide.logsumexp(1)
    wanted = length.double().repeat(2) * partition - (counts * wide).sum(1) + saturated.double().repeat(2)
    torch.testing.assert_close(row_kernels.scored(y, x, length, saturated).double(), wanted, rtol=1e-5, atol=1e-2)

    rounding = torch.finfo(dtype).eps
    law = y.clone()
    torch.testing.assert_close(row_kernels.probabilities_(law).double(), partition, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(law.double(), (wide - partition[:, None]).exp(), rtol=rounding + 1e-4, atol=1e-6)
    rest = y.clone()
    row_kernels.residual_(rest, partition.float(), x, length)
    residual = (wide - partition[:, None]).exp() - counts / length.double().repeat(2)[:, None]
    torch.testing.assert_close(rest.double(), residual, rtol=rounding + 1e-4, atol=1e-6)


@pytest.mark.parametrize("width", [3, 8, 100])
def test_costs_and_factors(width):
    y, h, entries, offset, length = random(6, 50), random(6, width), random(3, width), random(3), random(3).abs()
    saturated, grad = offset + 1, random(3)[None].expand(2, 3)
    cost, partition = row_kernels.costs(y, h, entries, offset, length, saturated)
    inner = (h.view(2, 3, -1) * entries).sum(-1) + offset
    wanted = length * y.logsumexp(1).view(2, 3) - inner + saturated
    torch.testing.assert_close(cost.view(2, 3), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(partition, y.logsumexp(1))

    both, share = row_kernels.scaled(h, grad, length, torch.float32)
    torch.testing.assert_close(share.view(2, 3), grad * length)
    assert both.shape[1] % 8 == 0
    torch.testing.assert_close(both[:, :width], h * share[:, None])
    assert torch.equal(both[:, width], share)
    assert not both[:, width + 1 :].any()
    assert all(map(torch.equal, row_kernels.unpack(both, width), (both[:, :width], both[:, width])))


@pytest.mark.parametrize("estimator", [ARM(), ARM(3), DisARM(), DisARM(4)], ids=str)
@pytest.mark.parametrize("bits", [1, 5, 64])
def test_pairs_are_those_of_the_estimators(estimator, bits):
    eta = (3 * random(4, bits)).requires_grad_()
    table = random(bits)
    q, seen = Bernoulli(eta), []

    def costs(z):
        seen.append(z)
        return (z * table).sum(-1).square()

    nelbo = estimator.expectation(q, costs, torch.Generator(DEVICE).manual_seed(0))
    kl = (bits * torch.tensor(2.0).log() - q.entropy()).detach()
    (nelbo - q.entropy()).sum().backward()

    u = torch.empty(estimator.samples, 4, bits, device=DEVICE).uniform_(
        generator=torch.Generator(DEVICE).manual_seed(0)
    )
    codes = row_kernels.antithetic(eta.detach(), u, torch.float32)
    assert torch.equal(codes, seen[0])
    disarm = isinstance(estimator, DisARM)
    bound, information, gradient = row_kernels.pair_bound(costs(codes), eta.detach(), u, codes, disarm=disarm)
    torch.testing.assert_close(information, kl, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bound, nelbo.detach() + kl, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient, eta.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimator", [DisARM(), ARM(3)], ids=["disarm", "arm-3"])  # the second lists 4 bits
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 6e-2)], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_step_is_that_of_torch(made, kind, dtype, tolerance, estimator, monkeypatch):
    rows = torch.arange(150)[5:37].to(DEVICE)
    sums, gradients = [], []
    for by_kernels, precision in ((True, dtype), (False, torch.float32)):
        monkeypatch.setattr(row_kernels, "available", lambda device, yes=by_kernels: yes)
        run = new_run(kind, DEVICE, precision)
        sums.append(descend(run, DenseDocuments(made[0], precision, DEVICE).batch(rows), estimator))
        gradients.append([parameter.grad for parameter in run.model.parameters()])
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-3, atol=1e-3)
    if not (dtype == torch.bfloat16 and kind[0] == 4 and estimator.samples > 1 and kind[2]):  # listed codes round more
        for mine, wanted in zip(*gradients, strict=True):
            assert (mine - wanted).norm() <= tolerance * wanted.norm()


def test_a_second_backward_is_refused(made):
    run = new_run((10, "e1", 0), DEVICE)
    batch = DenseDocuments(made[0], None, DEVICE).batch(torch.arange(20, device=DEVICE))
    nelbo, kl = run.model.nelbo(batch, ARM(), run.generator)
    assert not kl.requires_grad
    nelbo.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        nelbo.sum().backward()
