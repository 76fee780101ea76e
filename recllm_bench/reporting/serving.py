"""The page of a folder of results that grow, served to this machine alone; no address names a file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError
from recllm_bench.reporting.html import report_page
from recllm_bench.reporting.records import find_records
from recllm_bench.reporting.verification import whole_records

_WATCHED = ("run.json", "users.parquet", "dialogues.jsonl")
_WAITING = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>recllm_bench report</title>'
    "<p>No run record yet; this page looks again every five seconds."
)


class ReportServer(ThreadingHTTPServer):
    """``/`` is the page, made anew when records have changed; ``/state`` says which records it would be made of.

    Parameters
    ----------
    folder : Path
        Looked through for run records, at every request.
    port : int
        On the loopback interface; 0 takes a free one.

    Raises
    ------
    BenchError
        When the folder is none, or the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        if not Path(folder).is_dir():
            raise BenchError(f"{folder} is no folder; name the one that holds the run records, such as results/runs")
        self.folder, self._lock, self._built = Path(folder), threading.Lock(), ("", b"")
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BenchError(f"cannot listen on port {port} ({reason}); choose another --port, or 0 for any") from error
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"

    def state(self) -> str:
        """Hash of which records there are, and how large and old their files."""
        return content_hash([_facts(record / name) for record in find_records(self.folder) for name in _WATCHED])

    def page(self) -> bytes:
        """The page of the records that there are now."""
        with self._lock:  # one build for all that ask meanwhile
            state = self.state()
            if state != self._built[0]:
                records = sorted(whole_records(find_records(self.folder)), key=lambda record: record.created)
                page = report_page(records, live=state) if records else _WAITING
                self._built = (state, page.encode())
            return self._built[1]


def serve(folder: Path, port: int, say: Callable[[str], None] = print) -> None:
    """Serve until somebody stops it.

    Parameters
    ----------
    say : callable
        Is told where the page is.
    """
    with ReportServer(folder, port) as server:
        say(f"{server.address}  (the runs in {folder}; Ctrl-C ends)")
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost"):  # another name that was made to lead here
            return self._answer(403, b"ask for 127.0.0.1", "text/plain")
        if self.path not in ("/", "/state"):
            return self._answer(404, b"there is only /", "text/plain")
        try:
            if self.path == "/":
                return self._answer(200, self.server.page(), "text/html")
            return self._answer(200, self.server.state().encode(), "text/plain")
        except BenchError as error:
            return self._answer(500, str(error).encode(), "text/plain")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests of one's own browser are no news."""


def _facts(path: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns]
