"""Checkpoints that are damaged or somebody else's are set aside, and the run ends like an undisturbed one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_loop import Killed, same, train, without_seconds
from torch import nn

from recllm_bench import recbole_bridge
from recllm_bench.artifacts import Damaged
from recllm_bench.errors import BenchError
from recllm_bench.training.checkpoints import before, read_checkpoint, write_checkpoint
from recllm_bench.training.finished import load_weights, save_weights


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is no checkpoint")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_checksum(path: Path) -> None:
    """As an earlier version wrote it."""
    torch.save(read_checkpoint(path), path)


def changed(path: Path, change: Callable[[dict], object]) -> None:
    content = read_checkpoint(path)
    change(content)
    write_checkpoint(path, content)
    before(path).unlink(missing_ok=True)


def of_another_width(path: Path) -> None:
    other = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1))
    changed(path, lambda content: content["modules"].update(net=other.state_dict()))


def with_another_layer(path: Path) -> None:
    changed(path, lambda content: content["modules"]["net"].update({"9.weight": torch.zeros(2)}))


def of_another_module(path: Path) -> None:
    changed(path, lambda content: content["modules"].update(other=content["modules"].pop("net")))


def of_another_optimiser(path: Path) -> None:
    changed(path, lambda content: content["optimiser"]["param_groups"][0]["params"].pop())


def without_state(path: Path) -> None:
    changed(path, lambda content: content["state"].pop("stale"))


def a_list(path: Path) -> None:
    write_checkpoint(path, [1, 2])
    before(path).unlink(missing_ok=True)


DAMAGE = (cut, half, empty, text, flipped, without_checksum, of_another_width, with_another_layer)
DAMAGE += (of_another_module, of_another_optimiser, without_state, a_list)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    model, outcome, _ = train(tmp_path_factory.mktemp("whole"))
    return model, outcome


@pytest.mark.parametrize("damage", DAMAGE)
def test_training_begins_anew_without_a_usable_checkpoint(tmp_path, caplog, undisturbed, damage) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill_at=(4, 3))
    before(tmp_path / "last.pt").unlink()
    damage(tmp_path / "last.pt")
    model, outcome, seen = train(tmp_path)
    assert seen["steps"] == 30
    assert same(model, undisturbed[0])
    assert without_seconds(outcome.history) == without_seconds(undisturbed[1].history)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "\n" not in line and str(tmp_path / "last.pt") in line and "from the beginning" in line
    assert (tmp_path / "last.pt.damaged-1").exists() and not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("damage", [cut, flipped, Path.unlink])
def test_the_checkpoint_before_serves(tmp_path, undisturbed, damage) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill_at=(5, 0))
    damage(tmp_path / "last.pt")
    model, outcome, seen = train(tmp_path)
    assert seen["steps"] == 15  # epochs 4 to 6; the checkpoint of epoch 4 was lost
    assert same(model, undisturbed[0])
    assert without_seconds(outcome.history) == without_seconds(undisturbed[1].history)


@pytest.mark.parametrize("name", ["outcome.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [half, empty, text, flipped])
def test_a_damaged_end_is_trained_again(tmp_path, undisturbed, name, damage) -> None:
    """A pipeline's stage may train several things: killed after the first, it finds that one's end in its folder."""
    train(tmp_path)
    damage(tmp_path / name)
    model, _, seen = train(tmp_path)
    assert seen["steps"] == 30
    assert same(model, undisturbed[0])
    assert (tmp_path / f"{name}.damaged-1").exists()


def test_a_missing_weights_file_is_trained_again(tmp_path, undisturbed) -> None:
    train(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model, _, seen = train(tmp_path)
    assert seen["steps"] == 30 and same(model, undisturbed[0])


def test_weights_that_cannot_be_read_are_one_line(tmp_path) -> None:
    module = nn.Linear(2, 2)
    save_weights(tmp_path, {"net": module})
    load_weights(tmp_path, {"net": module})
    assert set(load_file(tmp_path / "model.safetensors")) == {"net/weight", "net/bias"}
    half(tmp_path / "model.safetensors")
    with pytest.raises(Damaged, match=r"model\.safetensors cannot be read"):
        load_weights(tmp_path, {"net": module})
    save_file({"net/weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(BenchError, match="does not fit Linear"):
        load_weights(tmp_path, {"net": module})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(Damaged, match=r"model\.safetensors"):
        load_weights(tmp_path, {"net": module})


@pytest.mark.parametrize("damage", [half, empty, text, Path.unlink])
def test_a_saved_state_that_cannot_be_read_is_one_line(tmp_path, markov, damage) -> None:
    model, _, _ = recbole_bridge.build_model("Pop", markov, markov.offsets[1:] - 2, {}, seed=1)
    recbole_bridge.save_state(model, tmp_path / "state.pt")
    recbole_bridge.load_state(model, tmp_path / "state.pt")
    damage(tmp_path / "state.pt")
    with pytest.raises(Damaged, match=r"state\.pt is missing, damaged or no saved state") as caught:
        recbole_bridge.load_state(model, tmp_path / "state.pt")
    assert "\n" not in str(caught.value)


LIMITED = """
import resource, sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError
from test_loop import train

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    print(ArtifactStore(Path(sys.argv[1])).build("planted", {}, train))
except BenchError as error:
    print(f"error: {error}")
"""


@pytest.mark.parametrize("limit", [1000, 6000])
def test_a_limit_on_file_sizes_is_one_line_and_loses_nothing(tmp_path, undisturbed, limit) -> None:
    """The limit stops a checkpoint in its middle, as a full disk does."""

    def run(most: int) -> str:
        command = [sys.executable, "-c", LIMITED, str(tmp_path), str(Path(__file__).parent), str(most)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    said = run(limit)
    assert said.startswith("error: cannot write ") and "last.pt" in said and "File too large" in said
    assert "\n" not in said
    folder = Path(run(resource.RLIM_INFINITY))
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
    load_weights(folder, {"net": model})
    assert same(model, undisturbed[0])
