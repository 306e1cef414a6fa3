"""Preview: the homepage, row or picture that each variant would show to a viewer, with
probabilities and why.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from board import answers, bars, data, frame, pictures, pieces, words
from board.pictures import Payloads
from board.terms import TERMS
from topbill.domain.errors import BadRequest
from topbill.domain.features import Feature
from topbill.reporting.experiment.wording import Standing
from topbill.reporting.queries.preview import Preview, PreviewedVariant, preview

EXAMPLE = '{"device": "tv", "hour": 21}'
LIKELIEST, REASONS = 6, 7
"""So many actions and reasons are drawn, those that count most."""


def choose_context(features: tuple[Feature, ...]) -> dict[str, Any]:
    """The context: as typed, where something was typed, else as picked.

    Raises:
        BadRequest: what was typed is no JSON object.
    """
    # What is picked stands above what is typed, but depends on it.
    above = st.container()
    text = st.text_area(
        "Or type it",
        key="context",
        bind="query-params",
        placeholder=EXAMPLE,
        help="A JSON object, as the service would send it. While something stands here, nothing is "
        "picked above; clear it to pick again.",
    )
    typed = (text or "").strip()
    if typed:
        return read_context(typed)
    with above:
        return {feature.name: widget(feature) for feature in features}


def read_context(text: str) -> dict[str, Any]:
    try:
        context = json.loads(text)
    except ValueError as error:
        raise BadRequest(
            "context", f"no JSON: {error}; expected an object such as {EXAMPLE}"
        ) from error
    if not isinstance(context, dict):
        raise BadRequest("context", f"got {text[:60]}; expected an object such as {EXAMPLE}")
    return context


def widget(feature: Feature) -> Any:
    """A feature's value, picked as its kind allows."""
    key = f"c_{feature.name}"
    label = words.label(feature.name)
    if feature.kind == "category":
        return st.selectbox(label, feature.values, key=key, bind="query-params")
    if feature.kind == "flag":
        return st.toggle(label, key=key, bind="query-params")
    if feature.kind == "cycle":
        # A cycle's end is its beginning, so it cannot be picked.
        step = 1.0 if feature.period > 1 else 0.01
        last = feature.period - step
        return slider(label, key, 0.0, last, float(round(0.85 * last)), step)
    if feature.kind == "number":
        # Without bounds in the file there is no telling; these are wide enough to see what happens.
        low, high = -10.0, 10.0
        if feature.low is not None and feature.high is not None:
            low, high = feature.low, feature.high
        return slider(label, key, low, high, (low + high) / 2)
    st.caption(label)
    return {name: slider(name, f"{key}_{name}", 0.0, 1.0, 0.2, 0.05) for name in feature.keys}


def slider(
    label: str, key: str, low: float, high: float, value: float, step: float | None = None
) -> float:
    return st.slider(label, low, high, value, step, key=key, bind="query-params", format="%g")


def variant_card(variant: PreviewedVariant, payloads: Payloads, surface: str) -> None:
    """One variant's answer."""
    first = pictures.name(variant.slate[0], payloads)
    with st.container(border=True):
        about = [] if variant.policy == variant.variant else [variant.policy]
        if variant.control:
            about.append("control")
        heading = f"**{words.plain(words.label(variant.variant))}**"
        st.markdown(" · ".join([heading, *about]))
        if surface == "rows":
            homepage(variant, payloads)
        elif len(variant.slate) == 1:
            picture(variant, payloads)
        else:
            ranking(variant, payloads)
        likely = likeliest(variant, payloads)
        st.caption(f"Probability at position 1{unlisted(variant, likely)}")
        bars.shares(likely["name"].tolist(), likely["value"].tolist(), first)
        reasons(variant, first)


def homepage(variant: PreviewedVariant, payloads: Payloads) -> None:
    """The rows as they would stand on the page, each with the chance that it was drawn with."""
    tiles = "<i></i>" * 7
    rows = []
    for action, p in zip(variant.slate, variant.propensities, strict=True):
        name = escape(pictures.name(action, payloads))
        rows.append(f"<div><b>{name}</b><small>{words.share(p)}</small><p>{tiles}</p></div>")
    st.html(f'<div class="tb-page">{"".join(rows)}</div>')


