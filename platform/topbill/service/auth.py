"""Which key a request carries, and what it must allow. Nobody needs a key on loopback, everybody
needs one elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from topbill.domain.errors import TopbillError
from topbill.service.browsers import is_loopback
from topbill.service.keys import Keys, keys_of_environment, read_keys

# Load balancers and orchestrators ask these, and seldom can send a key.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_SCOPES = {
    "/v1/decide": "decide",
    "/v1/decide/batch": "decide",
    "/v1/page": "decide",
    "/v1/reward": "reward",
    "/v1/reward/batch": "reward",
    "/v1/event": "reward",
    "/v1/event/batch": "reward",
    "/v1/intake/segment": "reward",
    "/v1/intake/snowplow": "reward",
}
_PEOPLE = ("/v1/decisions/", "/v1/pages/", "/v1/profiles/")
"""Below these stands what single viewers were shown, did, and may see."""


def load_keys(host: str, file: Path | None) -> Keys:
    """The accepted keys: those of `file`, or of TOPBILL_KEYS, which is taken out of the
    environment.

    Raises TopbillError where the file can't be used, a key is too short to be one, or there is none
    and `host` is not loopback.
    """
    of_environment = keys_of_environment()
    keys = of_environment if file is None else read_keys(file)
    if not keys.entries and not is_loopback(host):
        raise TopbillError(
            f"host {host} can be reached from other machines and no keys are set; "
            "give --keys FILE or TOPBILL_KEYS, or listen on 127.0.0.1"
        )
    return keys


def scope_of(method: str, path: str) -> str:
    """The scope that a request needs. A route that nothing is said of here and that does more than
    read needs `admin`: one that is added later is never open by mistake."""
    scope = _SCOPES.get(path)
    if scope is not None:
        return scope
    if path.startswith("/ofrep/"):
        return "decide"
    if path.startswith("/personalizer/"):
        return "reward" if path.endswith("/reward") else "decide"
    return "read" if method in ("GET", "HEAD") else "admin"


def is_about_people(path: str) -> bool:
    """Whether what is answered there is of a single viewer."""
    return path.startswith(_PEOPLE)


def presented(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The keys that the headers carry, as `Authorization: Bearer KEY`, `X-Api-Key: KEY` or, as
    Azure's clients do, `Ocp-Apim-Subscription-Key: KEY`."""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:]
        elif name in (b"x-api-key", b"ocp-apim-subscription-key"):
            yield value
