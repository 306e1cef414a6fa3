"""The OpenAPI entries of Personalizer's API, generated from its bodies."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from topbill.service.openapi import PROBLEM
from topbill.service.personalizer import bodies

_TEMPLATE = "#/components/schemas/Personalizer{name}"
_EVENT = {
    "name": "eventId",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[^\x00-\x1f]+$"},
}
_V1, _PREVIEW = "/personalizer/v1.0", "/personalizer/v1.1-preview.3"
_SLOTS = f"{_PREVIEW}/multislot"


class _Route(NamedTuple):
    path: str
    summary: str
    body: type | None
    answer: type | None


def _single_slot(base: str) -> list[_Route]:
    return [
        _Route(f"{base}/rank", "Rank actions", bodies.RankRequest, bodies.RankResponse),
        _Route(f"{base}/events/{{eventId}}/reward", "Reward an event", bodies.RewardRequest, None),
        _Route(f"{base}/events/{{eventId}}/activate", "Activate a deferred event", None, None),
    ]


_ROUTES = [
    *_single_slot(_V1),
    *_single_slot(_PREVIEW),
    _Route(
        f"{_SLOTS}/rank",
        "Place actions in slots",
        bodies.MultiSlotRankRequest,
        bodies.MultiSlotRankResponse,
    ),
    _Route(
        f"{_SLOTS}/events/{{eventId}}/reward",
        "Reward slots",
        bodies.MultiSlotRewardRequest,
        None,
    ),
    _Route(
        f"{_SLOTS}/events/{{eventId}}/activate",
        "Activate a deferred event with slots",
        None,
        None,
    ),
]
_REFUSALS = {
    400: "The request has the wrong form, `error.target` names the culprit; "
    "or it is larger than 1 MB",
    404: "No such event, or no experiment that says `personalizer: true`",
    503: "The log can't be written now; nothing was stored",
}


def extend(document: dict[str, Any]) -> dict[str, Any]:
    """Add Personalizer's operations and schemas to the document."""
    kinds: list[type] = [bodies.ErrorResponse]
    for route in _ROUTES:
        kinds += [kind for kind in (route.body, route.answer) if kind is not None]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    # Under a name of their own: the fast path has a RewardRequest too, and another one.
    for name, schema in schemas.items():
        document["components"]["schemas"][f"Personalizer{name}"] = schema
    for route in _ROUTES:
        document["paths"][route.path] = {"post": _operation(route)}
    _open_objects(document)
    return document


def _open_objects(schema: Any) -> None:
    """Say of every object without declared keys that it may have any: generators of typed clients
    ask for it.
    """
    if isinstance(schema, dict):
        declared = schema.keys() & {"properties", "additionalProperties"}
        if schema.get("type") == "object" and not declared:
            schema["additionalProperties"] = True
        for part in schema.values():
            _open_objects(part)
    elif isinstance(schema, list):
        for part in schema:
            _open_objects(part)


def _operation(route: _Route) -> dict[str, Any]:
    operation_id = route.path.strip("/").replace("/events/{eventId}", "")
    responses: dict[str, Any] = {
        "401": {"description": "No valid key", "content": PROBLEM},
    }
    if route.answer is None:
        responses["204"] = {"description": "Stored"}
    else:
        responses["201"] = {"description": "Stored", "content": _content(route.answer)}
    for status, text in _REFUSALS.items():
        responses[str(status)] = {"description": text, "content": _content(bodies.ErrorResponse)}
    entry: dict[str, Any] = {
        "tags": ["Azure Personalizer"],
        "summary": route.summary,
        "operationId": operation_id.replace("/", "_").replace(".", "_"),
        "responses": responses,
    }
    if route.body is not None:
        entry["requestBody"] = {"required": True, "content": _content(route.body)}
    if "{eventId}" in route.path:
        entry["parameters"] = [_EVENT]
    return entry


def _content(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=kind.__name__)}}}
