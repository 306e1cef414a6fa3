"""Topbill decides what a viewer sees on a streaming homepage, and proves what it was worth."""

__version__ = "0.1.0"
