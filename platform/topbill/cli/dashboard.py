"""Starts the Streamlit dashboards over a data folder; reachable from other machines only with a
login or a password.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from topbill.domain.errors import TopbillError
from topbill.service.auth import is_loopback
from topbill.shipped import shipped

PASSWORD = "TOPBILL_DASHBOARD_PASSWORD"  # noqa: S105  (the name of the variable)
_SHORTEST = 12
_LEAST_SECRET = 32
_SHARED = ("redirect_uri", "cookie_secret")
_PROVIDER = ("client_id", "client_secret", "server_metadata_url")


class Launch(NamedTuple):
    """What to execute: arguments of the Python interpreter, and the environment."""

    arguments: list[str]
    environment: dict[str, str]


def launch(experiments: Path, data: Path, *, host: str = "127.0.0.1", port: int = 8601) -> Launch:
    """How to start the dashboards on `data`, with pictures from `experiments`/artwork.

    Raises NotFound where the app's files are not there, TopbillError where `host` can be reached
    from other machines and there is neither Streamlit's `[auth]` (OIDC) nor a password of at least
    12 characters, or where `[auth]` is half filled, or of no use for want of authlib.
    """
    app = shipped("dashboards") / "app.py"
    secrets = _secrets(app)
    password = os.environ.get(PASSWORD) or ("password" in secrets and secrets["password"].value)
    if not is_loopback(host) and "auth" not in secrets:
        if not password:
            raise TopbillError(
                f"host {host} can be reached from other machines and nobody would have to sign in; set {PASSWORD}, "
                f"or password or [auth] in {app.parent / '.streamlit' / 'secrets.toml'}, or listen on 127.0.0.1"
            )
        if len(str(password)) < _SHORTEST:
            raise TopbillError(
                f"the dashboards' password is shorter than {_SHORTEST} characters; choose a longer one"
            )
    if "auth" in secrets:
        _check_sign_in(*secrets["auth"])
    where = {"TOPBILL_EXPERIMENTS": str(experiments.resolve()), "TOPBILL_DATA": str(data.resolve())}
    flags = ["--server.address", host, "--server.port", str(port), "--server.headless", "true"]
    return Launch(["-m", "streamlit", "run", str(app), *flags], {**os.environ, **where})


def run(experiments: Path, data: Path, *, host: str = "127.0.0.1", port: int = 8601) -> NoReturn:
    """Become the dashboards' process. Raises as `launch` does."""
    arguments, environment = launch(experiments, data, host=host, port=port)
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606  (our own arguments)


def may_look(email: object, allowed: object) -> bool:
    """Whether the signed-in viewer with that verified address may look. `allowed` (of `[auth]`):
    addresses, and domains as `@example.com`; None lets in everybody whom the provider signs in."""
    if allowed is None:
        return True
    known = [str(entry).lower() for entry in allowed] if isinstance(allowed, list | tuple) else []
    address = str(email or "").lower()
    return any(
        address == entry or (entry.startswith("@") and address.endswith(entry)) for entry in known
    )


def _check_sign_in(auth: object, where: Path) -> None:
    """Raises TopbillError for an `[auth]` with which nobody, or the wrong people, could sign in."""
    if find_spec("authlib") is None:
        raise TopbillError(
            "secrets have [auth], but signing in needs authlib, which is not here; pip install authlib"
        )
    if not isinstance(auth, dict):
        raise TopbillError(
            f"{where}: auth is no section; expected [auth] with {', '.join((*_SHARED, *_PROVIDER))}"
        )
    providers = {
        name: held
        for name, held in auth.items()
        if isinstance(held, dict) and name != "client_kwargs"
    }
    missing = [f"auth.{name}" for name in _SHARED if not auth.get(name)]
    for prefix, held in {f"auth.{name}": held for name, held in providers.items()}.items() or [
        ("auth", auth)
    ]:
        missing += [f"{prefix}.{name}" for name in _PROVIDER if not held.get(name)]
    if missing:
        raise TopbillError(
            f"{where}: {', '.join(missing)} missing; without it nobody could sign in; fill it in"
        )
    if not str(auth["redirect_uri"]).endswith("/oauth2callback"):
        raise TopbillError(
            f"{where}: auth.redirect_uri is {auth['redirect_uri']}; expected the dashboards' address "
            "followed by /oauth2callback"
        )
    if len(str(auth["cookie_secret"])) < _LEAST_SECRET:
        raise TopbillError(
            f"{where}: auth.cookie_secret is shorter than {_LEAST_SECRET} characters: sign-ins could be forged; "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    allowed = auth.get("allowed")
    if "allowed" in auth and not (
        isinstance(allowed, list) and allowed and all("@" in str(one) for one in allowed)
    ):
        raise TopbillError(
            f'{where}: auth.allowed is {allowed}; expected a list of addresses or domains, such as ["@example.com"]'
        )


class _Secret(NamedTuple):
    value: object
    file: Path


def _secrets(app: Path) -> dict[str, _Secret]:
    """Streamlit's secrets, from the files that it will read; of two by one name the later
    file's.
    """
    found: dict[str, _Secret] = {}
    for file in _secret_files(app):
        try:
            found |= {
                name: _Secret(value, file)
                for name, value in tomllib.loads(file.read_text()).items()
            }
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise TopbillError(f"{file}: cannot be read: {error}; expected TOML") from error
    return found


def _secret_files(app: Path) -> Iterator[Path]:
    for folder in (Path.home(), Path.cwd(), app.parent):
        file = folder / ".streamlit" / "secrets.toml"
        if file.is_file():
            yield file
