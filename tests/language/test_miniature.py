"""The miniature Llama: better than guessing, the same again, resumed after a kill, deaf to the clock."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from recllm_bench.artifacts import ArtifactStore, file_hash
from recllm_bench.errors import BenchError
from recllm_bench.language import miniature
from recllm_bench.language.adapters import linear_layers
from recllm_bench.language.backbone import backbone_key, load_backbone
from recllm_bench.language.generation import generate
from recllm_bench.language.miniature import MiniatureOptions, miniature_key, miniature_llm
from recllm_bench.language.miniature_text import choose_texts, unigram_perplexity

SMALL = MiniatureOptions(vocabulary=400, width=32, inner=64, layers=2, heads=2, context=32, batch=8, steps=80)


def films(n: int = 300) -> list[str]:
    """Sentences of a small grammar: the next word can be guessed from those before."""
    rng = np.random.default_rng(0)
    kinds = {"comedy": "funny", "horror": "dark", "western": "dusty", "drama": "sad"}
    names = [
        f"The {first} {second}" for first in ("Red", "Old", "Last", "Lost") for second in ("River", "House", "Train")
    ]
    rows = []
    for _ in range(n):
        kind = str(rng.choice(list(kinds)))
        rows.append(f"{rng.choice(names)} ({rng.integers(1950, 2000)}) is a {kinds[kind]} {kind} film.")
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return miniature_llm(films(), ArtifactStore(tmp_path_factory.mktemp("store")), {"texts": "films"}, options=SMALL)


def facts(folder: Path) -> dict:
    return json.loads((folder / "miniature.json").read_text())


def test_it_is_clearly_better_than_guessing(made):
    found = facts(made)
    assert found["held_out_perplexity"] < 0.5 * found["unigram_perplexity"]
    assert found["unigram_perplexity"] < found["uniform_perplexity"] == found["vocabulary"] <= 400
    assert (found["steps"], found["planned_steps"], found["stopped_by"]) == (80, 80, "steps")


def perplexity(folder: Path, texts: list[str]) -> float:
    """Held-out perplexity of the saved model, token by token."""
    backbone = load_backbone(str(folder), device="cpu")
    _, held_out = choose_texts(texts, 10**6, SMALL.held_out, 42)
    begin, end = backbone.tokenizer.bos_token_id, backbone.tokenizer.eos_token_id
    stream = [token for text in held_out for token in [*backbone.tokenizer(text)["input_ids"], end]]
    losses = []
    for start in range(0, len(stream) - 1, SMALL.context):
        ids = torch.tensor([stream[start : start + SMALL.context + 1]])
        scores = backbone.logits(backbone.hidden_states(backbone.embed(ids[:, :-1])))[0].log_softmax(-1)
        losses += [-scores[place, token].item() for place, token in enumerate(ids[0, 1:].tolist()) if token != begin]
    return math.exp(np.mean(losses))


def test_the_perplexity_it_reports_is_that_of_the_saved_model(made):
    assert perplexity(made, films()) == pytest.approx(facts(made)["held_out_perplexity"], rel=1e-4)


def test_it_is_a_backbone_like_any_other(made):
    backbone = load_backbone(str(made), device="cpu")
    assert backbone.name == "miniature" and linear_layers(backbone.model) == sorted(miniature.LAYERS)
    own, unigram = facts(made)["held_out_perplexity"], facts(made)["unigram_perplexity"]
    assert 2 < own < 10 < unigram
    assert backbone.substitute == (
        f"miniature Llama ({facts(made)['parameters'] / 1e3:.1f}k, 80 of 80 steps, perplexity {own:.1f} against"
        f" {unigram:.0f} of a unigram model) for Llama-2-7b"
    )
    assert (backbone.width, backbone.context, backbone.vocabulary) == (32, 32, facts(made)["vocabulary"])
    assert len(backbone.tokenizer) == backbone.vocabulary
    text = "The Old River (1987) is a naïve “film” – 映画."
    ids = backbone.tokenizer(text)["input_ids"]
    assert ids[0] == backbone.tokenizer.bos_token_id
    assert backbone.tokenizer.unk_token_id not in ids
    assert backbone.tokenizer.decode(ids[1:]) == text
    (answer,) = generate(backbone, [backbone.tokenizer("The Red")["input_ids"]], max_new_tokens=8)
    assert backbone.tokenizer.decode(answer).split()[0] in ("River", "House", "Train")
    assert not {path.name for path in made.iterdir()} & {"checkpoint.pt", "bpe.json"}


def test_the_default_has_one_to_two_million_parameters():
    from transformers import LlamaConfig, LlamaForCausalLM

    options = MiniatureOptions()
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=options.inner,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        tie_word_embeddings=True,
    )
    assert 1e6 < sum(value.numel() for value in LlamaForCausalLM(config).parameters()) < 2e6


def test_it_is_found_again_and_its_key_is_known_before(made):
    store = ArtifactStore(made.parents[1])
    again = miniature_llm(lambda: pytest.fail("trained twice"), store, {"texts": "films"}, options=SMALL)
    assert again == made == store.path("miniature-llm", miniature_key({"texts": "films"}, 42, SMALL))
    assert load_backbone(made.name, store=store, device="cpu").name == "miniature"


def quick(tmp_path: Path, name: str, texts, **changes) -> Path:
    options = MiniatureOptions(**{**vars(SMALL), "steps": 40, **changes})
    return miniature_llm(texts, ArtifactStore(tmp_path / name), {}, options=options)


def test_equal_texts_give_equal_weights_in_any_order(tmp_path):
    torch.manual_seed(1)
    first = quick(tmp_path, "first", films())
    torch.manual_seed(2)
    second = quick(tmp_path, "second", lambda: (text for text in [*reversed(films()), "  ", films()[0]]))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
    assert backbone_key(str(first)) == backbone_key(str(second))
    other = miniature_llm(films(), ArtifactStore(tmp_path / "third"), {}, 43, options=MiniatureOptions(**vars(SMALL)))
    assert backbone_key(str(other)) != backbone_key(str(first))


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    whole = quick(tmp_path, "whole", films())
    monkeypatch.setattr(miniature, "_SAVED_EVERY", 1)
    real, steps = miniature._loss, []

    def dies(model, windows):
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return real(model, windows)

    monkeypatch.setattr(miniature, "_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, "resumed", films())
    resumed = quick(tmp_path, "resumed", films())
    assert len(steps) == 8 + 33  # seven steps were kept
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert facts(resumed) == facts(whole)


def test_a_damaged_checkpoint_costs_its_work_alone(tmp_path):
    whole = quick(tmp_path, "whole", films())
    options = MiniatureOptions(**{**vars(SMALL), "steps": 40})
    work = (
        ArtifactStore(tmp_path / "damaged")
        .path("miniature-llm", miniature_key({}, 42, options))
        .with_suffix(".partial")
    )
    work.mkdir(parents=True)
    (work / "checkpoint.pt").write_bytes(b"torn")
    damaged = quick(tmp_path, "damaged", films())
    assert (damaged / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_the_clock_has_no_say(tmp_path, monkeypatch):
    """Two trainings are equal to the bit, the second with a clock that nothing in the language floor may read."""
    free = quick(tmp_path, "free", films())
    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"):
        real = getattr(time, name)

        def watched(real=real):
            reader = sys._getframe(1).f_globals["__name__"]
            assert not reader.startswith("recllm_bench.language"), f"{reader} reads the clock"
            return real()

        monkeypatch.setattr(time, name, watched)
    watched_over = quick(tmp_path, "watched", films())
    assert not {"time", "datetime"} & set(vars(miniature))
    assert (free / "model.safetensors").read_bytes() == (watched_over / "model.safetensors").read_bytes()
    assert facts(free) == facts(watched_over)


def test_a_slow_machine_gets_the_same_model(tmp_path, monkeypatch):
    quiet = quick(tmp_path, "quiet", films())
    real = miniature._loss
    monkeypatch.setattr(miniature, "_loss", lambda model, windows: (time.sleep(0.05), real(model, windows))[1])
    busy = quick(tmp_path, "busy", films())
    assert (quiet / "model.safetensors").read_bytes() == (busy / "model.safetensors").read_bytes()


def test_a_busy_machine_gets_the_same_model_to_the_bit(tmp_path, made):
    """Four processes that compute without end, beside a training like that of ``made``."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(4)]
    try:
        loaded = miniature_llm(films(), ArtifactStore(tmp_path), {"texts": "films"}, options=SMALL)
        assert all(process.poll() is None for process in busy)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    for name in ("model.safetensors", "tokenizer.json", "miniature.json"):
        assert file_hash(loaded / name) == file_hash(made / name), name


