"""Start the HTTP service: one process, or several that share the port."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import socket
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from topbill import process_log, tracing
from topbill.domain.errors import BadRequest, TopbillError
from topbill.lake.home import check_home
from topbill.lake.shared_files import keep_alike
from topbill.log import REMEMBERED_FOR, is_shared
from topbill.migration import migrate
from topbill.service import audit
from topbill.service.app import create_app
from topbill.service.connections import BoundedProtocol, raise_file_limit, room
from topbill.service.drain import VARIABLE as DRAIN
from topbill.service.keys import Keys
from topbill.service.settings import Settings
from topbill.service.spool import Spool
from topbill.service.traced import traced

_logger = logging.getLogger("topbill")


def serve(
    experiments: Path,
    data: Path,
    *,
    host: str,
    port: int,
    processes: int,
    keys: Keys,
    drain: float = 0.0,
    host_names: tuple[str, ...] = (),
    audit_file: Path | None = None,
    remember: float = REMEMBERED_FOR,
    override_file: Path | None = None,
    spool: Path | None = None,
) -> None:
    """Serve until stopped, and then for `drain` seconds more, in which it is not ready.

    Raises SpecError, LogError and TopbillError before it listens, where it could not decide, store
    or listen.
    """
    settings = Settings(
        experiments,
        data,
        keys,
        host_names=host_names,
        audit=audit_file,
        remember=remember,
        override_file=override_file,
        spool=spool,
    )
    if spool is not None:
        _check_spool(settings, spool, processes)
    audit.write_to(settings.audit)
    # Before anything opens the folder: the rest of the service knows one schema version.
    for sentence in _migrated(data):
        _logger.warning("%s", sentence)
    check_home(data)
    keep_alike(data)
    # Whatever is wrong with the files, the log or the address is said once, before any process
    # starts and says it in a loop.
    app = create_app(settings)
    settings.open_log().close()
    _check_address(host, port)
    tracing.check()
    os.environ[DRAIN] = str(drain)
    raise_file_limit()
    _, backlog = room()
    common = {
        "host": host,
        "port": port,
        "loop": "uvloop",
        "http": BoundedProtocol,
        "ws": "none",
        "backlog": backlog,
        "access_log": False,
        "log_level": "warning",
        # With its own configuration its lines would not be of the form asked for.
        "log_config": None if process_log.is_json() else LOGGING_CONFIG,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 5,
    }
    if processes == 1:
        tracing.start("service")
        uvicorn.run(traced(app, app.route_of), **common)  # type: ignore[arg-type]
        return
    # Each process counts for itself; whichever is asked for /metrics adds all up from this folder,
    # which other services over the data folder must not empty.
    shared = data / "metrics" / f"{socket.gethostname()}-{port}"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    os.environ |= settings.to_environment()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
    uvicorn.run("topbill.service.app:from_environment", factory=True, workers=processes, **common)  # type: ignore[arg-type]


def _check_spool(settings: Settings, spool: Path, processes: int) -> None:
    """Raises BadRequest where nothing would be kept in it, LogError where nothing can be."""
    if not is_shared(settings.data):
        raise BadRequest("--spool", "got a log of this machine's own; expected one by --log URL")
    if processes > 1:
        raise BadRequest(
            "--spool",
            f"got --processes {processes}; expected one process, and for each more a service with "
            "a spool of its own",
        )
    Spool(spool, settings.open_log).close()


def _migrated(data: Path) -> list[str]:
    """What `migrate` says. Where forks are cheap and safe, in a process of its own: with it ends
    what the libraries of the lake take of memory.
    """
    if sys.platform != "linux":
        return migrate(data)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as own:
        return own.submit(migrate, data).result()


def _check_address(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise TopbillError(
            f"{host}:{port}: cannot listen there: {reason}; choose another --port or --host"
        ) from error
