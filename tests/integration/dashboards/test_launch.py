"""The launcher: loopback is open, other addresses need a login."""

from __future__ import annotations

from pathlib import Path

import pytest

from topbill.cli import dashboard
from topbill.domain.errors import TopbillError
from topbill.reporting.visitors import may_look


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(dashboard.PASSWORD, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_on_loopback_it_starts_as_it_is(tmp_path: Path) -> None:
    arguments, environment = dashboard.launch(
        tmp_path / "experiments", tmp_path / "data", port=8999
    )
    assert arguments[:3] == ["-m", "streamlit", "run"]
    assert Path(arguments[3]).name == "server.py"
    assert arguments[arguments.index("--server.address") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--server.port") + 1] == "8999"
    assert environment["TOPBILL_DATA"] == str(tmp_path / "data")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "box.example.com"])  # noqa: S104
def test_an_address_that_others_reach_is_refused_without_a_login(host: str, tmp_path: Path) -> None:
    with pytest.raises(
        TopbillError, match=f"host {host} can be reached from other machines.*{dashboard.PASSWORD}"
    ):
        dashboard.launch(tmp_path, tmp_path, host=host)


def test_a_password_opens_it_to_others_if_it_is_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dashboard.PASSWORD, "short")
    with pytest.raises(TopbillError, match="shorter than 12 characters"):
        dashboard.launch(tmp_path, tmp_path, host="0.0.0.0")  # noqa: S104
    monkeypatch.setenv(dashboard.PASSWORD, "correct horse battery")
    assert "0.0.0.0" in dashboard.launch(tmp_path, tmp_path, host="0.0.0.0").arguments  # noqa: S104


AUTH = """[auth]
redirect_uri = "https://topbill.example.com/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "topbill"
client_secret = "between the two"
server_metadata_url = "https://accounts.example.com/.well-known/openid-configuration"
"""
SPLIT = AUTH.replace("client_id", "[auth.studio]\nclient_id")


def written(secrets: str) -> None:
    """The secrets, where Streamlit looks for them: in the working directory."""
    Path(".streamlit").mkdir(exist_ok=True)
    Path(".streamlit", "secrets.toml").write_text(secrets)


@pytest.mark.parametrize(
    "secrets", ['password = "correct horse battery"', AUTH, SPLIT], ids=["word", "one", "named"]
)
def test_so_do_secrets_that_streamlit_reads(secrets: str, tmp_path: Path) -> None:
    written(secrets)
    dashboard.launch(tmp_path, tmp_path, host="0.0.0.0")  # noqa: S104


@pytest.mark.parametrize("section", [AUTH, SPLIT], ids=["one", "named"])
@pytest.mark.parametrize(
    "lost", ["redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url"]
)
def test_a_sign_in_that_is_half_filled_is_refused_at_the_start(
    section: str, lost: str, tmp_path: Path
) -> None:
    written("\n".join(line for line in section.splitlines() if not line.startswith(lost)))
    with pytest.raises(TopbillError, match=rf"secrets\.toml: auth\.\S*{lost} missing"):
        dashboard.launch(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("/oauth2callback", "/callback", "redirect_uri is .*expected the dashboards' address"),
        ("0123456789abcdef0123", "", "cookie_secret is shorter than 32 characters"),
        (
            "client_id",
            'allowed = "ana@example.com"\nclient_id',
            "allowed is ana@example.com; expected a list",
        ),
        ("client_id", "allowed = []\nclient_id", r"allowed is \[\]; expected a list"),
        ("client_id", 'allowed = ["example.com"]\nclient_id', "such as"),
    ],
)
def test_a_sign_in_that_would_let_in_nobody_or_anybody_is_refused(
    line: str, instead: str, told: str, tmp_path: Path
) -> None:
    written(AUTH.replace(line, instead))
    with pytest.raises(TopbillError, match=told):
        dashboard.launch(tmp_path, tmp_path)


def test_an_auth_that_is_no_section_is_refused(tmp_path: Path) -> None:
    written("auth = true")
    with pytest.raises(TopbillError, match="auth is no section"):
        dashboard.launch(tmp_path, tmp_path)


def test_who_may_look_is_told_by_address_and_domain() -> None:
    allowed = ["Ana@example.com", "@studio.example"]
    for address in ("ana@example.com", "ANA@EXAMPLE.COM", "bo@studio.example"):
        assert may_look(address, allowed)
    for address in (
        "bob@example.com",
        "ana@example.com.evil.example",
        "bo@notstudio.example",
        "studio.example",
        "",
        None,
    ):
        assert not may_look(address, allowed)
    assert may_look(None, None)


def test_secrets_that_are_no_toml_are_named(tmp_path: Path) -> None:
    written("password =")
    with pytest.raises(TopbillError, match=r"secrets\.toml: cannot be read"):
        dashboard.launch(tmp_path, tmp_path)


def test_signing_in_without_what_it_needs_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda _: None)
    written(AUTH)
    with pytest.raises(TopbillError, match="needs authlib"):
        dashboard.launch(tmp_path, tmp_path)
