"""What servers send in place of a file: each is one line with a way out, and nothing bad stays in the cache."""

from __future__ import annotations

import http.server
import io
import threading
import time
import zipfile

import pytest

from recllm_bench import cli
from recllm_bench.api import modules
from recllm_bench.data import download as download_module

ROWS = "\n".join(f"u{n // 8}\ti{n * n % 11}\t{1_000_000_000 + n}" for n in range(240)).encode()
CARD = """
import numpy as np
from recllm_bench.data.interactions import Interactions

def read(files):
    rows = [line.split("\\t") for line in files["log"].read_text().splitlines()]
    users, items = (sorted({{row[place] for row in rows}}) for place in (0, 1))
    codes = [np.array([known.index(row[place]) for row in rows]) for place, known in enumerate((users, items))]
    return Interactions(*codes, users, items)

DATASETS = {{"{name}": dict(title="Served", domain="thing", licence=dict(name="free", notice=""),
    reader=f"{{__name__}}:read", filters=dict(all={{}}), variants=[{variant}])}}
"""


def packed(name: str = "log.txt", content: bytes = ROWS) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        self.server.asked.append((self.command, self.path))
        self.server.answer(self, head)

    def log_message(self, *_):
        """Keep the test's output clean."""


def body(data: bytes, status: int = 200, **headers: str):
    def answer(handler, head=False):
        handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(data)), **named}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if not head:
            handler.wfile.write(data)
            handler.close_connection = True

    return answer


def loop(handler, head=False):
    body(b"", 302, Location=handler.path)(handler)


def stall(handler, head=False):
    body(b"", Content_Length="1000")(handler, True)
    handler.wfile.flush()
    time.sleep(1)


def silent(handler, head=False):
    handler.close_connection = True


PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
BAD = {
    "404": (body(b"gone", 404), "the server answers 404"),
    "401": (body(b"", 401), "the server answers 401"),
    "500": (body(b"oops", 500), "Internal Server Error"),
    "429": (body(b"slow down", 429), "Too Many Requests"),
    "cut": (body(packed()[:-50], Content_Length=str(len(packed()))), "the connection ended early"),
    "a longer length": (body(packed(), Content_Length="999999"), "the connection ended early"),
    "a shorter length": (body(packed(), Content_Length="100"), "not a whole archive"),
    "a page": (body(PAGE, Content_Type="text/html"), "a web page in place of the file"),
    "a page after a mark and blanks": (body(b"\xef\xbb\xbf\n  <HTML lang='en'>no</HTML>"), "a web page in place"),
    "nothing": (body(b""), "not a whole archive"),
    "text for an archive": (body(b"quota exceeded"), "not a whole archive"),
    "a zip cut": (body(packed()[:-40]), "not a whole archive"),
    "a zip that leaves its folder": (body(packed("../../log.txt")), "would land outside its folder"),
    "a zip of something else": (body(packed("other.txt")), "has no member log.txt"),
    "a redirect loop": (loop, "redirect"),
    "a redirect to a file": (body(b"", 302, Location="file:///etc/passwd"), "is not allowed"),
    "a stall": (stall, "timed out"),
    "no answer": (silent, "closed connection without response"),
}


@pytest.fixture
def served(monkeypatch, tmp_path):
    monkeypatch.setattr(download_module, "_PAUSE_S", 0.0)
    monkeypatch.setattr(download_module, "_TIMEOUT_S", 0.3)
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)
    monkeypatch.setattr(modules, "_targets", {kind: {} for kind in modules.KINDS})
    monkeypatch.setattr(modules, "_owners", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.asked, running.answer = [], body(ROWS)
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def card(folder, variant: str, name: str = "served") -> None:
    (folder / "served.py").write_text(CARD.format(name=name, variant=variant))
    modules.load_modules([folder / "served.py"])


@pytest.mark.parametrize("case", BAD)
def test_what_a_bad_server_sends_is_one_line(case, served, tmp_path, capsys):
    answer, said = BAD[case]
    card(
        tmp_path,
        f"dict(name='a', archive=dict(url='{served.url}/served.zip'), files=dict(log=dict(path='log.txt')))",
    )
    served.answer = answer
    assert cli.main(["prepare", "served"]) == 2
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said in line
    assert not out
    served.answer = body(packed())  # the server is well again: the same command goes through
    code = cli.main(["prepare", "served"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "240" in out


PLAIN = "dict(name='a', files=dict(log=dict(path='log.txt', url='{url}/log.txt')))"


def test_an_odd_length_is_no_traceback(served, tmp_path):
    served.answer = body(ROWS, Content_Length="many")
    card(tmp_path, PLAIN.format(url=served.url))
    assert cli.main(["prepare", "served"]) == 0


@pytest.mark.parametrize(
    ("before", "after", "fetched"),
    [
        ({"ETag": '"1"'}, {"ETag": '"1"'}, False),
        ({"ETag": '"1"'}, {"ETag": '"2"'}, True),
        ({"Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last_Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}, True),
        ({"Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, False),
        ({"ETag": '"1"'}, {}, True),
        ({}, {}, True),
    ],
)
def test_a_file_without_a_checksum_is_compared_when_asked(before, after, fetched, served, tmp_path, capsys):
    card(tmp_path, PLAIN.format(url=served.url))
    served.answer = body(ROWS, **before)
    assert cli.main(["prepare", "served"]) == 0
    assert "240" in capsys.readouterr().out
    less = ROWS[: ROWS.rindex(b"\nu29\t")]
    served.answer = body(less if fetched else ROWS, **after)
    served.asked.clear()
    assert cli.main(["prepare", "served"]) == 0
    assert not served.asked, "without --again the cache serves"
    capsys.readouterr()
    assert cli.main(["prepare", "served", "--again"]) == 0
    out = capsys.readouterr().out
    assert [method for method, _ in served.asked] == ["HEAD", "GET"][: 1 + fetched]
    assert ("239" in out) == fetched
    assert ("as it was fetched" in out) == (not fetched)


def test_a_new_length_is_a_change(served, tmp_path, capsys):
    card(tmp_path, PLAIN.format(url=served.url))
    served.answer = body(ROWS, ETag='"1"')
    assert cli.main(["prepare", "served"]) == 0
    served.answer = body(ROWS + b"\nu1\ti1\t2000000000", ETag='"1"')
    assert cli.main(["prepare", "served", "--again"]) == 0
    assert "its Content-Length is" in capsys.readouterr().out


def test_a_server_that_cannot_be_asked_costs_nothing(served, tmp_path, capsys):
    card(tmp_path, PLAIN.format(url=served.url))
    assert cli.main(["prepare", "served"]) == 0
    served.answer = body(b"", 503)
    assert cli.main(["prepare", "served", "--again"]) == 2
    assert "without --again the cached file serves" in capsys.readouterr().err
    assert cli.main(["prepare", "served"]) == 0
