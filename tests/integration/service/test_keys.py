"""Keys: who may do what, how often and until when; taken over when their file changes, never kept
in clear, and each caller named.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from starlette.testclient import TestClient

from topbill.domain.errors import TopbillError
from topbill.service import audit
from topbill.service.admission import Admission, KeyRing, TokenBucket
from topbill.service.app import create_app
from topbill.service.audit import Audit
from topbill.service.keys import SCOPES, Keys, new_key, read_keys
from topbill.service.settings import Settings

from ...local_client import LocalClient

Scope = dict[str, object]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def write(file: Path, *entries: str) -> None:
    file.write_text("".join(entries))
    file.chmod(0o600)


def request(method: str, path: str, key: str | None = None) -> Scope:
    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    return {"type": "http", "method": method, "path": path, "headers": headers, "client": ("c", 1)}


@contextmanager
def service(settings: Settings, keys: Keys) -> Iterator[TestClient]:
    with LocalClient(create_app(replace(settings, keys=keys))) as client:
        yield client


EVERY_ROUTE = {
    "decide": [("POST", "/v1/decide"), ("POST", "/v1/decide/batch"), ("POST", "/v1/page")],
    "reward": [
        ("POST", "/v1/reward"),
        ("POST", "/v1/reward/batch"),
        ("POST", "/v1/event"),
        ("POST", "/v1/event/batch"),
        ("POST", "/personalizer/v1.0/events/e/reward"),
    ],
    "read": [
        ("GET", "/v1/experiments"),
        ("GET", "/v1/decisions/d"),
        ("GET", "/v1/pages/page-p/why"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ],
    "admin": [("POST", "/v1/whatever-comes-later"), ("DELETE", "/v1/experiments")],
}
EVERY_ROUTE["decide"] += [
    ("POST", "/personalizer/v1.0/rank"),
    ("POST", "/personalizer/v1.0/events/e/activate"),
]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_does_what_its_scope_says_and_nothing_else(tmp_path: Path, scope: str) -> None:
    secret, entry = new_key("caller", [scope], None, None)
    write(tmp_path / "keys.yaml", entry)
    admission = Admission(read_keys(tmp_path / "keys.yaml"))
    for needed, routes in EVERY_ROUTE.items():
        for method, path in routes:
            refusal = admission.refusal(request(method, path, secret))
            if scope in (needed, "admin"):
                assert refusal is None, (method, path)
            else:
                assert refusal is not None
                assert (refusal.status, refusal.code) == (403, "forbidden")
                assert f"this needs {needed}" in refusal.message


def test_who_is_unknown_expired_or_without_the_scope_is_told_apart(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "keys.yaml"
    shop, entry = new_key("shop", ["decide"], None, None)
    old, past = new_key("old", ["admin"], "2999-01-01", None)
    write(file, entry, past.replace("2999", "2001"))
    with service(settings, read_keys(file)) as client:

        def call(key: str) -> tuple[int, str]:
            headers = {"authorization": f"Bearer {key}"}
            answer = client.get("/v1/experiments", headers=headers)
            return answer.status_code, answer.json()["error"]["code"]

        assert call("nobody") == (401, "unauthorized")
        assert call(old) == (401, "key_expired")
        assert call(shop) == (403, "forbidden")
        body = {"experiment": "art"}
        assert client.post("/v1/decide", json=body, headers={"x-api-key": shop}).is_success


def test_a_key_works_to_the_end_of_its_day() -> None:
    clock = Clock()
    secret, entry = new_key("caller", ["read"], "2027-06-30", None)
    (key,) = read_text(entry).entries
    admission = Admission(Keys((key,)), clock=clock)
    last = 1_814_399_999.0  # 2027-06-30T23:59:59Z
    for now, status in ((last, None), (last + 1, 401)):
        clock.now = now
        refusal = admission.refusal(request("GET", "/v1/experiments", secret))
        assert (refusal and refusal.status) == status


def read_text(text: str) -> Keys:
    with TemporaryDirectory() as folder:
        write(Path(folder) / "keys.yaml", text)
        return read_keys(Path(folder) / "keys.yaml")


def test_a_changed_file_is_taken_over_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys.yaml", Clock()
    first, one = new_key("first", ["read"], None, None)
    second, two = new_key("second", ["read"], None, None)
    write(file, one)
    ring = KeyRing(read_keys(file), clock)

    def names() -> list[str]:
        clock.now += 2.0
        keys = [ring.find([key.encode()]) for key in (first, second)]
        return [key.name for key in keys if key is not None]

    assert names() == ["first"]
    write(file, one, two)
    assert names() == ["first", "second"]
    write(file, two)
    assert names() == ["second"]
    for broken in ("- name: [", "- name: x\n", "", "- nam: y\n"):
        write(file, broken)
        assert names() == ["second"]
    file.unlink()
    assert names() == ["second"]
    write(file, one)
    file.chmod(0o644)
    assert names() == ["second"]
    assert "0644" in caplog.text
    file.chmod(0o600)
    assert names() == ["first"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o602, 0o777])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys.yaml"
    for text in (new_key("a", ["read"], None, None)[1], "a-key-of-some-length\n"):
        write(file, text)
        file.chmod(mode)
        with pytest.raises(TopbillError, match=f"{mode:04o}.*chmod 600"):
            read_keys(file)
        file.chmod(0o640)
        assert len(read_keys(file).entries) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {name: a, sha256: 12, scopes: [read]}", "sha256"),
        ("- {name: a, sha256: HASH}", "scopes"),
        ("- {name: a, sha256: HASH, scopes: []}", "scopes"),
        ("- {name: a, sha256: HASH, scopes: [write]}", "decide, reward, read, admin"),
        ("- {name: a, sha256: HASH, scopes: [read], expires: soon}", "2027-06-30"),
        ("- {name: a, sha256: HASH, scopes: [read], rate: 5}", "1000/s"),
        ("- {name: a, sha256: HASH, scopes: [read], key: x}", "unknown key"),
        ("- {name: a, sha256: HASH, scopes: [read]}\n" * 2, "another one for each key"),
        ("name: a\nsha256: HASH\n", "space in it"),
        ("# nothing\n", "no key"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, told: str) -> None:
    with pytest.raises(TopbillError, match=told):
        read_text(text.replace("HASH", "ab" * 32))


def test_the_old_form_is_a_key_for_everything() -> None:
    plain = read_text("a-key-of-some-length\n\n# noted\nanother-key-of-length\n")
    assert [key.name for key in plain.entries] == ["key-1", "key-2"]
    assert all(key.may(scope) for key in plain.entries for scope in SCOPES)


def test_no_key_is_kept_in_clear(settings: Settings, tmp_path: Path) -> None:
    secret, entry = new_key("caller", ["decide"], None, None)
    assert secret not in entry
    of_file = read_text(entry)
    for keys in (of_file, Keys.plain([secret])):
        admission = Admission(keys)
        assert admission.refusal(request("POST", "/v1/decide", secret)) is None
        variables = replace(settings, keys=keys).to_environment()
        for text in (repr(keys), repr(vars(admission)), json.dumps(variables)):
            assert secret not in text


def test_other_processes_get_the_same_settings(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.yaml"
    write(file, new_key("caller", ["decide"], "2999-01-01", "5/m")[1])
    for given in (
        settings,
        replace(settings, keys=Keys.plain(["a-key-of-some-length"])),
        replace(
            settings, keys=read_keys(file), host_names=("a", "b.c"), audit=tmp_path / "audit.jsonl"
        ),
    ):
        for name, value in given.to_environment().items():
            monkeypatch.setenv(name, value)
        assert Settings.from_environment() == given


def test_a_bucket_lets_its_rate_through_whatever_the_times() -> None:
    bucket = TokenBucket(10.0, 0.0)
    let_through = sum(bucket.wait(step / 1000) == 0.0 for step in range(10_000))
    assert 100 <= let_through <= 110  # ten seconds, and one second's worth at once
    slow = TokenBucket(1 / 60, 0.0)
    assert slow.wait(0.0) == 0.0
    assert 29 < slow.wait(30.0) <= 31


def test_a_key_over_its_rate_is_told_when_to_come_again(settings: Settings) -> None:
    secret, entry = new_key("batch-job", ["decide"], None, "2/h")
    other, more = new_key("shop", ["decide"], None, None)
    with service(settings, read_text(entry + more)) as client:

        def decide(key: str) -> int:
            body = {"experiment": "art"}
            headers = {"x-api-key": key}
            answer = client.post("/v1/decide", json=body, headers=headers)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) > 60
                assert answer.json()["error"]["code"] == "rate_limited"
                assert "2/h" in answer.json()["error"]["message"]
            return answer.status_code

        assert [decide(secret) for _ in range(3)] == [200, 429, 429]
        assert decide(other) == 200


def test_each_caller_is_counted_by_name(settings: Settings) -> None:
    secret, entry = new_key("counted-caller", ["read"], None, None)
    headers = {"x-api-key": secret}
    with service(settings, read_text(entry)) as client:
        client.get("/v1/experiments", headers=headers)
        client.post("/v1/decide", json={}, headers=headers)
        page = client.get("/metrics", headers=headers).text
    assert 'topbill_requests_total{key="counted-caller"} 3.0' in page


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    records = [record for record in caplog.records if record.name == "topbill.audit"]
    return [json.loads(record.getMessage()) for record in records]


def test_who_is_refused_or_looks_at_a_viewer_is_in_the_audit_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret, entry = new_key("analyst", ["read"], None, None)
    admission = Admission(read_text(entry))
    for method, path, key in (
        ("GET", "/v1/experiments", secret),
        ("GET", "/v1/decisions/shown-1", secret),
        ("POST", "/v1/decide", secret),
        ("GET", "/v1/decisions/shown-1", None),
        ("GET", "/healthz", None),
    ):
        admission.refusal(request(method, path, key))
    lines = [(line["key"], line["path"], line["status"]) for line in audited(caplog)]
    assert lines == [
        ("analyst", "/v1/decisions/shown-1", 200),
        ("analyst", "/v1/decide", 403),
        (None, "/v1/decisions/shown-1", 401),
    ]
    assert secret not in caplog.text


def test_a_flood_of_refused_requests_does_not_fill_the_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = Audit(clock)
    for _ in range(1_000):
        log.refused(request("GET", "/metrics"), None, 401, "unauthorized")
    assert len(audited(caplog)) < 50
    clock.now += 1
    log.refused(request("GET", "/metrics"), None, 401, "unauthorized")
    lines = audited(caplog)
    assert len(lines) - 1 + int(str(lines[-1]["left_out"])) == 1_000


def test_the_audit_log_has_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    audit.write_to(file)
    try:
        Audit().read(request("GET", '/v1/decisions/\n"x'), "analyst")
        (line,) = file.read_text().splitlines()
        assert json.loads(line)["path"] == '/v1/decisions/\n"x'
        assert file.stat().st_mode & 0o077 == 0
    finally:
        audit.write_to(None)
    assert logging.getLogger("topbill.audit").propagate
    with pytest.raises(TopbillError, match="cannot write the audit log"):
        audit.write_to(tmp_path / "nowhere" / "audit.jsonl")
    audit.write_to(None)
