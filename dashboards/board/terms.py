"""What each word on the pages means, in a sentence for people: of numbers and charts, and of
tables' columns.
"""

from __future__ import annotations

TERMS = {
    "lift": "How much more (or less) the variant earns than the control, in per cent of the control.",
    "interval": "Where the true value lies with 95% confidence. These intervals may be looked at every day: "
    "they hold at all times at once, however often one peeks.",
    "reward": "The experiment's objective per decision: the weighted metrics, from 0 to 1 (all one could wish).",
    "chance": "The chance that this variant is truly the better one, given the data so far.",
    "running": "From the first decision to the last one in the record.",
    "units": "What is randomised, such as viewers. One unit always sees the same variant.",
    "decisions": "How often something was chosen and shown.",
    "uncompared": "Means per decision with intervals of 95%, each for one look.",
    "guardrail": "A metric that must not get worse by more than the margin that the experiment file allows.",
    "verdict": "One sentence made only from the numbers below. It is withheld when they cannot bear one.",
    "control": "The variant that all others are compared with; always grey here.",
    "mature": "Share of decisions old enough that every reward counted for them has had its time to come.",
    "share": "How often an action stood at the first position, of all decisions of the variant.",
    "first": "The action that stood at the first position most often.",
    "effective": "Among how many actions the draw was really open: 1 means always the same one, "
    "and as many as there are means pure chance.",
    "explored": "The chance that something else than the favourite was shown, so that its worth can be learned.",
    "min_probability": "Every eligible action keeps at least this chance of being drawn, so that its worth stays known.",
    "propensity": "The logged probability with which an action was drawn. If logged and real ones differ, "
    "evaluation of other policies is wrong.",
    "adaptive": "What a decision would earn if this always stood first, weighted so that the 95% interval holds "
    "although a learner chose what was shown.",
    "plain": "The mean reward of the decisions where it stood first. The learner chose for whom, so compare with care.",
    "regret": "What the decisions of a variant earned less than the best variant's average would have brought.",
    "psi": "Population stability index: how far viewers lately differ from those at the start. "
    "Below 0.1 stable, above 0.25 changed.",
    "join": "Share of reward events that came within the window of a metric that counts them.",
    "fallback": "Decisions where the policy failed or was too slow, so that the control's order was shown.",
    "srm": "Sample-ratio mismatch: units were not split as intended, so that the groups cannot be compared.",
    "ess": "How many evenly weighted decisions the log is worth for this policy.",
    "segment": "A group of viewers: the values of a category, the strongest taste, a part of the day.",
    "shrunken": "The effect in this group, drawn towards the others' by as much as groups agree. The one to believe.",
    "rate": "Decisions a second in the last whole interval of the chart below.",
    "p99": "99 of 100 decisions took the engine less time than this.",
    "age": "Time since the worker last published to the lake.",
    "rewarded": "Mature decisions with any reward event.",
    "events": "Messages from the service of what a viewer did, such as a play.",
    "delay": "From the decision until the event was received.",
    "errors": "Where the policy failed or was too slow, the control's order was shown. Refused edits of files, and "
    "experiments that cannot learn, are told at the top.",
    "version": "Each time the worker publishes what was learned, the policy's version grows by one.",
    "positions": "Of all that was shown at a position, the share of each. Columns add up to 100%.",
    "who": "Share of each action at the first position, in each group of viewers.",
    "mean_weight": "Must be near 1, or the logged propensities are wrong.",
    "largest": "How much of the estimate one decision carries.",
    "unsupported": "How often the policy would do what the log never did.",
    "estimate": "What the policy would have earned per decision on the logged ones, by several estimators.",
    "preview": "What the newest policies would draw for this viewer now. Asking changes and logs nothing.",
    "context": "What the service would tell about the viewer and the moment.",
    "candidates": "All that could have been shown, with the probability of each at its position.",
    "timeline": "Reward events of this decision, in the order in which they came.",
    "pages": "Whole homepages served: rows, their titles and the titles' pictures in one answer.",
    "again": "Pages served once more to their own session: nothing is decided or counted twice.",
    "layer": "What decides a part of the page: its rows, the titles in them, their pictures. Each draws by itself.",
    "against": "Per page of this variant, what all of the page earned more than with the layer's control. "
    "95% intervals over viewers, each for one look.",
    "pareto": "On the front: no other variant of the layer is better on one goal and no worse on the rest. Behind: one "
    "is, by its means. Beaten: surely, with 95% over all comparisons.",
    "recall": "Of plays that were held out, the share found among as many candidates; beside it, among as many of the "
    "most popular titles.",
    "coverage": "How many different titles were shown, and how much of all places the ten most shown take.",
    "weights": "How much each goal counts. Other weights re-weigh all of history; the log stays as it is.",
}
"""Of numbers, charts and headings."""

