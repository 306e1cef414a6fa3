"""The URL of a lake: which variable says it, and what is one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from topbill.domain.errors import BadRequest
from topbill.domain.log_url import without_secrets

LAKE_VARIABLE = "TOPBILL_LAKE"
"""Says, as a URL, where the lake of this process and of all that it starts is. Without it a data
folder has its own.
"""
SCHEMES = {"s3": "s3://", "gs": "gs://", "az": "az://", "file": "file://"}
"""What lakes lie in, by the scheme of their URLs: S3 and what speaks as it does, Google Cloud
Storage, Azure Blob Storage, and a folder that machines share.
"""
_EXPECTED = f"expected {', '.join(SCHEMES.values())} or a folder"
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://")
_PLAIN = re.compile(r"[A-Za-z0-9._/=-]*")
"""Of what names are made that no library writes in two ways."""


def lake_url() -> str:
    """Where the lake is, in the form that all readers of it are given; empty where nothing says it.
    Raises BadRequest.
    """
    text = os.environ.get(LAKE_VARIABLE, "")
    return parsed(text) if text else ""


def parsed(text: str) -> str:
    """The URL of a lake without a slash at its end; that of a folder is absolute.

    >>> parsed("s3://bucket/prefix/")
    's3://bucket/prefix'
    >>> parsed("/srv/lake")
    'file:///srv/lake'
    """
    scheme = _URL.match(text)
    if scheme is None:
        return f"file://{Path(text).resolve()}"
    got = f"got {without_secrets(text)!r}"
    if scheme[1] not in SCHEMES:
        raise BadRequest(LAKE_VARIABLE, f"{got}, {_EXPECTED}")
    url = urlsplit(text)
    if url.username is not None or url.query or url.fragment:
        raise BadRequest(
            LAKE_VARIABLE,
            f"{got}, expected {scheme[1]}://BUCKET/PREFIX alone: credentials come from the "
            "environment, as the tools of the store's owner read them",
        )
    if scheme[1] == "file":
        if url.netloc or not url.path.startswith("/"):
            raise BadRequest(LAKE_VARIABLE, f"{got}, expected file:///ABSOLUTE/FOLDER")
        return f"file://{Path(unquote(url.path)).resolve()}"
    if not url.netloc:
        raise BadRequest(LAKE_VARIABLE, f"{got}, expected {scheme[1]}://BUCKET/PREFIX")
    if not _PLAIN.fullmatch(url.netloc + url.path):
        raise BadRequest(
            LAKE_VARIABLE, f"{got}, expected letters, digits and . _ - = / after the scheme"
        )
    parts = [part for part in url.path.split("/") if part]
    return "/".join([f"{scheme[1]}://{url.netloc}", *parts])
