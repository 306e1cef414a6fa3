"""Who is told of alarms: `alerts.yaml`, beside the experiments, and the key `alerts` of each of
them.

No secret stands in a file: where one is needed, the file names the environment variable or the file
that holds it, and that is read when a message is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from topbill.domain.alarm import KINDS, AlarmKind
from topbill.domain.errors import FileProblem, NotFound, SpecError
from topbill.domain.suggestion import nearest
from topbill.spec.fields import (
    INVALID,
    Choice,
    JsonSchema,
    Key,
    ListOf,
    Location,
    MapOf,
    Name,
    Number,
    Section,
    Tagged,
    Text,
    Verbatim,
    listed,
    schema_document,
)
from topbill.spec.yaml import contents, parse

NAMES = ("alerts.yaml", "alerts.yml")
"""What the file is called. No experiment's file may be."""
Tls = Literal["starttls", "tls", "none"]
HttpFormat = Literal["webhook", "slack", "teams"]
PORTS: Mapping[Tls, int] = {"starttls": 587, "tls": 465, "none": 25}
"""Where mail servers listen, by how the connection is kept secret."""
_LONGEST_SECRET = 8_192


@dataclass(frozen=True)
class Secret:
    """Where a secret is: in an environment variable, or in a file."""

    env: str = ""
    file: str = ""

    def read(self) -> str:
        """The secret, without outer spaces. Raises NotFound, naming the place and never what is
        there."""
        if self.env:
            value = os.environ.get(self.env, "").strip()
            if not value:
                raise NotFound(f"environment variable {self.env} is not set; expected the secret")
            return value
        try:
            with Path(self.file).open(encoding="utf-8") as file:
                value = file.read(_LONGEST_SECRET).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise NotFound(f"{self.file}: {reason}; expected the secret") from error
        if not value:
            raise NotFound(f"{self.file}: is empty; expected the secret")
        return value


@dataclass(frozen=True)
class HttpChannel:
    """A channel that takes messages by HTTP POST, in one of three formats. `secret` signs the
    body."""

    name: str
    format: HttpFormat
    url: str | Secret
    secret: Secret | None = None
    kinds: tuple[AlarmKind, ...] = KINDS


@dataclass(frozen=True)
class EmailChannel:
    """A channel that sends mail by SMTP."""

    name: str
    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    tls: Tls = "starttls"
    user: str = ""
    password: Secret | None = None
    kinds: tuple[AlarmKind, ...] = KINDS


AlertChannel = HttpChannel | EmailChannel


@dataclass(frozen=True)
class AlertSettings:
    """What `alerts.yaml` says: the channels, and the kinds of alarms that nobody is told of."""

    channels: tuple[AlertChannel, ...] = ()
    mute: tuple[AlarmKind, ...] = ()


@dataclass(frozen=True)
class ExperimentAlerts:
    """What an experiment says of its alarms: kinds that nobody is told of, and to which channels
    the others go; to all where it names none."""

    mute: tuple[AlarmKind, ...] = ()
    channels: tuple[str, ...] = ()


EVERYONE = ExperimentAlerts()
"""What an experiment says that says nothing: every kind, to every channel."""


