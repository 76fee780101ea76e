"""Language models by hub id: what the hub refuses, its cache, and the default where none is named."""

from __future__ import annotations

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language import backbone, backbone_files
from recllm_bench.language.backbone import HUB_DEFAULT, default_llm, load_backbone


class _Hub(BaseHTTPRequestHandler):
    """A hub that refuses in the ways the real one does."""

    def do_GET(self):
        if "silent" in self.path:
            time.sleep(3)
            return
        code = "GatedRepo" if "gated" in self.path else "RepoNotFound"
        if "pickled" in self.path:
            files = [{"rfilename": name} for name in ("config.json", "pytorch_model.bin", "tokenizer.json")]
            body = json.dumps({"id": "a/pickled", "sha": "f" * 40, "siblings": files}).encode()
            self.send_response(200)
        else:
            body = b"{}"
            self.send_response(403 if "gated" in self.path else 500 if "failing" in self.path else 401)
            if "failing" not in self.path:
                self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, with an empty cache."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(backbone_files, "_PATIENCE", 0.5)
    yield constants.ENDPOINT
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someone/gated", "is gated: accept its licence"),
        ("someone/missing", "is not on the hub, or is private"),
        ("someone/pickled", "only pickled weights"),
        ("someone/silent", "does not answer and it is not in the hub's cache"),
    ],
)
def test_what_the_hub_refuses_ends_in_one_line(hub, name, message):
    start = time.perf_counter()
    with pytest.raises(BenchError, match=message) as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 10


def test_without_a_network_the_end_comes_within_seconds(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(BenchError, match=r"does not answer and it is not in the hub's cache; name a local folder"):
        load_backbone("someone/model")
    assert time.perf_counter() - start < 10
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BenchError, match="HF_HUB_OFFLINE is set"):
        load_backbone("someone/model")


def test_the_default_is_a_miniature_without_gpu_or_hub(hub, monkeypatch):
    assert default_llm(torch.device("cpu")) == ""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert default_llm(torch.device("cuda")) == ""
    monkeypatch.setattr(backbone, "find_backbone", lambda name: None)
    assert default_llm(torch.device("cuda")) == HUB_DEFAULT


@pytest.mark.shared
def test_a_model_in_the_hub_s_cache_needs_no_network(hub, models_folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "hub" / "models--someone--stories"
    shutil.copytree(models_folder / "llama2-stories260k", place / "snapshots" / commit, copy_function=shutil.copyfile)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = load_backbone("someone/stories")
    assert found.source == "someone/stories@0123456789ab"
    assert found.substitute.startswith("stories (260.0k) for")
    assert load_backbone(f"someone/stories@{commit}").weights_hash() == found.weights_hash()
