"""Whether a request comes in at all, before its body is read: whether it has waited too long, whose
key it carries, what that may do, how often it comes; without keys, whether a web page may have sent
it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple

from topbill.domain.errors import TopbillError
from topbill.service import auth, telemetry
from topbill.service.asgi import Header, Scope
from topbill.service.audit import Audit
from topbill.service.browsers import ForeignRequests
from topbill.service.keys import ApiKey, Keys, day, read_keys
from topbill.service.queue_age import LONGEST, QueueAge

_logger = logging.getLogger("topbill")
_LOOK_SECONDS = 1.0
"""How often the file of keys is looked at."""


class Refusal(NamedTuple):
    """Why a request is not let in: status, stable code, a sentence, headers of the answer."""

    status: int
    code: str
    message: str
    headers: tuple[Header, ...] = ()


class TokenBucket:
    """Lets `rate` requests a second through, and up to one second's worth of them at once."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate)
        self._tokens = self._most
        self._at = now

    def wait(self, now: float) -> float:
        """Take a token. 0.0 where there was one, otherwise seconds until there is."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class KeyRing:
    """The keys in force: those of the file as it is now, looked at once a second.

    A file that can't be used any more changes nothing and is told: a mistake while editing must not
    lock every caller out.
    """

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = keys.file
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._mark: tuple[int, int, int] | None = None
        # The file may have changed since the keys were read, in another process.
        self._next_look = clock()
        self._problem = ""
        self._take(keys)

    def find(self, presented: Iterable[bytes]) -> ApiKey | None:
        """The first known one among the keys of a request. Renews the ring where it is due."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look()
        for key in presented:
            # What the time of a look-up tells is of hashes, from which no key can be guessed.
            known = self._by_digest.get(sha256(key).digest())
            if known is not None:
                return known
        return None

    def wait(self, key: ApiKey) -> float:
        """Seconds until this key may call again; 0.0 where it may now, which is counted."""
        if key.rate is None:
            return 0.0
        now = self._clock()
        bucket = self._buckets.get(key.name)
        if bucket is None:
            bucket = self._buckets[key.name] = TokenBucket(key.rate, now)
        return bucket.wait(now)

    def _take(self, keys: Keys) -> None:
        self._by_digest = {key.digest: key for key in keys.entries}
        # A changed rate begins anew; so it does for the other keys of the file, once.
        self._buckets.clear()

    def _marked(self) -> tuple[int, int, int] | None:
        """What changes when the file does; None where it is not there."""
        if self._file is None:
            return None
        try:
            status = os.stat(self._file)
        except OSError:
            return None
        # The time of a change of mode, too: a file that others may read is refused.
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def _look(self) -> None:
        mark = self._marked()
        if self._file is None or (mark == self._mark and not self._problem):
            return
        self._mark = mark
        try:
            self._take(read_keys(self._file))
            self._problem = ""
        except TopbillError as error:
            if str(error) != self._problem:
                _logger.warning("the keys stay as they were:\n%s", error)
            self._problem = str(error)


class Admission:
    """Looks at each request before anything else does. One for each process.

    Keys are asked for here, for all routes at once: a route that is added later, in whatever
    router, is never open by mistake.
    """

    def __init__(
        self,
        keys: Keys,
        host_names: Iterable[str] = (),
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = KeyRing(keys, monotonic) if keys.entries else None
        self._foreign_requests = ForeignRequests(host_names)
        self._clock = clock
        self._audit = Audit(clock)
        self.queue = QueueAge(monotonic)

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why a request is not let in; None where it is, which is counted for its key."""
        if scope["path"] in auth.OPEN_PATHS:
            return None
        if self.is_crowded:
            message = f"requests wait for over {LONGEST:g} s; nothing was stored, try again later"
            return Refusal(503, "overloaded", message)
        if self._keys is None:
            return self._foreign(scope)
        key = self._keys.find(auth.presented(scope["headers"]))
        refusal = self._without_right(self._keys, key, scope)
        name = None if key is None else key.name
        if name is not None:
            telemetry.count(telemetry.requests(name))
        if refusal is not None:
            self._audit.refused(scope, name, refusal.status, refusal.code)
        elif name is not None and auth.is_about_people(scope["path"]):
            self._audit.read(scope, name)
        return refusal

    @property
    def is_crowded(self) -> bool:
        """Whether requests wait for so long that whoever comes is refused."""
        return self.queue.seconds > LONGEST

    def lets_in_all(self, scope: Scope) -> bool:
        """Whether every request with these headers is let in, as long as it is not crowded: where
        keys are asked for none is, since each has its rate.
        """
        return self._keys is None and self._foreign_requests.why(scope) is None

    def count_let_in(self, requests: int) -> None:
        """Count some that `lets_in_all` spoke of."""
        telemetry.count(telemetry.requests(""), requests)

    def _foreign(self, scope: Scope) -> Refusal | None:
        """Without keys: why a request is not let in that a web page may have sent."""
        telemetry.count(telemetry.requests(""))
        why = self._foreign_requests.why(scope)
        if why is None:
            return None
        refusal = Refusal(*why)
        self._audit.refused(scope, None, refusal.status, refusal.code)
        return refusal

    def _without_right(self, ring: KeyRing, key: ApiKey | None, scope: Scope) -> Refusal | None:
        if key is None:
            return _unauthorized("unauthorized", "no valid key; send Authorization: Bearer KEY")
        if key.expires is not None and self._clock() >= key.expires:
            when = day(key.expires)
            return _unauthorized(
                "key_expired", f"key {key.name!r} expired at {when}; ask for a new one"
            )
        needed = auth.scope_of(scope["method"], scope["path"])
        if not key.may(needed):
            has = ", ".join(sorted(key.scopes))
            message = f"key {key.name!r} has the scopes {has}; this needs {needed}"
            return Refusal(403, "forbidden", message)
        seconds = ring.wait(key)
        if seconds > 0.0:
            after = str(max(1, math.ceil(seconds))).encode()
            message = f"key {key.name!r} is over its rate of {key.per}; try again later"
            return Refusal(429, "rate_limited", message, ((b"retry-after", after),))
        return None


def _unauthorized(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, ((b"www-authenticate", b"Bearer"),))
