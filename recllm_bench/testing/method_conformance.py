"""What every method in stages must do to be benched, as tests to inherit.

    from recllm_bench.testing import MethodConformance

    class TestMyMethod(MethodConformance):
        method = MyMethod
        changes = {"ridge": 1.0}

The data is planted. Everything runs through the bench's own cell, so that what passes here is what is benched.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from recllm_bench.api import Measure
from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.testing.planted import planted_files
from recllm_bench.testing.product_differences import differences

_REPORTED = {"measures", "substitutes", "tokens", "notes"}


class Killed(BaseException):
    """Stands for the end of the process."""


class MethodConformance:
    """Inherit, set ``method``, and let pytest collect the class.

    Attributes
    ----------
    method : type or str
        The method's class, or a name of the registry.
    options, training, conversation : mapping
        Of the recipe; make it small.
    changes : mapping
        Options that the product depends on, each with another value than it has here.
    apart : tuple of str
        Files of products, or keys of their JSON files, that hold what was measured on the way and nothing that is
        loaded: on the test part, or by one attempt alone.
    protocol : str
        By default the model's own.
    n_users, n_items : int
        Size of the planted data.
    """

    method: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}
    training: ClassVar[Mapping[str, Any]] = {"epochs": 2}
    conversation: ClassVar[Mapping[str, Any]] = {}
    changes: ClassVar[Mapping[str, Any]] = {}
    apart: ClassVar[tuple[str, ...]] = ()
    protocol: ClassVar[str] = ""
    n_users: ClassVar[int] = 40
    n_items: ClassVar[int] = 40

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder of the class's own, with the planted data."""
        folder = tmp_path_factory.mktemp("method")
        planted_files(folder / "data", cls.n_users, cls.n_items)
        return folder

    @classmethod
    def cell_of(cls, place: Path, store: str = "store", **changes: Any) -> Any:
        """A fresh cell, as another process would make it; ``changes`` are laid over the recipe."""
        from recllm_bench.planning import resolved
        from recllm_bench.recipe import recipe_from
        from recllm_bench.runner import BenchCell

        name = cls.method if isinstance(cls.method, str) else f"{cls.method.__module__}:{cls.method.__qualname__}"
        values: dict[str, Any] = {"model": name, "dataset": str(place / "data" / "planted.csv"), "device": "cpu"}
        values |= {"protocol": cls.protocol}
        for section in ("options", "training", "conversation"):
            values[section] = {**getattr(cls, section), **changes.get(section, {})}
        return BenchCell(resolved(recipe_from(values, "conformance")), store=ArtifactStore(place / store))

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, place: Path) -> tuple[Any, dict[str, Path], dict[str, int]]:
        """The cell, the product of each stage, and how many files each stage wrote in one step."""
        cell = cls.cell_of(place)
        with _replacements() as written:
            folders = cell.cell.trained[0]
        counts = {
            stage: sum(f"{folder.name}.partial" in Path(path).parts[:-1] for path in written)
            for stage, folder in folders.items()
        }
        return cell, folders, counts

    def ranks_of(self, cell: Any) -> Any:
        """Places of the test targets, by the bench's own way."""
        from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates
        from recllm_bench.evaluation.ranks import rank_cases

        model, cases = cell.cell.load(), evaluated_cases(cell.split.test, cell.protocol)
        candidates = protocol_candidates(cell.protocol, cell.split, cases, cell.store)
        length = cell.cell.history_length(model)
        return rank_cases(
            model, cell.split, cases, cell.protocol, columns=cell.columns(cases), candidates=candidates,
            max_length=length, device=cell.device,
        )  # fmt: skip

    def test_keeps_the_contract(self, place: Path) -> None:
        """Names and signatures; stages have names of their own and keys that can be hashed."""
        from recllm_bench.api import check

        cell = self.cell_of(place)
        check(cell.entry.method)
        stages = cell.cell.method.stages()
        names = [stage.name for stage in stages]
        assert names and len(set(names)) == len(names)
        for number, stage in enumerate(stages):
            content_hash(dict(stage.key))
            assert set(stage.needs or ()) <= set(names[:number])

    def test_keys_follow_the_options(self, place: Path) -> None:
        """An option that the product depends on changes a key; equal recipes have equal keys."""
        key = self.cell_of(place).cell.key
        assert self.cell_of(place).cell.key == key
        for name, value in self.changes.items():
            assert self.cell_of(place, options={name: value}).cell.key != key, f"{name} is in no stage's key"

    def test_loading_twice_is_the_same(self, trained: Any, place: Path) -> None:
        """Another process that finds the stages finished ranks alike, and trains nothing."""
        first = self.ranks_of(trained[0])
        with _replacements() as written:
            other = self.cell_of(place)
            second = self.ranks_of(other)
        families = {folder.parent.name for folder in trained[1].values()}
        assert not [path for path in written if Path(path).parent.parent.name in families]
        for part in ("higher", "tied", "candidates"):
            np.testing.assert_array_equal(getattr(first, part), getattr(second, part))

    def test_every_stage_goes_on_after_a_kill(self, trained: Any, place: Path, tmp_path: Path) -> None:
        """Killed after half of its files, or called once more where it wrote none in one step: an equal product."""
        _, folders, counts = trained
        for number, name in enumerate(folders):
            work = tmp_path / name
            work.mkdir()
            done = dict(list(folders.items())[:number])
            try:
                with _replacements(work, stop=(counts[name] + 1) // 2):
                    self.cell_of(place).cell.method.stages()[number].make(work, dict(done))
            except Killed:
                pass
            self.cell_of(place).cell.method.stages()[number].make(work, dict(done))
            found = differences(folders[name], work, self.apart)
            assert not found, f"stage {name}: {found}"

    def test_no_stage_reads_the_test_part(self, trained: Any, place: Path) -> None:
        """With other test items, as new to their users as the true ones, all products are the same."""
        cell = self.cell_of(place, store="poisoned")
        histories, test = cell.dataset.histories, cell.split.test
        items = histories.items.copy()
        others = [np.setdiff1d(np.arange(1, histories.n_items + 1), histories.of(user)) for user in test.users]
        targets = np.array([left[row % len(left)] for row, left in enumerate(others)], dtype=np.int32)
        items[test.ends] = targets
        histories = dataclasses.replace(histories, items=items)
        cell.dataset = dataclasses.replace(cell.dataset, histories=histories)
        cell.split = dataclasses.replace(
            cell.split, histories=histories, test=dataclasses.replace(test, targets=targets)
        )
        for name, folder in cell.cell.trained[0].items():
            found = differences(trained[1][name], folder, self.apart)
            assert not found, f"stage {name} has read the test part: {found}"

    def test_report_is_plain(self, trained: Any) -> None:
        """Numbers, names and sentences that fit into a record."""
        cell, folders, _ = trained
        self.ranks_of(cell)
        said = cell.cell.method.report(folders)
        assert set(said) <= _REPORTED
        measures = said.get("measures") or []
        assert all(isinstance(measure, Measure) for measure in measures)
        json.dumps({**said, "measures": [measure.as_dict() for measure in measures]})
        assert len({measure.label for measure in measures}) == len(measures)

    def test_columns_follow_the_words(self, trained: Any) -> None:
        """One row a case; other words make other columns, and a model that reads none needs no words and no targets."""
        from recllm_bench.evaluation.candidates import evaluated_cases

        cell = trained[0]
        cases = evaluated_cases(cell.split.test, cell.protocol)
        own = cell.columns(cases) or {}
        assert all(len(column) == len(cases) for column in own.values())
        if not cell.entry.reads_words:
            hidden = dataclasses.replace(cases, targets=np.zeros_like(cases.targets))
            again = cell.cell.method.columns(hidden, cell.job.words) or {}
            assert own.keys() == again.keys()
            return
        assert own, "a model that reads words gets none"
        for whose in ("another", "none"):
            other = cell.cell.method.columns(cases, cell.job.words.of(whose))
            assert other.keys() == own.keys()
            assert any(not np.array_equal(own[name], other[name]) for name in own), f"the same columns with {whose}"

    def test_controls_run_without_training(self, trained: Any, place: Path) -> None:
        """With another user's words, and with none."""
        if not trained[0].entry.reads_words:
            pytest.skip("the model reads no words")
        for whose in ("another", "none"):
            cell = self.cell_of(place, conversation={"words": whose})
            assert cell.cell.key == trained[0].cell.key
            assert (self.ranks_of(cell).tied >= 1).all()

    def test_answers_are_items_not_shown_before(self, trained: Any) -> None:
        """In range, none twice, none that was shown, at most as many as are shown; each dialogue for itself."""
        from recllm_bench.conversation.dialogue import Dialogue

        cell = trained[0]
        if not cell.entry.converses:
            pytest.skip("the model does not converse")
        model, job, histories = cell.cell.load(), cell.talking_job(), cell.dataset.histories
        said = ("I want a comedy.", "Something from the 1960s, please.", "No. Rather a western.")

        def dialogues() -> list[Any]:
            made = [Dialogue(user, histories.of(user)[:-1], [("user", said[user % 3])], []) for user in range(1, 7)]
            for dialogue in made[3:]:
                dialogue.shown = [1, 2, 3]
                dialogue.messages += [("assistant", "How about these?"), ("user", said[2])]
            return made

        together = model.respond(job, dialogues())
        alone = [model.respond(job, [dialogue])[0] for dialogue in dialogues()]
        for dialogue, answer, single in zip(dialogues(), together, alone, strict=True):
            assert 0 < len(answer.items) <= job.protocol.shown_per_turn
            assert len(set(answer.items)) == len(answer.items)
            assert not set(answer.items) & set(dialogue.shown)
            assert all(1 <= item <= histories.n_items for item in answer.items)
            assert answer.items == single.items


@contextmanager
def _replacements(root: Path | None = None, stop: int = 0) -> Iterator[list[str]]:
    """Within it, every file put in place in one step is noted; after the ``stop``-th below ``root`` comes a kill."""
    real, written = os.replace, list[str]()

    def replace(source: Any, target: Any, **more: Any) -> None:
        real(source, target, **more)
        if root is None or Path(target).is_relative_to(root):
            written.append(str(target))
            if len(written) == stop:
                raise Killed

    os.replace = replace  # type: ignore[assignment]
    try:
        yield written
    finally:
        os.replace = real
