"""A Flask service that asks Topbill which picture to show.

TOPBILL=http://127.0.0.1:8600 flask --app flask_app run
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request

from topbill_client import Client

EDITORS_ORDER = ["close-up", "chase"]
app = Flask(__name__)
topbill = Client(
    os.environ.get("TOPBILL", "http://127.0.0.1:8600")
)  # one for all threads of the process


@app.get("/artwork/<profile_id>")
def artwork(profile_id: str) -> dict[str, Any]:
    """The picture for this profile; the editors' own if Topbill has nothing to say in time."""
    device = request.args.get("device", "tv")
    choice = topbill.decide(
        "home-artwork", unit=profile_id, context={"device": device}, default=EDITORS_ORDER, slots=1
    )
    return {"picture": choice.action, "decision": choice.decision_id, "fallback": choice.fallback}


@app.post("/played/<decision_id>")
def played(decision_id: str) -> dict[str, str]:
    """The viewer pressed play."""
    return {"event": topbill.reward(decision_id, "play")}
