"""The paper map is complete, and a closed item is what it says: page, code, notebook cell and test."""

import dataclasses
import re
import statistics
from pathlib import Path

import pytest
import yaml

from benchmarks import text_together
from efvae import records, sweep, text_table
from efvae.experiments import text, text_slope
from efvae.records.command import config_kinds, read_value
from tools import open_work, pages, paper_map
from tools.paper_map import ROOT, Item, Pointers

GROUPS = paper_map.read_map()
ITEMS = [item for group in GROUPS for item in group.items]
FOUND = paper_map.discover()

# sub-letters of the paper's 57 numbered formulas
LETTERS = {1: "ab", 4: "ab", 16: "ab", 23: "ab", 33: "ab", 38: "abc", 47: "abc", 48: "abc", 50: "ab", 52: "abcd",
           53: "ab", 55: "abc", 57: "ab"}  # fmt: skip


def test_every_numbered_item_is_listed_once_and_in_order():
    ids = [item.id for item in ITEMS]
    assert len(set(ids)) == len(ids)
    equations = [f"eq-{n}{letter}" for n in range(1, 58) for letter in LETTERS.get(n, [""])]
    assert [i for i in ids if i.startswith("eq-")] == equations
    others = "asm-1 thm-1 cor-1 cor-2 def-1 thm-2 thm-a1 ex-a1 prop-a1 prop-a2"
    assert [i for i in ids if i.split("-")[0] in ("asm", "thm", "cor", "def", "ex", "prop")] == others.split()
    sections = "sec-1 sec-2 sec-3 sec-3-1 sec-4 sec-4-1 sec-4-2 sec-4-3 sec-5"
    assert [i for i in ids if i.startswith("sec-")] == sections.split()
    appendices = "app-a app-a1 app-a2 app-a3 app-b app-c app-c1 app-c2"
    assert [i for i in ids if i.startswith("app-")] == appendices.split()
    assert sorted(i for i in ids if i.split("-")[0] in ("fig", "tab")) == [
        "fig-1", "fig-2", "fig-3", "fig-4", "tab-1", "tab-2"]  # fmt: skip
    assert sorted(i for i in ids if i.startswith("fn-")) == [f"fn-{n}" for n in range(1, 6)]
    assert sum(i.startswith("case-") for i in ids) == 4


def test_a_closed_item_has_all_its_pointers():
    gaps = {item.id: paper_map.missing(item, FOUND) for item in ITEMS if item.status == "closed"}
    assert {label: kinds for label, kinds in gaps.items() if kinds} == {}


def test_an_item_with_all_its_pointers_is_not_listed_as_open():
    done = [item.id for item in ITEMS if item.status == "open" and not paper_map.missing(item, FOUND)]
    assert done == [], "set their status to closed in book/paper_map.yml"


def test_every_label_of_a_docstring_is_in_the_map():
    known = {item.id for item in ITEMS}
    unknown = {label: places for label, places in FOUND.code.items() if label not in known | own(FOUND.code)}
    assert unknown == {}


def own(labels) -> set[str]:
    return {label for label in labels if label.startswith("own-")}


def test_targets_numbered_like_the_papers_are_in_the_map():
    number = r"(?:eq|thm|cor|prop|def|asm|ex|sec|app|fig|tab|fn)-(?:[a-d]|[a-d]?\d+[a-d]?)(?:-\d+)*"
    defined = {label for label in FOUND.page if re.fullmatch(number, label)}
    assert defined - {item.id for item in ITEMS} == set()


def test_a_target_is_defined_on_one_page_only():
    assert {label: places for label, places in FOUND.page.items() if len(places) > 1} == {}


def checkout(folder: Path, **files: str) -> Path:
    """A small project with one group of two items."""
    rows = [{"id": "eq-1", "title": "one", "status": "open"}, {"id": "fig-1", "title": "fig", "status": "open"}]
    contents = {"book/paper_map.yml": yaml.safe_dump({"groups": [{"title": "G", "page": "p", "items": rows}]})}
    for name, content in (contents | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "(eq-1)=\n# T",
        "```{math}\n:label: eq-1\nx\n```",
        "$$\nx\n$$ (eq-1)",
        "$$ x $$ (eq-1)",
        "```{figure} a\n:name: eq-1\n```",
    ],
)
def test_a_target_is_found_on_a_page_and_in_a_text_cell(text, tmp_path):
    assert paper_map.discover(checkout(tmp_path, **{"book/p.md": text})).page == {"eq-1": ["book/p"]}
    (tmp_path / "book" / "p.md").write_text("see {eq}`eq-1` and eq-1")  # a mention is no target
    assert paper_map.discover(tmp_path).page == {}
    cell = "# %% [markdown]\n" + "".join(f"# {line}\n" for line in text.splitlines())
    assert paper_map.discover(checkout(tmp_path, **{"notebooks/n.py": cell})).page == {"eq-1": ["notebooks/n"]}


