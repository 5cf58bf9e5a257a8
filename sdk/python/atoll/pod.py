"""Bootstrap of a pod: fetch the job's code, then become Ray.

    PYTHONPATH=/opt/atoll /opt/venv/bin/python -m atoll.pod

Runs once, as the pod's first process inside the sandbox. It reads the pod's
environment (`PodConfig`), fetches the bundle from the pod store by digest,
unpacks it to /job/src and turns into `ray start --block` in the same process:
the head (GCS on POD_IP:6379, dashboard with the Jobs API on POD_IP:8265) or a
node. It starts no job; the control plane submits one through the Jobs API when
Ray's set of alive nodes is the one it expects.

**All pods of a cluster may start at once.** A node first fetches its code and
imports Ray, which takes about a second of CPU, while a thread knocks at
ATOLL_HEAD_IP:6379 every 100 ms; when the GCS accepts it asks it, as often, for
the head's own node, and joins the moment that is there. So start order does not
matter and nothing is started twice. It gives up after `HEAD_WAIT_S`.

**Who can reach it.** The pod's network namespace holds only `lo` and the
overlay, so every port Ray opens is on the overlay or not reachable from
anywhere; each of them also wants the cluster's token (RAY_AUTH_MODE=token).
The bootstrap refuses to start without one.

**SIGTERM** stops Ray: it drains for at most `DRAIN_S` seconds, then its
processes are gone. A pod that must go at once is killed; nothing in it is
needed afterwards, a checkpoint lives in the store.

What it leaves out: the autoscaler monitor (Atoll places nodes), usage
statistics, the memory monitor (the pod's limits are the supervisor's), and the
metrics exporter of Ray.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from atoll.bundle import HostileBundle, unpack
from atoll.store import Retry, Store, StoreError, check_digest

GCS_PORT = 6379
JOBS_PORT = 8265
AGENT_PORT = 52365
DRAIN_S = 3
HEAD_WAIT_S = 120.0
"""How long a node waits for its head: the pod's own start budget is 60 s, twice that."""

RAY_MEMORY_BYTES = 1_500_000_000
OBJECT_STORE_BYTES = 100_000_000
"""Well under /dev/shm of a pod (256 MiB)."""

RAY_ENVIRONMENT: Mapping[str, str] = {
    # A dead node leaves the cluster after at most (period + timeout) * threshold
    # = 4.5 s of silence; Ray's own defaults take up to a minute.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_S),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_enable_metrics_collection": "0",
}

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,256}\Z")


class BadEnvironment(Exception):
    """The pod was started with an environment that is not the agreed one."""


@dataclass(frozen=True)
class PodConfig:
    """What a pod is told. Every field is one environment variable."""

    role: str
    """ATOLL_ROLE: `head` or `node`."""
    pod_ip: str
    """POD_IP: this pod's overlay address."""
    head_ip: str
    """ATOLL_HEAD_IP: the head's overlay address."""
    world: int
    """ATOLL_WORLD: number of pods of the job."""
    job: str
    """ATOLL_JOB: the job's id."""
    bundle_sha256: str
    """ATOLL_BUNDLE_SHA256: digest of the bundle in the store."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> PodConfig:
        """Reads and checks the environment; names everything that is wrong. Pure."""
        wrong: list[str] = []

        def take(name: str, check: re.Pattern[str] | None = None) -> str:
            value = env.get(name, "")
            if not value or (check and not check.match(value)):
                wrong.append(f"{name}={value!r:.80}")
            return value

        config = dict(
            role=take("ATOLL_ROLE", re.compile(r"(head|node)\Z")),
            pod_ip=take("POD_IP"),
            head_ip=take("ATOLL_HEAD_IP"),
            world=take("ATOLL_WORLD", re.compile(r"[1-9][0-9]{0,4}\Z")),
            job=take("ATOLL_JOB", re.compile(r"[A-Za-z0-9_-]{1,128}\Z")),
            bundle_sha256=take("ATOLL_BUNDLE_SHA256", re.compile(r"[0-9a-f]{64}\Z")),
        )
        take("ATOLL_STORE")
        take("ATOLL_TOKEN")
        take("RAY_AUTH_MODE", re.compile(r"token\Z"))
        if not _TOKEN.match(env.get("RAY_AUTH_TOKEN", "")):
            wrong.append("RAY_AUTH_TOKEN (32 to 256 characters of A-Z a-z 0-9 _ -)")
        for name in ("POD_IP", "ATOLL_HEAD_IP"):
            try:
                IPv4Address(env.get(name, ""))
            except ValueError:
                wrong.append(f"{name} is not an IPv4 address")
        if config["role"] == "head" and config["pod_ip"] != config["head_ip"]:
            wrong.append("a head's POD_IP is ATOLL_HEAD_IP")
        if wrong:
            raise BadEnvironment("the pod's environment is wrong: " + "; ".join(wrong))
        return cls(**{**config, "world": int(config["world"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Places:
    """Folders and ports. The defaults are those of a pod; tests on a host need others."""

    job: Path = Path("/job")
    ray: Path = Path("/tmp/ray")
    gcs_port: int = GCS_PORT
    jobs_port: int = JOBS_PORT
    agent_port: int = AGENT_PORT

    @property
    def source(self) -> Path:
        """Where the bundle is unpacked: the working directory of the job."""
        return self.job / "src"


def ray_arguments(config: PodConfig, places: Places) -> list[str]:
    """The arguments of `ray` for this pod. Pure."""
    common = [
        "start",
        "--block",
        f"--node-ip-address={config.pod_ip}",
        "--num-cpus=1",
        f"--memory={RAY_MEMORY_BYTES}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--dashboard-agent-listen-port={places.agent_port}",
        "--disable-usage-stats",
    ]
    if config.role == "head":
        return common + [
            "--head",
            f"--port={places.gcs_port}",
            "--include-dashboard=true",
            f"--dashboard-host={config.pod_ip}",
            f"--dashboard-port={places.jobs_port}",
            "--no-monitor",
            f"--temp-dir={places.ray}",
        ]
    return common + [f"--address={config.head_ip}:{places.gcs_port}", f"--temp-dir={places.ray}"]


def ray_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What Ray and everything it starts see besides the pod's environment. Pure.

    The job's folder is not put on PYTHONPATH: a job's `queue.py` would then stand
    before the standard library's in Ray's own processes. The driver finds its
    folder because it starts there, and Ray hands the driver's search path on to
    the actors; the folder has the same path in every pod.
    """
    return {
        **RAY_ENVIRONMENT,
        # The entry command says `python`; it means the pack's.
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), env.get("PATH", "/usr/bin:/bin")]
        ),
    }


