"""Whoever writes a file, offers an action or sends a context can put no link, picture, colour, icon
or heading on a page; and nobody can try passwords without end.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from filled import EXPERIMENTS, record_visits
from hypothesis import example, given
from hypothesis import strategies as st

from board import tries
from board.pages import PAGES as ENTRIES
from board.tries import Tries
from board.words import code, plain
from topbill import spec

HOSTILE = (
    "![x](http://127.0.0.1:9/beacon.png) [Approve](http://evil.example) :red[SHIP] `c` "
    ":material/home: :smile: **b** $m$ <a@evil.example> www.evil.example"
)
MARKDOWN = ("markdown", "caption", "title", "subheader", "info", "warning", "error", "expander")
# What Streamlit and its markdown would make something of, where nothing escapes it.
BUILDS = re.compile(
    r"(?<!\\)[\[\]<`*$~|{}]"
    r"|:(?=[\w/+-])"
    r"|\bwww\.(?!\u2060)|@\w"
    r"|^\s*(\d*[.)]|[#>+=-])"
    r"|\n"
)
UNESCAPED = re.compile(
    r"\[x\]|\[Approve\]|:red|:smile|:material/home|(?<!\\)<a|@evil|www\.evil|://evil|\*\*b\*\*"
)
"""What there is of HOSTILE where it was not escaped."""


@given(st.text())
@example(HOSTILE)
@example("# heading")
@example("1. first")
@example("- item\n\n    code")
@example("\\[a](b)")
@example("\\")
def test_nothing_of_a_text_is_taken_for_markdown(text: str) -> None:
    escaped = plain(text)
    assert not BUILDS.search(escaped.replace("\\\\", "")), escaped
    # An escape at its end would take the mark that comes after it.
    assert (len(escaped) - len(escaped.rstrip("\\"))) % 2 == 0


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"])))
@example(HOSTILE)
def test_what_is_read_is_the_text(text: str) -> None:
    text = text.strip(" \x85").replace("\u2060", "")
    shown = re.sub(r"\\([^\w\s])", r"\1", plain(text)).replace("\u2060", "")
    assert shown.replace("\\", "") == re.sub(" +", " ", text).replace("\\", "")


@given(st.text("`a\n ", min_size=1))
def test_nothing_ends_code_from_within(text: str) -> None:
    written = code(text)
    fence = re.match("`+", written)
    assert fence is not None
    inner = written[len(fence[0]) : -len(fence[0])]
    assert "\n" not in written
    assert all(len(run) < len(fence[0]) for run in re.findall("`+", inner))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artwork experiment, whose file says hostile things wherever it may say anything."""
    (artwork,) = spec.load_all([EXPERIMENTS / "home-artwork.yaml"])
    raw = artwork.raw
    first, *others = raw["actions"]
    renamed = {first["id"]: HOSTILE[:120]}

    def ordered(variant: dict[str, Any]) -> dict[str, Any]:
        order = [renamed.get(action, action) for action in variant.get("order", [])]
        return variant | ({"order": order} if order else {})

    changed = raw | {
        "title": HOSTILE,
        "hypothesis": HOSTILE,
        "owner": HOSTILE,
        "actions": [{**first, "id": HOSTILE[:120], "payload": {"title": HOSTILE}}, *others],
        "variants": {name: ordered(variant) for name, variant in raw["variants"].items()},
    }
    experiment = spec.from_raw(changed, "hostile.yaml")
    return record_visits(tmp_path_factory.mktemp("hostile"), [experiment], 400)


@pytest.mark.parametrize("page", [page.name for page in ENTRIES])
def test_no_page_makes_anything_of_what_a_file_says(page: str, open_app, hostile: Path) -> None:
    app = open_app(hostile, page, experiment="home-artwork")
    assert not app.exception
    elements = itertools.chain.from_iterable(app.get(kind) for kind in MARKDOWN)
    for element in elements:
        written = f"{getattr(element, 'label', '')} {getattr(element, 'value', '')}"
        assert not UNESCAPED.search(written), f"{page}: {element.type}: {written}"


def test_wrong_passwords_are_limited_for_all_together() -> None:
    now = 0.0
    limit = Tries(lambda: now)
    for _ in range(tries.MOST):
        assert limit.wait() == 0.0
        limit.failed()
        now += 1.0
    assert limit.wait() == tries.SECONDS - tries.MOST
    now = tries.SECONDS
    assert limit.wait() == 0.0


def test_the_gate_asks_before_it_compares(open_app, demo: Path, monkeypatch) -> None:
    monkeypatch.setenv("TOPBILL_DASHBOARD_PASSWORD", "correct horse battery")
    monkeypatch.setattr(tries.TRIES, "_failures", Tries()._failures)
    for text in ["wrong"] * tries.MOST:
        app = open_app(demo)
        app.text_input[0].set_value(text).run()
        assert "not the password" in app.error[0].value
    app = open_app(demo)
    app.text_input[0].set_value("correct horse battery").run()
    assert "Too many" in app.error[0].value
