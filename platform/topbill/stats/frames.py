"""Results as pandas frames and as tables in a notebook."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def frame_of(rows: Sequence[Mapping[str, Any]], text: Collection[str] = ()) -> pd.DataFrame:
    """Rows as a frame with one column a number, and the columns named in `text` as they are.

    Columns of numbers are of pandas' nullable types (Float64, Int64, boolean): a number that is
    missing is `pandas.NA`, never NaN.
    """
    # Here, as importing it takes more memory than an estimate over files, which does without.
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if name in text:
            columns[name] = pd.Series(values, dtype=object)
        else:
            is_unknown = all(value is None for value in values)
            columns[name] = pd.array(values, dtype="Float64" if is_unknown else None)
    return pd.DataFrame(columns)


def html_of(frame: pd.DataFrame, *sentences: str) -> str:
    """A frame as a notebook shows it, below some sentences in plain text."""
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    # Of nullable columns, pandas passes over `na_rep`.
    shown = frame.astype(object).where(frame.notna(), "–")
    return paragraphs + shown.to_html(index=False, float_format="{:.5g}".format)
