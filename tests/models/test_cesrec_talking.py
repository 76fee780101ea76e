"""CESRec in dialogues: histories are rewritten sentence by sentence, as a loop over one user would."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError
from recllm_bench.models.cesrec.masking import mask_outliers
from recllm_bench.models.cesrec.options import CESRecOptions
from recllm_bench.models.cesrec.talking import Talker
from tests.conftest import planted_catalogue

N = 30
JOB = SimpleNamespace(protocol=SimpleNamespace(shown_per_turn=3, exclude_history=False))
VECTORS = torch.randn(N + 1, 4, generator=torch.Generator().manual_seed(0))


class Near:
    """A backend that ranks items by how near their ids are to the newest one."""

    device, history_length = torch.device("cpu"), 6

    def score(self, items, lengths, users, ids=None):
        last = items.gather(1, lengths[:, None] - 1)
        return -(torch.arange(N + 1)[None] - last).abs().float()


class Writer:
    """Writes the item that a sentence numbers in the place of the newest one; counts what it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, lists, flags, said, targets):
        assert targets == [0] * len(lists), "nobody knows a target"
        self.asked += len(lists)
        return SimpleNamespace(lists=[[*items[:-1], int(text)] for items, text in zip(lists, said, strict=True)])


def talker(masks: bool = False, **options) -> tuple[Talker, Writer]:
    writer = Writer()
    own = CESRecOptions(use_masking=masks, **options)

    def masked(items, lengths):
        return mask_outliers(VECTORS, items, lengths, k=1, min_keep=2)

    method = SimpleNamespace(
        options=own,
        backend=lambda folders: Near(),
        masker=lambda folders: masked if masks else None,
        constructor=lambda folders: writer,
    )
    return Talker(method, {}), writer


def talk(history, *said: str, shown=()) -> Dialogue:
    messages = [(role, text) for each in said for role, text in (("user", each), ("assistant", "1. X"))][:-1]
    return Dialogue(3, np.array(history, dtype=np.int32), messages, list(shown))


def test_every_sentence_rewrites_the_last_history():
    speaker, _ = talker()
    talks = [talk([1, 2, 3, 4], "10"), talk([5, 6, 7, 8], "11", "12"), talk([9, 10], "13", "", "20")]
    assert speaker.rewritten(talks) == [[1, 2, 3, 10], [5, 6, 7, 12], [9, 20]]
    answers = speaker.respond(JOB, talks)
    assert [answer.items for answer in answers] == [[10, 9, 11], [12, 11, 13], [20, 19, 21]]


def test_what_was_rewritten_is_not_rewritten_again():
    speaker, writer = talker()
    speaker.respond(JOB, [talk([1, 2, 3], "10")])
    speaker.respond(JOB, [talk([1, 2, 3], "10", "11", shown=[9, 10, 11])])
    assert writer.asked == 2
    (answer,) = speaker.respond(JOB, [talk([1, 2, 3], "10", "11", shown=[9, 10, 11])])
    assert writer.asked == 2 and answer.items == [12, 13, 8]


def test_each_sentence_may_rewrite_the_original():
    speaker, _ = talker(refine_from="original")
    assert speaker.rewritten([talk([1, 2, 3], "10", "11")]) == [[1, 2, 11]]


def test_masking_comes_before_writing():
    speaker, _ = talker(masks=True)
    history = [4, 9, 14, 19, 24]
    found = mask_outliers(VECTORS, torch.tensor([history]), torch.tensor([5]), k=1, min_keep=2)
    kept = found.items[0, : int(found.lengths[0])].tolist()
    assert len(kept) == 4
    assert speaker.rewritten([talk(history, "7")]) == [[*kept[:-1], 7]]


def test_only_the_newest_items_are_read():
    speaker, _ = talker()
    assert speaker.rewritten([talk(range(1, 13), "30")]) == [[7, 8, 9, 10, 11, 30]]


def test_nobody_is_told_the_target():
    speaker, _ = talker(forbid_target=True)
    with pytest.raises(BenchError, match="forbid_target=true needs the target"):
        speaker.respond(JOB, [talk([1, 2], "5")])
    with pytest.raises(BenchError, match="empty history"):
        talker()[0].respond(JOB, [talk([], "5")])


def test_words_alone_understand_comparisons_with_what_was_shown():
    catalogue = planted_catalogue(N)
    speaker, _ = talker(edit="words", early_accept=False)
    speaker._method.reader, speaker._method.constructor = Understanding(catalogue), lambda folders: None
    speaker._method.job = SimpleNamespace(dataset=SimpleNamespace(catalogue=catalogue))
    old, new = (int(item) for item in np.argsort(catalogue.years[1:])[[N // 2, N // 4]] + 1)
    kin = [set(each) & set(catalogue.categories[new]) for each in catalogue.categories]
    for text, fits in (
        ("Something older than the first one.", catalogue.years < catalogue.years[old]),
        ("Something newer than the second one.", catalogue.years > catalogue.years[new]),
        ("It is closer to the second one.", kin),
    ):
        dialogue = talk([1, 2, 3], "Anything.", text, shown=[old, new])
        dialogue.sizes.append(2)
        (answer,) = speaker.respond(JOB, [dialogue])
        assert len(answer.items) == 3 and all(fits[item] for item in answer.items), text
