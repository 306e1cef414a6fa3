"""A service without keys is this machine's alone: no web page in a browser can write to it, or read
from it under a name of its own.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from topbill.service.app import create_app
from topbill.service.browsers import ForeignRequests
from topbill.service.keys import Keys
from topbill.service.settings import Settings

DECIDE = b'{"experiment": "art", "decision_id": "of-a-page"}'
JSON = {"content-type": "application/json"}
# What a page can send without asking first (the Fetch standard's "simple" requests).
SIMPLE = (
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain",
    "text/plain;charset=application/json",
    "",
)


@pytest.fixture
def bare(settings: Settings) -> TestClient:
    """A client that sends no header by itself but Host and Content-Length."""
    return TestClient(create_app(settings), base_url="http://localhost:8600")


@pytest.mark.parametrize("kind", SIMPLE)
def test_a_form_of_a_page_stores_nothing(bare: TestClient, kind: str) -> None:
    with bare as client:
        headers = {"content-type": kind} if kind else {}
        for body in (DECIDE, iter([DECIDE])):  # with its length told, and in chunks
            answer = client.post("/v1/decide", content=body, headers=headers)
            assert answer.status_code == 415
            assert answer.json()["error"]["code"] == "unsupported_media_type"
            assert "application/json" in answer.json()["error"]["message"]
        assert client.get("/v1/decisions/of-a-page").status_code == 404


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://127.0.0.1.evil.example", "null", "file://", "http://", "x"],
)
def test_a_page_from_elsewhere_is_refused_whatever_it_sends(bare: TestClient, origin: str) -> None:
    with bare as client:
        for method, path in (
            ("POST", "/v1/decide"),
            ("POST", "/personalizer/v1.0/events/e/activate"),
            ("GET", "/v1/experiments"),
        ):
            content = DECIDE if path == "/v1/decide" else b""
            headers = JSON | {"origin": origin}
            answer = client.request(method, path, content=content, headers=headers)
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "foreign_origin"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "localhost.evil", "[::2]"],
)
def test_another_name_for_this_machine_is_refused(bare: TestClient, host: str) -> None:
    with bare as client:
        for path in ("/v1/experiments", "/v1/decisions/d", "/metrics", "/docs", "/openapi.json"):
            answer = client.get(path, headers={"host": host})
            assert answer.status_code == 421
            assert "--host-names" in answer.json()["error"]["message"]
        # Whoever watches over it may call it what they like, and learns nothing of viewers.
        assert client.get("/healthz", headers={"host": host}).status_code == 200
        assert client.get("/readyz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        JSON | {"host": "localhost"},
        JSON | {"host": "LOCALHOST.:1"},
        JSON | {"host": "127.0.0.1:8600"},
        JSON | {"host": "127.8.9.1"},
        JSON | {"host": "[::1]:8600"},
        JSON | {"origin": "http://localhost:3000"},
        JSON | {"origin": "https://[::1]"},
        {"content-type": "Application/JSON; charset=utf-8"},
    ],
)
def test_callers_on_this_machine_are_served(bare: TestClient, headers: dict[str, str]) -> None:
    with bare as client:
        assert client.post("/v1/decide", content=DECIDE, headers=headers).status_code == 200


def test_a_request_without_a_body_needs_no_content_type(bare: TestClient) -> None:
    with bare as client:
        answer = client.post("/personalizer/v1.0/events/e/activate")
        assert answer.status_code == 404
        assert client.get("/v1/experiments").status_code == 200


def test_names_of_ones_own_are_served() -> None:
    ours = ForeignRequests(["Shop.Internal", "10.1.2.3"])
    for host, refused in (
        (b"shop.internal:8600", False),
        (b"10.1.2.3", False),
        (b"localhost", False),
        (b"internal", True),
        (b"", True),
    ):
        assert (ours.why({"headers": [(b"host", host)]}) is not None) == refused


def test_where_keys_are_asked_for_they_are_enough(settings: Settings) -> None:
    keys = Keys.plain(["a-key-of-some-length"])
    app = create_app(replace(settings, keys=keys))
    with TestClient(app, base_url="http://topbill.example") as client:
        headers = {"x-api-key": "a-key-of-some-length"}
        assert client.post("/v1/decide", content=DECIDE, headers=headers).status_code == 200
