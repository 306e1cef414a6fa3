"""The page on reading a result runs as written."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reading-a-result.md").read_text()


def test_the_pages_code_runs_from_top_to_bottom() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/reading-a-result.md", "exec"), names)  # noqa: S102


def test_the_code_on_comparing_a_file_runs() -> None:
    page = (DOCS / "compare-a-file.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "docs/compare-a-file.md", "exec"), {})  # noqa: S102


def test_the_code_on_phases_runs() -> None:
    page = (DOCS / "phases.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "docs/phases.md", "exec"), {})  # noqa: S102
