"""Results as pandas frames and as tables in a notebook."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from math import nan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def frame_of(rows: Sequence[Mapping[str, Any]], text: Collection[str] = ()) -> pd.DataFrame:
    """Rows as a frame with one column a number: float64 with NaN where a number is missing, whole
    numbers where none is; the columns named in `text` as they are.
    """
    # Here, as importing it takes more memory than an estimate over files, which does without.
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if name not in text and any(value is None for value in values):
            values = [nan if value is None else value for value in values]
        columns[name] = pd.Series(values, dtype=object if name in text else None)
    return pd.DataFrame(columns)


def html_of(frame: pd.DataFrame, *sentences: str) -> str:
    """A frame as a notebook shows it, below some sentences in plain text."""
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return paragraphs + frame.to_html(index=False, na_rep="–", float_format="{:.5g}".format)
