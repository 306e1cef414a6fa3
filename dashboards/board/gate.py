"""Who may look: everybody on this machine, or who knows the password or has signed in where secrets ask for it."""

from __future__ import annotations

import hmac
import os

import streamlit as st

from topbill.dashboard import PASSWORD


def _secret(name: str) -> object:
    try:
        return st.secrets.get(name)
    except FileNotFoundError:
        return None


def pass_or_stop() -> None:
    """Stop here unless the viewer may look: by OIDC where the secrets have `[auth]`, by password where there is one."""
    if _secret("auth") is not None:
        if not st.user.is_logged_in:
            st.title("Topbill")
            st.button("Sign in", on_click=st.login, type="primary", icon=":material/login:")
            st.stop()
        return
    password = os.environ.get(PASSWORD) or _secret("password")
    if password is None or st.session_state.get("known"):
        return
    st.title("Topbill")
    given = st.text_input("Password", type="password")
    if given and hmac.compare_digest(given.encode(), str(password).encode()):
        st.session_state["known"] = True
        st.rerun()
    if given:
        st.error("That is not the password.", icon=":material/lock:")
    st.stop()
