"""What if: what another policy would have earned on the logged decisions, or why the log cannot
say.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, words
from board.terms import TERMS
from topbill.ope import REASONS, Estimate, Evaluation
from topbill.reporting.experiment.wording import Standing
from topbill.reporting.queries import what_if

# Whose number the sentence speaks of: the first that gave one.
PREFERRED = ("adaptive-dr", "dr", "snips", "cascade-dr", "rips", "sips")
# How much of the log is walked at most: some 5 s, half a minute, and as long as it takes.
MOST = {"20 k decisions": 20_000, "100 k": 100_000, "all of it": None}


NOT_ASKED = Standing(
    word="Not asked yet",
    tone="neutral",
    sentence="The logged decisions, weighed by how likely another policy would have made them, say what it would have "
    "earned. No viewer sees it.",
    next="Choose a policy, and press Evaluate.",
)


def choose(key: str) -> dict[str, object]:
    """Which policy, with which parameters, by which estimators."""
    experiment = data.experiment(key)
    left, right = st.columns(2)
    with left:
        candidate = str(
            st.selectbox(
                "What if we had used …",
                what_if.candidates(),
                key="candidate",
                bind="query-params",
                help="Kinds of policy learn from the log as it goes on, never from what they are judged on.",
            )
        )
        text, action, min_probability = "", "", 0.0
        if candidate == what_if.ALWAYS:
            action = str(
                st.selectbox(
                    "always", [a.id for a in experiment.actions], key="action", bind="query-params"
                )
            )
        elif candidate not in (what_if.UNIFORM, what_if.PUBLISHED):
            text = (
                st.text_input(
                    "Parameters",
                    key="parameters",
                    bind="query-params",
                    placeholder="such as alpha: 0.3, model: shared",
                    help="As in the experiment file, separated by commas; nothing means the defaults.",
                )
                or ""
            )
            min_probability = st.slider(
                "Least chance of any action",
                0.0,
                0.1,
                0.02,
                0.005,
                key="min_probability",
                bind="query-params",
                format="percent",
                help=TERMS["min_probability"],
            )
    with right:
        known = what_if.estimators(experiment)
        chosen = st.multiselect(
            "Estimators",
            list(known),
            default=list(known)[: len(PREFERRED) + 3],
            key="estimators",
            bind="query-params",
            format_func=lambda name: f"{name}: {known[name]}",
            help="Several, because they fail in different ways: where they agree, believe them more.",
        )
        most = st.segmented_control(
            "How much of the log",
            list(MOST),
            default="100 k",
            required=True,
            key="most",
            bind="query-params",
            help="Of a longer log a sample of units is read, each with all its decisions. Intervals are wider then, "
            "and a policy that learns has less to learn from.",
        )
    asked = {
        "candidate": candidate,
        "text": text,
        "action": action,
        "min_probability": min_probability,
        "chosen": tuple(chosen),
    }
    return asked | {"most": MOST[str(most)]}


def run(key: str, asked: dict[str, object]) -> Evaluation:
    bar = st.progress(0.0, "Walking the log …")

    def progress(done: int, total: int) -> None:
        share = done / total if total else 1.0
        bar.progress(min(1.0, share), f"{words.count(done)} of {words.count(total)} decisions")

    try:
        return what_if.run(data.folder(), key, progress=progress, **asked)  # type: ignore[arg-type]
    finally:
        bar.empty()


def spoken(estimates: dict[str, Estimate]) -> Estimate | None:
    """The estimate that the sentence speaks of; None where every estimator refused."""
    given = [estimates[e] for e in PREFERRED if e in estimates and estimates[e].value is not None]
    return next(iter(given or [e for e in estimates.values() if e.value is not None]), None)


def table(
    name: str, estimates: dict[str, Estimate], logged: Estimate, known: dict[str, str]
) -> None:
    lines = [("what was shown", logged.value, logged.low, logged.high)]
    lines += [
        (e.estimator, e.value, e.low, e.high) for e in estimates.values() if e.value is not None
    ]
    shown = pd.DataFrame(lines, columns=["name", "value", "low", "high"])
    if len(shown) > 1:
        pieces.section("Every estimator beside what was shown", TERMS["estimate"])
        pieces.chart(
            charts.estimates(shown, "what was shown"),
            shown,
            f"what-if-{name}-estimates",
            30 * len(shown) + 50,
        )
    told = pd.DataFrame(
        [
            {
                "estimator": e.estimator,
                "value": words.value(e.value),
                "95% interval": words.interval(e.low, e.high),
                "reading": known.get(e.estimator, "")
                if e.reason is None
                else REASONS.get(e.reason, e.reason),
            }
            for e in estimates.values()
        ]
    )
    pieces.table(told, f"what-if-{name}")


def diagnostics(e: Estimate) -> None:
    d = e.diagnostics
    pieces.metrics(
        ("Decisions worth", words.count(d.ess), TERMS["ess"]),
        ("Mean weight", f"{d.mean_weight:.2f}", TERMS["mean_weight"]),
        ("Largest weight", words.share(d.largest_share), TERMS["largest"]),
        ("Unsupported", words.share(d.unsupported), TERMS["unsupported"]),
    )
    for warning in d.warnings:
        st.caption(f"⚠ {words.plain(warning)}")


def body() -> None:
    key = frame.chosen()
    line = data.listed(key)
    frame.header("What if", key)
    if not line.decisions:
        frame.no_decisions(key)
        return
    above = st.container()
    asked = choose(key)
    mark = (key, repr(sorted(asked.items())))
    if st.button("Evaluate", type="primary", icon=":material/play_arrow:"):
        st.session_state["what_if"] = (mark, run(key, asked))
    held = st.session_state.get("what_if")
    if held is None or held[0][0] != key:
        with above:
            frame.answer(NOT_ASKED, TERMS["estimate"])
        return
    if held[0] != mark:
        st.caption("Below is the evaluation before; press Evaluate for this one.")
    found: Evaluation = held[1]
    for name, estimates in found.targets.items():
        short = name.split("/", 1)[-1]
        with above if name == next(iter(found.targets)) else st.container():
            frame.answer(
                answers.evaluation(short, estimates, spoken(estimates), found.logged),
                TERMS["estimate"],
            )
        table(short, estimates, found.logged, what_if.estimators(data.experiment(key)))
        diagnostics(spoken(estimates) or next(iter(estimates.values())))
    out = (
        ", ".join(f"{words.count(n)} {words.label(why)}" for why, n in found.left_out.items())
        or "none"
    )
    share = (
        f", a sample of {words.share(found.sampled)} of all units" if found.sampled < 1.0 else ""
    )
    st.caption(
        f"On {words.count(found.decisions)} decisions of {words.count(found.units)} units{share}, logged by "
        f"{words.plain(', '.join(found.variants))}. Left out: {words.plain(out)}."
    )


frame.show(body, refresh=False)
