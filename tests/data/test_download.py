"""Downloads against a real local server, and archives that are damaged or hostile."""

from __future__ import annotations

import errno
import hashlib
import http.server
import threading
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data import download as download_module
from recllm_bench.data.download import download, unpack, wrong_checksum
from recllm_bench.errors import BenchError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "md5": hashlib.md5(CONTENT).hexdigest()}


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves the files in ``server.files``; understands ranges; can cut a connection short."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        data = server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        start = 0
        asked = self.headers.get("Range")
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206)
        else:
            self.send_response(200)
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            self.wfile.write(body[: server.cuts.pop()])
            self.close_connection = True
            return None
        self.wfile.write(body)
        return None

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "_PAUSE_S", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.files, running.requests, running.cuts, running.ranges = {"/a.bin": CONTENT}, [], [], True
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_whole_file_with_notice(server, tmp_path, capsys):
    target = download(f"{server.url}/a.bin", tmp_path / "x" / "a.bin", SHA, notice="Research use only.")
    assert target.read_bytes() == CONTENT
    assert "Research use only." in capsys.readouterr().err
    download(f"{server.url}/a.bin", target, SHA)
    assert len(server.requests) == 1, "a complete file is not fetched again"
    assert not list(tmp_path.rglob("*.part"))


def test_resumes_after_cut_connections(server, tmp_path):
    server.cuts = [50_000, 100_000]
    target = download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_resumes_what_an_earlier_run_left(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:123_456])
    download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA)
    assert server.requests == [("/a.bin", "bytes=123456-")]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA).read_bytes() == CONTENT


@pytest.mark.parametrize("remains", [b"x" * 1000, CONTENT + b"more", CONTENT])
def test_foreign_or_complete_remains(server, tmp_path, remains):
    (tmp_path / "a.bin.part").write_bytes(remains)
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA).read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(BenchError, match="wrong checksum, sha256"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", {"sha256": "0" * 64})
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"] or not list(tmp_path.glob("a.bin*"))


def test_a_changed_target_is_fetched_again(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA).read_bytes() == CONTENT


def test_missing_file_and_no_network(server, tmp_path):
    with pytest.raises(BenchError, match=r"404.*RECLLM_DATA_MIRROR"):
        download(f"{server.url}/none.bin", tmp_path / "b.bin")
    assert len(server.requests) == 1, "a missing file is not asked for again"
    server.shutdown()
    server.server_close()
    with pytest.raises(BenchError, match=r"cannot download.*RECLLM_DATA_MIRROR") as caught:
        download(f"{server.url}/a.bin", tmp_path / "c.bin")
    assert "\n" not in str(caught.value)


def test_disk_full(server, tmp_path, monkeypatch):
    class Full:
        status, headers = 200, {"Content-Length": "10"}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Full())
    with pytest.raises(BenchError, match="disk full"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin")


def test_only_web_addresses(tmp_path):
    with pytest.raises(BenchError, match="only http and https"):
        download("file:///etc/hostname", tmp_path / "a")


def test_wrong_checksum_accepts_alternatives(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    assert wrong_checksum(path, {"sha256": ["0" * 64, SHA["sha256"]]}) == ""
    assert "md5" in wrong_checksum(path, {"md5": "0" * 32})


def _zip(path: Path, members: dict[str, bytes], links: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if name in links:
                entry.external_attr = 0o120777 << 16
            file.writestr(entry, data)
    return path


def test_unpack(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"d/x.txt": b"x", "d/y.txt": b"y"})
    unpack(archive, tmp_path / "out", ["d/x.txt"])
    assert (tmp_path / "out/d/x.txt").read_bytes() == b"x"
    assert not (tmp_path / "out/d/y.txt").exists()
    unpack(archive, tmp_path / "all")
    assert (tmp_path / "all/d/y.txt").read_bytes() == b"y"
    with pytest.raises(BenchError, match=r"no member d/z\.txt"):
        unpack(archive, tmp_path / "out", ["d/z.txt"])


@pytest.mark.parametrize("name", ["../evil", "/evil", "d/../../evil", "..\\evil", "C:/evil"])
def test_members_stay_inside(tmp_path, name):
    archive = _zip(tmp_path / "a.zip", {"fine": b"x", name: b"evil"})
    with pytest.raises(BenchError, match="outside its folder"):
        unpack(archive, tmp_path / "out", ["fine"])
    assert not (tmp_path / "evil").exists()


def test_links_and_bombs_are_refused(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"link": b"/etc/passwd"}, links=("link",))
    with pytest.raises(BenchError, match="is a link"):
        unpack(archive, tmp_path / "out")
    bomb = _zip(tmp_path / "b.zip", {"zeros": bytes(80 << 20)})
    with pytest.raises(BenchError, match="refused as unsafe"):
        unpack(bomb, tmp_path / "out")
    assert not (tmp_path / "out" / "zeros").exists()


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:100] + b"\0" * 50 + b[150:], lambda b: b""]
)
def test_damaged_archives(tmp_path, damage):
    archive = _zip(tmp_path / "a.zip", {"x": CONTENT})
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(BenchError, match="not a whole archive"):
        unpack(archive, tmp_path / "out")
