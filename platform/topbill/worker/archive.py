"""What the log has let go, read back from the lake as it was, so that a fold can begin at the
beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from topbill import lake
from topbill.domain.errors import NotFound
from topbill.domain.records import NULL, Decision, Mask, Placement, RewardEvent
from topbill.log import Matured

BATCH = 5_000
_QUERY = """
WITH part AS (
    SELECT * FROM decisions d
    WHERE experiment = $key AND seq > $after AND seq <= $through
        AND epoch_us(d.decided_at) <= $reached - $age
    ORDER BY seq LIMIT $batch),
came AS (
    SELECT decision_id, list({
            'event_id': r.event_id, 'event': r.event, 'value': r.value, 'action': r.action,
            'position': r.position, 'occurred_at': epoch_us(r.occurred_at),
            'received_at': epoch_us(r.received_at)}
        ORDER BY r.seq) events
    FROM rewards r JOIN part d USING (decision_id)
    WHERE r.experiment = $key AND epoch_us(r.received_at) <= epoch_us(d.decided_at) + $age
    GROUP BY ALL)
SELECT seq, decision_id, experiment, revision, variant, unit, context, actions, eligible, slate,
    propensities, propensity, policy, policy_version, reason, page, layer, place, masks,
    epoch_us(part.decided_at) AS decided_at, events
FROM part LEFT JOIN came USING (decision_id) ORDER BY seq
"""
# The conditions are those of the log's own `matured`, word for word: by the time of receipt, not of
# the event, so that a decision comes back with the very events that the worker learned from.


def reader(data: Path) -> Callable[[str, int, int, int, int], list[Matured]]:
    """A function (experiment, after seq, through seq, age µs, reached by µs) → the next matured
    decisions of the lake.

    Raises NotFound when there is no lake.
    """

    def read(key: str, after: int, through: int, age: int, reached: int) -> list[Matured]:
        face = data / lake.DATABASE
        if not face.exists():
            raise NotFound(
                f"{face}: the log has let decisions go and there is no lake to read them from"
            )
        connection = lake.connect(face)
        try:
            values = {
                "key": key,
                "after": after,
                "through": through,
                "age": age,
                "reached": reached,
                "batch": BATCH,
            }
            rows = connection.sql(_QUERY, params=values).to_arrow_table().to_pylist()
        finally:
            connection.close()
        return [_matured(row) for row in rows]

    return read


def _matured(row: dict[str, Any]) -> Matured:
    seq, events = row.pop("seq"), row.pop("events") or []
    decision_id, actions = row["decision_id"], row.pop("actions")
    masks = tuple(Mask(**{**mask, "rows": tuple(mask["rows"])}) for mask in row.pop("masks") or ())
    optional = {name: row.pop(name) or "" for name in ("page", "layer", "place")}
    shown = zip(row.pop("slate"), row.pop("propensities"), strict=True)
    decision = Decision(
        **{
            **row,
            **optional,
            "masks": masks,
            "context": msgspec.Raw(row["context"].encode()),
            "actions": NULL if actions is None else msgspec.Raw(actions.encode()),
            "eligible": tuple(row["eligible"]),
            "slate": tuple(Placement(k, action, p) for k, (action, p) in enumerate(shown)),
        }
    )
    return Matured(
        seq,
        decision,
        [RewardEvent(decision_id=decision_id, **event) for event in events],
    )
