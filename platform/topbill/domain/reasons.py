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
        "thin_span": "fewer than 100 units of one of the two variants came on these days",
        "too_early": "too few whole days have passed since units' first exposure",
        "too_few_draws": "too few draws for a test or an estimate",
        "too_few_rewards": "too few of its draws earned anything",
        "unreadable_table": "the table that it is read of cannot be read; a note says why",
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
        "strata_differ": (
            "the one variant's units are in other strata than the other's, as by what it does; "
            "nothing was adjusted by them"
        ),
        "denominator_doubtful": (
            "units of the two variants may differ in how many decisions they have, which moves a "
            "rate per decision, and units counted once do not show the difference; wait, or read "
            "it per unit"
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
        # The gate of a launch.
        "margin_undecided": (
            "the interval holds both no harm and harm beyond the margin: the log has too few "
            "decisions to tell"
        ),
        "not_evaluable": "the log cannot be evaluated for this variant",
        # A trained policy's certificate.
        "gain_undecided": (
            "the lower bound of what the policy earns more than its logger is not above zero"
        ),
    }
)
"""Code → sentence, of every part of Topbill; a package's own `REASONS` is a selection of it."""

REMEDIES = MappingProxyType(
    {
        "too_few_units": "Wait for more units, or look at a longer span.",
        "no_rewards": (
            "Check that rewards arrive and that the objective names their event, or wait."
        ),
        "no_overlap": "Only exploring shows what it earns: let a variant show it now and then.",
        "no_support": (
            "Evaluate a policy over what the log offered, or offer the new actions in an "
            "experiment first."
        ),
        "low_effective_sample": (
            "Evaluate a policy nearer to the logged one, a longer log, or one with a larger "
            "min_probability."
        ),
        "one_weight_dominates": (
            "Evaluate a policy nearer to the logged one, a longer log, or one with a larger "
            "min_probability."
        ),
        "poor_overlap": (
            "This log cannot tell, however the estimator. Give the logging variants a "
            "min_probability and log on, use the decisions of a uniform variant, or evaluate a "
            "policy nearer to theirs."
        ),
        "mean_weight_off": (
            "Check that each row has the propensity of its own action as it was drawn, and that no "
            "rows were dropped by what they earned. Where the mean is below 1, the log may also "
            "hardly show what the policy would: then another log is needed."
        ),
        "propensities_miscalibrated": (
            "Check that propensities are those of the draw, and that the eligible actions are all "
            "that could be drawn."
        ),
        "no_exploration": "Give the variant a min_probability, and log on.",
        "mixed_policy_versions": (
            "Allow more versions (Gates(policy_versions=)), or look at a shorter span."
        ),
        "rewards_immature": "Wait until the metrics' windows have passed.",
        "needs_reward_model": "Give q_logged and q_target, or ask for ips and snips.",
        "needs_embedding_propensities": (
            "Declare action features and log all probabilities, or ask for ips and snips."
        ),
        "needs_weight_moment": "Give weight_moments, or ask for dr.",
        "needs_propensity_level": "Give the propensities of that level, or ask for the others.",
        "no_finite_sample_interval": "Ask for ips or clipped-ips here, or for another interval.",
        "value_drifts": "Read dr, which is right whatever drifts, or look at a shorter span.",
        "unstable": "Look at the largest weights and rewards, or ask for another estimator.",
        "gain_undecided": (
            "Hold out more of the log (--held-out), log on, or keep what decides now: this policy "
            "may be no better."
        ),
    }
)
"""Code → what to do where an estimate was refused for it, in whole sentences."""

EXCLUDED = MappingProxyType(
    {
        "not_in_experiment": "decisions outside the experiment",
        "holdout": "decisions of the holdout",
        "excluded_unit": "decisions of units on the list of those left out",
        "excluded_context": "decisions of units left out by their context",
        "not_in_audience": "decisions of units outside the audience",
        "override": "decisions of testers",
        "no_exploration": "decisions asked for without exploration",
        "immature": "decisions whose objective is not final yet",
        "crossover_units": "units seen in several variants",
        "one_variant": "units that came while there was one variant",
        "thin_strata": "units in phases with too few of a variant",
    }
)
"""Code → what is not counted for it, read after a number: 3 units seen in several variants."""

OUTSIDE = MappingProxyType(
    {
        "not_in_experiment": "outside the experiment",
        "holdout": "in its holdout",
        "not_in_audience": "outside its audience",
        "override": "of testers",
        "no_exploration": "asked for without exploration",
        "excluded_unit": "of units on the list of those left out",
        "excluded_context": "of units left out by their context",
    }
)
"""Reason of a decision → why it is in no variant, read after "3 decisions"."""

