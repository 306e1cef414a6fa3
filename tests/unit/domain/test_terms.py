"""The words that people read: each has one meaning, and no other word is said for it on screen, in
the command line's output, in error messages or on the pages of docs/.
"""

from __future__ import annotations

import ast
import json
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


def standing_words() -> Iterator[tuple[Path, str]]:
    """(file, word) of all words by which code says where something stands."""
    for folder in ("dashboards", "platform/topbill/reporting"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.keyword) and node.arg == "word":
                    for text in strings(node.value):
                        yield path, text


def test_every_word_for_where_something_stands_is_in_the_glossary() -> None:
    found = list(standing_words())
    assert len(found) > 20
    states = load_terms().states
    assert [(path.name, word) for path, word in found if word not in states] == []


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


def titles(dashboard: object) -> Iterator[str]:
    """What Grafana writes on a dashboard and its panels."""
    if isinstance(dashboard, list):
        for part in dashboard:
            yield from titles(part)
    if isinstance(dashboard, dict):
        for key, part in dashboard.items():
            if key in ("title", "description") and isinstance(part, str):
                yield part
            yield from titles(part)


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
        ROOT / "platform/topbill/charts.py",
        ROOT / "platform/topbill/ab/planning.py",
        ROOT / "platform/topbill/ab/results.py",
        ROOT / "platform/topbill/ab/verdict.py",
        ROOT / "platform/topbill/domain/reasons.py",
        ROOT / "platform/topbill/domain/alarm.py",
    ]
    for path in sorted(speaking):
        for text in without_docstrings(parsed(path)):
            yield str(path.relative_to(ROOT)), text
    # Of these, sentences alone: single words are names of fields.
    for package in ("ope", "service"):
        for path in sorted((ROOT / "platform/topbill" / package).rglob("*.py")):
            for text in without_docstrings(parsed(path)):
                if " " in text.strip():
                    yield str(path.relative_to(ROOT)), text
    glossary_file = load_terms()
    for meanings in (glossary_file.columns, glossary_file.reasons, glossary_file.states):
        for word, meaning in meanings.items():
            yield "platform/topbill/domain/terms.yaml", f"{word}: {meaning}"
    # Code is set apart from what a page says; but commands and keys in it are read as well.
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "experiments/README.md"]
    pages += [ROOT / "clients/typescript/README.md"]
    pages += (ROOT / "experiments").rglob("*.yaml")
    for path in sorted(pages):
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            yield str(path.relative_to(ROOT)), "".join(cell["source"])
    for path in sorted((ROOT / "deploy").rglob("*.json")):
        for title in titles(json.loads(path.read_text())):
            yield str(path.relative_to(ROOT)), title


@cache
def said() -> tuple[tuple[str, str, str], ...]:
    """(file, forbidden word, what stands around it), wherever one is said."""
    # All words in one pattern: there are many texts. The longer of two that begin alike counts.
    words = sorted(forbidden(), key=len, reverse=True)
    any_word = re.compile(
        rf"(?<![\w`-])({'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE
    )
    found = []
    for file, text in texts():
        for match in any_word.finditer(text):
            around = text[max(0, match.start() - 40) : match.end() + 40].replace("\n", " ")
            found.append((file, match[0].casefold(), around))
    return tuple(found)


def test_no_other_word_is_said_for_a_term() -> None:
    instead = {word.casefold(): term for word, term in forbidden().items()}
    found = [
        f"{file}: …{around}…: say {instead[word]} instead of {word}"
        for file, word, around in said()
        if (file, word) not in ALLOWED and (file, None) not in ALLOWED
    ]
    assert found == []


def test_what_is_allowed_is_needed() -> None:
    stands = {(file, word) for file, word, _ in said()}
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
    assert any("Who wins" in text for text in by_file["docs/notebooks/read-a-result.ipynb"])
    assert any("Begin with status" in text for text in by_file["platform/topbill/cli/agents.py"])
    assert any("is certified" in text for text in by_file["platform/topbill/ope/training.py"])
    assert "platform/topbill/reporting/experiment/html.py" in by_file
    assert any(file.startswith("deploy/") for file in by_file)
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
