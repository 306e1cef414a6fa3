"""How names, texts and numbers enter an SQL statement."""

from __future__ import annotations


def quoted(text: str) -> str:
    """The text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    """The text as an SQL identifier."""
    return '"' + text.replace('"', '""') + '"'


def number(value: float) -> str:
    """The number as an SQL literal of the same 64 bits.

    `repr` gives the shortest text that reads back as the same float, and the cast keeps DuckDB
    from taking it for a DECIMAL, which would round in other places.
    """
    return f"{value!r}::DOUBLE"
