"""The URL of a log: which variable says it, and how messages do, without what is secret in it."""

from __future__ import annotations

import re

LOG_VARIABLE = "TOPBILL_LOG"
"""Says, as a URL, where the log of this process and of all that it starts is. Without it a data
folder has its own. On a command line everybody could read a URL's password.
"""
# Up to the last @: who writes a slash or an @ into a password as they are, must not read it in a
# message that says so.
_PASSWORD = re.compile(r"(//[^/?#@:]*):.*@")
_PARAMETER = re.compile(r"([?&](?:password|passfile|sslpassword)=)[^&#]*")


def without_secrets(url: str) -> str:
    """The URL, but for its password.

    >>> without_secrets("postgresql://topbill:secret@db/topbill?connect_timeout=2")
    'postgresql://topbill@db/topbill?connect_timeout=2'
    """
    return _PARAMETER.sub(r"\1…", _PASSWORD.sub(r"\1@", url))