def picture(variant: PreviewedVariant, payloads: Payloads) -> None:
    action = variant.slate[0]
    drawing = pictures.picture(payloads.get(action, {}), data.artwork())
    if drawing:
        pictures.show(drawing, action)
    name = words.plain(pictures.name(action, payloads))
    st.markdown(f"shows **{name}**, probability {words.share(variant.propensities[0])}")


def ranking(variant: PreviewedVariant, payloads: Payloads) -> None:
    lines = []
    slate = zip(variant.slate, variant.propensities, strict=True)
    for position, (action, p) in enumerate(slate, 1):
        name = words.plain(pictures.name(action, payloads))
        lines.append(f"{position}. **{name}** · {words.share(p)}")
    st.markdown("\n".join(lines))


def likeliest(variant: PreviewedVariant, payloads: Payloads) -> pd.DataFrame:
    """Columns name, value: the actions that stand first most probably, and the one that was
    drawn.
    """
    lines = []
    ranked = sorted(variant.probabilities.items(), key=lambda item: -item[1])
    for i, (action, p) in enumerate(ranked):
        is_likely = i < LIKELIEST and p >= 5e-4
        if is_likely or action == variant.slate[0]:
            lines.append((pictures.name(action, payloads), p))
    return pd.DataFrame(lines, columns=["name", "value"])


def unlisted(variant: PreviewedVariant, likely: pd.DataFrame) -> str:
    """What the bars leave out, so that nobody misses what they do not sum to: `; 2 more: 0.4%`."""
    others = len(variant.probabilities) - len(likely)
    left = max(0.0, 1.0 - float(likely["value"].sum()))
    return f"; {words.count(others)} more: {words.share(left)}" if others > 0 else ""


def reasons(variant: PreviewedVariant, name: str) -> None:
    """Which features raise and lower the score of what stands first."""
    parts = variant.why.get(variant.slate[0])
    if not parts:
        st.caption("This policy weighs no features.")
        return
    ranked = sorted(parts.items(), key=lambda part: -abs(part[1]))
    # Features that add nothing would only hide those that do.
    largest = [(feature, value) for feature, value in ranked[:REASONS] if abs(value) > 1e-9]
    with st.expander(f"Why {words.plain(name)}?", icon=":material/help:"):
        rest = sum(value for _, value in ranked[REASONS:])
        if largest:
            bars.contributions(*zip(*largest, strict=True))
        st.caption(
            "Features that raise (blue) or lower (orange) its score; all others together "
            f"{words.value(rest)}."
        )


def chances(answer: Preview) -> pd.DataFrame:
    """Every variant's probabilities, to be taken home."""
    lines = []
    for variant in answer.variants:
        for action, p in variant.probabilities.items():
            lines.append(
                {
                    "variant": variant.variant,
                    "action": action,
                    "probability": p,
                    "drawn": action in variant.slate,
                }
            )
    return pd.DataFrame(lines)


NO_ACTIONS = Standing(
    word="Empty",
    tone="neutral",
    sentence="The actions of this experiment come with each request, so there is nothing to "
    "preview.",
    next="Look at Decisions for what was shown.",
)


def body() -> None:
    key = frame.chosen()
    frame.header("Preview", key, "nothing here is logged")
    compiled = data.policies(key)
    experiment = compiled.experiment
    if not experiment.actions:
        frame.answer(NO_ACTIONS, TERMS["preview"])
        return
    above = frame.answer_place()
    left_column, right_column = st.columns([1, 3])
    with left_column:
        pieces.section("The viewer", TERMS["context"])
        context = choose_context(experiment.context)
        seed = st.number_input(
            "Random seed",
            1,
            10_000,
            key="draw",
            bind="query-params",
            help=TERMS["seed"],
        )
    # The same seed draws the same, so that a change is the viewer's doing and not luck.
    answer = preview(compiled, context, f"preview-{int(seed)}")
    payloads = pictures.payloads(key)
    with above:
        labels = {action: pictures.name(action, payloads) for action in payloads}
        frame.answer(answers.previewed(answer.variants, labels), TERMS["preview"])
    with right_column:
        pieces.section("What each variant would show", TERMS["preview"])
        learned = "Nothing has been learned yet."
        if answer.version:
            learned = f"Policies of version {answer.version}."
        st.caption(f"{learned} The solid bar was drawn.")
        columns = st.columns(2)
        for i, variant in enumerate(answer.variants):
            with columns[i % 2]:
                variant_card(variant, payloads, experiment.surface)
        pieces.download(chances(answer), f"{key}-preview")


frame.show("Preview", body, refresh=False)
