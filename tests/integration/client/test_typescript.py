"""The TypeScript client: built, and run by Node and Deno against a live service, and by a browser.

Needs node, and `TOPBILL_NODE_MODULES` naming a folder that holds TypeScript and Deno:
`.ci/clients FOLDER` prints it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.end_to_end

CLIENT = Path(__file__).parents[3] / "clients" / "typescript"


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the client was compiled into."""
    node, modules = shutil.which("node"), os.environ.get("TOPBILL_NODE_MODULES")
    if node is None or modules is None:
        pytest.skip("needs node, and TOPBILL_NODE_MODULES: .ci/clients FOLDER prints it")
    folder = tmp_path_factory.mktemp("typescript")
    compiler = str(Path(modules) / "node_modules" / "typescript" / "bin" / "tsc")
    _run(node, compiler, "--project", str(CLIENT / "tsconfig.json"), "--outDir", str(folder))
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def test_node_decides_and_rewards(built: Path, service: str) -> None:
    told = _run(
        "node",
        "--test",
        "--test-reporter=tap",
        str(CLIENT / "test" / "client.test.mjs"),
        CLIENT=str(built / "index.js"),
        TOPBILL=service,
    )
    assert "# fail 0" in told
    assert "# pass 10" in told


def test_deno_decides_and_rewards(built: Path, service: str) -> None:
    deno = Path(os.environ["TOPBILL_NODE_MODULES"]) / "node_modules" / ".bin" / "deno"
    if not deno.exists():
        pytest.skip("needs Deno, which .ci/clients installs")
    told = _run(
        str(deno),
        "test",
        # The client itself needs the network alone; the test, where things lie.
        "--allow-net=127.0.0.1",
        "--allow-env",
        f"--allow-read={built},{os.environ['TOPBILL_NODE_MODULES']}",
        "--no-check",
        "--no-lock",
        "--cached-only",
        str(CLIENT / "test" / "client.test.mjs"),
        CLIENT=(built / "index.js").as_uri(),
        TOPBILL=service,
        NO_COLOR="1",
        DENO_DIR=str(built / "deno"),
        DENO_NO_UPDATE_CHECK="1",
    )
    assert "10 passed | 0 failed" in told


_PAGE = """<!doctype html><title>Topbill</title><script type="module">
import { Client } from "./index.js";
const topbill = new Client(location.origin, { deadline: 10000 });
const asked = { unit: "profile-7", context: { device: "web" } };
const choice = await topbill.decide("home-artwork", asked);
topbill.reward(choice, "play");
await topbill.close(10000);
window.told = { fallback: choice.fallback, problem: choice.problem, delivered: topbill.delivered };
</script>"""


def test_a_browser_decides_and_rewards(built: Path, service: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="a development dependency")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium")
    files = {f"/app/{file.name}": file.read_text() for file in built.glob("*.js")}

    def serve(route: Any) -> None:
        text = files.get(urlsplit(route.request.url).path)
        if text is None:
            route.fulfill(content_type="text/html", body=_PAGE)
        else:
            route.fulfill(content_type="text/javascript", body=text)

    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.route(f"{service}/app/**", serve)
        page.goto(f"{service}/app/")
        told = page.wait_for_function("window.told", timeout=60_000).json_value()
        browser.close()
    assert told["fallback"] is False, told["problem"]
    assert told["delivered"]["stored"] == 1
