"""Every page is for everybody: axe-core finds no serious violation of WCAG, wide and narrow, light
and dark; helps open by touch and keyboard; a chart says what it shows; the verdict fits one sheet.

axe-core is tested where `TOPBILL_NODE_MODULES` names a folder that holds it: `.ci/clients FOLDER`
prints it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import RAN, opened, served

from board.pages import PAGES

pytestmark = pytest.mark.end_to_end

VIOLATIONS = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    return found.violations
        .filter(violation => ["serious", "critical"].includes(violation.impact))
        .flatMap(violation => violation.nodes.map(node =>
            `${violation.id}: ${node.target.join(" ")} ${node.html.slice(0, 160)}`));
}"""


HEADS = """box => [...box.querySelectorAll("thead th")]
    .filter(head => head.offsetWidth)
    .map(head => head.firstChild.firstChild.textContent)"""
"""The headings that are seen, without their explanations."""


@pytest.fixture(scope="module")
def address(browser: Any, demo: Path) -> Iterator[str]:
    """The app, served from the demo's data."""
    with served(demo) as url:
        yield url


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    modules = os.environ.get("TOPBILL_NODE_MODULES")
    if modules is None:
        pytest.skip("needs axe-core, and TOPBILL_NODE_MODULES: .ci/clients FOLDER prints it")
    return (Path(modules) / "node_modules/axe-core/axe.min.js").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: entry.name)
def test_no_page_has_a_serious_violation(
    entry: Any, scheme: str, browser: Any, address: str, axe: str
) -> None:
    url = f"{address}/{entry.path}?experiment=home-artwork&refresh=Off"
    with opened(browser, url, entry.landmark, scheme=scheme) as page:
        page.evaluate(axe)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 2400})
            page.wait_for_timeout(700)  # the sidebar slides away
            assert page.evaluate(VIOLATIONS) == [], width


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("empty", "health"),
        ("alone", "experiment"),
        ("uneven", "verdict"),
        ("phased", "experiment"),
        ("hushed", "bandit"),
    ],
)
def test_no_other_record_has_a_serious_violation(
    folder: str, path: str, scheme: str, browser: Any, axe: str, request: pytest.FixtureRequest
) -> None:
    """Without experiments, with one variant, under a mismatch, with phases, and early."""
    with (
        served(request.getfixturevalue(folder)) as url,
        opened(browser, f"{url}/{path}?refresh=Off", "What next?", scheme=scheme) as page,
    ):
        # What is folded away is read as well once it is opened.
        for closed in page.locator('[data-testid="stExpander"] summary').all():
            closed.click()
        page.evaluate(axe)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 2400})
            page.wait_for_timeout(700)  # the sidebar slides away
            assert page.evaluate(VIOLATIONS) == [], width


def test_the_explanation_of_a_column_opens_by_touch_and_keyboard(
    browser: Any, address: str
) -> None:
    url = f"{address}/verdict?experiment=home-artwork&refresh=Off"
    with opened(browser, url, "All numbers", width=390) as page:
        term = page.locator(".tb-table .tb-term").first
        help_ = term.locator(".tb-help")
        assert not help_.is_visible()
        term.focus()
        assert help_.is_visible()
        box = help_.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert "glossary" in help_.get_by_role("link").get_attribute("href")


def test_a_phone_shows_three_columns_and_all_of_them_at_a_touch(browser: Any, address: str) -> None:
    url = f"{address}/experiment?experiment=home-artwork&refresh=Off"
    with opened(browser, url, "Every metric", width=390) as page:
        box = page.locator(".tb-box", has_text="probability to beat control").first
        assert box.evaluate(HEADS) == ["variant", "lift", "result"]
        box.get_by_label("All columns").check()
        assert len(box.evaluate(HEADS)) > 8


def test_the_verdict_is_printed_on_one_sheet(browser: Any, address: str, shots: Path) -> None:
    url = f"{address}/verdict?experiment=home-artwork&refresh=Off"
    with opened(browser, url, "All numbers") as page:
        page.get_by_role("button", name="Print or save as PDF").wait_for(timeout=60_000)
        printed = page.pdf(path=shots / "verdict.pdf", format="A4")
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
        page.emulate_media(media="print")
        assert not page.get_by_role("link", name="Home").first.is_visible()
        assert page.locator(".st-key-answer .stMarkdownBadge:visible").count() == 1


def test_what_is_urgent_stands_first_on_a_phone_too(browser: Any, address: str) -> None:
    with opened(browser, f"{address}/?refresh=Off", "Lift of") as page:
        wide = page.locator('[class*="st-key-card-"]').all_inner_texts()
        page.set_viewport_size({"width": 390, "height": 4000})
        page.wait_for_selector(RAN, timeout=60_000)
        cards = page.locator('[class*="st-key-card-"]')
        tops = [cards.nth(i).bounding_box()["y"] for i in range(cards.count())]
        assert tops == sorted(tops)
        assert [text.split("\n")[0] for text in cards.all_inner_texts()] == [
            text.split("\n")[0] for text in wide
        ]
