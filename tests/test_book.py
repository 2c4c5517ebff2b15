"""The built book as files: nothing from outside, no dead link, every picture described."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

bs4 = pytest.importorskip("bs4")
ASSETS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
# names of addresses, not loaded by a browser
NOT_LOADED = {"canonical", "index", "search", "next", "prev", "author", "alternate"}


@cache
def parse(page: Path) -> bs4.BeautifulSoup:
    return bs4.BeautifulSoup(page.read_text("utf-8"), "html.parser")


def pages(book: Path) -> list[Path]:
    found = sorted(book.glob("*.html")) + sorted(book.glob("[!_]*/**/*.html"))
    assert len(found) > 10
    return found


def targets(book: Path) -> Iterator[tuple[Path, str, str]]:
    """Every address in the pages: page, tag name, address."""
    for page in pages(book):
        for tag in parse(page).find_all(["a", *ASSETS]):
            attribute = ASSETS.get(tag.name, "href")
            if tag.get(attribute) and not NOT_LOADED.intersection(tag.get("rel") or []):
                yield page, tag.name, tag[attribute]


def test_no_asset_from_outside(book: Path) -> None:
    outside = [(page.name, name, url) for page, name, url in targets(book)
               if name != "a" and (urlsplit(url).scheme not in {"", "data"} or url.startswith("//"))]  # fmt: skip
    assert outside == []
    styles = [*book.rglob("*.css")]
    assert styles
    assert [s.name for s in styles if "url(http" in (css := s.read_text("utf-8")) or "@import url(" in css] == []


def test_no_dead_link_or_anchor(book: Path) -> None:
    dead = []
    for page, _, url in targets(book):
        parts = urlsplit(url)
        if parts.scheme or url.startswith("//"):
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        anchor = unquote(parts.fragment)
        if not target.exists():
            dead.append(f"{page.relative_to(book)}: {url}")
        elif anchor and target.suffix == ".html" and not parse(target).find(attrs={"id": anchor}) \
                and not parse(target).find("a", attrs={"name": anchor}):  # fmt: skip
            dead.append(f"{page.relative_to(book)}: {url} has no such anchor")
    assert sorted(set(dead)) == []


def test_every_image_is_described(book: Path) -> None:
    bad = []
    for page in pages(book):
        for image in parse(page).find_all("img"):
            alt = (image.get("alt") or "").strip()
            if len(alt) < 5 or "/" in alt or alt.lower().endswith((".png", ".svg", ".jpg")):
                bad.append(f"{page.relative_to(book)}: {image.get('src')} has alt {alt!r}")
    assert bad == []


def test_notebooks_can_be_downloaded(book: Path) -> None:
    notebooks = sorted(book.glob("notebooks/*.html"))
    assert notebooks
    for page in notebooks:
        links = [tag["href"] for tag in parse(page).find_all("a", href=True) if tag["href"].endswith(".ipynb")]
        assert links, page.name
        assert (page.parent / links[0]).resolve().is_file()


def test_pages_are_in_english_and_titled(book: Path) -> None:
    for page in sorted(book.glob("book/**/*.html")):
        html = parse(page).find("html")
        assert html["lang"] == "en"
        assert len(parse(page).find("article").find_all("h1")) == 1, page.name


def test_paper_numbers_are_the_labels_numbers(book: Path) -> None:
    """A statement labelled thm-2 is called Theorem 2, an equation labelled eq-1a is (1a)."""
    import re

    seen = 0
    for page in sorted(book.glob("book/*.html")) + sorted(book.glob("notebooks/*.html")):
        for tag in parse(page).find_all("div", id=re.compile(r"^(equation-eq|thm|cor|def|asm)-\d+[a-c]?$")):
            number = tag["id"].rsplit("-", 1)[1]
            title = tag.find(class_="caption-number") or tag.find(class_="eqno")  # a statement may hold equations
            assert title is not None, tag["id"]
            assert re.search(rf"\b{number}\b", title.get_text()), (
                f"{page.name}: {tag['id']} is called {title.get_text()}"
            )
            seen += 1
    assert seen


def test_math_library_is_trimmed(book: Path) -> None:
    assert (book / "_static" / "mathjax" / "tex-chtml.js").is_file()
    size = sum(path.stat().st_size for path in (book / "_static" / "mathjax").rglob("*") if path.is_file())
    assert size < 6e6


def test_every_module_has_an_api_entry() -> None:
    root = Path(__file__).resolve().parents[1]
    listed = "\n".join(page.read_text("utf-8") for page in (root / "book" / "api").glob("*.md"))
    modules = [".".join(path.relative_to(root).with_suffix("").parts) for path in (root / "efvae").rglob("*.py")]
    public = [name for name in modules if not name.endswith(("__init__", "__main__", ".cli"))]
    assert [name for name in public if f".. automodule:: {name}\n" not in listed] == []
