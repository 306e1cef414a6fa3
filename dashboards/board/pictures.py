"""What an action looks like: its picture where the payload names one, else its label or title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from board import data, words

Payload = Mapping[str, Any]
Payloads = Mapping[str, Payload]
"""By action."""


@st.cache_data(max_entries=500, show_spinner=False)
def _svg(folder: str, name: str) -> str | None:
    root = Path(folder).resolve()
    path = (root / name).resolve()
    # A payload is data: it must not name files beside the artwork.
    if root not in path.parents or path.suffix != ".svg" or not path.is_file():
        return None
    return path.read_text()


def payloads(key: str) -> Payloads:
    """The payload of each action that the experiment file names."""
    by_action: dict[str, Payload] = {}
    for action in data.experiment(key).actions:
        by_action[action.id] = action.payload if isinstance(action.payload, dict) else {}
    return by_action


def picture(payload: Payload) -> str | None:
    """The SVG that the payload's `image` names below the artwork folder; None where there is
    none.
    """
    image = payload.get("image")
    return _svg(str(data.artwork()), image) if isinstance(image, str) else None


def name(action: str, payloads: Payloads) -> str:
    """What a person calls the action."""
    payload = payloads.get(action, {})
    title = payload.get("title") or payload.get("label")
    if not title:
        return words.label(action)
    year = payload.get("year")
    return f"{title} ({year})" if year else str(title)


def names(actions: Iterable[str], payloads: Payloads) -> list[str]:
    """What a person calls the actions."""
    return [name(action, payloads) for action in actions]
