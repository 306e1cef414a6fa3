"""Where a reward comes from: what its row says of its decision."""

from __future__ import annotations

from typing import NamedTuple

from topbill.domain.records import Decision, RewardEvent


class Origin(NamedTuple):
    """What a reward's row says of its decision. `decided_at` in µs since the epoch."""

    decided_at: int
    experiment: str | None = None
    variant: str | None = None
    unit: str | None = None
    slate: tuple[str, ...] = ()

    @classmethod
    def of(cls, decision: Decision) -> Origin:
        """The origin of the events of this decision."""
        slate = tuple(placement.action for placement in decision.slate)
        return cls(decision.decided_at, decision.experiment, decision.variant, decision.unit, slate)

    def item(self, event: RewardEvent) -> str | None:
        """The action that the event speaks of: the one it names, or the one at its position, or the
        only one.
        """
        if event.action is not None:
            return event.action
        if event.position is not None:
            is_on_slate = 0 <= event.position < len(self.slate)
            return self.slate[event.position] if is_on_slate else None
        return self.slate[0] if len(self.slate) == 1 else None
