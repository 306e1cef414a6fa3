"""Topbill decides what a viewer sees on a streaming homepage, and proves what it was worth.

What a notebook or a service needs stands here, and is loaded when it is first asked for:

- `Client`, `AsyncClient`: ask a running service for decisions and send it rewards.
- `load_experiments`, `simulate`: read experiment files, and try one on simulated viewers.
- `report`, `sql`: read the record of a data folder.
- `compare`: an A/B comparison of any table. `estimate`: off-policy estimates from arrays.
- `evaluate`: what another policy would have earned, from the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from topbill import late

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
__getattr__ = late.names(
    __name__,
    {
        "topbill_client": ("AsyncClient", "Client"),
        "topbill.ab": ("compare",),
        "topbill.ope": ("estimate", "evaluate"),
        "topbill.library": ("load_experiments", "report", "simulate", "sql"),
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
