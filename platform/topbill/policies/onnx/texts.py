"""Models that turn a text into a vector, and what they are given: the text itself, or the numbers
of its tokens.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topbill.domain import text_features
from topbill.domain.errors import PolicyError
from topbill.domain.records import Floats
from topbill.policies.onnx import models
from topbill.policies.onnx.runtime import OnnxSession, TensorSpec

MOST_TOKENS = 256
"""Tokens of a text that are read."""
LARGEST_TOKENIZER = 50_000_000
"""Bytes of a tokenizer's file."""
_TRIAL_SECONDS = 5.0
_STRING = "tensor(string)"
_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
"""How models of tokens call their inputs: the tokens, which of them count, and of which text."""
_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"
TOKENIZER_NAME = rf"{_NAME}(/{_NAME})?\.json"
"""How the file of a tokenizer may be called: beside the experiment's, or in a folder beside it."""
_Inputs = dict[str, NDArray[Any]]
_lock = threading.Lock()


def is_tokenizer_name(name: Any) -> bool:
    """Whether an experiment may name such a file."""
    return isinstance(name, str) and re.fullmatch(TOKENIZER_NAME, name) is not None


def read(path: Path, folder: Path, tokenizer: Path | None = None) -> tuple[str, int]:
    """Take a model for texts from its file. Returns what `text_features` knows it by (the SHA-256
    of the file, or of the two digests behind each other where there is a tokenizer), and how long
    its vectors are.

    Args:
        path: The model, an ONNX file.
        folder: Where files must lie, links followed.
        tokenizer: A `tokenizer.json` of Hugging Face, for a model that takes tokens.

    Raises:
        PolicyError: They can't be used; the message says why.
    """
    digest = models.read(path, folder)
    session = models.known(digest)
    content = b""
    if tokenizer is not None:
        content = _content(tokenizer, folder)
        both = digest + sha256(content).hexdigest()
        digest = sha256(both.encode()).hexdigest()
    with _lock:
        encoder = _known.get(digest)
        if encoder is None:
            encoder = _known[digest] = OnnxTexts(session, content)
            text_features.remember(digest, encoder)
    return digest, encoder.length


def _content(path: Path, folder: Path) -> bytes:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            raise PolicyError(f"{path.name} is outside the experiments' folder; expected it there")
        if real.stat().st_size > LARGEST_TOKENIZER:
            raise PolicyError(f"{path.name} has more than {LARGEST_TOKENIZER:,} bytes")
        return real.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path.name} cannot be read ({error.strerror})") from error


class OnnxTexts:
    """A model of texts: called with one, it gives its vector (length,).

    The model has one input of strings, or `input_ids` with, if it likes, `attention_mask` and
    `token_type_ids`, as sentence encoders are exported. Its first output, or the one called
    `sentence_embedding`, is a vector for each text, or one for each token, whose mean is taken.
    """

    def __init__(self, session: OnnxSession, tokenizer: bytes = b"") -> None:
        self._session = session
        # A tokenizer's buffers are one caller's at a time.
        self._lock = threading.Lock()
        self._inputs = self._inputs_of(tokenizer)
        names = [output.name for output in session.outputs]
        self._output = "sentence_embedding" if "sentence_embedding" in names else names[0]
        self.length = len(self._vector("a text to try it with", _TRIAL_SECONDS))

    def __call__(self, text: str) -> Floats:
        return self._vector(text, None)

    def _inputs_of(self, tokenizer: bytes) -> Callable[[str], _Inputs]:
        """What makes a text the model's inputs. Raises PolicyError for a model that takes none."""
        inputs = self._session.inputs
        if len(inputs) == 1 and inputs[0].type == _STRING:
            if tokenizer:
                raise PolicyError("a model that takes texts as they are; expected no tokenizer")
            return _of_strings(inputs[0])
        names = [one.name for one in inputs]
        if _TOKENS[0] not in names or not set(names) <= set(_TOKENS):
            told = "; ".join(str(one) for one in inputs)[:200]
            raise PolicyError(
                f"inputs {told}; expected one of strings, or {_TOKENS[0]} with, if any, "
                f"{' and '.join(_TOKENS[1:])}"
            )
        if not tokenizer:
            raise PolicyError(
                "a model that takes tokens; expected a tokenizer beside it (tokenizer: FILE)"
            )
        return _of_tokens(tokenizer, names)

    def _vector(self, text: str, seconds: float | None) -> Floats:
        with self._lock:
            inputs = self._inputs(text)
        answer = self._session.run(self._output, inputs, seconds)
        if answer.ndim == 3 and len(answer) == 1:
            answer = answer.mean(axis=1)
        if answer.ndim != 2 or len(answer) != 1 or not np.issubdtype(answer.dtype, np.number):
            raise PolicyError(
                f"output {self._output} of shape {list(answer.shape)} and type {answer.dtype} for "
                "one text; expected [1, length] or [1, tokens, length] numbers"
            )
        vector: Floats = answer[0].astype(np.float64)
        if not np.isfinite(vector).all():
            raise PolicyError(f"output {self._output} has numbers that are not finite")
        return vector


def _of_strings(spec: TensorSpec) -> Callable[[str], _Inputs]:
    shape = (1,) * max(len(spec.shape), 1)

    def inputs(text: str) -> _Inputs:
        return {spec.name: np.array([text], dtype=object).reshape(shape)}

    return inputs


def _of_tokens(content: bytes, names: list[str]) -> Callable[[str], _Inputs]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PolicyError(
            f"tokenizers cannot be imported ({error}); pip install 'topbill[onnx]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # its own kinds, which have no common one
        raise PolicyError(f"no tokenizer.json ({str(error)[:200]})") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)

    def inputs(text: str) -> _Inputs:
        encoded = tokenizer.encode(text)
        arrays = (encoded.ids, encoded.attention_mask, encoded.type_ids)
        named = dict(zip(_TOKENS, arrays, strict=True))
        return {name: np.array([named[name]], dtype=np.int64) for name in names}

    return inputs


_known: dict[str, OnnxTexts] = {}
