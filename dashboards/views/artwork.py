"""Artwork and rows: the pictures, titles and rows themselves, how often each was shown where, and
what it earned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from board import answers, charts, choose, data, frame, pictures, pieces, words
from board.terms import TERMS
from topbill.reporting.queries import action_values, exposure
from topbill.reporting.queries.action_values import REASONS

EVERYBODY = "all viewers"


def group(key: str) -> tuple[str | None, str | None]:
    """Of which viewers: all, or one group of a context feature."""
    known = data.ask(action_values.groups, key)
    options = [EVERYBODY, *(f"{by}: {value}" for by, values in known.items() for value in values)]
    chosen = st.selectbox(
        "Viewers", options, key="viewers", bind="query-params", help=TERMS["segment"]
    )
    if chosen is None or chosen == EVERYBODY:
        return None, None
    by, _, value = str(chosen).partition(": ")
    return by, value


def gallery(key: str, found: pd.DataFrame) -> None:
    """Every action as its picture, most shown first."""
    payloads = pictures.payloads(key)
    shown = {str(row.action): row for row in found.itertuples()}
    order = [*shown, *(a for a in payloads if a not in shown)]
    for start in range(0, len(order), 4):
        for column, action in zip(st.columns(4), order[start : start + 4], strict=False):
            with column, st.container(border=True):
                payload = payloads.get(action, {})
                svg = pictures.picture(payload)
                if svg:
                    st.image(svg, width="stretch", alt=action)
                tell(pictures.name(action, payload), shown.get(action))


def tell(name: str, row: object) -> None:
    """An action's numbers in three lines."""
    if row is None:
        st.markdown(f"**{words.plain(name)}**  \nnever shown first")
        return
    share = words.share(row.share, digits=0)  # type: ignore[attr-defined]
    value, low, high = row.value, row.low, row.high  # type: ignore[attr-defined]
    st.markdown(f"**{words.plain(name)}** · shown **{share}**")
    st.progress(min(1.0, float(row.share)))  # type: ignore[attr-defined]
    if pd.isna(value):
        st.caption(f"worth unknown: {REASONS[row.reason]}")  # type: ignore[attr-defined]
    else:
        st.caption(
            f"worth **{words.value(value)}** ({words.interval(low, high)})", help=TERMS["adaptive"]
        )


def positions(key: str, variant: str) -> None:
    """Where each action stood."""
    found = data.ask(exposure.positions, key, variant)
    if found.empty or found["position"].nunique() < 2:
        return
    pieces.section("Where each one stands", TERMS["positions"])
    payloads = pictures.payloads(key)
    named = found.assign(name=[pictures.name(a, payloads.get(a, {})) for a in found["action"]])
    weight = named.assign(points=named["shown"] / named["position"]).groupby("name")["points"].sum()
    order = weight.sort_values(ascending=False).index.tolist()
    drawn = charts.heat(
        named, "position", "name", "share", x_title="position", y_order=order, x_order=None
    )
    pieces.chart(drawn, found, f"{key}-{variant}-positions", 28 * len(order) + 40)


def worths(found: pd.DataFrame, payloads: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Each one's worth with its interval, where it has one."""
    known = found.dropna(subset=["value"])
    if len(known):
        named = known.assign(
            action=[pictures.name(a, payloads.get(a, {})) for a in known["action"]]
        )
        st.caption(
            "Blue: worth with its 95% interval. Orange tick: mean of the decisions where it stood first."
        )
        pieces.chart(
            charts.worths(named, "objective per decision"), known, name, 30 * len(known) + 50
        )


def table(key: str, found: pd.DataFrame, name: str) -> None:
    payloads = pictures.payloads(key)
    shown = pd.DataFrame(
        {
            "name": [pictures.name(a, payloads.get(a, {})) for a in found["action"]],
            "stood first": [words.count(n) for n in found["shown"]],
            "share first": [words.share(s) for s in found["share"]],
            "mean when first": [words.value(v) for v in found["plain"]],
            "worth": [words.value(v) for v in found["value"]],
            "95% interval": [
                REASONS[reason] if reason else words.interval(low, high)
                for low, high, reason in zip(
                    found["low"], found["high"], found["reason"], strict=True
                )
            ],
        }
    )
    pieces.table(shown, name)


def body() -> None:
    key = frame.chosen()
    line = data.listed(key)
    frame.header("Artwork and rows", key)
    if not line.decisions:
        frame.no_decisions(key)
        return
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        variant = choose.variant(key)
    with right:
        by, value = group(key)
    found = (
        data.ask(action_values.action_values, key, variant, by, value)
        if by
        else data.ask(action_values.action_values, key, variant)
    )
    if found.empty:
        st.info(
            "No mature decision of these viewers with logged probabilities yet.",
            icon=":material/hourglass_top:",
        )
        return
    payloads = pictures.payloads(key)
    frame.answer(
        answers.pictures({a: pictures.name(a, p) for a, p in payloads.items()}, found),
        TERMS["share"],
    )
    if line.surface == "artwork":
        pieces.section("The pictures", TERMS["share"])
        gallery(key, found)
    positions(key, variant)
    pieces.section("In numbers", TERMS["adaptive"])
    worths(found, payloads, f"{key}-{variant}-{value or 'all'}-worth")
    table(key, found, f"{key}-{variant}-{value or 'all'}")


frame.show(body)
