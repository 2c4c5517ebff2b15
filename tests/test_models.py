"""Conditionals, priors, networks and what a VAE computes from them: asm-1, sec-2."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from efvae.estimators import Exact
from efvae.families import Bernoulli, Gaussian
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import CodeTable, mlp
from efvae.objectives import elbo
from tests.cases import Z_MAX
from tests.models import MAKERS, binary_vae, bits


@pytest.mark.parametrize(("make", "n"), MAKERS, ids=lambda value: getattr(value, "__name__", ""))
def test_log_joint_has_shape_sample_plus_batch(make, n) -> None:
    vae = make(0)
    x = bits(n, 6)
    z = vae.prior().sample((5, 6), torch.Generator().manual_seed(0))
    joint = vae.log_joint(x, z)
    assert joint.shape == (5, 6)
    for s, b in ((0, 0), (4, 2)):
        alone = vae.prior().log_prob(z[s, b]) + vae.decoder(z[s, b]).log_prob(x[b])
        torch.testing.assert_close(joint[s, b], alone)


def test_sample_draws_from_the_model() -> None:
    vae = binary_vae(5).requires_grad_(requires_grad=False)
    x, z = vae.sample(20_000, torch.Generator().manual_seed(1))
    mean = (vae.decoder(vae.prior().support()).mean() * vae.prior().log_prob(vae.prior().support()).exp()[:, None]).sum(
        0
    )
    error = (x.mean(0) - mean) / (x.std(0) / len(x) ** 0.5)
    assert float(error.abs().max()) < Z_MAX
    assert x.shape == (20_000, 4)
    assert z.shape == (20_000, 3)
    assert not binary_vae(5).sample(2)[0].requires_grad


def test_prior_learns_only_when_told() -> None:
    eta = torch.tensor([0.1, -0.4])
    fixed, free = Prior(eta, Bernoulli), Prior(eta, Bernoulli, learn=True)
    assert [len(list(prior.parameters())) for prior in (fixed, free)] == [0, 1]
    assert torch.equal(fixed().eta, eta)
    assert "eta" in fixed.state_dict()


def test_conditional_with_a_family_that_has_parameters() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_variance = torch.nn.Parameter(torch.zeros(2))

        def forward(self, mean):
            return Gaussian.from_mean_variance(mean, self.log_variance.exp())

    decoder = Conditional(mlp((3, 2)), Scaled())
    assert len(list(decoder.parameters())) == 3
    assert decoder(torch.zeros(7, 3)).batch_shape == (7,)


def test_mlp_layers() -> None:
    kinds = [type(layer).__name__ for layer in mlp((2, 64, 64, 2))]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    with pytest.raises(ValueError, match="input and an output width"):
        mlp((2,))


def test_code_table_looks_up_the_row_of_each_code() -> None:
    table = torch.arange(8.0).reshape(4, 2)
    network = CodeTable(table)
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert torch.equal(network(codes), table[[2, 1, 3, 0]])
    network(codes)[0].sum().backward()
    assert torch.equal(network.table.grad, torch.tensor([[0.0, 0], [0, 0], [1, 1], [0, 0]]))
    with pytest.raises(ValueError, match="2\\*\\*m codes, got 3 rows"):
        CodeTable(torch.zeros(3, 2))


def test_repeated_states_are_refused() -> None:
    states = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="1 of the states are repeated"):
        CategoricalOver(states)


def test_an_encoder_over_other_codes_than_the_prior_is_refused() -> None:
    vae = binary_vae(0)
    wrong = VAE(vae.prior, vae.decoder, Conditional(torch.nn.Linear(4, 5).double(), Bernoulli))
    with pytest.raises(ValueError, match=r"encoder's codes have shape \(5,\), the prior's \(3,\)"):
        elbo(wrong, bits(4, 2), Exact())


def test_importing_the_library_takes_torch_and_numpy_only() -> None:
    modules = "efvae, efvae.families, efvae.models, efvae.train, efvae.exact, efvae.objectives, efvae.harmonium"
    code = (
        f"import sys, {modules}\n"
        "heavy = ['matplotlib', 'papermill', 'jupytext', 'scipy', 'yaml', 'safetensors', 'IPython', 'pandas']\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


def test_the_readme_example_runs_on_the_core_packages_alone() -> None:
    """In a process of its own, since it changes the default type; without what only the extras bring."""
    readme = Path(__file__).parents[1] / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    absent = ["matplotlib", "safetensors", "papermill", "sklearn", "yaml", "nbformat"]
    before = f"import sys\nfor name in {absent}: sys.modules[name] = None\nimport torch; torch.manual_seed(0)\n"
    found = subprocess.run([sys.executable, "-c", before + example], capture_output=True, text=True, check=True).stdout
    likelihood, gap = (float(number) for number in re.findall(r"-?\d+\.\d+", found))
    assert -9 * math.log(2) + 0.5 < likelihood < -4.5  # better than fair coins; the true law is at -4.6
    assert 0 < gap < 0.5
