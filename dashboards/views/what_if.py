"""What if: what another policy would have earned on the logged decisions, or why the log cannot
say.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pieces, words
from board.terms import TERMS
from topbill.ope import REASONS, Estimate, Evaluation
from topbill.ope.comparison import THE_LOG
from topbill.reporting.experiment.wording import CALLS, RESULT, Standing
from topbill.reporting.queries import what_if
from topbill.reporting.queries.what_if import CandidatePolicy
from topbill.spec import Experiment

# How much of the log is read at most: some 5 s, half a minute, and as long as it takes.
MOST = {"20 k decisions": 20_000, "100 k": 100_000, "all of it": None}
LOGGED = "logged policy"

NOT_ASKED = Standing(
    word="Not asked yet",
    tone="neutral",
    sentence="The logged decisions, weighed by how likely another policy would have made them, say "
    "what it would have earned. No viewer sees it.",
    next="Choose a policy, and press Evaluate.",
)


def choose(experiment: Experiment) -> CandidatePolicy:
    """Which policy, with which parameters, by which estimators."""
    left_column, right_column = st.columns(2)
    with left_column:
        policy = str(
            st.selectbox(
                "What if we had used …",
                what_if.candidates(),
                key="candidate",
                bind="query-params",
                help="Kinds of policy learn from the log as it goes on, never from what they are "
                "judged on.",
            )
        )
        parameters, action, min_probability = "", "", 0.0
        if policy == what_if.ALWAYS:
            action = choose_action(experiment)
        elif policy not in (what_if.UNIFORM, what_if.PUBLISHED):
            parameters, min_probability = choose_parameters()
    with right_column:
        most = st.segmented_control(
            "How much of the log",
            list(MOST),
            default="100 k",
            required=True,
            key="most",
            bind="query-params",
            help="Of a longer log a sample of units is read, each with all its decisions. "
            "Intervals are wider then, and a policy that learns has less to learn from.",
        )
    # Whoever does not know them gets those that fit.
    with st.expander("Estimators", icon=":material/tune:"):
        estimators = choose_estimators(experiment)
    return CandidatePolicy(
        policy=policy,
        parameters=parameters,
        action=action,
        min_probability=min_probability,
        estimators=estimators,
        most=MOST[str(most)],
    )


def choose_action(experiment: Experiment) -> str:
    """What is always shown."""
    actions = [action.id for action in experiment.actions]
    return str(st.selectbox("always", actions, key="action", bind="query-params"))


def choose_parameters() -> tuple[str, float]:
    """A policy's parameters, and the least chance of any action."""
    text = st.text_input(
        "Parameters",
        key="parameters",
        bind="query-params",
        placeholder="such as alpha: 0.3, model: shared",
        help="As in the experiment file, separated by commas; nothing means the defaults.",
    )
    min_probability = st.slider(
        "Exploration floor",
        0.0,
        0.1,
        0.02,
        0.005,
        key="min_probability",
        bind="query-params",
        format="percent",
        help=TERMS["min_probability"],
    )
    return text or "", min_probability


def choose_estimators(experiment: Experiment) -> tuple[str, ...]:
    """By which estimators the log is weighed."""
    titles = what_if.estimators(experiment)
    chosen = st.multiselect(
        "Estimators that weigh the log",
        list(titles),
        default=list(what_if.usual(experiment)),
        key="estimators",
        bind="query-params",
        format_func=lambda name: f"{name}: {titles[name]}",
        help="Several, because they fail in different ways: where they agree, believe them more.",
    )
    return tuple(chosen)


def evaluate(key: str, candidate: CandidatePolicy) -> Evaluation:
    """The evaluation, with a bar while the log is read."""
    bar = st.progress(0.0, "Reading the log …")

    def progress(done: int, total: int) -> None:
        share = done / total if total else 1.0
        bar.progress(min(1.0, share), f"{words.count(done)} of {words.count(total)} decisions")

    try:
        return what_if.evaluate_candidate(data.folder(), key, candidate, progress)
    # Also where the log cannot be evaluated: the page then says why.
    finally:
        bar.empty()


def chart(name: str, estimates: Mapping[str, Estimate], logged: Estimate) -> None:
    """Every estimate beside what was shown."""
    lines = [(LOGGED, logged.value, logged.low, logged.high)]
    for estimate in estimates.values():
        if estimate.value is not None:
            lines.append((estimate.estimator, estimate.value, estimate.low, estimate.high))
    # What was shown alone is nothing to compare.
    if len(lines) < 2:
        return
    numbers = charts.estimate_frame(lines)
    pieces.section("Off-policy value by estimator, beside the logged policy", TERMS["estimate"])
    height = 30 * len(numbers) + 50
    drawing = charts.estimates(numbers, LOGGED)
    pieces.chart(drawing, numbers, f"what-if-{name}-estimates", height)


