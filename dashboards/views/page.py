"""Whole page: was it the row, the title or the picture? Each layer's variants, judged by what the
whole page earned.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, words
from board.terms import TERMS
from topbill.reporting import LayerVariant, PageMean, PageReport
from topbill.reporting.answer_cache import page_report
from topbill.reporting.experiment.wording import Standing
from topbill.reporting.page import OBJECTIVE
from topbill.reporting.queries import coverage

REASONS = {"too_few_units": "too few viewers yet"}
NONE = Standing(
    word="No pages",
    tone="neutral",
    sentence="No whole page has been served yet, so there is nothing to tell of its layers.",
    next="Ask the service for one: POST /v1/page with a page of experiments/pages.",
)


def headline(report: PageReport) -> None:
    pieces.metrics(
        ("Pages", words.count(report.pages), TERMS["pages"]),
        ("Viewers", words.count(report.units), TERMS["units"]),
        ("Mature", words.share(report.mature / report.pages, digits=0), TERMS["mature"]),
        ("Session cache hits", words.count(report.again), TERMS["again"]),
        ("Fallbacks", words.count(sum(report.fallbacks.values())), TERMS["fallback"]),
        *recall(report),
    )
    weights = [f"{words.label(name)} × {weight:g}" for name, weight in report.weights.items()]
    st.caption(
        f"Objective: {words.plain(', '.join(weights))}; its weights are those of the titles' "
        "experiment."
    )


def recall(report: PageReport) -> list[tuple[str, str, str]]:
    """What candidates find of plays that were held out, beside the most popular titles."""
    # Nobody has played twice yet, or nothing was held out.
    measured = report.recall
    if measured is None or not measured.held_out:
        return []
    hits, popular = measured.hits / measured.held_out, measured.popular / measured.held_out
    return [
        (f"recall@{measured.most}", words.share(hits), TERMS["recall"]),
        ("Popularity baseline", words.share(popular), TERMS["recall"]),
    ]


def against_control(report: PageReport) -> None:
    """Each variant beside its layer's control, on the page's objective."""
    pieces.section("Each layer against its control", TERMS["against"])
    too_few = [
        f"{arm.layer}: {words.label(arm.variant)}" for arm in report.arms if arm.reason is not None
    ]
    lines = []
    for layer, variant, gap in report.gaps():
        name = f"{layer}: {words.label(variant)}"
        lines.append((name, layer, gap.mean, gap.low, gap.high, gap.reading))
    if too_few:
        listing = words.plain(words.listing(too_few, 8))
        st.caption(f"Not compared, as there are too few viewers yet: {listing}.")
    if not lines:
        return
    gaps = charts.gap_frame(lines)
    st.caption(
        "The page's objective beyond that with the layer's control (dashed). Thick bar: 95% "
        "interval, for one look."
    )
    pieces.chart(charts.gaps(gaps), gaps, f"{report.page}-layers", 34 * len(gaps) + 90)


def standing(arm: LayerVariant) -> str:
    """How a variant stands among those of its layer, on all goals at once, with a sign."""
    sign = "✔"
    if arm.reason:
        sign = "?"
    elif arm.beaten_by:
        sign = "✖"
    elif arm.behind:
        sign = "○"
    return pieces.result(sign, REASONS.get(arm.standing, words.label(arm.standing)))


def goals(report: PageReport) -> None:
    """Which variants trade one goal for another, layer by layer."""
    pieces.section("Trade-offs between goals (Pareto)", TERMS["pareto"])
    layers = list(dict.fromkeys(arm.layer for arm in report.arms))
    layer = st.segmented_control(
        "Layer",
        layers,
        default=layers[0],
        required=True,
        key="layer",
        bind="query-params",
        help=TERMS["layer"],
    )
    arms = [arm for arm in report.arms if arm.layer == layer]
    metrics = metric_names(arms)
    weighed = [name for name in metrics if report.weights.get(name)]
    # The two that matter most; a third axis could not be read.
    weighed.sort(key=lambda name: -abs(report.weights[name]))
    if len(weighed) > 1:
        trade(report, arms, weighed[0], weighed[1])
    table(report.page, arms, metrics)


def metric_names(arms: Sequence[LayerVariant]) -> list[str]:
    """What was measured, but for the objective, which has its own column."""
    names = dict.fromkeys(name for arm in arms for name in arm.metrics)
    return [name for name in names if name != OBJECTIVE]


def trade(report: PageReport, arms: Sequence[LayerVariant], x: str, y: str) -> None:
    """The two goals that weigh most, one against the other."""
    lines = []
    for arm in arms:
        # A variant without a mature page has no metric yet.
        if x in arm.metrics and y in arm.metrics:
            one, other = arm.metrics[x], arm.metrics[y]
            across, up = (one.mean, one.low, one.high), (other.mean, other.low, other.high)
            lines.append((arm.variant, *across, *up))
    if not lines:
        return
    crosses = pd.DataFrame(lines, columns=["name", "x", "x_low", "x_high", "y", "y_low", "y_high"])
    control = next((arm.variant for arm in arms if arm.control), None)
    names = [arm.variant for arm in arms]
    drawing = charts.trade(crosses, names, control, words.label(x), words.label(y))
    # Of a penalty less is better, so its axis is read the other way.
    right = "right" if report.weights[x] > 0 else "left"
    top = "up" if report.weights[y] > 0 else "down"
    st.caption(
        f"Better is further {right} and further {top}; a cross is both 95% intervals, for one look."
    )
    pieces.chart(drawing, crosses, f"{report.page}-{arms[0].layer}-goals", 340)


def table(page: str, arms: Sequence[LayerVariant], metrics: Sequence[str]) -> None:
    lines = []
    for arm in arms:
        line = {
            "variant": words.label(arm.variant) + (" (control)" if arm.control else ""),
            "pages": words.count(arm.pages),
            "gain over the control": gap_cell(arm.against_control.get(OBJECTIVE)),
            "standing": standing(arm),
        }
        for name in metrics:
            line[words.label(name)] = mean_cell(arm.metrics.get(name))
        lines.append(line)
    pieces.table(
        pd.DataFrame(lines),
        f"{page}-{arms[0].layer}",
        "Per page, all of it, with half the width of its 95% interval, for one look.",
        phone=("variant", "gain over the control", "standing"),
    )


def gap_cell(gap: PageMean | None) -> str:
    if gap is None:
        return "–"
    return f"{words.signed(gap.mean)} ({words.interval(gap.low, gap.high)})"


def mean_cell(mean: PageMean | None) -> str:
    if mean is None:
        return "–"
    return f"{words.value(mean.mean)} ± {words.value(mean.high - mean.mean)}"


def covered(page: str) -> None:
    spread = data.ask(coverage.coverage, page)
    if spread.empty:
        return
    pieces.section("Catalogue coverage", TERMS["coverage"])
    st.caption("By the variant that chose the titles.")
    lines = []
    for row in spread.to_dict("records"):
        lines.append(
            {
                "variant": words.label(row["variant"]),
                "places": words.count(row["places"]),
                "titles": f"{row['titles']:,}",
                "ten most shown": words.share(row["top"], digits=0),
            }
        )
    pieces.table(pd.DataFrame(lines), f"{page}-coverage")


def fallbacks(report: PageReport) -> None:
    pieces.section("Fallbacks by stage", TERMS["fallback"])
    if not report.fallbacks:
        st.caption("None: every page was composed by its own policies.")
        return
    lines = []
    for stage, pages in report.fallbacks.items():
        lines.append(
            {
                "stage": words.label(stage),
                "pages": words.count(pages),
                "share": words.share(pages / report.pages),
            }
        )
    pieces.table(pd.DataFrame(lines), f"{report.page}-fallbacks")


def choose_page(pages: Sequence[str]) -> str:
    if len(pages) == 1:
        return pages[0]
    return str(st.selectbox("Page", pages, key="page", bind="query-params", help=TERMS["pages"]))


def body() -> None:
    pages = data.ask(coverage.pages)
    if not pages:
        frame.headline("Whole page")
        data.experiments()  # says so where there is no record at all
        frame.answer(NONE, TERMS["pages"])
        return
    page = choose_page(pages)
    title = data.page_title(page)
    frame.headline(words.plain(title) if title else "Whole page")
    report = data.ask(page_report, page)
    layers = dict.fromkeys(arm.layer for arm in report.arms)
    st.caption(f"Whole page · {words.code(page)} · its layers: {words.plain(', '.join(layers))}")
    frame.answer(answers.while_still(answers.whole_page(report), data.age()), TERMS["against"])
    headline(report)
    against_control(report)
    goals(report)
    covered(page)
    fallbacks(report)


frame.show("Whole page", body)
