"""Sending one message to one channel: by HTTP or by SMTP, only to where `alerts.yaml` says.

What goes wrong is raised as `Unavailable`, in words that hold no address and no secret.
"""

from __future__ import annotations

import hmac
import smtplib
import ssl
import time
from collections.abc import Callable
from hashlib import sha256

import httpx
import msgspec

from topbill.alerts.messages import BODIES, mail
from topbill.domain.alarm import AlarmLine
from topbill.domain.errors import Unavailable
from topbill.spec.alerts import AlertChannel, EmailChannel, HttpChannel, Secret, url_problem

TIMEOUT = 10.0
"""Seconds for which a channel is waited for: to connect, and for each answer."""
SIGNATURE = "X-Topbill-Signature"

Send = Callable[[AlertChannel, AlarmLine], None]


def send(channel: AlertChannel, line: AlarmLine) -> None:
    """Send a message and wait until it was taken.

    Raises:
        Unavailable: It was not.
        NotFound: A secret is not where the file says.
    """
    if isinstance(channel, HttpChannel):
        _post(channel, line)
    else:
        _mail(channel, line)


def signature(secret: str, at: int, body: bytes) -> str:
    """What stands in `X-Topbill-Signature`: the time (seconds since the epoch), and the
    HMAC-SHA-256 of the time, a full stop and the body."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, sha256).hexdigest()
    return f"t={at},v1={digest}"


def _post(channel: HttpChannel, line: AlarmLine) -> None:
    url = channel.url.read() if isinstance(channel.url, Secret) else channel.url
    if url_problem(url):
        raise Unavailable(f"{channel.name}: its secret is {url_problem(url)}; expected an address")
    body = msgspec.json.encode(BODIES[channel.format](line))
    headers = {"content-type": "application/json"}
    if channel.secret is not None:
        headers[SIGNATURE] = signature(channel.secret.read(), int(time.time()), body)
    try:
        # Nothing of the environment (proxies, passwords of .netrc), and no redirect: a message goes
        # where the file says or nowhere.
        with (
            httpx.Client(timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Its text may hold the address.
        raise Unavailable(f"{channel.name}: {_kind(error)}; it is tried again") from None
    if not 200 <= status < 300:
        raise Unavailable(f"{channel.name}: answered {status}; it is tried again")


def _mail(channel: EmailChannel, line: AlarmLine) -> None:
    message = mail(line, channel)
    password = None if channel.password is None else channel.password.read()
    try:
        with _server(channel) as server:
            if password is not None:
                server.login(channel.user, password)
            refused = server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        # What a server answers may hold what it was sent.
        code = getattr(error, "smtp_code", None)
        reason = f"answered {code}" if code else _kind(error)
        raise Unavailable(f"{channel.name}: {reason}; it is tried again") from None
    if refused:
        raise Unavailable(f"{channel.name}: {len(refused)} of its addresses were refused")


def _server(channel: EmailChannel) -> smtplib.SMTP:
    """A connection, secret before anything is said on it unless the file says `none`."""
    if channel.tls == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(channel.host, channel.port, timeout=TIMEOUT, context=context)
    server = smtplib.SMTP(channel.host, channel.port, timeout=TIMEOUT)
    if channel.tls == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _kind(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"did not answer within {TIMEOUT:.0f} s"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection ({error.reason or 'refused'})"
    if isinstance(error, httpx.ConnectError | ConnectionError):
        return "cannot be reached"
    return f"failed ({type(error).__name__})"
