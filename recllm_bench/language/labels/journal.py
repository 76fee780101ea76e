"""Answers of a language model, kept as they come: a file of JSON lines that a kill cannot spoil."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from recllm_bench.errors import BenchError
from recllm_bench.language.json_lines import append, appended
from recllm_bench.language.labels.label_records import Label
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
        append(self.path, map(asdict, labels))
        for label in labels:
            self._answers[_question(label)] = label.text

    def _read(self) -> None:
        whole = 0  # bytes of the lines that are complete
        lines = enumerate(appended(self.path), 1)
        for number, (end, entry) in lines:
            try:
                label = Label(**entry) if isinstance(entry, dict) else None
                reason = entry if label is None else None
            except TypeError as error:
                label, reason = None, error
            if label is None:
                if next(lines, None) is not None or end < self.path.stat().st_size:
                    raise BenchError(
                        f"{self.path}:{number}: not an answer of a model ({reason}); take the line out and it is asked"
                        " again, or remove the file to ask everything again"
                    )
                break
            self._answers[_question(label)] = label.text
            whole = end
        if whole < self.path.stat().st_size:
            log.warning(f"{self.path}: the last line was torn by a kill; it is dropped and asked again")
            with open(self.path, "r+b") as file:
                file.truncate(whole)


def _question(label: Label) -> Question:
    return label.kind, label.id, label.stage, label.version, label.model, label.prompt_hash
