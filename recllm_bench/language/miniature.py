"""A miniature Llama pre-trained on a dataset's own text: what stands in for a language model when none is in reach."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from recllm_bench.artifacts import ArtifactStore, Damaged, write_json
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.language.backbone import quiet_transformers
from recllm_bench.language.backbone_files import MINIATURE, MINIATURE_KIND
from recllm_bench.language.miniature_text import (
    BEGIN,
    END,
    PADDING,
    UNKNOWN,
    choose_texts,
    token_stream,
    train_tokenizer,
    unigram_perplexity,
)
from recllm_bench.options import option
from recllm_bench.progress import log, track
from recllm_bench.provenance import package_code_hash
from recllm_bench.training.checkpoints import check_fits, remove_checkpoint, resume_from, write_checkpoint

Texts = Sequence[str] | Callable[[], Iterable[str]]

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Last names of its matrix layers."""

_VERSION = 2  # part of the key: raise it when the same options give another model
_SAVED_EVERY = 50  # steps between checkpoints
_EVALUATIONS = 10
_PATIENCE = 3  # evaluations in a row that may be worse than the best


@dataclass(frozen=True)
class MiniatureOptions:
    """Shape and training of a miniature."""

    vocabulary: int = option(2048, "most tokens of its byte-level BPE", low=300, high=65536)
    width: int = option(160, "length of a state", low=8)
    inner: int = option(448, "width of its MLP", low=8)
    layers: int = option(4, "decoder layers", low=1)
    heads: int = option(5, "attention heads", low=1)
    context: int = option(512, "tokens of a training window, and most positions", low=8)
    batch: int = option(2, "windows in a step", low=1)
    steps: int = option(400, "most steps", low=1)
    epochs: float = option(15.0, "most passes over the text", low=0.01)
    learning_rate: float = option(3e-3, "highest learning rate of AdamW", low=0.0)
    lines: bool = option(False, "keep the line breaks of texts")
    characters: int = option(8_000_000, "most characters of text that are read, drawn at random", low=100)
    held_out: float = option(0.05, "share of the texts kept aside to measure perplexity", low=0.001, high=0.5)


def miniature_key(key: Mapping[str, Any], seed: int = 42, options: MiniatureOptions | None = None) -> dict[str, Any]:
    """Key of the artifact, for those that depend on the miniature before it exists."""
    own = {"seed": seed, "options": asdict(options or MiniatureOptions()), "version": _VERSION}
    return {"text": dict(key), **own, "code": package_code_hash(["language", "training"])}


def miniature_llm(
    texts: Texts,
    store: ArtifactStore,
    key: Mapping[str, Any],
    seed: int = 42,
    *,
    options: MiniatureOptions | None = None,
    device: str | torch.device = "cpu",
) -> Path:
    """Pre-train a tokenizer and a small Llama on texts, or return the ones trained before.

    Parameters
    ----------
    texts : sequence of str or callable
        What to learn from, or a function that gives it; called only when there is something to train. Repeated texts
        count once, and their order does not matter.
    store : ArtifactStore
        Where the model is kept (kind ``"miniature-llm"``).
    key : mapping
        Identifies the texts: dataset, split and how they were made.
    seed : int
        Of weights, held-out texts and order.
    options : MiniatureOptions, optional
        Shape and training; the default has 1.6 million parameters and takes about two minutes on two cores.
    device : str or torch.device
        Where it trains. On a CPU, equal texts, seed, options and thread count give equal weights, however long it
        takes.

    Returns
    -------
    Path
        Folder in Hugging Face form (``config.json``, ``tokenizer.json``, ``model.safetensors``) with
        ``miniature.json``: parameters, steps, held-out perplexity, and that of a unigram and a uniform model.

    Raises
    ------
    BenchError
        When there is too little text, the loss is no longer a number, or the model is no better on held-out text than
        the frequencies of single tokens.
    """
    options = options or MiniatureOptions()
    if options.width % options.heads or options.width // options.heads % 2:
        raise BenchError(f"a miniature of width {options.width} cannot have {options.heads} heads of even size")

    def make(work: Path) -> None:
        _Pretraining(work, options, seed, torch.device(device)).run(texts() if callable(texts) else texts)

    return store.build(MINIATURE_KIND, miniature_key(key, seed, options), make)


