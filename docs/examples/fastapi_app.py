"""A FastAPI service that asks Topbill which picture to show.

TOPBILL=http://127.0.0.1:8600 uvicorn fastapi_app:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from topbill_client import AsyncClient

EDITORS_ORDER = ["close-up", "chase"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the process: it keeps its connections, and sends what waits when
    it ends.
    """
    async with AsyncClient(os.environ.get("TOPBILL", "http://127.0.0.1:8600")) as client:
        app.state.topbill = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/artwork/{profile_id}")
async def artwork(profile_id: str, device: str = "tv") -> dict[str, Any]:
    """The picture for this profile; the editors' own if Topbill has nothing to say in time."""
    choice = await app.state.topbill.decide(
        "home-artwork", unit=profile_id, context={"device": device}, default=EDITORS_ORDER, slots=1
    )
    return {"picture": choice.action, "decision": choice.decision_id, "fallback": choice.fallback}


@app.post("/played/{decision_id}")
async def played(decision_id: str) -> dict[str, str]:
    """The viewer pressed play."""
    return {"event": app.state.topbill.reward(decision_id, "play")}
