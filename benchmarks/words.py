"""How far words carry before the first impression: Upworthy's headline tests, cross-validated.

    python -m benchmarks.words FILE [--sizes 64,256,1024] [--shared] [--minilm]

FILE is `upworthy_tests.parquet` of the Upworthy Research Archive (test_id, headline, image_id,
impressions, clicks, week). Sound tests are those outside of weeks 201325 to 201401, which the
archive's authors say were broken. A model that has learned the words (feature type `text`) of other
tests' arms, without and with columns for whole headlines and images, orders the arms of a test that
it has not seen. `--shared` counts only tests that have a headline or an image which another test
has. `--minilm` has vectors of a small language model in the words' place
(`benchmarks.sentence_vectors`). Each click rate is noisy, so the share is given for all pairs and
for those whose rates differ by more than noise (|z| > 1.96).
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow.parquet as pq
from scipy import sparse
from scipy.sparse.linalg import lsqr

from topbill.domain.chance import hash64
from topbill.domain.text_features import text_numbers, words

FOLDS = 10
BROKEN = range(201325, 201402)
SPREAD = 0.028
"""Variance of the arms' true rates around their test's, as a share of it: .168²."""


def arms(path: Path) -> dict[str, list[dict]]:
    """The arms of each sound test that has several."""
    tests: dict[str, list[dict]] = {}
    for row in pq.read_table(path).to_pylist():
        if int(row["week"]) not in BROKEN and row["impressions"] >= 100:
            tests.setdefault(row["test_id"], []).append(row)
    return {test: own for test, own in tests.items() if len(own) > 1}


def features(own: list[list[dict]], size: int, identities: int) -> list[sparse.csr_matrix]:
    """Words; and the whole headline and the image, each as one word more in columns of their own:
    less the test's mean.
    """
    out = []
    for rows in own:
        z = np.zeros((len(rows), size + 2 * identities))
        for i, row in enumerate(rows):
            for column, number in text_numbers(row["headline"] or "", size):
                z[i, column] = number
            if identities:
                whole = " ".join(words(row["headline"] or ""))
                for k, name in enumerate((whole, str(row["image_id"]))):
                    z[i, size + k * identities + hash64("whole", name) % identities] = 1.0
        out.append(sparse.csr_matrix(z - z.mean(axis=0)))
    return out


def vectors(own: list[list[dict]]) -> list[sparse.csr_matrix]:
    """MiniLM's vector of each headline, less the test's mean."""
    from benchmarks.sentence_vectors import SentenceVectors

    texts = sorted({row["headline"] or "" for rows in own for row in rows})
    place = {text: i for i, text in enumerate(texts)}
    encoded = SentenceVectors()(texts)
    out = []
    for rows in own:
        z = encoded[[place[row["headline"] or ""] for row in rows]]
        out.append(sparse.csr_matrix(z - z.mean(axis=0)))
    return out


def targets(own: list[list[dict]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each test, how far each arm's rate is above the test's, as a share of it, and its
    weight: one over its noise's variance.
    """
    out = []
    for rows in own:
        n = np.array([row["impressions"] for row in rows], dtype=float)
        clicks = np.array([row["clicks"] for row in rows], dtype=float)
        base = (clicks.sum() + 0.5) / (n.sum() + 1)
        out.append(((clicks / n - base) / base, n * base / (1 - base)))
    return out


def fitted(z: sparse.csr_matrix, y: np.ndarray, w: np.ndarray, prior: float) -> np.ndarray:
    """Ridge: the mode of N(0, prior) weights under noise 1/w and a spread of the arms' own."""
    root = np.sqrt(1.0 / (1.0 / w + SPREAD))
    scaled = sparse.diags(root) @ z
    return np.asarray(lsqr(scaled, root * y, damp=1 / np.sqrt(prior), iter_lim=200)[0])


def shares(own: list[list[dict]]) -> list[bool]:
    """Of each test, whether arms of it have a headline or an image that another test has."""
    seen: dict[str, set[int]] = {}
    for i, rows in enumerate(own):
        for name in _names(rows):
            seen.setdefault(name, set()).add(i)
    return [any(len(seen[name]) > 1 for name in _names(rows)) for rows in own]


def _names(rows: list[dict]) -> set[str]:
    headlines = {f"headline {' '.join(words(row['headline'] or ''))}" for row in rows}
    return headlines | {f"image {row['image_id']}" for row in rows if row["image_id"]}


def measure(
    path: Path, sizes: list[int], identities: int, prior: float, shared: bool, minilm: bool
) -> None:
    tests = arms(path)
    names = sorted(tests)
    own = [tests[name] for name in names]
    counted = shares(own) if shared else [True] * len(own)
    goals = targets(own)
    fold = np.random.default_rng(0).permutation(len(own)) % FOLDS
    encoded = vectors(own) if minilm else None
    for size in sizes:
        z = features(own, size, identities) if encoded is None else encoded
        right = pairs = clear_right = clear = 0
        by_test: list[tuple[int, int]] = []
        for k in range(FOLDS):
            learn = np.flatnonzero(fold != k)
            weights = fitted(
                sparse.vstack([z[i] for i in learn]).tocsr(),
                np.concatenate([goals[i][0] for i in learn]),
                np.concatenate([goals[i][1] for i in learn]),
                prior,
            )
            for i in np.flatnonzero((fold == k) & np.array(counted)):
                score, (y, w) = z[i] @ weights, goals[i]
                before = right, pairs
                for a, b in combinations(range(len(y)), 2):
                    if y[a] == y[b] or score[a] == score[b]:
                        continue
                    hit = (score[a] > score[b]) == (y[a] > y[b])
                    right, pairs = right + hit, pairs + 1
                    if abs(y[a] - y[b]) > 1.96 * np.sqrt(1 / w[a] + 1 / w[b]):
                        clear_right, clear = clear_right + hit, clear + 1
                by_test.append((right - before[0], pairs - before[1]))
        hits = np.array(by_test, dtype=float)
        share = hits[:, 0].sum() / hits[:, 1].sum()
        se = np.sqrt(((hits[:, 0] - share * hits[:, 1]) ** 2).sum()) / hits[:, 1].sum()
        told = f"MiniLM, prior {prior:g}" if minilm else f"size {size:5} identities {identities:5}"
        print(
            f"{told}: {share:.1%} ± {se:.1%} of {pairs:,} pairs, "
            f"{clear_right / clear:.1%} of {clear:,} that differ by more than noise "
            f"({sum(counted):,} of {len(own):,} tests)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sizes", default="64,256,1024")
    parser.add_argument("--identities", type=int, default=4096)
    parser.add_argument("--shared", action="store_true", help="only tests that share something")
    parser.add_argument("--prior", type=float, default=0.02)
    parser.add_argument("--minilm", action="store_true", help="vectors in place of words")
    args = parser.parse_args()
    if args.minilm:
        measure(args.file, [384], 0, args.prior, args.shared, minilm=True)
        return
    for identities in (0, args.identities):
        sizes = [int(each) for each in args.sizes.split(",")]
        measure(args.file, sizes, identities, args.prior, args.shared, minilm=False)


if __name__ == "__main__":
    main()
