"""Decisions: look one up, and see what was known, what was drawn with which chance, and what came of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from board import charts, data, frame, words

REASONS = {
    "policy": "The policy decided.",
    "fallback": "The policy failed or was too slow: the control's order was shown.",
    "not_in_experiment": "The unit is not in the experiment: the control's order was shown.",
    "holdout": "The unit is held out of all experiments: the control's order was shown.",
}


def one(decision_id: str) -> None:
    found = data.ask("find", decision_id)
    if found is None:
        st.info(
            f"No decision `{frame.plain(decision_id)}` in the record. It may not be published yet.",
            icon=":material/search_off:",
        )
        return
    d = found.decision
    with st.container(border=True):
        st.markdown(f"##### {frame.plain(', '.join(d['slate']) or 'nothing')}")
        st.markdown(
            f"was shown to `{d['unit']}` on {words.moment(d['at'])}, in variant "
            f"**{frame.plain(d['variant'] or 'none')}** of `{d['experiment']}`. {REASONS.get(d['reason'], d['reason'])}"
        )
    frame.metrics(
        ("Chance of this", words.percent(d["propensity"], digits=2), words.TERMS["propensity"]),
        ("Policy", f"{d['policy']} v{d['policy_version']}", "Kind and version of the policy that decided."),
        ("Engine time", words.milliseconds(d["micros"] / 1e3), "Time that the decision itself took."),
        ("Reward events", str(len(found.rewards)), ""),
    )
    left, right = st.columns(2)
    with left:
        frame.section("Candidates and their chances", words.TERMS["propensity"])
        chances(found.probabilities, d)
    with right:
        frame.section("What came of it")
        timeline(found.rewards)
        frame.section("What was known")
        st.json(found.context, expanded=2)
        st.caption(f"Decision `{d['decision_id']}`, revision `{d['revision']}`, log position {d['seq']}.")


def chances(matrix: pd.DataFrame, decision: dict[str, Any]) -> None:
    if matrix.empty:
        st.caption("The matrix was too large to keep; the policy version reproduces it.")
        st.dataframe(
            pd.DataFrame({"shown": decision["slate"], "chance": decision["propensities"]}),
            hide_index=True,
            width="stretch",
        )
        return
    for position, here in list(matrix.groupby("position"))[:10]:
        drawn = here[here["shown"]]["action"].iloc[0]
        many = len(decision["slate"]) > 1
        if many:
            st.caption(f"Position {position}: {frame.plain(str(drawn))} was drawn")
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
    st.dataframe(shown, hide_index=True, width="stretch")


def several(found: pd.DataFrame, name: str) -> None:
    """A table in which a row can be chosen."""
    shown = found.assign(
        at=found["at"].dt.strftime("%d %b %H:%M:%S"),
        variant=found["variant"].fillna("none"),
        chance=[words.percent(p, digits=2) for p in found["propensity"]],
    )[["at", "experiment", "variant", "unit", "slate", "chance", "events", "reason", "decision_id"]]
    event = st.dataframe(
        shown, hide_index=True, width="stretch", on_select="rerun", selection_mode="single-row", key=f"table-{name}"
    )
    frame.download(found, name)
    picked = event.selection.rows if event else []
    if picked:
        one(str(shown["decision_id"].iloc[picked[0]]))
    else:
        st.caption("Choose a row to see everything about it.")


def body() -> None:
    key = frame.chosen()
    frame.header("Decisions", key)
    left, right = st.columns(2)
    decision_id = left.text_input(
        "Decision id", key="id", bind="query-params", placeholder="as the service answered it"
    )
    unit = right.text_input(
        "or unit", key="unit", bind="query-params", placeholder="such as a viewer's or profile's id"
    )
    if decision_id:
        one(decision_id.strip())
    elif unit:
        found = data.ask("of_unit", unit.strip())
        if found.empty:
            st.info(f"No decision for unit `{frame.plain(unit)}` in the record.", icon=":material/search_off:")
        else:
            frame.section(f"The latest {len(found)} decisions for {frame.plain(unit)}")
            several(found, "unit")
    else:
        found = data.ask("latest", key)
        if found.empty:
            frame.no_decisions(key)
        else:
            frame.section("The latest decisions")
            several(found, "latest")


frame.show(body)
