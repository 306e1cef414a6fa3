"""Decisions: look one up, and see what was known, what was drawn with which chance, and what came
of it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from board import answers, bars, charts, data, frame, pieces, words
from board.terms import COLUMNS, TERMS
from topbill.reporting.queries import decisions

POSITIONS, CANDIDATES = 10, 12
"""So many positions of a slate are drawn, each with so many of its likeliest candidates."""


def one(decision_id: str) -> None:
    """Everything about one decision."""
    details = data.ask(decisions.find, decision_id)
    if details is None:
        frame.answer(answers.missing(f"decision {decision_id}"), TERMS["decisions"])
        return
    row = details.decision
    frame.answer(answers.decision(details), TERMS["propensity"])
    pieces.metrics(
        ("Propensity", words.share(row["propensity"], digits=2), TERMS["propensity"]),
        ("Policy", f"{row['policy']} v{row['policy_version']}", TERMS["version"]),
        ("Engine time", words.milliseconds(row["latency_us"] / 1e3), TERMS["p99"]),
        ("Reward events", str(len(details.rewards)), TERMS["events"]),
    )
    left_column, right_column = st.columns(2)
    with left_column:
        pieces.section("Candidates and their probabilities", TERMS["candidates"])
        chances(details.probabilities, row)
        pieces.download(details.probabilities, "chances")
    with right_column:
        pieces.section("What came of it", TERMS["timeline"])
        timeline(details.rewards)
        pieces.section("What was known", TERMS["context"])
        st.json(details.context, expanded=2)
        st.caption(
            f"Decision {words.code(row['decision_id'])}, revision `{row['revision']}`, "
            f"log position {row['seq']}."
        )


def chances(matrix: pd.DataFrame, decision: dict[str, Any]) -> None:
    """The probabilities of the candidates, position by position."""
    # Of very large slates the log keeps the drawn probabilities alone.
    if matrix.empty:
        st.caption("The matrix was too large to keep; the policy version reproduces it.")
        lines = []
        for action, p in zip(decision["slate"], decision["propensities"], strict=True):
            lines.append({"shown": action, "probability": words.share(p, digits=2)})
        pieces.table(pd.DataFrame(lines), "slate")
        return
    # A slate is drawn position by position, each from what is left: so the bars are apart.
    is_slate = len(decision["slate"]) > 1
    for position, here in list(matrix.groupby("position"))[:POSITIONS]:
        action = str(here[here["shown"]]["action"].iloc[0])
        if is_slate:
            st.caption(f"Position {position}: {words.plain(action)} was drawn")
        likeliest = here[here["probability"] > 0].sort_values("probability", ascending=False)
        few = likeliest.head(CANDIDATES)
        bars.shares(few["action"].tolist(), few["probability"].tolist(), action)
        if is_slate and position == 1:
            st.caption("The solid bar was drawn. What is placed above is out of the draw below.")


def timeline(rewards: pd.DataFrame) -> None:
    if rewards.empty:
        st.caption("No reward event has come.")
        return
    lines = []
    for row in rewards.to_dict("records"):
        lines.append(
            {
                # A caller's clock may be a little behind, so that an event seems to come before.
                "after": words.duration(max(0.0, row["seconds_after"])),
                "event": words.label(row["event"]),
                "value": words.value(row["value"]),
                "item": "–" if pd.isna(row["item"]) else row["item"],
            }
        )
    named = rewards.assign(name=rewards["event"].map(words.label))
    charts.draw(charts.events(named), 90, "Chart: the reward events over time, as below.")
    pieces.table(pd.DataFrame(lines), "rewards")


def several(rows: pd.DataFrame, whose: str, name: str, above: DeltaGenerator) -> None:
    """A line for each, which leads to everything about it; what it comes down to stands `above`."""
    with above:
        frame.answer(answers.latest_decisions(rows, whose), TERMS["decisions"])
    pieces.section("The latest decisions", TERMS["decisions"])
    lines, links = [], []
    for row in rows.to_dict("records"):
        lines.append(
            {
                "at": row["decided_at"].strftime("%d %b %H:%M:%S"),
                "slate": words.listing(row["slate"].split(", ")),
                "events": row["events"],
                # Whoever is held out or left out is in none.
                "variant": "none" if pd.isna(row["variant"]) else row["variant"],
                "probability": words.share(row["propensity"], digits=2),
                "unit": words.MISSING if pd.isna(row["unit"]) else row["unit"],
                "experiment": row["experiment"],
                "reason": words.label(row["reason"]),
            }
        )
        query = {"id": row["decision_id"], "experiment": row["experiment"]}
        links.append(f"decisions?{urlencode(query)}")
    pieces.table(pd.DataFrame(lines), name, links=links, phone=("at", "slate", "events"))


def events(rows: pd.DataFrame) -> None:
    """A unit's reward events, each leading to the decision that it is of."""
    pieces.section("Its reward events", TERMS["events"])
    if rows.empty:
        st.caption("No reward event has come.")
        return
    lines, links = [], []
    for row in rows.to_dict("records"):
        lines.append(
            {
                "at": row["occurred_at"].strftime("%d %b %H:%M:%S"),
                "event": words.label(row["event"]),
                "value": words.value(row["value"]),
                "item": words.MISSING if pd.isna(row["item"]) else row["item"],
                "after": words.duration(max(0.0, row["seconds_after"])),
                "experiment": row["experiment"],
            }
        )
        query = {"id": row["decision_id"], "experiment": row["experiment"]}
        links.append(f"decisions?{urlencode(query)}")
    pieces.table(pd.DataFrame(lines), "unit-events", links=links, phone=("at", "event", "value"))


def body() -> None:
    key = frame.chosen()
    frame.header("Decisions", key)
    left_column, right_column = st.columns(2)
    decision_id = left_column.text_input(
        "Decision id",
        key="id",
        bind="query-params",
        placeholder="as the service answered it",
        help=COLUMNS["decision_id"],
    )
    unit = right_column.text_input(
        "or unit",
        key="unit",
        bind="query-params",
        placeholder="such as a viewer's or profile's id",
        help=TERMS["units"],
    )
    # An id says more than a unit, if both were typed.
    if decision_id:
        one(decision_id.strip())
    elif unit:
        of_unit(unit.strip())
    else:
        latest(key)


def of_unit(unit: str) -> None:
    rows = data.ask(decisions.of_unit, unit)
    if rows.empty:
        frame.answer(answers.missing(f"decision for unit {unit}"), TERMS["decisions"])
    else:
        several(rows, unit, "unit", st.container())
        events(data.ask(decisions.events_of_unit, unit))


def latest(key: str) -> None:
    if not data.listed(key).decisions:
        frame.no_decisions(key)
        return
    above = frame.answer_place()
    left_column, right_column = st.columns(2)
    names = [variant.name for variant in data.experiment(key).variants]
    variant = left_column.pills(
        "Variant", names, key="of", bind="query-params", help=COLUMNS["variant"]
    )
    has_events = right_column.toggle(
        "With reward events alone", key="rewarded", bind="query-params", help=TERMS["rewarded"]
    )
    # Without the arguments where nothing is chosen: that question is answered in advance.
    chosen: dict[str, Any] = {}
    if variant in names:
        chosen["variant"] = variant
    if has_events:
        chosen["has_events"] = True
    rows = data.ask(decisions.latest, key, **chosen)
    if rows.empty:
        with above:
            frame.answer(answers.none_of_those(key), TERMS["decisions"])
        return
    several(rows, key, "latest", above)


frame.show("Decisions", body)
