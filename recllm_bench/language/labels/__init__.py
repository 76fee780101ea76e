"""Labels: short texts about users and items that a language model learns to reconstruct (ReLRec, section 3)."""

from recllm_bench.language.labels.anonymise import TitleNames, anonymise
from recllm_bench.language.labels.documents import label_documents
from recllm_bench.language.labels.extractive import extractive_labels
from recllm_bench.language.labels.generated import generated_labels
from recllm_bench.language.labels.label_files import labels_from_file
from recllm_bench.language.labels.label_folders import save_labels
from recllm_bench.language.labels.label_records import (
    Labels,
    draw_versions,
    is_refusal,
    read_labels,
    switched,
    write_labels,
)
from recllm_bench.language.labels.profiles import import_profiles

__all__ = [
    "Labels",
    "TitleNames",
    "anonymise",
    "draw_versions",
    "extractive_labels",
    "generated_labels",
    "import_profiles",
    "is_refusal",
    "label_documents",
    "labels_from_file",
    "read_labels",
    "save_labels",
    "switched",
    "write_labels",
]
