"""Choices that several pages offer, kept in the address."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import streamlit as st

from board import data
from board.terms import COLUMNS, TERMS
from topbill.domain.errors import BadRequest
from topbill.reporting.queries import action_values

LEARNERS_LAST = {"fixed", "uniform"}


def variant(key: str) -> str:
    """One of the experiment's variants; the first that learns unless another is chosen."""
    variants = data.experiment(key).variants
    names = [v.name for v in variants]
    # Whoever comes here wants to see what is learned, not the order that never changes.
    first = next((i for i, v in enumerate(variants) if v.policy not in LEARNERS_LAST), 0)
    chosen = st.segmented_control(
        "Variant",
        names,
        default=names[first],
        required=True,
        key="variant",
        bind="query-params",
        help=COLUMNS["variant"],
    )
    return str(chosen) if chosen in names else names[first]


def control(key: str) -> str | None:
    """The variant that others are compared with; None for the file's control."""
    experiment = data.experiment(key)
    usual = experiment.control.name
    # The control first, as what is usual.
    names = [usual, *(v.name for v in experiment.variants if v.name != usual)]
    if len(names) < 2:
        return None
    chosen = st.selectbox(
        "Compare with",
        names,
        key="against",
        bind="query-params",
        help=f"{TERMS['control']} Another one answers which of two others is better.",
    )
    return str(chosen) if chosen in names[1:] else None


def window() -> tuple[date | None, date | None]:
    """The days that are spoken of, first and last, both included (UTC); None where nothing bounds
    them.

    Raises:
        BadRequest: the last day is before the first.
    """
    left_column, right_column = st.columns(2)
    first = left_column.date_input(
        "First day",
        None,
        key="first_day",
        bind="query-params",
        format="YYYY-MM-DD",
        help="Only decisions from this day on (UTC); all where it is empty.",
    )
    last = right_column.date_input(
        "Last day",
        None,
        key="last_day",
        bind="query-params",
        format="YYYY-MM-DD",
        help="Only decisions up to this day (UTC), it included; all where it is empty.",
    )
    if first and last and last < first:
        raise BadRequest("last day", f"got {last}; expected the first day, {first}, or a later one")
    return first, last


def segment(key: str) -> str | None:
    """One of the context features that make groups; None where there is none."""
    names = list(data.ask(action_values.groups, key))
    if not names:
        return None
    chosen = st.segmented_control(
        "Viewers by",
        names,
        default=names[0],
        required=True,
        key="by",
        bind="query-params",
        help=TERMS["segment"],
    )
    # The address may name a feature that this experiment does not have.
    return str(chosen) if chosen in names else names[0]


def search(key: str, placeholder: str, label: str, options: Iterable[str]) -> tuple[str, list[str]]:
    """A field to search in beside pills to choose of.

    Args:
        key: of the field, also in the address.
        placeholder: what can be searched for.
        label: of the pills; in small letters their name in the address.
        options: what the pills are.

    Returns:
        What is typed, in small letters, and the pills that are chosen.
    """
    left_column, right_column = st.columns(2, vertical_alignment="bottom")
    with left_column:
        text = st.text_input(
            "Search",
            key=key,
            bind="query-params",
            placeholder=placeholder,
            icon=":material/search:",
        )
    with right_column:
        chosen = st.pills(
            label,
            list(options),
            key=label.lower(),
            bind="query-params",
            selection_mode="multi",
        )
    return (text or "").lower(), list(chosen)


def say_nothing_matches() -> None:
    """What stands where a search leaves nothing."""
    st.info("No experiment matches; clear the search.", icon=":material/search_off:")
