"""Text encoders against transformers' own padded forward pass, and the mistakes a user can make."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError
from recllm_bench.language import encoders
from recllm_bench.language.encoder_files import find_encoder, revision
from recllm_bench.language.encoders import load_text_encoder
from recllm_bench.language.vectors import text_vectors

TEXTS = ["a comedy", "I am looking for an old western, please, with horses and a train.", "a comedy", "Drama!"]


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder()


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory) -> Path:
    """A random Llama with a word tokenizer and a chat template, saved as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    symbols = ["<unk>", "<s>", "</s>", "[user]", "[/user]", "This", "sentence", "means", "in", "one", "word", ":", '"']
    symbols += ["a", "drama", "comedy", "western"]
    core = Tokenizer(models.WordLevel({symbol: index for index, symbol in enumerate(symbols)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    core.add_special_tokens(["<s>", "</s>", "[user]", "[/user]"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[user] {{ m['content'] }} [/user]{% endfor %}"
        "{% if add_generation_prompt %} {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(symbols),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
    )
    model = LlamaModel(config)
    model.config.architectures = ["LlamaForCausalLM"]
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    return folder


def test_minilm_equals_masked_mean_of_a_padded_batch(minilm):
    from transformers import AutoModel, AutoTokenizer

    folder = find_encoder("minilm").folder
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
    vectors = minilm.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, minilm.width) == (4, 384)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_vectors_do_not_depend_on_the_batch(minilm, monkeypatch):
    whole = minilm.encode(TEXTS)
    monkeypatch.setitem(encoders._TOKENS_AT_ONCE, "cpu", 1)
    np.testing.assert_allclose(minilm.encode(TEXTS[::-1])[::-1], whole, atol=1e-5)


def test_meaning_is_in_the_vectors(minilm):
    query, near, far = minilm.encode(["a funny film", "Comedy movie", "tax law of the year 1950"])
    assert query @ near > query @ far + 0.2


def test_no_texts(minilm):
    assert minilm.encode([]).shape == (0, 384)


def test_empty_and_overlong_texts(minilm):
    vectors = minilm.encode(["", "word " * 5000])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_revision_follows_the_files(tmp_path, tiny_llama):
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    assert revision(copy) == revision(tiny_llama)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert revision(copy) != revision(tiny_llama)


def test_causal_model_reads_the_chat_prompt_at_its_last_token(tiny_llama):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llama), AutoModel.from_pretrained(tiny_llama).eval()
    texts = ["a drama", "a comedy western drama"]
    expected = []
    for text in texts:
        prompt = f'<s>[user] This sentence : "{text}" means in one word:" [/user] '
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected.append(model(input_ids=ids).last_hidden_state[0, -1].numpy())
    encoder = load_text_encoder(str(tiny_llama))
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert encoder._tokens(texts)[0].count(1) == 1
    assert load_text_encoder(str(tiny_llama), double_bos=True)._tokens(texts)[0][:2] == [1, 1]


def test_causal_model_keeps_the_prompt_when_the_text_is_cut(tiny_llama):
    encoder = load_text_encoder(str(tiny_llama))
    short, long = encoder._tokens(["a drama", "comedy " * 200])
    assert len(long) <= 40
    assert long[-5:] == short[-5:]
    assert long[:3] == short[:3]


def test_templates_and_pooling_change_key_and_vector(tiny_llama):
    folder = str(tiny_llama)
    makers = [{}, {"template": "raw"}, {"template": "word : {text}"}, {"pooling": "mean"}, {"double_bos": True}]
    made = [load_text_encoder(folder, **parameters) for parameters in makers]
    keys = [json.dumps(encoder.key(), sort_keys=True) for encoder in made]
    assert len(set(keys)) == len(made)
    vectors = [encoder.encode(["a drama"])[0] for encoder in made]
    for first in range(len(made)):
        for second in range(first):
            assert not np.allclose(vectors[first], vectors[second])
    one_word = load_text_encoder(folder, template="one_word")
    np.testing.assert_array_equal(one_word.encode(["a drama"])[0], vectors[0])


def test_shared_language_model_by_name(models_folder):
    encoder = load_text_encoder("llama2-stories260k")
    vectors = encoder.encode(["a comedy", "a drama", "a comedy"])
    assert vectors.shape == (3, 64)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])


def test_degenerate_vectors_are_refused(tiny_llama, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_llama)
    for value, words in ((0.0, "zero length"), (float("nan"), "not finite")):
        folder = shutil.copytree(tiny_llama, tmp_path / words.replace(" ", "-"))
        model.norm.weight.data.fill_(value)
        model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
        with pytest.raises(BenchError, match=words):
            load_text_encoder(str(folder)).encode(["a drama"])


