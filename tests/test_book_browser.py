"""The built book as a reader meets it, in headless Chromium: math, width, previews, search, and nothing leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
RENDERED = "() => window.MathJax === undefined || (MathJax.startup && MathJax.startup.promise)"
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    required = os.environ.get("EFVAE_REQUIRE_BROWSER") == "1"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is missing") if required else pytest.skip("playwright is not installed")
    if CHROMIUM is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(message, pytrace=False) if required else pytest.skip(message)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Reader:
    """A page in the browser that remembers what it asked for."""

    def __init__(self, browser: Any, book: Path, width: int) -> None:
        self.book = book
        self.context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=width == PHONE)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on("requestfailed", self._fails)

    def _fails(self, request: Any) -> None:
        # pictures that come in late are cancelled when the next page is opened; a missing one is ERR_FILE_NOT_FOUND
        if request.failure != "net::ERR_ABORTED":
            self.failed.append(f"{request.url}: {request.failure}")

    def open(self, name: str) -> Any:
        self.page.goto(f"file://{self.book}/{name}", wait_until="load")
        self.page.evaluate(RENDERED)
        return self.page


def names(book: Path) -> list[str]:
    found = [*book.glob("book/**/*.html"), *book.glob("notebooks/*.html")]
    return sorted(path.relative_to(book).as_posix() for path in found)


@pytest.fixture(scope="module")
def phone(browser: Any, book: Path) -> Iterator[Reader]:
    reader = Reader(browser, book, PHONE)
    yield reader
    reader.context.close()


@pytest.fixture
def desktop(browser: Any, book: Path) -> Iterator[Reader]:
    reader = Reader(browser, book, DESKTOP)
    yield reader
    reader.context.close()


def test_math_is_rendered_and_nothing_leaves(desktop: Reader, book: Path) -> None:
    formulas, problems = 0, []
    for name in names(book):
        page = desktop.open(name)
        written = page.locator("article .math").count()
        drawn = page.locator("article mjx-container").count()
        if drawn < written:
            problems.append(f"{name}: {written} formulas, {drawn} drawn")
        if errors := page.locator(BAD_MATH).evaluate_all(SPOKEN):
            problems.append(f"{name}: formulas with errors {errors[:3]}")
        if raw := page.evaluate(RAW_LATEX):
            problems.append(f"{name}: raw LaTeX {raw!r}")
        formulas += drawn
    assert problems == []
    assert formulas > 0
    assert [url for url in desktop.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert desktop.failed == []


# a formula that does not parse, and one with an unknown command, which MathJax draws in red
BAD_MATH = "[data-mjx-error], mjx-merror, mjx-container mjx-mtext[style*='red']"

SPOKEN = "all => all.map(e => e.closest('mjx-container').querySelector('mjx-assistive-mml').textContent)"

# LaTeX delimiters or commands left in visible text, outside of code
RAW_LATEX = r"""() => {
  const walker = document.createTreeWalker(document.querySelector("article") || document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("code, pre, script, style, mjx-container")) continue;
    const found = node.textContent.match(/\\\(|\\\[|\\(frac|theta|mathbb|log|phi|sum|E|KL)\b|\$[^$\n]+\$/);
    if (found) return node.textContent.trim().slice(0, 80);
  }
  return null;
}"""


def test_no_page_scrolls_sideways_on_a_phone(phone: Reader, book: Path) -> None:
    wide = []
    for name in names(book):
        width = phone.open(name).evaluate("document.documentElement.scrollWidth")
        cut = phone.page.evaluate(CUT_OFF)
        if width > PHONE or cut:
            wide.append(f"{name}: {width} px, beyond the edge: {cut}")
    assert wide == []


# Elements of the article that reach beyond the screen though no box around them scrolls
CUT_OFF = """() => {
  const scrolls = e => { for (let p = e; p && p.tagName !== "ARTICLE"; p = p.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(p).overflowX)) return true; return false; };
  return [...document.querySelectorAll("article *")]
    .filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e)
                 && !e.closest("mjx-assistive-mml, .headerlink, .visually-hidden"))
    .slice(0, 3).map(e => e.tagName + "." + e.className);
}"""


def test_hovering_a_statement_shows_it(desktop: Reader, book: Path) -> None:
    link = ", ".join(f"article a.reference.internal[href*='#{kind}-']" for kind in ("thm", "own", "asm", "def"))
    for name in names(book):
        page = desktop.open(name)
        if page.locator(link).count():
            page.locator(link).first.hover()
            page.wait_for_selector(".tippy-box .proof", timeout=5000)
            assert len(page.locator(".tippy-box").inner_text()) > 20
            return
    pytest.fail("no page refers to a statement")


def test_hovering_an_equation_shows_it_rendered(desktop: Reader, book: Path) -> None:
    for name in names(book):
        page = desktop.open(name)
        links = page.locator("article a.reference.internal[href*='#equation-']")
        if links.count():
            links.first.hover()
            page.wait_for_selector(".tippy-box mjx-container", timeout=5000)
            return
    pytest.fail("no page refers to an equation")


def test_dark_mode_toggles(desktop: Reader) -> None:
    page = desktop.open("book/intro.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {page.evaluate(ground)}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        page.wait_for_timeout(300)
        seen.add(page.evaluate(ground))
    assert len(seen) == 2


def test_search_finds_the_elbo(desktop: Reader) -> None:
    page = desktop.open("search.html?q=elbo")
    page.wait_for_selector("#search-results li a", timeout=10000)
    assert page.locator("#search-results li a").count() > 0


def test_contents_open_on_a_phone(phone: Reader) -> None:
    page = phone.open("book/intro.html")
    page.locator("button.primary-toggle:visible").first.click()
    page.wait_for_timeout(500)
    assert page.locator(".bd-sidebar-primary a:visible").count() > 5
