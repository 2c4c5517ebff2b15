"""Committed notebooks: they are what their sources say, executed whole, with the present code."""

from __future__ import annotations

import pytest

nbformat = pytest.importorskip("nbformat")

from efvae.parameters import declared_parameters  # noqa: E402
from tools import book, notebooks, sources  # noqa: E402

STEMS = sources.stems()


def committed(stem: str) -> nbformat.NotebookNode:
    path = sources.NOTEBOOKS / f"{stem}.ipynb"
    assert path.is_file(), f"{path.name} is missing: make notebooks"
    return nbformat.read(path, as_version=4)


def test_no_notebook_without_a_source() -> None:
    assert {path.stem for path in sources.NOTEBOOKS.glob("*.ipynb")} == set(STEMS)


@pytest.mark.parametrize("stem", STEMS)
def test_pair_agrees(stem: str) -> None:
    built = [notebooks.signature(cell) for cell in committed(stem).cells]
    source = [notebooks.signature(cell) for cell in sources.read_source(stem).cells]
    assert built == source, "make notebooks"


@pytest.mark.parametrize("stem", STEMS)
def test_every_cell_executed_in_order_without_error(stem: str) -> None:
    cells = [cell for cell in committed(stem).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("stem", STEMS)
def test_executed_with_the_present_code(stem: str) -> None:
    assert notebooks.stale(stem) is None, "make notebooks"


@pytest.mark.parametrize("stem", STEMS)
def test_metadata_is_the_same_on_every_machine(stem: str) -> None:
    notebook = committed(stem)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "efvae"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in sources.read_source(stem).cells]
    assert not [key for cell in notebook.cells for key in cell.metadata if key not in {"tags", "mystnb"}]


@pytest.mark.parametrize("stem", STEMS)
def test_no_machine_path_in_outputs(stem: str) -> None:
    text = nbformat.writes(committed(stem))
    assert str(sources.ROOT) not in text
    assert "/site-packages/" not in text


@pytest.mark.parametrize("stem", STEMS)
def test_parameters_are_declared_in_the_first_code_cell(stem: str) -> None:
    first = next(cell for cell in sources.read_source(stem).cells if cell.cell_type == "code")
    assert "parameters" in first.metadata.get("tags", [])
    parameters = declared_parameters(sources.NOTEBOOKS / f"{stem}.py")
    assert parameters
    assert [parameter.name for parameter in parameters if not parameter.help] == []


@pytest.mark.parametrize("stem", STEMS)
def test_notebooks_define_nothing_longer_than_a_plot(stem: str) -> None:
    import ast

    for cell in sources.read_source(stem).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.FunctionDef):
                    assert (node.end_lineno or 0) - node.lineno < 25, f"{node.name} belongs into efvae"


@pytest.mark.parametrize("stem", STEMS)
def test_printed_lines_fit_the_page(stem: str) -> None:
    """Longer ones are cut at a window of 1280 px, where the reader has to find that they scroll."""
    outputs = (o for cell in committed(stem).cells if cell.cell_type == "code" for o in cell.outputs)
    lines = [line for o in outputs if o.output_type == "stream" for line in o.text.splitlines()]
    assert [line for line in lines if len(line) > 88] == []


def test_hash_ignores_words_and_sees_code() -> None:
    code = 'def f(x):\n    """One."""\n    return x  # why\n'
    assert sources.code_only(code) == sources.code_only('def f(x):\n    """Two."""\n\n    return x\n')
    assert sources.code_only(code) != sources.code_only(code.replace("return x", "return -x"))
    assert sources.code_only('s = "a # b"\n') != sources.code_only('s = "a"\n')


def test_a_notebook_is_executed_again_when_records_change_that_it_reads() -> None:
    def read(stem: str) -> set[str]:
        return {path.name for path in book.records_read((sources.NOTEBOOKS / f"{stem}.py").read_text("utf-8"))}

    assert {"sec4_2_images", "sec4_2_spiral", "benchmark_image_training"} <= read("sec4_2_images")
    assert {"sec4_3_text", "sec4_3_rbm", "sec4_3_words", "benchmark_text_epoch"} <= read("sec4_3_text")
    assert {"sec4_3_text", "sec4_3_slope", "sec4_3_units"} <= read("sec4_3_silent")
    assert {"sec4_3_text", "sec4_3_rbm", "sec4_3_words"} <= read("sec4_3_optima")
    assert {"sec3_1_rbm", "sec3_1_mrf", "sec4_1_artificial", "sec4_2_images", "sec4_3_text"} <= read("sec5_conclusions")
    assert "sec4_3_text" not in read("sec2_problem")
