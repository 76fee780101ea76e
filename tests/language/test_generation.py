"""Generation: token by token what transformers writes, in any batch, from words or from vectors."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language import generation
from recllm_bench.language.backbone import Backbone, load_backbone
from recllm_bench.language.generation import generate

PROMPTS = ["Once upon a time", "The dog", "Lily and Tom went to the park. They", "One day", "x"]


@pytest.fixture(scope="module")
def stories(models_folder) -> Backbone:
    return load_backbone(str(models_folder / "llama2-stories260k"), device="cpu")


@pytest.fixture(scope="module")
def prompts(stories) -> list[list[int]]:
    return [stories.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]


def written_by_transformers(backbone: Backbone, prompt: list[int], length: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = backbone.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, pad_token_id=0
    )
    written = output[0, len(prompt) :].tolist()
    return written[: written.index(2)] if 2 in written else written


@pytest.mark.shared
def test_greedy_text_is_that_of_transformers(stories, prompts):
    for prompt, answer in zip(prompts, generate(stories, prompts, max_new_tokens=80), strict=True):
        assert answer == written_by_transformers(stories, prompt, 80)
    assert "girl named Lily" in stories.tokenizer.decode(generate(stories, prompts[:1], max_new_tokens=20)[0])


@pytest.mark.shared
def test_a_batch_writes_what_single_prompts_write(stories, prompts):
    together = generate(stories, prompts, max_new_tokens=40)
    assert together == generate(stories, prompts, max_new_tokens=40, batch_size=1)
    assert together[::-1] == generate(stories, prompts[::-1], max_new_tokens=40, batch_size=3)


@pytest.mark.shared
def test_vectors_are_prompts_like_ids(stories, prompts):
    vectors = [stories.embed(torch.tensor(prompt)) for prompt in prompts]
    assert generate(stories, vectors, max_new_tokens=30) == generate(stories, prompts, max_new_tokens=30)
    moved = [vectors[0] + torch.linspace(-1, 1, vectors[0].numel()).reshape(vectors[0].shape)]
    assert generate(stories, moved, max_new_tokens=30) != generate(stories, prompts[:1], max_new_tokens=30)


@pytest.mark.shared
def test_an_end_of_text_ends_one_row_and_not_the_others(stories, prompts):
    """With a common token as the end, each row ends at its own first one, also after rows are dropped."""
    free = generate(stories, prompts, max_new_tokens=60, stop=())
    for stop in {free[0][4], free[1][10], free[2][25]}:
        expected = [row[: row.index(stop)] if stop in row else row for row in free]
        assert len({len(row) for row in expected}) > 1
        assert generate(stories, prompts, max_new_tokens=60, stop=[stop]) == expected


@pytest.mark.shared
def test_a_text_that_reaches_the_end_of_the_context_stops_there(stories):
    prompt = (stories.tokenizer("Once upon a time there was a dog. " * 60)["input_ids"])[:505]
    answers = generate(stories, [prompt, prompt[:20]], max_new_tokens=30, stop=())
    assert [len(answer) for answer in answers] == [7, 30]
    assert answers[1] == generate(stories, [prompt[:20]], max_new_tokens=30, stop=())[0]


@pytest.mark.shared
def test_an_extended_vocabulary_can_be_written_and_read(stories, prompts):
    """Word ids from 512 on are rows of another table; a head that prefers one is obeyed and its vector is fed back."""
    extra = stories.word_embedding()[[100, 200]]
    fed = []

    def embed(ids: torch.Tensor) -> torch.Tensor:
        fed.append(ids.tolist())
        return torch.cat([stories.word_embedding(), extra])[ids]

    def score(states: torch.Tensor) -> torch.Tensor:
        words = stories.logits(states)
        return torch.cat([torch.full_like(words, -torch.inf), words[:, [100, 200]]], 1)

    (answer,) = generate(stories, prompts[:1], max_new_tokens=5, embed=embed, score=score)
    assert set(answer) <= {512, 513}
    assert fed[1:] == [[token] for token in answer[:4]]


@pytest.mark.shared
def test_draws_do_not_depend_on_the_batch_and_follow_the_seed(stories, prompts):
    # In float64: in float32 the last digits of scores follow the batch, and with them a draw on the edge of two tokens.
    exact = dataclasses.replace(stories, model=copy.deepcopy(stories.model).double(), dtype=torch.float64)
    options = {"max_new_tokens": 25, "temperature": 1.0}
    first = generate(exact, prompts, seed=3, **options)
    assert first == generate(exact, prompts, seed=3, batch_size=2, **options)
    assert first != generate(exact, prompts, seed=4, **options)
    own = generate(exact, prompts, seed=[7, 8, 9, 10, 11], **options)
    assert own[3:] == generate(exact, prompts[3:], seed=[10, 11], **options)


def test_draws_have_the_model_s_frequencies():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(20000, 4)
    draws = torch.rand(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def frequencies(temperature: float, top_p: float) -> np.ndarray:
        tokens = generation._choose(scores, draws, temperature, top_p)
        return np.bincount(tokens.numpy(), minlength=4) / len(tokens)

    tolerance = 3 * np.sqrt(0.25 / 20000)
    np.testing.assert_allclose(frequencies(1.0, 1.0), [0.5, 0.3, 0.15, 0.05], atol=tolerance)
    np.testing.assert_allclose(frequencies(1.0, 0.7), [0.625, 0.375, 0, 0], atol=tolerance)  # 0.5 does not reach 0.7
    np.testing.assert_allclose(frequencies(1.0, 0.4), [1, 0, 0, 0])
    squares = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(frequencies(0.5, 1.0), squares / squares.sum(), atol=tolerance)
    assert generation._choose(scores[:1], draws[:1], 1.0, 1e-9).item() == 0


@pytest.mark.shared
def test_out_of_memory_halves_the_batch(stories, prompts, monkeypatch):
    sizes = []
    write = generation._Writer.write

    def scarce(self, rows, batch):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return write(self, rows, batch)

    monkeypatch.setattr(generation._Writer, "write", scarce)
    answers = generate(stories, prompts, max_new_tokens=10)
    assert sizes == [5, 2, 2, 1]
    monkeypatch.undo()
    assert answers == generate(stories, prompts, max_new_tokens=10)


@pytest.mark.shared
def test_mistakes_are_refused(stories, prompts):
    with pytest.raises(BenchError, match="prompt 1 has 0 tokens"):
        generate(stories, [prompts[0], []], max_new_tokens=5)
    with pytest.raises(BenchError, match="prompt 0 has 512 tokens"):
        generate(stories, [[5] * 512], max_new_tokens=5)
    with pytest.raises(BenchError, match="max_new_tokens=0"):
        generate(stories, prompts, max_new_tokens=0)
    with pytest.raises(BenchError, match="not numbers"):
        generate(stories, prompts, max_new_tokens=5, score=lambda states: stories.logits(states) * torch.nan)
    assert generate(stories, [], max_new_tokens=5) == []


def test_steps_of_a_llama_give_the_states_that_its_own_forward_pass_gives(models_folder):
    """Rows of several lengths behind a common beginning, one dropped on the way, against each row alone."""
    from recllm_bench.language.stepping import LlamaSteps, Steps, shared_beginning, steps

    backbone = load_backbone("llama2-stories260k")
    rng = np.random.default_rng(5)
    rows = [rng.integers(3, backbone.vocabulary, size).tolist() for size in (40, 29, 25, 41)]
    rows = [rows[0][:20] + row[20:] for row in rows]
    shared = shared_beginning(rows)
    assert shared == 20
    assert shared_beginning([[1, 2], [1, 2, 3]]) == 1  # each keeps one of its own
    assert shared_beginning([[1], [1]]) == 0
    further = rng.integers(3, backbone.vocabulary, (4, 90))  # more than a cache grows by
    with torch.no_grad():
        alone = [backbone.states(backbone.embed(torch.tensor(row + more.tolist()))[None])[0]
                 for row, more in zip(rows, further, strict=True)]  # fmt: skip
        own = [torch.tensor(row[shared:]) for row in rows]
        longest = max(map(len, own))
        inputs = torch.zeros(4, longest, backbone.width)
        mask = torch.zeros(4, longest, dtype=torch.long)
        for number, ids in enumerate(own):
            inputs[number, longest - len(ids) :] = backbone.embed(ids)
            mask[number, longest - len(ids) :] = 1
        first = backbone.embed(torch.tensor(rows[0][:shared]))
        assert type(steps(backbone)) is LlamaSteps
        for kind in (LlamaSteps, Steps):
            reader, kept = kind(backbone, first), torch.arange(4)
            torch.testing.assert_close(
                reader.begin(inputs, mask), torch.stack([alone[row][len(rows[row]) - 1] for row in range(4)])
            )
            for step in range(90):
                if step == 30:
                    kept = torch.tensor([0, 2, 3])
                    assert reader.keep(kept)
                places = torch.tensor([len(rows[row]) + step for row in kept])
                states = reader.step(backbone.embed(torch.tensor(further[kept, step])), places)
                expected = torch.stack([alone[row][len(rows[row]) + step] for row in kept])
                torch.testing.assert_close(states, expected, atol=2e-4, rtol=2e-4)


def test_products_with_weights_laid_out_are_products():
    from recllm_bench.language import stepping

    torch.manual_seed(0)
    plain = torch.nn.Linear(96, 160)
    laid = copy.deepcopy(plain)
    laid.__class__ = stepping.LaidOut
    for rows in (1, stepping.FEW - 1, stepping.FEW, 33):
        x = torch.randn(2, rows, 96)
        assert torch.allclose(laid(x), plain(x), atol=1e-5)
    assert laid in stepping._LAID
    with torch.no_grad():
        laid.weight.mul_(2)  # as training changes it
        plain.weight.mul_(2)
    assert torch.allclose(laid(x), plain(x), atol=1e-5)
    assert torch.allclose(copy.deepcopy(laid)(x), plain(x), atol=1e-5)
    x.requires_grad_()
    assert torch.equal(torch.autograd.grad(laid(x).sum(), x)[0], torch.autograd.grad(plain(x).sum(), x)[0])


def test_small_models_keep_their_products(monkeypatch):
    from recllm_bench.language import stepping
    from recllm_bench.products import Linear, accelerate

    model = accelerate(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()))
    stepping.lay_out(model)
    assert type(model[0]) is Linear
    monkeypatch.setattr(stepping, "_LARGE", 10)
    stepping.lay_out(model)
    assert type(model[0]) is stepping.LaidOut
