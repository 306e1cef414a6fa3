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
        # The later slots alone can't all be filled: then no choice for this one is better.
        if not _serve(slot, allowed, owner, set()):
            return set(allowed[0])
    wrong = set()
    for action in allowed[0]:
        # An action that the matching leaves free can be taken without asking anybody.
        if action in owner:
            others = {a: slot for a, slot in owner.items() if a != action}
            if not _serve(owner[action], allowed, others, {action}):
                wrong.add(action)
    return wrong


def _serve(
    slot: int, allowed: Sequence[Sequence[str]], owner: dict[str, int], visited: set[str]
) -> bool:
    """Give `slot` an action outside `visited`, moving others on where needed; changes `owner` when
    it can.
    """
    for action in allowed[slot]:
        if action not in visited and action not in owner:
            owner[action] = slot
            return True
    for action in allowed[slot]:
        if action not in visited:
            visited.add(action)
            if _serve(owner[action], allowed, owner, visited):
                owner[action] = slot
                return True
    return False
