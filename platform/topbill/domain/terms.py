"""The words that people read and what they mean: `terms.yaml`, and the glossary made of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

PLACES = ("dashboards", "cli", "docs")
_FILE = Path(__file__).with_name("terms.yaml")


class GlossaryEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A word with its meaning: `never` are words that would mean the same and are not to be said
    instead, `shown` the places (of PLACES) where people meet it.
    """

    term: str
    meaning: str
    never: tuple[str, ...] = msgspec.field(name="not", default=())
    shown: tuple[str, ...]


class Glossary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `terms.yaml`: terms by the short name that code knows them by, what the columns of
    tables hold, how decisions came about, and the words that say where something stands.
    """

    terms: dict[str, GlossaryEntry]
    columns: dict[str, str]
    reasons: dict[str, str]
    states: dict[str, str]

    def meanings(self) -> dict[str, str]:
        """The meaning of each term."""
        return {key: term.meaning for key, term in self.terms.items()}

    def listed_states(self) -> dict[str, str]:
        """The states as a list has them: a word that begins a badge and stands in a table as well,
        with a capital and without, is there once, with all that it means."""
        listed: dict[str, str] = {}
        words: dict[str, str] = {}
        for state, meaning in self.states.items():
            word = words.setdefault(state.casefold(), state)
            said = listed.get(word, "")
            if meaning not in said:
                listed[word] = f"{said} {meaning}".strip()
        return listed


@cache
def load_terms() -> Glossary:
    """The terms, with columns that say what a term says (`=lift …`) spelt out."""
    # Only dashboards and the glossary need them, and YAML takes time to import.
    import yaml

    content: Any = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    terms = msgspec.convert(content, Glossary)
    columns = {name: _spelt_out(text, terms.terms) for name, text in terms.columns.items()}
    return msgspec.structs.replace(terms, columns=columns)


def _spelt_out(text: str, terms: Mapping[str, GlossaryEntry]) -> str:
    """`=lift And more.` → the meaning of lift, and more."""
    if not text.startswith("="):
        return text
    key, _, more = text[1:].partition(" ")
    return f"{terms[key].meaning} {more}".rstrip()


def glossary() -> str:
    """docs/glossary.md: every term with its meaning, by the alphabet."""
    lines = [
        "# Glossary",
        "",
        "What the words mean that dashboards, commands and these pages use. Made of",
        "`platform/topbill/domain/terms.yaml` by `python -m topbill.domain.terms`.",
        "",
    ]
    for term in sorted(load_terms().terms.values(), key=lambda term: term.term.lower()):
        lines.append(f"**{term.term}**: {term.meaning}")
        if term.never:
            lines.append(f"Not: {', '.join(term.never)}.")
        lines.append("")
    lines += ["## States", "", "One word for one state, on every screen.", ""]
    for state, meaning in load_terms().listed_states().items():
        lines += [f"**{state}**: {meaning}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(glossary(), end="")
