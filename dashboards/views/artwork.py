"""Artwork and rows: the pictures, titles and rows themselves, how often each was shown where, and what it earned."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import charts, choose, data, frame, pictures, words
from topbill.report.worth import REASONS

EVERYBODY = "all viewers"


def group(key: str) -> tuple[str | None, str | None]:
    """Of which viewers: all, or one group of a context feature."""
    known = data.ask("groups", key)
    options = [EVERYBODY, *(f"{by}: {value}" for by, values in known.items() for value in values)]
    chosen = st.selectbox("Viewers", options, key="viewers", bind="query-params", help=words.TERMS["segment"])
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
        st.markdown(f"**{frame.plain(name)}**  \nnever shown first")
        return
    share = words.percent(row.share, digits=0)  # type: ignore[attr-defined]
    value, low, high = row.value, row.low, row.high  # type: ignore[attr-defined]
    st.markdown(f"**{frame.plain(name)}** · shown **{share}**")
    st.progress(min(1.0, float(row.share)))  # type: ignore[attr-defined]
    if pd.isna(value):
        st.caption(f"worth unknown: {REASONS[row.reason]}")  # type: ignore[attr-defined]
    else:
        st.caption(f"worth **{words.value(value)}** ({words.interval(low, high)})", help=words.TERMS["adaptive"])


def positions(key: str, variant: str) -> None:
    """Where each action stood."""
    found = data.ask("positions", key, variant)
    if found.empty or found["position"].nunique() < 2:
        return
    frame.section(
        "Where each one stands", "Of all that was shown at a position, the share of each. Columns add up to 100%."
    )
    payloads = pictures.payloads(key)
    named = found.assign(name=[pictures.name(a, payloads.get(a, {})) for a in found["action"]])
    weight = named.assign(points=named["shown"] / named["position"]).groupby("name")["points"].sum()
    order = weight.sort_values(ascending=False).index.tolist()
    charts.draw(
        charts.heat(named, "position", "name", "share", x_title="position", y_order=order, x_order=None),
        28 * len(order) + 40,
    )
    frame.download(found, f"{key}-{variant}-positions")


def table(key: str, found: pd.DataFrame) -> None:
    payloads = pictures.payloads(key)
    shown = pd.DataFrame(
        {
            "": [pictures.name(a, payloads.get(a, {})) for a in found["action"]],
            "stood first": [words.count(n) for n in found["shown"]],
            "share": [words.percent(s) for s in found["share"]],
            "mean when first": [words.value(v) for v in found["plain"]],
            "worth": [words.value(v) for v in found["value"]],
            "95% interval": [
                REASONS[reason] if reason else words.interval(low, high)
                for low, high, reason in zip(found["low"], found["high"], found["reason"], strict=True)
            ],
        }
    )
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height="content",
        column_config={
            "worth": st.column_config.TextColumn(help=words.TERMS["adaptive"]),
            "mean when first": st.column_config.TextColumn(help=words.TERMS["plain"]),
        },
    )


def body() -> None:
    key = frame.chosen()
    line = data.one(key)
    frame.header("Artwork and rows", key)
    if not line.decisions:
        frame.no_decisions(key)
        return
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        variant = choose.variant(key)
    with right:
        by, value = group(key)
    found = data.ask("worth", key, variant, by, value) if by else data.ask("worth", key, variant)
    if found.empty:
        st.info("No mature decision of these viewers with logged probabilities yet.", icon=":material/hourglass_top:")
        return
    best = found.dropna(subset=["value"]).sort_values("value", ascending=False)
    most = found.iloc[0]
    payloads = pictures.payloads(key)
    said = (
        f"**{frame.plain(pictures.name(most.action, payloads.get(most.action, {})))}** is shown first most "
        f"({words.percent(most.share, digits=0)})"
    )
    if len(best):
        top = best.iloc[0]
        said += (
            f"; worth most is **{frame.plain(pictures.name(top.action, payloads.get(top.action, {})))}**, "
            f"{words.value(top.value)} per decision ({words.interval(top.low, top.high)})"
        )
        overlapping = best[best["high"] >= top.low]
        if len(overlapping) > 1:
            said += f", though {len(overlapping) - 1} other(s) may be as good"
    st.markdown(said + ".")
    if line.surface == "artwork":
        frame.section("The pictures", words.TERMS["share"])
        gallery(key, found)
    positions(key, variant)
    frame.section("In numbers", words.TERMS["adaptive"])
    table(key, found)
    frame.download(found, f"{key}-{variant}-{value or 'all'}")


frame.show(body)