def test_what_is_worse_than_frequencies_of_tokens_is_refused(tmp_path, monkeypatch):
    trained = []
    real = miniature._loss
    monkeypatch.setattr(miniature, "_loss", lambda model, windows: (trained.append(1), real(model, windows))[1])
    for _ in range(2):  # the second time without training again
        with pytest.raises(BenchError, match=r"learned nothing from 261 texts: .* name a language model") as caught:
            quick(tmp_path, "worse", films(), steps=1, learning_rate=1e-6)
        assert "\n" not in str(caught.value)
    assert len(trained) == 1
    assert not list((tmp_path / "worse" / "miniature-llm").glob("*[!l]/miniature.json"))


def test_learning_by_heart_ends_it_and_the_best_weights_are_kept(tmp_path):
    """Lines of random digits: their form is learned at once, and what they say can only be learned by heart."""
    rng = np.random.default_rng(0)
    lines = [" ".join(map(str, rng.integers(0, 10, 12))) for _ in range(40)]
    folder = quick(tmp_path, "heart", lines, steps=600, epochs=10_000, learning_rate=1e-2)
    found = facts(folder)
    assert found["stopped_by"] == "held-out loss"
    assert found["best_step"] < found["steps"] < 600
    assert found["held_out_perplexity"] < 11
    assert perplexity(folder, lines) == pytest.approx(found["held_out_perplexity"], rel=1e-4)


