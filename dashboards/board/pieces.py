"""What pages are made of: headings, numbers, charts and tables, each with its explanation and a way
to take it home.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from itertools import zip_longest
from types import MappingProxyType

import pandas as pd
import streamlit as st

from board import charts, data, words
from board.terms import COLUMNS, GLOSSARY, column_term
from topbill.reporting.queries.milestones import milestones


def section(title: str, help_: str) -> None:
    """A heading within a page, with its explanation."""
    st.subheader(title, anchor=False, help=help_)


def result(sign: str, word: str) -> str:
    """A word with its sign, so that no colour speaks alone; both stay on one line."""
    return f"{sign}\u00a0{word}"


def metrics(*numbers: tuple[str, str, str]) -> None:
    """Numbers side by side, as many in a row as there is room for: label, value, help."""
    # A fixed width each, so that numbers stand below each other where they wrap.
    with st.container(horizontal=True):
        for label, value, help_ in numbers:
            st.metric(label, value, help=help_, width=168)


def chart(
    drawing: charts.Drawing, numbers: pd.DataFrame, name: str, height: int | None = None
) -> None:
    """A chart and, below it, the numbers that it was drawn from. It saves itself as PNG from its
    corner.
    """
    charts.draw(drawing, height, described(name, numbers))
    download(numbers, name)


def described(name: str, numbers: pd.DataFrame) -> str:
    """What a chart shows, for those who do not see it: the names on it, with what is told of each
    where it has one line. All numbers are in the CSV below it.
    """
    title = words.label(name.replace("-", " "))
    labels = next((c for c in ("name", "action", "variant") if c in numbers.columns), None)
    if labels is None or numbers.empty:
        return f"Chart: {title}."
    says = next((c for c in ("text", "value") if c in numbers.columns), None)
    if says is None or numbers[labels].duplicated().any():
        names = words.listing([str(name) for name in dict.fromkeys(numbers[labels])], 12)
        return f"Chart: {title}, of {names}."
    parts = []
    for label, value in zip(numbers[labels], numbers[says], strict=True):
        said = value if isinstance(value, str) else words.value(value)
        parts.append(f"{label} {said}")
    return f"Chart: {title}: {words.listing(parts, 12)}."


def over_time(
    key: str,
    drawing: charts.Drawing,
    numbers: pd.DataFrame,
    name: str,
    height: int | None = None,
    *,
    colour: str = charts.GREY,
) -> None:
    """A chart over time (`numbers` has `till`), with what happened to the experiment meanwhile in
    `colour`.
    """
    marks = marked(key)
    if len(marks) and not numbers.empty:
        drawing = charts.with_milestones(drawing, marks, numbers["till"], colour=colour)
    chart(drawing, numbers, name, height)


def marked(key: str) -> pd.DataFrame:
    """Each phase, step and order of the experiment: columns at, label, sentence."""
    marks = [(mark.at, mark.label, mark.sentence) for mark in data.ask(milestones, key)]
    return pd.DataFrame(marks, columns=["at", "label", "sentence"])


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
    lines: pd.DataFrame,
    name: str,
    names: str = "",
    links: Sequence[str | None] = (),
    *,
    phone: Sequence[str] = (),
    group: str = "",
    strong: Mapping[str, str] = MappingProxyType({}),
    csv: bool = True,
) -> None:
    """A table of words; on a phone three of its columns, and all of them at a touch.

    Args:
        lines: a line for each row.
        name: of the CSV file.
        names: tells more of columns that the experiment named.
        links: where the lines' first cells lead, if anywhere.
        phone: the columns that a phone shows; the first two and the last unless told otherwise.
        group: a column whose cells stand as headings above their lines instead.
        strong: column → cell of the rows that stand out.
        csv: whether a button below saves it.
    """
    # As HTML of our own: Streamlit's table explains no heading and scrolls sideways on a phone.
    columns = [str(column) for column in lines.columns]
    shown = set(phone or [*columns[:2], *columns[-1:]]) - {group}
    # How a column is shown: always, where there is room, or as headings above the lines.
    kinds = [_kind(column, shown, group) for column in columns]
    heads = []
    for column, kind in zip(columns, kinds, strict=True):
        heads.append(f'<th scope="col"{kind}>{_head(column, names)}</th>')
    rows, above = [], None
    for cells, link in zip_longest(lines.itertuples(index=False), links[: len(lines)]):
        values = dict(zip(columns, map(str, cells), strict=True))
        if group and values[group] != above:
            rows.append(
                f'<tr class="tb-group"><th colspan="{len(columns)}" scope="rowgroup">'
                f"{escape(values[group])}</th></tr>"
            )
        above = values.get(group)
        is_strong = bool(strong) and all(values[key] == cell for key, cell in strong.items())
        rows.append(_row(values, kinds, link, is_strong))
    choice = ""
    if any("tb-wide" in kind for kind in kinds):
        choice = '<label class="tb-all"><input type="checkbox"> All columns</label>'
    st.html(
        f'<div class="tb-box">{choice}<table class="tb-table">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    if csv:
        download(lines, name)


def _kind(column: str, shown: set[str], group: str) -> str:
    """The class of a column's cells."""
    if column == group:
        return ' class="tb-grouped"'
    return "" if column in shown else ' class="tb-wide"'


def _row(values: Mapping[str, str], kinds: Sequence[str], link: str | None, strong: bool) -> str:
    """A line of a table."""
    parts = []
    for i, ((column, cell), kind) in enumerate(zip(values.items(), kinds, strict=True)):
        # Names come from files and requests: none may be taken for HTML.
        text = escape(cell)
        if link is not None and i == 0:
            text = f'<a href="{escape(link)}">{text}</a>'
        parts.append(f'<td data-column="{escape(column)}"{kind}><span>{text}</span></td>')
    standing_out = ' class="tb-strong"' if strong else ""
    return f"<tr{standing_out}>{''.join(parts)}</tr>"


def _head(column: str, names: str) -> str:
    # A heading without an explanation is an error of ours, found by the tests of every page.
    explanation = COLUMNS.get(column, names)
    if not explanation:
        raise KeyError(f"column {column!r} has no explanation; expected a line in board/terms.py")
    # A column that is a term leads to it; the glossary's page has a search for the others.
    link = f"{GLOSSARY}{column_term(column) or ''}"
    help_ = (
        f'<span class="tb-help" role="tooltip">{escape(explanation)} '
        f'<a href="{link}" target="_blank">Glossary</a></span>'
    )
    return f'<span class="tb-term" tabindex="0">{escape(column)}{help_}</span>'


def download(numbers: pd.DataFrame, name: str) -> None:
    """A small button that saves the numbers as CSV, which is made of them once it is pressed."""
    st.download_button(
        "CSV",
        partial(_csv, numbers),
        f"{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help="Save these numbers as a CSV file. Charts are saved as PNG by a button in their "
        "corner.",
    )


def _csv(numbers: pd.DataFrame) -> bytes:
    return numbers.to_csv(index=False).encode()
