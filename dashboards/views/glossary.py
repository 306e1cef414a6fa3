"""Glossary: every term of the pages with its meaning, and every word that says where something
stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import streamlit as st

from board import frame, pieces, words
from board.terms import ENTRIES, LISTED_STATES
from topbill.domain.terms import GlossaryEntry
from topbill.reporting.experiment.wording import Standing


def opened(key: str) -> Standing:
    """The term that a help text led to; how to find one where none did."""
    entry = ENTRIES.get(key)
    if entry is None:
        return Standing(
            word="Glossary",
            tone="neutral",
            sentence="Every word of these pages, in the field's terms.",
            next="Type what you look for.",
        )
    return Standing(
        word="Glossary",
        tone="neutral",
        sentence=f"{_capital(entry.term)}: {entry.meaning}",
        next="Close this tab to go back to the numbers, or look for another word below.",
    )


def definitions(meanings: Mapping[str, str]) -> None:
    """Words with their meanings, as a list of definitions."""
    lines = []
    for word, meaning in meanings.items():
        lines.append(f"<dt>{escape(_capital(word))}</dt><dd>{escape(meaning)}</dd>")
    st.html(f'<dl class="tb-terms">{"".join(lines)}</dl>')


def _capital(word: str) -> str:
    return f"{word[:1].upper()}{word[1:]}"


def matching(meanings: Mapping[str, str], needle: str) -> dict[str, str]:
    """Those whose word or meaning has what was typed, by the alphabet."""
    found = {
        word: meaning for word, meaning in meanings.items() if needle in f"{word} {meaning}".lower()
    }
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def _said(entry: GlossaryEntry) -> str:
    return f"{entry.meaning} Not: {', '.join(entry.never)}." if entry.never else entry.meaning


def body() -> None:
    frame.header("Glossary")
    frame.answer(opened(str(st.query_params.get("term", ""))))
    text = st.text_input(
        "Search",
        key="term_search",
        bind="query-params",
        placeholder="such as lift, SRM or non-inferiority",
        icon=":material/search:",
    )
    needle = (text or "").strip().lower()
    terms = matching({entry.term: _said(entry) for entry in ENTRIES.values()}, needle)
    states = matching(LISTED_STATES, needle)
    if not terms and not states:
        st.info(f"No term has {words.code(needle)}.", icon=":material/search_off:")
    if terms:
        pieces.section("Terms", "What labels, columns and headings mean.")
        definitions(terms)
    if states:
        pieces.section("States", "One word for one state, on every screen.")
        definitions(states)


frame.show("Glossary", body, refresh=False)
