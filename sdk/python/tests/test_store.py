"""The store's client against a real HTTP server that breaks connections."""

from __future__ import annotations

import hashlib
import io
import unittest

from atoll.store import (
    Conflict,
    DigestMismatch,
    NotConfigured,
    Refused,
    Retry,
    Store,
    Unreachable,
)
from tests.store_server import StoreServer

QUICK = Retry(deadline_s=20.0, base_s=0.001, cap_s=0.01)


class StoreTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(StoreServer())
        self.store = Store(self.server.url, self.server.token, QUICK)

    def test_a_blob_comes_back_as_it_was(self) -> None:
        content = bytes(range(256)) * 5000
        digest = self.store.put_blob(content)
        self.assertEqual(digest, hashlib.sha256(content).hexdigest())
        self.assertEqual(self.store.get_blob(digest), content)

    def test_an_empty_blob_comes_back(self) -> None:
        self.assertEqual(self.store.get_blob(self.store.put_blob(b"")), b"")

    def test_lost_connections_and_503_are_tried_again(self) -> None:
        digest = self.server.put(b"code")
        self.server.drop_next, self.server.fail_next = 3, 2
        self.assertEqual(self.store.get_blob(digest), b"code")
        self.assertEqual(len(self.server.requests), 6)
        self.server.drop_next = 2
        self.store.put_blob(b"state")
        self.assertIn(hashlib.sha256(b"state").hexdigest(), self.server.blobs)

    def test_a_connection_cut_in_the_middle_of_a_blob_is_tried_again(self) -> None:
        digest = self.server.put(b"x" * 600_000)
        self.server.cut_next = 2
        self.assertEqual(self.store.get_blob(digest), b"x" * 600_000)
        self.assertEqual(len(self.server.requests), 3)

    def test_the_deadline_ends_the_tries(self) -> None:
        clock = [0.0]

        def sleep(seconds: float) -> None:
            clock[0] += seconds

        self.server.drop_next = 10**6
        store = Store(
            self.server.url,
            self.server.token,
            Retry(deadline_s=30.0, base_s=1.0, cap_s=4.0),
            clock=lambda: clock[0],
            sleep=sleep,
            rng=lambda: 1.0,
        )
        with self.assertRaisesRegex(Unreachable, "30 s"):
            store.latest_manifest()
        # Pauses 1, 2, 4, 4, 4 ... with jitter at its most: 9 tries fit into 30 s.
        self.assertEqual(len(self.server.requests), 9)

    def test_content_that_is_not_what_its_digest_names_is_refused(self) -> None:
        digest = self.server.put(b"good")
        self.server.blobs[digest] = b"evil"
        with self.assertRaises(DigestMismatch):
            self.store.get_blob(digest)
        self.assertEqual(len(self.server.requests), 1, "a wrong content is no reason to retry")

    def test_a_blob_larger_than_said_is_refused(self) -> None:
        digest = self.server.put(b"x" * 1000)
        with self.assertRaises(DigestMismatch):
            self.store.fetch(digest, io.BytesIO(), bytes_max=999)

    def test_refusals_are_raised_at_once(self) -> None:
        wrong = Store(self.server.url, "another-lease", QUICK)
        with self.assertRaises(Refused) as refusal:
            wrong.put_blob(b"x")
        self.assertEqual(refusal.exception.status, 401)
        self.assertEqual(len(self.server.requests), 1)
        with self.assertRaises(Refused):
            self.store.get_blob("0" * 64)

    def test_a_stale_attempt_and_a_missing_blob_are_conflicts(self) -> None:
        manifest = {"step": 1, "epoch": 1, "attempt": 1, "weights_sha256": "0" * 64}
        missing = {"name": "a", "sha256": "1" * 64, "bytes": 1}
        with self.assertRaisesRegex(Conflict, "blob_missing"):
            self.store.put_manifest(1, manifest | {"files": [missing]})
        self.server.attempt = 2
        with self.assertRaisesRegex(Conflict, "stale_attempt"):
            self.store.put_manifest(1, manifest | {"files": []})

    def test_digests_and_addresses_are_checked_before_anything_is_sent(self) -> None:
        for digest in ("", "0" * 63, "G" * 64, "../" + "0" * 61, "A" * 64):
            with self.assertRaises(ValueError):
                self.store.get_blob(digest)
        self.assertEqual(self.server.requests, [])
        for url in ("https://x", "127.0.0.1:7070", "http://h/path", ""):
            with self.assertRaises(NotConfigured):
                Store(url, "t")

    def test_the_token_is_not_shown(self) -> None:
        self.assertNotIn(self.server.token, repr(self.store))


if __name__ == "__main__":
    unittest.main()