def test_a_figure_of_a_code_cell_is_a_target(tmp_path):
    cell = '# %% mystnb={"figure": {"name": "fig-1", "caption": "c"}}\nx = 1\n'
    found = paper_map.discover(checkout(tmp_path, **{"notebooks/n.py": cell}))
    assert found.page == {"fig-1": ["notebooks/n"]}
    assert found.notebook == {"fig-1": ["n"]}


def test_the_notebook_of_a_section_is_known_by_its_stem(tmp_path):
    rows = [{"id": "sec-9", "title": "one", "status": "open"}, {"id": "eq-1", "title": "two", "status": "open"}]
    text = yaml.safe_dump({"groups": [{"title": "G", "page": "sec9_x", "items": rows}]})
    checkout(tmp_path, **{"book/paper_map.yml": text, "notebooks/sec9_x.py": "x = 1", "notebooks/other.py": "x = 1"})
    assert paper_map.discover(tmp_path).notebook == {"sec-9": ["sec9_x"]}


def test_a_table_has_its_records_once_no_number_of_it_is_open(tmp_path):
    rows = ["tab-1,miss,paper", "tab-1,within tolerance,paper", "tab-2,within tolerance,paper", "tab-2,open,paper",
            "own-x,open,own", "app-c1,open,own", "app-c1,miss,paper"]  # fmt: skip
    checkout(tmp_path, **{"results/scoreboard.csv": "\n".join(["item,verdict,source", *rows])})
    assert set(paper_map.discover(tmp_path).records) == {"tab-1", "app-c1"}


def test_docstrings_tests_and_whole_labels(tmp_path):
    code = '"""M.\n\nPaper: eq-1, own-x\n"""\nclass A:\n'
    code += '    def f(self):\n        """F.\n\n        Paper: eq-1\n        """\n'
    code += 'def _private():\n    """P.\n\n    Paper: eq-1\n    """\n'
    files = {"efvae/m.py": code, "tests/test_a.py": "# eq-1", "tests/test_b.py": "# eq-11, own-eq-1, eq-1-x"}
    found = paper_map.discover(checkout(tmp_path, **files, **{"tests/test_paper_map.py": "# eq-1"}))
    assert found.code == {"eq-1": ["efvae.m", "efvae.m.A.f"], "own-x": ["efvae.m"]}
    assert found.test == {"eq-1": ["tests/test_a.py"]}


def test_what_an_item_needs():
    nothing = Pointers()
    assert paper_map.missing(Item("eq-1", "", "closed", ""), nothing) == ["page", "code", "notebook", "test"]
    assert paper_map.missing(Item("eq-1", "", "closed", "", {"code": "why"}), nothing) == ["page", "notebook", "test"]
    assert paper_map.missing(Item("fig-1", "", "closed", ""), nothing) == ["page", "notebook"]
    assert paper_map.missing(Item("tab-1", "", "closed", ""), nothing) == ["page", "notebook", "records"]
    assert paper_map.missing(Item("fn-1", "", "closed", ""), Pointers(page={"fn-1": ["book/x"]})) == []


@pytest.mark.parametrize("row", [{"id": "eq-1"}, {"id": "eq-1", "title": "t", "status": "done"},
                                 {"id": "eq-1", "title": "t", "status": "open", "exempt": {"code": ""}},
                                 {"id": "eq-1", "title": "t", "status": "open", "exempt": {"codes": "x"}}])  # fmt: skip
def test_a_malformed_row_is_refused(row, tmp_path):
    checkout(tmp_path)
    (tmp_path / "book/paper_map.yml").write_text(
        yaml.safe_dump({"groups": [{"title": "G", "page": "p", "items": [row]}]})
    )
    with pytest.raises(ValueError, match=r"book/paper_map\.yml: "):
        paper_map.read_map(tmp_path)


