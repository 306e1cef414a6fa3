"""Alarms on the command line: which stand, and whether channels take messages."""

from __future__ import annotations

import sys

from cyclopts import App

from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    Json,
    LogUrl,
    app,
    print_json,
    say,
    use_log,
)
from topbill.domain.errors import NotFound, TopbillError
from topbill.domain.formatting import minute

alerts = App(name="alerts", help="Alarms: which there were, and whether channels take messages.")
app.command(alerts)


@alerts.command(name="list")
def list_(
    *,
    data: Data = DATA,
    url: LogUrl = "",
    as_json: Json = False,
) -> None:
    """List the alarms, the newest first: which stand, and when the others were over."""
    from topbill.domain.alarm import headline
    from topbill.log import open_log_of

    use_log(url)
    with open_log_of(data, create=False) as log:
        lines = log.alarms()
    if as_json:
        print_json(lines)
        return
    for line in reversed(lines):
        say(f"{minute(line.at)}  {headline(line)}. {line.message}")
    if not lines:
        say("There was no alarm yet.")


@alerts.command(name="test")
def try_channels(*channels: str, experiments: Experiments = EXPERIMENTS) -> None:
    """Send a test message to each channel of alerts.yaml; exit 1 where one does not take it.

    Args:
        channels: Names of channels (default: all).
    """
    from topbill.alerts.channels import send
    from topbill.domain.alarm import AlarmLine
    from topbill.log import now_micros
    from topbill.spec.alerts import NAMES, read_settings
    from topbill.spec.fields import listed, nearest

    by_name = {channel.name: channel for channel in read_settings(experiments).channels}
    if not by_name:
        raise NotFound(f"{experiments}: has no {NAMES[0]}; expected the channels in it")
    for name in channels:
        if name not in by_name:
            hint = nearest(name, by_name)
            raise NotFound(f"no channel {name!r}; expected one of {listed(by_name)}; {hint}")
    failed = False
    for name in channels or by_name:
        now = now_micros()
        message = "This is a test of the channel: nothing is wrong."
        line = AlarmLine(f"test-{now:x}", "raised", "record_stale", "", "test", "", message, now)
        try:
            send(by_name[name], line)
        except TopbillError as error:
            failed = True
            say(f"{name}: not sent. {error}", style="red")
        else:
            say(f"{name}: took the message.")
    if failed:
        sys.exit(1)
