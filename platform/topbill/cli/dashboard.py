"""Starts the Streamlit dashboards over a data folder; reachable from other machines only with a
login or a password.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from topbill.domain.errors import TopbillError
from topbill.lake import database_of
from topbill.reporting.visitors import PASSWORD, PICTURE_HOSTS
from topbill.service.browsers import is_loopback
from topbill.shipped import shipped

_SHORTEST = 12
"""Characters of a password."""
_LEAST_SECRET = 32
"""Characters of the secret that signs cookies."""
# Streamlit's names: what all providers of [auth] share, and what each has.
_SHARED = ("redirect_uri", "cookie_secret")
_PROVIDER = ("client_id", "client_secret", "server_metadata_url")


class StreamlitCommand(NamedTuple):
    """What to execute: arguments of the Python interpreter, and the environment."""

    arguments: list[str]
    environment: dict[str, str]


def launch(
    experiments: Path,
    data: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8601,
    picture_hosts: str | None = None,
) -> StreamlitCommand:
    """How to start the dashboards on `data`, with pictures from `experiments`/artwork, from the
    catalogues' folders, and from `picture_hosts` (with commas; those of the environment if None).

    Raises NotFound where the app's files are not there, TopbillError where `host` can be reached
    from other machines and there is neither Streamlit's `[auth]` (OIDC) nor a password of at least
    12 characters, or where `[auth]` is half filled, or of no use for want of authlib.
    """
    app = shipped("dashboards") / "server.py"
    secrets = _secrets(app)
    # On loopback whoever can look can read the data folder as well.
    if not is_loopback(host) and "auth" not in secrets:
        _check_password(host, app, secrets)
    if "auth" in secrets:
        _check_sign_in(*secrets["auth"])
    where = {"TOPBILL_EXPERIMENTS": str(experiments.resolve()), "TOPBILL_DATA": str(data.resolve())}
    if picture_hosts is not None:
        where[PICTURE_HOSTS] = picture_hosts
    flags = ["--server.address", host, "--server.port", str(port), "--server.headless", "true"]
    return StreamlitCommand(["-m", "streamlit", "run", str(app), *flags], {**os.environ, **where})


def has_record(data: Path) -> bool:
    """Whether there is something to show; where a lake cannot be reached, the pages say why."""
    try:
        return database_of(data).exists()
    except TopbillError:
        return False


def run(
    experiments: Path,
    data: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8601,
    picture_hosts: str | None = None,
) -> NoReturn:
    """Become the dashboards' process. Raises as `launch` does."""
    arguments, environment = launch(
        experiments, data, host=host, port=port, picture_hosts=picture_hosts
    )
    # In place of this process, so that whatever watches over it sees Streamlit's own exit.
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606  (our own arguments)


def _check_password(host: str, app: Path, secrets: Mapping[str, _Secret]) -> None:
    """Raises TopbillError where `host` can be reached from elsewhere and no password keeps people
    out.
    """
    password = os.environ.get(PASSWORD)
    if not password and "password" in secrets:
        password = str(secrets["password"].value or "")
    if not password:
        secrets_file = app.parent / ".streamlit" / "secrets.toml"
        raise TopbillError(
            f"host {host} can be reached from other machines and nobody would have to sign in; "
            f"set {PASSWORD}, or password or [auth] in {secrets_file}, or listen on 127.0.0.1"
        )
    if len(password) < _SHORTEST:
        raise TopbillError(
            f"the dashboards' password is shorter than {_SHORTEST} characters; choose a longer one"
        )


def _check_sign_in(auth: object, where: Path) -> None:
    """Raises TopbillError for an `[auth]` with which nobody, or the wrong people, could sign in."""
    # Streamlit would say so only to the first who tries to sign in.
    if find_spec("authlib") is None:
        raise TopbillError(
            "secrets have [auth], but signing in needs authlib, which is not here; "
            "pip install authlib"
        )
    if not isinstance(auth, dict):
        raise TopbillError(
            f"{where}: auth is no section; expected [auth] with {', '.join((*_SHARED, *_PROVIDER))}"
        )
    missing = _missing_settings(auth)
    if missing:
        raise TopbillError(
            f"{where}: {', '.join(missing)} missing; without it nobody could sign in; fill it in"
        )
    # Streamlit listens for the provider's answer at this one path.
    if not str(auth["redirect_uri"]).endswith("/oauth2callback"):
        raise TopbillError(
            f"{where}: auth.redirect_uri is {auth['redirect_uri']}; expected the dashboards' "
            "address followed by /oauth2callback"
        )
    if len(str(auth["cookie_secret"])) < _LEAST_SECRET:
        raise TopbillError(
            f"{where}: auth.cookie_secret is shorter than {_LEAST_SECRET} characters: sign-ins "
            "could be forged; "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    if "allowed" in auth and not _is_list_of_addresses(auth["allowed"]):
        raise TopbillError(
            f"{where}: auth.allowed is {auth['allowed']}; expected a list of addresses or domains, "
            'such as ["@example.com"]'
        )


def _missing_settings(auth: Mapping[str, Any]) -> list[str]:
    """The settings of `[auth]` that are not there, or empty. Streamlit takes one provider in
    `[auth]` itself, or several in `[auth.NAME]`.
    """
    missing = [f"auth.{name}" for name in _SHARED if not auth.get(name)]
    providers: dict[str, Mapping[str, Any]] = {}
    for name, section in auth.items():
        if isinstance(section, dict) and name != "client_kwargs":
            providers[f"auth.{name}"] = section
    for prefix, section in (providers or {"auth": auth}).items():
        missing += [f"{prefix}.{name}" for name in _PROVIDER if not section.get(name)]
    return missing


def _is_list_of_addresses(allowed: object) -> bool:
    """An empty list would lock everybody out, and a word without @ match nobody."""
    if not isinstance(allowed, list) or not allowed:
        return False
    return all("@" in str(entry) for entry in allowed)


class _Secret(NamedTuple):
    value: object
    file: Path


def _secrets(app: Path) -> dict[str, _Secret]:
    """Streamlit's secrets, from the files that it will read; of two by one name the later
    file's.
    """
    secrets: dict[str, _Secret] = {}
    for file in _secret_files(app):
        try:
            content = tomllib.loads(file.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise TopbillError(f"{file}: cannot be read: {error}; expected TOML") from error
        for name, value in content.items():
            secrets[name] = _Secret(value, file)
    return secrets


def _secret_files(app: Path) -> Iterator[Path]:
    """Where Streamlit looks, in its order."""
    for folder in (Path.home(), Path.cwd(), app.parent):
        file = folder / ".streamlit" / "secrets.toml"
        if file.is_file():
            yield file
