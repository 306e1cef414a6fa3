"""The whole report of an experiment or a page, from the lake: numbers with their uncertainty, and
whether they may be read.

`load(key, data)` gives a `Report` or a `PageReport`; `render_text`, `to_json` and `to_html` show
either. In a notebook both show themselves, and `to_frame()` makes a pandas frame of their numbers.
"""

from typing import TYPE_CHECKING

from topbill import late

if TYPE_CHECKING:
    from topbill.reporting.experiment.build import load_experiment_report
    from topbill.reporting.experiment.interactions import interaction
    from topbill.reporting.experiment.model import (
        REASONS,
        ChoiceRatio,
        ConclusionReading,
        Health,
        HoldoutReadout,
        MeanEstimate,
        MetricLine,
        Note,
        PropensityLine,
        Report,
        ShareLine,
        VariantLine,
    )
    from topbill.reporting.loading import is_page, load, render_text, to_html, to_json
    from topbill.reporting.page import LayerVariant, PageMean, PageReport, load_page_report
else:
    # Services and commands ask what dashboards ask (`queries`), and need no statistics for it.
    __getattr__ = late.names(
        __name__,
        {
            "topbill.reporting.experiment.build": ("load_experiment_report",),
            "topbill.reporting.experiment.interactions": ("interaction",),
            "topbill.reporting.experiment.model": (
                "REASONS",
                "ChoiceRatio",
                "ConclusionReading",
                "Health",
                "HoldoutReadout",
                "MeanEstimate",
                "MetricLine",
                "Note",
                "PropensityLine",
                "Report",
                "ShareLine",
                "VariantLine",
            ),
            "topbill.reporting.loading": (
                "is_page",
                "load",
                "render_text",
                "to_html",
                "to_json",
            ),
            "topbill.reporting.page": (
                "LayerVariant",
                "PageMean",
                "PageReport",
                "load_page_report",
            ),
        },
    )

__all__ = [
    "REASONS",
    "ChoiceRatio",
    "ConclusionReading",
    "Health",
    "HoldoutReadout",
    "LayerVariant",
    "MeanEstimate",
    "MetricLine",
    "Note",
    "PageMean",
    "PageReport",
    "PropensityLine",
    "Report",
    "ShareLine",
    "VariantLine",
    "interaction",
    "is_page",
    "load",
    "load_experiment_report",
    "load_page_report",
    "render_text",
    "to_html",
    "to_json",
]
