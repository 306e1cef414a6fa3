"""URLs of logs in messages: without what is secret in them."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(//[^/?#@:]*):[^/?#]*@")
_PARAMETER = re.compile(r"([?&](?:password|passfile|sslpassword)=)[^&#]*")


def without_secrets(url: str) -> str:
    """The URL, but for its password.

    >>> without_secrets("postgresql://topbill:secret@db/topbill?connect_timeout=2")
    'postgresql://topbill@db/topbill?connect_timeout=2'
    """
    return _PARAMETER.sub(r"\1…", _PASSWORD.sub(r"\1@", url))
