"""The client for services: decisions within a deadline, rewards in the background, and a default
order when all fails.

    from topbill.client import Client

    topbill = Client("http://127.0.0.1:8600") choice = topbill.decide("home-artwork",
    unit="profile-7", context={"device": "tv"}, default=["close-up"]) show(choice.action)
    topbill.reward(choice, "play")

`AsyncClient` is the same for asyncio; `topbill.client.testing` has a service in process for tests
of your own.
"""

from topbill.client.choice import Choice, Item
from topbill.client.clients import AsyncClient, Client
from topbill.client.page import Page, Row, Tile
from topbill.client.sender import Delivered

__all__ = ["AsyncClient", "Choice", "Client", "Delivered", "Item", "Page", "Row", "Tile"]
