"""The lab of section 4.2 with other parameters and other records than those it is committed with.

Labels: sec-4-2, fig-3, fig-4.
"""

from __future__ import annotations

import shutil

import pytest

from tests.test_sweep import have_photographs

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")
pytest.importorskip("matplotlib_inline")

from efvae import cli, records  # noqa: E402
from efvae.parameters import chosen_values, declared_parameters  # noqa: E402
from tools import sources  # noqa: E402

STEM = "sec4_2_images"
SOURCE = sources.NOTEBOOKS / f"{STEM}.py"


def printed(cells: list[nbformat.NotebookNode]) -> str:
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in cell.outputs)


def test_without_the_wide_pictures_the_run_shows_its_own(tmp_path, monkeypatch):
    shutil.copytree(sources.ROOT / "results", tmp_path / "results")
    for record in records.load(STEM, tmp_path / "results", width=64):
        (tmp_path / "results" / STEM / f"{record.cell}.png").unlink(missing_ok=True)
    monkeypatch.setenv("EFVAE_RESULTS", str(tmp_path / "results"))
    assert cli.main(["run", STEM, "--profile", "smoke", "-o", str(tmp_path / "run.ipynb")]) == 0
    cells = [cell for cell in nbformat.read(tmp_path / "run.ipynb", 4).cells if cell.cell_type == "code"]
    assert "shown: this run, synthetic\n" in printed(cells)
    for name in ("fig-3", "fig-4"):
        (cell,) = [c for c in cells if c.metadata.get("mystnb", {}).get("figure", {}).get("name") == name]
        assert pictures(cell) == 1


def test_the_profile_of_the_photographs_reaches_every_stage(tmp_path, monkeypatch, capsys):
    """A few steps of each, with what they need of the cells before them."""
    have_photographs(monkeypatch)
    monkeypatch.setattr("efvae.experiments.image_truth.LEAST_VARIETY", 0.0)  # after a few steps nothing varies
    few = ["gan_steps", "image_encoder_steps", "image_joint_steps"]
    given = [*((name, "2") for name in few), ("eval_images", "256"), ("checkpoint_dir", str(tmp_path / "kept"))]
    profile = SOURCE.parent / "params" / f"{STEM}.photographs.yaml"
    values = chosen_values(SOURCE, declared_parameters(SOURCE), given, str(profile))
    code = [cell.source for cell in sources.read_source(STEM).cells if cell.cell_type == "code"]
    live = next(i for i, text in enumerate(code) if text.startswith("with tempfile.TemporaryDirectory()"))
    scope: dict[str, object] = {}
    for place, text in enumerate([*code[:4], *code[live : live + 2]]):
        exec(text, scope)  # noqa: S102 - our own notebook
        if place == 0:
            scope |= values
    cell = scope["cell"]
    assert (cell.data, cell.size, cell.width, cell.truth_seed) == ("photographs", 16, 32, 0)
    told = capsys.readouterr().out
    assert "photographs, 16 × 16, 100 latent dimensions, width 32" in told
    assert told.count("joint, ") == 2
    kept = {path.name.partition("-")[0] for path in (tmp_path / "kept").glob("*.model.safetensors")}
    assert kept == {"features", "gan", "encoder", "joint_fixed", "joint_learned"}