def test_a_diverging_training_says_so(tmp_path, monkeypatch):
    real = miniature._loss
    monkeypatch.setattr(miniature, "_loss", lambda model, windows: real(model, windows) * math.nan)
    with pytest.raises(BenchError, match=r"no longer a number \(step 0\); lower its learning_rate"):
        quick(tmp_path, "nan", films())


def test_too_little_text_and_odd_shapes_are_refused(tmp_path):
    with pytest.raises(BenchError, match="at least 2 different texts and there are 1"):
        quick(tmp_path, "one", ["the same", "the  same", " "])
    with pytest.raises(BenchError, match="width 32 cannot have 5 heads"):
        quick(tmp_path, "odd", films(), heads=5)
    with pytest.raises(BenchError, match="learned nothing from 1 texts"):
        quick(tmp_path, "two", ["a short text", "another one"])


def test_a_large_corpus_is_sampled_whatever_its_order():
    texts = [f"text number {number}" for number in range(2000)]
    train, held_out = choose_texts(texts, 5000, 0.1, 42)
    assert sum(map(len, train + held_out)) <= 5000 < sum(map(len, train + held_out)) + 20
    assert (train, held_out) == choose_texts(reversed(texts), 5000, 0.1, 42)
    assert choose_texts(texts, 5000, 0.1, 43)[0] != train
    assert len(held_out) == round(0.1 * len(train + held_out))
    numbers = [int(text.split()[-1]) for text in train]
    assert 700 < np.mean(numbers) < 1300  # from all over the corpus


def test_line_breaks_stay_where_they_are_asked_for():
    texts = ["1.  A\n2. B\t\n", "wish:\n  C\n", "plain", " \n "]
    train, held_out = choose_texts(texts, 5000, 0.1, 42)
    assert {*train, *held_out} == {"1. A 2. B", "wish: C", "plain"}
    train, held_out = choose_texts(texts, 5000, 0.1, 42, lines=True)
    assert {*train, *held_out} == {"1. A\n2. B\n", "wish:\nC\n", "plain"}


def test_windows_of_an_epoch_cover_the_text_once():
    options = MiniatureOptions(**{**vars(SMALL), "context": 10, "batch": 2})
    stream = np.arange(100)
    epoch = torch.cat([miniature._batch(stream, options, 0, step) for step in range(5)])
    assert sorted(epoch[:, 1:].flatten().tolist()) == list(range(100))
    assert ((epoch[:, 1:] - epoch[:, :-1]) % 100 == 1).all()
    following = torch.cat([miniature._batch(stream, options, 0, step) for step in range(5, 10)])
    assert following.tolist() != epoch.tolist()


def test_unigram_perplexity_by_hand():
    """Begin 1, counts of 5 and 6 in training 3 and 1, add one over 8 words: 4/12 and 2/12; held out 5, 5, 6."""
    stream, aside = np.array([1, 5, 5, 1, 5, 6]), np.array([1, 5, 5, 6, 1])
    expected = math.exp(-(2 * math.log(4 / 12) + math.log(2 / 12)) / 3)
    assert unigram_perplexity(stream, aside, 8) == pytest.approx(expected)


@pytest.mark.slow
def test_the_default_takes_under_three_minutes(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(500)]
    texts = [" ".join(rng.choice(words, 60)) for _ in range(20_000)]
    start = time.perf_counter()
    folder = miniature_llm(texts, ArtifactStore(tmp_path), {})
    assert time.perf_counter() - start < 180
    assert 1e6 < facts(folder)["parameters"] < 2e6
