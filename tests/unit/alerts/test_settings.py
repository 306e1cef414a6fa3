"""alerts.yaml: what it says, what is wrong with it by place, and no secret shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from topbill import spec
from topbill.alerts.messages import webhook_body
from topbill.alerts.sums import HOUR, HourSums, Memory, VariantSums
from topbill.alerts.watching import look_at
from topbill.domain.alarm import KINDS
from topbill.domain.errors import SpecError
from topbill.spec import alerts
from topbill.spec.alerts import EmailChannel, HttpChannel, Secret, load_settings
from topbill.testing import an_experiment

PAGE = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()


def settings(tmp_path: Path, text: str) -> alerts.AlertSettings:
    (tmp_path / "alerts.yaml").write_text(text)
    return load_settings(tmp_path / "alerts.yaml")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_s_file_says_what_the_page_says(tmp_path: Path) -> None:
    read = settings(tmp_path, blocks("yaml")[0])
    ops, team, night = read.channels
    assert ops == HttpChannel(
        "ops", "webhook", "https://ops.example.com/topbill", Secret(env="TOPBILL_ALERTS_KEY")
    )
    assert team == HttpChannel("team", "slack", Secret(file="/run/secrets/slack-url"))
    assert isinstance(night, EmailChannel)
    assert (night.port, night.tls, night.kinds) == (
        587,
        "starttls",
        ("guardrail_harmed", "record_stale"),
    )
    assert read.mute == ("feature_drift",)


def test_the_page_s_file_satisfies_the_schema_and_mistakes_do_not() -> None:
    check = jsonschema.Draft202012Validator(alerts.alerts_schema())
    assert check.is_valid(yaml.safe_load(blocks("yaml")[0]))
    passed = []
    for said in WRONG:
        if check.is_valid(yaml.safe_load(f"alerts: {{channels: {{a: {{{said}}}}}}}")):
            passed.append(WRONG[said][1])
    # What an address may not hold, and what contradicts itself, is the loader's to see.
    assert passed == ["a user or password", "both or neither", "starttls or tls"]


def test_the_page_names_every_kind() -> None:
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \|$", PAGE, re.MULTILINE) == list(KINDS)


def test_the_page_s_message_is_the_one_that_is_sent() -> None:
    """Of an hour of new units that lack some of one variant's, and of two that do not."""
    shares = '{"editorial":0.2,"linucb":0.4,"thompson":0.4}'
    at = 1_796_115_600_000_000
    memory, sent = Memory(), []
    for i, (editorial, linucb, thompson) in enumerate(
        [(1_060, 2_120, 1_650), (1_000, 2_000, 2_000), (1_000, 2_000, 2_000)]
    ):
        hour = HourSums(at + i * HOUR)
        for name, units in (("editorial", editorial), ("linucb", linucb), ("thompson", thompson)):
            hour.variants[name] = VariantSums(decisions=units, units={shares: units})
        sent += [webhook_body(line) for line in look_at("home-artwork", memory, hour, ()).lines]
    raised, resolved = sent
    assert raised == json.loads(blocks("json")[0])
    assert (resolved["alarm"], resolved["state"]) == (raised["alarm"], "resolved")


def test_the_page_s_check_knows_our_signature() -> None:
    from topbill.alerts.channels import signature

    room: dict[str, object] = {}
    exec(blocks("python")[0], room)  # noqa: S102 (the page's own code)
    is_ours = room["is_ours"]
    assert callable(is_ours)
    import time

    now = int(time.time())
    assert is_ours("key", signature("key", now, b"{}"), b"{}")
    assert not is_ours("other", signature("key", now, b"{}"), b"{}")
    assert not is_ours("key", signature("key", now - 1_000, b"{}"), b"{}")


WRONG = {
    "type: webhok, url: 'https://x.org'": ("alerts.channels.a.type", "did you mean webhook?"),
    "type: webhook": ("alerts.channels.a.url", "this key, which is required"),
    "type: webhook, url: 'https://me:T0KEN@x.org/'": (
        "alerts.channels.a.url",
        "a user or password",
    ),
    "type: webhook, url: 'file:///T0KEN'": ("alerts.channels.a.url", "no address of HTTP"),
    "type: slack, url: 'https://hooks.slack.com/T0KEN'": ("alerts.channels.a.url", "{env: NAME}"),
    "type: webhook, url: 'https://x.org', secret: T0KEN": (
        "alerts.channels.a.secret",
        "secrets stand in no file",
    ),
    "type: slack, url: {env: A, file: b}": ("alerts.channels.a.url", "either env or file"),
    "type: email, host: h, from: a@x.org, to: [a@x.org], user: me": (
        "alerts.channels.a",
        "both or neither",
    ),
    "type: email, host: h, from: 'A <a@x.org>', to: []": ("alerts.channels.a.to", "a list of 1"),
    "type: email, host: h, from: a@x.org, to: [b@x.org], user: u, password: {env: P}, tls: none": (
        "alerts.channels.a.tls",
        "starttls or tls",
    ),
    "type: webhook, url: 'https://x.org', kinds: [drift]": (
        "alerts.channels.a.kinds[0]",
        "feature_drift",
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_is_told_by_its_place_and_shows_no_secret(tmp_path: Path, said: str) -> None:
    path, words = WRONG[said]
    with pytest.raises(SpecError) as caught:
        settings(tmp_path, f"alerts: {{channels: {{a: {{{said}}}}}}}")
    told = {problem.path: problem.message for problem in caught.value.problems}
    assert words in told[path]
    assert "T0KEN" not in str(caught.value)


def test_an_experiment_that_says_who_is_told_is_no_other_revision() -> None:
    plain = an_experiment()
    said = an_experiment(alerts={"mute": ["feature_drift"], "channels": ["ops"]})
    assert said.alerts.mute == ("feature_drift",)
    assert said.fingerprint == plain.fingerprint
    assert said.learning_fingerprint == plain.learning_fingerprint
    assert said != replace(plain, raw=said.raw)


def test_a_channel_that_is_not_there_is_named(tmp_path: Path) -> None:
    read = settings(tmp_path, "alerts: {channels: {ops: {type: webhook, url: 'https://x.org'}}}")
    said = an_experiment(alerts={"channels": ["opps"]}).alerts
    (problem,) = alerts.unknown_channels(read, "home.yaml", said)
    assert (problem.path, problem.hint) == ("alerts.channels[0]", "did you mean ops?")


def test_the_file_is_no_experiment_and_holds_up_none(folder: Path) -> None:
    (folder / "alerts.yaml").write_text("alerts: nonsense")
    assert [experiment.key for experiment in spec.load_all([folder])] == ["art"]
