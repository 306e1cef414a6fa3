"""The policies by kind. This dict drives validation, documentation and the conformance suite."""

from __future__ import annotations

from topbill.domain.records import Policy
from topbill.policies.auto import Auto
from topbill.policies.comparison import StateComparison, compare_states, engine_of
from topbill.policies.epsilon_greedy import EpsilonGreedy
from topbill.policies.linucb import LinUCB
from topbill.policies.squarecb import SquareCB
from topbill.policies.thompson import Thompson
from topbill.policies.uniform import Fixed, Uniform
from topbill.policies.vw import VW

KINDS: dict[str, type[Policy]] = {
    policy.kind: policy
    for policy in (Auto, Uniform, Fixed, EpsilonGreedy, Thompson, LinUCB, SquareCB, VW)
}

__all__ = ["KINDS", "StateComparison", "compare_states", "engine_of"]
