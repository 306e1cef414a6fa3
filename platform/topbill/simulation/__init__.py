"""Viewers with known truth, and replay of real logs: what shows that a policy learns before it
meets anybody.
"""
