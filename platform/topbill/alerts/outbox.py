"""What has still to be told to which channel: each channel on a thread of its own, one message
after the other, again with growing pauses until it is taken.

Which messages were taken stands in the log. Who dies between sending one and noting it sends it
again; its alarm's id and state are the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from topbill.alerts.channels import Send, send
from topbill.domain.alarm import AlarmLine, AlarmMessage, standing
from topbill.domain.errors import TopbillError
from topbill.log import Log
from topbill.spec import Experiment
from topbill.spec.alerts import EVERYONE, AlertChannel, AlertSettings, channels_for

_logger = logging.getLogger("topbill")
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 300.0
"""Seconds after a failure, doubled from one to the next."""
TOLD_WITHIN = 86_400_000_000
"""µs for which what is over already is still told, where a channel could not be reached before."""


@dataclass
class _ChannelFailure:
    message: str
    pause: float
    retry_at: float


@dataclass
class _Delivery:
    line: AlarmLine
    result: Future[None]


class Outbox:
    """Sends what the log's alarms say to the channels of the settings, step by step."""

    def __init__(
        self,
        log: Log,
        now: Callable[[], int],
        send: Send = send,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._now = now
        self._send = send
        self._monotonic = monotonic
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._deliveries: dict[str, _Delivery] = {}
        self._failures: dict[str, _ChannelFailure] = {}

    @property
    def failures(self) -> dict[str, str]:
        """What went wrong last with each channel that fails, by its name."""
        return {name: failure.message for name, failure in self._failures.items()}

    def step(self, settings: AlertSettings, experiments: Sequence[Experiment]) -> None:
        """Note what was taken, and begin with what is due. Waits for no channel."""
        self._settle()
        names = {channel.name for channel in settings.channels}
        self._failures = {name: f for name, f in self._failures.items() if name in names}
        if not settings.channels:
            return
        for channel, line in self._due(settings, experiments).items():
            if channel.name not in self._threads:
                self._threads[channel.name] = ThreadPoolExecutor(1, "alerts")
            result = self._threads[channel.name].submit(self._send, channel, line)
            self._deliveries[channel.name] = _Delivery(line, result)

    def close(self) -> None:
        """Wait for nothing: what is under way is sent again by whoever comes next."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def _due(
        self, settings: AlertSettings, experiments: Sequence[Experiment]
    ) -> Mapping[AlertChannel, AlarmLine]:
        """The next line of each channel that is free, the oldest first."""
        lines = self._log.alarms()
        taken = {message[:3] for message in self._log.alarm_messages()}
        said = {experiment.key: experiment.alerts for experiment in experiments}
        stands = {line.alarm for line in standing(lines)}
        due: dict[AlertChannel, AlarmLine] = {}
        for line in lines:
            own = said.get(line.experiment, EVERYONE)
            for channel in channels_for(settings, line.kind, [own]):
                if channel in due or not self._is_free(channel):
                    continue
                if (line.alarm, line.state, channel.name) in taken:
                    continue
                if self._is_wanted(line, channel, taken, stands):
                    due[channel] = line
        return due

    def _is_wanted(
        self,
        line: AlarmLine,
        channel: AlertChannel,
        taken: Container[tuple[str, str, str]],
        stands: set[str],
    ) -> bool:
        """Whether it is news to that channel: a fault that stands or is not long over, and its end
        where the channel knows of the fault."""
        if line.state == "resolved":
            return (line.alarm, "raised", channel.name) in taken
        return line.alarm in stands or self._now() - line.at < TOLD_WITHIN

    def _is_free(self, channel: AlertChannel) -> bool:
        failure = self._failures.get(channel.name)
        waits = failure is not None and self._monotonic() < failure.retry_at
        return not waits and channel.name not in self._deliveries

    def _settle(self) -> None:
        for name, delivery in list(self._deliveries.items()):
            if not delivery.result.done():
                continue
            del self._deliveries[name]
            error = delivery.result.exception()
            if error is None:
                line = delivery.line
                message = AlarmMessage(line.alarm, line.state, name, self._now())
                self._log.note_message(message)
                if self._failures.pop(name, None) is not None:
                    _logger.warning("alerts: %s is reached again", name)
            else:
                self._failed(name, error)

    def _failed(self, name: str, error: BaseException) -> None:
        expected = isinstance(error, TopbillError)
        message = str(error) if expected else f"{name}: failed ({type(error).__name__})"
        before = self._failures.get(name)
        pause = _FIRST_PAUSE if before is None else min(2.0 * before.pause, _LONGEST_PAUSE)
        if before is None or before.message != message:
            _logger.warning("alerts: %s", message)
        self._failures[name] = _ChannelFailure(message, pause, self._monotonic() + pause)
