"""One experiment's whole report, from the lake: numbers with their uncertainty, and whether they
may be read.

`load(key, data)` gives a `Report`; `render_text`, `to_json` and `to_html` show it.
"""

from topbill.reporting.experiment.build import load
from topbill.reporting.experiment.html import to_html
from topbill.reporting.experiment.model import (
    REASONS,
    ChoiceRatio,
    Health,
    MeanEstimate,
    MetricLine,
    Note,
    PropensityLine,
    Report,
    ShareLine,
    VariantLine,
    to_json,
)
from topbill.reporting.experiment.text import render_text

__all__ = [
    "REASONS",
    "ChoiceRatio",
    "Health",
    "MeanEstimate",
    "MetricLine",
    "Note",
    "PropensityLine",
    "Report",
    "ShareLine",
    "VariantLine",
    "load",
    "render_text",
    "to_html",
    "to_json",
]
