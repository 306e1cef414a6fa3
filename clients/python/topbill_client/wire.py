"""What the sync and the async client share: requests, deadlines, when to try again, and when to
leave a service alone.

No input or output happens here, so that both clients are a loop of a few lines around it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from topbill_client.choice import Choice, default_choice
from topbill_client.errors import BadRequest, Conflict, NotFound, TopbillError, Unavailable
from topbill_client.page import Merged, Page, default_page

TRANSIENT = (httpx.TransportError, TimeoutError)
"""What a later attempt may get past."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_choice, _page = msgspec.json.Decoder(Choice), msgspec.json.Decoder(Page)
_merged = msgspec.json.Decoder(Merged)
_encode = msgspec.json.Encoder().encode
Answer = TypeVar("Answer")
_logger = logging.getLogger("topbill")


@dataclass(frozen=True, slots=True)
class Settings:
    """`deadline` (seconds) is for a whole decide or page, its retries included. After `trips` of
    them in a row that failed, the service is left alone for `rest` seconds and defaults are
    returned at once."""

    address: str
    key: str | None = None
    deadline: float = 0.25
    retries: int = 2
    trips: int = 3
    rest: float = 1.0
    strict: bool = False

    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        key = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {"content-type": "application/json", **key}


class Remaining(dict[str, float]):
    """httpx's `timeout` extension that gives every phase of a request what is left of one
    deadline.
    """

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def get(self, _phase: str, _default: Any = None) -> float:
        """Seconds until the deadline, never 0: that would mean no waiting at all."""
        return max(0.001, self.until - time.monotonic())


class Breaker:
    """Counts decides that failed in a row; when there are too many, it is open for a while."""

    def __init__(self, trips: int, rest: float) -> None:
        self._trips, self._rest = trips, rest
        self._lock = threading.Lock()
        self._failed = 0
        self._until = 0.0

    def closed(self) -> bool:
        """Whether to ask the service. After a rest one caller is let through, and the others wait
        for its news.
        """
        if self._failed < self._trips:
            return True
        with self._lock:
            if time.monotonic() < self._until:
                return False
            self._until = time.monotonic() + self._rest
            return True

    def tell(self, answered: bool) -> None:
        """The service answered, or it did not."""
        if answered and self._failed == 0:
            return
        with self._lock:
            self._failed = 0 if answered else self._failed + 1
            if self._failed == self._trips:
                self._until = time.monotonic() + self._rest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)


class DecideBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a decide. What was not said is left out."""

    experiment: str
    decision_id: str
    unit: str | None = None
    context: Mapping[str, Any] | None = None
    actions: Sequence[Mapping[str, Any]] | None = None
    exclude: Sequence[str] = ()
    slots: int | None = None
    explore: bool = True

    def endpoint(
        self, default: Sequence[str] | None, override: str | None = None
    ) -> Endpoint[Choice]:
        """With the order to fall back on: that of the actions where none is given."""
        order = [str(a["id"]) for a in self.actions or ()] if default is None else list(default)
        return Endpoint(
            "/v1/decide",
            self,
            _choice,
            lambda problem: default_choice(self.decision_id, order, self.slots, problem),
            _override_header(override),
        )


class PageBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a page. What was not said is left out."""

    page: str
    profile: str | None = None
    account: str | None = None
    session: str | None = None
    kids: bool = False
    maturity: int | None = None
    region: str | None = None
    watched: Sequence[str] | None = None
    context: Mapping[str, Any] | None = None
    page_id: str | None = None
    after: str | None = None
    candidates: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    scores: Mapping[str, float] | None = None
    explore: bool = True

    def endpoint(
        self, default: Mapping[str, Sequence[str]] | None, override: str | None = None
    ) -> Endpoint[Page]:
        """With the rows of titles to fall back on."""
        rows = {row: list(titles) for row, titles in (default or {}).items()}
        return Endpoint(
            "/v1/page",
            self,
            _page,
            lambda problem: default_page(self.page, self.page_id, rows, problem),
            _override_header(override),
        )


class MergeBody(msgspec.Struct, frozen=True):
    """The body of a merge."""

    guest: str = msgspec.field(name="from")

    def endpoint(self, profile: str) -> Endpoint[Merged]:
        """Of this profile. Nothing stands for its answer: whoever calls it must know."""
        return Endpoint(f"/v1/profiles/{quote(profile)}/merge", self, _merged, _no_default)


