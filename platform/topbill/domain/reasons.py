"""Why a number is missing or must be read with care: each stable code once, with its sentence.

Codes are what callers, JSON and the analytics database carry, and never change; sentences are what
people read, after a colon or in a table's cell, so they open in lower case and end without a stop.
"""

from __future__ import annotations

from types import MappingProxyType

REASONS = MappingProxyType(
    {
        "": "nothing to remark",
        # Nothing has happened yet.
        "no_traffic": "the variant has no units yet",
        "no_decisions": "no decision was made in this variant yet",
        "no_events": "none of the decisions has had such an event, so the uncertainty is unknown",
        "immature": "no decision is older than the metric's window yet",
        "rewards_immature": "too many decisions are younger than their metrics' windows",
        "no_rewards": (
            "no rewarded decision has any weight, so an interval would claim a certainty that is "
            "not there"
        ),
        # Too little of it, or nothing that varies.
        "missing_control": "the control has no units, so there is nothing to compare with",
        "too_few_units": "fewer than two independent units: no uncertainty can be computed",
        "too_early": "too few whole days have passed since units' first exposure",
        "too_few_draws": "too few draws for a test or an estimate",
        "too_few_rewards": "too few of its draws earned anything",
        "no_values": "no unit of a variant has a value of the metric",
        "all_zero": "the metric is zero for every unit of both variants",
        "constant_metric": "the metric does not vary, so its uncertainty is unknown",
        "tied_quantile": "too many equal values around the quantile to tell its uncertainty",
        "control_near_zero": (
            "the control's value cannot be told from zero, so a relative lift means nothing"
        ),
        # Values or units that do not belong.
        "infinite_values": "the metric has values that are infinite, or too large to square",
        "crossover_units": "some units were seen in more than one variant; they were left out",
        "covariate_missing": (
            "the covariate is there for another share of one variant's units than of the other's; "
            "nothing was adjusted by it"
        ),
        "denominator_moved": (
            "units of the two variants differ in how many decisions they have, so that who comes "
            "how often moves a rate per decision; read it per unit"
        ),
        "thin_strata": (
            "no phase of equal shares has ten units of both variants with a final value yet"
        ),
        "one_variant": "they came while there was only one variant to get",
        "covariate_is_metric": (
            "the covariate tells all of the metric, as it would if it were the metric itself; "
            "nothing was adjusted by it"
        ),
        "covariate_infinite": (
            "the covariate has infinite values; their units count as if they had none"
        ),
        # Weights and propensities of a log.
        "no_overlap": "the policy never chooses what the log shows: every weight is zero",
        "no_support": (
            "the policy acts where the log never did; that part of its value is unknown"
        ),
        "low_effective_sample": "the weights leave too few effective decisions",
        "one_weight_dominates": "a single decision carries too much of the estimate",
        "skewed_weights": (
            "a few draws of tiny probability dominate the mean weight: judged by counts alone"
        ),
        "mean_weight_off": (
            "the weights do not average 1, by more than chance: propensities are untrue, or the "
            "log hardly shows what is chosen"
        ),
        "poor_overlap": (
            "the log hardly ever shows what the policy would: the rare decisions of large weight "
            "that would carry its value are missing, though the propensities may well be true"
        ),
        "value_drifts": (
            "the policy's value moved while the log's probabilities did, so that an estimate "
            "weighted over time is of some times more than of others"
        ),
        "propensities_miscalibrated": (
            "actions were shown more or less often than their logged propensities say"
        ),
        "no_exploration": (
            "a position always showed the same item, so nothing can be said about any other"
        ),
        "mixed_policy_versions": "more policy versions wrote this log than the caller allows",
        "never_possible": "the action never had a probability above zero",
        "certain": "the action was always certain: nothing was drawn",
        # What an estimator would need.
        "needs_reward_model": "the estimator needs q̂ of the logged action and of the policy",
        "needs_embedding_propensities": (
            "the estimator needs both policies' propensities of the action's embedding"
        ),
        "needs_weight_moment": "the estimator needs Σ_a π(a)²/p(a) of each decision",
        "needs_propensity_level": (
            "the estimator needs propensities of a level (slate, item or cascade) that is not there"
        ),
        "no_finite_sample_interval": (
            "no betting interval exists here; ask for ips or clipped-ips, with rewards in [0, 1]"
        ),
        "unstable": "the estimate is not finite on this log",
    }
)
"""Code → sentence, of every part of Topbill; a package's own `REASONS` is a selection of it."""


def reasons(*codes: str) -> dict[str, str]:
    """The table of some codes, in that order: what a package says of its own results.

    Raises:
        KeyError: for a code that the table does not have.
    """
    return {code: REASONS[code] for code in codes}
