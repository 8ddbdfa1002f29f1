"""Scans from a web server: one request for each, patience with a busy server, and every refusal by its own kind."""

import http.server
import threading
import time

import pytest

from manifests.locations import Reach
from manifests.schema import ManifestRow
from pipelines.images.errors import InputImageError
from pipelines.images.rules import Rules
from pipelines.store.retry import Patience
from pipelines.worker.reading import read_scan
from tests.scans import GRAY, encoded

CONTENT = encoded(GRAY)


@pytest.fixture
def server():
    """A server whose answers are its `answers`, (status, headers), in turn, the last one for ever; it keeps `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.server.asked
            asked.append((self.command, time.monotonic()))
            status, headers = self.server.answers[min(len(asked), len(self.server.answers)) - 1]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            body = CONTENT if status == 200 else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.asked, found.answers = [], [(200, {})]
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def read(server, seconds: float = 20.0, reach: Reach | None = None, host: str = "127.0.0.1"):
    image = f"http://{host}:{server.server_address[1]}/a.png"
    row = ManifestRow(id="a", image=image, caption="x", target_prompts=("x",), seed=1)
    return read_scan(
        row, Rules(reach=reach or Reach()), Patience(total=seconds, first=0.05), lambda _error, _delay: None
    )[0]


def test_a_scan_is_asked_for_once(server):
    assert (read(server).image.gray == GRAY).all()
    assert [command for command, _ in server.asked] == ["GET"]


def test_a_busy_server_is_asked_again_when_it_says(server):
    server.answers = [(429, {"Retry-After": "2"}), (503, {}), (200, {})]
    assert (read(server).image.gray == GRAY).all()
    assert len(server.asked) == 3
    assert server.asked[1][1] - server.asked[0][1] > 1.9


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "input_unavailable"),
        (500, "input_unavailable"),
        (401, "denied"),
        (403, "denied"),
        (404, "not_found"),
        (410, "not_found"),
        (418, "unreadable"),
    ],
)
def test_each_refusal_has_its_own_kind(server, status, kind):
    server.answers = [(status, {})]
    with pytest.raises(InputImageError) as caught:
        read(server, seconds=0.5)
    assert caught.value.kind == kind
    assert (len(server.asked) > 1) == (kind == "input_unavailable")


REACH = Reach.of("s3://bucket/m.parquet")


def test_a_server_without_a_public_address_is_not_asked(server):
    """For a manifest that is not local; unless it is allowed."""
    port = server.server_address[1]
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(InputImageError, match=r"no public address; .* --allow-input") as refused:
            read(server, reach=REACH, host=host)
        assert refused.value.kind == "denied"
    assert server.asked == []
    allowed = Reach.of("s3://bucket/m.parquet", [f"http://127.0.0.1:{port}/"])
    assert (read(server, reach=allowed).image.gray == GRAY).all()


def test_nor_is_one_that_a_public_server_redirects_to(server, monkeypatch):
    """The test's own server stands for a public one; it sends the client to another loopback address."""
    monkeypatch.setattr("pipelines.store.public._is_public", lambda address: address == "127.0.0.1")
    server.answers = [(302, {"Location": f"http://127.0.0.2:{server.server_address[1]}/a.png"})]
    with pytest.raises(InputImageError, match=r"127\.0\.0\.2 is no public address"):
        read(server, reach=REACH)
    assert len(server.asked) == 1
