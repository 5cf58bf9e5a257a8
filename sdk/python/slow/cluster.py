"""A small cluster of real Ray pods on the host, for the slow tests and the timings.

Each pod is `python -m atoll.pod` in its own process group with its own job
folder and loopback address. What is missing against a real pod is the sandbox
and the overlay; those are tested where they live.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.store_server import StoreServer

SDK = Path(__file__).resolve().parent.parent
EXAMPLE = SDK.parent.parent / "examples" / "digits"


def bundle(folder: Path) -> bytes:
    """The folder as the tar that a client would upload."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                tar.add(path, path.name)
    return out.getvalue()


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float) -> Any:
    """Polls until `condition` gives something true; fails with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """Pods of one job. Addresses are 127.77.X.Y with a random X, so runs do not meet."""

    def __init__(self, root: Path, store: StoreServer, world: int, epochs: int) -> None:
        self.root, self.store, self.world, self.epochs = root, store, world, epochs
        self.net = f"127.77.{secrets.randbelow(250) + 1}"
        self.gcs_port, self.jobs_port = free_port(), free_port()
        self.token = secrets.token_hex(24)
        self.head = f"{self.net}.1"
        self.bundle = store.put(bundle(EXAMPLE))
        self.pods: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for ip in list(self.pods):
            self.kill(ip)

    def start(self, ip: str) -> None:
        folder = self.root / ip
        folder.mkdir()
        env = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "PYTHONPATH": str(SDK),
            "OMP_NUM_THREADS": "1",
            "ATOLL_STORE": self.store.url,
            "ATOLL_TOKEN": self.store.token,
            "ATOLL_JOB": "job_test",
            "ATOLL_BUNDLE_SHA256": self.bundle,
            "ATOLL_ROLE": "head" if ip == self.head else "node",
            "ATOLL_HEAD_IP": self.head,
            "ATOLL_WORLD": str(self.world),
            "POD_IP": ip,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "GLOO_SOCKET_IFNAME": "lo",
            "DIGITS_EPOCHS": str(self.epochs),
        }
        command = [sys.executable, "-m", "atoll.pod", f"--job-dir={folder}"]
        command += [f"--ray-dir={folder / 'r'}", f"--gcs-port={self.gcs_port}"]
        # Ray's agent binds 127.0.0.1 too, so pods on one host need a port each.
        command += [f"--jobs-port={self.jobs_port}", f"--agent-port={free_port()}"]
        with open(folder / "log", "wb") as log:
            self.pods[ip] = subprocess.Popen(
                command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )

    def processes(self, ip: str) -> set[int]:
        """Every process of the pod: by its folder in the environment, and by descent
        (Ray's agents write their title over their environment)."""
        mark = f"HOME={self.root / ip}\0".encode()
        parents: dict[int, int] = {}
        found = {self.pods[ip].pid} if ip in self.pods else set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                stat = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                if stat[0] == "Z":
                    continue
                parents[int(entry)] = int(stat[1])
                if mark in Path(f"/proc/{entry}/environ").read_bytes():
                    found.add(int(entry))
            except OSError:
                continue
        while more := {pid for pid, up in parents.items() if up in found and pid not in found}:
            found |= more
        return found & parents.keys()

    def signal(self, ip: str, number: signal.Signals) -> None:
        for pid in self.processes(ip):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self, ip: str) -> None:
        """SIGKILLs everything in the pod, as a lost machine does."""

        def gone() -> bool:
            self.signal(ip, signal.SIGKILL)
            return not self.processes(ip)

        self.signal(ip, signal.SIGKILL)
        self.pods.pop(ip).wait()
        wait_for(f"no process of pod {ip}", gone, 20)

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """One call of Ray's HTTP API; None when it does not answer with 2xx."""
        request = urllib.request.Request(
            f"http://{self.head}:{self.jobs_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token or self.token}"}
            | ({"Content-Type": "application/json"} if body is not None else {}),
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return json.load(response)
        except (OSError, ValueError):
            return None

    def refusal(self, path: str, token: str) -> int:
        """The status with which a call with this token is refused; 200 when it is not."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(
            f"http://{self.head}:{self.jobs_port}{path}", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def alive(self) -> set[str]:
        """Addresses of the nodes that Ray counts as alive, from the GCS itself."""
        found = self.call("GET", "/api/v0/nodes?limit=1000&timeout=5")
        if not found or not found.get("result"):
            return set()
        nodes = found["data"]["result"]["result"]
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}

    def submit(self, attempt: int) -> str:
        name = f"job_test-{attempt}"
        body = {
            "entrypoint": "python train.py",
            "submission_id": name,
            "runtime_env": {"env_vars": {"ATOLL_ATTEMPT": str(attempt)}},
        }
        answer = self.call("POST", "/api/jobs/", body)
        if not answer or answer.get("submission_id") != name:
            raise AssertionError(f"submit answered {answer}")
        return name

    def status(self, name: str) -> str:
        answer = self.call("GET", f"/api/jobs/{name}")
        return answer["status"] if answer else "UNKNOWN"

    def logs(self, name: str) -> str:
        answer = self.call("GET", f"/api/jobs/{name}/logs")
        return answer["logs"] if answer else ""

    def follow(self, name: str) -> str:
        """Everything that Ray's log tail says until the job has ended and it closes."""
        import aiohttp

        async def read() -> str:
            url = f"http://{self.head}:{self.jobs_port}/api/jobs/{name}/logs/tail"
            said = []
            async with aiohttp.ClientSession() as session:
                headers = {"Authorization": f"Bearer {self.token}"}
                async with session.ws_connect(url, headers=headers) as tail:
                    async for message in tail:
                        said.append(str(message.data))
            return "".join(said)

        return asyncio.run(read())
