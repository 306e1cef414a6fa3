"""The page on off-policy evaluation runs as written, and prints what it says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from topbill.ope import ASSUMPTIONS, ESTIMATORS, SLATE_ESTIMATORS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "would-it-have-been-better.md"


def test_the_page_runs_from_top_to_bottom_and_prints_what_it_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text()
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, flags=re.DOTALL)
    assert len(blocks) >= 9
    names: dict[str, object] = {}
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, PAGE.name, "exec"), names)  # noqa: S102  (our own page)
        assert printed.getvalue() == shown, code


def test_the_page_says_what_every_estimator_assumes() -> None:
    text = PAGE.read_text()
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, assumption in ASSUMPTIONS.items():
        assert assumption.sentence in lines[name], name
        assert assumption.test in lines[name], name
    for estimator in (*ESTIMATORS.values(), *SLATE_ESTIMATORS.values()):
        assert estimator.assumptions, estimator.name
        for name in estimator.assumptions:
            everybody = "all but `dm`" in lines[name] and estimator.name != "dm"
            assert everybody or f"`{estimator.name}`" in lines[name], (estimator.name, name)
