"""The image and the compose file: without rights, without secrets, and with commands that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import topbill
from topbill.domain.lake_url import parsed
from topbill.domain.log_url import without_secrets

from .programs import DEPLOY, ROOT, assert_command, run

DOCKERFILE = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
LINES = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SHARED = yaml.safe_load((DEPLOY / "shared" / "compose.yaml").read_text())
VERBS = {"service": "serve", "worker": "worker", "dashboard": "dashboard"}
SHARED_VERBS = {
    "serve-1": "serve",
    "serve-2": "serve",
    "worker-1": "worker",
    "worker-2": "worker",
    "dashboard": "dashboard",
    "migrate": "migrate",
}
FILES = {"one machine": COMPOSE, "shared": SHARED}


def instructions(name: str) -> list[str]:
    """What stands behind an instruction of the image that is shipped: the last stage."""
    last = max(number for number, line in enumerate(LINES) if line.startswith("FROM "))
    return [line.split(" ", 1)[1] for line in LINES[last:] if line.startswith(f"{name} ")]


def test_the_image_runs_as_a_user_without_rights() -> None:
    users = instructions("USER")
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[0])
    last = LINES.index(f"USER {users[0]}")
    assert not [line for line in LINES[last:] if line.startswith(("RUN", "COPY", "ADD"))]


def test_the_image_is_built_from_the_lock_by_hash() -> None:
    installs = [line for line in LINES if "pip install" in line]
    assert "--require-hashes" in installs[0]
    assert "-r requirements.lock" in installs[0]
    assert all("--no-deps" in line for line in installs[1:])
    assert sum(line.startswith("FROM ") for line in LINES) == 2
    assert instructions("COPY") == ["--from=build /opt/topbill /opt/topbill"]


def test_the_image_asks_for_its_health_and_starts_the_service() -> None:
    assert "/healthz" in instructions("HEALTHCHECK")[0]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["topbill"]
    assert_command(json.loads(instructions("CMD")[0]), "serve")


def test_no_secret_is_in_the_image_or_in_the_environment() -> None:
    text = DOCKERFILE + json.dumps(COMPOSE) + json.dumps(SHARED)
    for name in ("TOPBILL_KEYS", "TOPBILL_DASHBOARD_PASSWORD", "PASSWORD=", "ARG KEY"):
        assert not re.search(rf"{name}\b(?!_)", text), name


def is_of(path: str, pattern: str) -> bool:
    """Whether a pattern of .dockerignore fits the path or a folder above it."""
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern.removeprefix("**/")) for part in path.split("/"))
    return pattern == "*" or path == pattern or path.startswith(f"{pattern}/")


def context() -> list[str]:
    """What of the repository gets into the build: the patterns of .dockerignore in their order, the
    last that fits decides."""
    patterns = (ROOT / ".dockerignore").read_text().split("\n")
    patterns = [line for line in patterns if line and not line.startswith("#")]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("this is no git repository")
    sent = []
    for path in tracked.stdout.split():
        ignored = False
        for pattern in patterns:
            if is_of(path, pattern.removeprefix("!")):
                ignored = not pattern.startswith("!")
        if not ignored:
            sent.append(path)
    return sent


def test_what_is_sent_to_the_builder_is_what_a_wheel_is_built_of() -> None:
    sent = context()
    top = {path.split("/")[0] for path in sent}
    files = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "requirements.lock"}
    folders = {"clients", "dashboards", "experiments", "platform"}
    assert top == files | folders | {"setup.py"}
    assert any(path.startswith("clients/python/topbill_client/") for path in sent)


@pytest.mark.parametrize("name", VERBS)
def test_each_container_is_closed_and_starts_what_there_is(name: str) -> None:
    container = COMPOSE["services"][name]
    assert_command(container["command"], VERBS[name])
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "data:/var/lib/topbill" in container["volumes"]
    assert "environment" not in container


@pytest.mark.parametrize("name", SHARED_VERBS)
def test_each_container_of_the_shared_form_is_closed_and_has_no_place_of_its_own(name: str) -> None:
    container = SHARED["services"][name]
    assert_command(container["command"], SHARED_VERBS[name])
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["volumes"] == [
        "${TOPBILL_EXPERIMENTS:-../../experiments}:/etc/topbill/experiments:ro"
    ]
    places = container["environment"]
    assert parsed(places["TOPBILL_LAKE"].partition(":-")[2].rstrip("}")) == "s3://topbill/lake"
    assert without_secrets(places["TOPBILL_LOG"]) == places["TOPBILL_LOG"]
    assert places["PGPASSFILE"] == "/run/secrets/topbill_pgpass"
    assert "topbill_pgpass" in container["secrets"]
    servers = places["TOPBILL_LOG"].partition("@")[2].partition("/")[0].split(",")
    assert SHARED["services"].keys() >= set(servers)


def test_haproxy_asks_every_replica_whether_it_is_ready() -> None:
    path = DEPLOY / "shared" / "haproxy.cfg"
    named = re.findall(r"^    server (\S+) (\S+)$", path.read_text(), re.MULTILINE)
    replicas = [name for name, verb in SHARED_VERBS.items() if verb == "serve"]
    assert named == [(name, f"{name}:8600") for name in replicas]
    assert run("haproxy", "-c", "-f", path).returncode == 0


@pytest.mark.parametrize("script", sorted((DEPLOY / "shared").glob("*.sh")), ids=lambda p: p.name)
def test_the_servers_scripts_are_scripts(script: Path) -> None:
    assert run("sh", "-n", script).returncode == 0
    assert f"./{script.name}:" in (DEPLOY / "shared" / "compose.yaml").read_text()


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_what_can_be_reached_listens_on_loopback_unless_told_otherwise(file: Any) -> None:
    for container in file["services"].values():
        for port in container.get("ports", ()):
            assert re.match(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+$", port)


@pytest.mark.parametrize(("file", "name"), [(COMPOSE, "service"), (SHARED, "serve-1")])
def test_a_container_is_given_the_time_that_it_takes_to_stop(file: Any, name: str) -> None:
    service: Any = file["services"][name]
    drain = assert_command(service["command"], "serve")["drain"]
    # What is under way may take five seconds more.
    assert int(service["stop_grace_period"].removesuffix("s")) >= drain.total_seconds() + 10  # type: ignore[attr-defined]


def test_secrets_are_files() -> None:
    assert COMPOSE["secrets"].keys() == {"topbill_keys", "topbill_dashboard"}
    for file in FILES.values():
        assert all(set(secret) == {"file"} for secret in file["secrets"].values())


def test_the_version_is_todays() -> None:
    assert f"topbill:{topbill.__version__}" in COMPOSE["services"]["service"]["image"]
    assert SHARED["services"]["serve-1"]["image"] == COMPOSE["services"]["service"]["image"]


@pytest.mark.parametrize("path", ["compose.yaml", "shared/compose.yaml"])
def test_compose_takes_the_file(path: str) -> None:
    if shutil.which("docker") is None or run("docker", "compose", "version").returncode != 0:
        pytest.skip("docker compose is not here")
    taken = run("docker", "compose", "--file", DEPLOY / path, "config", "--quiet")
    assert taken.returncode == 0, taken.stderr


def test_the_rules_of_compose_hold_for_the_files(tmp_path: Path) -> None:
    for name, file in FILES.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(file))
        taken = run("compose-config", path)
        assert taken.returncode == 0, taken.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("stop_grace_period:", "stop_grace_perod:", "stop_grace_perod"),
        ("data:/var", "dta:/var", "volume `dta`"),
        ("stop_grace_period: ", "stop_grace_period: soon ", "duration"),
    ],
)
def test_a_file_that_compose_would_not_take_is_refused(
    right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "compose.yaml"
    text = (DEPLOY / "compose.yaml").read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    taken = run("compose-config", path)
    assert taken.returncode == 1
    assert said in taken.stderr
