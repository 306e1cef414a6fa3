"""The stable codes that say why a number is missing or must be read with care, with a plain
sentence for each.
"""

from __future__ import annotations

OK = ""
NO_TRAFFIC = "no_traffic"
MISSING_CONTROL = "missing_control"
TOO_FEW_UNITS = "too_few_units"
NO_VALUES = "no_values"
INFINITE_VALUES = "infinite_values"
ALL_ZERO = "all_zero"
CONSTANT_METRIC = "constant_metric"
TIED_QUANTILE = "tied_quantile"
CONTROL_NEAR_ZERO = "control_near_zero"
CROSSOVER_UNITS = "crossover_units"

REASONS: dict[str, str] = {
    OK: "nothing to remark",
    NO_TRAFFIC: "the variant has no units yet",
    MISSING_CONTROL: "the control has no units, so there is nothing to compare with",
    TOO_FEW_UNITS: "fewer than two units in an arm: no uncertainty can be computed",
    NO_VALUES: "no unit of an arm has a value of the metric",
    INFINITE_VALUES: "the metric has values that are infinite, or too large to square",
    ALL_ZERO: "the metric is zero for every unit of both arms",
    CONSTANT_METRIC: "the metric does not vary in either arm, so its uncertainty is unknown",
    TIED_QUANTILE: "too many equal values around the quantile to tell its uncertainty",
    CONTROL_NEAR_ZERO: "the control's value cannot be told from zero, so a relative lift means nothing",
    CROSSOVER_UNITS: "some units were seen in more than one variant; they were left out",
}
