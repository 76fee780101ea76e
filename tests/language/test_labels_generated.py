"""Labels by a chat model: what is asked, what is kept, what happens after a kill."""

from __future__ import annotations

import json
import re

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language.chat_spending import TokenBudget
from recllm_bench.language.labels import generated_labels, label_documents, prompts
from recllm_bench.language.labels.generated import estimate
from recllm_bench.language.labels.journal import Journal
from recllm_bench.language.labels.label_records import Label
from recllm_bench.language.labels.prompts import MOST_WORDS, REWORDINGS, cleaned, prompt_hash
from tests.language.chat_endpoint import asking, completion
from tests.language.planted_reviews import POISON, films, planted


class Scribe:
    """A chat model that answers with words of what it was given, and remembers every question."""

    def __init__(self, name: str = "scribe", dies_after: int | None = None, says=None) -> None:
        self.name = name
        self.asked: list[str] = []
        self.batches: list[int] = []
        self._dies_after, self._says = dies_after, says

    def complete(self, conversations, *, max_tokens, temperature=0.0, seed=0) -> list[str]:
        if self._dies_after is not None and len(self.batches) >= self._dies_after:
            raise KeyboardInterrupt
        self.batches.append(len(conversations))
        texts = ["\n".join(message["content"] for message in conversation) for conversation in conversations]
        self.asked += texts
        return [self._says(text) if self._says else self._answer(text) for text in texts]

    @staticmethod
    def _answer(text: str) -> str:
        material = re.search(r"<<<\n(.*)\n>>>", text.split("material by others")[1], re.DOTALL)[1]
        if "Say the same again as" in text:
            form = text.split("Say the same again as ")[1].split(".")[0]
            return f"Reworded into {form.split(',')[0]}: {material}"
        if "Keep every fact" in text:
            return f"Clean. {material}"
        return "Profile: fond of " + " ".join(material.split()[:12])


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    return planted(tmp_path / "mirror", monkeypatch)


def test_two_stages_and_rewordings(corpus, tmp_path):
    dataset, split = corpus
    chat = Scribe()
    labels = generated_labels(dataset, split, chat, work=tmp_path / "work", anonymise_names=False)
    n = dataset.histories.n_users + dataset.histories.n_items
    assert len(chat.asked) == 4 * n
    documents = label_documents(dataset, split)
    for rows, sources in ((labels.users, documents.users), (labels.items, documents.items)):
        assert rows[0] == ()
        for versions, source in zip(rows[1:], sources[1:], strict=True):
            begin = "fond of " + " ".join(source.split()[:12])
            assert versions[0] == f"Clean. {begin}"  # "Profile:" is a heading and is taken off
            assert versions[1] == f"Reworded into {REWORDINGS[0].split(',')[0]}: {versions[0]}"
            assert versions[2] == f"Reworded into {REWORDINGS[1].split(',')[0]}: {versions[0]}"
    assert (labels.source, labels.scope) == ("scribe", "train_only")
    assert labels.counts["asked"] == 4 * n
    assert labels.counts["empty"] == labels.counts["refusals"] == 0
    written = [json.loads(line) for line in (tmp_path / "work/answers.jsonl").read_text().splitlines()]
    assert len(written) == 4 * n
    assert set(written[0]) == {"kind", "id", "stage", "version", "text", "model", "prompt_hash"}
    assert {(entry["stage"], entry["version"]) for entry in written} == {(1, 0), (2, 0), (2, 1), (2, 2)}
    assert all(entry["model"] == "scribe" and len(entry["prompt_hash"]) == 16 for entry in written)


def test_one_stage_is_the_profile_itself(corpus, tmp_path):
    chat = Scribe()
    labels = generated_labels(*corpus, chat, work=tmp_path, two_stage=False, versions=1)
    assert all(len(versions) == 1 and versions[0].startswith("fond of") for versions in labels.users[1:])
    assert not any("Keep every fact" in text for text in chat.asked)


