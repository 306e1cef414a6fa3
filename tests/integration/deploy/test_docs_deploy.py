"""What docs/deploy.md names is there, and every alert has its line."""

from __future__ import annotations

import json
import re

import yaml

import topbill

from .programs import DEPLOY, ROOT, assert_command

PAGE = (ROOT / "docs" / "deploy.md").read_text()


def test_every_file_that_it_names_is_there() -> None:
    own = {"deploy/keys.yaml", "deploy/secrets.toml"}  # the reader's own, which the commands make
    named = set(re.findall(r"\bdeploy/[\w./*-]*\w", PAGE)) - own
    assert len(named) > 4
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_every_alert_has_its_line_and_no_other_is_named() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "topbill-alerts.yaml").read_text())
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules["groups"][0]["rules"]}
    lines = dict(re.findall(r"^\| `(Topbill\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert lines.keys() == severities.keys()
    for alert, text in lines.items():
        assert text.startswith("critical: ") == (severities[alert] == "critical"), alert


def test_every_variable_of_the_compose_file_is_named() -> None:
    compose = (DEPLOY / "compose.yaml").read_text()
    compose += (DEPLOY / "shared" / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", compose)) <= set(re.findall(r"`(TOPBILL_\w+)`", PAGE))


def test_every_value_that_it_names_is_the_charts() -> None:
    values = json.loads((DEPLOY / "helm" / "topbill" / "values.schema.json").read_text())
    named = re.findall(r"--set(?:-file)? (\w+)\.(\w+)", PAGE)
    named += re.findall(r"`(experiments|networkPolicy|service|serviceMonitor|shared)\.(\w+)`", PAGE)
    assert len(named) > 5
    for section, name in named:
        assert name in values["properties"][section]["properties"], f"{section}.{name}"


def test_every_command_of_the_image_is_there() -> None:
    commands = re.findall(r"docker run --rm topbill:(\S+) ([^>\n]+)", PAGE)
    assert commands
    for version, command in commands:
        assert version == topbill.__version__
        words = command.split()
        assert_command(words, words[0])
