"""Whether two states of a policy are the same: byte for byte, but for what a foreign library keeps
beside what it has learned.
"""

from __future__ import annotations

from typing import NamedTuple

from topbill.domain.records import Actions, Policy
from topbill.policies import codec
from topbill.policies.installed import InstalledPolicy
from topbill.policies.linear.recent import NAMES
from topbill.policies.linear.scaling import MOMENTS
from topbill.policies.vw import VW


class StateComparison(NamedTuple):
    """`same` is None where it can't be told; `note` says what differs, or why not."""

    same: bool | None
    note: str = ""


def compare_states(
    policy: Policy, stored: bytes, rebuilt: bytes, actions: Actions
) -> StateComparison:
    """Whether a stored state is the one that the log leads to.

    Args:
        policy: One of their kind, parameters and sizes; its own state is left alone.
        stored: What a snapshot holds.
        rebuilt: What folding the log again gave.
        actions: What predictions are compared over, where bytes are not.

    Raises:
        PolicyError: One of the two is no state of this policy.
    """
    if stored == rebuilt:
        return StateComparison(same=True)
    if not isinstance(policy, VW | InstalledPolicy):
        # Of before contexts were standardised, or of before there was a short memory too.
        if stored == codec.without(rebuilt, *NAMES):
            return StateComparison(same=True, note="of before sudden changes were followed")
        if stored == codec.without(rebuilt, MOMENTS, *NAMES):
            return StateComparison(
                same=True,
                note="of before contexts were standardised; reads them as they are written",
            )
    if not isinstance(policy, VW):
        return StateComparison(
            same=False, note=f"{len(rebuilt):,} bytes folded again, {len(stored):,} stored"
        )
    difference = policy.difference(stored, rebuilt, actions)
    if not difference:
        return StateComparison(
            same=True, note="VW's own counters differ; it predicts and weighs alike"
        )
    if not policy.reproducible:
        exploration = policy.params.exploration
        return StateComparison(
            same=None,
            note=f"{difference}: VW draws random numbers for {exploration} while it learns, and "
            "doesn't store how far they got; after a restart nobody can tell",
        )
    return StateComparison(same=False, note=difference)


def engine_of(policy: Policy) -> str | None:
    """Package and version of what learns for a policy in our place: a foreign library, or the
    package that brings the policy; None for ours."""
    return policy.engine if isinstance(policy, VW | InstalledPolicy) else None
