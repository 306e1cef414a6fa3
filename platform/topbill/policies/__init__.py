"""Policies, each a kind that variants name: those that Topbill ships, and those of packages."""

from topbill.policies.comparison import StateComparison, compare_states, engine_of
from topbill.policies.registry import (
    FOREIGN,
    KINDS,
    AbsentPolicy,
    build_policy,
    is_foreign,
    learns,
    own_kinds,
    policy_class,
)

__all__ = [
    "FOREIGN",
    "KINDS",
    "AbsentPolicy",
    "StateComparison",
    "build_policy",
    "compare_states",
    "engine_of",
    "is_foreign",
    "learns",
    "own_kinds",
    "policy_class",
]
