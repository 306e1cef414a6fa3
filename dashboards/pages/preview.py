"""Not there yet."""

import streamlit as st

st.title("preview")