def test_prompts_say_what_the_method_asks(corpus, tmp_path):
    chat = Scribe()
    dataset, split = corpus
    generated_labels(dataset, split, chat, work=tmp_path, versions=7)
    users = [text for text in chat.asked if "which kinds of albums this person likes" in text]
    items = [text for text in chat.asked if "who would like this album and why" in text]
    assert len(users) == dataset.histories.n_users
    assert len(items) == dataset.histories.n_items
    assert all("At most 100 words" in text for text in users)
    assert all("At most 200 words" in text and "features only" in text for text in items)
    assert all(sum(form in text for text in chat.asked) for form in REWORDINGS)
    assert not any(re.search(r"\{[a-z]+\}", text) for text in chat.asked)


def test_no_held_out_review_reaches_a_prompt(corpus, tmp_path):
    chat, leaky = Scribe(), Scribe()
    labels = generated_labels(*corpus, chat, work=tmp_path / "a")
    assert not any(POISON in text for text in chat.asked)
    assert not any(POISON in text for kind in ("user", "item") for text in labels.flat(kind)[0])
    assert POISON not in (tmp_path / "a/answers.jsonl").read_text()
    everything = generated_labels(*corpus, leaky, work=tmp_path / "b", scope="all")
    assert any(POISON in text for text in leaky.asked)
    assert everything.scope == "all"


def test_nothing_is_asked_twice(corpus, tmp_path):
    first = Scribe()
    before = generated_labels(*corpus, first, work=tmp_path)
    again = Scribe()
    after = generated_labels(*corpus, again, work=tmp_path)
    assert again.asked == []
    assert (after.users, after.items) == (before.users, before.items)
    more = Scribe()
    generated_labels(*corpus, more, work=tmp_path, versions=4)
    assert len(more.asked) == len(first.asked) // 4  # one more wording of each


def test_another_model_scope_or_prompt_asks_again(corpus, tmp_path, monkeypatch):
    generated_labels(*corpus, Scribe(), work=tmp_path, versions=1)
    other = Scribe("other")
    generated_labels(*corpus, other, work=tmp_path, versions=1)
    assert other.asked
    leaky = Scribe()
    generated_labels(*corpus, leaky, work=tmp_path, versions=1, scope="all")
    assert sum(POISON in text for text in leaky.asked) > 30
    monkeypatch.setitem(prompts._PROFILE, "user", prompts._PROFILE["user"].replace("Say which", "Tell which"))
    changed = Scribe()
    generated_labels(*corpus, changed, work=tmp_path, versions=1)
    # Only the users' profiles: the answers are the same, so nothing after them changes.
    assert len(changed.asked) == corpus[0].histories.n_users
    assert all("Tell which" in text for text in changed.asked)
    warm = Scribe()
    generated_labels(*corpus, warm, work=tmp_path, versions=1, temperature=0.5)
    assert len(warm.asked) > len(changed.asked)


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_a_killed_run_goes_on_where_it_stopped(corpus, tmp_path, batches):
    whole = Scribe()
    expected = generated_labels(*corpus, whole, work=tmp_path / "whole", batch_size=5)
    killed = Scribe(dies_after=batches)
    with pytest.raises(KeyboardInterrupt):
        generated_labels(*corpus, killed, work=tmp_path / "killed", batch_size=5)
    path = tmp_path / "killed/answers.jsonl"
    kept = path.read_bytes()
    assert len(kept.splitlines()) == len(killed.asked)
    path.write_bytes(kept[:-7])  # the kill came while the last line was written
    rest = Scribe()
    got = generated_labels(*corpus, rest, work=tmp_path / "killed", batch_size=5)
    assert (got.users, got.items) == (expected.users, expected.items)
    assert len(killed.asked) + len(rest.asked) == len(whole.asked) + 1  # the torn one
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == len(whole.asked)


