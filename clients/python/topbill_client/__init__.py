"""The client for services: decisions within a deadline, rewards in the background, and a default
order when all fails.

    from topbill_client import Client

    topbill = Client("http://127.0.0.1:8600")
    choice = topbill.decide(
        "home-artwork", unit="profile-7", context={"device": "tv"}, default=["close-up"]
    )
    show(choice.action)
    topbill.reward(choice, "play")

`AsyncClient` is the same for asyncio; `topbill_client.testing` has a service in process for tests
of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topbill_client.choice import Choice, Item
    from topbill_client.clients import AsyncClient, Client
    from topbill_client.errors import BadRequest, Conflict, NotFound, TopbillError, Unavailable
    from topbill_client.page import Merged, Page, Row, Tile
    from topbill_client.sender import Delivered

__version__ = "0.2.0"
__all__ = [
    "AsyncClient",
    "BadRequest",
    "Choice",
    "Client",
    "Conflict",
    "Delivered",
    "Item",
    "Merged",
    "NotFound",
    "Page",
    "Row",
    "Tile",
    "TopbillError",
    "Unavailable",
]

# The server shares this package's errors and has no use for its HTTP library, which takes a tenth
# of a second to import: so each name is loaded when it is first asked for.
_MODULE_OF = {
    "AsyncClient": "clients",
    "BadRequest": "errors",
    "Choice": "choice",
    "Client": "clients",
    "Conflict": "errors",
    "Delivered": "sender",
    "Item": "choice",
    "Merged": "page",
    "NotFound": "errors",
    "Page": "page",
    "Row": "page",
    "Tile": "page",
    "TopbillError": "errors",
    "Unavailable": "errors",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
