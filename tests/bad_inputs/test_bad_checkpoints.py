"""Released checkpoints that are none, damaged, foreign, or of another dataset."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable

import pytest
import torch


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


class Danger:
    def __reduce__(self):
        return print, ("code of the checkpoint ran",)


TABLE = {"item_embeddings.weight": torch.zeros(32, 8), "position_embeddings.weight": torch.zeros(10, 8)}
FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x80",
    "text": lambda: b"not a checkpoint\n",
    "HTML": lambda: b"<!doctype html><html><body>404</body></html>",
    "zeros": lambda: bytes(4096),
    "a pickle of code": lambda: pickle.dumps(Danger()),
    "torch of code": lambda: saved(Danger()),
    "cut in the middle": lambda: saved(TABLE)[:500],
    "without its end": lambda: saved(TABLE)[:-30],
    "an empty archive": lambda: archive(),
    "another archive": lambda: archive(**{"readme.txt": b"hello"}),
    "a number": lambda: saved(5),
    "None": lambda: saved(None),
    "a list": lambda: saved([torch.zeros(2)]),
    "one tensor": lambda: saved(torch.zeros(2)),
    "an empty state": lambda: saved({}),
    "a state of numbers": lambda: saved({"item_embeddings.weight": 5}),
    "a state by number": lambda: saved({5: torch.zeros(2)}),
    "no layers": lambda: saved(TABLE),
    "a flat table": lambda: saved({**TABLE, "item_embeddings.weight": torch.zeros(32)}),
    "a scalar table": lambda: saved({**TABLE, "item_embeddings.weight": torch.tensor(1.0)}),
    "a table of words": lambda: saved({**TABLE, "item_embeddings.weight": ["a"]}),
    "other names": lambda: saved({"model.embed.weight": torch.zeros(4, 4)}),
    "other items": lambda: saved({**TABLE, "item_encoder.layer.0.intermediate.dense_1.weight": torch.zeros(9, 8),
                                  "item_embeddings.weight": torch.zeros(99, 8)}),
    "layers of another width": lambda: saved({**TABLE, "item_encoder.layer.0.attention.query.weight": torch.zeros(3),
                                              "item_encoder.layer.0.intermediate.dense_1.weight": torch.zeros(9, 4)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint(refused, shop, tmp_path, capsys, kind: str) -> None:
    path = tmp_path / "released.pt"
    path.write_bytes(FILES[kind]())
    line = refused(["evaluate", "--checkpoint", path, "--dataset", shop, "--protocol", "unified.full"], "released.pt")
    assert "weights_only" not in line, "advice to run a stranger's code"
    assert "code of the checkpoint ran" not in capsys.readouterr().out
