"""The digits example without Ray: training, resuming, and a forged checkpoint.

Needs torch and scikit-learn: run with the pack's Python.
"""

from __future__ import annotations

import io
import os
import sys
import unittest
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "digits"
sys.path.insert(0, str(EXAMPLE))

import model  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import atoll  # noqa: E402
from atoll import checkpoint  # noqa: E402
from atoll.store import DigestMismatch, Retry, Store  # noqa: E402
from slow.cluster import free_port  # noqa: E402
from tests.store_server import StoreServer  # noqa: E402

SETTINGS = model.Settings(epochs=4, batch=32)


def rank() -> model.Rank:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    return model.Rank(0, 1, f"tcp://127.0.0.1:{free_port()}", SETTINGS)


class DigitsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(StoreServer())
        self.store = Store(self.server.url, self.server.token, Retry(deadline_s=20.0))

    def train(self, until_epoch: int, saved: checkpoint.Checkpoint | None = None) -> model.Outcome:
        """Trains in a fresh process group, saving after each epoch."""
        member = rank()
        try:
            if saved is not None:
                member.load(saved)

            def on_epoch(step: int, epoch: int, loss: float, accuracy: float) -> None:
                digest = atoll.weights_sha256(member.model.state_dict())
                files = {model.STATE_FILE: member.state()}
                checkpoint.save(step, epoch, files, digest, attempt=1, store=self.store)

            return member.train(lambda *_: None, on_epoch, until_epoch)
        finally:
            member.close()

    def test_a_resumed_run_ends_with_the_very_weights_of_one_that_was_not_interrupted(self) -> None:
        whole = self.train(4)
        self.server.manifests.clear()
        half = self.train(2)
        self.assertNotEqual(half.weights_sha256, whole.weights_sha256)
        saved = checkpoint.latest(self.store)
        self.assertEqual((saved.epoch, saved.step), (2, half.step))
        self.assertEqual(saved.weights_sha256, half.weights_sha256)
        resumed = self.train(4, saved)
        self.assertEqual(resumed, whole)

    def test_without_the_optimisers_state_the_weights_would_differ(self) -> None:
        # Shows that the test above can fail: momentum is part of the state.
        whole = self.train(3)
        self.server.manifests.clear()
        self.train(2)
        saved = checkpoint.latest(self.store)
        with np.load(io.BytesIO(saved.read(model.STATE_FILE))) as arrays:
            state = {name: arrays[name] for name in arrays.files}
        forged = self.forge(
            saved, {n: a * 0 if n.startswith("momentum/") else a for n, a in state.items()}
        )
        self.assertNotEqual(self.train(3, forged).weights_sha256, whole.weights_sha256)

    def forge(self, saved: checkpoint.Checkpoint, arrays: dict) -> checkpoint.Checkpoint:
        """The same manifest, but its file holds these arrays (with a correct digest)."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        manifest = saved.to_json()
        manifest["files"][0]["sha256"] = self.server.put(buffer.getvalue())
        manifest["files"][0]["bytes"] = len(buffer.getvalue())
        return checkpoint.Checkpoint.from_json(manifest, self.store)

    def test_a_checkpoint_replaced_by_random_weights_is_not_loaded(self) -> None:
        self.train(1)
        saved = checkpoint.latest(self.store)
        member = rank()
        try:
            noise = {
                f"model/{n}": np.random.rand(*t.shape).astype("float32")
                for n, t in member.model.state_dict().items()
            }
            noise |= {
                f"momentum/{i}": np.zeros(tuple(p.shape), "float32")
                for i, p in enumerate(member.model.parameters())
            }
            with self.assertRaises(atoll.WeightsMismatch) as refusal:
                member.load(self.forge(saved, noise))
            self.assertEqual(refusal.exception.expected, saved.weights_sha256)
            # The hash that is raised is that of what was loaded, not one from the manifest.
            loaded = atoll.weights_sha256(member.model.state_dict())
            self.assertEqual(refusal.exception.found, loaded)
            # The same bytes under the old digest do not even arrive.
            self.server.blobs[saved.files[0].sha256] = b"random"
            with self.assertRaises(DigestMismatch):
                member.load(saved)
        finally:
            member.close()

    def test_a_checkpoint_that_would_run_code_is_refused(self) -> None:
        self.train(1)
        saved = checkpoint.latest(self.store)
        evil = {"model/0.weight": np.array([print], dtype=object)}
        member = rank()
        try:
            with self.assertRaisesRegex(ValueError, "allow_pickle=False"):
                member.load(self.forge(saved, evil))
        finally:
            member.close()

    def test_shards_share_all_but_the_remainder_and_are_equally_long(self) -> None:
        shards = [model.shard(1437, 1, 5, rank, 3) for rank in range(3)]
        self.assertEqual({len(shard) for shard in shards}, {479})
        self.assertEqual(len(torch.cat(shards).unique()), 1437)
        self.assertEqual({len(model.shard(10, 1, 0, rank, 3)) for rank in range(3)}, {3})

    def test_the_held_out_digits_are_never_trained_on(self) -> None:
        train, _, test, labels = model.digits()
        self.assertEqual((len(train), len(test), len(labels)), (1437, 360, 360))

    def test_the_hash_of_tensors_is_that_of_arrays_and_sees_one_bit(self) -> None:
        state = model.network(1).state_dict()
        digest = atoll.weights_sha256(state)
        self.assertEqual(digest, atoll.weights_sha256({n: t.numpy() for n, t in state.items()}))
        state["8.bias"].view(torch.int32)[0] ^= 1
        self.assertNotEqual(digest, atoll.weights_sha256(state))
        transposed = {"w": torch.arange(6.0).reshape(2, 3).t()}
        again = {"w": torch.arange(6.0).reshape(2, 3).t().contiguous()}
        self.assertEqual(atoll.weights_sha256(transposed), atoll.weights_sha256(again))


if __name__ == "__main__":
    unittest.main()
