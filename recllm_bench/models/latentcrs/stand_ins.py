"""What stands in for the paper's simulator, text encoder and extractor; nothing where it is what the paper used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recllm_bench.language.backbone import substitute_for
from recllm_bench.language.backbone_files import find_backbone
from recllm_bench.language.encoder_files import find_encoder
from recllm_bench.language.known_models import is_served

if TYPE_CHECKING:
    from recllm_bench.api.method import Job

_SIMULATOR = ("gemini-1.5-pro", "gemini-1.5-pro-002")
_READER = "Llama-3.1-8B-Instruct"
_READ_AS = ("one_word", "last")


def stand_ins(job: Job) -> dict[str, str]:
    """Parts of the conversation that are the paper's, each with an empty name, and an encoder that is nearly so."""
    talk, found = job.recipe.conversation, {}
    if is_served(talk.simulator, *_SIMULATOR) and not job.dataset.said:
        found["simulator"] = ""
    if find_encoder(talk.encoder).causal:
        found["text encoder"] = substitute_for(find_backbone(talk.encoder, job.store), _READER)
        if not found["text encoder"] and (read_as := (talk.template, talk.pooling)) != _READ_AS:
            found["text encoder"] = f"{talk.encoder} with template {read_as[0]} and pooling {read_as[1]}"
    return found


def reader(spec: str, name: str) -> str:
    """What a table says of an extractor: its name, or nothing where it is the paper's."""
    kind, _, rest = spec.partition(":")
    if kind == "local":
        return substitute_for(find_backbone(rest), _READER) and name
    return "" if is_served(spec, _READER.casefold(), f"meta-{_READER}".casefold()) else name
