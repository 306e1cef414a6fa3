"""Preview: the homepage, row or picture that each variant would show to a viewer, with
probabilities and why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from board import answers, charts, data, frame, pictures, pieces, words
from board.terms import TERMS
from topbill.domain.errors import BadRequest
from topbill.domain.features import Feature
from topbill.reporting.queries.preview import Shown, preview

EXAMPLE = '{"device": "tv", "hour": 21}'


def known(features: tuple[Feature, ...]) -> dict[str, Any]:
    """The context: as typed, where something was typed, else as picked. Raises BadRequest where
    that is no object.
    """
    above = st.container()
    typed = (
        st.text_area(
            "Or type it",
            key="context",
            bind="query-params",
            placeholder=EXAMPLE,
            help="A JSON object, as the service would send it. While something stands here, nothing is picked above; "
            "clear it to pick again.",
        )
        or ""
    ).strip()
    if not typed:
        with above:
            return context(features)
    try:
        given = json.loads(typed)
    except ValueError as error:
        raise BadRequest(
            "context", f"no JSON: {error}; expected an object such as {EXAMPLE}"
        ) from error
    if not isinstance(given, dict):
        raise BadRequest("context", f"got {typed[:60]}; expected an object such as {EXAMPLE}")
    return given


def context(features: tuple[Feature, ...]) -> dict[str, Any]:
    """A context, from a widget for each feature of the schema."""
    found: dict[str, Any] = {}
    for feature in features:
        key = f"c_{feature.name}"
        label = words.label(feature.name)
        if feature.kind == "category":
            found[feature.name] = st.selectbox(label, feature.values, key=key, bind="query-params")
        elif feature.kind == "flag":
            found[feature.name] = st.toggle(label, key=key, bind="query-params")
        elif feature.kind == "cycle":
            last = feature.period - (1.0 if feature.period > 1 else 0.01)
            step = 1.0 if feature.period > 1 else 0.01
            found[feature.name] = st.slider(
                label,
                0.0,
                last,
                float(round(0.85 * last)),
                step,
                key=key,
                bind="query-params",
                format="%g",
            )
        elif feature.kind == "number":
            low, high = (
                (feature.low, feature.high)
                if feature.low is not None and feature.high is not None
                else (-10.0, 10.0)
            )
            found[feature.name] = st.slider(
                label, low, high, (low + high) / 2, key=key, bind="query-params", format="%g"
            )
        else:
            st.caption(label)
            found[feature.name] = {
                name: st.slider(
                    name, 0.0, 1.0, 0.2, 0.05, key=f"{key}_{name}", bind="query-params", format="%g"
                )
                for name in feature.keys
            }
    return found


def variant(shown: Shown, key: str, surface: str) -> None:
    """One variant's answer."""
    payloads = pictures.payloads(key)
    with st.container(border=True):
        kind = [] if shown.policy == shown.variant else [shown.policy]
        tail = " · ".join([*kind, *(["control"] if shown.control else [])])
        st.markdown(f"**{words.plain(words.label(shown.variant))}** {'· ' if tail else ''}{tail}")
        ranked = sorted(shown.probabilities.items(), key=lambda item: -item[1])
        if surface == "rows":
            homepage(shown, payloads)
        elif len(shown.slate) == 1:
            svg = pictures.picture(payloads.get(shown.slate[0], {}))
            if svg:
                st.image(svg, width="stretch", alt=shown.slate[0])
            st.markdown(
                f"shows **{words.plain(pictures.name(shown.slate[0], payloads.get(shown.slate[0], {})))}**, "
                f"drawn with {words.share(shown.propensities[0])}"
            )
        else:
            lines = [
                f"{place}. **{words.plain(pictures.name(action, payloads.get(action, {})))}** · {words.share(p)}"
                for place, (action, p) in enumerate(
                    zip(shown.slate, shown.propensities, strict=True), 1
                )
            ]
            st.markdown("\n".join(lines))
        likely = [
            (a, p)
            for i, (a, p) in enumerate(ranked)
            if a == shown.slate[0] or (i < 6 and p >= 5e-4)
        ]
        few = pd.DataFrame(
            [(pictures.name(a, payloads.get(a, {})), p) for a, p in likely],
            columns=["name", "value"],
        )
        st.caption("Chance of standing first")
        drawn = pictures.name(shown.slate[0], payloads.get(shown.slate[0], {}))
        charts.draw(charts.bars(few, drawn), 26 * len(few) + 10)
        reasons(shown, drawn)


def homepage(shown: Shown, payloads: Mapping[str, Mapping[str, Any]]) -> None:
    """The rows as they would stand on the page, each with the chance that it was drawn with."""
    tiles = "<i></i>" * 7
    rows = "".join(
        f"<div><b>{escape(pictures.name(action, payloads.get(action, {})))}</b>"
        f"<small>{words.share(p)}</small><p>{tiles}</p></div>"
        for action, p in zip(shown.slate, shown.propensities, strict=True)
    )
    st.html(f'<div class="tb-page">{rows}</div>')


def reasons(shown: Shown, name: str) -> None:
    why = shown.why.get(shown.slate[0])
    if not why:
        st.caption("This policy weighs no features.")
        return
    parts = sorted(why.items(), key=lambda item: -abs(item[1]))
    few = pd.DataFrame(
        [(feature, v) for feature, v in parts[:7] if abs(v) > 1e-9], columns=["name", "value"]
    )
    with st.expander(f"Why {words.plain(name)}?", icon=":material/help:"):
        rest = sum(v for _, v in parts[7:])
        if len(few):
            charts.draw(charts.contributions(few), 26 * len(few) + 50)
        st.caption(
            f"Features that raise (blue) or lower (orange) its score; all others together {words.value(rest)}."
        )


def body() -> None:
    key = frame.chosen()
    frame.header("Preview", key, "nothing here is logged")
    live = data.policies(key)
    if not live.experiment.actions:
        st.info(
            "The actions of this experiment come with each request, so there is nothing to preview.",
            icon=":material/info:",
        )
        return
    above = st.container()
    left, right = st.columns([1, 3])
    with left:
        pieces.section("The viewer", TERMS["context"])
        given = known(live.experiment.context)
        throw = int(
            st.number_input(
                "Throw of the dice",
                1,
                10_000,
                key="draw",
                bind="query-params",
                help="Policies draw: another throw may show something else with the same chances.",
            )
        )
    answer = preview(live, given, f"preview-{throw}")
    names = {a: pictures.name(a, p) for a, p in pictures.payloads(key).items()}
    with above:
        frame.answer(answers.previewed(answer.shown, names), TERMS["preview"])
    with right:
        pieces.section("What each variant would show", TERMS["preview"])
        learned = (
            f"Policies of version {answer.version}."
            if answer.version
            else "Nothing has been learned yet."
        )
        st.caption(f"{learned} The orange one was drawn.")
        columns = st.columns(2)
        for i, shown in enumerate(answer.shown):
            with columns[i % 2]:
                variant(shown, key, live.experiment.surface)
        chances = [
            {"variant": s.variant, "action": a, "probability": p, "drawn": a in s.slate}
            for s in answer.shown
            for a, p in s.probabilities.items()
        ]
        pieces.download(pd.DataFrame(chances), f"{key}-preview")


frame.show(body, refresh=False)
