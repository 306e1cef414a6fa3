"""The JSON Schema of experiment files, for completion in editors; it reads the same tables as the
loader.
"""

from __future__ import annotations

from typing import Any

from topbill.spec.format import EXPERIMENT


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of an experiment file (its YAML read as JSON)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Topbill experiment",
        "description": "One experiment on a streaming homepage: a surface, its actions, its variants, its metrics.",
        **EXPERIMENT.schema(),
    }
