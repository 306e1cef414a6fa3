"""The HTTP service: FastAPI for what people and monitors ask, with the fast path in front of it."""

from __future__ import annotations

import asyncio
import gc
import getpass
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from topbill import __version__, pages, spec
from topbill.domain.errors import FileProblem, LogError, NotFound, SpecError, TopbillError
from topbill.domain.records import Decision
from topbill.engine import CompiledExperiment, Engine
from topbill.log import LOG_FILE, open_log
from topbill.service import openapi, telemetry
from topbill.service.bodies import problem
from topbill.service.fast_path import FastPath, Receive, Scope, Send
from topbill.service.page import PageService
from topbill.service.personalizer import Personalizer
from topbill.service.personalizer import openapi as personalizer_openapi
from topbill.service.writer import GroupWriter

_logger = logging.getLogger("topbill")
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Settings:
    """What a service is started with."""

    experiments: Path
    data: Path
    keys: tuple[bytes, ...] = ()

    @property
    def log_path(self) -> Path:
        """The log's file in the data folder."""
        return self.data / LOG_FILE


def create_app(settings: Settings) -> FastPath:
    """The ASGI application. Raises SpecError when an experiment file can't be used, LogError for
    the log.
    """
    app = FastAPIOffline(  # its page at /docs needs nothing from elsewhere
        swagger_ui_parameters={"validatorUrl": None},
        title="Topbill",
        version=__version__,
        summary="Decides what a viewer sees on a streaming homepage, and logs with which probability.",
        lifespan=lambda app: _lifespan(app, settings, hot),
    )

    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        below = scope["type"] == "http" and scope["path"].startswith("/personalizer/")
        await (personalizer if below else app)(scope, receive, send)

    hot: FastPath = FastPath(rest, settings.keys)
    personalizer = Personalizer(hot)
    experiments = spec.load_all(pages.experiment_folders(settings.experiments))
    hot.engine = Engine(experiments)
    hot.pages = PageService(settings.data, hot.engine)
    hot.pages.reload(pages.load_all(settings.experiments, experiments))
    hot.add("/v1/page", pages.PageRequest, hot.pages.page)
    hot.rewards.spread, hot.rewards.engine = hot.pages.spread, hot.engine
    _add_routes(app, hot, settings)
    _add_error_handlers(app)
    plain = app.openapi
    app.openapi = lambda: app.openapi_schema or _documented(plain())  # type: ignore[method-assign]
    return hot


def from_environment() -> FastPath:
    """The application of a worker process, configured by the variables that `topbill serve`
    sets.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    keys = tuple(
        key.encode() for key in os.environ.get("TOPBILL_WORKER_KEYS", "").split("\n") if key
    )
    return create_app(
        Settings(Path(os.environ["TOPBILL_EXPERIMENTS"]), Path(os.environ["TOPBILL_DATA"]), keys)
    )


def _end_with(parent: BaseProcess) -> None:
    """Workers whose parent is gone would hold its port for ever."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings, hot: FastPath) -> AsyncIterator[None]:
    hot.log = open_log(settings.log_path)
    hot.writer = GroupWriter(settings.log_path, asyncio.get_running_loop())
    for part in (hot.pages, hot.rewards):
        part.log, part.writer = hot.log, hot.writer
    follower = app.state.follower = Follower(settings, hot.engine, hot.pages)
    follower.step()
    gc.freeze()  # what is loaded now stays: no collection has to walk through it again
    gc.set_threshold(20_000, 50, 50)
    task = asyncio.create_task(_follow(follower))
    try:
        yield
    finally:
        task.cancel()
        hot.writer.close()
        try:
            hot.log.tend()
        except LogError as error:
            _logger.warning(
                "%s; the journal keeps what waits, and the next to open the log moves it", error
            )
        hot.log.close()


async def _follow(follower: Follower) -> None:
    said = ""
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        try:
            await asyncio.to_thread(follower.step)
            said = ""
        except Exception as error:
            # It must never end: the service would go on deciding, for ever, with what it has now.
            if str(error) != said:
                defect = None if isinstance(error, TopbillError) else error
                _logger.warning("%s; trying again", error, exc_info=defect)
            said = str(error)


class Follower:
    """Keeps an engine and its pages up to date with the files, the newest policy snapshots and what
    viewers did.
    """

    def __init__(self, settings: Settings, engine: Engine, desk: PageService | None = None) -> None:
        self._folder = settings.experiments
        self._engine = engine
        self._desk = desk
        self._log = open_log(settings.log_path)
        self._seen: dict[Path, tuple[int, int]] = {}
        self._tried: dict[str, tuple[CompiledExperiment, int]] = {}
        self._refused: tuple[FileProblem, ...] = ()

    @property
    def refused(self) -> tuple[FileProblem, ...]:
        """What is wrong with the files as they are now, catalogues with them; what was there before
        is served.
        """
        return self._refused if self._desk is None else (*self._refused, *self._desk.stale)

    def step(self) -> None:
        """Move the journal into the log, reload changed files (a broken one leaves all as they
        were), note revisions, adopt new snapshots."""
        self._log.check()
        self._log.tend()
        now = spec.marks(self._folder)
        if now != self._seen:
            try:
                experiments = spec.load_all(pages.experiment_folders(self._folder))
                files = pages.load_all(
                    self._folder, experiments
                )  # first: pages never lose an experiment to a bad edit
                self._engine.reload(experiments)
                if self._desk is not None:
                    self._desk.reload(files)
                self._refused = ()
            except TopbillError as error:
                _logger.warning("experiments stay as they were:\n%s", error)
                self._refused = _problems(error)
            for key, live in self._engine.experiments.items():
                self._log.revise(
                    key, live.revision, _who(), msgspec.json.encode(live.experiment.raw).decode()
                )
            self._seen = (
                now  # only now: where the log could not take a revision, the next step tries again
            )
        for key, live in self._engine.experiments.items():
            newest = self._log.version(key)
            if newest > live.version and self._tried.get(key) != (live, newest):
                self._tried[key] = (live, newest)
                snapshot = self._log.snapshot(key, newest)
                if snapshot is not None:
                    live.adopt(snapshot)
            telemetry.POLICY_VERSION.labels(key).set(live.version)
        if self._desk is not None:
            self._desk.follow(self._log)


