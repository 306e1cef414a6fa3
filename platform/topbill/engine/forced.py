"""Which variants the request that is being answered is to see, whatever those of its unit are."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

NONE_FORCED: Mapping[str, str] = MappingProxyType({})
FORCED_VARIANTS: ContextVar[Mapping[str, str]] = ContextVar("forced_variants", default=NONE_FORCED)
"""By experiment; set for each request by whoever answers it, as it was allowed to (a signed
header)."""
