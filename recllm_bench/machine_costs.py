"""What a run costs the machine: the size of its model and the most memory that it held."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_RESET, _PEAK = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak_memory(device: Any) -> None:
    """Begin to measure anew; where the system cannot (no Linux), the process's peak goes on from before."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _RESET.write_text("5")  # resets VmHWM, see proc(5)
    except OSError:
        return


def measured_costs(model: Any, device: Any) -> dict[str, float]:
    """Numbers in a model, and the most memory since :func:`reset_peak_memory`.

    Parameters
    ----------
    model : object
        Parameters of a ``torch.nn.Module`` are counted, shared ones once.
    device : torch.device
        On a graphics card its memory counts, else that of the process.

    Returns
    -------
    dict of str to float
        ``parameters`` where they can be counted; ``peak_memory`` in bytes where it can be read.
    """
    found: dict[str, float] = {}
    if callable(getattr(model, "parameters", None)):
        held: Iterable[Any] = model.parameters()
        found["parameters"] = float(sum(each.numel() for each in held))
    if device.type == "cuda":
        import torch

        return {**found, "peak_memory": float(torch.cuda.max_memory_allocated(device))}
    try:
        lines = dict(line.split(":", 1) for line in _PEAK.read_text().splitlines() if ":" in line)
        return {**found, "peak_memory": float(lines["VmHWM"].split()[0]) * 1024}
    except (OSError, KeyError, ValueError):
        return found
