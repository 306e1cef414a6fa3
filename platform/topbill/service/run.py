"""Start the HTTP service: one process, or several that share the port."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import uvicorn

from topbill.domain.errors import TopbillError
from topbill.log import open_log
from topbill.service.app import Settings, create_app
from topbill.service.buffered import BufferedProtocol


def serve(
    experiments: Path, data: Path, *, host: str, port: int, processes: int, keys: tuple[bytes, ...]
) -> None:
    """Serve until stopped. Raises SpecError, LogError and TopbillError before it listens, where it
    could not decide, store or listen."""
    settings = Settings(experiments, data, keys)
    app = create_app(
        settings
    )  # whatever is wrong with the files is said once, before any process starts
    open_log(settings.log_path).close()
    _check_address(host, port)
    common = {
        "host": host,
        "port": port,
        "loop": "uvloop",
        "http": BufferedProtocol,
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 5,
    }
    if processes == 1:
        uvicorn.run(app, **common)  # type: ignore[arg-type]
        return
    shared = data / "metrics"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    os.environ |= {
        "TOPBILL_EXPERIMENTS": str(experiments),
        "TOPBILL_DATA": str(data),
        "TOPBILL_WORKER_KEYS": b"\n".join(keys).decode(),
        "PROMETHEUS_MULTIPROC_DIR": str(shared),
    }
    uvicorn.run("topbill.service.app:from_environment", factory=True, workers=processes, **common)  # type: ignore[arg-type]


def _check_address(host: str, port: int) -> None:
    try:
        socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ).close()
    except OSError as error:
        reason = error.strerror or error
        raise TopbillError(
            f"{host}:{port}: cannot listen there: {reason}; choose another --port or --host"
        ) from error
