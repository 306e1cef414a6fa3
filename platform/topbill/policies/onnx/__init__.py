"""Scores from an ONNX model: its file checked, its inputs filled with declared features."""

from topbill.policies.onnx.models import MOST_BYTES, known, read
from topbill.policies.onnx.scores import OnnxScores

__all__ = ["MOST_BYTES", "OnnxScores", "known", "read"]
