"""obp's slate `bandit_feedback` (a row for each position of a slate), to and from decisions and
reward events.

`pscore_cascade` is the probability of a slate down to its position, `pscore` that of the whole
slate; a placement's propensity is the quotient of two neighbours. `reward` is the sum of the values
of the position's events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.obp_columns import Layout, Row, described, place_of, survey


def from_slate_feedback(feedback: Mapping[str, Any], experiment: str) -> Iterator[Row]:
    """Each slate as a decision of `experiment`; action a is called `str(a)`, the context is {"x0":
    …}; a reward of 0 has no event. Raises BadData, naming the slate, for rows out of order or
    impossible probabilities."""
    for name in ("slate_id", "action", "position", "reward", "pscore_cascade"):
        if feedback.get(name) is None:
            raise BadData(
                name, "got nothing; expected obp's slate bandit_feedback with pscore_cascade"
            )
    slate_id = np.asarray(feedback["slate_id"])
    columns = {
        name: np.asarray(feedback[name])
        for name in ("action", "position", "reward", "pscore_cascade")
    }
    context = (
        np.asarray(feedback["context"])
        if feedback.get("context") is not None
        else np.zeros((len(slate_id), 0))
    )
    eligible = tuple(
        str(a) for a in range(int(feedback.get("n_unique_action") or columns["action"].max() + 1))
    )
    edges = np.flatnonzero(np.diff(slate_id)) + 1
    for rows in np.split(np.arange(len(slate_id)), edges):
        name = f"slate {slate_id[rows[0]]}"
        action, position, reward, cascade = (columns[c][rows] for c in columns)
        if position.tolist() != list(range(len(rows))):
            raise BadData(
                name, f"got positions {position.tolist()}; expected 0 to {len(rows) - 1} in order"
            )
        before = np.concatenate([[1.0], cascade[:-1]])
        if not (np.all(cascade > 0) and np.all(cascade <= before * (1 + 1e-9))):
            raise BadData(
                name,
                f"got pscore_cascade {cascade.tolist()}; expected falling probabilities in (0, 1]",
            )
        key = f"{experiment}-{slate_id[rows[0]]}"
        x = context[rows[0] if len(context) == len(slate_id) else int(slate_id[rows[0]])]
        decision = Decision(
            decision_id=key,
            experiment=experiment,
            revision="",
            variant="logged",
            unit=key,
            context=msgspec.Raw(msgspec.json.encode({f"x{j}": float(v) for j, v in enumerate(x)})),
            eligible=eligible,
            slate=tuple(
                Placement(k, str(a), min(1.0, float(p)))
                for k, (a, p) in enumerate(zip(action, cascade / before, strict=True))
            ),
            propensity=float(cascade[-1]),
            policy="imported",
            reason="policy",
        )
        yield (
            decision,
            [
                RewardEvent(
                    decision_id=key,
                    event_id=f"reward-{k}",
                    event="reward",
                    value=float(r),
                    action=str(a),
                    position=k,
                )
                for k, (a, r) in enumerate(zip(action, reward, strict=True))
                if r
            ],
        )


def to_slate_feedback(
    rows: Iterable[Row],
    *,
    actions: tuple[str, ...] | None = None,
    layout: Layout | None = None,
    first: int = 0,
) -> dict[str, Any]:
    """Slates as the dictionary that obp's slate estimators take, numbered from `first`; `layout`
    numbers actions and names the context's columns (default: as they are first met, actions as
    given by `actions`). Raises BadData for an action that is not numbered."""
    if layout is None:
        rows = list(rows)
        layout = survey(rows, actions)
    out: dict[str, list[Any]] = {
        name: []
        for name in ("slate_id", "action", "position", "reward", "pscore_cascade", "pscore")
    }
    contexts: list[dict[str, Any]] = []
    number = first - 1
    for number, (decision, events) in enumerate(rows, first):
        context = described(decision)
        place_of(decision, context)
        cascade = 1.0
        for placed in decision.slate:
            cascade *= placed.propensity
            out["slate_id"].append(number)
            out["action"].append(layout.number(decision, placed.action))
            out["position"].append(placed.position)
            out["reward"].append(
                sum(e.value for e in events if _at(e, decision) == placed.position)
            )
            out["pscore_cascade"].append(cascade)
            contexts.append(context)
        out["pscore"] += [cascade] * len(decision.slate)
    integers = ("slate_id", "action", "position")
    arrays = {
        n: np.array(v, dtype=np.intp if n in integers else np.float64) for n, v in out.items()
    }
    counts = {"n_rounds": number + 1 - first, "n_unique_action": len(layout.actions)}
    return {**counts, "context": layout.matrix(contexts), **arrays}


def _at(event: RewardEvent, decision: Decision) -> int | None:
    """The position that an event speaks of; an event of a slate of one speaks of that one."""
    return 0 if event.position is None and len(decision.slate) == 1 else event.position
