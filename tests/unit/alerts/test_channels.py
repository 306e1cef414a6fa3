"""Each format arrives at a local server as it should, and only there; what fails says so without
address or secret.
"""

from __future__ import annotations

import datetime
import hmac
import json
import ssl
from collections.abc import Iterator
from email import message_from_string, policy
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from topbill.alerts import channels
from topbill.alerts.channels import send
from topbill.domain.alarm import AlarmLine
from topbill.domain.errors import NotFound, Unavailable
from topbill.spec.alerts import EmailChannel, HttpChannel, Secret

from .servers import MailServer, WebServer, mail_server, web_server

LINE = AlarmLine(
    alarm="8f1c",
    state="raised",
    kind="sample_ratio",
    experiment="home-artwork",
    subject="",
    cause="units_lost",
    message="thompson got 41.2% of <1,000> new units & 50.0% were meant.",
    at=1_700_000_000_123_456,
)
OVER = LINE._replace(state="resolved", cause="", message="Over.")


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


def test_a_webhook_gets_the_alarm_as_json_signed(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "s3cret")
    send(HttpChannel("ops", "webhook", web.url, Secret(env="HOOK_KEY")), LINE)
    (posted,) = web.posted
    assert json.loads(posted.body) == {
        "alarm": "8f1c",
        "state": "raised",
        "kind": "sample_ratio",
        "title": "Sample ratio mismatch (SRM)",
        "experiment": "home-artwork",
        "subject": None,
        "cause": "units_lost",
        "message": LINE.message,
        "at": "2023-11-14T22:13:20Z",
    }
    time, digest = posted.headers["x-topbill-signature"].split(",")
    signed = time.removeprefix("t=").encode() + b"." + posted.body
    assert digest == "v1=" + hmac.new(b"s3cret", signed, sha256).hexdigest()
    assert posted.headers["content-type"] == "application/json"


def test_without_a_secret_nothing_is_signed(web: WebServer) -> None:
    send(HttpChannel("ops", "webhook", web.url), OVER)
    assert "x-topbill-signature" not in web.posted[0].headers
    assert json.loads(web.posted[0].body)["state"] == "resolved"


def test_slack_reads_names_as_text(web: WebServer, tmp_path: Path) -> None:
    place = tmp_path / "slack"
    place.write_text(f"{web.url}\n")
    send(HttpChannel("team", "slack", Secret(file=str(place))), LINE)
    assert json.loads(web.posted[0].body) == {
        "text": "*home-artwork: Sample ratio mismatch (SRM)*\nthompson got 41.2% of &lt;1,000&gt; "
        "new units &amp; 50.0% were meant.\n`8f1c`"
    }


def test_teams_gets_an_adaptive_card(web: WebServer) -> None:
    send(HttpChannel("team", "teams", web.url), OVER)
    (attachment,) = json.loads(web.posted[0].body)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    blocks = attachment["content"]["body"]
    assert [block["text"] for block in blocks] == [
        "home-artwork: Sample ratio mismatch (SRM) (resolved)",
        "Over.",
        "8f1c",
    ]
    assert blocks[0]["color"] == "Good"


def test_a_redirect_is_not_followed(web: WebServer) -> None:
    with web_server() as other:
        web.status, web.location = 307, other.url
        with pytest.raises(Unavailable, match="ops: answered 307"):
            send(HttpChannel("ops", "webhook", web.url), LINE)
        assert other.posted == []


