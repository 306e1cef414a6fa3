"""The OpenAPI entries of Personalizer's API, generated from its bodies."""

from __future__ import annotations

from typing import Any

import msgspec

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
_ROUTES: tuple[tuple[str, str, type | None, type | None], ...] = tuple(
    (base + path, summary, body, answer)
    for base, path, summary, body, answer in (
        *(
            (base, path, summary, body, answer)
            for base in (_V1, _PREVIEW)
            for path, summary, body, answer in (
                ("/rank", "Rank actions", bodies.RankRequest, bodies.RankResponse),
                ("/events/{eventId}/reward", "Reward an event", bodies.RewardRequest, None),
                ("/events/{eventId}/activate", "Activate a deferred event", None, None),
            )
        ),
        (
            _SLOTS,
            "/rank",
            "Place actions in slots",
            bodies.MultiSlotRankRequest,
            bodies.MultiSlotRankResponse,
        ),
        (_SLOTS, "/events/{eventId}/reward", "Reward slots", bodies.MultiSlotRewardRequest, None),
        (_SLOTS, "/events/{eventId}/activate", "Activate a deferred event with slots", None, None),
    )
)
_REFUSALS = {
    400: "The request has the wrong form, `error.target` names the culprit; or it is larger than 1 MB",
    404: "No such event, or no experiment that says `personalizer: true`",
    503: "The log can't be written now; nothing was stored",
}
_UNAUTHORIZED = {"application/json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}


def extend(document: dict[str, Any]) -> dict[str, Any]:
    """Add Personalizer's operations and schemas to the document."""
    kinds = [kind for route in _ROUTES for kind in route[2:] if kind is not None] + [
        bodies.ErrorResponse
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    document["components"]["schemas"].update(
        {f"Personalizer{name}": schema for name, schema in schemas.items()}
    )
    for path, summary, body, answer in _ROUTES:
        document["paths"][path] = {"post": _operation(path, summary, body, answer)}
    _open_objects(document)
    return document


def _open_objects(schema: Any) -> None:
    """Say of every object without declared keys that it may have any: generators of typed clients
    ask for it.
    """
    if isinstance(schema, dict):
        if schema.get("type") == "object" and not schema.keys() & {
            "properties",
            "additionalProperties",
        }:
            schema["additionalProperties"] = True
        for part in schema.values():
            _open_objects(part)
    elif isinstance(schema, list):
        for part in schema:
            _open_objects(part)


def _operation(path: str, summary: str, body: type | None, answer: type | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "tags": ["Azure Personalizer"],
        "summary": summary,
        "operationId": path.strip("/")
        .replace("/events/{eventId}", "")
        .replace("/", "_")
        .replace(".", "_"),
        "responses": {
            "204" if answer is None else "201": {"description": "Stored"}
            | ({} if answer is None else {"content": _content(answer)}),
            "401": {"description": "No valid key", "content": _UNAUTHORIZED},
            **{
                str(s): {"description": text, "content": _content(bodies.ErrorResponse)}
                for s, text in _REFUSALS.items()
            },
        },
    }
    if body is not None:
        entry["requestBody"] = {"required": True, "content": _content(body)}
    if "{eventId}" in path:
        entry["parameters"] = [_EVENT]
    return entry


def _content(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=kind.__name__)}}}
