"""The policies by kind: those that Topbill ships, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from topbill.domain.errors import PolicyError
from topbill.domain.features import FeatureColumns
from topbill.domain.records import Actions, Example, Floats, Policy, Scored
from topbill.plugins.discovery import POLICIES, installed
from topbill.policies.auto import Auto
from topbill.policies.epsilon_greedy import EpsilonGreedy
from topbill.policies.installed import InstalledPolicy, policy_of
from topbill.policies.linucb import LinUCB
from topbill.policies.scored import OwnScores
from topbill.policies.squarecb import SquareCB
from topbill.policies.thompson import Thompson
from topbill.policies.uniform import Fixed, Stateless, Uniform
from topbill.policies.vw import VW

KINDS: dict[str, type[Policy]] = {
    policy.kind: policy
    for policy in (Auto, Uniform, Fixed, EpsilonGreedy, Thompson, LinUCB, SquareCB, VW, OwnScores)
}
"""Those that Topbill ships. This dict drives validation, documentation and the conformance
suite."""

FOREIGN = (InstalledPolicy, OwnScores)
"""Models that Topbill did not make."""


def own_kinds() -> dict[str, str]:
    """The policies of installed packages: kind → package and version. One called as a shipped one
    is called is none of them.
    """
    entries = installed(POLICIES)
    return {name: entry.package for name, entry in entries.items() if name not in KINDS}


def policy_class(kind: str) -> type[Policy]:
    """The policy of a kind.

    Raises:
        PolicyError: No installed package has it, or the one that has can't be loaded.
    """
    if kind in KINDS:
        return KINDS[kind]
    if kind in installed(POLICIES):
        return policy_of(kind)
    raise PolicyError(
        f"policy {kind}: no package that is installed brings it; install the one that does, or "
        f"name one of {', '.join([*KINDS, *own_kinds()])}"
    )


def is_foreign(kind: str) -> bool:
    """Whether what decides is a model that Topbill did not make: an installed policy, or scores.
    Raises PolicyError as `policy_class` does.
    """
    return issubclass(policy_class(kind), FOREIGN)


def learns(policy: Policy) -> bool:
    """Whether examples change anything in a policy."""
    return not isinstance(policy, Stateless)


class AbsentPolicy:
    """Stands for a policy that can't be built, and raises why whenever it is asked: its variant
    falls back, and all others go on. `why` says why.
    """

    kind: ClassVar[str] = "absent"
    Params: ClassVar[type[msgspec.Struct]] = msgspec.Struct
    deterministic: ClassVar[bool] = True
    default_spread: ClassVar[float] = 0.0

    @staticmethod
    def own_spread(params: Any) -> float:  # noqa: ARG004
        """Nothing."""
        return 0.0

    def __init__(
        self,
        params: Any,
        *,
        context_size: int = 0,  # noqa: ARG002
        action_size: int = 0,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        self.why = str(params)

    def score(self, x: Floats, actions: Actions, seed: int) -> Scored:  # noqa: ARG002
        raise PolicyError(self.why)

    def update(self, examples: Sequence[Example]) -> None:  # noqa: ARG002
        raise PolicyError(self.why)

    def dump(self) -> bytes:
        raise PolicyError(self.why)

    def load(self, blob: bytes) -> None:  # noqa: ARG002
        raise PolicyError(self.why)

    def explain(
        self,
        x: Floats,  # noqa: ARG002
        actions: Actions,  # noqa: ARG002
        names: tuple[Sequence[str], Sequence[str]],  # noqa: ARG002
    ) -> list[dict[str, float]]:
        raise PolicyError(self.why)


def build_policy(kind: str, params: Any, columns: FeatureColumns, seed: int) -> Policy:
    """A policy as it is before it has learned anything. Raises PolicyError where it can't be
    built.
    """
    policy = policy_class(kind)
    # Models that are not ours must know features by name, and not their number alone.
    named: dict[str, Any] = {"columns": columns} if is_foreign(kind) else {}
    return policy(
        params,
        context_size=columns.context_size,
        action_size=columns.action_size,
        seed=seed,
        **named,
    )
