"""A hub of models on loopback."""

import hashlib
import http.server
import json
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit


class ModelHub:
    """A hub of models over HTTP, as huggingface_hub's client speaks to it: folders by their ids.

    Attributes:
        token: only requests with it see anything; None for everyone.
        fetched: how often each file's content was asked for.
        breaks: so many downloads of weights end half way.
    """

    def __init__(self, models: dict[str, Path], token: str | None = None, breaks: int = 0) -> None:
        self.models, self.token, self.breaks = models, token, breaks
        self.fetched: Counter[str] = Counter()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub._answer(self, with_body=False)

            def do_GET(self) -> None:
                hub._answer(self, with_body=True)

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request, with_body: bool) -> None:
        path = urlsplit(request.path).path.strip("/")
        name = "/".join(path.removeprefix("api/models/").split("/")[:2])
        allowed = self.token is None or request.headers.get("Authorization") == f"Bearer {self.token}"
        if name not in self.models or not allowed:
            self._send(request, 401, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})
            return
        folder, commit = self.models[name], "0" * 40
        files = {one.relative_to(folder).as_posix(): one for one in folder.rglob("*") if one.is_file()}
        if path.startswith("api/models/"):
            rest = path.removeprefix(f"api/models/{name}").strip("/")
            if rest.startswith("tree/"):
                listing = [
                    {"type": "file", "path": file, "oid": _oid(place), "size": place.stat().st_size}
                    for file, place in files.items()
                ]
                self._send(request, 200, json.dumps(listing).encode(), with_body)
                return
            facts = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files], "tags": []}
            self._send(request, 200, json.dumps(facts).encode(), with_body)
            return
        file = path.split("/resolve/", 1)[1].partition("/")[2]
        if file not in files:
            self._send(request, 404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
            return
        content = files[file].read_bytes()
        headers = {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if with_body:
            self.fetched[f"{name}/{file}"] += 1
            if self.breaks and file.endswith(".safetensors"):
                self.breaks -= 1
                self._send(request, 200, content, with_body, headers, half=True)
                return
        self._send(request, 200, content, with_body, headers)

    @staticmethod
    def _send(request, status: int, body: bytes, with_body: bool, headers=None, half: bool = False) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            request.close_connection = True


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
