"""What a channel is sent of an alarm's line, in each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from types import MappingProxyType
from typing import Any

from topbill.domain.alarm import TITLES, AlarmLine, headline
from topbill.spec.alerts import EmailChannel, HttpFormat

_MARKED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def webhook_body(line: AlarmLine) -> dict[str, Any]:
    """The alarm's own fields. `alarm` and `state` together name the message: where it comes twice,
    they are the same."""
    return {
        "alarm": line.alarm,
        "state": line.state,
        "kind": line.kind,
        "title": TITLES[line.kind],
        "experiment": line.experiment or None,
        "subject": line.subject or None,
        "cause": line.cause or None,
        "message": line.message,
        "at": _moment(line).isoformat().replace("+00:00", "Z"),
    }


def slack_body(line: AlarmLine) -> dict[str, Any]:
    """A message of Slack's incoming webhooks; the alarm's id stands at its end."""
    # Slack reads & < > as its own marks, also those of names that somebody sent.
    text = f"*{headline(line)}*\n{line.message}".translate(_MARKED)
    return {"text": f"{text}\n`{line.alarm}`"}


def teams_body(line: AlarmLine) -> dict[str, Any]:
    """An adaptive card, as Teams' workflows take them."""
    colour = "Good" if line.state == "resolved" else "Attention"
    blocks = [
        _block(headline(line), weight="Bolder", color=colour),
        _block(line.message),
        _block(line.alarm, isSubtle=True, size="Small"),
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [content]}


def _block(text: str, **looks: object) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True, **looks}


BODIES: Mapping[HttpFormat, Callable[[AlarmLine], dict[str, Any]]] = MappingProxyType(
    {"webhook": webhook_body, "slack": slack_body, "teams": teams_body}
)
"""What is posted, by format."""


def mail(line: AlarmLine, channel: EmailChannel) -> EmailMessage:
    """The mail. Its Message-ID is made of the alarm's id and state, so that mail programs show one
    that came twice once."""
    message = EmailMessage()
    # A header ends with its line.
    message["Subject"] = " ".join(headline(line).split())
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.to)
    message["Date"] = format_datetime(_moment(line))
    domain = channel.sender.partition("@")[2]
    message["Message-ID"] = f"<{line.alarm}.{line.state}@{domain}>"
    message["X-Topbill-Alarm"] = line.alarm
    if line.state == "resolved":
        message["In-Reply-To"] = f"<{line.alarm}.raised@{domain}>"
    message.set_content(f"{line.message}\n\nAlarm {line.alarm}, {line.kind}, {line.state}\n")
    return message


def _moment(line: AlarmLine) -> datetime:
    return datetime.fromtimestamp(line.at // 1_000_000, UTC)