class _SecretField:
    """`{env: NAME}` or `{file: PATH}` → Secret."""

    _section = Section(
        {
            "env": Key(
                Text(128, r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable"),
                "The environment variable that holds it.",
            ),
            "file": Key(Text(), "The file that holds it."),
        }
    )

    def read(self, value: Any, at: Location) -> Any:
        if not isinstance(value, dict):
            # Shown to nobody: somebody may have written the secret itself.
            return at.wrong(
                Verbatim("a value"), "{env: NAME} or {file: PATH}: secrets stand in no file"
            )
        parts = self._section.read(value, at)
        if len(parts) != 1 or len(value) != 1:
            expected = "either env or file"
            return INVALID if len(value) == 1 else at.wrong(Verbatim(listed(value)), expected)
        return Secret(**parts)

    def schema(self) -> JsonSchema:
        return self._section.schema() | {"minProperties": 1, "maxProperties": 1}


@dataclass(frozen=True)
class _Url:
    """An address that is no secret, or where a secret one is to be found."""

    is_secret: bool = False

    def read(self, value: Any, at: Location) -> Any:
        if self.is_secret or not isinstance(value, str):
            return _SecretField().read(value, at)
        wrong = url_problem(value)
        if wrong:
            # The address itself may hold what must not be shown.
            return at.wrong(Verbatim(wrong), "an address such as https://example.com/alarms")
        return value

    def schema(self) -> JsonSchema:
        secret = _SecretField().schema()
        plain: JsonSchema = {"type": "string", "pattern": "^https?://", "maxLength": 512}
        return secret if self.is_secret else {"anyOf": [plain, secret]}


def url_problem(url: str) -> str:
    """What is wrong with an address; empty where nothing is. Never shows it."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port != 0
    except ValueError:
        return "no address"
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        return "no address of HTTP"
    if parts.username is not None or parts.password is not None:
        return "an address with a user or password in it"
    if len(url) > 2_048 or any(ord(letter) <= 32 for letter in url):
        return "an address with spaces, or a very long one"
    return ""


_MAIL = Text(254, r"[^\s@<>\"]+@[^\s@<>\"]+", "an address such as team@example.com, without a name")
_KINDS = ListOf(Choice(KINDS), len(KINDS), unique=True)
_OF_ALL = {"kinds": Key(_KINDS, "Which kinds of alarms go there (default: all).")}
_SIGNED = {
    "secret": Key(
        _SecretField(), "Where the key is that signs each body (HMAC-SHA-256, X-Topbill-Signature)."
    )
}
_ADDRESS = "Where messages are posted. Only there: redirects are not followed."
_SECRET_ADDRESS = f"{_ADDRESS} Who has it can post, so the file names where it is kept."
CHANNEL = Tagged(
    "type",
    {
        "webhook": Section({"url": Key(_Url(), _ADDRESS, True), **_SIGNED, **_OF_ALL}),
        "slack": Section({"url": Key(_Url(True), _SECRET_ADDRESS, True), **_OF_ALL}),
        "teams": Section({"url": Key(_Url(True), _SECRET_ADDRESS, True), **_OF_ALL}),
        "email": Section(
            {
                "host": Key(Text(253, r"[A-Za-z0-9._:-]+", "a host"), "The mail server.", True),
                "port": Key(Number(1, 65_535, whole=True), "Its port (default: by tls)."),
                "tls": Key(
                    Choice(get_args(Tls)),
                    "starttls (default, 587), tls from the first byte (465), or none (25).",
                ),
                "from": Key(_MAIL, "The sender's address.", True),
                "to": Key(ListOf(_MAIL, 50, 1, unique=True), "Who gets it.", True),
                "user": Key(Text(254), "Whom the server knows, where it asks."),
                "password": Key(_SecretField(), "Where the user's password is."),
                **_OF_ALL,
            }
        ),
    },
    "How messages go out: webhook, slack, teams or email.",
)
_MUTE = Key(_KINDS, "Kinds of alarms that nobody is told of; status and metrics show them.")
ALERTS = Section(
    {
        "alerts": Key(
            Section(
                {
                    "channels": Key(MapOf(CHANNEL, 20, 1), "Who is told, by name.", True),
                    "mute": _MUTE,
                }
            ),
            "Who is told of alarms.",
            True,
        )
    }
)
"""What alerts.yaml may say."""
EXPERIMENT_ALERTS = Section(
    {
        "mute": _MUTE,
        "channels": Key(
            ListOf(Name, 20, 1, unique=True),
            "Which channels of alerts.yaml its alarms go to (default: all).",
        ),
    }
)
"""What an experiment may say of its alarms."""


def alerts_schema() -> JsonSchema:
    """JSON Schema 2020-12 of alerts.yaml."""
    return schema_document("Topbill alerts", "Who is told of alarms, and by which way.", ALERTS)


def path_of(folder: Path) -> Path | None:
    """The file in a folder of experiments; None where there is none."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    return None


def read_settings(folder: Path) -> AlertSettings:
    """What the file of a folder says; nothing where there is none. Raises SpecError with every
    problem of it."""
    path = path_of(folder)
    return AlertSettings() if path is None else load_settings(path)


def load_settings(path: Path) -> AlertSettings:
    """What a file says. Raises SpecError with every problem of it."""
    raw, problems, lines = parse(contents(path), path.name)
    at = Location(path.name, problems=problems, lines=lines)
    parts = ALERTS.read(raw, at)
    if parts is not INVALID and not at.problems:
        _check_together(parts["alerts"]["channels"], at.key("alerts").key("channels"))
    if parts is INVALID or at.problems:
        raise SpecError(at.problems)
    alerts = parts["alerts"]
    channels = [_channel(name, said) for name, said in alerts["channels"].items()]
    return AlertSettings(tuple(channels), alerts.get("mute", ()))


def _check_together(channels: Mapping[str, Any], at: Location) -> None:
    """Note what contradicts itself."""
    for name, said in channels.items():
        if said["type"] != "email":
            continue
        if ("user" in said) != ("password" in said):
            at.key(name).wrong(Verbatim("one of user and password"), "both or neither")
        if "password" in said and said.get("tls") == "none":
            expected = "starttls or tls, where a password is sent"
            at.key(name).key("tls").wrong("none", expected)


def _channel(name: str, said: Mapping[str, Any]) -> AlertChannel:
    kinds = said.get("kinds", KINDS)
    if said["type"] != "email":
        return HttpChannel(name, said["type"], said["url"], said.get("secret"), kinds)
    tls: Tls = said.get("tls", "starttls")
    return EmailChannel(
        name=name,
        host=said["host"],
        port=said.get("port", PORTS[tls]),
        sender=said["from"],
        to=said["to"],
        tls=tls,
        user=said.get("user", ""),
        password=said.get("password"),
        kinds=kinds,
    )


def experiment_alerts(said: Mapping[str, Any] | None) -> ExperimentAlerts:
    """What an experiment's key says."""
    if not said:
        return EVERYONE
    return ExperimentAlerts(said.get("mute", ()), said.get("channels", ()))


def unknown_channels(
    settings: AlertSettings, file: str, alerts: ExperimentAlerts
) -> list[FileProblem]:
    """A problem for each channel that an experiment names and alerts.yaml does not have."""
    names = [channel.name for channel in settings.channels]
    problems = []
    for index, name in enumerate(alerts.channels):
        if name not in names:
            expected = f"a channel of {NAMES[0]}: {listed(names) or 'it has none'}"
            place = f"alerts.channels[{index}]"
            problems.append(FileProblem(file, place, repr(name), expected, nearest(name, names)))
    return problems


def channels_for(
    settings: AlertSettings, kind: AlarmKind, alerts: Iterable[ExperimentAlerts]
) -> list[AlertChannel]:
    """The channels that are told of an alarm of that kind, of an experiment that says `alerts`."""
    channels = [channel for channel in settings.channels if kind in channel.kinds]
    for own in alerts:
        if kind in own.mute:
            return []
        if own.channels:
            channels = [channel for channel in channels if channel.name in own.channels]
    return [] if kind in settings.mute else channels