def test_pages_name_every_item_and_every_number(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text((ROOT / "_toc.yml").read_text())
    pages.generate(tmp_path)
    page = (tmp_path / "book" / "paper_map.md").read_text()
    for item in ITEMS:
        assert item.title in page
        assert item.id.startswith("case-") or f"{{paper}}`{item.id}`" in page
    assert page.count("verdict-open") == sum(item.status == "open" for item in ITEMS)
    board = (tmp_path / "book" / "scoreboard.md").read_text()
    assert "The paper prints **82** results." in board
    assert sum(line.startswith("|") and ".verdict-" in line for line in board.splitlines()) == 86
    assert "−364513.78" in board
    text = (tmp_path / "book" / "table_2.inc").read_text().splitlines()[2:]
    rows = text_table.entries(text_table.cells_of(), text_table.printed())
    numbers = [number for line in text for number in line.split("|")[3:-1]]
    assert (len(text), len(numbers)) == (12, 72)
    assert sum("**" in number for number in numbers) == sum(row.verdict == "miss" for row in rows) > 0
    paper = sorted(int(number.strip(" *").split(" / ")[0]) for number in numbers)
    assert paper == sorted(round(row.paper) for row in rows)
    assert text[0].startswith("| 0 | 8 | 423 / ")  # test, e1


def test_what_is_open_in_table_2_is_named_and_one_sweep_completes_it():
    told = "\n".join(open_work.section(ROOT / "results"))
    cells = text_table.cells_of()
    few = [cell for cell, found in cells.items() if len(found) < 3]
    assert (f"{len(few)} of 36 cells have fewer than 3" in told) == bool(few)
    missed = [row for row in text_table.entries(cells, text_table.printed()) if row.verdict == "miss"]
    assert sum(line.startswith("| ") and line[2].isdigit() for line in told.splitlines()) == len(missed)
    for row in missed:
        assert f"{row.paper:.0f} | {row.ours:.1f} |" in told
    (command,) = [line.split() for line in told.splitlines() if line.startswith("efvae sweep ")]
    assert command[2] == open_work.SWEEP
    planned = open_work.planned()
    changed = ({"activation": "leaky_relu"}, {"held_out": 1000}, {"estimator": "disarm"})
    wanted = {text_table.config(cell, seed) for cell in cells for seed in range(3)} | {
        text.needed(dataclasses.replace(text_table.config(cell), **change)) for cell in cells for change in changed
    }
    assert set(planned) == wanted
    recorded = [record.config for record in records.load(text.STEM)]
    left = [config for config in planned if records.config_dict(config) not in recorded]
    assert f"{len(left)} of {len(planned)} trainings" in told
    assert all("H200" in cells[cell][0].provenance["device"] for cell in cells)  # whose minutes are told
    assert open_work.MEASURED == text_together.STEM
    measured = any(record.config["device"] == "cuda" for record in records.load(text_together.STEM))
    assert ("benchmarks.text_together" in told) != measured


def test_the_trainings_beyond_the_sweep_are_understood():
    words = open_work.BEYOND.split("efvae.experiments.text_slope ")[1].split("```")[0].replace("\\\n", "").split()
    values = dict(word.split("=") for word in words)
    kinds = config_kinds(text_slope.Config)
    config = text_slope.Config(**{key: read_value(key, value, kinds) for key, value in values.items()})
    assert (config.every, config.epochs, config.epochs_many) == (1, text.Config().epochs, text.Config().epochs_many)
    for option in ("first_weights=he", "batch_size=64", "precision=float32", "clip=100"):
        assert f"`{option}`" in open_work.BEYOND
        sweep.cells_of(sweep.experiment(text.STEM), [{}], ["bits=16", "encoder=e1", "d_hidden=2", option])


def test_a_closed_row_links_what_was_found(monkeypatch):
    item = Item("eq-1a", "the title", "closed", "p")
    found = Pointers({"eq-1a": ["book/p"]}, {"eq-1a": ["efvae.exact.elbo", "efvae.gone.f"]}, {"eq-1a": ["n", "hidden"]},
                     {"eq-1a": ["tests/test_exact.py"]})  # fmt: skip
    row = pages._map_row(item, found, {"efvae.exact"}, {"notebooks/n"})
    assert "{py:obj}`elbo <efvae.exact.elbo>`, `gone.f`" in row
    assert "{doc}`n </notebooks/n>`, `hidden`, `test_exact.py`" in row
    assert "[closed]{.verdict-ok}" in row


def test_the_photographs_have_their_table_on_the_scoreboard():
    """Mean over seeds beside the bound of 19375.6 nats; a stage without records says so."""
    narrow = records.load("sec4_2_images", **pages.PHOTOGRAPHS, width=16)
    rows = [row for row in narrow if row.config["joint_steps"] != 8000]
    lines = pages.photographs_section(rows)
    (learned,) = [line for line in lines if line.startswith("| joint training, learned noise")]
    elbos, errors = (
        [row.metrics[name] for row in rows if row.config["stage"] == "joint_learned"] for name in ("elbo", "elbo_error")
    )
    assert 10 <= statistics.mean(errors) < 100  # so that whole nats are shown
    told = f"{statistics.mean(elbos):.0f} ± {statistics.stdev(elbos):.0f} ({statistics.mean(errors):.0f})"
    assert f"| {told} | 19375.6 |" in learned
    assert learned.endswith(f"| {len(elbos)} |")
    assert any("| 1 |" in line and line.startswith("| encoder by conditional") for line in lines)
    longer = [dataclasses.replace(row, config=row.config | {"joint_steps": 20000}) for row in rows[-1:]]
    assert len(pages.photographs_section(rows + longer)) == len(lines) + 1  # a line of its own
    assert sum("| – | – | – | 0 |" in line for line in pages.photographs_section([])) == len(pages.PHOTOGRAPHS_STAGES)
    every = pages.photographs_section(records.load("sec4_2_images", **pages.PHOTOGRAPHS))
    wide = [line for line in every if "width 64" in line and line.startswith("|")]
    assert [line.rpartition(", ")[2].split(" |")[0] for line in wide] == ["width 64", "20000 steps", "20000 steps"]
    assert "\n".join(every) in pages.scoreboard_page(set())
