"""The verdict as one picture, for a slide or a chat: what the Verdict page says, drawn by Vega on
the server, where no browser is.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from textwrap import wrap
from typing import Literal

import altair as alt
import pandas as pd

from topbill.charts import GREY, PALETTE
from topbill.reporting.experiment.wording import Standing, Tone

CAN_DRAW = find_spec("vl_convert") is not None
"""Whether charts can be drawn here."""
_TONES: dict[Tone, str] = {
    "good": "#0B7A53",
    "promising": "#00507E",
    "neutral": "#545E6C",
    "warning": "#9A5B00",
    "bad": "#B3261E",
}
Weight = Literal["normal", "bold"]
_INK, _DIM = "#17202E", "#545E6C"
_WIDTH, _LINE, _ROW = 860, 21, 46
"""Pixels: of the whole, of a line of text, and of a variant's row."""
_LETTERS = 104
"""So many stand in a line."""


def picture(
    title: str,
    where: Standing,
    effects: pd.DataFrame,
    axis: tuple[str, str],
    guardrails: Sequence[str],
    basis: str,
) -> alt.VConcatChart:
    """The verdict as a chart.

    Args:
        title: the experiment's.
        where: where it stands.
        effects: of each variant name, relative, low, high, text and grey (whether it is the
            control of the file); without rows where none can be told.
        axis: the title of the effects' axis, and how its numbers are written (a Vega expression).
        guardrails: a sentence for each variant and guardrail.
        basis: on what all of it rests, and of when it is.
    """
    parts: list[alt.Chart | alt.LayerChart | alt.FacetChart] = [
        _text([title], size=22, weight="bold"),
        _text([where.word], weight="bold", colour=_TONES[where.tone]),
        _text(_wrapped(where.sentence), size=15, weight="bold"),
        _text(_wrapped(f"What next? {where.next}")),
    ]
    if len(effects):
        parts.append(_effects(effects, *axis))
    if guardrails:
        parts.append(_text(["Guardrails", *guardrails]))
    parts.append(_text(_wrapped(basis), size=12, colour=_DIM))
    return (
        alt.vconcat(*parts, spacing=12)
        .properties(padding=24, background="#FFFFFF")
        .configure_view(strokeWidth=0)
        .configure_concat(spacing=12)
    )


def png(draw: Callable[[], alt.VConcatChart]) -> bytes:
    """What is drawn as a PNG file, of two pixels for each of its own. Takes about a second."""
    chart = draw()
    # Its engine takes time and memory to start: only whoever wants a picture waits for it.
    import vl_convert

    return vl_convert.vegalite_to_png(chart.to_dict(), scale=2.0)


def _wrapped(sentence: str) -> list[str]:
    return wrap(sentence, _LETTERS)


def _text(
    lines: Sequence[str], *, size: int = 14, weight: Weight = "normal", colour: str = _INK
) -> alt.Chart:
    """Lines of text below each other."""
    height = max(_LINE, round(1.4 * size))
    rows = pd.DataFrame({"text": list(lines), "y": [height * i for i in range(len(lines))]})
    scale = alt.Scale(domain=[0, height * len(lines)], reverse=True)
    return (
        alt.Chart(rows)
        .mark_text(align="left", baseline="top", fontSize=size, fontWeight=weight, color=colour)
        .encode(
            x=alt.value(0),
            y=alt.Y("y:Q", axis=None, scale=scale),
            text="text:N",
        )
        .properties(width=_WIDTH, height=height * len(lines))
    )


def _effects(effects: pd.DataFrame, title: str, form: str) -> alt.LayerChart | alt.FacetChart:
    """Each variant's effect with its interval, and both in words."""
    colours = [GREY if is_grey else PALETTE[i % len(PALETTE)] for i, is_grey in _places(effects)]
    # Names stand in the rows, so that these begin where the lines of text do.
    said = effects.assign(said=effects["name"] + ": " + effects["text"])
    base = alt.Chart(said).encode(
        y=alt.Y("name:N", sort=None, axis=None),
        color=alt.Color(
            "name:N",
            scale=alt.Scale(domain=effects["name"].tolist(), range=colours),
            legend=None,
        ),
    )
    x = alt.X("low:Q", title=title, axis=alt.Axis(labelExpr=form, tickCount=6))
    zero = (
        alt.Chart(pd.DataFrame({"x": [0.0]}))
        .mark_rule(strokeDash=[4, 4])
        .encode(x="x:Q", color=alt.value(GREY))
    )
    bars = base.mark_rule(strokeWidth=6, opacity=0.45).encode(x=x, x2="high:Q")
    points = base.mark_point(filled=True, size=150, opacity=1).encode(x="relative:Q")
    labels = base.mark_text(dy=-15, fontSize=13, fontWeight="bold").encode(
        x="relative:Q", text="said:N", color=alt.value(_INK)
    )
    return alt.layer(zero, bars, points, labels).properties(
        width=_WIDTH, height=_ROW * len(effects)
    )


def _places(effects: pd.DataFrame) -> list[tuple[int, bool]]:
    """Each row's place among those that have a colour, and whether it is grey."""
    places, place = [], 0
    for is_grey in effects["grey"]:
        places.append((place, bool(is_grey)))
        place += not is_grey
    return places
