"""Azurite, Microsoft's own stand-in for Azure Blob Storage, on loopback, and containers of it:
where `npm install azurite` has put it, in the folder that TOPBILL_NODE_MODULES names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from tests.sail_server import wait_for

_ACCOUNT = "devstoreaccount1"
# Azurite's own, which all have: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-12-02"


def missing() -> str:
    """What is not there to run it; nothing where all is."""
    if not shutil.which("node"):
        return "no node"
    return "" if _program().exists() else "no Azurite: npm install azurite, TOPBILL_NODE_MODULES"


def _program() -> Path:
    folder = Path(os.environ.get("TOPBILL_NODE_MODULES", "."))
    return folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """What a process is given to reach it, while it runs over a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["node", str(_program()), "--blobPort", str(port), "--location", str(folder)]
    server = subprocess.Popen(
        [*command, "--silent", "--disableTelemetry"], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(port, server, 60.0)
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{port}",
            "ALLOW_HTTP": "true",
        }
    finally:
        server.terminate()
        server.wait(60.0)


def fresh_container(environment: dict[str, str]) -> str:
    """A new container's name."""
    name = f"c{uuid4().hex}"
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    # https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
    signed = (
        "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
        f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    )
    digest = hmac.new(base64.b64decode(_KEY), signed.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(  # noqa: S310  (of loopback)
        f"{environment['AZURITE_BLOB_STORAGE_URL']}/{_ACCOUNT}/{name}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
            "Content-Length": "0",
        },
    )
    urllib.request.urlopen(request).close()  # noqa: S310  (of loopback)
    return name
