"""Who may look: everybody on this machine, or who knows the password or has signed in where secrets
ask for it.
"""

from __future__ import annotations

import hmac
import math
import os
from collections.abc import Mapping

import streamlit as st

from board.tries import TRIES
from board.words import code
from topbill.reporting.visitors import PASSWORD, may_look


def _secret(name: str) -> object:
    try:
        return st.secrets.get(name)
    except FileNotFoundError:
        return None


def pass_or_stop() -> None:
    """Stop here unless the viewer may look: by OIDC where the secrets have `[auth]`, by password
    where there is one.
    """
    auth = _secret("auth")
    if isinstance(auth, Mapping):
        _signed_in_or_stop(auth)
        return
    password = os.environ.get(PASSWORD) or _secret("password")
    if password is None or st.session_state.get("known"):
        return
    _title()
    text = st.text_input("Password", type="password")
    if text:
        _try(text, str(password))
    st.stop()


def _title() -> None:
    # By this key the style knows that no sidebar will come, whose room it keeps.
    with st.container(key="gate"):
        st.title("Topbill")


def _try(text: str, password: str) -> None:
    """Let in who knows the password; of all others only so many a minute may try."""
    seconds = TRIES.wait()
    if seconds > 0.0:
        sentence = f"Too many wrong passwords. Try again in {math.ceil(seconds)} s."
        st.error(sentence, icon=":material/lock:")
        return
    # Compared in constant time: how long a wrong one takes tells nothing about the right one.
    if hmac.compare_digest(text.encode(), password.encode()):
        st.session_state["known"] = True
        st.rerun()
    TRIES.failed()
    st.error("That is not the password.", icon=":material/lock:")


def _signed_in_or_stop(auth: Mapping[str, object]) -> None:
    """By the provider of `[auth]`, or one of several; then only who is in its `allowed`, if there
    is such a list.
    """
    if not st.user.is_logged_in:
        _offer_sign_in(auth)
        st.stop()
    email = _verified_email()
    if may_look(email, auth.get("allowed")):
        return
    who = code(email) if email else "somebody without a verified address"
    _title()
    st.warning(
        f"You are signed in as {who}, who may not look "
        "here. Ask the one who runs these dashboards, or sign in as somebody else.",
        icon=":material/lock:",
    )
    st.button("Sign out", on_click=st.logout, icon=":material/logout:")
    st.stop()


def _offer_sign_in(auth: Mapping[str, object]) -> None:
    """A button for each provider; one without a name where there is only `[auth]` itself."""
    _title()
    providers = []
    for name, section in auth.items():
        if isinstance(section, Mapping) and name != "client_kwargs":
            providers.append(name)
    for name in providers or [""]:
        label = f"Sign in with {name}" if name else "Sign in"
        st.button(
            label,
            on_click=st.login,
            args=(name or None,),
            type="primary",
            icon=":material/login:",
        )


def _verified_email() -> str | None:
    """The viewer's address; None where the provider has not verified it, since anybody may claim
    any address.
    """
    if not st.user.get("email_verified", True):
        return None
    email = st.user.get("email")
    return None if email is None else str(email)


def way_out() -> None:
    """Who is signed in, and a button to sign out; nothing where nobody has to sign in."""
    if _secret("auth") is not None and st.user.is_logged_in:
        who = st.user.get("email") or st.user.get("name") or "a viewer"
        st.caption(f"Signed in as {code(str(who))}")
        st.button("Sign out", on_click=st.logout, icon=":material/logout:", type="tertiary")
