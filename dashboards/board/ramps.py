"""A launch as people read it: where it stands, what it waits for, and what was done before."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import data, pieces, words
from board.terms import TERMS
from topbill.reporting.queries.launches import LaunchStanding, launch_of, launches
from topbill.spec.fields import percent

ICONS = {"over": ":material/undo:", "ramp": ":material/trending_up:"}


def section(key: str) -> None:
    """The launch of an experiment; nothing where its file has none."""
    launch = data.ask(launch_of, key)
    if launch is None:
        return
    pieces.section("Launch", TERMS["launch"])
    st.markdown(steps_of(launch))
    if launch.each_step:
        st.caption(launch.each_step)
    say(launch)
    lines = []
    for step in launch.steps:
        lines.append(
            {
                "when": words.minute(step.at),
                "what": step.name,
                "by": step.who,
                "why": step.because or words.MISSING,
            }
        )
    if lines:
        pieces.table(pd.DataFrame(lines), f"{key}-launch")


def say(launch: LaunchStanding) -> None:
    """Where it stands, and what somebody has to do where somebody has to."""
    text = f"**{launch.state}.** {words.plain(sentence(launch))}"
    icon = ICONS.get(launch.stage, ":material/hourglass_top:")
    if launch.needs_approval:
        text += f" Somebody has to say `topbill approve {launch.experiment}`."
    if launch.needs_approval or launch.stage == "over":
        st.warning(text, icon=icon)
        if launch.stage == "over":
            st.caption(
                "A launch looks for harm alone, by a test of its own that may be read at any time: "
                "it may find harm while the results below are still inconclusive."
            )
    else:
        st.info(text, icon=icon)


def sentence(launch: LaunchStanding) -> str:
    """The same as `topbill status` says, as a sentence."""
    parts = [part for part in (launch.says, launch.goes_on) if part]
    return " ".join([f"{part[:1].upper()}{part[1:]}." for part in parts])


def steps_of(launch: LaunchStanding) -> str:
    """The steps of its ramp, the present one in bold: 1% → **5%** → 50% (approval) → 100%."""
    names = []
    for traffic in launch.ramp:
        name = percent(traffic)
        if traffic == launch.traffic and launch.stage != "over":
            name = f"**{name}**"
        if traffic in launch.approve_at:
            name += " (when somebody approves)"
        names.append(name)
    return "Traffic: " + " → ".join(names)


def by_experiment() -> dict[str, LaunchStanding]:
    """Where every launch stands."""
    return {launch.experiment: launch for launch in data.ask(launches)}


def on_card(launch: LaunchStanding) -> None:
    """One line for an experiment's card."""
    sign = ":material/warning:" if launch.needs_approval else ":material/rocket_launch:"
    says = f"{launch.says[:1].upper()}{launch.says[1:]}"
    st.caption(f"{sign} Launch: {launch.state.lower()}. {words.plain(says)}.")
