"""Alarms in a log's database: what was found wrong, which channel was told, and up to where
was looked."""

from __future__ import annotations

from collections.abc import Sequence

from topbill.domain.alarm import AlarmLine, AlarmMessage, AlarmWatch
from topbill.log.sql_database import SqlDatabase


class AlarmTable:
    """The tables `alarms`, `alarm_messages` and `alarm_watches` of a database. Its methods are
    those of `Log`."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    def note(self, lines: Sequence[AlarmLine], watch: AlarmWatch | None) -> None:
        """Store lines and a watch in one transaction."""
        with self._database.transaction():
            self._database.insert("alarms", lines, "keep")
            if watch is not None:
                self._database.insert("alarm_watches", [watch], "replace")

    def read(self, limit: int) -> list[AlarmLine]:
        """The last lines, and those of alarms that stand."""
        rows = self._database.rows(
            """SELECT alarm, state, kind, experiment, subject, cause, message, at FROM alarms
            WHERE place IN (SELECT place FROM alarms ORDER BY place DESC LIMIT ?)
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
            self._database.insert("alarm_messages", [message], "keep")

    def messages(self, limit: int) -> list[AlarmMessage]:
        """The last messages."""
        rows = self._database.rows(
            """SELECT alarm, state, channel, at FROM alarm_messages
            WHERE place IN (SELECT place FROM alarm_messages ORDER BY place DESC LIMIT ?)
            ORDER BY place""",
            (limit,),
        )
        return [AlarmMessage(*row) for row in rows]