def _problems(error: TopbillError) -> tuple[FileProblem, ...]:
    if isinstance(error, SpecError):
        return error.problems
    return (FileProblem("pages", "catalogue", str(error), "a catalogue that can be read"),)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _add_routes(app: FastAPI, hot: FastPath, settings: Settings) -> None:
    @app.get("/healthz", tags=["operations"], summary="The process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/readyz", tags=["operations"], summary="It can decide and store")
    async def readyz(response: Response) -> dict[str, Any]:
        failures = {
            key: live.failures for key, live in hot.engine.experiments.items() if live.failures
        }
        try:
            hot.log.check()
            hot.log.version("")
            if (
                hot.writer.failing
            ):  # a service that gets no more requests must still find out when it can store again
                await asyncio.to_thread(_try_writing, settings)
            refused = sorted({problem.file for problem in app.state.follower.refused})
            held = {
                "experiments": len(hot.engine.experiments),
                "refused_files": refused,
                "policy_failures": failures,
            }
            return {"status": "ready", **held}
        except Exception as error:
            response.status_code = 503
            return {"status": "unavailable", "log": str(error)}

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
        refused = [
            {"file": p.file, "path": p.path, "message": p.message}
            for p in app.state.follower.refused
        ]
        return {
            "experiments": [_line(live) for live in hot.engine.experiments.values()],
            "refused": refused,
        }

    @app.get(
        "/v1/experiments/{key}", tags=["experiments"], summary="One experiment with its whole file"
    )
    async def experiment(key: str) -> dict[str, Any]:
        live = hot.engine.find(key)
        return {**_line(live), "spec": live.experiment.raw}

    @app.get(
        "/v1/pages/{page_id}/why",
        tags=["experiments"],
        summary="What the rules did with a title on a page",
    )
    async def why(page_id: str, title: str) -> dict[str, Any]:
        return hot.pages.why(page_id, title, hot.log)

    @app.get(
        "/v1/decisions/{decision_id:path}",
        tags=["experiments"],
        summary="A stored decision, explained",
    )
    async def decision(decision_id: str) -> Response:
        held = hot.log.decision(decision_id)
        if held is None:
            raise NotFound(f"decision {decision_id!r} is not in the log")
        explained = await asyncio.to_thread(_explained, settings, hot.engine, held)
        return Response(msgspec.json.encode(explained), media_type="application/json")


def _try_writing(settings: Settings) -> None:
    with closing(open_log(settings.log_path)) as log:
        log.probe()


def _documented(document: dict[str, Any]) -> dict[str, Any]:
    return personalizer_openapi.extend(openapi.extend(document))


def _line(live: CompiledExperiment) -> dict[str, Any]:
    experiment = live.experiment
    return {
        "key": experiment.key,
        "title": experiment.title,
        "surface": experiment.surface,
        "status": experiment.status,
        "revision": live.revision,
        "policy_version": live.version,
        "slots": experiment.slots,
        "actions": len(experiment.actions),
        "variants": {
            v.name: {"policy": v.policy, "share": v.share, "control": v.control}
            for v in experiment.variants
        },
    }


def _explained(settings: Settings, engine: Engine, held: Decision) -> dict[str, Any]:
    log = open_log(settings.log_path)
    try:
        snapshot = (
            log.snapshot(held.experiment, held.policy_version) if held.policy_version else None
        )
        return {
            **msgspec.structs.asdict(held),
            "slate": [msgspec.structs.asdict(placement) for placement in held.slate],
            "scores": engine.explain(held, snapshot),
            "rewards": [msgspec.structs.asdict(event) for event in log.events(held.decision_id)],
        }
    finally:
        log.close()


def _add_error_handlers(app: FastAPI) -> None:
    def reply(status: int, code: str, message: str) -> Response:
        return Response(problem(code, message), status, media_type="application/json")

    @app.exception_handler(NotFound)
    async def not_found(_: Request, error: NotFound) -> Response:
        return reply(404, "not_found", str(error))

    @app.exception_handler(LogError)
    async def log_error(_: Request, error: LogError) -> Response:
        return reply(503, "log_unavailable", str(error))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return reply(
            error.status_code,
            "not_found" if error.status_code == 404 else "refused",
            str(error.detail),
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]  # its own text names files of this machine
        return reply(422, "invalid", f"{' '.join(map(str, first['loc']))}: {first['msg']}")
