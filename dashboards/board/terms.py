"""What each word on the pages means, in a sentence for people: of numbers and charts, of tables'
columns, of how a decision came about, and of states. The words stand in Topbill's
`domain/terms.yaml`; every help text opens with the term and ends with a link to the glossary.
"""

from __future__ import annotations

from topbill.domain.terms import load_terms

_TERMS = load_terms()
GLOSSARY = "glossary?term="
"""Where the glossary's page shows one term."""
TERMS = {
    key: f"**{entry.term[:1].upper()}{entry.term[1:]}**: {entry.meaning} "
    f"[Glossary]({GLOSSARY}{key})"
    for key, entry in _TERMS.terms.items()
}
"""Of numbers, charts and headings, as markdown."""
ENTRIES = _TERMS.terms
COLUMNS = _TERMS.columns
"""Of tables' columns; a column that is not here is a name of the experiment's own, such as a
metric.
"""
ENDED = _TERMS.reasons
"""How a decision came about."""
STATES = _TERMS.states
"""Of words that say where something stands."""
LISTED_STATES = _TERMS.listed_states()
"""The same for a list, each word once."""


def column_term(column: str) -> str | None:
    """The glossary's key of the term that a column's heading is; None where it is none."""
    return _BY_TERM.get(column)


_BY_TERM = {entry.term: key for key, entry in _TERMS.terms.items()}
