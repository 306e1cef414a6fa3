"""A developer's signed header shows a variant; nobody else's does, and nothing comes of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill.domain.errors import BadRequest, TopbillError
from topbill.engine import CompiledExperiment, teach
from topbill.log import Log
from topbill.service.app import create_app
from topbill.service.override_header import HEADER, read_secret, signed
from topbill.service.settings import Settings
from topbill.spec import Experiment

from ...conftest import ARTWORK, write
from ...local_client import LocalClient
from ...processes import topbill

SECRET = b"a secret of the service, for a test"
LATER = int(time.time()) + 3_600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The small experiment, with time for a busy machine: nothing falls back."""
    return write(tmp_path / "experiments", ARTWORK + "budget_ms: 9000\n")


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Settings:
    file = tmp_path / "override.secret"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o600)
    return Settings(folder, tmp_path / "data", override_file=file)


def decide(client: TestClient, header: str | None = None, **body: Any) -> Any:
    headers = {} if header is None else {HEADER: header}
    return client.post("/v1/decide", json={"experiment": "art", **body}, headers=headers)


def test_each_variant_is_seen_by_whoever_has_its_header(
    client: TestClient, art: Experiment, log: Log
) -> None:
    for variant in art.variants:
        header = signed({"other": "x", "art": variant.name}, LATER, SECRET)
        refused = decide(client, header, unit="u1")
        assert refused.status_code == 422
        assert "got other; expected one of art" in refused.json()["error"]["message"]
        header = signed({"art": variant.name}, LATER, SECRET)
        answer = decide(client, header, unit="u1").json()
        assert (answer["variant"], answer["reason"]) == (None, "override")
        stored = log.decision(answer["decision_id"])
        assert stored is not None
        assert (stored.policy, stored.variant) == (variant.policy, None)
        # Nobody learns from it.
        assert teach(CompiledExperiment(art), [(stored, [])]) == 0


def test_the_next_request_is_as_any_other(client: TestClient, art: Experiment) -> None:
    before = decide(client, unit="u1").json()
    decide(client, signed({"art": art.variants[0].name}, LATER, SECRET), unit="u1")
    after = decide(client, unit="u1").json()
    assert (after["variant"], after["reason"]) == (before["variant"], "policy")


def test_a_batch_is_of_one_header(client: TestClient, art: Experiment) -> None:
    header = signed({"art": art.variants[0].name}, LATER, SECRET)
    body = {"decisions": [{"experiment": "art", "unit": f"u{n}"} for n in range(5)]}
    answers = client.post("/v1/decide/batch", json=body, headers={HEADER: header}).json()
    assert {each["reason"] for each in answers["decisions"]} == {"override"}


def error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_what_is_not_signed_by_us_or_too_old_is_refused_by_name(
    client: TestClient, art: Experiment
) -> None:
    name = art.variants[0].name
    foreign = signed({"art": name}, LATER, b"the secret of somebody else")
    assert error(decide(client, foreign)) == (403, "override_signature")
    good = signed({"art": name}, LATER, SECRET)
    later = good.replace(f"exp={LATER}", f"exp={LATER + 1}")
    assert error(decide(client, later)) == (403, "override_signature")
    old = decide(client, signed({"art": name}, 1_790_000_000, SECRET))
    assert error(old) == (403, "override_expired")
    assert "expired at 2026-09-21" in old.json()["error"]["message"]
    unknown = decide(client, signed({"art": "nobody"}, LATER, SECRET))
    assert error(unknown) == (422, "invalid")
    assert "got art=nobody; expected one of" in unknown.json()["error"]["message"]


def test_a_header_that_is_none_is_refused(client: TestClient, art: Experiment) -> None:
    good = signed({"art": art.variants[0].name}, LATER, SECRET)
    for text in ("", "x", good[:-1], good + "0", good.upper(), f"exp={LATER};sig={'0' * 64}"):
        assert error(decide(client, text)) == (422, "invalid"), text
    twice = [(HEADER, good), (HEADER, good)]
    answer = client.post("/v1/decide", json={"experiment": "art"}, headers=twice)
    assert error(answer) == (422, "invalid")


def test_without_a_secret_none_is_taken(folder: Path, tmp_path: Path, art: Experiment) -> None:
    app = create_app(Settings(folder, tmp_path / "data"))
    with LocalClient(app) as client:
        header = signed({"art": art.variants[0].name}, LATER, SECRET)
        assert error(decide(client, header)) == (403, "override_off")
        assert decide(client).status_code == 200


latin = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=80)


@given(latin, latin)
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_is_a_failure(client: TestClient, before: str, after: str) -> None:
    good = signed({"art": "thompson"}, LATER, SECRET)
    for text in (before, f"{before}{good}{after}"):
        headers = [(HEADER.encode(), text.encode("latin-1"))]
        answer = client.post("/v1/decide", json={"experiment": "art"}, headers=headers)
        assert answer.status_code in (200, 403, 422)
        if answer.status_code == 200:
            assert text.strip() == good


def test_only_names_are_signed() -> None:
    for pairs in ({}, {"art": "a;exp=1"}, {"a=b": "c"}, {"art": ""}, dict.fromkeys("xyz", " ")):
        with pytest.raises(BadRequest):
            signed(pairs, LATER, SECRET)
    many = {f"e{n}": "a" for n in range(21)}
    with pytest.raises(BadRequest):
        signed(many, LATER, SECRET)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620])
def test_a_secret_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    file.chmod(mode)
    with pytest.raises(TopbillError, match=r"may read or change the secret; .*chmod 600"):
        read_secret(file)


def test_a_short_or_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopbillError, match="cannot read the secret: No such file"):
        read_secret(tmp_path / "away")
    file = tmp_path / "secret"
    file.write_text("short\n")
    file.chmod(0o600)
    with pytest.raises(TopbillError, match="of 5 bytes; expected at least 16"):
        read_secret(file)


def command(folder: Path, secret: Path, *line: str) -> subprocess.CompletedProcess[str]:
    options = ["--experiments", folder, "--override-secret", secret]
    return topbill("override", *line, *options, COLUMNS="60")


def test_what_the_page_tells_people_to_run_works(folder: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "running.md").read_text()
    (text,) = [block for block in re.findall(r"```sh\n(.*?)```", page, re.S) if "override" in block]
    # The service is this process.
    lines = [line for line in text.splitlines() if not line.startswith("topbill serve")]
    lines[-1] = lines[-1].replace("home-artwork", "art") + f" --experiments {folder}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    printed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    app = create_app(
        Settings(folder, tmp_path / "data", override_file=tmp_path / "override.secret")
    )
    with LocalClient(app) as client:
        assert decide(client, printed.strip().partition(": ")[2]).json()["reason"] == "override"
        codes = set(re.findall(r"403 `(override_\w+)`", page))
        assert codes == {"override_signature", "override_expired", "override_off"}


def test_the_command_prints_a_header_that_works(
    client: TestClient, settings: Settings, folder: Path
) -> None:
    assert settings.override_file is not None
    printed = command(folder, settings.override_file, "art", "thompson", "--for", "10m")
    name, _, value = printed.stdout.strip().partition(": ")
    assert name == HEADER, printed.stderr
    assert decide(client, value).json()["reason"] == "override"
    wrong = command(folder, settings.override_file, "art", "tompson")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "did you mean thompson" in wrong.stderr
