"""Dashboards show JPEG, PNG, WebP and SVG files below one folder, and addresses of hosts that are
allowed: nothing else, whatever a catalogue says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from topbill import lake
from topbill.pages import layer_payloads, page_titles
from topbill.reporting.queries import exposure

from ...small_page import Home

FILES = {
    "a.jpg": b"\xff\xd8\xff\xe0 a picture",
    "b.PNG": b"\x89PNG\r\n\x1a\n a picture",
    "deep/c.webp": b"RIFF\x00\n\x00\x00WEBP a picture",
}
SVG = "<svg><script>alert(1)</script></svg>"


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The dashboards' module of pictures."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "dashboards"))
    monkeypatch.setenv("TOPBILL_PICTURE_HOSTS", "cdn.example.com, IMG.example.com")
    from board import pictures

    return pictures


def test_pictures_below_the_folder_are_shown(board: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        assert board.picture({"image": name}, tmp_path) == content
    (tmp_path / "d.svg").write_text(SVG)
    assert board.picture({"image": "d.svg"}, tmp_path).startswith("data:image/svg+xml;base64,")


def test_no_other_file_is_read(board: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(FILES["a.jpg"])
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "keys.txt").write_text("secret")
    (folder / "text.png").write_text("secret")
    (folder / "path.svg").write_text(str(tmp_path / "secret.jpg"))
    (folder / "large.jpg").write_bytes(FILES["a.jpg"] + bytes(10_000_001))
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "keys.txt", "text.png"]
    for name in [*names, "path.svg", "large.jpg", "gone.jpg", "", ".", "a\0.jpg", "x" * 5_000, 7]:
        assert board.picture({"image": name}, folder) is None, name


def test_only_addresses_of_allowed_hosts_are_shown(board: Any, tmp_path: Path) -> None:
    for good in ("https://cdn.example.com/a.jpg?w=2", "https://img.example.com:443/b"):
        assert board.picture({"image": good}, tmp_path) == good
    for bad in (
        "https://evil.example/a.jpg",
        "http://cdn.example.com/a.jpg",
        "https://cdn.example.com.evil.example/a.jpg",
        "https://cdn.example.com@evil.example/a.jpg",
        "https://evil.example\\@cdn.example.com/a.jpg",
        "https://cdn.example.com:8443/a.jpg",
        "https://cdn.example.com:x/a.jpg",
        "https://[cdn.example.com/a.jpg",
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "//cdn.example.com/a.jpg",
    ):
        assert board.picture({"image": bad}, tmp_path) is None, bad


def test_what_a_page_brings_has_the_catalogue_s_names_and_pictures(tmp_path: Path) -> None:
    home = Home(tmp_path)
    titles, artwork = layer_payloads(tmp_path, "titles"), layer_payloads(tmp_path, "artwork")
    assert titles is not None
    assert artwork is not None
    assert titles.folder == tmp_path / "pages"
    assert titles.payloads["t07"] == {"title": "Title 7", "year": 1957}
    assert artwork.payloads["t07/cold"] == {"image": "cold", "title": "Title 7: cold"}
    assert layer_payloads(tmp_path, "rows") is None
    (home.folder / "pages" / "titles.csv").unlink()
    assert layer_payloads(tmp_path, "titles") is None


def test_what_was_shown_most_is_told_with_how_often_an_event_named_it(demo: Path) -> None:
    shown = exposure.most_shown(demo, "page-titles", "any", most=100)
    positions = exposure.positions(demo, "page-titles", "any").groupby("action")["shown"].sum()
    assert shown.set_index("action")["shown"].to_dict() == positions.to_dict()
    assert shown["shown"].is_monotonic_decreasing
    assert shown["share"].sum() == pytest.approx(1.0)
    assert shown.attrs == {"event": "play", "actions": len(positions)}
    assert shown["rate"].between(0.0, 1.0).all()
    # The viewers of this record name what they played, of the page's titles some.
    named = lake.sql(
        demo / lake.DATABASE,
        "SELECT count(*) AS n FROM rewards r JOIN decisions d USING (decision_id) "
        "WHERE d.experiment = 'page-titles' AND d.variant = 'any' AND r.event = 'play' "
        "AND list_contains(d.slate, r.item)",
    ).to_pandas()
    assert shown["played"].sum() <= named["n"].item()
    most = exposure.most_shown(demo, "page-titles", "any", most=2)
    assert most["action"].tolist() == shown["action"].tolist()[:2]


def test_a_page_is_called_what_its_file_calls_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    page = home.folder / "pages" / "home.yaml"
    page.write_text(page.read_text().replace("page: home", "page: home\ntitle: Films for people"))
    assert page_titles(tmp_path) == {"home": "Films for people"}
    assert page_titles(tmp_path / "nowhere") == {}
