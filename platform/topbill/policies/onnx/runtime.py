"""The one place that speaks to ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import PolicyError


class TensorSpec(NamedTuple):
    """An input or output: its name, its element type (`tensor(float)`), and its dimensions; None
    for one of any size.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        shape = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.name}, a {self.type} of shape [{shape}]"


class OnnxSession:
    """A model that ONNX Runtime has taken: on one thread, so that equal inputs give equal scores in
    every process of a machine. Raises PolicyError for one that it refuses, or where it is not
    installed.
    """

    def __init__(self, data: bytes) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise PolicyError(
                f"ONNX Runtime cannot be imported ({error}); pip install 'topbill[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        # Of bytes it would otherwise guess what they are.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self._new_run = onnxruntime.RunOptions
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own kinds, which have no common one
            raise PolicyError(_plain(error)) from error
        self.inputs = [_spec(node) for node in self._session.get_inputs()]
        self.outputs = [_spec(node) for node in self._session.get_outputs()]

    def run(
        self, output: str, inputs: Mapping[str, NDArray[Any]], seconds: float | None = None
    ) -> NDArray[Any]:
        """One output for these inputs; stopped after `seconds`, where said. Raises PolicyError."""
        options = self._new_run()
        options.log_severity_level = 4
        watch = None
        if seconds is not None:
            watch = threading.Timer(seconds, lambda: setattr(options, "terminate", True))
            watch.daemon = True
            watch.start()
        try:
            (answer,) = self._session.run([output], dict(inputs), options)
        except Exception as error:
            raise PolicyError(_plain(error)) from error
        finally:
            if watch is not None:
                watch.cancel()
        if not isinstance(answer, np.ndarray):
            raise PolicyError(f"output {output} is a {type(answer).__name__}; expected a tensor")
        return answer


def _spec(node: Any) -> TensorSpec:
    shape: Sequence[Any] = node.shape or ()
    return TensorSpec(
        node.name, node.type, tuple(size if isinstance(size, int) else None for size in shape)
    )


def _plain(error: Exception) -> str:
    """What ONNX Runtime says, without its codes and the places in its source, on one line."""
    text = " ".join(str(error).split())
    _, _, rest = text.rpartition("[ONNXRuntimeError] :")
    return (rest or text).strip(" :")[:300]
