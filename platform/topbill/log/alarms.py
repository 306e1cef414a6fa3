"""Alarms in the embedded log's file: what was found wrong, which channel was told, and up to where
was looked."""

from __future__ import annotations

from collections.abc import Sequence

from topbill.domain.alarm import AlarmLine, AlarmMessage, AlarmWatch
from topbill.log.database import LogDatabase


class AlarmTable:
    """The tables `alarms`, `alarm_messages` and `alarm_watches` of a database. Its methods are
    those of `Log`."""

    def __init__(self, database: LogDatabase) -> None:
        self._database = database

    def note(self, lines: Sequence[AlarmLine], watch: AlarmWatch | None) -> None:
        """Store lines and a watch in one transaction."""
        with self._database.transaction():
            self._database.insert("alarms", lines, "INSERT OR IGNORE INTO")
            if watch is not None:
                self._database.insert("alarm_watches", [watch], "INSERT OR REPLACE INTO")

    def read(self, limit: int) -> list[AlarmLine]:
        """The last lines, and those of alarms that stand."""
        rows = self._database.rows(
            """SELECT alarm, state, kind, experiment, subject, cause, message, at FROM alarms
            WHERE place > (SELECT coalesce(max(place), 0) FROM alarms) - ?
                OR alarm NOT IN (SELECT alarm FROM alarms WHERE state = 'resolved')
            ORDER BY place""",
            (limit,),
        )
        return [AlarmLine(*row) for row in rows]

    def watch(self, experiment: str) -> AlarmWatch | None:
        """Up to where an experiment was looked at."""
        rows = self._database.rows(
            "SELECT experiment, through, memory FROM alarm_watches WHERE experiment = ?",
            (experiment,),
        )
        return AlarmWatch(*rows[0]) if rows else None

    def note_message(self, message: AlarmMessage) -> None:
        """Note that a channel took a message."""
        with self._database.transaction():
            self._database.insert("alarm_messages", [message], "INSERT OR IGNORE INTO")

    def messages(self, limit: int) -> list[AlarmMessage]:
        """The last messages."""
        rows = self._database.rows(
            """SELECT alarm, state, channel, at FROM alarm_messages
            WHERE place > (SELECT coalesce(max(place), 0) FROM alarm_messages) - ?
            ORDER BY place""",
            (limit,),
        )
        return [AlarmMessage(*row) for row in rows]
