"""The content of a run record, field by field."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recllm_bench.api.measure import Measure
from recllm_bench.artifacts import content_hash

_HASHES = ("vocabulary", "prompt", "people")  # of who speaks: parts that nobody reads
SCHEMA = 2


@dataclasses.dataclass
class RunRecord:
    """The content of ``run.json``; this class is the schema's documentation.

    Attributes
    ----------
    name : str
        Name of the row, such as ``"LatentCRS"``.
    model_name : str
        What tables call its model; another ``name`` is a label that a recipe gave. Empty in earlier records.
    changed : dict or None
        What differs from the recipe that ships for the pair, or from the model's defaults, by place such as
        ``options.intents``; None in records of an earlier version, where it is not known.
    block : str
        ``history`` (sees interactions only) or ``text`` (sees words made from the target).
    speaker : dict
        Who speaks to it: ``simulator``, its options, and ``facts``, the size of its ``vocabulary``; empty in
        ``history``. Rows that hear different speakers are not compared.
    recipe : dict
        Everything that decided the run (:meth:`Recipe.as_dict`).
    recipe_hash : str
        Its hash.
    dataset : dict
        ``name, filter, variant, checksum`` and the counts of ``PreparedDataset.facts``.
    protocol : dict
        :meth:`Protocol.as_dict`.
    fingerprint : str
        The protocol's fingerprint.
    split : dict
        ``name, checksum, dropped``.
    pairing : str
        Hash of protocol, split and candidate file: only records with the same one are compared in pairs.
    metrics : dict of str to {mean, low, high, n}
        Means over users with 95 % bootstrap intervals.
    dialogue : dict
        ``S@3``, ``S@5``, ``AT`` as in ``metrics``, the counts ``n, invalid, leaks``, ``facts`` of the loop, and
        ``without_leaks``: the means over dialogues in which nothing leaked. Empty without dialogues.
    beyond : dict of str to float
        Catalogue coverage, popularity percentile and novelty of the lists.
    cases : dict
        Counts: ``users, cases, repeats`` (target already in the history) and ``tied_share``.
    stages : dict of str to float
        Seconds each stage took when it was made.
    curves : dict of str to list of [epoch, value]
        Validation metric of each trained stage.
    losses : dict of str to list of [epoch, value]
        Mean training loss of each epoch of each trained stage. Empty in earlier records.
    evaluation_seconds : float
        Seconds of ranking.
    answer_seconds : float
        Seconds of what comes before ranking and after: words and rounds of feedback, and dialogues.
    measures : list of Measure
        What a method measures beside the ranking, such as the similarity of reconstructed labels.
    tokens : dict
        Language-model tokens by kind; empty when none were used.
    spent : dict of str to dict
        What each chat model was asked for: ``answers, new, prompt_tokens, completion_tokens``, and its ``price`` by the
        table of ``RECLLM_PRICES``; known answers count as if they had been written now.
    costs : dict of str to float
        ``parameters`` (numbers in the loaded model) and ``peak_memory`` (bytes: of the graphics card where one was
        used, else of the process; of training too where this run trained). Empty in earlier records: not known.
    substitutes : dict of str to str
        What stood in for the paper's language model or simulator.
    notes : list of str
        Budgets and other things that must be said beside the numbers.
    versions, hardware : dict
        Software and machine.
    revision : str
        Commit of the project.
    created : str
        UTC time of writing.
    users_hash : str
        Hash of the per-user values.
    depends : dict
        What the numbers depend on, in groups (:mod:`recllm_bench.reporting.dependence`).
    schema : int
        Version of this layout.
    folder : Path or None
        Where the record lies; no part of the file.
    members : list of RunRecord
        Records of single seeds that a row stands for (``reporting.seeds``); no part of the file.
    """

    name: str
    block: str
    recipe: dict[str, Any]
    dataset: dict[str, Any]
    protocol: dict[str, Any]
    recipe_hash: str = ""
    model_name: str = ""
    changed: dict[str, Any] | None = None
    speaker: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    split: dict[str, Any] = dataclasses.field(default_factory=dict)
    pairing: str = ""
    metrics: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    dialogue: dict[str, Any] = dataclasses.field(default_factory=dict)
    beyond: dict[str, float] = dataclasses.field(default_factory=dict)
    cases: dict[str, float] = dataclasses.field(default_factory=dict)
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
    losses: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
    evaluation_seconds: float = 0.0
    answer_seconds: float = 0.0
    measures: list[Measure] = dataclasses.field(default_factory=list)
    tokens: dict[str, float] = dataclasses.field(default_factory=dict)
    spent: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    costs: dict[str, float] = dataclasses.field(default_factory=dict)
    substitutes: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    hardware: dict[str, Any] = dataclasses.field(default_factory=dict)
    revision: str = ""
    created: str = ""
    users_hash: str = ""
    depends: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA
    folder: Path | None = dataclasses.field(default=None, compare=False, repr=False)
    members: list[RunRecord] = dataclasses.field(default_factory=list, compare=False, repr=False)

    @property
    def users(self) -> str:
        """Who speaks, in words: ``"rules:2 over 40 facts"``; empty where nobody does."""
        if self.block != "text":
            return ""
        who = dict(self.speaker)
        if not who:  # a record from before speakers were kept, when ``rules`` was what is now ``rules:1``
            talk = self.recipe.get("conversation") or {}
            name = str(self.substitutes.get("simulator") or talk.get("simulator") or "not told")
            return "rules:1" if name == "rules" else name
        name, facts = who.pop("simulator", "not told"), who.pop("facts", None)
        told = f" over {facts} facts" if facts is not None else ""
        return ", ".join(
            [f"{name}{told}", *(f"{option} {value}" for option, value in who.items() if option not in _HASHES)]
        )

    @property
    def hears(self) -> tuple[str, str]:
        """Who speaks, in words and as a hash of all of it: the part of the pairing that history-only rows lack."""
        return self.users, content_hash(self.speaker)

    def pairs_with(self, other: RunRecord) -> bool:
        """Whether two rows can be tested against each other: the same cases, and no two speakers."""
        return self.pairing == other.pairing and (self.hears == other.hears or not (self.users and other.users))

    @property
    def training_seconds(self) -> float | None:
        """Seconds of all stages together; None where nothing was trained here, as for scores from outside."""
        return float(sum(self.stages.values())) if self.stages else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values of ``run.json``; where the record lies is no part of it."""
        values = {name: getattr(self, name) for name in stored_fields()}
        return {**values, "measures": [measure.as_dict() for measure in self.measures]}


def stored_fields() -> list[str]:
    """Names of what ``run.json`` holds."""
    return [field.name for field in dataclasses.fields(RunRecord) if field.name not in ("folder", "members")]
