"""Answers of a language model, kept as they come: a file of JSON lines that a kill cannot spoil."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from recllm_bench.errors import BenchError
from recllm_bench.language.labels.records import Label
from recllm_bench.progress import log

Question = tuple[str, int, int, int, str, str]
"""Kind, id, stage, version, model, hash of the prompt: what is never asked twice."""


class Journal:
    """What was asked of a model and what it answered, refusals and empty answers included.

    Opening it mends a last line that a kill tore; any other line that cannot be read is an error.

    Parameters
    ----------
    path : Path
        The file; made with the first answer.

    Raises
    ------
    BenchError
        With file and line, for a damaged line that is not the last.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._answers: dict[Question, str] = {}
        if self.path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, question: Question) -> str | None:
        """The answer to a question, None when it was not asked."""
        return self._answers.get(question)

    def append(self, labels: Iterable[Label]) -> None:
        """Write answers to the end of the file and wait until they are on the disk."""
        labels = list(labels)
        lines = "".join(json.dumps(asdict(label), ensure_ascii=False) + "\n" for label in labels)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(lines.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        for label in labels:
            self._answers[_question(label)] = label.text

    def _read(self) -> None:
        whole = 0  # bytes of the lines that are complete
        with open(self.path, "rb") as file:
            lines = enumerate(file, 1)
            for number, line in lines:
                try:
                    label = Label(**json.loads(line)) if line.endswith(b"\n") else None
                except (ValueError, TypeError) as error:
                    if next(lines, None) is not None:
                        raise BenchError(
                            f"{self.path}:{number}: not an answer of a model ({error}); take the line out and it is "
                            "asked again, or remove the file to ask everything again"
                        ) from error
                    label = None
                if label is None:
                    break
                self._answers[_question(label)] = label.text
                whole += len(line)
        if whole < self.path.stat().st_size:
            log.warning(f"{self.path}: the last line was torn by a kill; it is dropped and asked again")
            with open(self.path, "r+b") as file:
                file.truncate(whole)


def _question(label: Label) -> Question:
    return label.kind, label.id, label.stage, label.version, label.model, label.prompt_hash
