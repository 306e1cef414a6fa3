"""The words that people read: each has one meaning, and no other word is said for it on screen, in
the command line's output, in error messages or on the pages of docs/.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from topbill.domain import terms
from topbill.domain.terms import PLACES, glossary, load_terms
from topbill.reporting.experiment import wording
from topbill.spec.yaml import parse

ROOT = Path(__file__).parents[3]
ALLOWED = {
    ("docs/from-an-ab-tool.md", "arm"): "the word of the tools that one comes from",
    ("docs/from-an-ab-tool.md", "arms"): "the word of the tools that one comes from",
    ("docs/running.md", "troubles"): "a key of /readyz, whose problems are those of files",
    ("README.md", "arm"): "a family of processors",
    ("platform/topbill/cli/renamed.py", None): "names what things were called in 0.1",
    ("docs/glossary.md", None): "names the words that are not said",
    ("platform/topbill/spec/renames.py", None): "names what keys were called in 0.1",
    ("platform/topbill/reporting/calibration.py", "micros"): "a column of its own SQL",
}
"""(file, word or every word) → why it may stand there."""
TELLING = {"wrong", "FileProblem", "Problem", "Key", "Meta"}
"""Functions whose text people read, besides what is raised: problems, and what keys are for."""


def forbidden() -> dict[str, str]:
    """Word that is not said → the term that is said instead."""
    return {word: term.term for term in load_terms().terms.values() for word in term.never}


def pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w`-]){re.escape(word)}(?![\w-])", re.IGNORECASE)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def without_docstrings(tree: ast.Module) -> Iterator[str]:
    docstrings = set()
    for node in ast.walk(tree):
        # Strings that stand alone: documentation of modules, classes, functions and constants.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def messages(tree: ast.Module) -> Iterator[str]:
    """What is raised, and what is noted of files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            yield from strings(node)
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in TELLING:
                yield from strings(node)


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of all that people read."""
    for path in sorted((ROOT / "dashboards").rglob("*.py")):
        for text in without_docstrings(parsed(path)):
            yield str(path.relative_to(ROOT)), text
    # Docstrings of commands are their help.
    for path in sorted((ROOT / "platform/topbill/cli").glob("*.py")):
        for text in strings(parsed(path)):
            yield str(path.relative_to(ROOT)), text
    for package in ("platform/topbill", "clients/python"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for text in messages(parsed(path)):
                yield str(path.relative_to(ROOT)), text
    # Modules that make sentences, headings and cells.
    speaking = [
        *(ROOT / "platform/topbill/reporting").rglob("*.py"),
        *(ROOT / "platform/topbill/plan").rglob("*.py"),
        *(ROOT / "platform/topbill/alerts").rglob("*.py"),
        *(ROOT / "platform/topbill/launch").rglob("*.py"),
        ROOT / "platform/topbill/ab/verdict.py",
        ROOT / "platform/topbill/domain/reasons.py",
        ROOT / "platform/topbill/domain/alarm.py",
    ]
    for path in sorted(speaking):
        for text in without_docstrings(parsed(path)):
            yield str(path.relative_to(ROOT)), text
    glossary_file = load_terms()
    for meanings in (glossary_file.columns, glossary_file.reasons, glossary_file.states):
        for word, meaning in meanings.items():
            yield "platform/topbill/domain/terms.yaml", f"{word}: {meaning}"
    # Code is set apart from what a page says; but commands and keys in it are read as well.
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "experiments/README.md"]
    for path in sorted(pages):
        yield str(path.relative_to(ROOT)), path.read_text()


def test_no_other_word_is_said_for_a_term() -> None:
    words = {word: pattern(word) for word in forbidden()}
    found = []
    for file, text in texts():
        for word, matches in words.items():
            allowed = (file, word) in ALLOWED or (file, None) in ALLOWED
            if not allowed and (match := matches.search(text)):
                around = text[max(0, match.start() - 40) : match.end() + 40].replace("\n", " ")
                found.append(f"{file}: …{around}…: say {forbidden()[word]} instead of {word}")
    assert found == []


def test_what_is_allowed_is_needed() -> None:
    stands = {
        (file, word) for file, text in texts() for word in forbidden() if pattern(word).search(text)
    }
    for file, word in ALLOWED:
        if file.endswith(".md") and word is not None:
            assert (file, word) in stands


def test_the_scan_reads_help_messages_screens_and_pages() -> None:
    by_file: dict[str, list[str]] = {}
    for file, text in texts():
        by_file.setdefault(file, []).append(text)
    assert any("Fold the log" in text for text in by_file["platform/topbill/cli/processes.py"])
    assert any("an unknown key" in text for text in by_file["platform/topbill/spec/fields.py"])
    assert "docs/running.md" in by_file
    assert any("Exploration floor" in text for text in by_file["dashboards/views/what_if.py"])
    assert pattern("floor").search("The floor is low")
    assert not pattern("face").search("surfaces")


def test_every_term_says_where_it_stands_and_is_no_forbidden_word() -> None:
    terms = load_terms().terms
    for key, term in terms.items():
        assert term.meaning.endswith("."), key
        assert term.shown, key
        assert set(term.shown) <= set(PLACES), key
        assert term.term not in forbidden(), key
        for word in forbidden():
            assert not pattern(word).search(term.meaning), (key, word)


def test_the_glossary_is_that_of_the_terms() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text()
    assert page == glossary(), "run python -m topbill.domain.terms > docs/glossary.md"


@pytest.mark.parametrize("key", ["lift", "min_probability", "variant", "worker", "database"])
def test_columns_and_terms_are_spelt_out(key: str) -> None:
    terms = load_terms()
    assert key in terms.meanings()
    assert not any(text.startswith("=") for text in terms.columns.values())


def test_every_word_for_where_something_stands_is_explained() -> None:
    """The states that experiments, comparisons, guardrails and goals may be in, in the glossary."""
    said = {word for word, _, _ in wording._BY_CODE.values()}
    for standing in (wording._NO_TRAFFIC, wording._DRAFT, wording._ONE_VARIANT, wording._CONCLUDED):
        said.add(standing.word)
    said |= {wording._HARM_IN_DOUBT[0], wording._TOO_EARLY[0], "Winner"}
    said |= set(wording.CALLS.values()) | set(wording.GUARDRAILS.values())
    assert said <= set(load_terms().states)


def test_no_term_is_there_twice() -> None:
    file = Path(terms.__file__).with_name("terms.yaml")
    assert parse(file.read_bytes(), file.name)[1] == []
