"""How much of a draw `min_probability` leaves to the policy.

At each position every candidate keeps its least probability, and the policy divides what is left:
with K candidates and least probability f it decides a share 1 − K·f of the draws, and the rest is
spread over all candidates evenly (`domain.chance.with_min_probability`). Positions below have fewer
candidates, so a little more is left there.
"""

from __future__ import annotations

from topbill.policies import policy_class
from topbill.spec.fields import percent
from topbill.spec.model import Variant

LITTLE = 0.5
"""Below this share of the draws a policy hardly shows what it learned: that is told."""
VANISHING = 0.005
"""Below this share of the draws spread over all actions, what a policy believes decides alone."""


def default_min_probability(kind: str, candidates: int) -> float:
    """The least probability of a variant that says none, of a kind of policy among so many actions
    of its file; 0 candidates where requests bring them.
    """
    policy = policy_class(kind)
    if candidates:
        return policy.default_spread / candidates
    # Nobody knows then how many will share it: only what explores by nothing else gets it each.
    return policy.default_spread if policy.deterministic else 0.0


def policy_shares(min_probability: float, candidates: int, slots: int) -> tuple[float, ...]:
    """The share of the draws that the policy decides at each position.

    Args:
        min_probability: The least probability of each candidate at each position.
        candidates: How many may stand at the first position.
        slots: How many positions are filled.
    """
    shares = []
    for position in range(min(slots, candidates)):
        remaining = candidates - position
        # More than an even split can't be kept: then all candidates are equally probable.
        shares.append(max(0.0, 1.0 - remaining * min_probability))
    return tuple(shares)


def little_is_left(variant: str, min_probability: float, candidates: int, slots: int) -> str | None:
    """A sentence where a policy decides less than LITTLE of the draws at the first position; None
    where it decides more. Arguments are those of `policy_shares`.
    """
    # The first position has the most candidates, so the least is left there.
    shares = policy_shares(min_probability, candidates, slots)
    if not shares or shares[0] >= LITTLE:
        return None
    least = percent(min_probability)
    cost = percent(min(1.0, candidates * min_probability))
    sentence = (
        f"{variant}: min_probability {least} for each of {candidates} candidates takes {cost} of "
        f"the draws at position 1 and leaves its policy {percent(shares[0])}"
    )
    last = len(shares)
    if last > 1:
        sentence += f" ({percent(shares[-1])} at position {last})"
    return f"{sentence}; lower it to leave more to what was learned"


def may_vanish(variant: Variant, candidates: int) -> str | None:
    """A sentence where nothing keeps an action's probability from falling to nothing as the policy
    learns, so that early luck may decide for good, and what is no longer shown no log can speak
    for. None where something does, and for a fixed order, which is meant.
    """
    policy = policy_class(variant.policy)
    spread = policy.own_spread(variant.params) + variant.min_probability * candidates
    # Among nobody knows how many, any least probability may be enough.
    trusted = not candidates and variant.min_probability > 0
    if variant.policy == "fixed" or trusted or spread >= VANISHING:
        return None
    enough = percent(0.02 / candidates) if candidates else "1%"
    return (
        f"{variant.name}: {variant.policy} may stop showing an action for good, early luck "
        f"included, and its log then cannot say what another policy would have earned; write "
        f"min_probability: {enough} to keep a little chance"
    )
