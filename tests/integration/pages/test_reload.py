"""A page is compiled when it must be: not again for what is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topbill import pages
from topbill.engine import Engine
from topbill.service.backend import Backend
from topbill.service.page import PageService
from topbill.service.settings import Settings


def test_a_page_stays_until_its_file_its_catalogue_or_a_layer_has_changed(
    home: Any, tmp_path: Path
) -> None:
    engine = Engine(home.experiments())
    service = PageService(Backend(Settings(home.folder, tmp_path / "data"), engine))

    def page() -> object:
        engine.reload(home.experiments())
        service.reload(pages.load_all(home.folder, home.experiments()))
        return service.compiled_pages["home"]

    known = [page()]
    assert page() is known[-1]
    art = home.folder / "art.yaml"
    art.write_text(art.read_text() + "title: of no layer\n")
    assert page() is known[-1]
    for file in ("pages/titles.csv", "pages/home.yaml", "pages/home/titles.yaml"):
        path = home.folder / file
        last = path.read_text().splitlines()[-1]
        more = last.replace("t59", "t99") if path.suffix == ".csv" else "title: changed"
        with path.open("a") as text:
            text.write(f"{more}\n")
        known.append(page())
        assert page() is known[-1]
    assert len({id(each) for each in known}) == len(known)