def test_torn_and_damaged_journals(tmp_path):
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    kept = Label("user", 1, 1, 0, "text\n“two lines”", "m", "h")
    journal.append([kept])
    whole = path.read_bytes()
    for torn in (b'{"kind": "us', b"\x00\x00\x00\n", b'{"kind": "user"}\n', b'{"kind": "\xe2\x80'):
        path.write_bytes(whole + torn)
        again = Journal(path)
        assert len(again) == 1
        assert again.answer(("user", 1, 1, 0, "m", "h")) == kept.text
        assert path.read_bytes() == whole
    assert Journal(path).answer(("user", 1, 1, 0, "m", "other")) is None
    path.write_bytes(b"{broken\n" + whole)
    with pytest.raises(BenchError, match=r"answers\.jsonl:1: not an answer"):
        Journal(path)


def test_refusals_and_empty_answers_are_dropped_counted_and_not_asked_again(corpus, tmp_path):
    dataset, split = corpus

    def says(text: str) -> str:
        if "upright bass" in text and "kinds of albums" in text:
            return "I'm sorry, but I cannot do that."
        if "banjo" in text and "who would like" in text:
            return " \n"
        if "exactly two" in text or "a single sentence" in text:
            return "As an AI language model, I have no opinion."
        return Scribe._answer(text)

    labels = generated_labels(dataset, split, Scribe(says=says), work=tmp_path)
    silent = [user for user in range(1, len(labels.users)) if not labels.users[user]]
    assert {int(dataset.user_tokens[user][1:]) % 3 for user in silent} == {0}  # jazz
    assert len(silent) == 12
    assert sum(not versions for versions in labels.items[1:]) == 6
    assert {len(versions) for versions in labels.users[1:]} == {0, 2}  # label and first rewording
    assert labels.counts["empty"] == 6
    assert labels.counts["refusals"] == 12 + (36 - 12) + (18 - 6)
    assert labels.counts["users without label"] == 12
    assert labels.counts["items without label"] == 6
    again = Scribe(says=says)
    assert generated_labels(dataset, split, again, work=tmp_path).users == labels.users
    assert again.asked == []


def test_titles_are_tokens_in_labels_and_stay_in_the_answers(corpus, tmp_path):
    dataset, split = corpus
    title = "The Long Road Home Again"
    item = dataset.catalogue.titles.index(title)
    chat = Scribe(says=lambda text: f"Fans of {title} and more.")
    labels = generated_labels(dataset, split, chat, work=tmp_path, versions=1)
    assert labels.users[1] == (f"Fans of iid_{item} and more.",)
    assert labels.counts["names replaced"] == dataset.histories.n_users + dataset.histories.n_items
    assert title in (tmp_path / "answers.jsonl").read_text()


def test_the_budget_stops_before_it_is_passed(corpus, tmp_path, endpoint):
    """What was answered is kept, also that of the batch in which the limit was reached."""
    endpoint.reply = lambda body, number: (200, completion(f"fond of record {number}"))
    chat = asking(endpoint, cache=tmp_path / "cache.jsonl")
    chat.budget = TokenBudget("token_budget", 12_000)
    with pytest.raises(BenchError, match=r"token_budget=12000 is used up.*Answers so far are kept"):
        generated_labels(*corpus, chat, work=tmp_path / "b", batch_size=4)
    before = len(endpoint.bodies)
    assert before > 0 and chat.budget.spent <= 12_000
    chat.budget = TokenBudget("token_budget", -1)
    generated_labels(*corpus, chat, work=tmp_path / "b", batch_size=4)
    assert len(endpoint.bodies) == chat.usage.answers > 2 * before


def test_batches_are_of_one_kind_and_no_longer_than_said(corpus, tmp_path):
    chat = Scribe()
    generated_labels(*corpus, chat, work=tmp_path, versions=1, two_stage=False, batch_size=10)
    assert chat.batches == [10, 10, 10, 6, 10, 8]


def test_a_corpus_without_reviews(tmp_path):
    dataset, split = films()
    chat = Scribe()
    labels = generated_labels(dataset, split, chat, work=tmp_path, versions=1)
    assert all(labels.users[1:]) and all(labels.items[1:])
    held_out = {
        u: dataset.catalogue.titles[t]
        for u, t in zip(split.test.users.tolist(), split.test.targets.tolist(), strict=True)
    }
    asked = [text for text in chat.asked if "this person likes" in text]
    for user, text in enumerate(asked, 1):
        assert f"{held_out[user]}:" not in text


