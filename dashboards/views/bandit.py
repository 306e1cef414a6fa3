"""Bandit: what the policies show, to whom, how much chance is left in it, and what each action is
worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from board import answers, charts, choose, data, frame, pictures, pieces, words
from board.terms import TERMS
from topbill.reporting import Report
from topbill.reporting.experiment.regret import regret
from topbill.reporting.queries import action_values, exposure, series

LATEST = 20  # so many policy versions are listed


def headline(key: str, variant: str, policy: str) -> None:
    positions = data.ask(exposure.positions, key, variant)
    first = positions[positions["position"] == 1].set_index("action")["share"]
    first = first.rename(index=pictures.page_names(key))
    over_time = named_shares(key, variant)
    lately = exposure.shares_lately(over_time) if len(over_time) else first
    exploration = data.ask(exposure.exploration, key, variant)
    explored = exposure.explored_lately(exploration)
    values = data.ask(action_values.action_values, key, variant)
    where = answers.bandit(variant, policy, first, lately, explored, values)
    frame.answer(answers.while_still(where, data.age()), TERMS["share"])
    numbers = []
    if len(first):
        numbers = [
            ("Favourite now", str(lately.idxmax()), TERMS["first"]),
            ("Its share now", words.share(float(lately.max()), digits=0), TERMS["share"]),
        ]
    ever = exposure.explored_lately(exploration, 1.0)
    if explored is not None and ever is not None:
        # Also of those that it has not shown yet.
        actions = max(len(first), len(data.experiment(key).actions))
        effective = f"{explored.effective:.1f} of {actions}"
        numbers += [
            ("Exploration now", words.share(explored.explored), TERMS["explored"]),
            ("Over all time", words.share(ever.explored), TERMS["explored"]),
            ("Effective number now", effective, TERMS["effective"]),
        ]
    pieces.metrics(*numbers)
    versions = data.ask(exposure.policy_versions, key)
    if len(versions):
        newest = versions.iloc[0]
        since = words.moment(newest["first_at"])
        st.caption(f"Policy version {newest['policy_version']} decides since {since}.")


def named_shares(key: str, variant: str) -> pd.DataFrame:
    """What was shown first over time, by the names that people know: columns till, name, shown,
    share.
    """
    over_time = data.ask(exposure.shares_over_time, key, variant).rename(columns={"action": "name"})
    return over_time.assign(name=over_time["name"].replace(pictures.page_names(key)))


def shares(key: str, variant: str) -> list[str]:
    """What was shown first, over time; the actions, most shown first."""
    pieces.section("What was shown first, over time", TERMS["share"])
    over_time = named_shares(key, variant)
    totals = over_time.groupby("name")["shown"].sum().sort_values(ascending=False)
    actions = exposure.others_last(totals.index)
    drawing = charts.stacked(over_time, actions)
    # A legend of long names has a line for each, which is not to be taken from the chart.
    height = 360 + 18 * max(0, len(actions) - 4)
    # White, as it lies on colours.
    pieces.over_time(key, drawing, over_time, f"{key}-{variant}-shares", height, colour="white")
    return actions


def viewers(key: str, variant: str, actions: Sequence[str]) -> None:
    """Who sees what."""
    pieces.section("Who sees what", TERMS["who"])
    by = choose.segment(key)
    if by is None:
        st.caption("No context feature makes groups.")
        return
    counts = data.ask(exposure.by_segment, key, variant, by)
    counts = counts.assign(action=counts["action"].replace(pictures.page_names(key)))
    totals = counts.groupby("action")["shown"].sum().sort_values(ascending=False)
    present = totals.index.tolist()
    # In the order of the chart above, so that one finds an action again.
    ranked = [name for name in actions if name in present]
    ranked += [name for name in present if name not in actions]
    ranked = exposure.others_last(ranked)
    drawing = charts.heat(
        counts,
        "segment",
        "action",
        "share",
        x_title=words.label(by),
        y_order=ranked,
        x_order=group_order(key, by, set(counts["segment"])),
    )
    st.caption("Columns add up to 100%. A policy that personalises has columns that differ.")
    pieces.chart(drawing, counts, f"{key}-{variant}-{by}", 28 * len(ranked) + 64)


def group_order(key: str, by: str, present: set[str]) -> list[str]:
    """The groups from left to right: hours in their order, others by how common they are."""
    groups = [group for group in data.ask(action_values.groups, key)[by] if group in present]
    return sorted(groups, key=_hour) if by == "hour" else groups


def _hour(group: str) -> float:
    """`6–12` → 6; what is no hour comes last."""
    return float(group.split("–")[0]) if group[0].isdigit() else 99.0


def values(key: str, variant: str) -> None:
    """What each action is worth."""
    pieces.section("Off-policy value of each action", TERMS["adaptive"])
    table = data.ask(action_values.action_values, key, variant)
    if table.empty:
        st.caption("No mature decision with logged probabilities yet.")
        return
    certain = table[table["value"].notna()]
    if len(certain):
        st.caption(
            "Blue: off-policy value, what a decision would earn were this always at position 1, "
            "with its 95% interval, for one look. Orange tick: observed mean where it was; a "
            "policy that personalises picks whom it suits. Mature decisions alone."
        )
        drawing = charts.action_values(certain, "objective per decision")
        pieces.chart(drawing, table, f"{key}-{variant}-worth", 30 * len(certain) + 50)
    missing = table[table["value"].isna()]
    if len(missing):
        reasons = []
        for action, code in zip(missing["action"], missing["reason"], strict=True):
            reasons.append(f"{action}: {action_values.REASONS[code]}")
        with st.expander(f"{words.several(len(missing), 'action')} without a number"):
            st.caption(words.plain("; ".join(reasons)))


def exploring(key: str, variant: str, report: Report) -> None:
    left_column, right_column = st.columns(2)
    with left_column:
        pieces.section("Exploration over time", TERMS["effective"])
        over_time = data.ask(exposure.exploration, key, variant).assign(name=variant)
        if over_time.empty:
            st.caption("Probabilities were not kept: the slates are too large.")
        else:
            title = "effective number of actions"
            # In the colour that the variant has on every chart.
            drawing = charts.lines(
                over_time,
                names(report),
                control(report),
                "effective",
                title,
                ".1f",
                shown=[variant],
            )
            pieces.over_time(key, drawing, over_time, f"{key}-{variant}-effective", 240)
    with right_column:
        pieces.section("Exploration by position, over all time", TERMS["explored"])
        positions = data.ask(exposure.explored_by_position, key)
        # With one slot there is one bar a variant; a line needs several positions.
        positions = positions.rename(columns={"variant": "name"})
        if set(positions["position"]) == {1}:
            bars = positions.rename(columns={"explored": "value"})
            shown = charts.bars(bars, variant, names(report), control(report))
            pieces.chart(shown, bars, f"{key}-explored", 40 * len(bars) + 10)
        else:
            by_position = charts.by_position(positions, names(report), control(report))
            pieces.chart(by_position, positions, f"{key}-explored", 240)


def names(report: Report) -> list[str]:
    return [line.variant for line in report.variants]


def control(report: Report) -> str | None:
    return next((line.variant for line in report.variants if line.control), None)


def learning(key: str, report: Report) -> None:
    pieces.section("Reward over time", f"{TERMS['reward']} Bands: 95% for each point alone.")
    progress = data.ask(series.progress, key).rename(columns={"variant": "name"})
    title = "objective per decision"
    drawing = charts.lines(progress, names(report), control(report), "value", title, ".3f")
    pieces.over_time(key, drawing, progress, f"{key}-reward", 280)


def regrets(key: str, report: Report) -> None:
    pieces.section("Estimated regret vs best variant", TERMS["regret"])
    if report.ab is not None and report.ab.sample_ratio.alarm:
        st.caption("None is told: units were not split as intended, so no variant is the best.")
        return
    table = regret(report)
    if table.empty:
        st.caption("Needs two variants with rewards.")
        return
    lines = []
    for row in table.to_dict("records"):
        # Against itself there is nothing to lose, and no interval.
        interval = "the best so far"
        if row["high"] > 0:
            interval = words.interval(row["low"], row["high"])
        lines.append(
            {
                "variant": row["variant"],
                "mature decisions": words.count(row["decisions"]),
                "regret per decision": words.value(row["per_decision"]),
                "regret": words.value(row["regret"]),
                "95% of this look": interval,
            }
        )
    st.caption(
        "Mature decisions alone, in points of the objective: 1 is the most that one decision can "
        "earn. The best variant has no regret."
    )
    phone = ("variant", "regret per decision", "regret")
    pieces.table(pd.DataFrame(lines), f"{key}-regret", phone=phone)


def versions(key: str) -> None:
    with st.expander("Policy versions", icon=":material/history:"):
        table = data.ask(exposure.policy_versions, key)
        if len(table) > LATEST:
            st.caption(f"The latest {LATEST} of {words.count(len(table))}.")
        lines = pd.DataFrame(
            {
                "version": table["policy_version"],
                "decisions": table["decisions"].map(words.count),
                "since": table["first_at"].map(words.moment),
                "until": table["last_at"].map(words.moment),
            }
        )
        pieces.table(lines.head(LATEST), f"{key}-versions")


def body() -> None:
    key = frame.chosen()
    report = data.report(key)
    frame.header("Bandit", key)
    if not report.decisions:
        frame.no_decisions(key)
        return
    variant = choose.variant(key)
    policies = {line.variant: line.policy for line in report.variants}
    headline(key, variant, policies.get(variant, ""))
    actions = shares(key, variant)
    viewers(key, variant, actions)
    values(key, variant)
    exploring(key, variant, report)
    learning(key, report)
    regrets(key, report)
    versions(key)


frame.show("Bandit", body)
