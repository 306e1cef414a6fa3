"""The chart: values that are wrong are refused by name, and what it renders is what Kubernetes
takes."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import topbill

from .programs import DEPLOY, assert_command, run

CHART = DEPLOY / "helm" / "topbill"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SECRETS: dict[str, Any] = {
    "keys": {"existingSecret": "topbill-keys"},
    "dashboard": {"existingSecret": "topbill-dashboard"},
}
EVERYTHING = SECRETS | {
    "experiments": {"files": {"art.yaml": "experiment: art\n"}},
    "networkPolicy": {
        "enabled": True,
        "serviceFrom": [{"podSelector": {"matchLabels": {"app": "web"}}}],
        "dashboardFrom": [{"podSelector": {"matchLabels": {"app": "login"}}}],
    },
    "serviceMonitor": {"enabled": True, "keySecret": {"name": "prometheus"}},
    "persistence": {"size": "1Gi", "storageClass": "fast", "annotations": {"a": "b"}},
    "service": {"extraArgs": ["--remember=72h"], "env": [{"name": "A", "value": "b"}]},
    "worker": {"extraArgs": ["--keep=400d"]},
    "hashUnits": True,
    "podLabels": {"team": "home"},
    "nodeSelector": {"disk": "ssd"},
    "priorityClassName": "high",
    "imagePullSecrets": [{"name": "registry"}],
}
SHARED = EVERYTHING | {
    "shared": {
        "enabled": True,
        "secret": "topbill-log",
        "migrationSecret": "topbill-owner",
        "lake": "s3://bucket/topbill",
        "replicas": 4,
        "workers": 3,
    }
}
ALL = {"least": SECRETS, "everything": EVERYTHING, "shared": SHARED}


def render(values: dict[str, Any], tmp_path: Path) -> dict[str, dict[str, Any]]:
    """The chart's manifests, by kind and name."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    rendered = run("helm", "template", "shop", CHART, "--values", file)
    assert rendered.returncode == 0, rendered.stderr
    documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    return {f"{each['kind']} {each['metadata']['name']}": each for each in documents}


def pod_of(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return manifests["StatefulSet shop-topbill"]["spec"]["template"]["spec"]


def test_the_defaults_fit_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_every_value_is_in_the_schema_and_no_other() -> None:
    """A value that is spelt wrong would be without effect, and nobody would know."""

    def compare(values: Any, schema: dict[str, Any], path: str) -> None:
        if schema.get("additionalProperties") is not False:
            return
        assert values.keys() == schema["properties"].keys() - {"global"}, path
        for name, value in values.items():
            compare(value, schema["properties"][name], f"{path}.{name}")

    compare(DEFAULTS, SCHEMA, "values")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("service.replicas", 2),
        ("service.port", 0),
        ("service.drain", "soon"),
        ("service.type", "Cluster"),
        ("persistence.size", "much"),
        ("keys.existingSecrets", "a"),
        ("replicas", 2),
        ("shared.replicas", 0),
        ("shared.lake", "bucket/topbill"),
        ("shared.url", "postgresql://u:secret@db/topbill"),
    ],
)
def test_a_wrong_value_is_refused(path: str, value: object) -> None:
    values = deepcopy(DEFAULTS)
    *above, name = path.split(".")
    place = values
    for key in above:
        place = place[key]
    place[name] = value
    with pytest.raises(jsonschema.ValidationError, match=re.escape(str(name).split(".")[-1])):
        jsonschema.validate(values, SCHEMA)


def test_the_version_is_todays() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == topbill.__version__


def test_every_value_is_used() -> None:
    templates = "\n".join(path.read_text() for path in (CHART / "templates").iterdir())
    for name, value in DEFAULTS.items():
        inner = (
            value
            if isinstance(value, dict) and SCHEMA["properties"][name].get("properties")
            else {}
        )
        for path in [f"{name}.{key}" for key in inner] or [name]:
            own = path.split(".")[-1] in ("env", "resources")
            assert own or f".Values.{path}" in templates, f"{path} is in values.yaml only"


