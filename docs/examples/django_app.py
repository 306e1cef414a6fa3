"""A Django service that asks Topbill which picture to show, in one file. In a project, the views
stand in `views.py`.

TOPBILL=http://127.0.0.1:8600 python django_app.py runserver --noreload
"""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from topbill_client import Client

EDITORS_ORDER = ["close-up", "chase"]
topbill = Client(
    os.environ.get("TOPBILL", "http://127.0.0.1:8600")
)  # one for all threads of the process


def artwork(request: HttpRequest, profile_id: str) -> JsonResponse:
    """The picture for this profile; the editors' own if Topbill has nothing to say in time."""
    device = request.GET.get("device", "tv")
    choice = topbill.decide(
        "home-artwork", unit=profile_id, context={"device": device}, default=EDITORS_ORDER, slots=1
    )
    return JsonResponse(
        {"picture": choice.action, "decision": choice.decision_id, "fallback": choice.fallback}
    )


@csrf_exempt
@require_POST
def played(_request: HttpRequest, decision_id: str) -> JsonResponse:
    """The viewer pressed play."""
    return JsonResponse({"event": topbill.reward(decision_id, "play")})


urlpatterns = [path("artwork/<profile_id>", artwork), path("played/<decision_id>", played)]

if __name__ == "__main__":
    settings.configure(DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
    execute_from_command_line(sys.argv)
