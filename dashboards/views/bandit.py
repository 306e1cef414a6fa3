"""Bandit: what the policies show, to whom, how much chance is left in it, and what each action is
worth.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import answers, charts, choose, data, frame, pieces, words
from board.terms import TERMS
from topbill.reporting import Report
from topbill.reporting.experiment.regret import regret
from topbill.reporting.queries import action_values, exposure, series
from topbill.reporting.queries.action_values import REASONS
from topbill.reporting.queries.exposure import effective_actions

LATEST = 20  # so many policy versions are listed


def headline(key: str, variant: str, policy: str) -> None:
    positions = data.ask(exposure.positions, key, variant)
    first = positions[positions["position"] == 1].set_index("action")["share"]
    versions = data.ask(exposure.policy_versions, key)
    explored = data.ask(exposure.explored_by_position, key)
    mine = explored[(explored["variant"] == variant) & (explored["position"] == 1)]["explored"]
    explored_first = float(mine.iloc[0]) if len(mine) else None
    worths = data.ask(action_values.action_values, key, variant)
    frame.answer(answers.bandit(variant, policy, first, explored_first, worths), TERMS["share"])
    shown = []
    if len(first):
        effective = f"{effective_actions(first):.1f} of {len(first)}"
        shown = [
            ("Shown first most", str(first.idxmax()), TERMS["first"]),
            ("Its share", words.share(float(first.max()), digits=0), TERMS["share"]),
            ("Effective actions", effective, TERMS["effective"]),
        ]
    if explored_first is not None:
        shown.append(("Exploration", words.share(explored_first), TERMS["explored"]))
    pieces.metrics(*shown)
    if len(versions):
        newest = versions.iloc[0]
        st.caption(
            f"Policy version {newest.policy_version} decides since {words.moment(newest.first_at)}."
        )


def shares(key: str, variant: str) -> list[str]:
    pieces.section("What was shown first, over time", TERMS["share"])
    found = data.ask(exposure.shares_over_time, key, variant).rename(columns={"action": "name"})
    totals = found.groupby("name")["shown"].sum().sort_values(ascending=False)
    names = [n for n in totals.index if n != "(others)"] + [
        n for n in totals.index if n == "(others)"
    ]
    pieces.chart(charts.stacked(found, names), found, f"{key}-{variant}-shares", 360)
    return names


def who_sees_what(key: str, variant: str, names: list[str]) -> None:
    pieces.section("Who sees what", TERMS["who"])
    by = choose.segment(key)
    if by is None:
        st.caption("No context feature makes groups.")
        return
    found = data.ask(exposure.by_segment, key, variant, by)
    order = [g for g in data.ask(action_values.groups, key)[by] if g in set(found["segment"])]
    if by == "hour":
        order = sorted(order, key=lambda g: float(g.split("–")[0]) if g[0].isdigit() else 99)
    present = found.groupby("action")["shown"].sum().sort_values(ascending=False).index.tolist()
    ranked = [n for n in names if n in present] + [n for n in present if n not in names]
    chart = charts.heat(
        found, "segment", "action", "share", x_title=words.label(by), y_order=ranked, x_order=order
    )
    st.caption("Columns add up to 100%. A policy that personalises has columns that differ.")
    pieces.chart(chart, found, f"{key}-{variant}-{by}", 30 * len(ranked) + 40)


def worth(key: str, variant: str) -> None:
    pieces.section("What each action is worth", TERMS["adaptive"])
    found = data.ask(action_values.action_values, key, variant)
    if found.empty:
        st.caption("No mature decision with logged probabilities yet.")
        return
    known = found[found["value"].notna()]
    if len(known):
        st.caption(
            "Blue: what a decision would earn if this always stood first, with its 95% interval. "
            "Orange tick: mean of the decisions where it did; a policy that personalises picks whom it suits."
        )
        drawn = charts.worths(known, "objective per decision")
        pieces.chart(drawn, found, f"{key}-{variant}-worth", 30 * len(known) + 50)
    missing = found[found["value"].isna()]
    if len(missing):
        reasons = zip(missing["action"], missing["reason"], strict=True)
        why = "; ".join(f"{action}: {REASONS[reason]}" for action, reason in reasons)
        with st.expander(f"{len(missing)} action(s) without a number"):
            st.caption(words.plain(why))


def exploring(key: str, variant: str, found: Report) -> None:
    left, right = st.columns(2)
    with left:
        pieces.section("How open the draw is", TERMS["effective"])
        over_time = data.ask(exposure.exploration, key, variant).assign(name=variant)
        if over_time.empty:
            st.caption("Probabilities were not kept: the slates are too large.")
        else:
            drawn = charts.lines(
                over_time, [variant], None, "effective", "effective actions", ".1f"
            )
            pieces.chart(drawn, over_time, f"{key}-{variant}-effective", 240)
    with right:
        pieces.section("Exploration by position", TERMS["explored"])
        by_position = data.ask(exposure.explored_by_position, key).rename(
            columns={"variant": "name"}
        )
        if len(set(by_position["position"])) == 1:
            one = by_position.rename(columns={"explored": "value"})
            pieces.chart(charts.bars(one, variant), one, f"{key}-explored", 40 * len(one) + 10)
        else:
            shown = charts.by_position(
                by_position, [v.variant for v in found.variants], _control(found)
            )
            pieces.chart(shown, by_position, f"{key}-explored", 240)


def _control(found: Report) -> str | None:
    return next((v.variant for v in found.variants if v.control), None)


def learning(key: str, found: Report) -> None:
    pieces.section("Reward over time", TERMS["reward"] + " Bands: 95% for each point alone.")
    progress = data.ask(series.progress, key).rename(columns={"variant": "name"})
    names = [v.variant for v in found.variants]
    drawn = charts.lines(progress, names, _control(found), "value", "objective per decision", ".3f")
    pieces.chart(drawn, progress, f"{key}-reward", 280)


def regrets(key: str, found: Report) -> None:
    pieces.section("Estimated regret", TERMS["regret"])
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
    st.caption(
        "In units of the objective: 1 is a decision that earned all one could wish for. The best has lost nothing."
    )
    pieces.table(shown, f"{key}-regret")


def versions(key: str) -> None:
    with st.expander("Policy versions", icon=":material/history:"):
        found = data.ask(exposure.policy_versions, key)
        shown = pd.DataFrame(
            {
                "version": found["policy_version"],
                "decisions": [words.count(n) for n in found["decisions"]],
                "since": [words.moment(at) for at in found["first_at"]],
                "until": [words.moment(at) for at in found["last_at"]],
            }
        )
        if len(shown) > LATEST:
            st.caption(f"The latest {LATEST} of {words.count(len(shown))}.")
        pieces.table(shown.head(LATEST), f"{key}-versions")


def body() -> None:
    key = frame.chosen()
    found = data.report(key)
    frame.header("Bandit", key)
    if not found.decisions:
        frame.no_decisions(key)
        return
    variant = choose.variant(key)
    headline(key, variant, next((v.policy for v in found.variants if v.variant == variant), ""))
    names = shares(key, variant)
    who_sees_what(key, variant, names)
    worth(key, variant)
    exploring(key, variant, found)
    learning(key, found)
    regrets(key, found)
    versions(key)


frame.show(body)
