"""What a run was made with and on, without anything that names a person or a place."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import recllm_bench

_PACKAGES = ("torch", "recbole", "numpy", "pandas", "scipy", "pyarrow", "transformers", "faiss-cpu", "accelerate")


def machine_facts(device: str = "") -> dict[str, Any]:
    """Versions, hardware and the project's git revision.

    Parameters
    ----------
    device : str
        The torch device of the run; a GPU's name is looked up only when torch is loaded already.

    Returns
    -------
    dict
        ``versions`` (package to version), ``hardware`` (cpu, cores, memory_gib, peak_memory_gib, device, gpu),
        ``revision`` (commit of the checkout, with ``+changes`` when files differ from it; empty when installed).
    """
    versions = {"python": platform.python_version(), "recllm_bench": recllm_bench.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    hardware = {"cpu": _cpu(), "cores": _cores(), "memory_gib": _memory(), "system": platform.system()}
    # Of the whole process so far: in a comparison, the largest of its cells up to this one.
    hardware["peak_memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if device:
        hardware["device"] = device
    gpu = _gpu(device)
    if gpu:
        hardware["gpu"] = gpu
    return {"versions": versions, "hardware": hardware, "revision": _revision()}


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return 0.0


def _gpu(device: str) -> str:
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_available():
        return ""
    return torch.cuda.get_device_name(torch.device(device))


def _revision() -> str:
    root = Path(recllm_bench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
