"""Signing in and out with an OpenID Connect provider, in a real browser: who is on the list may
look, nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import served
from provider import CLIENT, SECRET, Provider

from topbill.cli.supervise import free_port

pytestmark = pytest.mark.end_to_end

ANA = {"sub": "1", "email": "ana@example.com", "email_verified": True, "name": "Ana"}
SECRETS = """
[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "none of the browser's business, and long"
client_id = "{client}"
client_secret = "{secret}"
server_metadata_url = "{provider}/.well-known/openid-configuration"
allowed = ["ana@example.com", "@studio.example"]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    started = Provider()
    yield started
    started.close()


@pytest.fixture(scope="module")
def guarded(
    browser: Any, hushed: Path, provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The app with `[auth]` in its secrets."""
    home, port = tmp_path_factory.mktemp("home"), free_port("127.0.0.1", 0)
    (home / ".streamlit").mkdir()
    text = SECRETS.format(port=port, client=CLIENT, secret=SECRET, provider=provider.address)
    (home / ".streamlit" / "secrets.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        with served(hushed, port) as url:
            yield url


@pytest.fixture
def page(browser: Any, guarded: str, provider: Provider) -> Iterator[Any]:
    """A page of somebody who is not signed in yet."""
    browser.clear_cookies()
    found = browser.new_page()
    found.goto(f"{guarded}/?refresh=Off")
    found.get_by_role("button", name="Sign in").wait_for(timeout=60_000)
    assert found.get_by_text("Artwork for Midnight Run").count() == 0
    yield found
    found.close()


def test_who_is_on_the_list_signs_in_and_out_again(page: Any, provider: Provider) -> None:
    provider.who = ANA
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("Artwork for Midnight Run").first.wait_for(timeout=60_000)
    page.get_by_text("Signed in as ana@example.com").wait_for(timeout=60_000)
    page.reload()
    page.get_by_text("Artwork for Midnight Run").first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for(timeout=60_000)
    assert provider.ended == 1
    assert page.get_by_text("Artwork for Midnight Run").count() == 0


@pytest.mark.parametrize(
    "who",
    [
        {"sub": "2", "email": "bob@example.com", "email_verified": True},
        {"sub": "3", "email": "ana@example.com", "email_verified": False},
        {"sub": "4"},
    ],
    ids=["another address", "an address that is not verified", "no address"],
)
def test_who_is_not_on_the_list_is_told_so_and_sees_nothing(
    who: dict[str, Any], page: Any, provider: Provider
) -> None:
    provider.who = who
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("who may not look here").wait_for(timeout=60_000)
    assert page.get_by_text("Artwork for Midnight Run").count() == 0
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for(timeout=60_000)
