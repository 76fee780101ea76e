"""Chat models that cannot be asked, named before anything is trained."""

from __future__ import annotations

import pytest

SPECS: list[tuple[str, str]] = [
    ("server:", "server:MODEL@"),
    ("server:m", "server:MODEL@"),
    ("server:m@", "address"),
    ("server:@http://localhost:1/v1", "server:MODEL@"),
    ("server:m@localhost", "http"),
    ("server:m@ftp://localhost/v1", "http"),
    ("server:m@http://", "http"),
    ("server:m@http://user:secret@localhost/v1", "localhost"),
    ("server:m@http://localhost:99999/v1", "localhost"),
    ("server:m@http://localhost:port/v1", "localhost"),
    ("server:m@http://localhost/v1?api_key=secret", "localhost"),
    ("server:m@file:///etc/passwd", "http"),
    ("local:", "local:"),
    ("local:/no/such/folder", "/no/such/folder"),
    ("nobody", "nobody"),
    ("nobody:x", "nobody:x"),
]


@pytest.mark.parametrize(("spec", "said"), SPECS)
def test_a_chat_model_that_cannot_be_asked(refused, shop, spec: str, said: str) -> None:
    setting = ["protocol=unified.full", "compare=[]", "backend=pop", "use_masking=false", f"feedback='{spec}'"]
    line = refused(["run", "cesrec", shop, "--set", *setting], said)
    assert "secret" not in line


@pytest.mark.parametrize(("spec", "said"), SPECS)
def test_a_writer_of_labels_that_cannot_be_asked(refused, shop, spec: str, said: str) -> None:
    line = refused(["run", "relrec", shop, "--set", "compare=[]", "labels=generated", f"chat='{spec}'"], said)
    assert "secret" not in line
