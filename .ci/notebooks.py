"""The example notebooks as pages of the documentation's site, with what their cells show: `make
docs` writes them beside the notebooks, and nothing of it is committed.

python .ci/notebooks.py
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from html import escape
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from traitlets.config import Config

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # IPython's own
    from IPython.core.interactiveshell import InteractiveShell

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
NEEDS_SERVICE = "TOPBILL_URL"


def page(notebook: Path) -> str:
    """A notebook as Markdown: its text, its code, and below each cell what it shows."""
    text = notebook.read_text()
    # One that asks a service has nothing to show without it.
    shell = None if NEEDS_SERVICE in text else fresh_shell()
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        if shell is not None:
            parts.append(shown(shell, source))
    parts.append(f"[This notebook]({notebook.name}), to be opened in Jupyter.")
    return "\n\n".join(part for part in parts if part) + "\n"


def fresh_shell() -> InteractiveShell:
    """What a kernel runs cells with, without the kernel's process."""
    InteractiveShell.clear_instance()
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings)
    # What a cell shows goes to its page alone.
    shell.displayhook.write_format_data = lambda *_, **__: None
    shell.displayhook.write_output_prompt = lambda: None
    return shell


def shown(shell: InteractiveShell, source: str) -> str:
    """What a cell shows, as HTML: a chart as a picture, since the site loads no script of
    others.
    """
    ran = shell.run_cell(source)
    ran.raise_error()
    if ran.result is None:
        return ""
    if isinstance(ran.result, alt.TopLevelMixin):
        return block(vl_convert.vegalite_to_svg(ran.result.to_dict()))
    formats: dict[str, Any] = shell.display_formatter.format(ran.result)[0]
    return block(formats.get("text/html") or f"<pre>{escape(formats['text/plain'])}</pre>")


def block(html: str) -> str:
    """HTML that Markdown leaves as it is: no empty line ends it."""
    lines = "\n".join(line for line in html.splitlines() if line.strip())
    return f'<div class="tb-shown" style="overflow-x: auto">\n{lines}\n</div>'


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IPYTHONDIR"] = folder
        for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
            notebook.with_suffix(".md").write_text(page(notebook))
