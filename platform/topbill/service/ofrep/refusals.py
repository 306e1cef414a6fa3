"""Errors in OFREP's words."""

from __future__ import annotations

import msgspec

from topbill.domain.errors import BadRequest, LogError, Malformed, NotFound
from topbill.domain.json_text import at_path
from topbill.service.ofrep.bodies import (
    BulkEvaluationFailure,
    ErrorCode,
    EvaluationFailure,
    GeneralErrorResponse,
)


class NoTargetingKey(BadRequest):
    """A context that does not say who asks, where an experiment needs to know."""


def refusal(error: Exception, key: str | None) -> tuple[int, msgspec.Struct]:
    """Status and body of an error, in OFREP's words. `key` is the flag, None for all."""
    if isinstance(error, msgspec.ValidationError):
        error = at_path(error)
    if isinstance(error, LogError):
        return 503, GeneralErrorResponse(str(error))
    code: ErrorCode | None = None
    if isinstance(error, NotFound):
        code = "FLAG_NOT_FOUND"
    elif isinstance(error, Malformed):
        code = "PARSE_ERROR"
    elif isinstance(error, NoTargetingKey):
        code = "TARGETING_KEY_MISSING"
    elif isinstance(error, BadRequest):
        code = "INVALID_CONTEXT"
    if code is None:
        return 500, GeneralErrorResponse(str(error))
    status = 404 if code == "FLAG_NOT_FOUND" else 400
    if key is None:
        return status, BulkEvaluationFailure(code, str(error))
    return status, EvaluationFailure(key, code, str(error))
