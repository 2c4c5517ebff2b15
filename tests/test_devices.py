"""Devices by name, repeated work, and the pretended device that stands in for one in the tests."""

from __future__ import annotations

import pytest
import torch

from efvae import devices
from efvae.devices import DeviceError, Repeated, Streams, arithmetic, current, described, find, on
from efvae.experiments import images, text
from efvae.experiments.image_truth import half_precision
from tests.pretend import pretended_gpu

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: run this where there is one")


def test_a_device_is_found_by_its_name(monkeypatch):
    assert find("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find("auto") == find("cuda") == torch.device("cuda:0")
    assert find("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="cuda:2 is not there: expected cuda:0 to cuda:1"):
        find("cuda:2")


def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find("auto") == torch.device("cpu")
    for version, why in ((None, "built without CUDA"), ("13.0", "no CUDA device is visible")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(DeviceError, match=f"device cuda is not there: .*{why}; take device cpu or auto"):
            find("cuda")
    for name in ("gpu", "cuda:", "cuda:-1", "CPU", ""):
        with pytest.raises(DeviceError, match="device must be cpu, cuda"):
            find(name)


def test_the_chosen_device_holds_within_its_context(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    before = torch.backends.cudnn.allow_tf32
    with on("cuda") as device:
        assert device == current() == torch.device("cuda:0")
        assert not torch.backends.cudnn.allow_tf32
    assert current() == torch.device("cpu")
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_cpu_without_units_for_bfloat16_takes_float32_and_the_record_says_so(monkeypatch, tmp_path):
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    for capable in (True, False):
        monkeypatch.setattr(devices, "_multiplies_bfloat16", lambda capable=capable: capable)
        assert (arithmetic("bfloat16", gpu), described("bfloat16", gpu)) == (torch.bfloat16, "cuda:0")
        assert (arithmetic("float32", cpu), described("float32", cpu)) == (torch.float32, "cpu")
        config = text.Config(corpus="curved", vocabulary=60, bits=6, d_hidden=1, width=16, epochs=1, epochs_many=0,
                             precision="bfloat16")  # fmt: skip
        (trained,) = text.solve([config], tmp_path, progress=lambda line: None)
        told = described("bfloat16", cpu)
        assert trained.last.dtype == arithmetic("bfloat16", cpu) == (torch.bfloat16 if capable else torch.float32)
        assert trained.record.provenance["device"] == told
        assert half_precision(images.Config(precision="bfloat16"))._enabled == capable
    assert told == "cpu, float32 for want of bfloat16 units"
    assert len(list(tmp_path.glob("*.safetensors"))) == 2  # neither goes on from the other's checkpoint


@pytest.mark.parametrize("units", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_units_for_bfloat16_are_known_by_their_names(monkeypatch, units):
    plain = {
        "architecture": "x86_64",
        "avx512_f": True,
        "avx512_bf16": False,
        "cpu_name": "of bf16",
        "l2_cache_size": 1,
    }
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: plain, raising=False)
    assert not devices._multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: plain | {units: True}, raising=False)
    assert devices._multiplies_bfloat16()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for known in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, known, lambda: False)
    assert not devices._multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert devices._multiplies_bfloat16()


def test_repeated_work_is_done_as_often_as_asked():
    total = torch.zeros(())
    work = Repeated(lambda: total.add_(1), [], graph=False)
    for _ in range(3):
        work()
    assert total == 3


@needs_gpu
def test_a_graph_draws_new_numbers_each_time_and_those_of_eager_work():
    def draws(*, graph):
        source = torch.Generator("cuda").manual_seed(1)
        buffer, streams = torch.empty(1000, device="cuda"), Streams(torch.device("cuda"), 2)

        def work():
            streams.begin()
            with streams.branch(3):
                buffer.uniform_(generator=source)
            streams.end()

        again = Repeated(work, [source], graph=graph)
        found = []
        for _ in range(5):
            again()
            found.append(buffer.cpu())
        return torch.stack(found), source.get_state()

    eager, replayed = draws(graph=False), draws(graph=True)
    torch.testing.assert_close(replayed, eager, rtol=0, atol=0)
    assert len(eager[0].unique(dim=0)) == 5


def test_the_pretended_device_computes_and_refuses_mixtures(monkeypatch):
    with pretended_gpu(monkeypatch) as looks:
        weight = torch.nn.Parameter(torch.ones(3, 2).to("gpu"))
        x = torch.arange(12.0, device="gpu").view(4, 3)
        optimizer = torch.optim.Adam([weight], fused=True, capturable=True)
        (x @ weight).sum().backward()
        optimizer.step()
        assert weight.device.type == "gpu"
        assert not looks
        assert len(looks.uploads) == 1
        x[0] = torch.ones(3)
        assert len(looks.uploads) == 2
        assert weight.detach().cpu()[0, 0] == pytest.approx(0.999)
        assert len(looks) == 1
        for mixture in (lambda: x + torch.ones(3), lambda: x @ torch.ones(3, 2), lambda: x[:, torch.tensor([0, 1])]):
            with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
                mixture()
        del looks[:]
        assert (x * torch.tensor(2.0)).sum() + 1.0 > x.sum()  # numbers of the CPU may be used, an assertion is a look
        assert len(looks) == 1
        for look in (x.nonzero, x.tolist, lambda: x[x > 3], lambda: float(x.sum()), lambda: x.bool().any().item()):
            del looks[:]
            look()
            assert len(looks) == 1
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()


def test_the_pretended_device_repeats_what_was_recorded_and_refuses_to_record_a_look(monkeypatch):
    with pretended_gpu(monkeypatch) as looks:
        source, total = torch.Generator("gpu").manual_seed(0), torch.zeros(3, device="gpu")
        of_the_host = 1.0

        def work():
            total.add_(torch.rand(3, generator=source, device="gpu").mul_(0.5) + of_the_host)

        again = Repeated(work, [source], graph=True)
        for _ in range(4):
            again()
            of_the_host = 100.0  # recorded with the second call, where it has this value from then on
        drawn = torch.rand(12, generator=torch.Generator().manual_seed(0)).view(4, 3).sum(0)
        torch.testing.assert_close(total.cpu(), 301 + 0.5 * drawn)
        for forbidden in (lambda: float(total.sum()), lambda: total.add_(torch.ones(3).to("gpu"))):
            spoiled = Repeated(forbidden, [], graph=True)
            spoiled()
            with pytest.raises(AssertionError, match="not permitted"):
                spoiled()
        assert len(looks.graphs) == 1


def test_the_pretended_device_is_gone_afterwards(monkeypatch):
    with pretended_gpu(monkeypatch):
        assert torch.accelerator.is_available()
    assert not torch.accelerator.is_available()
    with torch.random.fork_rng():  # of all devices: torch asks each for its random state
        torch.rand(1)
