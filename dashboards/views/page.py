"""Whole page: was it the row, the title or the picture? Each layer's variants, judged by what the
whole page earned.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, words
from board.terms import TERMS
from topbill.reporting import answer_cache
from topbill.reporting.experiment.wording import Standing
from topbill.reporting.page import OBJECTIVE, LayerVariant, PageReport
from topbill.reporting.queries import coverage

REASONS = {"too_few_units": "too few viewers yet"}


def headline(found: PageReport) -> None:
    pieces.metrics(
        ("Pages", words.count(found.pages), TERMS["pages"]),
        ("Viewers", words.count(found.units), TERMS["units"]),
        ("Mature", words.share(found.mature / found.pages, digits=0), TERMS["mature"]),
        ("Served again", words.count(found.again), TERMS["again"]),
        ("Fallbacks", words.count(sum(found.fallbacks.values())), TERMS["fallback"]),
        *recall(found),
    )
    weighed = ", ".join(
        f"{words.label(name)} × {weight:g}" for name, weight in found.weights.items()
    )
    st.caption(
        f"Objective: {words.plain(weighed)}; its weights are those of the titles' experiment."
    )


def recall(found: PageReport) -> list[tuple[str, str, str]]:
    """What candidates find of plays that were held out, beside the most popular titles."""
    r = found.recall
    if r is None or not r.asked:
        return []
    return [
        (f"Found in {r.most}", words.share(r.found / r.asked), TERMS["recall"]),
        (f"Popular {r.most}", words.share(r.popular / r.asked), TERMS["recall"]),
    ]


def against(found: PageReport) -> None:
    """Each variant beside its layer's control, on the page's objective."""
    pieces.section("Each layer against its control", TERMS["against"])
    lines = [
        (
            f"{arm.layer}: {words.label(arm.variant)}",
            arm.layer,
            gap.mean,
            gap.low,
            gap.high,
            _reading(gap.low, gap.high),
        )
        for arm in found.arms
        if (gap := arm.against_control.get(OBJECTIVE)) is not None
    ]
    few = [
        f"{arm.layer}: {words.label(arm.variant)}" for arm in found.arms if arm.reason is not None
    ]
    if few:
        st.caption(
            f"Not compared, as there are too few viewers yet: {words.plain(answers.listing(few, 8))}."
        )
    if not lines:
        return
    shown = pd.DataFrame(lines, columns=["name", "layer", "value", "low", "high", "reading"])
    st.caption(
        "The page's objective beyond that with the layer's control (dashed). Thick bar: 95% interval, for one look."
    )
    pieces.chart(charts.gaps(shown), shown, f"{found.page}-layers", 34 * len(shown) + 90)


def _reading(low: float, high: float) -> str:
    return "more" if low > 0 else "less" if high < 0 else "unclear"


def standing(arm: LayerVariant) -> str:
    """How a variant stands among those of its layer, on all goals at once, with a sign."""
    sign = "?" if arm.reason else "✖" if arm.beaten_by else "…" if arm.behind else "✔"
    return f"{sign} {REASONS.get(arm.standing, words.label(arm.standing))}"


def goals(found: PageReport) -> None:
    """Which variants trade one goal for another, layer by layer."""
    pieces.section("Do they trade one goal for another?", TERMS["pareto"])
    layers = list(dict.fromkeys(arm.layer for arm in found.arms))
    layer = st.segmented_control(
        "Layer",
        layers,
        default=layers[0],
        required=True,
        key="layer",
        bind="query-params",
        help=TERMS["layer"],
    )
    arms = [arm for arm in found.arms if arm.layer == layer]
    metrics = [
        name for name in dict.fromkeys(m for arm in arms for m in arm.metrics) if name != OBJECTIVE
    ]
    weighed = sorted(
        (m for m in metrics if found.weights.get(m)), key=lambda m: -abs(found.weights[m])
    )
    known = [arm for arm in arms if set(weighed[:2]) <= arm.metrics.keys()]
    if len(weighed) > 1 and known:
        trade(found, known, weighed[0], weighed[1])
    table(found.page, arms, metrics)


def trade(found: PageReport, arms: list[LayerVariant], x: str, y: str) -> None:
    lines = [
        (arm.variant, a.mean, a.low, a.high, b.mean, b.low, b.high)
        for arm in arms
        for a, b in [(arm.metrics[x], arm.metrics[y])]
    ]
    shown = pd.DataFrame(lines, columns=["name", "x", "x_low", "x_high", "y", "y_low", "y_high"])
    control = next((arm.variant for arm in arms if arm.control), None)
    names = [arm.variant for arm in arms]
    drawn = charts.trade(shown, names, control, words.label(x), words.label(y))
    right, up = found.weights[x] > 0, found.weights[y] > 0
    st.caption(
        f"Better is further {'right' if right else 'left'} and further {'up' if up else 'down'}; "
        "a cross is both 95% intervals."
    )
    pieces.chart(drawn, shown, f"{found.page}-{arms[0].layer}-goals", 340)


def table(page: str, arms: list[LayerVariant], metrics: list[str]) -> None:
    lines = []
    for arm in arms:
        gap = arm.against_control.get(OBJECTIVE)
        line = {
            "variant": words.label(arm.variant) + (" (control)" if arm.control else ""),
            "pages": words.count(arm.pages),
            "more than the control": "–"
            if gap is None
            else f"{words.signed(gap.mean)} ({words.interval(gap.low, gap.high)})",
            "standing": standing(arm),
        }
        for name in metrics:
            m = arm.metrics.get(name)
            line[words.label(name)] = (
                "–" if m is None else f"{words.value(m.mean)} ± {words.value(m.high - m.mean)}"
            )
        lines.append(line)
    shown = pd.DataFrame(lines)
    pieces.table(
        shown,
        f"{page}-{arms[0].layer}",
        "Per page, all of it, with half the width of its 95% interval.",
    )


def covered(page: str) -> None:
    found = data.ask(coverage.coverage, page)
    if found.empty:
        return
    pieces.section("How much of the catalogue is seen", TERMS["coverage"])
    shown = pd.DataFrame(
        {
            "variant": [words.label(v) for v in found["variant"]],
            "places": [words.count(n) for n in found["places"]],
            "titles": [f"{n:,}" for n in found["titles"]],
            "ten most shown": [words.share(x, digits=0) for x in found["top"]],
        }
    )
    pieces.table(shown, f"{page}-coverage")


def fell_back(found: PageReport) -> None:
    pieces.section("Where something else stepped in", TERMS["fallback"])
    if not found.fallbacks:
        st.caption("Nowhere: every page was composed by its own policies.")
        return
    lines = [
        (words.label(stage), words.count(n), words.share(n / found.pages))
        for stage, n in found.fallbacks.items()
    ]
    pieces.table(
        pd.DataFrame(lines, columns=["stage", "pages", "share"]), f"{found.page}-fallbacks"
    )


def body() -> None:
    known = data.ask(coverage.pages)
    st.title("Whole page", anchor=False)
    if not known:
        data.experiments()
        frame.answer(NONE, TERMS["pages"])
        return
    page = known[0]
    if len(known) > 1:
        page = str(
            st.selectbox("Page", known, key="page", bind="query-params", help=TERMS["pages"])
        )
    found: PageReport = data.ask(answer_cache.page_report, page)
    st.caption(
        f"page `{page}` · its layers: {', '.join(dict.fromkeys(arm.layer for arm in found.arms))}"
    )
    frame.answer(answers.whole(found), TERMS["against"])
    headline(found)
    against(found)
    goals(found)
    covered(page)
    fell_back(found)


NONE = Standing(
    word="No pages",
    tone="neutral",
    sentence="No whole page has been served yet, so there is nothing to tell of its layers.",
    next="Ask the service for one: POST /v1/page with a page of experiments/pages.",
)

frame.show(body)
