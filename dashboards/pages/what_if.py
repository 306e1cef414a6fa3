"""Not there yet."""

import streamlit as st

st.title("what_if")
