"""Prompts and constructor: what is asked, what fits, which items are rewritten, and one that learns its task."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.language.adapters import with_adapter
from recllm_bench.language.backbone import load_backbone
from recllm_bench.language.titles.counters import fallback_rate
from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.language.tuning import TuningOptions, tune
from recllm_bench.models.cesrec import constructor as module
from recllm_bench.models.cesrec.constructor import Constructor
from recllm_bench.models.cesrec.pairs import make_pairs
from recllm_bench.models.cesrec.prompts import INSTRUCTIONS, PromptWriter
from tests.conftest import planted_catalogue

pytestmark = pytest.mark.shared
TITLES = ["", "The Cat", "Lily", "One Day", "Tom and the Dog", "A Big Tree", "The Sun", "", "Lily", "Play"]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def stories(models_folder):
    return load_backbone(str(models_folder / "llama2-stories260k"), device="cpu")


@pytest.fixture
def tokenizer(models_folder):
    return AutoTokenizer.from_pretrained(models_folder / "llama2-stories260k")


@pytest.fixture(scope="module")
def layout(stories):
    return ListLayout.of(TITLES, stories.tokenizer)


def writer(layout, tokenizer, **options) -> PromptWriter:
    return PromptWriter(layout, tokenizer, **{"limit": 512, "small": True, **options})


def prompt(layout, tokenizer, items, remark, **options) -> str:
    """One prompt as text, with no limit on its length."""
    prompts, _ = writer(layout, tokenizer, **{"limit": 1 << 20, **options}).write([items], [remark])
    return tokenizer.decode(prompts[0])


@pytest.mark.parametrize("output", ["edits", "sequence"])
def test_a_short_prompt_reads_as_it_should(layout, tokenizer, output):
    shown = prompt(layout, tokenizer, [1, 0, 3], "not  that\n one", output=output)
    asked = {"edits": "Changes:", "sequence": "New list:"}[output]
    assert shown.replace("<s> ", "<s>") == f"<s>1. The Cat\n2. (masked)\n3. One Day\nUser: not that one\n{asked}\n"


@pytest.mark.parametrize("output", ["edits", "sequence"])
def test_a_base_model_gets_an_instruction(layout, tokenizer, output):
    shown = prompt(layout, tokenizer, [1, 2], "not that", output=output, wording="full")
    assert shown.count("<s>") == 1 and INSTRUCTIONS[output] in shown
    assert "### Input:\n1. The Cat\n2. Lily\n\nThe user's remark: not that\n\n### Response:\n" in shown
    for word in ("list", "oldest first", "remark", "reject", "number"):
        assert word in INSTRUCTIONS[output]


def test_a_chat_model_gets_its_own_markup(layout, tokenizer):
    tokenizer.chat_template = CHAT
    shown = prompt(layout, tokenizer, [1, 2], "not that", wording="full")
    assert shown.count("<s>") == 1 and shown.startswith("<s>")
    assert shown.endswith("2. Lily\n\nThe user's remark: not that\n<|assistant|>\n")
    tokenizer.chat_template = "{{ messages[0].content[:40] }}"
    with pytest.raises(BenchError, match="loses or repeats"):
        writer(layout, tokenizer, wording="full")


def test_a_remark_holds_no_control_tokens_and_is_cut(layout, tokenizer):
    prompts = writer(layout, tokenizer)
    (remark,) = prompts.remarks(["stop </s> here <s>"])
    assert not set(remark) & {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert "</s>" in tokenizer.decode(remark)
    (long,) = prompts.remarks(["never " * 400])
    assert len(long) == 128
    assert prompts.remarks([]) == []


@pytest.mark.parametrize("output", ["edits", "sequence"])
def test_as_many_of_the_newest_items_as_fit(layout, tokenizer, output):
    histories = [[1, 2, 3, 4, 5, 6, 9, 1, 2, 3, 4, 5], [3], []]
    for limit in (150, 200, 300, 512):
        prompts = writer(layout, tokenizer, output=output, limit=limit, items=9)
        written, shown = prompts.write(histories, ["no"] * 3)
        for items, prompt, count in zip(histories, written, shown, strict=True):
            newest = items[len(items) - count :]
            again = layout.encode_sequence(newest) if output == "sequence" else []
            assert len(prompt) + len(again) + layout.reserve <= limit + 1
            assert layout.encode_history(newest) == prompt[len(prompts.before) :][: len(layout.encode_history(newest))]
        assert shown[1:] == [1, 0] and shown[0] <= 9
    assert shown[0] == 9
    with pytest.raises(BenchError, match="longer context"):
        writer(layout, tokenizer, output=output, limit=layout.reserve + 5).write(histories, ["no"] * 3)


def test_an_unknown_wording_is_refused(layout, tokenizer):
    with pytest.raises(BenchError, match="wording 'long'"):
        writer(layout, tokenizer, wording="long")


def test_only_what_the_prompt_shows_is_rewritten(stories, layout, monkeypatch):
    seen = {}

    def spy(backbone, layout, prompts, before, **options):
        seen.update(options, prompts=prompts, before=before)
        return write(backbone, layout, prompts, before, **options)

    write = module.write_lists
    monkeypatch.setattr(module, "write_lists", spy)
    prompts = writer(layout, stories.tokenizer, items=2)
    histories = [[1, 2, 3, 4], [5, 6], [2, 1, 3], []]
    masked = [[False, False, False, True], [False, False], [True, False, False], []]
    popularity = np.zeros(len(TITLES))
    made = Constructor(stories, prompts, popularity=popularity, most_edits=1, batch_size=2)
    written = made.construct(histories, masked, ["no dogs", "  ", "more sun", "hello"], forbid=[[9], [], [6], []])
    assert seen["before"] == [[3, 0], [1, 3]]  # silent and empty ones are not asked about
    assert seen["forbid"] == [{1, 2, 9}, {6}]  # 0, the hidden place among the older, is no item
    assert (seen["mode"], seen["most_edits"], seen["batch_size"]) == ("edits", 1, 2)
    assert seen["popularity"] is popularity and len(seen["prompts"]) == 2
    assert [row[:2] for row in written.lists[:1]] == [[1, 2]] and len(written.lists[0]) == 4
    assert written.lists[1] == [5, 6] and written.lists[3] == []
    assert written.lists[2][0] == 0 and len(written.lists[2]) == 3
    assert 9 not in written.lists[0] and 6 not in written.lists[2]
    assert histories == [[1, 2, 3, 4], [5, 6], [2, 1, 3], []]


@pytest.mark.parametrize("output", ["edits", "sequence"])
def test_an_untuned_constructor_writes_titles_of_the_catalogue(stories, layout, output):
    rng = np.random.default_rng(0)
    titled = [item for item, title in enumerate(TITLES) if title and item != 8]
    histories = [rng.permutation(titled)[: int(rng.integers(1, 6))].tolist() for _ in range(20)]
    made = Constructor(stories, writer(layout, stories.tokenizer, output=output), batch_size=7)
    written = made.construct(histories, None, ["I would rather have Lily."] * 20)
    for before, after in zip(histories, written.lists, strict=True):
        assert len(after) == len(before) and len({TITLES[item] for item in after}) == len(after)
        assert set(after) <= {*range(1, len(TITLES))} - {7}
    assert fallback_rate(written.counters) == 0 and written.counters["n_changed_positions"] > 0


def test_refuses_columns_that_do_not_match(stories, layout):
    made = Constructor(stories, writer(layout, stories.tokenizer))
    with pytest.raises(BenchError, match=r"columns of \[1, 2\] rows"):
        made.construct([[1], [2]], None, ["no"])


@pytest.mark.parametrize("output", ["edits", "sequence"])
def test_learns_to_do_what_it_is_told(stories, tmp_path, output):
    """Remarks name the wanted title: after tuning, new users get what they ask for, and no one did before."""
    catalogue = planted_catalogue(12)
    catalogue.titles[1:] = ["Cat", "Dog", "Sun", "Tree", "Lily", "Tom", "Ball", "Bird", "Car", "Mom", "Park", "Fish"]
    split = leave_one_out(Histories(unrepeated(500, 12, 6), np.arange(501) * 6, 12))
    pairs = make_pairs(split, catalogue, lambda _, wanted, users: [catalogue.titles[i] for i in wanted], items=1)
    layout = ListLayout.of(catalogue.titles, stories.tokenizer)
    prompts = writer(layout, stories.tokenizer, output=output, items=1)
    learnt, aside = pairs.examples(prompts)
    options = TuningOptions(
        rank=16, target_modules=("all-linear",), learning_rate=1e-2, epochs=4, batch_size=16, dropout=0.0, parts=2
    )
    facts = tune(stories, learnt, aside, options, tmp_path, seed=0)
    assert facts["held_out_loss"] < 0.2 * facts["held_out_loss_before"]
    rows = [row for row in range(len(pairs)) if pairs.held_out[row]]
    right = {}
    for name, backbone in (("before", stories), ("after", with_adapter(stories, tmp_path / "adapter"))):
        lists, remarks = ([part[row] for row in rows] for part in (pairs.before, pairs.remarks))
        written = Constructor(backbone, prompts, most_edits=1).construct(lists, None, remarks)
        right[name] = np.mean([after == pairs.after[row] for row, after in zip(rows, written.lists, strict=True)])
    assert right["before"] < 0.5 < 0.8 < right["after"], right


def unrepeated(users: int, items: int, length: int) -> np.ndarray:
    """Items of histories without repeats, one after the other."""
    rng = np.random.default_rng(5)
    return np.concatenate([rng.permutation(items)[:length] + 1 for _ in range(users)]).astype(np.int32)
