"""What pages are made of: headings, numbers, charts and tables, each with its explanation and a way
to take it home.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import altair as alt
import pandas as pd
import streamlit as st

from board import charts, words
from board.terms import COLUMNS

Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def section(title: str, help_: str) -> None:
    """A heading within a page, with its explanation."""
    st.subheader(title, anchor=False, help=help_)


def metrics(*shown: tuple[str, str, str]) -> None:
    """Numbers side by side, as many in a row as there is room for: label, value, help."""
    with st.container(horizontal=True):
        for label, value, help_ in shown:
            st.metric(label, value, help=help_, width=168)


def chart(drawn: Chart, frame: pd.DataFrame, name: str, height: int | None = None) -> None:
    """A chart and, below it, the numbers that it was drawn from. It saves itself as PNG from its
    corner.
    """
    charts.draw(drawn, height, words.label(name))
    download(frame, name)


def table(frame: pd.DataFrame, name: str, names: str = "", links: Sequence[str] = ()) -> None:
    """A table of words, one line for each row of `frame`; on a phone each row is a card. `names`
    tells more of columns that the experiment named, `links` are where the rows' first cells
    lead."""
    head = "".join(f"<th>{_headed(str(column), names)}</th>" for column in frame.columns)
    rows = [[escape(str(cell)) for cell in row] for row in frame.itertuples(index=False)]
    for row, link in zip(rows, links, strict=False):
        row[0] = f'<a href="{escape(link)}">{row[0]}</a>'
    columns = [escape(str(column)) for column in frame.columns]
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-column="{c}"><span>{cell}</span></td>'
            for c, cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    st.html(f'<table class="tb-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')
    download(frame, name)


def _headed(column: str, names: str) -> str:
    told = COLUMNS.get(column, names)
    if not told:
        raise KeyError(f"column {column!r} has no explanation; expected a line in board/terms.py")
    help_ = f'<span class="tb-help" role="tooltip">{escape(told)}</span>'
    return f'<span class="tb-term" tabindex="0">{escape(column)}{help_}</span>'


def download(frame: pd.DataFrame, name: str) -> None:
    """A small button that saves the numbers as CSV."""
    st.download_button(
        "CSV",
        frame.to_csv(index=False).encode(),
        f"{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help="Save these numbers as a CSV file. Charts are saved as PNG by a button in their corner.",
    )
