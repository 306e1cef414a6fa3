"""Bandit logs as Eppo's SDKs write them, one JSON object a line, to and from decisions of one
placement.

An event names flag, bandit, subject, action, the action's probability, and the attributes of
subject and action, numeric and categorical apart. It holds neither the actions that were not chosen
nor rewards: our own lines keep the decision and its events whole under `metaData.topbill`, lines of
other makers become decisions without rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.dsjson import micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Kept(msgspec.Struct):
    decision: Decision
    events: list[RewardEvent]


def dump_line(
    decision: Decision, events: Iterable[RewardEvent], features: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """One decision as a line without its end. Raises BadData for a slate of several."""
    if len(decision.slate) != 1:
        raise BadData(
            decision.decision_id,
            f"got a slate of {len(decision.slate)}; a bandit event holds one action",
        )
    placed = decision.slate[0]
    sent = msgspec.json.decode(decision.actions) or []
    own = {action["id"]: action.get("features", {}) for action in sent}
    subject, action = (
        _flat(msgspec.json.decode(decision.context)),
        _flat(own.get(placed.action, features.get(placed.action, {}))),
    )
    kept = msgspec.json.encode(_Kept(decision, list(events))).decode()
    line = {
        "timestamp": (_EPOCH + timedelta(microseconds=decision.decided_at)).strftime(
            "%Y-%m-%dT%H:%M:%S.%fZ"
        ),
        "featureFlag": decision.experiment,
        "bandit": decision.variant or decision.experiment,
        "subject": decision.unit,
        "action": placed.action,
        "actionProbability": placed.propensity,
        "optimalityGap": None,
        "modelVersion": f"{decision.policy} v{decision.policy_version}",
        "subjectNumericAttributes": _numbers(subject),
        "subjectCategoricalAttributes": _words(subject),
        "actionNumericAttributes": _numbers(action),
        "actionCategoricalAttributes": _words(action),
        "metaData": {"topbill": kept},
    }
    return msgspec.json.encode(line)


def parse_line(
    line: bytes, *, experiment: str = "imported", number: int = 0
) -> tuple[Decision, list[RewardEvent]]:
    """The decision and events of a line; `number` is named in errors. Raises BadData for what is no
    bandit event.

    `experiment` is used where the line names no flag. Both spellings of the SDKs are read
    (`featureFlag` and `flagKey`, `bandit` and `banditKey`, `subject` and `subjectKey`).
    """
    where = f"line {number}"
    try:
        found = msgspec.json.decode(line)
        kept = (found.get("metaData") or {}).get("topbill")
        if kept is not None:
            held = msgspec.json.decode(kept, type=_Kept)
            return held.decision, held.events
        action, p = str(found["action"]), float(found["actionProbability"])
        subject = {
            **(found.get("subjectNumericAttributes") or {}),
            **(found.get("subjectCategoricalAttributes") or {}),
        }
        shown = {
            **(found.get("actionNumericAttributes") or {}),
            **(found.get("actionCategoricalAttributes") or {}),
        }
        unit = str(found.get("subject") or found["subjectKey"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadData(
            where, f"got no bandit event ({error}); expected action, actionProbability and subject"
        ) from None
    if not 0.0 < p <= 1.0:
        raise BadData(where, f"got actionProbability {p}; expected one in (0, 1]")
    decision = Decision(
        decision_id=f"{experiment}-{number}",
        experiment=str(found.get("featureFlag") or found.get("flagKey") or experiment),
        revision="",
        variant=str(found.get("bandit") or found.get("banditKey") or "imported"),
        unit=unit,
        context=msgspec.Raw(msgspec.json.encode(subject)),
        actions=msgspec.Raw(msgspec.json.encode([{"id": action, "features": shown}])),
        eligible=(action,),
        slate=(Placement(0, action, p),),
        propensity=p,
        policy=str(found.get("modelVersion") or "imported"),
        reason="policy",
        decided_at=micros(found.get("timestamp"), where),
    )
    return decision, []


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, part in value.items():
        out |= (
            _flat(part, f"{prefix}{name}.") if isinstance(part, Mapping) else {prefix + name: part}
        )
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(flat: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in flat.items() if _is_number(value)}


def _words(flat: Mapping[str, Any]) -> dict[str, str]:
    words = {
        name: value for name, value in flat.items() if value is not None and not _is_number(value)
    }
    return {
        name: v if isinstance(v, str) else msgspec.json.encode(v).decode()
        for name, v in words.items()
    }
