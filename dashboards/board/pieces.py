"""What pages are made of: headings, numbers, charts and tables, each with its explanation and a way
to take it home.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import zip_longest

import altair as alt
import pandas as pd
import streamlit as st

from board import charts, data, words
from board.terms import COLUMNS
from topbill.reporting.queries.milestones import milestones

Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def section(title: str, help_: str) -> None:
    """A heading within a page, with its explanation."""
    st.subheader(title, anchor=False, help=help_)


def metrics(*numbers: tuple[str, str, str]) -> None:
    """Numbers side by side, as many in a row as there is room for: label, value, help."""
    # A fixed width each, so that numbers stand below each other where they wrap.
    with st.container(horizontal=True):
        for label, value, help_ in numbers:
            st.metric(label, value, help=help_, width=168)


def chart(drawing: Chart, numbers: pd.DataFrame, name: str, height: int | None = None) -> None:
    """A chart and, below it, the numbers that it was drawn from. It saves itself as PNG from its
    corner.
    """
    charts.draw(drawing, height, words.label(name))
    download(numbers, name)


def over_time(
    key: str,
    drawing: Chart,
    numbers: pd.DataFrame,
    name: str,
    height: int | None = None,
    *,
    colour: str = charts.GREY,
) -> None:
    """A chart over time (`numbers` has `till`), with what happened to the experiment meanwhile in
    `colour`.
    """
    chart(with_milestones(key, drawing, numbers, colour=colour), numbers, name, height)


def with_milestones(
    key: str,
    drawing: Chart,
    numbers: pd.DataFrame,
    *,
    labelled: bool = True,
    colour: str = charts.GREY,
) -> Chart:
    """The drawing, with a line at each phase, step and order of the experiment."""
    marks = [
        {"at": mark.at, "label": mark.label, "sentence": mark.sentence}
        for mark in data.ask(milestones, key)
    ]
    if not marks or numbers.empty:
        return drawing
    return charts.with_milestones(
        drawing, pd.DataFrame(marks), numbers["till"], labelled=labelled, colour=colour
    )


def filled(numbers: pd.DataFrame, column: str, *, is_running_total: bool = False) -> pd.DataFrame:
    """Columns till, name and `column`, with a line for each name in each bucket that any has: a
    name without one had nothing then (0), or nothing more than before.
    """
    wide = numbers.pivot_table(index="till", columns="name", values=column, aggfunc="sum")
    # Before its first line a running total is not there yet.
    wide = wide.ffill() if is_running_total else wide.fillna(0.0)
    long: pd.DataFrame = wide.reset_index().melt("till", value_name=column)
    return long.dropna()


def table(
    lines: pd.DataFrame, name: str, names: str = "", links: Sequence[str | None] = ()
) -> None:
    """A table of words; on a phone each line is a card.

    Args:
        lines: a line for each row.
        name: of the CSV file.
        names: tells more of columns that the experiment named.
        links: where the lines' first cells lead, if anywhere.
    """
    # As HTML of our own: Streamlit's table explains no heading and scrolls sideways on a phone.
    columns = [str(column) for column in lines.columns]
    heads = "".join(f"<th>{_head(column, names)}</th>" for column in columns)
    rows = []
    for cells, link in zip_longest(lines.itertuples(index=False), links[: len(lines)]):
        rows.append(_row(columns, cells, link))
    st.html(
        f'<table class="tb-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    download(lines, name)


def _row(columns: Sequence[str], cells: Sequence[object], link: str | None) -> str:
    """A line of a table. Each cell names its column, which a phone shows beside it."""
    parts = []
    for i, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        # Names come from files and requests: none may be taken for HTML.
        text = escape(str(cell))
        if link is not None and i == 0:
            text = f'<a href="{escape(link)}">{text}</a>'
        parts.append(f'<td data-column="{escape(column)}"><span>{text}</span></td>')
    return f"<tr>{''.join(parts)}</tr>"


def _head(column: str, names: str) -> str:
    # A heading without an explanation is an error of ours, found by the tests of every page.
    explanation = COLUMNS.get(column, names)
    if not explanation:
        raise KeyError(f"column {column!r} has no explanation; expected a line in board/terms.py")
    help_ = f'<span class="tb-help" role="tooltip">{escape(explanation)}</span>'
    return f'<span class="tb-term" tabindex="0">{escape(column)}{help_}</span>'


def download(numbers: pd.DataFrame, name: str) -> None:
    """A small button that saves the numbers as CSV."""
    st.download_button(
        "CSV",
        numbers.to_csv(index=False).encode(),
        f"{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help="Save these numbers as a CSV file. Charts are saved as PNG by a button in their "
        "corner.",
    )
