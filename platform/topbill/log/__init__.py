"""The log: the transactional intake of decisions and reward events, and its import and export
formats.
"""
