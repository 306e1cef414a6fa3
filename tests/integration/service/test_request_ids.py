"""An answer, its error and the service's lines about it are found by one id, and nothing that is
secret stands in these lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from topbill.cli.supervise import free_port

HEADER = "x-request-id"
DECIDE = {"experiment": "art", "unit": "viewer-of-whom-nobody-should-know", "context": {}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/decide", DECIDE),
        ("POST", "/v1/decide", {"experiment": "no"}),
        ("GET", "/v1/decide", None),
        ("GET", "/healthz", None),
        ("GET", "/v1/experiments/no", None),
        ("GET", "/nowhere", None),
        ("POST", "/personalizer/v1.0/rank", {}),
    ],
)
def test_every_answer_has_the_callers_id(
    client: TestClient, method: str, path: str, body: Any
) -> None:
    answer = client.request(method, path, json=body, headers={HEADER: "edge-7:a/b=1"})
    assert answer.headers.get_list(HEADER) == ["edge-7:a/b=1"]


@pytest.mark.parametrize("own", ["", "a b", 'a"b', "a\\nb", "ü", "x" * 129, "-", "{a}"])
def test_an_id_that_could_be_taken_for_more_is_replaced(client: TestClient, own: str) -> None:
    answer = client.get("/healthz", headers={HEADER: own.encode()})  # type: ignore[dict-item]
    made = answer.headers[HEADER]
    assert len(made) == 32
    assert int(made, 16)


def test_each_request_without_one_is_given_its_own(client: TestClient) -> None:
    ids = {client.post("/v1/decide", json=DECIDE).headers[HEADER] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize("path", ["/v1/decide", "/v1/experiments/no"])
def test_an_errors_body_has_it(client: TestClient, path: str) -> None:
    method = "POST" if path == "/v1/decide" else "GET"
    answer = client.request(method, path, json={"experiment": "no"}, headers={HEADER: "r-2"})
    assert answer.status_code == 404
    assert answer.json()["error"]["request_id"] == "r-2"


def lines_of(folder: Path, tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    """What a service says of refused requests, each line as JSON."""
    port = free_port("127.0.0.1", 0)
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-a-caller-1234\n")
    keys.chmod(0o600)
    where = ["--experiments", str(folder), "--data", str(tmp_path / "data"), "--port", str(port)]
    command = [sys.executable, "-m", "topbill", "serve", *where, "--keys", str(keys), *more]
    said = tmp_path / "said"
    with said.open("w") as file:
        process = subprocess.Popen([*command, "--log-format", "json"], stderr=file)
    try:
        headers = {"authorization": "Bearer a-key-of-a-caller-1234"}
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, headers=headers, timeout=10) as client:
            for _ in range(15_000):
                try:
                    client.get("/healthz")
                    break
                except httpx.TransportError:
                    time.sleep(0.02)
            wrong = DECIDE | {"context": ["toaster-of-the-viewer"]}
            refused = client.post("/v1/decide", json=wrong, headers={HEADER: "wrong-device"})
            assert refused.status_code == 422
            stranger = {"authorization": "Bearer another-key-123456", HEADER: "stranger"}
            assert client.post("/v1/decide", json=DECIDE, headers=stranger).status_code == 401
            assert client.post("/v1/decide", json=DECIDE).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    text = said.read_text()
    for secret in ("a-key-of-a-caller", "another-key", DECIDE["unit"], "toaster"):
        assert str(secret) not in text
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["one process", "two processes"])
def test_a_refused_request_is_found_by_its_id(
    folder: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    lines = lines_of(folder, tmp_path, *more)
    by_id = {line["request_id"]: line for line in lines if "request_id" in line}
    refused = by_id["wrong-device"]
    assert (refused["level"], refused["path"], refused["status"]) == ("info", "/v1/decide", 422)
    audit = by_id["stranger"]["audit"]
    assert (audit["status"], audit["code"]) == (401, "unauthorized")
