"""The HTTP service: FastAPI for what people and monitors ask, with the fast path in front of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from enum import Enum
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from topbill import __version__, pages, process_log, tracing
from topbill.domain.collecting import collect_rarely
from topbill.domain.errors import BadRequest, LogError, Malformed, NotFound
from topbill.engine import CompiledExperiment, Engine
from topbill.entities import EntityStore
from topbill.log import Log
from topbill.log.unit_ids import unit_ids
from topbill.service import audit, openapi, telemetry, worker_health
from topbill.service.admission import Admission
from topbill.service.asgi import (
    LARGEST_BODY,
    SOON,
    App,
    Receive,
    Scope,
    Send,
    read_body,
)
from topbill.service.backend import Backend
from topbill.service.bodies import problem
from topbill.service.drain import Drain
from topbill.service.explained import explained
from topbill.service.fast_path import FastPath
from topbill.service.follower import AssignmentChange, Follower, follow
from topbill.service.ofrep import openapi as ofrep_openapi
from topbill.service.page import PageService
from topbill.service.personalizer import Personalizer
from topbill.service.personalizer import openapi as personalizer_openapi
from topbill.service.profiles import Profiles
from topbill.service.settings import Settings
from topbill.service.traced import traced

_LONGEST_WAIT = 2e-4
"""Seconds that the event loop waits for another thread, each time that it comes back from the
system. By default it is 5 ms: while the journal is drained, every answer would wait for several
times as long."""
_SERVER = re.compile(r'postgresql://[^\s;,]*|(socket )?"[^"]*"( \([^)]*\))?(, port \d+)?')
"""The URL of a log, and what a server is called where it says what it refused."""
_PATH = re.compile(r"(?<![\w/])/[\w.~-]+/[^\s:;,'\")]+")
"""An absolute path of at least two steps."""


def create_app(settings: Settings) -> FastPath:
    """The ASGI application. Raises SpecError when an experiment or page file can't be used. The log
    is opened when the application starts.
    """
    experiments = pages.load_experiments(settings.experiments)
    tables = EntityStore(settings.data, unit_ids(settings.data).stored)
    backend = Backend(settings, Engine((), tables=tables))
    backend.on_erasure.append(tables.forget)
    experiments = backend.unit_ids.in_experiments(experiments)
    backend.engine.reload(experiments)
    backend.engine.warm_up()
    page_service = PageService(backend)
    page_service.reload(pages.load_all(settings.experiments, experiments))

    admission = Admission(settings.keys, settings.host_names)
    app = FastAPIOffline(  # its page at /docs needs nothing from elsewhere
        swagger_ui_parameters={"validatorUrl": None},
        title="Topbill",
        version=__version__,
        summary="Decides what a viewer sees on a streaming homepage, "
        "and logs with which probability.",
        lifespan=lambda app: _lifespan(app, backend, page_service, admission),
    )
    personalizer = Personalizer(backend)

    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        below = scope["type"] == "http" and scope["path"].startswith("/personalizer/")
        await (personalizer if below else app)(scope, receive, send)

    _add_routes(app, backend, page_service)
    _add_profile_routes(app, Profiles(backend, page_service))
    _add_error_handlers(app)
    plain = app.openapi
    app.openapi = lambda: app.openapi_schema or _documented(plain())  # type: ignore[method-assign]
    return FastPath(rest, backend, page_service, admission)


def from_environment() -> App:
    """The application of one of several processes, configured by the variables that `topbill serve`
    sets.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    process_log.configure_from_environment()
    settings = Settings.from_environment()
    audit.write_to(settings.audit)
    tracing.start("service")
    app = create_app(settings)
    return traced(app, app.route_of)


