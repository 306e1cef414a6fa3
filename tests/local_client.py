"""A caller on this machine: the service answers to the names of loopback alone, and wants JSON."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient


class LocalClient(TestClient):
    """starlette's client, calling as one on loopback does."""

    def __init__(self, app: Any, **options: Any) -> None:
        headers = {"content-type": "application/json"}
        super().__init__(app, base_url="http://127.0.0.1:8600", headers=headers, **options)
