"""Artwork and rows: the pictures, titles and rows themselves, how often each was shown where, and
what it earned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from board import answers, charts, choose, data, frame, pictures, pieces, words
from board.pictures import Payloads
from board.terms import TERMS
from topbill.reporting.queries import action_values, exposure

EVERYBODY = "all viewers"
COLUMNS = 4
MOST = 24
"""Pictures of a catalogue are thousands."""


def choose_group(key: str) -> tuple[str, str] | None:
    """A context feature and one of its groups; None for all viewers."""
    # The text of the choice is also what the address holds.
    options: dict[str, tuple[str, str] | None] = {EVERYBODY: None}
    for feature, groups in data.ask(action_values.groups, key).items():
        for group in groups:
            options[f"{feature}: {group}"] = (feature, group)
    chosen = st.selectbox(
        "Viewers", list(options), key="viewers", bind="query-params", help=TERMS["segment"]
    )
    return options[str(chosen or EVERYBODY)]


def gallery(key: str, payloads: Payloads, values: pd.DataFrame) -> None:
    """Every action as its picture, most shown first."""
    rows = {row["action"]: row for row in values.to_dict("records")}
    # Those that were never shown first come last, so that nothing of the file is missing.
    order = [*rows, *(action for action in payloads if action not in rows)]
    folder = pictures.folder(key)
    if len(order) > MOST:
        st.caption(
            f"The {MOST} most shown at position 1, of {words.several(len(order), 'picture')}."
        )
        order = order[:MOST]
    for start in range(0, len(order), COLUMNS):
        actions = order[start : start + COLUMNS]
        for column, action in zip(st.columns(COLUMNS), actions, strict=False):
            with column, st.container(border=True):
                picture = pictures.picture(payloads.get(action, {}), folder)
                if picture:
                    pictures.show(picture, action)
                numbers(pictures.name(action, payloads), rows.get(action))


def numbers(name: str, row: Mapping[Any, Any] | None) -> None:
    """An action's numbers in three lines."""
    if row is None:
        st.markdown(f"**{words.plain(name)}**  \nnever shown first")
        return
    share = words.share(row["share"], digits=0)
    st.markdown(f"**{words.plain(name)}** · shown **{share}**")
    st.progress(min(1.0, float(row["share"])))
    if row["reason"]:
        st.caption(f"value unknown: {action_values.REASONS[row['reason']]}")
    else:
        interval = words.interval(row["low"], row["high"])
        st.caption(
            f"off-policy value **{words.value(row['value'])}** ({interval}); "
            f"{answers.rests_on(row)}",
            help=TERMS["adaptive"],
        )


def positions(key: str, variant: str, payloads: Payloads) -> None:
    """Where each action stood."""
    counts = data.ask(exposure.positions, key, variant)
    if counts.empty or counts["position"].nunique() < 2:
        return
    pieces.section("Where each one stands", TERMS["positions"])
    named = counts.assign(name=pictures.names(counts["action"], payloads))
    # From top to bottom by how high an action mostly stands.
    height = named.assign(points=named["shown"] / named["position"])
    order = height.groupby("name")["points"].sum().sort_values(ascending=False).index.tolist()
    drawing = charts.heat(
        named, "position", "name", "share", x_title="position", y_order=order, x_order=None
    )
    pieces.chart(drawing, counts, f"{key}-{variant}-positions", 28 * len(order) + 64)


def chart(values: pd.DataFrame, payloads: Payloads, name: str) -> None:
    """Each one's worth with its interval, where it has one."""
    certain = values.dropna(subset=["value"])
    if certain.empty:
        return
    named = certain.assign(action=pictures.names(certain["action"], payloads))
    st.caption(
        "Blue: off-policy value with its 95% interval, for one look. Orange tick: observed mean of "
        "the variant's own decisions that showed it at position 1. Mature decisions alone."
    )
    drawing = charts.action_values(named, "objective per decision")
    pieces.chart(drawing, certain, name, 30 * len(certain) + 50)


