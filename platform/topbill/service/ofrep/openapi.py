"""The OpenAPI entries of OFREP, generated from its bodies."""

from __future__ import annotations

from typing import Any

import msgspec

from topbill.service.ofrep import bodies
from topbill.service.ofrep.app import FLAGS
from topbill.service.openapi import PROBLEM

_TEMPLATE = "#/components/schemas/Ofrep{name}"
_KEY = {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}}
_ETAG = {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}}


def extend(document: dict[str, Any]) -> dict[str, Any]:
    """Add OFREP's operations and schemas to the document."""
    kinds = [
        bodies.EvaluationRequest,
        bodies.FlagEvaluation,
        bodies.EvaluationFailure,
        bodies.BulkEvaluation,
        bodies.BulkEvaluationFailure,
        bodies.GeneralErrorResponse,
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    # To msgspec they are text that is decoded later.
    request = schemas["EvaluationRequest"]["properties"]
    request["context"] = {
        "type": "object",
        "properties": {"targetingKey": {"type": "string", "maxLength": 256}},
        "additionalProperties": True,
    }
    each = [{"$ref": _TEMPLATE.format(name=k)} for k in ("FlagEvaluation", "EvaluationFailure")]
    schemas["BulkEvaluation"]["properties"]["flags"] = {"type": "array", "items": {"anyOf": each}}
    for name, schema in schemas.items():
        document["components"]["schemas"][f"Ofrep{name}"] = schema
    one = _operation("Evaluate a flag", "ofrep_evaluate", "FlagEvaluation", "EvaluationFailure")
    one["parameters"] = [_KEY]
    one["responses"]["404"] = _response("No such experiment", "EvaluationFailure")
    document["paths"][f"{FLAGS}/{{key}}"] = {"post": one}
    every = _operation(
        "Evaluate all flags", "ofrep_evaluate_all", "BulkEvaluation", "BulkEvaluationFailure"
    )
    every["parameters"] = [_ETAG]
    every["responses"]["304"] = {"description": "As it was under the caller's tag"}
    document["paths"][FLAGS] = {"post": every}
    return document


def _operation(summary: str, name: str, answer: str, failure: str) -> dict[str, Any]:
    return {
        "tags": ["OpenFeature"],
        "summary": summary,
        "operationId": name,
        "requestBody": {"required": True, "content": _content("EvaluationRequest")},
        "responses": {
            "200": _response("Evaluated", answer),
            "400": _response("What is sent cannot be read", failure),
            "401": {"description": "No valid key", "content": PROBLEM},
            "403": {"description": "The key does not cover this", "content": PROBLEM},
            "429": {"description": "The key is over its rate", "content": PROBLEM},
            "503": _response("The log can't be written now", "GeneralErrorResponse"),
        },
    }


def _response(text: str, kind: str) -> dict[str, Any]:
    return {"description": text, "content": _content(kind)}


def _content(kind: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=kind)}}}
