"""The OpenAPI entries of the fast path, generated from the structs that it decodes and encodes."""

from __future__ import annotations

from typing import Any

import msgspec

from topbill.domain.profile import ProfileChange
from topbill.engine import Answer, DecideRequest, OfferedAction
from topbill.pages import PageAnswer, PageRequest
from topbill.service import auth, bodies
from topbill.service.intake import IntakeAnswer, SegmentBody, SnowplowBody
from topbill.service.profiles import MergeAnswer, MergeRequest, ProfileAnswer

_PROFILE = "/v1/profiles/{profile}"
_MERGE = "/v1/profiles/{profile}/merge"
_TEMPLATE = "#/components/schemas/{name}"
PROBLEM = {"application/json": {"schema": {"$ref": _TEMPLATE.format(name="ProblemAnswer")}}}
"""The content of an answer that says what is wrong."""
_ROUTES: tuple[tuple[str, str, type, type], ...] = (
    ("/v1/decide", "Decide what one viewer sees", DecideRequest, Answer),
    (
        "/v1/decide/batch",
        "Decide for several viewers at once",
        bodies.DecideBatch,
        bodies.DecideBatchAnswer,
    ),
    ("/v1/page", "A whole page: rows, titles, artwork", PageRequest, PageAnswer),
    ("/v1/reward", "Tell what came of a decision", bodies.RewardRequest, bodies.RewardAnswer),
    (
        "/v1/reward/batch",
        "Tell what came of several decisions",
        bodies.RewardBatch,
        bodies.RewardBatchAnswer,
    ),
    ("/v1/event", "Tell what a unit did", bodies.EventRequest, bodies.EventAnswer),
    (
        "/v1/event/batch",
        "Tell what several units did",
        bodies.EventBatch,
        bodies.EventBatchAnswer,
    ),
    ("/v1/intake/segment", "Take Segment's track calls", SegmentBody, IntakeAnswer),
    ("/v1/intake/snowplow", "Take a Snowplow tracker's events", SnowplowBody, IntakeAnswer),
)
_REFUSALS = {
    400: "The body is not JSON",
    401: "No valid key, or one that has expired",
    403: "The key's scopes do not cover this; or a web page sent it to a service without keys",
    404: "No such experiment",
    408: "The head or the body took too long to come",
    409: "The id was used before with another request",
    413: "The body is larger than 1 MB",
    415: "The body's content-type is not application/json",
    421: "Called by a name that is not the service's (`--host-names`)",
    422: "The body has the wrong form; `error.path` names the culprit",
    429: "The key is over its rate; `Retry-After` says when to come again",
    431: "The address and the headers are too large",
    503: "The log can't be written now; nothing was stored",
}


def extend(document: dict[str, Any]) -> dict[str, Any]:
    """Add the fast path's operations and schemas to FastAPI's document."""
    kinds: list[type] = [bodies.ProblemAnswer, OfferedAction]
    kinds += [ProfileChange, ProfileAnswer, MergeRequest, MergeAnswer]
    for _, _, body, answer in _ROUTES:
        kinds += [body, answer]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    # To msgspec both are text that is decoded later; what callers may put there is said by hand.
    request = schemas["DecideRequest"]["properties"]
    request["context"] = {
        "type": "object",
        "default": {},
        "description": "Feature name to value, as the spec declares",
    }
    request["actions"] = {
        "anyOf": [
            {"type": "array", "items": {"$ref": _TEMPLATE.format(name="OfferedAction")}},
            {"type": "null"},
        ],
        "default": None,
        "description": "Offered in place of the experiment's own actions",
    }
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"] |= _plain_refusals(path)
    _describe_profiles(document["paths"][_PROFILE])
    _describe_merge(document["paths"][_MERGE]["post"])
    for path, summary, body, answer in _ROUTES:
        document["paths"][path] = {"post": _operation(path, summary, body, answer)}
    return document


def _describe_profiles(operations: dict[str, Any]) -> None:
    """What FastAPI can't know of routes that decode and encode by themselves."""
    answer = {"description": ProfileAnswer.__doc__, "content": _content(ProfileAnswer)}
    operations["get"]["responses"]["200"] = operations["put"]["responses"]["200"] = answer
    change = operations["put"]
    change["description"] = ProfileChange.__doc__
    change["requestBody"] = {"required": True, "content": _content(ProfileChange)}
    change["responses"] |= _responses({str(code): _REFUSALS[code] for code in (400, 413, 415)})


def _describe_merge(operation: dict[str, Any]) -> None:
    answer = {"description": MergeAnswer.__doc__, "content": _content(MergeAnswer)}
    operation["responses"]["200"] = answer
    operation["description"] = MergeRequest.__doc__
    operation["requestBody"] = {"required": True, "content": _content(MergeRequest)}
    operation["responses"] |= _responses({str(code): _REFUSALS[code] for code in (400, 413, 415)})


def _plain_refusals(path: str) -> dict[str, Any]:
    """What FastAPI's own document lacks: how the routes that only read refuse."""
    if path == "/readyz":
        unready = {
            "schema": {
                "type": "object",
                "properties": {"status": {"type": "string"}, "log": {"type": "string"}},
            }
        }
        return {
            "503": {
                "description": "The log can't be read, or the service is about to stop",
                "content": {"application/json": unready},
            }
        }
    if path in auth.OPEN_PATHS:
        return {}
    refusals = {str(status): _REFUSALS[status] for status in (401, 403, 421, 429)}
    refusals["503"] = "The log can't be read now"
    if "{" in path:
        refusals |= {"404": "Nothing of that name", "422": _REFUSALS[422]}
    return _responses(refusals)


def _operation(path: str, summary: str, body: type, answer: type) -> dict[str, Any]:
    success = {"description": answer.__doc__, "content": _content(answer)}
    refusals = {str(status): text for status, text in _REFUSALS.items()}
    return {
        "tags": ["decide and reward"],
        "summary": summary,
        "description": body.__doc__,
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "requestBody": {"required": True, "content": _content(body)},
        "responses": {"200": success, **_responses(refusals)},
    }


def _responses(refusals: dict[str, str]) -> dict[str, Any]:
    """Each refusal with the one body that all of them have."""
    content = _content(bodies.ProblemAnswer)
    return {status: {"description": text, "content": content} for status, text in refusals.items()}


def _content(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=kind.__name__)}}}
