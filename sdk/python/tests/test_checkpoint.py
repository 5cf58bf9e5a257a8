"""Checkpoints and reports: order of writing, checks on reading, fencing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import unittest
from unittest import mock

import atoll
from atoll import checkpoint
from atoll.checkpoint import BadManifest, Checkpoint
from atoll.reporting import attempt_from_env
from atoll.store import Conflict, DigestMismatch, NotConfigured, Retry, Store
from tests.store_server import StoreServer

QUICK = Retry(deadline_s=20.0, base_s=0.001, cap_s=0.01)
WEIGHTS = "ab" * 32


class CheckpointTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(StoreServer())
        self.store = Store(self.server.url, self.server.token, QUICK)

    def save(self, step: int, content: bytes = b"state", attempt: int = 1) -> Checkpoint:
        files = {"state.npz": content, "rng": b"1"}
        return checkpoint.save(step, 1, files, WEIGHTS, attempt=attempt, store=self.store)

    def test_what_is_saved_is_what_is_read(self) -> None:
        self.assertIsNone(checkpoint.latest(self.store))
        self.save(10, b"ten")
        saved = self.save(20, b"twenty")
        found = checkpoint.latest(self.store)
        self.assertEqual(found, saved)
        self.assertEqual((found.step, found.attempt, found.weights_sha256), (20, 1, WEIGHTS))
        self.assertEqual(found.read("state.npz"), b"twenty")
        with self.assertRaises(KeyError):
            found.read("other")

    def test_the_manifest_is_written_last(self) -> None:
        self.save(10)
        kinds = [request.split("/")[2] for request in self.server.requests]
        self.assertEqual(kinds, ["blobs", "blobs", "checkpoints"])

    def test_a_process_killed_before_the_manifest_leaves_the_older_checkpoint(self) -> None:
        self.save(10, b"ten")
        with mock.patch.object(Store, "put_manifest", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.save(20, b"twenty")
        self.assertEqual(checkpoint.latest(self.store).read("state.npz"), b"ten")

    def test_a_replaced_attempt_cannot_overwrite_its_successor(self) -> None:
        self.server.attempt = 2
        self.save(10, b"second", attempt=2)
        with self.assertRaises(Conflict):
            self.save(20, b"first", attempt=1)
        self.assertEqual(checkpoint.latest(self.store).read("state.npz"), b"second")

    def test_a_file_replaced_in_the_store_is_refused(self) -> None:
        saved = self.save(10)
        self.server.blobs[saved.files[0].sha256] = b"2"
        with self.assertRaises(DigestMismatch):
            checkpoint.latest(self.store).read(saved.files[0].name)

    def test_a_file_of_another_length_than_the_manifest_says_is_refused(self) -> None:
        self.save(10)
        self.server.manifests[10]["files"][1]["bytes"] += 1
        with self.assertRaisesRegex(DigestMismatch, "5 bytes"):
            checkpoint.latest(self.store).read("state.npz")

    def test_malformed_manifests_are_refused(self) -> None:
        good = self.save(10).to_json()
        file = good["files"][0]
        for change in (
            {"step": -1},
            {"step": True},
            {"step": "10"},
            {"epoch": None},
            {"weights_sha256": "x"},
            {"files": []},
            {"files": [file] * 2},
            {"files": [{**file, "name": "../x"}]},
            {"files": [{**file, "sha256": "../../x"}]},
            {"files": [{**file, "bytes": 10**12}]},
            {"files": {"a": 1}},
        ):
            with self.subTest(change), self.assertRaises(BadManifest):
                Checkpoint.from_json(good | change)
        for name in good:
            with self.subTest(missing=name), self.assertRaises(BadManifest):
                Checkpoint.from_json({k: v for k, v in good.items() if k != name})

    def test_names_and_digests_are_checked_before_anything_is_sent(self) -> None:
        for files, weights in (({}, WEIGHTS), ({"../x": b""}, WEIGHTS), ({"a": b""}, "nonsense")):
            with self.assertRaises(ValueError):
                checkpoint.save(1, 1, files, weights, store=self.store)
        self.assertEqual(self.server.requests, [])

    def test_outside_a_pod_the_error_says_what_to_do(self) -> None:
        with mock.patch.dict(os.environ, clear=True):
            with self.assertRaisesRegex(NotConfigured, "atoll job submit"):
                checkpoint.latest()


class ReportTest(unittest.TestCase):
    def test_a_report_carries_what_the_control_plane_reads(self) -> None:
        with StoreServer() as server:
            env = {"ATOLL_STORE": server.url, "ATOLL_TOKEN": server.token, "ATOLL_ATTEMPT": "3"}
            with mock.patch.dict(os.environ, env):
                atoll.report("step", step=7, epoch=1, loss=0.5)
                atoll.report(
                    "resumed",
                    step=7,
                    epoch=1,
                    resumed_from_step=7,
                    weights_sha256=WEIGHTS,
                    attempt=4,
                )
        self.assertEqual(
            server.reports,
            [
                {"kind": "step", "step": 7, "epoch": 1, "attempt": 3, "loss": 0.5},
                {
                    "kind": "resumed",
                    "step": 7,
                    "epoch": 1,
                    "attempt": 4,
                    "resumed_from_step": 7,
                    "weights_sha256": WEIGHTS,
                },
            ],
        )

    def test_outside_a_pod_it_is_one_line_on_stdout(self) -> None:
        out = io.StringIO()
        with mock.patch.dict(os.environ, clear=True), contextlib.redirect_stdout(out):
            atoll.report("result", step=1, epoch=1, accuracy=0.5, message="x" * 5000)
        word, line = out.getvalue().split(" ", 1)
        self.assertEqual(word, "atoll-report")
        self.assertEqual(len(json.loads(line)["message"]), 1000)

    def test_reports_that_say_nothing_or_lie_are_refused(self) -> None:
        for kind, fields in (
            ("finished", {}),
            ("resumed", {"resumed_from_step": 3}),
            ("resumed", {"weights_sha256": WEIGHTS}),
            ("step", {"weights_sha256": "abc"}),
            ("step", {"step": -1}),
            ("step", {"loss": float("nan")}),
        ):
            with self.subTest(kind=kind, fields=fields), self.assertRaises(ValueError):
                atoll.report(kind, **{"step": 1, "epoch": 1} | fields)

    def test_the_attempt_is_a_whole_number_from_one(self) -> None:
        for raw in ("0", "-1", "x", "1.5", "²"):
            with mock.patch.dict(os.environ, {"ATOLL_ATTEMPT": raw}):
                with self.subTest(raw), self.assertRaises(ValueError):
                    attempt_from_env()


class FakeArray:
    """As much of an array as the hash looks at (numpy is not in the standard library)."""

    class dtype:
        byteorder = "="

        def __str__(self) -> str:
            return "float32"

    dtype = dtype()
    flags = {"C_CONTIGUOUS": True}

    def __init__(self, *values: float, shape: tuple[int, ...] | None = None) -> None:
        self.raw = struct.pack(f"<{len(values)}f", *values)
        self.shape = shape or (len(values),)

    def tobytes(self) -> bytes:
        return self.raw


class WeightsHashTest(unittest.TestCase):
    def test_the_layout_is_the_documented_one(self) -> None:
        def part(raw: bytes) -> bytes:
            return struct.pack("<Q", len(raw)) + raw

        expected = hashlib.sha256(b"atoll/weights/1\0")
        for name, values in (("a", (1.0,)), ("b", (2.0, 3.0))):
            raw = struct.pack(f"<{len(values)}f", *values)
            for piece in (name.encode(), b"float32", repr((len(values),)).encode(), raw):
                expected.update(part(piece))
        state = {"b": FakeArray(2.0, 3.0), "a": FakeArray(1.0)}
        self.assertEqual(atoll.weights_sha256(state), expected.hexdigest())

    def test_names_values_and_shapes_all_count(self) -> None:
        states = [
            {"a": FakeArray(1.0, 2.0)},
            {"b": FakeArray(1.0, 2.0)},
            {"a": FakeArray(2.0, 1.0)},
            {"a": FakeArray(1.0, 2.0, shape=(2, 1))},
            {"a": FakeArray(1.0), "b": FakeArray(2.0)},
            {},
        ]
        self.assertEqual(len({atoll.weights_sha256(state) for state in states}), len(states))

    def test_anything_but_arrays_is_refused(self) -> None:
        with self.assertRaisesRegex(TypeError, "'lr' is a float"):
            atoll.weights_sha256({"lr": 0.1})


if __name__ == "__main__":
    unittest.main()
