"""Health: can the record be trusted, and does the service keep up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, readout, words
from board.terms import ENDED, TERMS
from topbill.domain.alarm import TITLES
from topbill.reporting import PropensityLine, Report
from topbill.reporting.experiment.wording import JOINED, RESULT, Standing
from topbill.reporting.queries import database, decisions, series
from topbill.reporting.queries.drift import drift
from topbill.reporting.queries.shadows import shadows

SHOWN_ALARMS = 20
DRIFT_SIGNS = {"stable": "✔", "shifting": "○", "changed": "✖"}


def tested_lines(report: Report) -> list[PropensityLine]:
    """Actions whose draws could be tested: those that were left to chance, often enough."""
    lines = []
    for line in report.health.propensity:
        if line.ok is not None and line.reason != "certain":
            lines.append(line)
    return lines


def headline(report: Report, traffic: pd.DataFrame) -> None:
    health = report.health
    per_second = traffic.groupby("till")["decisions"].sum() / traffic["seconds"].iloc[0]
    # The last bucket is still filling, so the one before it says how fast decisions come; of a
    # record that stands still it says how fast they came once, which nobody asks.
    rate = None
    if not answers.is_still(data.age()):
        rate = per_second.iloc[-2] if len(per_second) > 1 else per_second.iloc[-1]
    lines = tested_lines(report)
    good = sum(bool(line.ok) for line in lines)
    p99 = words.milliseconds(health.latency_ms.get("p99"))
    pieces.metrics(
        ("Decisions/s", words.count(rate), TERMS["rate"]),
        ("Engine p99", p99, TERMS["p99"]),
        ("Fallbacks", words.share(health.fallback_share, digits=2), TERMS["fallback"]),
        ("Record's age", words.duration(data.age()), TERMS["age"]),
        ("Rewards joined", words.share(health.reward_join_rate), TERMS["join"]),
        ("Decisions rewarded", words.share(health.rewarded_share), TERMS["rewarded"]),
        ("Reward events", words.count(health.reward_events), TERMS["events"]),
        (
            "Propensity check",
            f"{good} of {len(lines)}" if lines else words.MISSING,
            TERMS["propensity"],
        ),
    )


def service(key: str, traffic: pd.DataFrame, report: Report) -> None:
    """How fast decisions come, and how long they take."""
    variants = [line.variant for line in report.variants]
    control = next((line.variant for line in report.variants if line.control), None)
    left_column, right_column = st.columns(2)
    with left_column:
        pieces.section("Decisions per second", TERMS["decisions"])
        rates = traffic["decisions"] / traffic["seconds"]
        rate = traffic.assign(name=traffic["variant"], rate=rates)
        # Variants of earlier revisions are in the record too.
        names = [*variants, *sorted(set(rate["name"]) - set(variants))]
        # Below one a second `~s` would write thousandths as "m", which is read as millions.
        form = "~s" if rates.max() >= 1.0 else ".2~g"
        drawing = charts.lines(rate, names, control, "rate", "decisions/s", form)
        pieces.over_time(key, drawing, traffic, f"{key}-traffic", 240)
    with right_column:
        pieces.section(
            "Engine time",
            "Time that a decision took inside the engine: the middle one, and the 99th of 100.",
        )
        # Over variants the middle of medians, and the worst of tails: nobody's slowness is averaged
        # away.
        quantiles = traffic.groupby("till", as_index=False).agg(
            p50=("p50", "median"), p99=("p99", "max")
        )
        long = quantiles.melt("till", ["p50", "p99"], "name", "ms")
        drawing = charts.lines(long, ["p50", "p99"], None, "ms", "ms per decision", ".3~r")
        pieces.over_time(key, drawing, long, f"{key}-engine-time", 240)


def errors(key: str, traffic: pd.DataFrame, report: Report) -> None:
    """What the policies did not decide, and when."""
    left_column, right_column = st.columns(2)
    with left_column:
        pieces.section("Errors over time", TERMS["errors"])
        sums = traffic.groupby("till", as_index=False)[["fallbacks", "decisions"]].sum()
        failed = sums.assign(name="fallbacks", share=sums["fallbacks"] / sums["decisions"])
        if failed["fallbacks"].any():
            drawing = charts.lines(
                failed, ["fallbacks"], None, "share", "share of decisions", ".1%"
            )
            pieces.over_time(key, drawing, failed, f"{key}-errors", 240)
        else:
            st.caption("None: no policy failed or was too slow.")
    with right_column:
        pieces.section("Who decided", TERMS["fallback"])
        total = sum(report.health.reasons.values())
        lines = []
        for reason, number in report.health.reasons.items():
            lines.append(
                {
                    "decided by": ENDED.get(reason, reason),
                    "decisions": words.count(number),
                    "share": words.share(number / total),
                }
            )
        pieces.table(pd.DataFrame(lines), f"{key}-reasons")


def rewards(key: str, report: Report) -> None:
    """Which events come, and how late."""
    left_column, right_column = st.columns(2)
    delays = data.ask(decisions.delays, key)
    with left_column:
        pieces.section(
            "Reward events over time",
            f"An alarm is raised when of no event {JOINED:.0%} come within their window.",
        )
        joins = data.ask(decisions.joins, key)
        if joins.empty:
            st.caption("No reward event has come.")
            return
        joins = pieces.filled(joins.assign(name=joins["event"].map(words.label)), "events")
        events = [words.label(event) for event in delays["event"]]
        drawing = charts.lines(joins, events, None, "events", "events", "~s")
        pieces.over_time(key, drawing, joins, f"{key}-events", 240)
    with right_column:
        pieces.section("Reward delay", TERMS["delay"])
        lines = []
        for row in delays.to_dict("records"):
            # Missing where no metric reads the event.
            joined = report.health.joined.get(row["event"])
            lines.append(
                {
                    "event": words.label(row["event"]),
                    "events": words.count(row["events"]),
                    "in its window": words.share(joined, digits=0),
                    "half within": words.duration(row["p50"]),
                    "90% within": words.duration(row["p90"]),
                    "99% within": words.duration(row["p99"]),
                }
            )
        pieces.table(
            pd.DataFrame(lines), f"{key}-delays", phone=("event", "in its window", "90% within")
        )


def propensities(report: Report) -> None:
    pieces.section("Propensity check: are actions drawn as often as logged?", TERMS["propensity"])
    lines = []
    for line in tested_lines(report):
        lines.append(
            {
                "name": f"{line.variant}: {line.action}",
                "drawn": line.drawn,
                "expected": line.expected,
                "verdict": "as logged" if line.ok else "off",
            }
        )
    if not lines:
        st.caption(
            "There is nothing to test: nothing was left to chance yet, or the decisions do not "
            "have the chance of all that could have been drawn, as those of a page's layers."
        )
        return
    points = pd.DataFrame(lines)
    off = int((points["verdict"] == "off").sum())
    verdict = f"all {len(points)} tested are as logged"
    if off:
        verdict = f"{off} of {len(points)} are off"
    st.caption(
        f"Each point is an action of a variant: {verdict}. On the dashed line drawn equals "
        "expected."
    )
    pieces.chart(charts.calibration(points), points, f"{report.experiment}-propensities", 300)


def drifting(key: str) -> None:
    pieces.section("Covariate drift (PSI)", TERMS["psi"])
    features = data.ask(drift, key)
    if features.empty:
        st.caption("No context feature makes groups to compare.")
        return
    lines = []
    for row in features.to_dict("records"):
        lines.append(
            {
                "feature": row["feature"],
                "PSI": f"{row['psi']:.3f}",
                RESULT: pieces.result(DRIFT_SIGNS[row["verdict"]], row["verdict"]),
                "biggest move": biggest_move(row["groups"]),
            }
        )
    st.caption("The latest quarter of decisions beside the first half.")
    pieces.table(pd.DataFrame(lines), f"{key}-drift", phone=("feature", "PSI", RESULT))


def alarms(key: str) -> None:
    """What was found wrong of the experiment and of the worker, the latest first."""
    lines = []
    for alarm in data.ask(database.recorded_alarms)[::-1]:
        if alarm.experiment not in (key, None):
            continue
        over = words.MISSING if alarm.resolved_at is None else words.minute(alarm.resolved_at)
        where = alarm.subject or ("" if alarm.experiment else "the worker")
        lines.append(
            {
                "alarm": f"{TITLES[alarm.kind]}{where and f': {where}'}",
                "raised": words.minute(alarm.raised_at),
                "resolved": over,
                "found": alarm.message,
            }
        )
    pieces.section("Alarms", TERMS["alarm"])
    if not lines:
        st.caption("The worker has raised none.")
        return
    shown = pd.DataFrame(lines[:SHOWN_ALARMS])
    pieces.table(shown, f"{key}-alarms", phone=("alarm", "raised", "resolved"))


def unseen(key: str) -> bool:
    """What variants in shadow would have done; whether any were."""
    summaries = data.ask(shadows, key)
    if not summaries:
        return False
    pieces.section("Shadow: variants that nobody sees yet", TERMS["shadow"])
    lines = []
    for each in summaries:
        error = f" ({each.error})" if each.error else ""
        lines.append(
            {
                "variant": each.variant,
                "decisions": words.count(each.decisions),
                "would show the same": words.share(each.shows_the_same),
                "median time": words.milliseconds(each.median_ms),
                "99% within": words.milliseconds(each.p99_ms),
                "too late": words.share(each.late / each.decisions, digits=2),
                "failed": f"{words.share(each.failed / each.decisions, digits=2)}{error}",
            }
        )
    phone = ("variant", "would show the same", "failed")
    pieces.table(pd.DataFrame(lines), f"{key}-shadows", phone=phone)
    return True


def retention() -> None:
    """From when on the record has rows, where older ones were removed."""
    retained = data.ask(database.retained)
    if retained is not None:
        st.caption(
            f"Rows since {retained.kept_since:%Y-%m-%d} (UTC) are left; older ones were last "
            f"removed at {words.minute(retained.retained_at)}."
        )


def biggest_move(groups: Iterable[dict[str, Any]]) -> str:
    moved = max(groups, key=lambda group: abs(group["lately"] - group["before"]))
    return f"{moved['group']}: {words.share(moved['before'])} → {words.share(moved['lately'])}"


IN_SHADOW = Standing(
    word="In shadow",
    tone="neutral",
    sentence="Nobody is in a variant before the first step of the launch: everybody gets the "
    "control's order.",
    next="Wait for its first step; below stands what the variants would have done.",
)


def body() -> None:
    key = frame.chosen()
    report = data.report(key)
    frame.header("Health", key)
    frame.alarms_that_stand(key)
    frame.problems()
    if not report.decisions:
        above = frame.answer_place()
        # Whoever is in shadow waits for no traffic.
        is_in_shadow = unseen(key)
        with above:
            if is_in_shadow:
                frame.answer(IN_SHADOW, TERMS["shadow"])
            else:
                frame.no_decisions(key)
        return
    traffic = data.ask(series.traffic, key)
    frame.answer(answers.healthy(report, data.age()))
    headline(report, traffic)
    if report.ab is not None and report.ab.sample_ratio.alarm:
        readout.split(report.ab)
    retention()
    unseen(key)
    service(key, traffic, report)
    errors(key, traffic, report)
    rewards(key, report)
    propensities(report)
    drifting(key)
    alarms(key)


frame.show("Health", body)
