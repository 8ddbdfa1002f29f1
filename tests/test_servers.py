"""The servers of the test-suite behave as the tests rely on, and every fault of the proxy really happens."""

import http.client
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import FAULTS, KEY, FaultProxy, Faults, Rclone, connect, free_port

# Besides s3fs's own: errors that it passes on as they are.
FAILURES = (OSError, BotoCoreError, aiohttp.ClientError)
BODY = bytes(range(256)) * 8000  # about 2 MB: more than the buffers of a socket hold at once


@pytest.fixture(scope="module")
def weed(seaweed):
    seaweed.bucket("faults")
    connect(seaweed.endpoint).pipe_file("faults/there", BODY)
    return seaweed


@pytest.fixture
def proxy(weed):
    with FaultProxy(weed.endpoint) as proxy:
        yield proxy


@pytest.fixture
def fs(proxy):
    """A client of the proxy that repeats nothing, but for aiohttp: once, on a connection that broke."""
    return connect(proxy.endpoint, retries=False, read_timeout=10)


@pytest.fixture
def direct(weed):
    return connect(weed.endpoint)


def failure(call, *args, **options) -> Exception:
    """What a call fails with."""
    with pytest.raises(FAILURES) as caught:
        call(*args, **options)
    return caught.value


def test_ports_leave_room_for_grpc():
    assert all(port + 10_000 < 65_536 for port in (free_port() for _ in range(20)))


def test_without_faults_the_proxy_changes_nothing(proxy, weed, fs, tmp_path):
    weed.bucket("plain")
    fs.pipe_file("plain/a", BODY)
    fs.pipe_file("plain/empty", b"")
    (tmp_path / "file").write_bytes(BODY)
    fs.put_file(str(tmp_path / "file"), "plain/b", mode="create")  # a file's body is announced with `Expect`
    assert sorted(fs.find("plain")) == ["plain/a", "plain/b", "plain/empty"]
    assert [fs.cat_file(f"plain/{name}") for name in ("a", "b", "empty")] == [BODY, BODY, b""]
    fs.rm("plain/a")
    assert not fs.exists("plain/a")
    assert (proxy.requests["PUT"], proxy.requests["POST"], proxy.injected) == (3, 1, {})


def test_a_bad_signature_is_refused_through_the_proxy(proxy):
    connection = http.client.HTTPConnection(*proxy.endpoint.removeprefix("http://").split(":"))
    connection.request("PUT", "/faults/unsigned", body=b"x", headers={"Expect": "100-continue"})
    assert connection.getresponse().status == 403


@pytest.mark.parametrize(("kind", "status", "code"), [("503", 503, "SlowDown"), ("500", 500, "InternalError")])
def test_refusals(proxy, fs, direct, tmp_path, kind, status, code):
    proxy.faults = Faults(seed=1, kinds=(kind,))
    (tmp_path / "file").write_bytes(BODY)
    for call, arguments in (
        (fs.pipe_file, (f"faults/{kind}", BODY)),
        (fs.put_file, (str(tmp_path / "file"), f"faults/{kind}")),
        (fs.cat_file, ("faults/there", None, 0, 10)),
        (fs.find, ("faults",)),
    ):
        error = failure(call, *arguments)
        assert isinstance(error.__cause__, ClientError)
        assert error.__cause__.response["Error"]["Code"] == code
        assert error.__cause__.response["ResponseMetadata"]["HTTPStatusCode"] == status
    # The answer to HEAD has no body and so no code.
    assert failure(fs.info, "faults/there").__cause__.response["Error"]["Code"] == kind
    assert proxy.injected == {kind: 5}
    proxy.faults = None
    assert fs.cat_file("faults/there") == BODY
    assert not direct.exists(f"faults/{kind}")


def test_reset(proxy, fs, direct):
    proxy.faults = Faults(seed=1, kinds=("reset",))
    failure(fs.pipe_file, "faults/reset", BODY)
    failure(fs.cat_file, "faults/there")
    assert proxy.injected["reset"] >= 2
    assert not direct.exists("faults/reset")


def test_lost_reply_happened_and_a_repeated_create_is_refused(proxy, fs, direct):
    proxy.faults = Faults(seed=1, kinds=("lost_reply",))
    failure(fs.pipe_file, "faults/lost", BODY)
    assert direct.cat_file("faults/lost") == BODY
    assert proxy.injected["lost_reply"] >= 1
    # aiohttp repeats a PUT on its own, so that a writer may be refused because of itself.
    proxy.faults = Faults(seed=1, kinds=("lost_reply",), at_most=1)
    error = failure(fs.pipe_file, "faults/mine", BODY, mode="create")
    assert error.__cause__.response["Error"]["Code"] == "PreconditionFailed"
    assert direct.cat_file("faults/mine") == BODY


def test_truncate_is_an_error_and_never_a_short_body(proxy, fs, tmp_path):
    proxy.faults = Faults(seed=1, kinds=("truncate",))
    failure(fs.cat_file, "faults/there")
    failure(fs.cat_file, "faults/there", start=5, end=100_000)
    failure(fs.get_file, "faults/there", str(tmp_path / "got"))
    failure(fs.find, "faults")
    assert proxy.injected == {"truncate": 4}


def test_truncate_request_stores_nothing(proxy, fs, direct):
    direct.pipe_file("faults/old", b"old")
    proxy.faults = Faults(seed=1, kinds=("truncate_request",))
    failure(fs.pipe_file, "faults/old", BODY)
    failure(fs.pipe_file, "faults/half", BODY)
    assert proxy.injected["truncate_request"] >= 2
    assert direct.cat_file("faults/old") == b"old"
    assert not direct.exists("faults/half")
    assert fs.cat_file("faults/there") == BODY  # no body in the request: nothing to truncate


