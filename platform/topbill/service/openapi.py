"""The OpenAPI entries of the fast path, generated from the structs that it decodes and encodes."""

from __future__ import annotations

from typing import Any

import msgspec

from topbill.engine import Answer, DecideRequest, OfferedAction
from topbill.service import hot

_TEMPLATE = "#/components/schemas/{name}"
_ROUTES: tuple[tuple[str, str, type, type], ...] = (
    ("/v1/decide", "Decide what one viewer sees", DecideRequest, Answer),
    ("/v1/decide/batch", "Decide for several viewers at once", hot.DecideBatch, hot.DecideBatchAnswer),
    ("/v1/reward", "Tell what came of a decision", hot.RewardRequest, hot.RewardAnswer),
    ("/v1/reward/batch", "Tell what came of several decisions", hot.RewardBatch, hot.RewardBatchAnswer),
)
_REFUSALS = {
    400: "The body is not JSON",
    401: "No valid key",
    404: "No such experiment",
    409: "The id was used before with another request",
    413: "The body is larger than 1 MB",
    422: "The body has the wrong form; `error.path` names the culprit",
    503: "The log can't be written now; nothing was stored",
}


def extend(document: dict[str, Any]) -> dict[str, Any]:
    """Add the fast path's operations and schemas to FastAPI's document."""
    kinds = [kind for route in _ROUTES for kind in route[2:]] + [hot.ProblemAnswer, OfferedAction]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    request = schemas["DecideRequest"]["properties"]
    request["context"] = {"type": "object", "default": {}, "description": "Feature name to value, as the spec declares"}
    request["actions"] = {
        "anyOf": [{"type": "array", "items": {"$ref": _TEMPLATE.format(name="OfferedAction")}}, {"type": "null"}],
        "default": None,
        "description": "Offered in place of the experiment's own actions",
    }
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
    for path, summary, body, answer in _ROUTES:
        document["paths"][path] = {"post": _operation(path, summary, body, answer)}
    return document


def _operation(path: str, summary: str, body: type, answer: type) -> dict[str, Any]:
    refusals = {
        str(status): {"description": text, "content": _content(hot.ProblemAnswer)} for status, text in _REFUSALS.items()
    }
    return {
        "tags": ["decide and reward"],
        "summary": summary,
        "description": body.__doc__,
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "requestBody": {"required": True, "content": _content(body)},
        "responses": {"200": {"description": answer.__doc__, "content": _content(answer)}, **refusals},
    }


def _content(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=kind.__name__)}}}
