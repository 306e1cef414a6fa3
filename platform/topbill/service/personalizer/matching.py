"""Which choices for the first of some slots would leave a later one with nothing to show."""

from __future__ import annotations

from collections.abc import Sequence


def unsafe(allowed: Sequence[Sequence[str]]) -> set[str]:
    """The actions allowed in slot 0 after which the other slots could not all be filled, each with
    another action.

    `allowed[i]` are the actions that slot i may show. By augmenting paths (Kuhn 1955): one matching
    of the later slots is found; taking an action that it uses is safe when the slot that loses it
    can be served otherwise.
    """
    if len(allowed) < 2:
        return set()
    owner: dict[str, int] = {}
    for slot in range(1, len(allowed)):
        if not _serve(slot, allowed, owner, set()):
            return set(allowed[0])
    lost = set()
    for action in allowed[0]:
        if action in owner:
            others = {a: slot for a, slot in owner.items() if a != action}
            if not _serve(owner[action], allowed, others, {action}):
                lost.add(action)
    return lost


def _serve(
    slot: int, allowed: Sequence[Sequence[str]], owner: dict[str, int], seen: set[str]
) -> bool:
    """Give `slot` an action outside `seen`, moving others on where needed; changes `owner` when it
    can.
    """
    for action in allowed[slot]:
        if action not in seen and action not in owner:
            owner[action] = slot
            return True
    for action in allowed[slot]:
        if action not in seen:
            seen.add(action)
            if _serve(owner[action], allowed, owner, seen):
                owner[action] = slot
                return True
    return False
