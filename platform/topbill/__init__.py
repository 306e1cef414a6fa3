"""Topbill decides what a viewer sees on a streaming homepage, and proves what it was worth.

What a notebook or a service needs stands here, and is loaded when it is first asked for:

- `Client`, `AsyncClient`: ask a running service for decisions and send it rewards.
- `load_experiments`, `simulate`: read experiment files, and try one on simulated viewers.
- `report`, `sql`: read the record of a data folder.
- `compare`: an A/B comparison of any table. `estimate`: off-policy estimates from arrays.
- `evaluate`: what another policy would have earned, from the record.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topbill.ab.comparison import compare
    from topbill.library import load_experiments, report, simulate, sql
    from topbill.ope.estimation import estimate
    from topbill.ope.evaluation import evaluate
    from topbill_client import AsyncClient, Client

__version__ = "0.2.0"
__all__ = [
    "AsyncClient",
    "Client",
    "compare",
    "estimate",
    "evaluate",
    "load_experiments",
    "report",
    "simulate",
    "sql",
]

# A service that only decides must not pay for pandas, and a client not for the statistics.
_MODULE_OF = {
    "AsyncClient": "topbill_client",
    "Client": "topbill_client",
    "compare": "topbill.ab",
    "estimate": "topbill.ope",
    "evaluate": "topbill.ope",
    "load_experiments": "topbill.library",
    "report": "topbill.library",
    "simulate": "topbill.library",
    "sql": "topbill.library",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
