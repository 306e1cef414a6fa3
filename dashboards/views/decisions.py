"""Decisions: look one up, and see what was known, what was drawn with which chance, and what came
of it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, words
from board.terms import COLUMNS, TERMS
from topbill.reporting.queries import decisions


def one(decision_id: str) -> None:
    found = data.ask(decisions.find, decision_id)
    if found is None:
        frame.answer(answers.missing(f"decision {decision_id}"), TERMS["decisions"])
        return
    d = found.decision
    frame.answer(answers.decision(found), TERMS["propensity"])
    pieces.metrics(
        ("Chance of this", words.share(d["propensity"], digits=2), TERMS["propensity"]),
        ("Policy", f"{d['policy']} v{d['policy_version']}", TERMS["version"]),
        ("Engine time", words.milliseconds(d["latency_us"] / 1e3), TERMS["p99"]),
        ("Reward events", str(len(found.rewards)), TERMS["events"]),
    )
    left, right = st.columns(2)
    with left:
        pieces.section("Candidates and their chances", TERMS["candidates"])
        chances(found.probabilities, d)
        pieces.download(found.probabilities, "chances")
    with right:
        pieces.section("What came of it", TERMS["timeline"])
        timeline(found.rewards)
        pieces.section("What was known", TERMS["context"])
        st.json(found.context, expanded=2)
        st.caption(
            f"Decision `{d['decision_id']}`, revision `{d['revision']}`, log position {d['seq']}."
        )


def chances(matrix: pd.DataFrame, decision: dict[str, Any]) -> None:
    if matrix.empty:
        st.caption("The matrix was too large to keep; the policy version reproduces it.")
        slate = zip(decision["slate"], decision["propensities"], strict=True)
        shown = [(action, words.share(p, digits=2)) for action, p in slate]
        pieces.table(pd.DataFrame(shown, columns=["shown", "chance"]), "slate")
        return
    for position, here in list(matrix.groupby("position"))[:10]:
        drawn = here[here["shown"]]["action"].iloc[0]
        many = len(decision["slate"]) > 1
        if many:
            st.caption(f"Position {position}: {words.plain(str(drawn))} was drawn")
        left = here[here["probability"] > 0].sort_values("probability", ascending=False).head(12)
        left = left.rename(columns={"action": "name", "probability": "value"})
        charts.draw(charts.bars(left, str(drawn)), 26 * len(left) + 10)
        if many and position == 1:
            st.caption("Orange was drawn. What is placed above is out of the draw below.")


def timeline(rewards: pd.DataFrame) -> None:
    if rewards.empty:
        st.caption("No reward event has come.")
        return
    shown = pd.DataFrame(
        {
            "after": [words.duration(max(0.0, s)) for s in rewards["seconds_after"]],
            "event": [words.label(e) for e in rewards["event"]],
            "value": [words.value(v) for v in rewards["value"]],
            "item": rewards["item"].fillna("–"),
        }
    )
    charts.draw(charts.events(rewards.assign(name=rewards["event"].map(words.label))), 90)
    pieces.table(shown, "rewards")


def several(found: pd.DataFrame, whose: str, name: str) -> None:
    """A line for each, which leads to everything about it."""
    frame.answer(answers.listed(found, whose), TERMS["decisions"])
    pieces.section("The latest decisions", TERMS["decisions"])
    shown = pd.DataFrame(
        {
            "at": found["decided_at"].dt.strftime("%d %b %H:%M:%S"),
            "slate": [answers.listing(slate.split(", ")) for slate in found["slate"]],
            "events": found["events"],
            "variant": found["variant"].fillna("none"),
            "chance": [words.share(p, digits=2) for p in found["propensity"]],
            "unit": found["unit"],
            "experiment": found["experiment"],
            "reason": [words.label(reason) for reason in found["reason"]],
        }
    )
    ids = zip(found["decision_id"], found["experiment"], strict=True)
    pieces.table(
        shown,
        name,
        links=[f"decisions?{urlencode({'id': i, 'experiment': key})}" for i, key in ids],
    )


def body() -> None:
    key = frame.chosen()
    frame.header("Decisions", key)
    left, right = st.columns(2)
    decision_id = left.text_input(
        "Decision id",
        key="id",
        bind="query-params",
        placeholder="as the service answered it",
        help=COLUMNS["decision_id"],
    )
    unit = right.text_input(
        "or unit",
        key="unit",
        bind="query-params",
        placeholder="such as a viewer's or profile's id",
        help=TERMS["units"],
    )
    if decision_id:
        one(decision_id.strip())
    elif unit:
        found = data.ask(decisions.of_unit, unit.strip())
        if found.empty:
            frame.answer(answers.missing(f"decision for unit {unit}"), TERMS["decisions"])
        else:
            several(found, unit.strip(), "unit")
    else:
        found = data.ask(decisions.latest, key)
        if found.empty:
            frame.no_decisions(key)
        else:
            several(found, key, "latest")


frame.show(body)