def table(values: pd.DataFrame, payloads: Payloads, name: str) -> None:
    lines = []
    for row in values.to_dict("records"):
        interval = words.interval(row["low"], row["high"])
        if row["reason"]:
            interval = action_values.REASONS[row["reason"]]
        lines.append(
            {
                "name": pictures.name(row["action"], payloads),
                "shown at position 1": words.count(row["shown"]),
                "share at position 1": words.share(row["share"]),
                "observed mean": words.value(row["plain"]),
                "off-policy value": words.value(row["value"]),
                "95% of this look": interval,
                "rests on": answers.rests_on(row),
            }
        )
    phone = ("name", "share at position 1", "off-policy value")
    pieces.table(pd.DataFrame(lines), name, phone=phone)


def shown_alone(key: str, variant: str) -> None:
    """What was shown, and how often an event named it, where nothing can be said of what each is
    worth: the layers of a page, of whose draws the log has the chance of what was drawn alone.
    """
    shown = data.ask(exposure.most_shown, key, variant)
    if shown.empty:
        st.info("This variant has decided nothing yet.", icon=":material/hourglass_top:")
        return
    payloads = pictures.payloads(key)
    rows = shown.to_dict("records")
    favourite = pictures.name(rows[0]["action"], payloads)
    where = answers.shown_alone(favourite, shown, words.label(variant))
    frame.answer(answers.while_still(where, data.age()), TERMS["most_shown"])
    total = words.count(shown.attrs["actions"])
    pieces.section(f"The {len(shown)} shown most, of {total}", TERMS["most_shown"])
    if data.experiment(key).surface == "artwork":
        shown_pictures(key, payloads, rows[:MOST])
    lines = []
    for row in rows:
        lines.append(
            {
                "name": pictures.name(row["action"], payloads),
                "on pages": words.count(row["shown"]),
                "share": words.share(row["share"]),
                "named": words.count(row["played"]),
                "named a place": words.share(row["rate"]),
            }
        )
    pieces.table(pd.DataFrame(lines), f"{key}-{variant}-shown")


def shown_pictures(key: str, payloads: Payloads, rows: Sequence[Mapping[Any, Any]]) -> None:
    """Pictures of a page's catalogue with how often each was shown."""
    folder = pictures.folder(key)
    for start in range(0, len(rows), COLUMNS):
        for column, row in zip(st.columns(COLUMNS), rows[start:], strict=False):
            with column, st.container(border=True):
                drawing = pictures.picture(payloads.get(row["action"], {}), folder)
                if drawing:
                    pictures.show(drawing, row["action"])
                name = words.plain(pictures.name(row["action"], payloads))
                st.markdown(f"**{name}**")
                places = words.several(row["shown"], "place")
                st.caption(f"{places}, named at {words.share(row['rate'])} of them")


def body() -> None:
    key = frame.chosen()
    experiment = data.listed(key)
    frame.header("Artwork and rows", key)
    if not experiment.decisions:
        frame.no_decisions(key)
        return
    left_column, right_column = st.columns([3, 2], vertical_alignment="bottom")
    with left_column:
        variant = choose.variant(key)
    with right_column:
        group = choose_group(key)
    # Without a group the question is one that is answered in advance on large records.
    values = (
        data.ask(action_values.action_values, key, variant)
        if group is None
        else data.ask(action_values.action_values, key, variant, *group)
    )
    if values.empty and group is None:
        shown_alone(key, variant)
        return
    if values.empty:
        st.info(
            "No mature decision of these viewers with logged probabilities yet.",
            icon=":material/hourglass_top:",
        )
        return
    payloads = pictures.payloads(key)
    labels = {action: pictures.name(action, payloads) for action in payloads}
    whose = f"{words.label(variant)}'s" + (f" {group[1]}" if group else "")
    where = answers.pictures(labels, values, whose)
    frame.answer(answers.while_still(where, data.age()), TERMS["share"])
    if experiment.surface == "artwork":
        pieces.section("The pictures", TERMS["share"])
        gallery(key, payloads, values)
    positions(key, variant, payloads)
    pieces.section("In numbers", TERMS["adaptive"])
    name = f"{key}-{variant}-{group[1] if group else 'all'}"
    chart(values, payloads, f"{name}-worth")
    table(values, payloads, name)


frame.show("Artwork and rows", body)
