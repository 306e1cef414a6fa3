"""The header by which a developer of the app sees a variant: `Topbill-Override`, signed with a
secret of the service and good until a moment that it names.

    Topbill-Override: home-artwork=thompson;exp=1796000000;sig=5b1c…

Before `exp` stands what is asked for, an experiment and a variant each; `exp` is in seconds since
the epoch; `sig` is the HMAC-SHA256 (hexadecimal) of all that stands before it.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from topbill.domain.errors import BadRequest, TopbillError
from topbill.engine import Engine
from topbill.engine.forced import FORCED_VARIANTS, NONE_FORCED
from topbill.service.admission import Refusal
from topbill.service.asgi import Scope
from topbill.service.audit import Audit
from topbill.service.keys import check_mode, day
from topbill.spec.fields import NAME, listed

HEADER = "Topbill-Override"
_HEADER = HEADER.lower().encode()
_SHORTEST = 16
_MOST = 20
"""Experiments that one header may name."""
_WHOLE = re.compile(r"(.*;exp=([0-9]{1,12}));sig=([0-9a-f]{64})", re.DOTALL)
_FORM = "EXPERIMENT=VARIANT;exp=SECONDS;sig=HEX, as `topbill override` prints it"
_AGAIN = "make another one with topbill override"


def read_secret(file: Path) -> bytes:
    """The secret of a file, without the white space around it.

    Raises TopbillError where it cannot be read, others may read or change it, or it is short.
    """
    try:
        check_mode(file, "the secret")
        secret = file.read_bytes().strip()
    except OSError as error:
        raise TopbillError(f"{file}: cannot read the secret: {error.strerror or error}") from error
    if len(secret) < _SHORTEST:
        raise TopbillError(
            f"{file}: a secret of {len(secret)} bytes; expected at least {_SHORTEST}: make one "
            f"with openssl rand -hex 32 > {file}"
        )
    return secret


def signed(variants: Mapping[str, str], expires: int, secret: bytes) -> str:
    """The header's value. `expires` is in seconds since the epoch.

    Raises BadRequest for what is no name of an experiment or variant, too many of them, or none.
    """
    pairs = [f"{experiment}={variant}" for experiment, variant in variants.items()]
    _variants(";".join(pairs))
    text = ";".join([*pairs, f"exp={expires}"])
    return f"{text};sig={_signature(text, secret)}"


def _signature(text: str, secret: bytes) -> str:
    return hmac.digest(secret, text.encode(), "sha256").hex()


class OverrideHeaders:
    """Takes the header of each request, or says why not."""

    def __init__(
        self, file: Path | None, engine: Engine, clock: Callable[[], float] = time.time
    ) -> None:
        """`file` has the secret; None where no such header is taken. Raises TopbillError."""
        self._secret = None if file is None else read_secret(file)
        self._engine = engine
        self._clock = clock
        self._audit = Audit(clock)

    def is_sent(self, scope: Scope) -> bool:
        """Whether a request has the header."""
        return _HEADER in [name for name, _ in scope["headers"]]

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why a request is not let in. None where it is: whatever is decided for it sees the
        variants that its header names, and those of its units where it has none.
        """
        FORCED_VARIANTS.set(NONE_FORCED)
        values = [value for name, value in scope["headers"] if name == _HEADER]
        if not values:
            return None
        try:
            FORCED_VARIANTS.set(self._forced(values))
        except BadRequest as error:
            return Refusal(422, "invalid", str(error))
        except _Forbidden as error:
            refusal = Refusal(403, error.code, f"{HEADER}: {error}")
            self._audit.refused(scope, None, refusal.status, refusal.code)
            return refusal
        return None

    def _forced(self, values: list[bytes]) -> dict[str, str]:
        """The variants by experiment. Raises BadRequest and _Forbidden."""
        if self._secret is None:
            raise _Forbidden("override_off", "is not taken here; serve --override-secret FILE")
        match = _WHOLE.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
        if match is None:
            raise BadRequest(HEADER, f"expected one, {_FORM}")
        text, expires, signature = match.groups()
        # Before anything of it is believed.
        if not hmac.compare_digest(signature, _signature(text, self._secret)):
            raise _Forbidden("override_signature", f"is not signed with our secret; {_AGAIN}")
        if self._clock() >= int(expires):
            raise _Forbidden("override_expired", f"expired at {day(int(expires))}; {_AGAIN}")
        variants = _variants(text.rpartition(";")[0])
        for key, name in variants.items():
            compiled = self._engine.experiments.get(key)
            names = self._engine.experiments if compiled is None else compiled.variants
            if compiled is None or name not in names:
                got = f"{key}={name}" if compiled else key
                raise BadRequest(HEADER, f"got {got}; expected one of {listed(names)}")
        return variants


class _Forbidden(TopbillError):
    """A header that is not believed, by its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _variants(text: str) -> dict[str, str]:
    """The pairs of a header. Raises BadRequest."""
    variants: dict[str, str] = {}
    for part in text.split(";"):
        experiment, _, variant = part.partition("=")
        names = re.fullmatch(NAME, experiment) and re.fullmatch(NAME, variant)
        if not names or experiment in variants or len(variants) == _MOST:
            raise BadRequest(HEADER, f"got {part!r}; expected {_FORM}, each experiment once")
        variants[experiment] = variant
    return variants
