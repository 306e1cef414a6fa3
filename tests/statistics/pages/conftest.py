"""The small page of tests/small_page.py, for the simulations of this folder."""

from __future__ import annotations

from ...small_page import home

__all__ = ["home"]
