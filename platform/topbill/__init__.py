"""Topbill decides what a viewer sees on a streaming homepage, and proves what it was worth."""

__version__ = "0.2.0"
