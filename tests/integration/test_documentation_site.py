"""The documentation as a site, as `make docs` builds it: whole, and complete without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("zensical", reason="a development dependency")

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a page loads by itself, by the attribute that says from where."""
POINTERS = {"canonical", "prev", "next", "alternate"}
"""Links of a page's head that load nothing."""


class Page(HTMLParser):
    """What a page loads, where it leads, and the places in it that one can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if "id" in said:
            self.anchors.add(said["id"])
        place = said.get(LOADED.get(tag, ""))
        if place and said.get("rel") not in POINTERS:
            self.loads.append(place)
        if tag == "a" and "href" in said:
            self.leads.append(said["href"])


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    """The pages by their files."""
    subprocess.run([sys.executable, ".ci/notebooks.py"], cwd=ROOT, check=True, timeout=900)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "zensical"), "build", "--clean", "--strict"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    # Strict: a link or a name of the reference that leads nowhere ends it.
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    built = ROOT / "site"
    return {path: Page(path.read_text()) for path in sorted(built.rglob("*.html"))}


@pytest.mark.slow
def test_every_page_is_built(site: dict[Path, Page]) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in _sources()}
    assert pages <= {path.relative_to(ROOT / "site") for path in site}


@pytest.mark.slow
def test_a_notebook_shows_what_its_cells_do(site: dict[Path, Page]) -> None:
    page = (ROOT / "site" / "notebooks" / "read-a-result.html").read_text()
    assert "<svg" in page
    assert "Guardrails and sample ratio" in page


@pytest.mark.slow
def test_nothing_comes_from_another_server(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for place in page.loads:
            assert not urlsplit(place).netloc, (path, place)
    for style in (ROOT / "site").rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style


@pytest.mark.slow
def test_every_link_leads_somewhere(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        if path.name == "404.html":  # served at any address, so its links are the server's
            continue
        for link in page.leads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
                target = target / "index.html" if target.is_dir() else target
                assert target.is_file(), (path, link)
            if parts.fragment and target in site:
                assert unquote(parts.fragment) in site[target].anchors, (path, link)


def _sources() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.md"))