def table(
    name: str,
    estimates: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
    titles: Mapping[str, str],
    recommended: Estimate | None,
) -> None:
    """A line for each estimator, that of the answer in bold."""
    # Without a number the answer has said why: the same reason once an estimator tells no more.
    reasons = {estimate.reason for estimate in estimates.values() if estimate.value is None}
    if len(reasons) == 1 and all(estimate.value is None for estimate in estimates.values()):
        return
    lines = []
    strong = {}
    for estimate in estimates.values():
        title = titles.get(estimate.estimator)
        label = f"{estimate.estimator}: {title}" if title else estimate.estimator
        difference = differences.get(estimate.estimator)
        if estimate is recommended:
            strong = {"estimator": label}
        lines.append(
            {
                "estimator": label,
                "off-policy value": words.value(estimate.value),
                "95% of this look": words.interval(estimate.low, estimate.high),
                "difference from the logged policy": _more(difference),
                RESULT: _result(estimate, difference),
            }
        )
    phone = ("estimator", "off-policy value", "difference from the logged policy")
    pieces.table(pd.DataFrame(lines), f"what-if-{name}", phone=phone, strong=strong)
    if strong:
        st.caption(
            "In bold: the answer's estimator, which assumes least of those that gave a number. "
            "Where others disagree, they lean on a model or on cut weights."
        )


def _result(estimate: Estimate, difference: Estimate | None) -> str:
    """What an estimator says of the policy against the logged one, or why it says nothing."""
    if estimate.reason is not None:
        return REASONS.get(estimate.reason, estimate.reason)
    if difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.low > 0.0:
        return CALLS["better"]
    return CALLS["worse"] if difference.high < 0.0 else CALLS["no_call"]


def _more(difference: Estimate | None) -> str:
    if difference is None or difference.value is None:
        return ""
    bounds = words.metric_difference_interval(difference.low, difference.high, False)
    return f"{words.metric_difference(difference.value, False)} ({bounds})"


def diagnostics(estimate: Estimate, estimates: Mapping[str, Estimate]) -> None:
    """What the estimate rests on, and what is to be known of each."""
    numbers = estimate.diagnostics
    pieces.metrics(
        ("Effective sample size", words.count(numbers.ess), TERMS["ess"]),
        ("Mean weight", f"{numbers.mean_weight:.2f}", TERMS["mean_weight"]),
        ("Largest weight", words.share(numbers.largest_share), TERMS["largest"]),
        ("Unsupported", words.share(numbers.unsupported), TERMS["unsupported"]),
    )
    warnings: dict[str, None] = {}
    for each in estimates.values():
        warnings |= dict.fromkeys(each.diagnostics.warnings)
    for warning in warnings:
        st.caption(f"⚠ {words.plain(warning)}")


def differences_of(evaluation: Evaluation, target: str) -> Mapping[str, Estimate]:
    """How much more a target earns than what was shown; none where nothing could be scored."""
    for pair in evaluation.differences:
        if (pair.target, pair.baseline) == (target, THE_LOG):
            return pair.estimates
    return {}


def footer(evaluation: Evaluation) -> None:
    """On what the numbers rest."""
    sample = ""
    if evaluation.sampled < 1.0:
        sample = f", a sample of {words.share(evaluation.sampled)} of all units"
    skipped = []
    for reason, decisions in evaluation.left_out.items():
        skipped.append(f"{words.count(decisions)} ({words.label(reason)})")
    st.caption(
        f"On {words.count(evaluation.decisions)} decisions of {words.count(evaluation.units)} "
        f"units{sample}, logged by {words.plain(', '.join(evaluation.variants))}. "
        f"Decisions left out: {words.plain(', '.join(skipped) or 'none')}."
    )


def body() -> None:
    key = frame.chosen()
    frame.header("What if", key)
    if not data.listed(key).decisions:
        frame.no_decisions(key)
        return
    experiment = data.experiment(key)
    above = frame.answer_place()
    candidate = choose(experiment)
    if st.button("Evaluate", type="primary", icon=":material/play_arrow:"):
        st.session_state["what_if"] = (key, candidate, evaluate(key, candidate))
    # The last evaluation stays until the next one, as it may have taken a minute.
    last = st.session_state.get("what_if")
    if last is None or last[0] != key:
        with above:
            frame.answer(NOT_ASKED, TERMS["estimate"])
        return
    if last[1] != candidate:
        st.caption("Below is the evaluation before; press Evaluate for this one.")
    evaluation: Evaluation = last[2]
    titles = what_if.estimators(experiment)
    for number, (name, estimates) in enumerate(evaluation.targets.items()):
        short = name.split("/", 1)[-1]
        estimate = estimates.recommended
        differences = differences_of(evaluation, name)
        # The first one's answer opens the page, above the choices.
        with st.container() if number else above:
            paired = differences.get(estimate.estimator) if estimate else None
            answer = answers.evaluation(short, estimates, estimate, evaluation.logged, paired)
            frame.answer(answer, TERMS["estimate"])
        chart(short, estimates, evaluation.logged)
        table(short, estimates, differences, titles, estimate)
        diagnostics(estimate or next(iter(estimates.values())), estimates)
    footer(evaluation)


frame.show("What if", body, refresh=False)