def _override_header(override: str | None) -> dict[bytes, bytes]:
    # It is of a request from outside: whatever it holds, to send it must not fail.
    text = "" if override is None else override
    return {b"topbill-override": text.encode(errors="replace")} if text else {}


def _no_default(problem: str) -> Merged:
    raise Unavailable(problem)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Answer]):
    """What is asked, where, how its answer is read, what stands for one, given the problem, and
    which headers it has beside those of every request."""

    path: str
    body: DecideBody | PageBody | MergeBody
    decoder: msgspec.json.Decoder[Answer]
    default: Callable[[str], Answer]
    headers: Mapping[bytes, bytes] = field(default_factory=dict)


class Call(Generic[Answer]):
    """One endpoint, attempt by attempt. Its id is the client's own, so that an attempt more decides
    nothing anew.
    """

    def __init__(
        self,
        settings: Settings,
        breaker: Breaker,
        endpoint: Endpoint[Answer],
        deadline: float | None,
    ) -> None:
        self.until = time.monotonic() + (settings.deadline if deadline is None else deadline)
        self._settings, self._breaker, self._endpoint = settings, breaker, endpoint
        self._attempts = 0
        self._problem: TopbillError = Unavailable(
            f"{settings.address} did not answer lately; it is left alone a while"
        )
        self.content = b""
        try:
            self.content = _encode(endpoint.body)
        except (TypeError, ValueError, RecursionError) as error:
            self._problem = BadRequest("$", f"{error}; expected what JSON can hold")

    def open(self) -> bool:
        """Whether to start at all."""
        return bool(self.content) and self._breaker.closed()

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The next attempt."""
        self._attempts += 1
        return http.build_request(
            "POST",
            self._endpoint.path,
            content=self.content,
            headers=self._endpoint.headers,
            extensions={"timeout": Remaining(self.until)},
        )

    def read(self, response: httpx.Response) -> Answer | None:
        """What the service answered; None where it did not, and another attempt may."""
        if response.status_code == 200:
            self._breaker.tell(answered=True)
            try:
                return self._endpoint.decoder.decode(response.content)
            except msgspec.DecodeError as error:
                self._problem = Unavailable(
                    f"{self._settings.address} answered what {self._endpoint.path} does not: "
                    f"{error}"
                )
                self._attempts = self._settings.retries + 1
                return None
        self._problem = refusal(response)
        if response.status_code not in _AGAIN:
            self._breaker.tell(answered=True)
            self._attempts = self._settings.retries + 1
        return None

    def failed(self, error: Exception) -> None:
        """An attempt got no answer."""
        self._problem = Unavailable(
            f"{self._settings.address} did not answer: {type(error).__name__}: {error}"
        )

    def pause(self) -> float | None:
        """Seconds to wait before the next attempt (full jitter); None when there is none."""
        if self._attempts > self._settings.retries:
            return None
        wait = backoff(self._attempts)
        return wait if time.monotonic() + wait < self.until else None

    def give_up(self) -> Answer:
        """The caller's default, flagged. Raises what went wrong instead, where the client is
        strict.
        """
        if isinstance(self._problem, Unavailable):
            if self._attempts:
                self._breaker.tell(answered=False)
        else:
            _logger.warning("%s fell back to its default: %s", self._endpoint.path, self._problem)
        if self._settings.strict:
            raise self._problem
        return self._endpoint.default(str(self._problem))


def refusal(response: httpx.Response) -> TopbillError:
    """A response that is not 200 as the error that it stands for."""
    try:
        detail = msgspec.json.decode(response.content)["error"]
        path, message = str(detail.get("path") or "$"), str(detail["message"])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        path, message = "$", response.text[:200]
    description = f"{response.request.url}: {response.status_code}: {message}"
    if response.status_code in (400, 413, 422):
        return BadRequest(path, message)
    kinds = {404: NotFound, 409: Conflict}
    return kinds.get(response.status_code, Unavailable)(description)


def backoff(attempt: int) -> float:
    """Seconds to wait after that many attempts: anything up to a limit that doubles (full
    jitter).
    """
    return random.uniform(0.0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**attempt))  # noqa: S311 (jitter)
