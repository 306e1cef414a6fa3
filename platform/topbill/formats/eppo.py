"""Bandit logs as Eppo's SDKs write them, one JSON object a line, to and from decisions of one
placement.

An event names flag, bandit, subject, action, the action's probability, and the attributes of
subject and action, numeric and categorical apart. It holds neither the actions that were not chosen
nor rewards: our own lines keep the decision and its events whole under `metaData.topbill`, lines of
other makers become decisions without rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from topbill.domain.chance import at_most_one
from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.rows import (
    ActionFeatures,
    Row,
    WholeRow,
    microseconds,
    name_of,
    only_placement,
    own_features,
    text_of,
    timestamp,
)


def dump_line(decision: Decision, events: Iterable[RewardEvent], features: ActionFeatures) -> bytes:
    """One decision as a line without its end. Raises BadData for a slate of several."""
    placed = only_placement(decision, "a bandit event holds one action")
    own = own_features(decision)
    action = _flat(own.get(placed.action, features.get(placed.action, {})))
    subject = _flat(msgspec.json.decode(decision.context))
    # As text: what stands in an event's metaData must be flat.
    whole_row = msgspec.json.encode(WholeRow(decision, list(events))).decode()
    line = {
        "timestamp": timestamp(decision.decided_at),
        "featureFlag": decision.experiment,
        "bandit": decision.variant or decision.experiment,
        "subject": decision.unit,
        "action": placed.action,
        "actionProbability": placed.propensity,
        "optimalityGap": None,
        "modelVersion": f"{decision.policy} v{decision.policy_version}",
        "subjectNumericAttributes": _numbers(subject),
        "subjectCategoricalAttributes": _texts(subject),
        "actionNumericAttributes": _numbers(action),
        "actionCategoricalAttributes": _texts(action),
        "metaData": {"topbill": whole_row},
    }
    return msgspec.json.encode(line)


def parse_line(line: bytes, *, experiment: str = "imported", number: int = 0) -> Row:
    """The decision and events of a line.

    Both spellings of the SDKs are read (`featureFlag` and `flagKey`, `bandit` and `banditKey`,
    `subject` and `subjectKey`).

    Args:
        line: JSON.
        experiment: The key of a line that names no flag.
        number: The line's, for errors.

    Raises:
        BadData: The line is no bandit event.
    """
    where = f"line {number}"
    try:
        event = msgspec.json.decode(line)
        own = (event.get("metaData") or {}).get("topbill")
        if own is not None:
            whole_row = msgspec.json.decode(own, type=WholeRow)
            return whole_row.decision, whole_row.events
        # Names and numbers of other makers may be of another type: they are taken as texts.
        action = _required(event, "action")
        probability = at_most_one(float(event["actionProbability"]))
        context = _attributes(event, "subject")
        features = _attributes(event, "action")
        unit = _required(event, "subject", "subjectKey")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadData(
            where, f"got no bandit event ({error}); expected action, actionProbability and subject"
        ) from None
    if not 0.0 < probability <= 1.0:
        raise BadData(where, f"got actionProbability {probability}; expected one in (0, 1]")
    decision = Decision(
        decision_id=f"{experiment}-{number}",
        experiment=name_of(event.get("featureFlag"), event.get("flagKey"), default=experiment),
        revision="",
        variant=name_of(event.get("bandit"), event.get("banditKey"), default="imported"),
        unit=unit,
        context=msgspec.Raw(msgspec.json.encode(context)),
        actions=msgspec.Raw(msgspec.json.encode([{"id": action, "features": features}])),
        eligible=(action,),
        slate=(Placement(0, action, probability),),
        propensity=probability,
        policy=name_of(event.get("modelVersion"), default="imported"),
        reason="policy",
        decided_at=microseconds(event.get("timestamp"), where),
    )
    return decision, []


def _required(event: Mapping[str, Any], *keys: str) -> str:
    """The id under the first of these keys that has one. Raises KeyError where none has."""
    for key in keys:
        if event.get(key) is not None:
            return text_of(event[key])
    raise KeyError(keys[-1])


def _attributes(event: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """The attributes of the subject or the action, of both kinds."""
    numbers = event.get(f"{whose}NumericAttributes") or {}
    texts = event.get(f"{whose}CategoricalAttributes") or {}
    return {**numbers, **texts}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A mapping without mappings in it: what was nested is called `outer.inner`."""
    attributes: dict[str, Any] = {}
    for name, part in value.items():
        # Lists stay: they become text, since Eppo has no place for them.
        if isinstance(part, Mapping):
            attributes |= _flat(part, f"{prefix}{name}.")
        else:
            attributes[prefix + name] = part
    return attributes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(attributes: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in attributes.items() if _is_number(value)}


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """What is no number, as text: Eppo's categorical attributes are texts."""
    texts: dict[str, str] = {}
    for name, value in attributes.items():
        if value is None or _is_number(value):
            continue
        texts[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return texts
