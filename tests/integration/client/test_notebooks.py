"""The example notebooks run as they stand, cell by cell, and show tables and pictures."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pytest

pytest.importorskip("IPython", reason="a development dependency")

NOTEBOOKS = sorted((Path(__file__).parents[3] / "docs" / "notebooks").glob("*.ipynb"))
SHOWS: dict[str, tuple[str, ...]] = {
    "decide-and-reward": (),
    "off-policy-evaluation": ("differences", "one_weight_dominates|low_effective_sample"),
    "read-a-result": ("Guardrails and sample ratio", "minimum detectable effect", "units_move"),
    "train-a-policy": ("is certified to earn more",),
}
"""Notebook → what its tables say, as patterns; why the log can't tell, viewers' chance decides."""
PICTURES = {"off-policy-evaluation": 2, "read-a-result": 1}


def cells(notebook: Path) -> list[dict[str, Any]]:
    return list(json.loads(notebook.read_text())["cells"])


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What a notebook's kernel runs cells with, without the kernel's process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython's own
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings)
    # Whole results as text, which nobody would read.
    monkeypatch.setattr(shell.displayhook, "write_format_data", lambda *_, **__: None)
    yield shell
    InteractiveShell.clear_instance()


def test_there_is_one_for_each_job() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == sorted(SHOWS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_is_kept_without_outputs(notebook: Path) -> None:
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_runs_and_shows_what_it_promises(
    notebook: Path,
    shell: Any,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if "TOPBILL_URL" in notebook.read_text():
        monkeypatch.setenv("TOPBILL_URL", request.getfixturevalue("service"))
    tables, pictures = "", 0
    for cell in cells(notebook):
        if cell["cell_type"] != "code":
            continue
        ran = shell.run_cell("".join(cell["source"]))
        ran.raise_error()
        if ran.result is None:
            continue
        shown, _ = shell.display_formatter.format(ran.result)
        if isinstance(ran.result, alt.TopLevelMixin):
            assert "vega" in shown["text/html"]
            pictures += 1
        else:
            tables += shown.get("text/html", "")
    for words in SHOWS[notebook.stem]:
        assert re.search(words, tables), words
    assert pictures == PICTURES.get(notebook.stem, 0)
