"""A flame graph of where a program's time went: a small SVG of functions' names alone.

    py-spy record --format raw --function --output stacks.txt -- python -m topbill serve …
    python -m benchmarks.flame stacks.txt "What it shows" > docs/images/speed-start.svg

Each box is a function, as wide as its share of the samples, above whoever called it. Python's own
machinery of imports is left out, so that a module lies on the module that imports it; boxes of less
than `--least` of the whole are, too.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from zlib import crc32

WIDTH, ROW, LETTER = 1200, 18, 6.6
"""Pixels of the picture, of a row, and of a letter."""
_IMPORTS = re.compile(r"<?frozen |importlib[._]|_call_with_frames_removed|^all$|^process \d+")
_FRAME = re.compile(r"^(?P<name>.+?)(?: \((?P<file>[^)]*)\))?$")


class Box:
    """A function where it was called from: in how many samples, and what it called."""

    def __init__(self) -> None:
        self.samples = 0
        self.called: dict[str, Box] = {}


def label(frame: str) -> str:
    """A frame as the picture has it: its module in place of a path."""
    found = _FRAME.match(frame.strip())
    name, file = (found["name"], found["file"] or "") if found else (frame, "")
    parts = re.split(r"site-packages/|platform/|lib/python[\d.]+/", file.partition(":")[0])[-1]
    module = ".".join(parts.removesuffix(".py").split("/")[-3:]).removesuffix(".__init__")
    if name == "<module>":
        return module or name
    return f"{name} ({module})" if module else name


def read(stacks: Path) -> Box:
    """Collapsed stacks (`a;b;c 12`, a line each) as a tree."""
    root = Box()
    for line in stacks.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        box, above = root, ""
        root.samples += int(count)
        for frame in frames.split(";"):
            name = label(frame)
            if _IMPORTS.search(frame) or name == above:
                continue
            box, above = box.called.setdefault(name, Box()), name
            box.samples += int(count)
    return root


def drawn(box: Box, scale: float, left: float, depth: int, least: float) -> Iterator[str]:
    """What lies on a box, the widest first: each as (depth, SVG)."""
    widest = sorted(box.called.items(), key=lambda each: -each[1].samples)
    for name, each in widest:
        width = each.samples * scale
        if width < least:
            return
        # Warm colours, the same for the same module everywhere.
        shade = crc32(name.rpartition("(")[2].split(".")[0].encode()) % 40
        room = int(width / LETTER) - 1
        text = "" if room < 3 else name if len(name) <= room else name[: room - 1] + "…"
        share = 100.0 * width / WIDTH
        yield (
            f'<g><title>{escape(name)}: {share:.1f}%</title><rect x="{left:.1f}" y="{depth * ROW}" '
            f'width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" '
            f'fill="hsl({10 + shade},80%,{68 + shade // 4}%)"/>'
            + (
                f'<text x="{left + 3:.1f}" y="{depth * ROW + 13}">{escape(text)}</text>'
                if text
                else ""
            )
            + "</g>"
        )
        yield from drawn(each, scale, left, depth + 1, least)
        left += width


def depth_of(box: Box, scale: float, least: float) -> int:
    """How many rows of boxes are drawn."""
    wide = [each for each in box.called.values() if each.samples * scale >= least]
    return 1 + max((depth_of(each, scale, least) for each in wide), default=0)


def picture(root: Box, title: str, least: float) -> str:
    """The SVG. Boxes of less than the share `least` of the whole are left out."""
    scale, narrowest = WIDTH / root.samples, WIDTH * least
    height = (depth_of(root, scale, narrowest) + 1) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="3" y="13">{escape(title)}; {root.samples:,} samples</text>\n'
    )
    return head + "\n".join(drawn(root, scale, 0.0, 1, narrowest)) + "\n</svg>"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stacks", type=Path)
    parser.add_argument("title")
    parser.add_argument("--least", type=float, default=0.5, help="per cent of the whole")
    given = parser.parse_args()
    print(picture(read(given.stacks), given.title, given.least / 100.0))


if __name__ == "__main__":
    main()
