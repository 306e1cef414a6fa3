"""Start the HTTP service: one process, or several that share the port."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import uvicorn

from topbill.service.app import Settings, create_app


def serve(experiments: Path, data: Path, *, host: str, port: int, workers: int, keys: tuple[bytes, ...]) -> None:
    """Serve until stopped. Raises SpecError and LogError before it listens, where it could not decide or store."""
    settings = Settings(experiments, data, keys)
    app = create_app(settings)  # whatever is wrong with the files is said once, before any worker starts
    common = {
        "host": host,
        "port": port,
        "loop": "uvloop",
        "http": "httptools",
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 5,
    }
    if workers == 1:
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
    uvicorn.run("topbill.service.app:from_environment", factory=True, workers=workers, **common)  # type: ignore[arg-type]
