"""The example method: the bench's conformance suite, and its first stage by another way."""

import numpy as np
from recllm_bench_example.words_and_history import WordsAndHistoryMethod

from recllm_bench.testing import MethodConformance


class TestWordsAndHistory(MethodConformance):
    method = WordsAndHistoryMethod
    conversation = {"simulator": "rules:2"}  # noqa: RUF012
    changes = {"ridge": 1.0, "steps": 4}  # noqa: RUF012

    def test_the_map_is_the_ridge_regression(self, trained):
        cell, folders, _ = trained
        found = np.load(folders["align"] / "vectors.npz")
        texts, histories = found["texts"].astype(np.float64), cell.split.histories
        rows = [
            histories.items[start:end] for start, end in zip(histories.offsets, cell.split.train_ends, strict=False)
        ]
        means = np.stack([texts[row[:place]].mean(0) for row in rows for place in range(1, len(row))])
        wanted = np.stack([texts[row[place]] for row in rows for place in range(1, len(row))])
        padded = np.concatenate([means, np.sqrt(10.0) * np.eye(means.shape[1])])
        solved = np.linalg.lstsq(padded, np.concatenate([wanted, np.zeros((means.shape[1],) * 2)]), rcond=None)[0]
        np.testing.assert_allclose(found["map"], solved, atol=1e-5)

    def test_the_weight_is_the_best_on_validation(self, trained):
        cell, folders, _ = trained
        weight, best = (measure.value for measure in cell.cell.method.report(folders)["measures"])
        assert 0 <= weight <= 1 and best > 0
