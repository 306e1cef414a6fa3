"""The log: the transactional intake of decisions and reward events.

`Log` says what every log promises, `open_log` is the way to one, `open_log_of` to that of a data
folder. There are three: the embedded log
(one SQLite file with a journal as its head), the shared one (a PostgreSQL database), and one in
memory for tests.
"""

from topbill.log.entries import Entry, Receipt
from topbill.log.opening import (
    LOG_FILE,
    SCHEMES,
    copy_log,
    embedded_log,
    has_log,
    is_shared,
    leases_of,
    log_place,
    migrate_log,
    open_log,
    open_log_of,
    restore_log,
    shared_log_damage,
    shared_log_end,
)
from topbill.log.protocol import (
    REMEMBERED_FOR,
    Clock,
    ConclusionLine,
    Duty,
    Ends,
    Erasure,
    Heartbeat,
    Log,
    Matured,
    Named,
    Revision,
    now_micros,
)

__all__ = [
    "LOG_FILE",
    "REMEMBERED_FOR",
    "SCHEMES",
    "Clock",
    "ConclusionLine",
    "Duty",
    "Ends",
    "Entry",
    "Erasure",
    "Heartbeat",
    "Log",
    "Matured",
    "Named",
    "Receipt",
    "Revision",
    "copy_log",
    "embedded_log",
    "has_log",
    "is_shared",
    "leases_of",
    "log_place",
    "migrate_log",
    "now_micros",
    "open_log",
    "open_log_of",
    "restore_log",
    "shared_log_damage",
    "shared_log_end",
]
