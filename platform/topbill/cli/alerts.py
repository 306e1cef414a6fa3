"""Alarms on the command line: which stand, and whether channels take messages."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cyclopts import App

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    LogUrl,
    app,
    say,
    use_log,
)
from topbill.domain.errors import NotFound, TopbillError
from topbill.domain.formatting import minute

if TYPE_CHECKING:
    from topbill.domain.alarm import AlarmLine

alerts = App(name="alerts", help="Alarms: which there were, and whether channels take messages.")
app.command(alerts)


@alerts.command(name="list")
def list_(
    *,
    data: Data = DATA,
    url: LogUrl = "",
    output: Output = TEXT,
) -> None:
    """List the alarms, the newest first: which stand, and when the others were over."""
    from topbill.log import open_log_of

    use_log(url)
    with open_log_of(data, create=False) as log:
        lines = log.alarms()
    output.show(lines, lambda: _say_alarms(lines))


def _say_alarms(lines: Sequence[AlarmLine]) -> None:
    from topbill.domain.alarm import headline

    for line in reversed(lines):
        say(f"{minute(line.at)}  {headline(line)}. {line.message}")
    if not lines:
        say("There was no alarm yet.")


@alerts.command(name="test")
def try_channels(
    *channels: str, experiments: Experiments = EXPERIMENTS, output: Output = TEXT
) -> None:
    """Send a test message to each channel of alerts.yaml; exit 1 where one does not take it.

    Args:
        channels: Names of channels (default: all).
    """
    from topbill.alerts.channels import send
    from topbill.domain.alarm import AlarmLine
    from topbill.domain.suggestion import nearest
    from topbill.log import now_micros
    from topbill.spec.alerts import NAMES, read_settings
    from topbill.spec.fields import listed

    by_name = {channel.name: channel for channel in read_settings(experiments).channels}
    if not by_name:
        raise NotFound(f"{experiments}: has no {NAMES[0]}; expected the channels in it")
    for name in channels:
        if name not in by_name:
            hint = nearest(name, by_name)
            expected = f"expected one of {listed(by_name)}" + f"; {hint}" * bool(hint)
            raise NotFound(f"no channel {name!r}; {expected}")
    tried = []
    for name in channels or by_name:
        now = now_micros()
        message = "This is a test of the channel: nothing is wrong."
        line = AlarmLine(f"test-{now:x}", "raised", "record_stale", "", "test", "", message, now)
        try:
            send(by_name[name], line)
        except TopbillError as error:
            tried.append({"channel": name, "sent": False, "error": str(error)})
        else:
            tried.append({"channel": name, "sent": True, "error": ""})
    output.show(tried, lambda: _say_tried(tried))
    if not all(line["sent"] for line in tried):
        sys.exit(1)


def _say_tried(tried: Sequence[Mapping[str, Any]]) -> None:
    for line in tried:
        if line["sent"]:
            say(f"{line['channel']}: took the message.")
        else:
            say(f"{line['channel']}: not sent. {line['error']}", style="red")