def require_text(dataset: Any, *, reviews: bool = False) -> None:
    """Refuse, before anything is trained, a dataset whose items have no text that a miniature could learn from.

    Parameters
    ----------
    reviews : bool
        Whether what users wrote serves too.

    Raises
    ------
    NotEnough
    """
    if not dataset.catalogue.has_text and not (reviews and "reviews" in dataset.facts):
        raise NotEnough(
            f"the items of {dataset.name} have no text for a language model to learn from; put an item table beside "
            f"the data ({dataset.name}.items.csv with the columns item and title), or name a model with --llm"
        )


class _Pretraining:
    def __init__(self, work: Path, options: MiniatureOptions, seed: int, device: torch.device) -> None:
        self.work, self.options, self.seed, self.device = work, options, seed, device
        self.checkpoint = work / "checkpoint.pt"

    def run(self, texts: Iterable[str]) -> None:
        train, held_out = choose_texts(
            texts, self.options.characters, self.options.held_out, self.seed, lines=self.options.lines
        )
        tokenizer = train_tokenizer(train, self.work / "bpe.json", self.options.vocabulary)
        stream, aside = token_stream(tokenizer, train), token_stream(tokenizer, held_out)[: self.options.context * 32]
        vocabulary = tokenizer.get_vocab_size()
        model = _llama(vocabulary, tokenizer, self.options, self.seed)
        log.info(
            f"pre-training a miniature Llama ({sum(value.numel() for value in model.parameters()) / 1e6:.1f}M"
            f" parameters) on {len(train)} texts, {len(stream)} tokens"
        )
        outcome = self._train(model.to(self.device), stream, aside)
        facts = {
            "parameters": sum(value.numel() for value in model.parameters()),
            "vocabulary": vocabulary,
            "context": self.options.context,
            "texts": len(train),
            "held_out_texts": len(held_out),
            "tokens": len(stream),
            **outcome,
            "unigram_perplexity": unigram_perplexity(stream, aside, vocabulary),
            "uniform_perplexity": float(vocabulary),
            "seed": self.seed,
        }
        if facts["held_out_perplexity"] > facts["unigram_perplexity"]:
            raise NotEnough(
                f"the miniature language model learned nothing from {len(train)} texts: its held-out perplexity is"
                f" {facts['held_out_perplexity']:.1f}, and {facts['unigram_perplexity']:.1f} by frequencies of tokens"
                " alone; name a language model, or take a dataset with more text"
            )
        self._save(model, tokenizer, facts)
        log.info(
            f"miniature Llama: held-out perplexity {facts['held_out_perplexity']:.1f} (unigram"
            f" {facts['unigram_perplexity']:.1f}, uniform {vocabulary}) after {facts['steps']} steps"
        )

    def _train(self, model, stream: np.ndarray, aside: np.ndarray) -> dict[str, Any]:
        options = self.options
        per_epoch = max(1, len(stream) // options.context)
        planned = max(1, min(options.steps, math.ceil(options.epochs * per_epoch / options.batch)))
        matrices = [value for value in model.parameters() if value.dim() > 1]
        vectors = [value for value in model.parameters() if value.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95))
        text = hashlib.sha256(stream.tobytes() + aside.tobytes()).hexdigest()
        at = self._resume(_Progress(text=text), model, optimiser)
        every = max(1, planned // _EVALUATIONS)
        with track(total=planned, label="pre-training a miniature Llama", unit="step") as bar:
            bar.update(at.step)
            # The clock has no say: a busy machine would leave another model under the same key.
            while at.step < planned and at.worse < _PATIENCE:
                rate = options.learning_rate * min((at.step + 1) / (1 + 0.05 * planned), _cosine(at.step / planned))
                for group in optimiser.param_groups:
                    group["lr"] = rate
                inputs = _batch(stream, options, self.seed, at.step).to(self.device)
                loss = _loss(model, inputs)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise BenchError(
                        f"pre-training the miniature: the loss is no longer a number (step {at.step}); lower its"
                        " learning_rate"
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                at.step += 1
                at.loss = value if at.step == 1 else 0.98 * at.loss + 0.02 * value
                bar.update()
                bar.set_postfix_str(f"loss {at.loss:.3f}")
                ends = at.step == planned
                if at.step % every == 0 or ends:
                    self._evaluate(at, model, aside)
                    ends |= at.worse >= _PATIENCE
                if at.step % _SAVED_EVERY == 0 or ends:
                    self._keep(at, model, optimiser)
        model.load_state_dict(at.best)
        return {
            "steps": at.step,
            "planned_steps": planned,
            "best_step": at.best_step,
            "stopped_by": "held-out loss" if at.worse >= _PATIENCE else "steps",
            "train_loss": round(at.loss, 4),
            "held_out_perplexity": math.exp(at.best_loss),
        }

    def _evaluate(self, at: _Progress, model, aside: np.ndarray) -> None:
        """Held-out loss; the best weights are kept, since a small text is soon learned by heart."""
        loss = _held_out_loss(model, aside, self.options.context, self.device)
        if not math.isfinite(loss):
            raise BenchError("pre-training the miniature: its held-out loss is no number; lower its learning_rate")
        if loss < at.best_loss:
            at.best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            at.best_loss, at.best_step, at.worse = loss, at.step, 0
        else:
            at.worse += 1

    def _keep(self, at: _Progress, model, optimiser) -> None:
        state = {**vars(at), "model": model.state_dict(), "optimiser": optimiser.state_dict()}
        write_checkpoint(self.checkpoint, state)

    def _resume(self, fresh: _Progress, model, optimiser) -> _Progress:
        found: dict[str, Any] = {}

        def restore(state: dict[str, Any]) -> None:
            if state.keys() != {*vars(fresh), "model", "optimiser"} or state["text"] != fresh.text:
                raise Damaged(f"the checkpoint {self.checkpoint} is of another version or another text")
            check_fits(state["model"], model, f"the checkpoint {self.checkpoint}")
            model.load_state_dict(state.pop("model"))
            optimiser.load_state_dict(state.pop("optimiser"))
            found.update(state)

        if not resume_from(self.checkpoint, restore):
            return fresh
        log.info(f"pre-training the miniature goes on from step {found['step']}")
        return _Progress(**found)

    def _save(self, model, tokenizer, facts: dict[str, Any]) -> None:
        from transformers import PreTrainedTokenizerFast

        with quiet_transformers():
            model.cpu().eval().save_pretrained(self.work)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=BEGIN,
            eos_token=END,
            unk_token=UNKNOWN,
            pad_token=PADDING,
            model_max_length=self.options.context,
            clean_up_tokenization_spaces=False,
        ).save_pretrained(self.work)
        write_json(self.work / MINIATURE, facts)
        remove_checkpoint(self.checkpoint)
        (self.work / "bpe.json").unlink(missing_ok=True)


@dataclass
class _Progress:
    """What a checkpoint holds beside weights and optimiser."""

    text: str
    step: int = 0
    loss: float = 0.0
    best: dict[str, torch.Tensor] | None = None
    best_loss: float = math.inf
    best_step: int = 0
    worse: int = 0


def _llama(vocabulary: int, tokenizer, options: MiniatureOptions, seed: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = dict(
        vocab_size=vocabulary,
        hidden_size=options.width,
        intermediate_size=options.inner,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        max_position_embeddings=options.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PADDING),
        attn_implementation="sdpa",
    )
    config = LlamaConfig(**shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()


def _batch(stream: np.ndarray, options: MiniatureOptions, seed: int, step: int) -> torch.Tensor:
    """Windows of one step, int64 [batch, context + 1]; each window of the text comes once in an epoch."""
    per_epoch = max(1, len(stream) // options.context)
    rows = []
    for number in range(step * options.batch, (step + 1) * options.batch):
        epoch, place = divmod(number, per_epoch)
        offset, order = _order(seed, epoch, per_epoch, options.context)
        start = offset + int(order[place]) * options.context
        rows.append(np.take(stream, np.arange(start, start + options.context + 1), mode="wrap"))
    return torch.from_numpy(np.stack(rows))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, windows: int, context: int) -> tuple[int, np.ndarray]:
    rng = np.random.default_rng([seed, epoch])
    return int(rng.integers(context)), rng.permutation(windows)


def _loss(model, windows: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def _cosine(share: float) -> float:
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share))


def _held_out_windows(aside: np.ndarray, context: int) -> Iterator[np.ndarray]:
    for start in range(0, len(aside) - 1, context):
        yield aside[start : start + context + 1]


@torch.no_grad()
def _held_out_loss(model, aside: np.ndarray, context: int, device: torch.device) -> float:
    """Mean negative log-likelihood of a token in nats; beginnings, which say nothing, are not counted."""
    total, count = 0.0, 0
    begin = model.config.bos_token_id
    for window in _held_out_windows(aside, context):
        tokens = torch.from_numpy(window)[None].to(device)
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[0].float()
        losses = cross_entropy(logits, tokens[0, 1:], reduction="none")
        counted = tokens[0, 1:] != begin
        total += float(losses[counted].sum())
        count += int(counted.sum())
    return total / max(1, count)