def test_answers_are_cleaned():
    assert cleaned("user", ' "Likes jazz." \n') == "Likes jazz."
    assert cleaned("user", "Sure, here is the summary:\n\nLikes jazz.") == "Likes jazz."
    assert cleaned("item", "```text\nFor fans of jazz\n```") == "For fans of jazz"
    assert cleaned("user", "**Summary:** Likes jazz.") == "Likes jazz."
    assert cleaned("user", "Sure hands: a drummer's album.") == "Sure hands: a drummer's album."
    assert cleaned("user", '"It" and "Her"') in ('"It" and "Her"', 'It" and "Her')
    long = "One two three four. " * 60
    assert cleaned("user", long) == ("One two three four. " * 25).strip()
    assert len(cleaned("item", "word " * 500).split()) == MOST_WORDS["item"]
    assert cleaned("user", "   ") == ""


def test_hashes_tell_questions_apart():
    asked = ({"role": "user", "content": "a"},)
    assert prompt_hash(asked, max_tokens=5) == prompt_hash(({"content": "a", "role": "user"},), max_tokens=5)
    assert (
        len({prompt_hash(asked), prompt_hash(asked, max_tokens=5), prompt_hash(({"role": "user", "content": "b"},))})
        == 3
    )


def test_refusals_of_settings(corpus, tmp_path):
    with pytest.raises(BenchError, match="1 to 7"):
        generated_labels(*corpus, Scribe(), work=tmp_path, versions=8)
    with pytest.raises(BenchError, match="batch_size"):
        generated_labels(*corpus, Scribe(), work=tmp_path, batch_size=0)

    class Short(Scribe):
        def complete(self, conversations, **settings):
            return super().complete(conversations, **settings)[:-1]

    with pytest.raises(BenchError, match="36 questions got 35 answers"):
        generated_labels(*corpus, Short(), work=tmp_path)


@pytest.mark.shared
def test_a_real_language_model_writes_labels(models_folder, tmp_path):
    from recllm_bench.language.chat import LocalChat

    dataset, split = films(n_users=2, n_items=3, length=3)
    chat = LocalChat(str(models_folder / "llama2-stories260k"))
    labels = generated_labels(dataset, split, chat, work=tmp_path, versions=2, two_stage=False)
    assert any(labels.users)
    assert any(labels.items)
    assert labels.source == "local:llama2-stories260k"  # its name alone could be a hosted model's
    assert labels.counts["asked"] == 2 * 5
    written = chat.usage.answers
    again = generated_labels(dataset, split, chat, work=tmp_path, versions=2, two_stage=False)
    assert again.counts["asked"] == 0
    assert chat.usage.answers == written > 0
    assert (again.users, again.items) == (labels.users, labels.items)


@pytest.mark.parametrize(("two_stage", "versions"), [(True, 3), (False, 1), (False, 4)])
def test_the_estimate_is_a_bound_that_answers_of_full_length_nearly_reach(corpus, tmp_path, two_stage, versions):
    dataset, split = corpus
    documents = label_documents(dataset, split)

    class Wordy(Scribe):
        def complete(self, conversations, *, max_tokens, temperature=0.0, seed=0) -> list[str]:
            super().complete(conversations, max_tokens=max_tokens)
            return ["x" * 4 * max_tokens] * len(conversations)

    chat = Wordy()
    questions, tokens = estimate(dataset, documents, two_stage=two_stage, versions=versions)
    stages = {"two_stage": two_stage, "versions": versions, "documents": documents}
    found = generated_labels(dataset, split, chat, work=tmp_path / "work", **stages)
    assert questions == len(chat.asked) == found.counts["asked"]
    assert 0.95 * tokens < found.counts["tokens"] <= tokens
