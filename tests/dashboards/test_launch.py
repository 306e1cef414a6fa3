"""The launcher: loopback is open, other addresses need a login."""

from __future__ import annotations

from pathlib import Path

import pytest

from topbill import dashboard
from topbill.errors import TopbillError


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(dashboard.PASSWORD, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_on_loopback_it_starts_as_it_is(tmp_path: Path) -> None:
    arguments, environment = dashboard.launch(tmp_path / "experiments", tmp_path / "data", port=8999)
    assert arguments[:3] == ["-m", "streamlit", "run"]
    assert Path(arguments[3]).name == "app.py"
    assert arguments[arguments.index("--server.address") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--server.port") + 1] == "8999"
    assert environment["TOPBILL_DATA"] == str(tmp_path / "data")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "box.example.com"])  # noqa: S104
def test_an_address_that_others_reach_is_refused_without_a_login(host: str, tmp_path: Path) -> None:
    with pytest.raises(TopbillError, match=f"host {host} can be reached from other machines.*{dashboard.PASSWORD}"):
        dashboard.launch(tmp_path, tmp_path, host=host)


def test_a_password_opens_it_to_others_if_it_is_long_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dashboard.PASSWORD, "short")
    with pytest.raises(TopbillError, match="shorter than 12 characters"):
        dashboard.launch(tmp_path, tmp_path, host="0.0.0.0")  # noqa: S104
    monkeypatch.setenv(dashboard.PASSWORD, "correct horse battery")
    assert "0.0.0.0" in dashboard.launch(tmp_path, tmp_path, host="0.0.0.0").arguments  # noqa: S104


@pytest.mark.parametrize("secrets", ['password = "correct horse battery"', '[auth]\nclient_id = "x"'])
def test_so_do_secrets_that_streamlit_reads(secrets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda _: object())
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text(secrets)
    dashboard.launch(tmp_path, tmp_path, host="0.0.0.0")  # noqa: S104


def test_secrets_that_are_no_toml_are_named(tmp_path: Path) -> None:
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text("password =")
    with pytest.raises(TopbillError, match=r"secrets\.toml: cannot be read"):
        dashboard.launch(tmp_path, tmp_path)


def test_signing_in_without_what_it_needs_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda _: None)
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text('[auth]\nclient_id = "x"')
    with pytest.raises(TopbillError, match="needs authlib"):
        dashboard.launch(tmp_path, tmp_path)