def test_no_proxy_of_the_environment_sees_it(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        send(HttpChannel("ops", "webhook", web.url), LINE)
        assert (len(web.posted), proxy.posted) == (1, [])


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_what_is_not_taken_says_the_status_and_no_address(web: WebServer, status: int) -> None:
    web.status = status
    with pytest.raises(Unavailable) as caught:
        send(HttpChannel("ops", "webhook", f"{web.url}/T0KEN"), LINE)
    assert str(caught.value) == f"ops: answered {status}; it is tried again"


def test_nobody_there_and_nobody_answering(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL", "http://127.0.0.1:1/T0KEN")
    with pytest.raises(Unavailable) as caught:
        send(HttpChannel("ops", "slack", Secret(env="URL")), LINE)
    assert str(caught.value) == "ops: cannot be reached; it is tried again"
    monkeypatch.setattr(channels, "TIMEOUT", 0.05)
    with mail_server() as silent:  # waits for a line that it knows
        silent.refuse = ""
        with pytest.raises(Unavailable) as caught:
            send(HttpChannel("ops", "webhook", f"http://127.0.0.1:{silent.port}/T0KEN"), LINE)
    assert "T0KEN" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://x/T0KEN", "T0KEN", "http://u:p@h/"]
)
def test_an_address_that_is_none_of_http_goes_nowhere(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("URL", url)
    with pytest.raises(Unavailable) as caught:
        send(HttpChannel("ops", "slack", Secret(env="URL")), LINE)
    assert url not in str(caught.value)


def test_a_secret_that_is_not_there_is_named_by_its_place(tmp_path: Path) -> None:
    for secret, message in (
        (Secret(env="NO_SUCH"), "environment variable NO_SUCH is not set; expected the secret"),
        (Secret(file=str(tmp_path / "x")), f"{tmp_path}/x: No such file or directory; expected"),
    ):
        with pytest.raises(NotFound) as caught:
            send(HttpChannel("ops", "slack", secret), LINE)
        assert str(caught.value).startswith(message)


# ---------------------------------------------------------------------- mail


def email(port: int, **fields: object) -> EmailChannel:
    about = {"tls": "none", "sender": "topbill@example.com", "to": ("a@x.org", "b@x.org")}
    return EmailChannel("mail", "localhost", port, **{**about, **fields})  # type: ignore[arg-type]


def test_a_mail_says_what_it_is_and_where_it_belongs(mails: MailServer) -> None:
    for line in (LINE, OVER):
        send(email(mails.port), line)
    first, second = (message_from_string(text, policy=policy.default) for text in mails.mails)
    assert first["Subject"] == "home-artwork: Sample ratio mismatch (SRM)"
    assert (first["From"], first["To"]) == ("topbill@example.com", "a@x.org, b@x.org")
    assert first["Message-ID"] == "<8f1c.raised@example.com>"
    assert first["X-Topbill-Alarm"] == second["X-Topbill-Alarm"] == "8f1c"
    assert second["In-Reply-To"] == first["Message-ID"]
    assert first.get_content().splitlines()[0] == LINE.message
    # A verb's case is Python's own: newer ones write all of it in small letters.
    recipients = [line.lower() for line in mails.said if line.lower().startswith("rcpt")]
    assert recipients == ["rcpt to:<a@x.org>", "rcpt to:<b@x.org>"] * 2


def test_a_header_ends_where_it_ends(mails: MailServer) -> None:
    send(email(mails.port), LINE._replace(subject="a\r\nBcc: x@evil.org"))
    message = message_from_string(mails.mails[0], policy=policy.default)
    assert message["Bcc"] is None
    assert "evil" in message["Subject"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    place = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    place.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return place


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_mail_is_secret_before_the_password_is_said(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("MAIL_PASSWORD", "pa55")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with mail_server(context, from_start=tls == "tls") as server:
        send(email(server.port, tls=tls, user="me", password=Secret(env="MAIL_PASSWORD")), LINE)
        assert server.secret == [True]
        said = [line.split()[0] for line in server.said]
        assert "AUTH" in said
        if tls == "starttls":
            assert said.index("STARTTLS") < said.index("AUTH")


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_mail_to_a_server_that_nobody_vouches_for_is_not_sent(certificate: Path, tls: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with mail_server(context, from_start=tls == "tls") as server:
        with pytest.raises(Unavailable, match="mail: no secure connection"):
            send(email(server.port, tls=tls), LINE)
        assert server.mails == []


def test_a_server_without_starttls_gets_nothing(mails: MailServer) -> None:
    with pytest.raises(Unavailable, match="mail: failed"):
        send(email(mails.port, tls="starttls"), LINE)
    assert mails.mails == []


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_what_a_mail_server_refuses_is_told(mails: MailServer, verb: str) -> None:
    mails.refuse = verb
    with pytest.raises(Unavailable, match="mail: "):
        send(email(mails.port), LINE)
