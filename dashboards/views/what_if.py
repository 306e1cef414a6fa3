"""What if: what another policy would have earned on the logged decisions, or why the log cannot say."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import charts, data, frame, words
from topbill.ope import REASONS, Estimate, Evaluation
from topbill.report import what_if

# Whose number the sentence speaks of: the first that gave one.
PREFERRED = ("adaptive-dr", "dr", "snips", "cascade-dr", "rips", "sips")


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
        text, action, floor = "", "", 0.0
        if candidate == what_if.ALWAYS:
            action = str(st.selectbox("always", [a.id for a in experiment.actions], key="action", bind="query-params"))
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
            floor = st.slider(
                "Least chance of any action", 0.0, 0.1, 0.02, 0.005, key="floor", bind="query-params", format="percent"
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
    return {"candidate": candidate, "text": text, "action": action, "floor": floor, "chosen": tuple(chosen)}


def run(key: str, asked: dict[str, object]) -> Evaluation:
    bar = st.progress(0.0, "Walking the log …")

    def progress(done: int, total: int) -> None:
        share = done / total if total else 1.0
        bar.progress(min(1.0, share), f"{words.count(done)} of {words.count(total)} decisions")

    try:
        return what_if.run(data.folder(), key, progress=progress, **asked)  # type: ignore[arg-type]
    finally:
        bar.empty()


def answer(name: str, estimates: dict[str, Estimate], logged: Estimate) -> None:
    """The answer in one sentence, or the refusal."""
    given = [estimates[e] for e in PREFERRED if e in estimates and estimates[e].value is not None]
    given = given or [e for e in estimates.values() if e.value is not None]
    with st.container(border=True):
        if not given:
            reasons = list(dict.fromkeys(e.reason for e in estimates.values() if e.reason))
            st.badge("No verdict", icon=":material/block:", color="orange")
            st.markdown(f"##### The log cannot tell what {frame.plain(name)} would have earned.")
            for reason in reasons:
                st.markdown(f"- {REASONS.get(reason, reason)} (`{reason}`)")
            st.caption("What next? Let a variant explore more (a floor, or uniform), or collect more decisions.")
            return
        e = given[0]
        numbers = f"{words.value(e.value)} per decision ({words.interval(e.low, e.high)})"
        if logged.value is None or e.low is None or e.high is None or logged.low is None or logged.high is None:
            word, colour, icon = "Estimated", "gray", ":material/functions:"
        elif e.low > logged.high:
            word, colour, icon = "Better than what was shown", "green", ":material/trending_up:"
        elif e.high < logged.low:
            word, colour, icon = "Worse than what was shown", "red", ":material/trending_down:"
        else:
            word, colour, icon = "Cannot be told apart", "gray", ":material/hourglass_top:"
        st.badge(word, icon=icon, color=colour)  # type: ignore[arg-type]
        st.markdown(
            f"##### {frame.plain(name)} would have earned {numbers}; what was shown earned "
            f"{words.value(logged.value)} ({words.interval(logged.low, logged.high)})."
        )
        st.caption(f"By {e.estimator}. An A/B test is the proof; this says whether it is worth one.")


def table(name: str, estimates: dict[str, Estimate], logged: Estimate, known: dict[str, str]) -> None:
    lines = [("what was shown", logged.value, logged.low, logged.high)]
    lines += [(e.estimator, e.value, e.low, e.high) for e in estimates.values() if e.value is not None]
    shown = pd.DataFrame(lines, columns=["name", "value", "low", "high"])
    if len(shown) > 1:
        charts.draw(charts.estimates(shown, "what was shown"), 30 * len(shown) + 50)
    told = pd.DataFrame(
        [
            {
                "estimator": e.estimator,
                "value": words.value(e.value),
                "95% interval": words.interval(e.low, e.high),
                "reading": known.get(e.estimator, "") if e.reason is None else REASONS.get(e.reason, e.reason),
            }
            for e in estimates.values()
        ]
    )
    st.dataframe(told, hide_index=True, width="stretch", height="content")
    frame.download(told, f"what-if-{name}".replace("/", "-").replace(" ", "-"))


def diagnostics(e: Estimate) -> None:
    d = e.diagnostics
    frame.metrics(
        ("Decisions worth", words.count(d.ess), words.TERMS["ess"]),
        ("Mean weight", f"{d.mean_weight:.2f}", "Must be near 1, or the logged propensities are wrong."),
        ("Largest weight", words.percent(d.largest_share), "How much of the estimate one decision carries."),
        ("Unsupported", words.percent(d.unsupported), "How often it would do what the log never did."),
    )
    for warning in d.warnings:
        st.caption(f"⚠ {frame.plain(warning)}")


def body() -> None:
    key = frame.chosen()
    line = data.one(key)
    frame.header("What if", key)
    if not line.decisions:
        frame.no_decisions(key)
        return
    asked = choose(key)
    mark = (key, repr(sorted(asked.items())))
    if st.button("Evaluate", type="primary", icon=":material/play_arrow:"):
        st.session_state["what_if"] = (mark, run(key, asked))
    held = st.session_state.get("what_if")
    if held is None or held[0][0] != key:
        st.caption(
            "The log's own decisions are weighed by how likely this policy would have made them. No viewer sees it."
        )
        return
    if held[0] != mark:
        st.caption("Below is the evaluation before; press Evaluate for this one.")
    found: Evaluation = held[1]
    for name, estimates in found.targets.items():
        short = name.split("/", 1)[-1]
        if len(found.targets) > 1:
            frame.section(words.label(short))
        answer(short, estimates, found.logged)
        table(short, estimates, found.logged, what_if.estimators(data.experiment(key)))
        diagnostics(next(iter(estimates.values())))
    out = ", ".join(f"{words.count(n)} {words.label(why)}" for why, n in found.left_out.items()) or "none"
    st.caption(
        f"On {words.count(found.decisions)} decisions of {words.count(found.units)} units, logged by "
        f"{frame.plain(', '.join(found.variants))}. Left out: {frame.plain(out)}."
    )


frame.show(body, refresh=False)
