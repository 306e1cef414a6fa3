"""Health: can the record be trusted, and does the service keep up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from board import charts, data, frame, words
from topbill.report import PropensityLine, Report
from topbill.report.advice import FELL_BACK, JOINED, alarms

STILL = 300.0
"""Seconds without a publication after which the keeper is missed."""


def age() -> float:
    """Seconds since the keeper last published."""
    return float((datetime.now(UTC).replace(tzinfo=None) - data.ask("published")).total_seconds())


def tests(found: Report) -> list[PropensityLine]:
    """Actions whose draws could be tested: those that were left to chance, often enough."""
    return [line for line in found.health.propensity if line.ok is not None and line.reason != "certain"]


def headline(found: Report, traffic: pd.DataFrame) -> None:
    health = found.health
    total = traffic.groupby("till")["decisions"].sum() / traffic["seconds"].iloc[0]
    latest = total.iloc[-2] if len(total) > 1 else total.iloc[-1]
    tested = tests(found)
    good = sum(bool(line.ok) for line in tested)
    p99 = words.milliseconds(health.latency_ms.get("p99"))
    frame.metrics(
        ("Decisions/s", words.count(latest), "In the last whole interval of the chart below."),
        ("Engine p99", p99, "99 of 100 decisions took less time than this."),
        ("Fallbacks", words.percent(health.fallback_share, digits=2), words.TERMS["fallback"]),
        ("Record's age", words.duration(age()), "Time since the keeper last published to the lake."),
        ("Rewards joined", words.percent(health.reward_join_rate), words.TERMS["join"]),
        ("Decisions rewarded", words.percent(health.rewarded_share), "Mature decisions with any reward event."),
        ("Reward events", words.count(health.reward_events), ""),
        ("Drawn as logged", f"{good} of {len(tested)}", words.TERMS["propensity"]),
    )


def checks(found: Report) -> None:
    problems = alarms(found)
    with st.container(border=True):
        if age() > STILL:
            st.badge("Standing still", icon=":material/pause_circle:", color="orange")
            st.markdown(
                f"**The keeper last published {words.duration(age())} ago: everything here is of then.** "
                "What next? If it should be running, look at its messages, or start `topbill keep`."
            )
        if problems:
            st.badge("Look into it", icon=":material/warning:", color="orange")
            for problem in problems:
                st.markdown(f"**{frame.plain(problem.sentence)}**")
        else:
            st.badge("All well", icon=":material/check_circle:", color="green")
            st.markdown(
                "##### The record can be trusted: actions were drawn as often as logged, rewards find their decisions, "
                f"fallbacks are below {words.percent(FELL_BACK, digits=0)}."
            )


def service(key: str, traffic: pd.DataFrame, found: Report) -> None:
    names = [v.variant for v in found.variants]
    control = next((v.variant for v in found.variants if v.control), None)
    rate = traffic.assign(name=traffic["variant"], rate=traffic["decisions"] / traffic["seconds"])
    left, right = st.columns(2)
    with left:
        frame.section("Decisions per second")
        present = [*names, *sorted(set(rate["name"]) - set(names))]
        charts.draw(charts.lines(rate, present, control, "rate", "decisions/s", "~s"), 240)
    with right:
        frame.section(
            "Engine time", "Time that a decision took inside the engine: the middle one, and the 99th of 100."
        )
        weighed = traffic.groupby("till", as_index=False).agg(p50=("p50", "median"), p99=("p99", "max"))
        long = weighed.melt("till", ["p50", "p99"], "name", "ms")
        charts.draw(charts.lines(long, ["p50", "p99"], None, "ms", "ms per decision", ".3~r"), 240)
    frame.download(traffic, f"{key}-traffic")


def rewards(key: str) -> None:
    left, right = st.columns(2)
    delays = data.ask("delays", key)
    with left:
        frame.section(
            "Reward events over time", f"An alarm is raised when fewer than {JOINED:.0%} come within a window."
        )
        joins = data.ask("joins", key)
        if joins.empty:
            st.caption("No reward event has come.")
            return
        events = [words.label(e) for e in delays["event"]]
        joins = joins.assign(name=joins["event"].map(words.label))
        charts.draw(charts.lines(joins, events, None, "events", "events", "~s"), 240)
    with right:
        frame.section("How late rewards come", "Seconds from the decision until the event was received.")
        shown = pd.DataFrame(
            {
                "event": [words.label(e) for e in delays["event"]],
                "events": [words.count(n) for n in delays["events"]],
                "half within": [words.duration(x) for x in delays["p50"]],
                "90% within": [words.duration(x) for x in delays["p90"]],
                "99% within": [words.duration(x) for x in delays["p99"]],
            }
        )
        st.dataframe(shown, hide_index=True, width="stretch")


def propensities(found: Report) -> None:
    frame.section("Were actions drawn as often as logged?", words.TERMS["propensity"])
    lines = tests(found)
    if not lines:
        st.caption("Nothing was left to chance yet, so there is nothing to test.")
        return
    shown = pd.DataFrame(
        [
            (f"{line.variant}: {line.action}", line.drawn, line.expected, "as logged" if line.ok else "off")
            for line in lines
        ],
        columns=["name", "drawn", "expected", "verdict"],
    )
    charts.draw(charts.calibration(shown), 300)
    off = int((shown["verdict"] == "off").sum())
    said = f"{off} of {len(shown)} are off" if off else f"all {len(shown)} tested are as logged"
    st.caption(f"Each point is an action of a variant: {said}. On the dashed line drawn equals expected.")
    frame.download(shown, f"{found.experiment}-propensities")


def drifting(key: str) -> None:
    frame.section("Have viewers changed?", words.TERMS["psi"])
    found = data.ask("drift", key)
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
    st.dataframe(shown, hide_index=True, width="stretch")
    st.caption("The latest quarter of decisions beside the first half.")


def moved(groups: Iterable[dict[str, Any]]) -> str:
    far = max(groups, key=lambda group: abs(group["lately"] - group["before"]))
    return f"{far['group']}: {words.percent(far['before'])} → {words.percent(far['lately'])}"


def body() -> None:
    key = frame.chosen()
    found = data.loaded(key)
    frame.header("Health", key)
    frame.troubles()
    if not found.decisions:
        frame.no_decisions(key)
        return
    traffic = data.ask("traffic", key)
    checks(found)
    headline(found, traffic)
    service(key, traffic, found)
    rewards(key)
    propensities(found)
    drifting(key)


frame.show(body)
