"""Times of a cluster of three pods on this machine; prints one line per figure.

    cd sdk/python && PACK/bin/python -m slow.measure [silent|killed]

Figures are wall time in seconds, CPU is that of all processes of the pods.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from slow.cluster import Cluster, wait_for
from tests.store_server import StoreServer

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(cluster: Cluster) -> dict[str, float]:
    """CPU of the living processes by command, over all pods."""
    total: dict[str, float] = {}
    for ip in cluster.pods:
        for pid in cluster.processes(ip):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            seconds = (int(stat[11]) + int(stat[12])) / TICKS
            name = next(
                (
                    part
                    for part in (
                        "gcs_server",
                        "raylet/raylet",
                        "DashboardAgent",
                        "RuntimeEnvAgent",
                        "log_monitor",
                        "client.server",
                        "monitor.py",
                        "forkserver",
                        "ray-dashboard",
                        "dashboard.py",
                        "JobSupervisor",
                        "Trainer",
                        "IDLE",
                        "train.py",
                        "atoll.pod",
                    )
                    if part in words
                ),
                words[:60],
            )
            total[name] = total.get(name, 0.0) + seconds
    return total


def show_cpu(cluster: Cluster) -> None:
    spent = sorted(cpu_seconds(cluster).items(), key=lambda item: -item[1])
    print(
        f"   CPU {sum(s for _, s in spent):.1f} s:",
        *(f"{n} {s:.2f}," for n, s in spent if s >= 0.05),
    )


def main(loss: str) -> None:
    with tempfile.TemporaryDirectory(prefix="at") as root, StoreServer() as store:
        with Cluster(Path(root), store, world=3, epochs=60) as cluster:
            ips = [f"{cluster.net}.{n}" for n in (1, 2, 3)]
            began = time.monotonic()

            def mark(what: str) -> None:
                print(f"{time.monotonic() - began:7.2f} s  {what}", flush=True)

            for ip in ips:
                cluster.start(ip)
            wait_for("version", lambda: cluster.call("GET", "/api/version"), 60)
            mark("Jobs API answers")
            wait_for("nodes", lambda: cluster.alive() == set(ips), 60)
            mark("three nodes alive")
            show_cpu(cluster)
            began = time.monotonic()
            name = cluster.submit(1)
            mark("submitted")
            wait_for("running", lambda: cluster.status(name) == "RUNNING", 60)
            mark("driver running")
            store.wait_report(90, kind="started")
            mark("started reported (ranks joined)")
            store.wait_report(60, kind="step", attempt=1)
            mark("first step")
            store.wait_report(60, kind="checkpoint", epoch=1)
            mark("epoch 1")
            store.wait_report(60, kind="checkpoint", epoch=10)
            mark("epoch 10")
            show_cpu(cluster)
            lost, new = ips[2], f"{cluster.net}.4"
            began = time.monotonic()
            if loss == "silent":
                cluster.signal(lost, signal.SIGSTOP)
            else:
                cluster.kill(lost)
            mark(f"pod {lost} {loss}")
            store.attempt = 2
            cluster.start(new)
            want = {*ips[:2], new}
            wait_for("old node gone", lambda: lost not in cluster.alive(), 90)
            mark("lost node vanished")
            wait_for("nodes", lambda: cluster.alive() == want, 90)
            mark("replacement alive")
            print("old attempt:", cluster.status(name))
            cluster.call("POST", f"/api/jobs/{name}/stop")
            wait_for("stopped", lambda: cluster.status(name) in ("STOPPED", "FAILED"), 60)
            mark("old attempt over: " + cluster.status(name))
            second = cluster.submit(2)
            resumed = store.wait_report(90, kind="resumed", attempt=2)
            mark(f"resumed from step {resumed['resumed_from_step']}")
            store.wait_report(90, kind="step", attempt=2)
            mark("first step after the loss")
            wait_for("end", lambda: cluster.status(second) in ("SUCCEEDED", "FAILED"), 180)
            mark(cluster.status(second))
            began = time.monotonic()
            cluster.pods[ips[0]].send_signal(signal.SIGTERM)
            cluster.pods[ips[0]].wait(20)
            mark("head left after SIGTERM")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "killed")