COLUMNS = {
    "metric": "What is computed of reward events, as the experiment file says.",
    "variant": "An arm of the A/B test: a policy and its share of units.",
    "value": "The variant's mean per decision.",
    "control": "The control's mean per decision.",
    "lift": TERMS["lift"]
    + " Where that cannot be told from zero: the difference, in the metric's unit.",
    "95% interval": TERMS["interval"],
    "95% of this look": "Where the true value lies with 95% confidence, for one look.",
    "chance better": TERMS["chance"],
    "reading": "The number in a word.",
    "may worsen by": "The margin that the experiment file allows.",
    "worse by": "How much worse the variant is than the control.",
    "units": TERMS["units"],
    "share": "Of all, in per cent.",
    "intended": "The share that the experiment file asks for.",
    "mature decisions": TERMS["mature"],
    "lost per decision": TERMS["regret"],
    "lost so far": TERMS["regret"] + " Over all its mature decisions.",
    "version": TERMS["version"],
    "policy": "The kind of policy that decided.",
    "decisions": TERMS["decisions"],
    "since": "Its first decision.",
    "until": "Its last decision so far.",
    "name": "The action, as its payload calls it.",
    "stood first": "How often it stood at the first position.",
    "share first": TERMS["share"],
    "mean when first": TERMS["plain"],
    "worth": TERMS["adaptive"],
    "estimator": "How the value was worked out. Several, because they fail in different ways.",
    "event": TERMS["events"],
    "events": "How many came.",
    "after": TERMS["delay"],
    "item": "What the event speaks of.",
    "in its window": "How many came within the longest window of a metric that counts them; – where none does.",
    "half within": TERMS["delay"] + " Half of all came sooner.",
    "90% within": TERMS["delay"] + " Nine of ten came sooner.",
    "99% within": TERMS["delay"] + " 99 of 100 came sooner.",
    "feature": "What is known of viewers when deciding.",
    "stability index": TERMS["psi"],
    "biggest move": "The group whose share changed most, before and lately.",
    "shown": "What was shown.",
    "chance": TERMS["propensity"],
    "at": "When it was decided (UTC).",
    "slate": "What was shown, first position first.",
    "unit": TERMS["units"],
    "experiment": "The experiment that decided.",
    "reason": "Whether the policy decided, or why it did not.",
    "decision_id": "The id that the service answered; rewards name it.",
    "decided by": "The policy, or what stepped in for it, and why.",
    "layer": TERMS["layer"],
    "pages": TERMS["pages"],
    "objective": "The weighted sum of the page's metrics, from 0 to 1.",
    "more than the control": TERMS["against"],
    "standing": TERMS["pareto"],
    "titles": "How many different titles it showed.",
    "ten most shown": "How much of all places the ten most shown titles took.",
    "places": "How many titles it placed, counting each time.",
    "stage": "The part of the page that an editors' order or popular titles stood in for.",
}
"""Of tables' columns; a column that is not here is a name of the experiment's own, such as a
metric.
"""
ENDED = {
    "policy": "The policy decided.",
    "fallback": "The policy failed or was too slow: the control's order was shown.",
    "not_in_experiment": "The unit is not in the experiment: the control's order was shown.",
    "holdout": "The unit is held out of all experiments: the control's order was shown.",
}
"""How a decision came about."""