def fetch_source(store: Store, digest: str, target: Path) -> int:
    """Fetches the bundle and unpacks it to `target`; returns the bytes unpacked.

    A target left by an earlier start of the same pod is replaced.
    """
    check_digest(digest)
    with tempfile.TemporaryFile() as archive:
        store.fetch(digest, archive)
        archive.seek(0)
        if target.exists():
            shutil.rmtree(target)
        return unpack(archive, target)


def wait_for_port(address: tuple[str, int], deadline: float) -> None:
    """Returns when something accepts at `address`; raises `TimeoutError` at `deadline`."""
    while True:
        try:
            socket.create_connection(address, timeout=2.0).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"no answer from the head at {address[0]}:{address[1]} ({error}); "
                    "is the head pod up and a member of this pod's roster?"
                ) from error
        time.sleep(0.05 + 0.1 * random.random())


def wait_for_head_node(address: tuple[str, int], deadline: float) -> None:
    """Returns when the head has joined its own cluster.

    The GCS accepts about two seconds before that, and `ray start` on a node would
    then look once and sleep for two seconds at a time.
    """
    from ray._raylet import GcsClient
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest

    selector = GetAllNodeInfoRequest.NodeSelector()
    selector.is_head_node = True
    client = GcsClient(address=f"{address[0]}:{address[1]}")
    while not client.get_all_node_info(timeout=10, node_selectors=[selector]):
        if time.monotonic() >= deadline:
            raise TimeoutError("the head's GCS answers, but the head did not join its cluster")
        time.sleep(0.05 + 0.1 * random.random())


class _Knock(threading.Thread):
    """Waits for the head's port while the main thread imports Ray."""

    def __init__(self, address: tuple[str, int], deadline: float) -> None:
        super().__init__(daemon=True)
        self.address, self.deadline = address, deadline
        self.error: TimeoutError | None = None

    def run(self) -> None:
        try:
            wait_for_port(self.address, self.deadline)
        except TimeoutError as error:
            self.error = error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the pod; returns only on failure or after Ray has stopped."""
    options = _options().parse_args(argv)
    places = Places(**vars(options))
    began = time.monotonic()
    try:
        config = PodConfig.from_env(os.environ)
        head, deadline = (config.head_ip, places.gcs_port), began + HEAD_WAIT_S
        knock = _Knock(head, deadline)
        if config.role == "node":
            knock.start()
        store = Store(os.environ["ATOLL_STORE"], os.environ["ATOLL_TOKEN"], Retry(deadline_s=60.0))
        size = fetch_source(store, config.bundle_sha256, places.source)
        _say(began, f"{config.role} {config.pod_ip} of {config.job}: code ready, {size} bytes")
        os.environ.update(ray_environment(os.environ))
        os.chdir(places.source)
        from ray.scripts import scripts  # after the environment: Ray reads it on import

        if config.role == "node":
            knock.join()
            if knock.error is not None:
                raise knock.error
            _say(began, "the head's GCS accepts")
            wait_for_head_node(head, deadline)
        _say(began, "starting ray")
    except (BadEnvironment, HostileBundle, StoreError, OSError) as error:
        _say(began, f"cannot start: {error}")
        return 1
    # Ray Client is one more way in (port 10001) and 0.6 s of CPU; `ray start` has no flag
    # against it, it only leaves it out when grpc is missing.
    scripts.get_ray_client_dependency_error = lambda: ImportError("left out by atoll.pod")
    sys.argv = ["ray", *ray_arguments(config, places)]
    scripts.main()
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atoll.pod", description="Starts one pod.")
    here = Places()
    parser.add_argument("--job-dir", dest="job", type=Path, default=here.job)
    parser.add_argument("--ray-dir", dest="ray", type=Path, default=here.ray)
    parser.add_argument("--gcs-port", type=int, default=here.gcs_port)
    parser.add_argument("--jobs-port", type=int, default=here.jobs_port)
    parser.add_argument("--agent-port", type=int, default=here.agent_port)
    return parser


def _say(began: float, words: str) -> None:
    print(f"atoll-pod {time.monotonic() - began:6.2f}s {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
