"""The bodies of OFREP, as its published description (0.3.0) has them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FlagReason = Literal["SPLIT", "TARGETING_MATCH", "STATIC", "DISABLED", "UNKNOWN"]
ErrorCode = Literal[
    "PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "FLAG_NOT_FOUND", "GENERAL"
]
Context = dict[str, msgspec.Raw]
"""An evaluation context, its values as the text that came."""
Metadata = dict[str, str | float | int | bool]


class EvaluationRequest(msgspec.Struct, frozen=True):
    """Who asks. `context` has `targetingKey`, the unit, and what else the application knows."""

    context: Context


class FlagEvaluation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A flag's value.

    Attributes:
        key: The experiment.
        reason: Why it has this value.
        value: The payload of the chosen action, or its id where it has none; for more than one
            slot an object with the `slate`.
        variant: The id of the chosen action, or those of the slate, separated by commas.
        metadata: `decisionId`, by which rewards are told, and the `propensity` among others.
    """

    key: str
    reason: FlagReason
    value: Any
    variant: str
    metadata: Metadata


class EvaluationFailure(msgspec.Struct, frozen=True, rename="camel"):
    """Why a flag has no value."""

    key: str
    error_code: ErrorCode
    error_details: str


class BulkEvaluation(msgspec.Struct, frozen=True):
    """All flags for one context: a FlagEvaluation or an EvaluationFailure each, told apart by their
    keys."""

    flags: list[Any]


class BulkEvaluationFailure(msgspec.Struct, frozen=True, rename="camel"):
    """Why no flag has a value."""

    error_code: ErrorCode
    error_details: str


class GeneralErrorResponse(msgspec.Struct, frozen=True, rename="camel"):
    """That the service cannot evaluate now."""

    error_details: str


class SlateItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One position of a slate, the first of which is 0."""

    action: str
    payload: Any = None
