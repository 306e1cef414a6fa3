"""Starts the Streamlit dashboards over a data folder; reachable from other machines only with a login or a password."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from topbill.errors import NotFound, TopbillError
from topbill.service.auth import is_loopback

PASSWORD = "TOPBILL_DASHBOARD_PASSWORD"  # noqa: S105  (the name of the variable)
_SHORTEST = 12


class Launch(NamedTuple):
    """What to execute: arguments of the Python interpreter, and the environment."""

    arguments: list[str]
    environment: dict[str, str]


def launch(experiments: Path, data: Path, *, host: str = "127.0.0.1", port: int = 8601) -> Launch:
    """How to start the dashboards on `data`, with pictures from `experiments`/artwork.

    Raises NotFound where the app's files are not there, TopbillError where `host` can be reached from other machines
    and there is neither Streamlit's `[auth]` (OIDC) nor a password of at least 12 characters, or where `[auth]` is
    of no use for want of authlib.
    """
    app = _app()
    secrets = _secrets(app)
    password = os.environ.get(PASSWORD) or secrets.get("password")
    if not is_loopback(host) and "auth" not in secrets:
        if not password:
            raise TopbillError(
                f"host {host} can be reached from other machines and nobody would have to sign in; set {PASSWORD}, "
                f"or password or [auth] in {app.parent / '.streamlit' / 'secrets.toml'}, or listen on 127.0.0.1"
            )
        if len(str(password)) < _SHORTEST:
            raise TopbillError(f"the dashboards' password is shorter than {_SHORTEST} characters; choose a longer one")
    if "auth" in secrets and find_spec("authlib") is None:
        raise TopbillError("secrets have [auth], but signing in needs authlib, which is not here; pip install authlib")
    where = {"TOPBILL_EXPERIMENTS": str(experiments.resolve()), "TOPBILL_DATA": str(data.resolve())}
    flags = ["--server.address", host, "--server.port", str(port), "--server.headless", "true"]
    return Launch(["-m", "streamlit", "run", str(app), *flags], {**os.environ, **where})


def run(experiments: Path, data: Path, *, host: str = "127.0.0.1", port: int = 8601) -> NoReturn:
    """Become the dashboards' process. Raises as `launch` does."""
    arguments, environment = launch(experiments, data, host=host, port=port)
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606  (our own arguments)


def _app() -> Path:
    """`dashboards/app.py` beside the package's source, or below the working directory."""
    places = [folder / "dashboards" / "app.py" for folder in (Path(__file__).resolve().parents[2], Path.cwd())]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise NotFound(f"{places[-1]}: no such file; run this in a folder that has the project's dashboards/")
    return found


def _secrets(app: Path) -> dict[str, object]:
    """Streamlit's secrets, from the files that it will read."""
    found: dict[str, object] = {}
    for file in _secret_files(app):
        try:
            found |= tomllib.loads(file.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise TopbillError(f"{file}: cannot be read: {error}; expected TOML") from error
    return found


def _secret_files(app: Path) -> Iterator[Path]:
    for folder in (Path.home(), Path.cwd(), app.parent):
        file = folder / ".streamlit" / "secrets.toml"
        if file.is_file():
            yield file