@pytest.mark.parametrize("values", ALL.values(), ids=ALL)
def test_helm_finds_nothing_wrong(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    linted = run("helm", "lint", CHART, "--values", file)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("values", ALL.values(), ids=ALL)
def test_kubernetes_takes_what_it_renders(values: dict[str, Any], tmp_path: Path) -> None:
    manifests = render(values, tmp_path)
    files = []
    for number, document in enumerate(manifests.values()):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(document))
    checked = run("kubernetes-validate", "--strict", *files)
    unknown = "Couldn't find schema for kind ServiceMonitor"
    said = [line for line in checked.stdout.splitlines() if line and unknown not in line]
    assert all("passed" in line for line in said), checked.stdout + checked.stderr
    assert checked.returncode == 0 or unknown in checked.stdout


def test_three_containers_share_one_machine_and_start_what_there_is(tmp_path: Path) -> None:
    manifests = render(SECRETS, tmp_path)
    assert manifests["StatefulSet shop-topbill"]["spec"]["replicas"] == 1
    pod = pod_of(manifests)
    started = {each["name"]: each["args"] for each in pod["containers"]}
    assert started.keys() == {"service", "worker", "dashboard"}
    drain = assert_command(started["service"], "serve")["drain"]
    assert pod["terminationGracePeriodSeconds"] >= drain.total_seconds() + 10  # type: ignore[attr-defined]
    assert_command(started["worker"], "worker")
    assert_command(started["dashboard"], "dashboard")


def test_containers_have_no_rights_and_the_service_is_probed(tmp_path: Path) -> None:
    pod = pod_of(render(SECRETS, tmp_path))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
    service = pod["containers"][0]
    assert service["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert service["livenessProbe"]["httpGet"]["path"] == "/healthz"
    # Else viewers would not be decided for while nobody can look.
    assert all("readinessProbe" not in container for container in pod["containers"][1:])


def test_the_shared_form_has_replicas_and_workers_that_share_no_volume(tmp_path: Path) -> None:
    manifests = render(SHARED, tmp_path)
    assert not [name for name in manifests if name.startswith("StatefulSet")]
    started = {}
    for component, replicas in {"service": 4, "worker": 3, "dashboard": 1}.items():
        deployment = manifests[f"Deployment shop-topbill-{component}"]["spec"]
        assert deployment["replicas"] == replicas
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"].items() <= labels.items()
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        started[component] = container["args"]
        assert container["envFrom"] == [{"secretRef": {"name": "topbill-log"}}]
        assert {"name": "TOPBILL_LAKE", "value": "s3://bucket/topbill"} in container["env"]
        assert {"name": "data", "emptyDir": {}} in pod["volumes"]
        for service in ("Service shop-topbill", "Service shop-topbill-dashboard"):
            own = "dashboard" if service.endswith("dashboard") else "service"
            selector = manifests[service]["spec"]["selector"]
            assert (selector.items() <= labels.items()) == (component == own)
    assert_command(started["service"], "serve")
    assert_command(started["worker"], "worker")
    assert_command(started["dashboard"], "dashboard")
    for component in ("service", "worker"):
        budget = manifests[f"PodDisruptionBudget shop-topbill-{component}"]["spec"]
        selected = manifests[f"Deployment shop-topbill-{component}"]["spec"]["selector"]
        assert budget == {"maxUnavailable": 1, "selector": selected}
    job = manifests["Job shop-topbill-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert_command(container["args"], "migrate")
    assert container["envFrom"] == [{"secretRef": {"name": "topbill-owner"}}]


@pytest.mark.parametrize("name", ["secret", "lake"])
def test_the_shared_form_says_what_it_lacks(name: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(SHARED | {"shared": SHARED["shared"] | {name: ""}}))
    refused = run("helm", "template", "shop", CHART, "--values", file)
    assert refused.returncode != 0
    assert f"shared.{name} is empty" in refused.stderr


def test_without_a_secret_of_keys_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"dashboard": {"enabled": False}}))
    refused = run("helm", "template", "shop", CHART, "--values", file)
    assert refused.returncode != 0
    assert "keys.existingSecret is empty" in refused.stderr


def test_a_policy_that_names_nobody_lets_nobody_in(tmp_path: Path) -> None:
    policy = render(SECRETS | {"networkPolicy": {"enabled": True}}, tmp_path)
    assert policy["NetworkPolicy shop-topbill"]["spec"]["ingress"] == []