def test_mistakes_are_one_line(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bare = tmp_path / "bare"
    bare.mkdir()
    unsafe = shutil.copytree(tiny_llama, tmp_path / "unsafe")
    (unsafe / "model.safetensors").rename(unsafe / "pytorch_model.bin")
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    (broken / "config.json").write_text('{\n"model_type": \n}')
    cut = shutil.copytree(tiny_llama, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:200])
    cases = {
        "/no/such/folder": "no such folder",
        str(bare): "no config.json",
        str(unsafe): "safetensors",
        str(broken): r"config.json:3: not valid JSON",
        "nobody/nothing-of-that-name": "cannot be fetched",
    }
    for spec, words in cases.items():
        with pytest.raises(BenchError, match=words) as caught:
            load_text_encoder(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(BenchError, match="cannot be loaded") as caught:
        load_text_encoder(str(cut)).encode(["a drama"])
    assert "\n" not in str(caught.value)
    for parameters in ({"dtype": "int3"}, {"pooling": "max"}, {"template": "no place"}):
        with pytest.raises(BenchError):
            load_text_encoder("minilm", **parameters)


def test_minilm_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match="pip install"):
        load_text_encoder("minilm")


def test_sentence_transformers_modules_decide_pooling(tmp_path):
    original = find_encoder("minilm").folder
    folder = tmp_path / "sentence"
    folder.mkdir()
    for path in original.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "1_Pooling").unlink()
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert find_encoder(str(folder)).pooling == "cls"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}))
    with pytest.raises(BenchError, match="pooling"):
        find_encoder(str(folder))
    (folder / "modules.json").unlink()
    (folder / "modules.json").write_text(
        json.dumps([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    )
    with pytest.raises(BenchError, match="Dense"):
        find_encoder(str(folder))


def test_second_call_loads_no_model(tmp_path, tiny_llama, monkeypatch):
    store = ArtifactStore(tmp_path / "store")
    texts = ["a drama", "a comedy", "a drama"]
    first = text_vectors(str(tiny_llama), texts, store)
    np.testing.assert_array_equal(first, load_text_encoder(str(tiny_llama)).encode(texts))

    def refuse(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(encoders._Transformer, "encode", refuse)
    again = text_vectors(lambda: load_text_encoder(str(tiny_llama)), texts[::-1], store)
    np.testing.assert_array_equal(again, first[::-1])
    with pytest.raises(AssertionError, match="loaded"):
        text_vectors(str(tiny_llama), ["a western"], store)


def test_a_kill_keeps_the_finished_parts(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setattr("recllm_bench.language.vectors._PART", 2)
    store, encoder = ArtifactStore(tmp_path / "store"), load_text_encoder(str(tiny_llama))
    texts = ["a drama", "a comedy", "a western", "drama", "comedy"]
    expected = encoder.encode(texts)
    real, calls = encoder.encode, []

    def killed(part, label=""):
        calls.append(list(part))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(part, label)

    monkeypatch.setattr(encoder, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        text_vectors(encoder, texts, store)
    np.testing.assert_allclose(text_vectors(encoder, texts, store), expected, atol=1e-5)
    assert calls[2] == calls[1]  # the first part was not embedded again


def test_large_weights_are_hashed_whole_and_once(tmp_path, monkeypatch):
    from recllm_bench.files import file_hash
    from recllm_bench.language import encoder_files

    monkeypatch.setattr(encoder_files, "_REMEMBERED", 1 << 20)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(np.random.default_rng(0).bytes(130 << 20))
    monkeypatch.setattr(encoder_files, "file_hash", lambda path, *more: read.append(path) or file_hash(path, *more))
    read: list = []

    def hashed() -> str:
        monkeypatch.setattr(encoder_files, "_revisions", {})  # as in a new process
        return revision(tmp_path)

    first = hashed()
    assert hashed() == first
    assert len(read) == 1, "remembered"
    place = (1 << 20) + 40_000  # between the samples, which lie 2.05 MiB apart
    with open(weights, "r+b") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ 1]))
    changed = hashed()
    assert changed != first, "one bit of 130 MiB that no sample sees"
    assert len(read) == 2
    before = weights.stat()
    with open(weights, "r+b") as file:
        file.write(b"other header")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashed() not in (first, changed), "the samples guard a change that keeps size and time"
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes(weights.read_bytes())
    assert revision(copy) == hashed(), "where it lies is no part of the hash"


def test_weights_are_hashed_where_nothing_can_be_kept(tmp_path, monkeypatch):
    from recllm_bench.language import encoder_files

    monkeypatch.setattr(encoder_files, "_REMEMBERED", 10)
    (tmp_path / "model.safetensors").write_bytes(b"weights of a model")
    kept = revision(tmp_path)
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "no folder"))
    monkeypatch.setattr(encoder_files, "_revisions", {})
    assert revision(tmp_path) == kept
