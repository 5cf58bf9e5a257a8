"""A real pod store over HTTP for the tests, in memory.

It keeps the rules the control plane keeps (content addressing, manifest last,
stale attempts refused) and can be told to break connections, so that the
client's retries are tried on a real socket.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StoreServer:
    """Start with `with StoreServer() as server:`; `server.url` is where it listens."""

    def __init__(self, token: str = "lease-token") -> None:
        self.token = token
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[int, dict[str, Any]] = {}
        self.reports: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.attempt = 1
        """Attempts below this one are stale."""
        self.drop_next = 0
        """How many of the next requests lose their connection half way."""
        self.cut_next = 0
        """How many of the next answers are cut in the middle of their body."""
        self.fail_next = 0
        """How many of the next requests are answered 503."""
        self.changed = threading.Condition()
        handler = type("Handler", (_Handler,), {"store": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> StoreServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def wait_report(self, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Waits for a report that has these fields."""

        def found() -> dict[str, Any] | None:
            for report in self.reports:
                if all(report.get(name) == value for name, value in fields.items()):
                    return report
            return None

        with self.changed:
            if not self.changed.wait_for(found, timeout_s):
                raise AssertionError(f"no report with {fields} in {timeout_s} s")
            return found()  # type: ignore[return-value]


class _Handler(BaseHTTPRequestHandler):
    store: StoreServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", code: str | None = None) -> None:
        if code is not None:
            body = json.dumps({"code": code}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.store.cut_next > 0 and len(body) > 1:
            self.store.cut_next -= 1
            self.close_connection = True
            body = body[: len(body) // 2]
        if self.command != "HEAD":
            self.wfile.write(body)

    def _admitted(self) -> bool:
        store = self.store
        with store.changed:
            store.requests.append(f"{self.command} {self.path}")
            if store.drop_next > 0:
                store.drop_next -= 1
                self.close_connection = True
                self.connection.close()
                return False
            if store.fail_next > 0:
                store.fail_next -= 1
                self.close_connection = True
                self._answer(503, code="unavailable")
                return False
        if self.headers.get("Authorization") != f"Bearer {store.token}":
            self._answer(401, code="unauthorised")
            return False
        return True

    def do_GET(self) -> None:
        if not self._admitted():
            return
        store = self.store
        if self.path == "/v1/checkpoints/latest":
            if not store.manifests:
                return self._answer(404, code="no_checkpoint")
            newest = store.manifests[max(store.manifests)]
            return self._answer(200, json.dumps(newest).encode())
        blob = store.blobs.get(self.path.removeprefix("/v1/blobs/"))
        if blob is None:
            return self._answer(404, code="no_blob")
        self._answer(200, blob)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._admitted():
            return
        store = self.store
        if self.path.startswith("/v1/blobs/"):
            digest = self.path.removeprefix("/v1/blobs/")
            if hashlib.sha256(body).hexdigest() != digest:
                return self._answer(422, code="digest_mismatch")
            store.blobs[digest] = body
            return self._answer(201)
        manifest = json.loads(body)
        if manifest["attempt"] < store.attempt:
            return self._answer(409, code="stale_attempt")
        if any(file["sha256"] not in store.blobs for file in manifest["files"]):
            return self._answer(409, code="blob_missing")
        with store.changed:
            store.manifests[manifest["step"]] = manifest
            store.changed.notify_all()
        self._answer(201)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._admitted():
            return
        with self.store.changed:
            self.store.reports.append(json.loads(body))
            self.store.changed.notify_all()
        self._answer(204)
