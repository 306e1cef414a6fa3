"""The HTTP service: decide and reward on a fast path, everything else as ordinary FastAPI
routes.
"""
