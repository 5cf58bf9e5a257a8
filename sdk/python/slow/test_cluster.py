"""The digits example on a real Ray cluster: head and two nodes, one of them lost.

Slow (about a minute). Needs the pack's Python.
"""

from __future__ import annotations

import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slow.cluster import Cluster, wait_for
from tests.store_server import StoreServer

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class ClusterTest(unittest.TestCase):
    def test_a_job_survives_the_loss_of_a_pod(self) -> None:
        root = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="at")))
        store = self.enterContext(StoreServer())
        cluster = self.enterContext(Cluster(root, store, world=3, epochs=30))
        head, node, lost, new = (f"{cluster.net}.{n}" for n in (1, 2, 3, 4))
        # Nodes first: they wait for their head.
        for ip in (lost, node, head):
            cluster.start(ip)
        wait_for("three nodes", lambda: cluster.alive() == {head, node, lost}, 90)

        for token in ("x" * 48, ""):
            status = cluster.refusal("/api/jobs/", token)
            self.assertIn(status, (401, 403), "the Jobs API wants the cluster's token")

        first = cluster.submit(1)
        started = store.wait_report(90, kind="started", attempt=1)
        store.wait_report(60, kind="step", attempt=1, step=1)
        saved = store.wait_report(60, kind="checkpoint", epoch=8)
        self.assertEqual(saved["attempt"], 1)
        self.assertNotEqual(saved["weights_sha256"], started["weights_sha256"])

        cluster.kill(lost)
        cluster.start(new)
        wait_for("the replacement, and no more", lambda: cluster.alive() == {head, node, new}, 60)
        wait_for("the end of attempt 1", lambda: cluster.status(first) in ENDED, 30)
        self.assertEqual(cluster.status(first), "FAILED", cluster.logs(first))
        store.attempt = 2
        newest = store.manifests[max(store.manifests)]
        before = len(store.reports)

        second = cluster.submit(2)
        tail = self.enterContext(ThreadPoolExecutor(1)).submit(cluster.follow, second)
        resumed = store.wait_report(90, kind="resumed", attempt=2)
        self.assertIs(store.reports[before], resumed, "the first report after the loss")
        self.assertEqual(resumed["resumed_from_step"], newest["step"])
        self.assertEqual(resumed["weights_sha256"], newest["weights_sha256"])
        self.assertGreater(resumed["resumed_from_step"], 0)
        step = store.wait_report(60, kind="step", attempt=2)
        self.assertEqual(step["step"], newest["step"] + 1, "no step is lost or done twice")

        result = store.wait_report(120, kind="result", attempt=2)
        wait_for("the end of attempt 2", lambda: cluster.status(second) in ENDED, 30)
        self.assertEqual(cluster.status(second), "SUCCEEDED", cluster.logs(second))
        self.assertGreaterEqual(result["accuracy"], 0.93)
        self.assertEqual(result["epoch"], 30)
        self.assertIn("accuracy on held-out digits", cluster.logs(second))
        self.assertIn("accuracy on held-out digits", tail.result(30), "the tail follows to the end")


if __name__ == "__main__":
    unittest.main()
