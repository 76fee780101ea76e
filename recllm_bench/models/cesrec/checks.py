"""What would stop CESRec late, named before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recllm_bench.api.method import Job
    from recllm_bench.models.cesrec.options import CESRecOptions


def check_names(job: Job, options: CESRecOptions, tunes: bool) -> None:
    """Look for the layers that a constructor adapts, for the chat model that writes in its place, and who speaks.

    Raises
    ------
    BenchError
        For names that there are not, and a chat model that may have to be paid for where no limit is set.
    """
    from recllm_bench.language.adapters import check_layers
    from recllm_bench.language.chat import check_chat

    if tunes:
        check_layers(options.llm, options.lora_modules, "cesrec: lora_modules", job.store)
    elif options.writes:
        check_chat(options.chat)
    if tunes or options.rounds:
        job.words.feedback(options.feedback, options.feedback_facts)
        if ":" in options.feedback:
            check_chat(options.feedback)
