"""Bandit: what the policies show, to whom, how much chance is left in it, and what each action is worth."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import charts, choose, data, frame, words
from topbill.report import Report
from topbill.report.advice import regret
from topbill.report.shown import effective_actions
from topbill.report.worth import REASONS


def headline(key: str, variant: str) -> None:
    positions = data.ask("positions", key, variant)
    first = positions[positions["position"] == 1].set_index("action")["share"]
    versions = data.ask("versions", key)
    explored = data.ask("explored", key)
    mine = explored[(explored["variant"] == variant) & (explored["position"] == 1)]["explored"]
    shown = []
    if len(first):
        effective = f"{effective_actions(first):.1f} of {len(first)}"
        most = "The action that stood at the first position most often."
        shown = [
            ("Shown first most", str(first.idxmax()), most),
            ("Its share", words.percent(float(first.max()), digits=0), words.TERMS["share"]),
            ("Effective actions", effective, words.TERMS["effective"]),
        ]
    if len(mine):
        shown.append(("Exploration", words.percent(float(mine.iloc[0])), words.TERMS["explored"]))
    frame.metrics(*shown)
    if len(versions):
        newest = versions.iloc[0]
        st.caption(f"Policy version {newest.policy_version} decides since {words.moment(newest.first_at)}.")


def shares(key: str, variant: str) -> list[str]:
    frame.section("What was shown first, over time", words.TERMS["share"])
    found = data.ask("shares", key, variant).rename(columns={"action": "name"})
    totals = found.groupby("name")["shown"].sum().sort_values(ascending=False)
    names = [n for n in totals.index if n != "(others)"] + [n for n in totals.index if n == "(others)"]
    charts.draw(charts.stacked(found, names), 360)
    frame.download(found, f"{key}-{variant}-shares")
    return names


def who_sees_what(key: str, variant: str, names: list[str]) -> None:
    frame.section("Who sees what", "Share of each action at the first position, in each group of viewers.")
    by = choose.segment(key)
    if by is None:
        st.caption("No context feature makes groups.")
        return
    found = data.ask("by_segment", key, variant, by)
    order = [g for g in data.ask("groups", key)[by] if g in set(found["segment"])]
    if by == "hour":
        order = sorted(order, key=lambda g: float(g.split("–")[0]) if g[0].isdigit() else 99)
    present = found.groupby("action")["shown"].sum().sort_values(ascending=False).index.tolist()
    ranked = [n for n in names if n in present] + [n for n in present if n not in names]
    chart = charts.heat(found, "segment", "action", "share", x_title=words.label(by), y_order=ranked, x_order=order)
    charts.draw(chart, 30 * len(ranked) + 40)
    st.caption("Columns add up to 100%. A policy that personalises has columns that differ.")
    frame.download(found, f"{key}-{variant}-{by}")


def worth(key: str, variant: str) -> None:
    frame.section("What each action is worth", words.TERMS["adaptive"])
    found = data.ask("worth", key, variant)
    if found.empty:
        st.caption("No mature decision with logged probabilities yet.")
        return
    known = found[found["value"].notna()]
    if len(known):
        charts.draw(charts.worths(known, "objective per decision"), 30 * len(known) + 50)
        st.caption(
            "Blue: what a decision would earn if this always stood first, with its 95% interval. "
            "Orange tick: mean of the decisions where it did; a policy that personalises picks whom it suits."
        )
    missing = found[found["value"].isna()]
    if len(missing):
        why = "; ".join(f"{row.action}: {REASONS[row.reason]}" for row in missing.itertuples())
        with st.expander(f"{len(missing)} action(s) without a number"):
            st.caption(frame.plain(why))
    frame.download(found, f"{key}-{variant}-worth")


def exploring(key: str, variant: str, found: Report) -> None:
    left, right = st.columns(2)
    with left:
        frame.section("How open the draw is", words.TERMS["effective"])
        over_time = data.ask("exploration", key, variant).assign(name=variant)
        if over_time.empty:
            st.caption("Probabilities were not kept: the slates are too large.")
        else:
            charts.draw(charts.lines(over_time, [variant], None, "effective", "effective actions", ".1f"), 240)
    with right:
        frame.section("Exploration by position", words.TERMS["explored"])
        by_position = data.ask("explored", key).rename(columns={"variant": "name"})
        if len(set(by_position["position"])) == 1:
            one = by_position.rename(columns={"explored": "value"})
            charts.draw(charts.bars(one, variant), 40 * len(one) + 10)
        else:
            charts.draw(charts.by_position(by_position, [v.variant for v in found.variants], _control(found)), 240)


def _control(found: Report) -> str | None:
    return next((v.variant for v in found.variants if v.control), None)


def learning(key: str, found: Report) -> None:
    frame.section("Reward over time", words.TERMS["reward"] + " Bands: 95% for each point alone.")
    progress = data.ask("progress", key).rename(columns={"variant": "name"})
    names = [v.variant for v in found.variants]
    charts.draw(charts.lines(progress, names, _control(found), "value", "objective per decision", ".3f"), 280)


def regrets(key: str, found: Report) -> None:
    frame.section("Estimated regret", words.TERMS["regret"])
    table = regret(found)
    if table.empty:
        st.caption("Needs two variants with rewards.")
        return
    shown = pd.DataFrame(
        {
            "variant": table["variant"],
            "mature decisions": [words.count(n) for n in table["decisions"]],
            "lost per decision": [words.value(x) for x in table["per_decision"]],
            "lost so far": [words.value(x) for x in table["regret"]],
            "95% interval": [
                words.interval(a, b) if b > 0 else "the best so far"
                for a, b in zip(table["low"], table["high"], strict=True)
            ],
        }
    )
    st.dataframe(shown, hide_index=True, width="stretch")
    st.caption(
        "In units of the objective: 1 is a decision that earned all one could wish for. The best has lost nothing."
    )
    with st.expander("Policy versions", icon=":material/history:"):
        st.dataframe(data.ask("versions", key), hide_index=True, width="stretch")


def body() -> None:
    key = frame.chosen()
    found = data.loaded(key)
    frame.header("Bandit", key)
    if not found.decisions:
        frame.no_decisions(key)
        return
    variant = choose.variant(key)
    headline(key, variant)
    names = shares(key, variant)
    who_sees_what(key, variant, names)
    worth(key, variant)
    exploring(key, variant, found)
    learning(key, found)
    regrets(key, found)


frame.show(body)
