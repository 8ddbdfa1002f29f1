"""Real S3 servers on loopback, and a proxy in front of them that fails requests on purpose."""

import contextlib
import json
import os
import random
import selectors
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import s3fs
from botocore.exceptions import BotoCoreError

from tests.processes import deadline

KEY, SECRET = "archive", "not-a-real-secret"
REGION = "us-east-1"

FAULTS = ("503", "500", "reset", "lost_reply", "truncate", "truncate_request", "delay")


def free_port() -> int:
    """A port on which, and 10000 above which, nothing listens: SeaweedFS puts its gRPC port there."""
    # Below the range that the kernel gives to outgoing connections, which could take the port while a server is down,
    # and above Ray's range for workers. Not the global generator: a test that seeds it would get the same ports again.
    while True:
        port = random.SystemRandom().randrange(20_000, 22_768)
        with socket.socket() as http, socket.socket() as grpc, contextlib.suppress(OSError):
            http.bind(("127.0.0.1", port))
            grpc.bind(("127.0.0.1", port + 10_000))
            return port


def connect(endpoint: str, retries: bool = True, **config) -> s3fs.S3FileSystem:
    """A connection of its own without caches; `retries=False` turns retries off, `config` goes to botocore."""
    # aiohttp still repeats all but POST once when the connection breaks; botocore has no setting for that.
    if not retries:
        config["retries"] = {"max_attempts": 0}
    fs = s3fs.S3FileSystem(
        key=KEY,
        secret=SECRET,
        endpoint_url=endpoint,
        client_kwargs={"region_name": REGION},
        config_kwargs=config,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    if not retries:
        fs.retries = 1  # s3fs repeats a request on its own, whatever botocore is told
    return fs


class _Server:
    """An S3 server as a child process that keeps its data in a folder; it runs inside a `with` block."""

    # botocore settings that every client of this server needs.
    config: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, folder: Path, port: int | None = None):
        self.folder = Path(folder)
        self.port = port or free_port()
        self._process: subprocess.Popen | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which any S3 tool finds this server."""
        values = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }
        return values | {f"AWS_{name.upper()}": value for name, value in self.config.items()}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout: float = 90) -> None:
        """Start the server and wait until it takes writes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._variables()
            )
        try:
            self._wait_for_a_write(timeout)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the server with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill the server and start it on the same folder and ports."""
        self.kill()
        # A start on a used folder was once seen to hang: a second one gets the time that the first did not need.
        try:
            self.start(timeout=deadline(90))
        except AssertionError:
            self.start()

    def stop(self) -> None:
        """End the server; nothing is lost, and a polite end takes SeaweedFS 25 s."""
        self.kill()

    def bucket(self, name: str) -> str:
        """Create a bucket unless it is there."""
        with contextlib.suppress(FileExistsError):
            connect(self.endpoint, **self.config).mkdir(name)
        return name

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _variables(self) -> dict[str, str]:
        return dict(os.environ)

    def _wait_for_a_write(self, timeout: float) -> None:
        fs = connect(self.endpoint, retries=False, connect_timeout=2, read_timeout=5, **self.config)
        deadline = time.monotonic() + timeout
        failure: Exception | None = None
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with contextlib.suppress(FileExistsError):
                    fs.mkdir("readiness")
                fs.pipe_file("readiness/probe", b"x")
                return
            except (OSError, BotoCoreError) as error:
                failure = error
                time.sleep(0.2)
        tail = self._log.read_bytes()[-2000:].decode(errors="replace")
        raise AssertionError(f"no write within {timeout} s, exit code {self._process.poll()}, {failure!r}\n{tail}")


class SeaweedFS(_Server):
    """SeaweedFS: honours `If-None-Match`, checks signatures, keeps its data through SIGKILL."""

    def __init__(self, folder: Path, port: int | None = None):
        super().__init__(folder, port)
        ports = {self.port}
        while len(ports) < 4:
            ports.add(free_port())
        self._inner_ports = sorted(ports - {self.port})

    def _command(self) -> list[str]:
        identity = {
            "name": KEY,
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        credentials = self.folder / "s3.json"
        credentials.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer = self._inner_ports
        command = [_program("weed"), "server", "-dir", str(self.folder), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"]
        command += ["-filer", "-s3", f"-s3.config={credentials}", "-master.volumeSizeLimitMB=64", "-volume.max=200"]
        command += [f"-s3.port={self.port}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
        # Both services have fixed ports, so a second server on the machine would die of them.
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        # A single master that waits 10 s for others makes up most of a start.
        command += ["-master.electionTimeout=1s", "-master.telemetry=false"]
        return command

    def _variables(self) -> dict[str, str]:
        # Each bucket has volumes of its own, seven at a time if not told otherwise: 200 would do for 28 buckets.
        return super()._variables() | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}


class Rclone(_Server):
    """`rclone serve s3`: the server that ignores `If-None-Match` and overwrites."""

    # It cannot read the bodies with checksums that botocore sends by default.
    config: dict[str, str] = {  # noqa: RUF012
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }

    def _command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        # An empty --config: nothing of the user's own configuration.
        command = [_program("rclone"), "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{self.port}"]
        return [*command, "--auth-key", f"{KEY},{SECRET}", str(data)]


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@dataclass
class Faults:
    """A seeded schedule: which requests fail, and how.

    The same sequence of requests gets the same faults. Only requests to which a kind can happen draw it: "truncate"
    needs an answer with a body (GET, POST), "truncate_request" a request with one.
    """

    seed: int
    rate: float = 1.0
    kinds: tuple[str, ...] = FAULTS
    only: Callable[[str, str], bool] | None = None  # (method, path with query) -> may fail
    at_most: int | None = None
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self):
        if unknown := set(self.kinds) - set(FAULTS):
            raise ValueError(f"unknown faults: {sorted(unknown)}")
        self._random = random.Random(self.seed)

    def draw(self, method: str, path: str, has_body: bool) -> tuple[str | None, float]:
        """The fault of the next request and the seconds to wait should it be "delay"."""
        if self.only is not None and not self.only(method, path):
            return None, 0.0
        # Three numbers for every request, used or not: what one request draws does not depend on the ones before.
        chance, choice, seconds = self._random.random(), self._random.random(), self._random.uniform(0.2, 1.0)
        possible = {"truncate": method in ("GET", "POST"), "truncate_request": has_body}
        kinds = [kind for kind in self.kinds if possible.get(kind, True)]
        if chance >= self.rate or not kinds or self.at_most == 0:
            return None, 0.0
        if self.at_most is not None:
            self.at_most -= 1
        return kinds[int(choice * len(kinds))], seconds


class FaultProxy:
    """A loopback proxy in front of an S3 server that passes every byte on unchanged, but for the faults.

    Signatures stay valid: the server checks the `Host` that the client signed, which is the proxy's. Bodies are held
    in memory.
    """

    def __init__(self, upstream_endpoint: str):
        parts = urlsplit(upstream_endpoint)
        self.upstream = (parts.hostname, parts.port)
        self.faults: Faults | None = None
        self.requests: Counter[str] = Counter()  # by method, failed ones included
        self.injected: Counter[str] = Counter()  # by kind
        self._lock = threading.Lock()
        self._open: set[_Peer] = set()
        self._listener: _Listener | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on a free port."""
        self._listener = _Listener(("127.0.0.1", 0), lambda sock, *_: self._serve(sock))
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and end the open connections."""
        self._listener.shutdown()
        self._listener.server_close()
        with self._lock:
            peers = list(self._open)
        for peer in peers:
            peer.interrupt()

    def _serve(self, sock: socket.socket) -> None:
        """One connection of a client, with one connection to the server behind it."""
        client = _Peer(sock)
        try:
            upstream = _Peer(socket.create_connection(self.upstream))
        except OSError:
            client.reset()
            return
        with self._lock:
            self._open |= {client, upstream}
        try:
            while self._wait_for_a_request(client, upstream) and self._exchange(client, upstream):
                pass
            client.close()
        except OSError:
            # Either side broke off in the middle: the other one learns it the hard way.
            client.reset()
        finally:
            upstream.reset()
            with self._lock:
                self._open -= {client, upstream}

    @staticmethod
    def _wait_for_a_request(client: "_Peer", upstream: "_Peer") -> bool:
        """True when the client sent something, False when either side closed the idle connection."""
        if client.pending:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(client.sock, selectors.EVENT_READ)
            selector.register(upstream.sock, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select()}
        # A server has nothing to say between requests: it closed, as it does when it is killed.
        return upstream.sock not in ready and client.fill()

    def _exchange(self, client: "_Peer", upstream: "_Peer") -> bool:
        """One request and its answer; says whether the connection lives on."""
        request = client.read_head()
        method, path, _ = request.first_line.split(" ", 2)
        faults = self.faults
        with self._lock:
            self.requests[method] += 1
            fault, seconds = faults.draw(method, path, request.has_body) if faults else (None, 0.0)
        # Until the client is told to go on, there is no body to read.
        waits = "100-continue" in request.fields.get("expect", "").lower()

        if fault in ("503", "500"):
            if not waits:
                client.read_body(request)
            self._count(fault)
            client.send(_refusal(fault, method, last=waits))
            return not waits
        if fault == "reset":
            self._count(fault)
            raise ConnectionResetError
        if fault == "delay":
            self._count(fault)
            time.sleep(seconds)

        upstream.send(request.raw)
        if waits:
            reply = upstream.read_head()
            if reply.status != 100:
                client.send(reply.raw + upstream.read_reply_body(reply, method))
                return False
            client.send(reply.raw)
        body = client.read_body(request)
        if fault == "truncate_request":
            upstream.send(body[: len(body) // 2])
            self._count(fault)
            raise ConnectionResetError
        # A server may answer and close before it has read everything: the answer counts.
        with contextlib.suppress(ConnectionError):
            upstream.send(body)
        while (reply := upstream.read_head()).status < 200:
            client.send(reply.raw)
        reply_body = upstream.read_reply_body(reply, method)

        if fault == "lost_reply":
            self._count(fault)
            raise ConnectionResetError
        if fault == "truncate" and reply_body:
            self._count(fault)
            client.send(reply.raw + reply_body[: len(reply_body) // 2])
            return False
        client.send(reply.raw + reply_body)
        return not (request.closes or reply.closes)

    def _count(self, fault: str) -> None:
        with self._lock:
            self.injected[fault] += 1


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        # A mistake in this file, not a fault: pytest reports what reaches the thread's excepthook.
        raise


@dataclass(frozen=True)
class _Head:
    """The first line and the header fields of a request or an answer."""

    raw: bytes
    first_line: str
    fields: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.first_line.split(" ", 2)[1])

    @property
    def chunked(self) -> bool:
        return "chunked" in self.fields.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        return int(self.fields["content-length"]) if "content-length" in self.fields else None

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    @property
    def closes(self) -> bool:
        return "close" in self.fields.get("connection", "").lower() or "HTTP/1.0" in self.first_line


class _Peer:
    """A socket, and what was read from it but not used yet."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.pending = bytearray()
        # Head and body are written one after the other: without this the second waits for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def fill(self) -> bool:
        """Read what is there; False at the end of the stream."""
        data = self.sock.recv(1 << 18)
        self.pending += data
        return bool(data)

    def read_head(self) -> _Head:
        raw = self._read_until(b"\r\n\r\n")
        first_line, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return _Head(raw, first_line, {name.strip().lower(): value.strip() for name, _, value in pairs})

    def read_body(self, head: _Head) -> bytes:
        """The body as it is on the wire, chunk sizes and trailers included."""
        if not head.chunked:
            return self._read(head.length or 0)
        body = bytearray()
        while True:
            line = self._read_until(b"\r\n")
            body += line
            size = int(line.split(b";")[0], 16)
            if size:
                body += self._read(size + 2)
                continue
            while line != b"\r\n":  # trailers end with an empty line
                line = self._read_until(b"\r\n")
                body += line
            return bytes(body)

    def read_reply_body(self, head: _Head, method: str) -> bytes:
        if method == "HEAD" or head.status < 200 or head.status in (204, 304):
            return b""
        if head.chunked or head.length is not None:
            return self.read_body(head)
        while self.fill():
            pass
        return self._read(len(self.pending))

    def close(self) -> None:
        """End the connection so that the other side gets everything that was sent."""
        # Closing with unread data would be a reset, which takes the last answer with it.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(1)
            while self.sock.recv(1 << 16):
                pass
        self.sock.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def interrupt(self) -> None:
        """Wake the thread that waits for this socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def _read(self, size: int) -> bytes:
        while len(self.pending) < size:
            if not self.fill():
                raise ConnectionResetError("the stream ended inside a message")
        data = bytes(self.pending[:size])
        del self.pending[:size]
        return data

    def _read_until(self, mark: bytes) -> bytes:
        while (end := self.pending.find(mark)) < 0:
            if not self.fill():
                raise ConnectionResetError("the stream ended inside a message")
        return self._read(end + len(mark))


def _refusal(kind: str, method: str, last: bool) -> bytes:
    """The answer of an S3 server that is overloaded or broken."""
    reason, code, message = {
        "503": ("Service Unavailable", "SlowDown", "Please reduce your request rate."),
        "500": ("Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    }[kind]
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    head = f"HTTP/1.1 {kind} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(xml)}\r\n"
    head += "Connection: close\r\n\r\n" if last else "\r\n"
    return (head + ("" if method == "HEAD" else xml)).encode()
