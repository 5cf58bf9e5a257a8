"""Client of the pod store: blobs by digest, checkpoint manifests, reports.

The store is HTTP/1.1 on `ATOLL_STORE` (inside a pod: http://127.0.0.1:7070,
carried by the pod's supervisor), with `ATOLL_TOKEN` as the lease's credential.
The path is allowed to break: while the worker restarts, connections are closed
in the middle. Every call here is safe to repeat (blobs are named by content,
manifests by step, reports by their content), so lost connections, 5xx and 429
are retried with full jitter (wait = random(0, min(cap, base * 2^n))) until a
deadline. A refusal by rule (other 4xx) is raised at once.

What it does not do: decide which attempt may write. The server fences that and
answers 409, raised as `Conflict`; the process has been replaced and must stop.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import random
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

BLOB_BYTES_MAX = 256 * 1024 * 1024
"""Largest blob the store takes."""

_JSON_BYTES_MAX = 1024 * 1024
_MESSAGE_BYTES_MAX = 4096
_CHUNK_BYTES = 256 * 1024
_T = TypeVar("_T")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class StoreError(Exception):
    """The store could not do what was asked."""


class NotConfigured(StoreError):
    """`ATOLL_STORE` or `ATOLL_TOKEN` is not set: the process does not run in a pod."""


class Unreachable(StoreError):
    """The store did not answer properly before the deadline."""


class Refused(StoreError):
    """The store refused by rule (4xx); repeating the call will not help."""

    def __init__(self, status: int, what: str, message: str) -> None:
        super().__init__(f"the store refused {what}: HTTP {status} {message}".rstrip())
        self.status = status
        self.message = message


class Conflict(Refused):
    """HTTP 409: this attempt has been replaced, or a manifest names a missing blob."""


class DigestMismatch(StoreError):
    """What arrived is not what its digest names."""


class _Transient(Exception):
    """An answer that another try may change (5xx, 408, 425, 429)."""


def store_configured() -> bool:
    """Says whether this process has a store (it runs in a pod)."""
    return bool(os.environ.get("ATOLL_STORE"))


def check_digest(digest: object) -> str:
    """Returns `digest` if it is 64 lower-case hex digits; raises `ValueError` otherwise."""
    if not isinstance(digest, str) or not _SHA256.match(digest):
        raise ValueError(f"not a SHA-256 in lower-case hex: {digest!r:.100}")
    return digest


@dataclass(frozen=True)
class Retry:
    """How long a call may go on: full jitter between tries, one deadline for all.

    45 s outlive a worker's restart (seconds) and stay under a lease's grace.
    """

    deadline_s: float = 45.0
    base_s: float = 0.1
    cap_s: float = 3.0
    attempt_timeout_s: float = 20.0

    def waits(self, rng: Callable[[], float]) -> Iterator[float]:
        """Yields the pauses between tries, without end."""
        ceiling = self.base_s
        while True:
            yield rng() * ceiling
            ceiling = min(self.cap_s, ceiling * 2)


@dataclass
class Store:
    """One pod store. Holds no connection between calls; may be used by many threads."""

    url: str
    token: str = field(repr=False)
    retry: Retry = field(default_factory=Retry)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise NotConfigured(
                f"ATOLL_STORE must look like http://127.0.0.1:7070, not {self.url!r:.100}"
            )
        self._host = parts.hostname
        self._port = parts.port or 80

    @classmethod
    def from_env(cls) -> Store:
        """The store of this pod, from `ATOLL_STORE` and `ATOLL_TOKEN`."""
        missing = [name for name in ("ATOLL_STORE", "ATOLL_TOKEN") if not os.environ.get(name)]
        if missing:
            raise NotConfigured(
                f"{' and '.join(missing)} not set: this process does not run in a pod. "
                "Submit the job with `atoll job submit`, or run it without checkpoints"
            )
        return cls(os.environ["ATOLL_STORE"], os.environ["ATOLL_TOKEN"])

    # -- blobs ---------------------------------------------------------------

    def fetch(self, digest: str, out: BinaryIO, bytes_max: int = BLOB_BYTES_MAX) -> int:
        """Writes the blob to `out` (seekable) and returns its size in bytes.

        Raises `DigestMismatch` when the content is not what `digest` names or is
        larger than `bytes_max`; what was written is then not to be used.
        """
        check_digest(digest)

        def receive(response: http.client.HTTPResponse) -> int:
            out.seek(0)
            out.truncate()
            hasher, size = hashlib.sha256(), 0
            while chunk := response.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > bytes_max:
                    raise DigestMismatch(f"blob {digest} is larger than {bytes_max} bytes")
                hasher.update(chunk)
                out.write(chunk)
            if response.length:  # closed before Content-Length bytes had come
                raise http.client.IncompleteRead(b"", response.length)
            if hasher.hexdigest() != digest:
                raise DigestMismatch(
                    f"asked for blob {digest}, received one that hashes to {hasher.hexdigest()}"
                )
            return size

        return self._call("GET", f"/v1/blobs/{digest}", receive)

    def get_blob(self, digest: str, bytes_max: int = BLOB_BYTES_MAX) -> bytes:
        """Returns the blob; raises as `fetch`."""
        buffer = io.BytesIO()
        self.fetch(digest, buffer, bytes_max)
        return buffer.getvalue()

    def put_blob(self, content: bytes) -> str:
        """Stores the blob and returns its digest. Storing it twice is the same as once."""
        if len(content) > BLOB_BYTES_MAX:
            raise ValueError(
                f"a blob may have {BLOB_BYTES_MAX} bytes, this one has {len(content)}: "
                "save the state as several files"
            )
        digest = hashlib.sha256(content).hexdigest()
        self._call("PUT", f"/v1/blobs/{digest}", _drain, body=content)
        return digest

    # -- manifests and reports -----------------------------------------------

    def put_manifest(self, step: int, manifest: dict[str, Any]) -> None:
        """Names a complete checkpoint. Written last, after all of its blobs.

        Raises `Conflict` when the attempt is stale or a blob is missing.
        """
        self._call("PUT", f"/v1/checkpoints/{step:d}", _drain, body=_json(manifest))

    def latest_manifest(self) -> dict[str, Any] | None:
        """Returns the newest complete checkpoint's manifest, or None if there is none."""
        try:
            found = self._call("GET", "/v1/checkpoints/latest", _read_json)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise
        if not isinstance(found, dict):
            raise StoreError("the store's latest checkpoint is not a JSON object")
        return found

    def report(self, message: dict[str, Any]) -> None:
        """Sends one progress report."""
        self._call("POST", "/v1/report", _drain, body=_json(message))

    # -- one call ------------------------------------------------------------

    def _call(
        self,
        method: str,
        path: str,
        receive: Callable[[http.client.HTTPResponse], _T],
        body: bytes | None = None,
    ) -> _T:
        """Makes one call, again and again until it is answered or the deadline is past."""
        deadline = self.clock() + self.retry.deadline_s
        for tries, wait in enumerate(self.retry.waits(self.rng), start=1):
            left = deadline - self.clock()
            try:
                return self._once(method, path, receive, body, max(left, 0.1))
            except (OSError, http.client.HTTPException, _Transient) as error:
                cause = error
            if self.clock() + wait >= deadline:
                raise Unreachable(
                    f"{method} {path} failed for {self.retry.deadline_s:g} s "
                    f"({tries} tries, last: {cause!r}); is the worker of this pod down?"
                ) from cause
            self.sleep(wait)
        raise AssertionError("the pauses never end")

    def _once(
        self,
        method: str,
        path: str,
        receive: Callable[[http.client.HTTPResponse], _T],
        body: bytes | None,
        left_s: float,
    ) -> _T:
        timeout = min(self.retry.attempt_timeout_s, left_s)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Connection": "close"}
            if body is not None:
                headers["Content-Length"] = str(len(body))
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            if 200 <= response.status < 300:
                return receive(response)
            text = response.read(_MESSAGE_BYTES_MAX).decode("utf-8", "replace")
            if response.status >= 500 or response.status in (408, 425, 429):
                raise _Transient(f"HTTP {response.status} {text}")
            refusal = Conflict if response.status == 409 else Refused
            raise refusal(response.status, f"{method} {path}", text)
        finally:
            connection.close()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


def _drain(response: http.client.HTTPResponse) -> None:
    response.read(_MESSAGE_BYTES_MAX)


def _read_json(response: http.client.HTTPResponse) -> Any:
    raw = response.read(_JSON_BYTES_MAX + 1)
    if len(raw) > _JSON_BYTES_MAX:
        raise StoreError(f"the store's answer is larger than {_JSON_BYTES_MAX} bytes")
    try:
        return json.loads(raw)
    except ValueError as error:
        raise StoreError(f"the store's answer is not JSON: {error}") from error