def test_delay(proxy, weed):
    proxy.faults = Faults(seed=1, kinds=("delay",))
    assert connect(proxy.endpoint).cat_file("faults/there", start=0, end=10) == BODY[:10]
    impatient = connect(proxy.endpoint, retries=False, read_timeout=0.1)
    failure(impatient.cat_file, "faults/there", start=0, end=10)
    assert proxy.injected["delay"] >= 2


def test_under_all_faults_what_succeeds_is_right(proxy, direct):
    clients = [connect(proxy.endpoint, retries=False, read_timeout=10) for _ in range(4)]
    kinds = tuple(kind for kind in FAULTS if kind != "delay")
    proxy.faults = Faults(seed=7, rate=0.4, kinds=kinds)

    def work(number: int) -> int:
        client, done = clients[number % 4], 0
        for attempt in range(8):
            path, body = f"faults/all-{number}-{attempt}", os.urandom(50_000)
            try:
                client.pipe_file(path, body)
                assert direct.cat_file(path) == body
                assert client.cat_file(path) == body
                done += 1
            except FAILURES:
                assert not direct.exists(path) or direct.cat_file(path) == body
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(8)))
    assert 0 < done < 64
    assert len(proxy.injected) > 3


def test_the_schedule_depends_on_the_seed_alone():
    def drawn(seed):
        faults = Faults(seed=seed, rate=0.5)
        return [faults.draw("PUT", "/a", True) for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 60 < sum(kind is not None for kind, _ in drawn(1)) < 140
    assert {kind for kind, _ in drawn(1)} == {None, *FAULTS} - {"truncate"}
    filtered = Faults(seed=1, only=lambda method, path: method == "PUT" and path.endswith("/record"), at_most=2)
    requests = [("GET", "/b/record"), ("PUT", "/b/picture"), *[("PUT", "/b/record")] * 3]
    assert [filtered.draw(*request, False)[0] is not None for request in requests] == [False, False, True, True, False]
    with pytest.raises(ValueError, match="earthquake"):
        Faults(seed=1, kinds=("earthquake",))


def test_chunks_trailers_and_expect_pass_byte_for_byte():
    head = b"PUT /a HTTP/1.1\r\nHost: any\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    chunks = b"3;note=1\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nx-sum: 7\r\n\r\n"
    proceed = b"HTTP/1.1 100 Continue\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 8\r\n\r\n"
    seen = []

    def exactly(sock, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := sock.recv(size - len(data))):
            data += more
        return data

    def serve(listener):
        sock, _ = listener.accept()
        with sock:
            for _ in range(2):
                seen.append(exactly(sock, len(head)))
                sock.sendall(proceed)
                seen.append(exactly(sock, len(chunks)))
                sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with FaultProxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy:
            host, port = proxy.endpoint.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=10) as client:
                for _ in range(2):  # the connection lives on
                    client.sendall(head)
                    assert exactly(client, len(proceed)) == proceed
                    client.sendall(chunks)
                    assert exactly(client, len(answer)) == answer
                assert client.recv(1) == b""  # the server closed, so does the proxy
        server.join()
    assert seen == [head, chunks] * 2


def test_seaweedfs_lets_exactly_one_creator_win(weed):
    weed.bucket("race")
    clients = [connect(weed.endpoint, retries=False) for _ in range(16)]
    for client in clients:
        assert not client.exists("race/warm-up")
    barriers = [threading.Barrier(len(clients)) for _ in range(10)]

    def create(round_number: int, client) -> str | None:
        """The code with which the creation was refused, None for the winner."""
        barriers[round_number].wait()
        try:
            client.pipe_file(f"race/{round_number}", os.urandom(1000), mode="create")
        except OSError as error:
            return error.__cause__.response["Error"]["Code"]
        return None

    # The rounds side by side: the losers of one wait for its lock in steps of a second.
    with ThreadPoolExecutor(len(barriers) * len(clients)) as pool:
        rounds = [[pool.submit(create, number, client) for client in clients] for number in range(len(barriers))]
        codes = [[job.result() for job in jobs] for jobs in rounds]
    assert [found.count(None) for found in codes] == [1] * len(barriers)
    assert set().union(*codes) <= {None, "PreconditionFailed", "ConditionalRequestConflict"}


def test_seaweedfs_keeps_its_data_through_sigkill(weed, proxy, fs):
    weed.bucket("kept")
    fs.pipe_file("kept/a", BODY)
    weed.kill()
    failure(fs.cat_file, "kept/a")
    weed.restart()
    assert fs.cat_file("kept/a") == BODY
    assert failure(fs.pipe_file, "kept/a", b"other", mode="create").errno is not None
    assert weed.environment["AWS_ACCESS_KEY_ID"] == KEY


def test_rclone_lets_every_creator_win(tmp_path):
    with Rclone(tmp_path) as server, FaultProxy(server.endpoint) as proxy:
        server.bucket("race")
        assert server.environment["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"
        clients = [connect(proxy.endpoint, retries=False, **server.config) for _ in range(2)]
        for client, body in zip(clients, (b"first", b"second"), strict=True):
            client.pipe_file("race/a", body, mode="create")
            assert client.cat_file("race/a") == body
        server.restart()
        assert clients[0].cat_file("race/a") == b"second"
