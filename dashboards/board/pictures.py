"""What an action looks like: its picture where the payload names one, else its label or title."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from board import data, words


@st.cache_data(max_entries=500, show_spinner=False)
def _svg(folder: str, name: str) -> str | None:
    root = Path(folder).resolve()
    path = (root / name).resolve()
    if root not in path.parents or path.suffix != ".svg" or not path.is_file():
        return None
    return path.read_text()


def payloads(key: str) -> dict[str, Mapping[str, Any]]:
    """The payload of each action that the experiment file names."""
    return {
        a.id: a.payload if isinstance(a.payload, dict) else {} for a in data.experiment(key).actions
    }


def picture(payload: Mapping[str, Any]) -> str | None:
    """The SVG that the payload's `image` names below the artwork folder; None where there is
    none.
    """
    image = payload.get("image")
    return _svg(str(data.artwork()), image) if isinstance(image, str) else None


def name(action: str, payload: Mapping[str, Any]) -> str:
    """What a person calls the action."""
    title = payload.get("title") or payload.get("label")
    year = payload.get("year")
    return words.label(action) if not title else f"{title} ({year})" if year else str(title)