def _end_with(parent: BaseProcess) -> None:
    """Processes whose parent is gone would hold its port for ever."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def _lifespan(
    app: FastAPI, backend: Backend, page_service: PageService, admission: Admission
) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    backend.open(loop)
    app.state.drain = Drain.from_environment()
    app.state.drain.install(loop)
    # Closed in the other order: nobody may step a follower, or wait for a writer, that is closed.
    with (
        closing(backend),
        closing(Follower(backend.settings, backend.engine, page_service)) as follower,
    ):
        app.state.follower = follower
        # Before the first request: what was learned is served from the start, and the revisions
        # that decisions name are in the log before any decision.
        follower.step()
        collect_rarely()
        sys.setswitchinterval(_LONGEST_WAIT)
        stopped = asyncio.Event()
        following = asyncio.create_task(follow(follower, stopped, backend.forget_viewers))
        admission.queue.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            stopped.set()
            await following


def _add_routes(app: FastAPI, backend: Backend, page_service: PageService) -> None:
    engine, data = backend.engine, backend.settings.data

    @app.get("/healthz", tags=["operations"], summary="The process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    def unready(response: Response, answer: dict[str, Any]) -> dict[str, Any]:
        response.status_code = 503
        response.headers["retry-after"] = SOON[1].decode()
        return answer

    @app.get("/readyz", tags=["operations"], summary="It can decide and store")
    async def readyz(response: Response) -> dict[str, Any]:
        if app.state.drain.begun:
            return unready(response, {"status": "draining"})
        spool = backend.spool
        try:
            clock, worker, duties = await backend.quick(_checked)
            if backend.writer.failing:
                # A service that gets no more requests must still find out when it can store again.
                await asyncio.to_thread(_try_writing, backend.settings)
        except Exception as error:
            # Anybody may ask, without a key: why, but not where.
            why = _without_paths(str(error), data)
            if spool is not None and isinstance(error, LogError) and not backend.writer.failing:
                away = worker_health.Trouble(
                    "log_away", f"{why}; what comes meanwhile is kept here"
                )
                return {"status": "ready", "troubles": [msgspec.structs.asdict(away)]}
            return unready(response, {"status": "unavailable", "log": why})
        if clock is not None:
            jumped = msgspec.structs.asdict(worker_health.Trouble("clock_jumped", clock))
            return unready(response, {"status": "unavailable", "troubles": [jumped]})
        troubles = [*worker_health.troubles(worker), *page_service.troubles]
        if worker.alive:
            running = [k for k, c in engine.experiments.items() if c.experiment.status == "running"]
            troubles += worker_health.learning_troubles(duties, running)
        if spool is not None and not spool.is_empty:
            message = f"{spool.size:,} bytes of decisions and rewards wait for the log"
            troubles.append(worker_health.Trouble("spooled", message))
        for key in sorted(app.state.follower.unreadable):
            message = f"the newest version of {key} cannot be read; an earlier one is used"
            troubles.append(worker_health.Trouble("snapshot_unreadable", message))
        for key, revision in sorted(app.state.follower.other_files.revisions.items()):
            message = f"{key}: runs by revision {revision} of another process: its files are others"
            troubles.append(worker_health.Trouble("files_differ", message))
        for (file, table), place in sorted(engine.tables.places.items()):
            # Where, but not what stands there.
            goes_on = "cannot be used; the last good version goes on, where there was one"
            message = f"{file}: table {table}: {place} {goes_on}"
            troubles.append(worker_health.Trouble("table_refused", message))
        # Anybody may ask, without a key: which files, but not what stands in them.
        files = sorted({problem.file for problem in app.state.follower.problems})
        return {
            "status": "ready",
            "experiments": len(engine.experiments),
            "problems": [{"file": file} for file in files],
            "policy_failures": {
                key: {name: _without_paths(why, data) for name, why in compiled.failures.items()}
                for key, compiled in engine.experiments.items()
                if compiled.failures
            },
            "worker": msgspec.structs.asdict(worker),
            "troubles": [msgspec.structs.asdict(trouble) for trouble in troubles],
        }

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Prometheus metrics",
        response_class=PlainTextResponse,
    )
    async def metrics() -> Response:
        page = telemetry.exposition("PROMETHEUS_MULTIPROC_DIR" in os.environ)
        return Response(page, media_type="text/plain; version=0.0.4")

    @app.get(
        "/v1/experiments",
        tags=["experiments"],
        summary="Every experiment, and what is wrong with the files",
    )
    async def experiments() -> dict[str, Any]:
        follower = app.state.follower
        problems = follower.problems
        return {
            "experiments": [
                _line(compiled) | _shares_changed(follower.changes.get(key))
                for key, compiled in engine.experiments.items()
            ],
            "problems": [
                {
                    "file": problem.file,
                    "line": problem.line or None,
                    "path": problem.path,
                    "message": problem.message,
                }
                for problem in problems
            ],
            "notes": [
                {"file": page.file.source, "message": note}
                for page in page_service.compiled_pages.values()
                for note in page_service.notes(page)
            ],
        }

    @app.get(
        "/v1/experiments/{key}", tags=["experiments"], summary="One experiment with its whole file"
    )
    async def experiment(key: str) -> dict[str, Any]:
        compiled = engine.find(key)
        return {**_line(compiled), "spec": compiled.experiment.raw}

    @app.get(
        "/v1/pages/{page_id}/why",
        tags=["experiments"],
        summary="What the rules did with a title on a page",
    )
    async def why(page_id: str, title: str) -> dict[str, Any]:
        return await page_service.why(page_id, title)

    @app.get(
        "/v1/decisions/{decision_id:path}",
        tags=["experiments"],
        summary="A stored decision, explained",
    )
    async def decision(decision_id: str) -> Response:
        stored = (await backend.find([decision_id])).get(decision_id)
        if stored is None:
            raise NotFound(f"decision {decision_id!r} is not in the log")
        engine = backend.engine
        answer = await backend.read(lambda log: explained(log, engine, stored, data))
        return Response(msgspec.json.encode(answer), media_type="application/json")


def _add_profile_routes(app: FastAPI, profiles: Profiles) -> None:
    # Scopes: a key that asks for pages must not be able to lift the limits that its calls forget,
    # so setting and removing them takes `admin`, as every route does that is not named in `auth`.
    path = "/v1/profiles/{profile:path}"
    tags: list[str | Enum] = ["profiles"]

    # Merging may not lift a limit, but it shows one viewer's history to another: `admin` too.
    @app.post(f"{path}/merge", tags=tags, summary="A guest signed in: the profile knows their past")
    async def merge(profile: str, request: Request) -> Response:
        body = await read_body(request.receive)
        if body is None:
            return _too_large()
        return _json(await profiles.merge(profile, body))

    @app.put(path, tags=tags, summary="Set what a profile may see, whatever page calls say")
    async def change(profile: str, request: Request) -> Response:
        body = await read_body(request.receive)
        if body is None:
            return _too_large()
        return _json(await profiles.change(profile, body))

    @app.get(path, tags=tags, summary="What is set of a profile")
    async def show(profile: str) -> Response:
        return _json(await profiles.show(profile))

    @app.delete(path, tags=tags, summary="Remove what is set of a profile", status_code=204)
    async def remove(profile: str) -> Response:
        await profiles.remove(profile)
        return Response(status_code=204)


def _too_large() -> Response:
    return _refused(413, "too_large", f"body over {LARGEST_BODY:,} bytes; send less at once")


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _refused(status: int, code: str, message: str, path: str | None = None) -> Response:
    soon = {name.decode(): value.decode() for name, value in [SOON] if status == 503}
    return Response(problem(code, message, path), status, soon, "application/json")


def _without_paths(sentence: str, data: Path) -> str:
    """The sentence without where things lie on this machine."""
    for folder in (str(data.resolve()), str(data)):
        sentence = sentence.replace(folder, "data")
    return _PATH.sub("…", _SERVER.sub("…", sentence))


def _checked(log: Log) -> tuple[str | None, worker_health.WorkerHealth, worker_health.Duties]:
    """What is wrong with the clock, how the worker is, and what is said of what workers do. Raises
    whatever keeps the service from reading.
    """
    log.check()
    log.version("")
    return log.clock_trouble(), worker_health.worker_health(log), worker_health.duties(log)


def _try_writing(settings: Settings) -> None:
    with settings.open_log() as log:
        log.probe()


def _documented(document: dict[str, Any]) -> dict[str, Any]:
    return ofrep_openapi.extend(personalizer_openapi.extend(openapi.extend(document)))


def _line(compiled: CompiledExperiment) -> dict[str, Any]:
    """What a list of experiments says of one."""
    experiment = compiled.experiment
    return {
        "key": experiment.key,
        "title": experiment.title,
        "surface": experiment.surface,
        "status": experiment.status,
        "revision": compiled.revision,
        "policy_version": compiled.version,
        "slots": experiment.slots,
        "actions": len(experiment.actions),
        **_in_shadow(compiled),
        "variants": {
            v.name: {"policy": v.policy, "share": v.share, "control": v.control}
            for v in experiment.variants
        },
    }


def _in_shadow(compiled: CompiledExperiment) -> dict[str, Any]:
    """The variants that decide unseen, where some do, and the last failure of each."""
    names = [shadow.variant.name for shadow in compiled.shadows]
    failures = {name: compiled.shadow_failures.get(name) for name in names}
    return {"shadow": failures} if failures else {}


def _shares_changed(change: AssignmentChange | None) -> dict[str, Any]:
    """A note where units were given other variants on the way."""
    if change is None:
        return {}
    return {"shares_changed": {"at": change.when, "changed": change.changed}}


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(NotFound)
    async def not_found(_: Request, error: NotFound) -> Response:
        return _refused(404, "not_found", str(error))

    @app.exception_handler(BadRequest)
    async def bad_request(_: Request, error: BadRequest) -> Response:
        status, code = (400, "malformed") if isinstance(error, Malformed) else (422, "invalid")
        return _refused(status, code, error.message, error.path)

    @app.exception_handler(LogError)
    async def log_error(_: Request, error: LogError) -> Response:
        return _refused(503, "log_unavailable", str(error))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return _refused(
            error.status_code,
            "not_found" if error.status_code == 404 else "refused",
            str(error.detail),
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]  # its own text names files of this machine
        return _refused(422, "invalid", f"{' '.join(map(str, first['loc']))}: {first['msg']}")
