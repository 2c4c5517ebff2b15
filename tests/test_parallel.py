"""Two processes on the CPU (gloo) train one model together: the same parameters and curve as one, within rounding."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from efvae.estimators import Exact
from efvae.families import all_bits
from efvae.objectives import elbo
from efvae.parallel import shared_loss
from efvae.train import TrainConfig, fit
from tests.models import binary_vae
from tests.sweeps import ROOT, environment

CONFIG = TrainConfig(steps=40, learning_rate=0.05, seed=4, eval_every=8)
STATES = all_bits(4)


def train(*, shared: bool, seed: int) -> dict:
    """Parameters and curve; a process that shares begins elsewhere, and must take over the weights of the first."""
    vae = binary_vae(seed)

    def loss(x, generator):
        return -elbo(vae, x, Exact(), generator)

    curve = fit(
        vae,
        shared_loss(vae, loss) if shared else loss,
        lambda generator: STATES[torch.randint(0, 7, (16,), generator=generator)],
        CONFIG,
        evaluate=lambda: {"elbo": elbo(vae, STATES[:7], Exact()).mean().item()},
    )
    return {"curve": curve, "parameters": torch.cat([p.detach().flatten() for p in vae.parameters()]).tolist()}


def test_two_processes_give_what_one_gives(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    both = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / str(rank))], env=environment(RANK=str(rank), **world), cwd=ROOT
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    alone = train(shared=False, seed=0)
    assert first["parameters"] == second["parameters"]
    assert first["parameters"] == pytest.approx(alone["parameters"], abs=1e-5)
    for name, column in alone["curve"].items():
        assert first["curve"][name] == pytest.approx(column, abs=1e-5), name
        assert second["curve"][name] == pytest.approx(column, abs=1e-5), name
    moved = torch.tensor(alone["parameters"]) - torch.cat([p.flatten() for p in binary_vae(0).parameters()])
    assert moved.abs().max() > 0.1


def test_without_a_group_it_says_what_is_missing():
    with pytest.raises(RuntimeError, match="init_process_group"):
        shared_loss(binary_vae(0), lambda x, generator: x)


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    told = train(shared=True, seed=torch.distributed.get_rank())
    Path(sys.argv[1]).write_text(json.dumps(told), "utf-8")
    torch.distributed.destroy_process_group()
