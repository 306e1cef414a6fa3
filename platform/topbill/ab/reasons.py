"""The stable codes that say why a number is missing or must be read with care, see
`domain.reasons` for the sentences.
"""

from __future__ import annotations

from topbill.domain.reasons import reasons

OK = ""
NO_TRAFFIC = "no_traffic"
MISSING_CONTROL = "missing_control"
TOO_FEW_UNITS = "too_few_units"
THIN_SPAN = "thin_span"
NO_VALUES = "no_values"
INFINITE_VALUES = "infinite_values"
ALL_ZERO = "all_zero"
CONSTANT_METRIC = "constant_metric"
TIED_QUANTILE = "tied_quantile"
CONTROL_NEAR_ZERO = "control_near_zero"
CROSSOVER_UNITS = "crossover_units"
COVARIATE_MISSING = "covariate_missing"
TOO_EARLY = "too_early"
DENOMINATOR_MOVED = "denominator_moved"
DENOMINATOR_DOUBTFUL = "denominator_doubtful"
THIN_STRATA = "thin_strata"
ONE_VARIANT = "one_variant"
STRATA_DIFFER = "strata_differ"
COVARIATE_IS_METRIC = "covariate_is_metric"
COVARIATE_INFINITE = "covariate_infinite"

REASONS: dict[str, str] = reasons(
    OK,
    NO_TRAFFIC,
    MISSING_CONTROL,
    TOO_FEW_UNITS,
    THIN_SPAN,
    NO_VALUES,
    INFINITE_VALUES,
    ALL_ZERO,
    CONSTANT_METRIC,
    TIED_QUANTILE,
    CONTROL_NEAR_ZERO,
    CROSSOVER_UNITS,
    COVARIATE_MISSING,
    TOO_EARLY,
    DENOMINATOR_MOVED,
    DENOMINATOR_DOUBTFUL,
    THIN_STRATA,
    ONE_VARIANT,
    STRATA_DIFFER,
    COVARIATE_IS_METRIC,
    COVARIATE_INFINITE,
)
"""The codes of A/B results, each with the sentence that a person reads."""
