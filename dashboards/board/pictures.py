"""What an action looks like: its picture where the payload names one, else its label or title."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from streamlit.errors import StreamlitAPIException

from board import data, words

Payload = Mapping[str, Any]
Payloads = Mapping[str, Payload]
"""By action."""


_LARGEST = 10_000_000
"""Bytes of a picture's file."""
_BEGINNINGS = {
    ".jpg": rb"\xff\xd8\xff",
    ".jpeg": rb"\xff\xd8\xff",
    ".png": rb"\x89PNG\r\n\x1a\n",
    ".webp": rb"RIFF....WEBP",
}
"""How a file of each kind begins: one that only is called so is not shown."""


@st.cache_data(max_entries=500, show_spinner=False)
def _file(folder: str, name: str) -> str | bytes | None:
    root = Path(folder).resolve()
    try:
        path = (root / name).resolve()
        # A payload is data: it must not name files beside the artwork, not by a link either.
        if root not in path.parents or not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        if path.suffix == ".svg":
            return _svg(path.read_text())
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        return None
    beginning = _BEGINNINGS.get(path.suffix.lower())
    is_picture = beginning is not None and re.match(beginning, content, re.DOTALL)
    return content if is_picture else None


def _svg(text: str) -> str | None:
    """A drawing as an address that holds it: in an <img> no script of it runs, and what is no
    drawing is never taken by Streamlit for the name of a file.
    """
    if "<svg" not in text:
        return None
    if "xmlns" not in text:
        text = text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return svg_address(text)


def svg_address(text: str) -> str:
    """The address that holds a drawing."""
    return f"data:image/svg+xml;base64,{b64encode(text.encode()).decode()}"


def _address(url: str) -> str | None:
    """The address, where it is one of a host that pictures may be shown from."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    # Of a backslash, browsers and Python think differently which host it leaves.
    is_plain = url.isprintable() and not {"\\", " ", "@"} & set(url.split("?")[0])
    is_allowed = parts.hostname in data.picture_hosts() and port in (None, 443)
    return url if parts.scheme == "https" and is_plain and is_allowed else None


def payloads(key: str) -> Payloads:
    """The payload of each action that the experiment file names, or that its page brings."""
    by_action: dict[str, Payload] = {}
    for action in data.experiment(key).actions:
        by_action[action.id] = action.payload if isinstance(action.payload, dict) else {}
    if not by_action:
        brought = data.page_payloads(key)
        return {} if brought is None else brought.payloads
    return by_action


def folder(key: str) -> Path:
    """Where the files of the experiment's pictures lie: the folder of its page's catalogue, or that
    of artwork.
    """
    brought = None if data.experiment(key).actions else data.page_payloads(key)
    return data.artwork() if brought is None else brought.folder


def picture(payload: Payload, folder: Path) -> str | bytes | None:
    """What the payload's `image` names: what `st.image` takes of an SVG, JPEG, PNG or WebP file
    below the folder, or an address of a host that is allowed; None for anything else.
    """
    image = payload.get("image")
    if not isinstance(image, str):
        return None
    return _address(image) if ":" in image else _file(str(folder), image)


def show(picture: str | bytes, action: str) -> None:
    """Draw a picture; nothing where its file is damaged."""
    with suppress(StreamlitAPIException, OSError, ValueError):
        st.image(picture, width="stretch", alt=action)


def name(action: str, payloads: Payloads) -> str:
    """What a person calls the action."""
    payload = payloads.get(action, {})
    title = payload.get("title") or payload.get("label")
    if not title:
        return words.label(action)
    year = payload.get("year")
    return f"{title} ({year})" if year else str(title)


def page_names(key: str) -> dict[str, str]:
    """What the catalogue calls the actions that a page brings to the experiment, whose ids say
    nothing to people; none where its file lists them.
    """
    brought = None if data.experiment(key).actions else data.page_payloads(key)
    if brought is None:
        return {}
    return {action: name(action, brought.payloads) for action in brought.payloads}


def names(actions: Iterable[str], payloads: Payloads) -> list[str]:
    """What a person calls the actions."""
    return [name(action, payloads) for action in actions]
