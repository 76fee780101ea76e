"""Measure how fast texts of mixed lengths become vectors, beside sentence-transformers with the same MiniLM files.

    python benchmarks/embedding.py                      4,000 invented texts of 3 to 180 words
    python benchmarks/embedding.py --texts 50000 --device cuda

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from side_by_side import OURS, Comparison, Curve, Runner, Side, Target

from recllm_bench.errors import BenchError

FASTER = 1.5
"""Ratio below which ``--assert`` fails."""
CLOSE = 1e-4
"""Largest difference between two vectors of length 1."""
COLUMNS = {
    "seconds": "seconds",
    "texts_per_second": "texts/s",
    "peak_gib": "peak GiB",
    "cuda_gib": "CUDA GiB",
}


def invented(count: int, longest: int, repeated: float, seed: int) -> list[str]:
    """Texts whose numbers of words are log-uniform from 3 to ``longest``; a share of them occurs before.

    Few words are frequent and most are rare, as in real texts.
    """
    rng = np.random.default_rng(seed)
    words = np.array(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())
    lengths = np.exp(rng.uniform(np.log(3), np.log(longest + 1), count)).astype(int)
    drawn = (len(words) * rng.random(int(lengths.sum())) ** 3).astype(int)
    texts = [" ".join(part) for part in np.split(words[drawn], np.cumsum(lengths)[:-1])]
    for row in np.flatnonzero(rng.random(count) < repeated):
        texts[row] = texts[int(rng.integers(0, row + 1))]
    return texts


def ours(texts: dict[str, Any], device: str, place: str) -> dict[str, Any]:
    """Encode with this project's encoder."""
    from recllm_bench.language.encoders import load_text_encoder

    encoder = load_text_encoder("minilm", device=device, dtype="float32")
    encoder.encode(["one text, so that the weights are there"])
    return _timed(lambda rows: encoder.encode(rows), texts, device, Path(place) / "ours.npy")


def sentence_transformers(texts: dict[str, Any], device: str, place: str, batch_size: int) -> dict[str, Any]:
    """Encode with sentence-transformers as it is, from the same files."""
    from sentence_transformers import SentenceTransformer

    from recllm_bench.language.encoder_files import find_encoder

    model = SentenceTransformer(str(find_encoder("minilm").folder), device=device)
    model.encode(["one text, so that the weights are there"])
    return _timed(
        lambda rows: model.encode(rows, batch_size=batch_size, show_progress_bar=False),
        texts,
        device,
        Path(place) / "peer.npy",
    )


def _timed(encode: Any, texts: dict[str, Any], device: str, file: Path) -> dict[str, Any]:
    rows = invented(**texts)
    before, start = side_by_side.resident(), time.perf_counter()
    vectors = encode(rows)
    side_by_side.wait_for(device)
    seconds = time.perf_counter() - start
    np.save(file, vectors)
    return {"before_gib": before, "seconds": seconds, "texts_per_second": len(rows) / seconds}


ACTIONS = {"ours": ours, "sentence_transformers": sentence_transformers}


def _texts(given: argparse.Namespace) -> dict[str, Any]:
    return {"count": given.texts, "longest": given.longest, "repeated": given.repeated, "seed": given.seed}


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Encode on both sides, compare every vector."""
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
        arguments = {"texts": _texts(given), "device": given.device, "place": place}
        peer = {**arguments, "batch_size": given.peer_batch_size}
        sides = [
            Side(OURS, "ours", arguments),
            Side("sentence-transformers", "sentence_transformers", peer),
        ]
        found = runner.compare(f"{given.texts:,} texts of 3 to {given.longest} words, MiniLM, float32", sides)
        gap = float(np.abs(np.load(Path(place) / "ours.npy") - np.load(Path(place) / "peer.npy")).max())
    if gap > CLOSE:
        raise BenchError(f"the two sides differ: a number of a vector by {gap:.1e}")
    found.notes.append(f"largest difference of a number of any vector: {gap:.1e}")
    if given.repeated:
        found.notes.append(f"{given.repeated:.0%} of the texts occur before; ours encodes a text once")
    return [found.judge(Target("seconds", FASTER))]


def grow(given: argparse.Namespace, runner: Runner) -> list[Curve]:
    """Seconds over the number of texts and over the longest."""
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:

        def side(**changes: Any) -> Side:
            return Side(OURS, "ours", {"texts": {**_texts(given), **changes}, "device": given.device, "place": place})

        counts = np.geomspace(given.texts / 8, given.texts, 4).round().astype(int).tolist()
        return [
            runner.curve("encoding", "texts", {size: side(count=size) for size in counts}),
            runner.curve("encoding", "words at most", {size: side(longest=size) for size in (20, 45, 90, 180)}),
        ]


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--longest", type=int, default=180, help="most words; longer ones are cut")
    parser.add_argument("--repeated", type=float, default=0.0, help="share of texts that occur before (default: 0)")
    parser.add_argument("--peer-batch-size", type=int, default=32, help="sentence-transformers' own default is 32")
    parser.add_argument("--seed", type=int, default=1)
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS, grow)


if __name__ == "__main__":
    sys.exit(main())
