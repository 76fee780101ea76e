"""The server of the page: what it answers, to whom, and that it opens no file by name."""

from __future__ import annotations

import http.client
import threading

import pytest

from recllm_bench import cli
from recllm_bench.errors import BenchError
from recllm_bench.reporting.serving import ReportServer


@pytest.fixture
def served(make, tmp_path):
    make("First", 1.0, seed=1)
    with ReportServer(tmp_path / "runs", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path: str, host: str = "", method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_address[1]}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_follows_the_records(served, make):
    status, first = ask(served, "/")
    assert status == 200 and b"<bdi>First</bdi>" in first and b"Second" not in first
    state = ask(served, "/state")[1]
    assert ask(served, "/")[1] is not first and ask(served, "/")[1] == first
    assert f'data-live="{state.decode()}"'.encode() in first
    make("Second", 2.0, seed=2)
    assert ask(served, "/state")[1] != state
    assert b"<bdi>Second</bdi>" in ask(served, "/")[1]


@pytest.mark.parametrize(
    "path",
    ["/run.json", "/../../etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/?x=1", "/First-1/run.json"],
)
def test_no_path_leads_to_a_file(served, path):
    assert ask(served, path)[0] == 404


def test_only_this_machine_under_its_own_name_is_answered(served):
    assert served.server_address[0] == "127.0.0.1"
    assert ask(served, "/", host="evil.example:80")[0] == 403
    assert ask(served, "/state", host=f"localhost:{served.server_address[1]}")[0] == 200
    assert ask(served, "/", method="POST")[0] == 501


def test_a_folder_without_records_waits_for_them(tmp_path):
    with ReportServer(tmp_path, 0) as server:
        assert b"No run record yet" in server.page()


def test_damaged_records_are_left_out(served, make):
    folder = make("Bad", 1.0, seed=3).folder
    (folder / "run.json").write_text("{")
    assert b"<bdi>First</bdi>" in ask(served, "/")[1] and b"<bdi>Bad</bdi>" not in ask(served, "/")[1]


def test_mistakes_are_one_line(served, tmp_path, capsys):
    with pytest.raises(BenchError, match="choose another --port"):
        ReportServer(tmp_path, served.server_address[1])
    with pytest.raises(BenchError, match="choose another --port"):
        ReportServer(tmp_path, 99999)
    assert cli.main(["serve", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
