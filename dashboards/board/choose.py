"""Choices that several pages offer, kept in the address."""

from __future__ import annotations

import streamlit as st

from board import data
from board.terms import COLUMNS, TERMS
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