HOLDOUT_EXCLUDED = MappingProxyType(
    {
        "admitted_later": "came before they could take part",
        "earlier_shares": "came while another share was held out",
        "excluded_unit": "are on the list of those left out",
        "excluded_context": "are left out by their context",
        "crossover_units": "were in the holdout and in a variant at different times",
    }
)
"""Code → why units are on neither side of a holdout's readout, read after "3 units".
"""

PLAN_FINDINGS = MappingProxyType(
    {
        # What no file may say.
        "invalid": "a file that services refuse",
        # A verdict under way that would be lost.
        "units_move": "units that have a variant would get another one",
        "units_leave": "units that have a variant would get none, though traffic does not fall",
        "holdout_changed": "units would enter or leave the layer's holdout",
        "unit_changed": "units would be told apart by another id",
        "objective_changed": "what is to be raised would be another thing than at the start",
        "metric_changed": "a metric that the verdict reads would count something else",
        "reading_changed": "the result would be read by another method than was planned",
        "plan_changed": (
            "the report would say that what was planned was changed after the first unit came"
        ),
        "guardrail_removed": "a metric would not be guarded any more",
        "guardrail_changed": "a guardrail would allow more harm, or call another direction harm",
        "control_changed": "what the others are compared with would be another thing",
        "treatment_changed": "a variant would be another thing under the same name",
        "action_removed": "an action that a fixed order shows would be gone",
        "action_redefined": "an id would stand for another action",
        "experiment_removed": "services that ask for it would get an error",
        "back_to_draft": "what decides for viewers would be a draft",
        "comparison_ends": "only one variant would be left",
        "conclusion_changed": "what was decided would be decided otherwise, or not at all",
        "order_outranked": "an order that halts it would end by an edit that mends nothing",
        # What was learned, and who can ask.
        "learns_anew": "policies would forget what they learned",
        "requests_refused": "requests as services send them would be refused",
        # What can never be known, or never happens.
        "guardrail_never_shown": "a guardrail needs more units than ever come",
        "never_decided": "a lift of 10% needs more units than ever come",
        "event_never_seen": "an event that is to be counted was never sent",
        "action_never_drawn": "an action can never be drawn",
        "explores_nothing": "a policy would never try what it does not favour already",
        "nobody_takes_part": "it would run, and no unit would take part",
        "nothing_to_compare": "it would run with one variant",
        "too_little_time": "policies would hardly ever answer within their budget",
        "window_longer_than_hold": "a step of the launch ends before a guardrail's window is over",
        "hold_never_filled": "a step of the launch waits for more units than ever come",
        "launch_unguarded": "a launch would grow with nothing that could stop it",
        "gate_without_log": "the log that a launch's gate reads is not there",
        "launch_restarts": "a launch under way would begin anew, or what runs cannot go on beside "
        "one",
    }
)
"""Code → what an edit of the files would do to what runs, read after "Would harm: "."""

CAUSES = MappingProxyType(
    {
        "variant_shows": "what the variant shows its viewers",
        "file_changed": "a change of the experiment's file shortly before",
        "policy_fails": "the policy fails, so that the control's order is served in its place",
        "variant_missing": "one variant gets no units at all: it is not reached, or not reported",
        "units_lost": "units of one variant get lost after they were given to it, as where an app "
        "crashes or its calls fail",
        "units_added": "one variant gets units that it was not given, such as bots, or ids that "
        "are made anew",
        "rewards_not_sent": "nobody sends rewards, or not with the ids of decisions: their sender, "
        "or the way to the service, is down",
        "event_stopped": "one event is not sent any more, while others come",
        "event_renamed": "the event comes under another name, which no metric reads",
        "few_eligible": "only one action is eligible: rules or the catalogue leave no choice",
        "rewards_silent": "rewards have stopped, so that the policy learns that nothing is worth "
        "anything",
        "one_action_leads": "the policy became sure of one action, faster than it can have learned",
        "feature_missing": "the feature is not sent any more",
        "new_values": "the feature has values that it did not have before",
        "viewers_changed": "other viewers come, or they come otherwise",
        "shown_not_drawn": "what is shown is changed after the draw: actions of probability 0 are "
        "on record",
        "draw_differs": "the draw does not follow the probabilities that are logged",
        "learning_fails": "learning fails with an error",
        "learning_behind": "more is decided than the worker learns, or it begins anew with a long "
        "log",
        "worker_hangs": "the worker gives no sign of life",
        "disk_full": "the disk is full",
        "publishing_fails": "the worker is alive, and what it publishes does not get through",
    }
)
"""Code → the likely cause of an alarm."""


def reasons(*codes: str) -> dict[str, str]:
    """The table of some codes, in that order: what a package says of its own results.

    Raises:
        KeyError: for a code that the table does not have.
    """
    return {code: REASONS[code] for code in codes}
