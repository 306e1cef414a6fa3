"""Health: can the record be trusted, and does the service keep up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, words
from board.terms import ENDED, TERMS
from topbill.reporting import PropensityLine, Report
from topbill.reporting.experiment.wording import JOINED
from topbill.reporting.queries import database, decisions, drift, series


def age() -> float:
    """Seconds since the worker last published."""
    return float(
        (datetime.now(UTC).replace(tzinfo=None) - data.ask(database.published_at)).total_seconds()
    )


def tests(found: Report) -> list[PropensityLine]:
    """Actions whose draws could be tested: those that were left to chance, often enough."""
    return [
        line for line in found.health.propensity if line.ok is not None and line.reason != "certain"
    ]


def headline(found: Report, traffic: pd.DataFrame) -> None:
    health = found.health
    total = traffic.groupby("till")["decisions"].sum() / traffic["seconds"].iloc[0]
    latest = total.iloc[-2] if len(total) > 1 else total.iloc[-1]
    tested = tests(found)
    good = sum(bool(line.ok) for line in tested)
    p99 = words.milliseconds(health.latency_ms.get("p99"))
    pieces.metrics(
        ("Decisions/s", words.count(latest), TERMS["rate"]),
        ("Engine p99", p99, TERMS["p99"]),
        ("Fallbacks", words.share(health.fallback_share, digits=2), TERMS["fallback"]),
        ("Record's age", words.duration(age()), TERMS["age"]),
        ("Rewards joined", words.share(health.reward_join_rate), TERMS["join"]),
        ("Decisions rewarded", words.share(health.rewarded_share), TERMS["rewarded"]),
        ("Reward events", words.count(health.reward_events), TERMS["events"]),
        ("Drawn as logged", f"{good} of {len(tested)}", TERMS["propensity"]),
    )


def service(key: str, traffic: pd.DataFrame, found: Report) -> None:
    names = [v.variant for v in found.variants]
    control = next((v.variant for v in found.variants if v.control), None)
    rate = traffic.assign(name=traffic["variant"], rate=traffic["decisions"] / traffic["seconds"])
    left, right = st.columns(2)
    with left:
        pieces.section("Decisions per second", TERMS["decisions"])
        present = [*names, *sorted(set(rate["name"]) - set(names))]
        drawn = charts.lines(rate, present, control, "rate", "decisions/s", "~s")
        pieces.chart(drawn, traffic, f"{key}-traffic", 240)
    with right:
        pieces.section(
            "Engine time",
            "Time that a decision took inside the engine: the middle one, and the 99th of 100.",
        )
        weighed = traffic.groupby("till", as_index=False).agg(
            p50=("p50", "median"), p99=("p99", "max")
        )
        long = weighed.melt("till", ["p50", "p99"], "name", "ms")
        drawn = charts.lines(long, ["p50", "p99"], None, "ms", "ms per decision", ".3~r")
        pieces.chart(drawn, long, f"{key}-engine-time", 240)


def errors(key: str, traffic: pd.DataFrame, found: Report) -> None:
    """What the policies did not decide, and when."""
    left, right = st.columns(2)
    with left:
        pieces.section("Errors over time", TERMS["errors"])
        summed = traffic.groupby("till", as_index=False)[["fallbacks", "decisions"]].sum()
        failed = summed.assign(name="fallbacks", share=summed["fallbacks"] / summed["decisions"])
        drawn = charts.lines(failed, ["fallbacks"], None, "share", "share of decisions", ".1%")
        pieces.chart(drawn, failed, f"{key}-errors", 240)
    with right:
        pieces.section("Who decided", TERMS["fallback"])
        total = sum(found.health.reasons.values())
        lines = [
            (ENDED.get(r, r), words.count(n), words.share(n / total))
            for r, n in found.health.reasons.items()
        ]
        pieces.table(
            pd.DataFrame(lines, columns=["decided by", "decisions", "share"]), f"{key}-reasons"
        )


def rewards(key: str, found: Report) -> None:
    left, right = st.columns(2)
    delays = data.ask(decisions.delays, key)
    with left:
        pieces.section(
            "Reward events over time",
            f"An alarm is raised when of no event {JOINED:.0%} come within their window.",
        )
        joins = data.ask(decisions.joins, key)
        if joins.empty:
            st.caption("No reward event has come.")
            return
        events = [words.label(e) for e in delays["event"]]
        joins = joins.assign(name=joins["event"].map(words.label))
        pieces.chart(
            charts.lines(joins, events, None, "events", "events", "~s"), joins, f"{key}-events", 240
        )
    with right:
        pieces.section("How late rewards come", TERMS["delay"])
        shown = pd.DataFrame(
            {
                "event": [words.label(e) for e in delays["event"]],
                "events": [words.count(n) for n in delays["events"]],
                "in its window": [
                    words.share(found.health.joined.get(e), digits=0) for e in delays["event"]
                ],
                "half within": [words.duration(x) for x in delays["p50"]],
                "90% within": [words.duration(x) for x in delays["p90"]],
                "99% within": [words.duration(x) for x in delays["p99"]],
            }
        )
        pieces.table(shown, f"{key}-delays")


def propensities(found: Report) -> None:
    pieces.section("Were actions drawn as often as logged?", TERMS["propensity"])
    lines = tests(found)
    if not lines:
        st.caption("Nothing was left to chance yet, so there is nothing to test.")
        return
    shown = pd.DataFrame(
        [
            (
                f"{line.variant}: {line.action}",
                line.drawn,
                line.expected,
                "as logged" if line.ok else "off",
            )
            for line in lines
        ],
        columns=["name", "drawn", "expected", "verdict"],
    )
    off = int((shown["verdict"] == "off").sum())
    said = f"{off} of {len(shown)} are off" if off else f"all {len(shown)} tested are as logged"
    st.caption(
        f"Each point is an action of a variant: {said}. On the dashed line drawn equals expected."
    )
    pieces.chart(charts.calibration(shown), shown, f"{found.experiment}-propensities", 300)


def drifting(key: str) -> None:
    pieces.section("Have viewers changed?", TERMS["psi"])
    found = data.ask(drift.drift, key)
    if found.empty:
        st.caption("No context feature makes groups to compare.")
        return
    signs = {"stable": "✔ stable", "shifting": "… shifting", "changed": "✖ changed"}
    shown = pd.DataFrame(
        {
            "feature": found["feature"],
            "stability index": [f"{x:.3f}" for x in found["psi"]],
            "reading": [signs[v] for v in found["verdict"]],
            "biggest move": [moved(groups) for groups in found["groups"]],
        }
    )
    st.caption("The latest quarter of decisions beside the first half.")
    pieces.table(shown, f"{key}-drift")


def moved(groups: Iterable[dict[str, Any]]) -> str:
    far = max(groups, key=lambda group: abs(group["lately"] - group["before"]))
    return f"{far['group']}: {words.share(far['before'])} → {words.share(far['lately'])}"


def body() -> None:
    key = frame.chosen()
    found = data.report(key)
    frame.header("Health", key)
    frame.problems()
    if not found.decisions:
        frame.no_decisions(key)
        return
    traffic = data.ask(series.traffic, key)
    frame.answer(answers.healthy(found, age()))
    headline(found, traffic)
    service(key, traffic, found)
    errors(key, traffic, found)
    rewards(key, found)
    propensities(found)
    drifting(key)


frame.show(body)
