"""Checkpoints: a job's state after a step, complete or not there at all.

A checkpoint is a set of named files, each kept under its SHA-256, and a
manifest that names them, written last. So a process killed at any moment leaves
either the new checkpoint or the one before. No folder is involved: pods share
none, and a checkpoint must outlive the machine it was made on.

    saved = checkpoint.latest()
    if saved is not None:
        load_into(model, saved.read("state.npz"))              # numpy.load, allow_pickle=False
        loaded = saved.check_weights(model.state_dict())       # raises WeightsMismatch
        atoll.report("resumed", step=saved.step, epoch=saved.epoch,
                     resumed_from_step=saved.step, weights_sha256=loaded)

Guards, from the wire inwards: a file must have the manifest's digest and size;
the weights in the model after loading must have the manifest's weights hash.
Someone who can rewrite the manifest itself (only the store's own operator can)
is met by the control plane, which remembers each checkpoint's weights hash from
the report of the attempt that saved it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.reporting import attempt_from_env
from atoll.store import BLOB_BYTES_MAX, DigestMismatch, Store, StoreError, check_digest
from atoll.weights import check_weights

FILES_MAX = 256
"""Most files in one checkpoint."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")


class BadManifest(StoreError):
    """The store's manifest is not one that this package would have written."""


@dataclass(frozen=True)
class File:
    """One file of a checkpoint."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. Holds names and hashes; `read` fetches the content."""

    step: int
    """Optimiser steps done when it was saved."""
    epoch: int
    """Epochs done when it was saved."""
    attempt: int
    """The attempt that saved it."""
    weights_sha256: str
    """`atoll.weights_sha256` of the model when it was saved."""
    files: tuple[File, ...]
    store: Store | None = field(default=None, repr=False, compare=False)

    def read(self, name: str) -> bytes:
        """Returns a file's content; raises `DigestMismatch` if it is not what was saved."""
        for file in self.files:
            if file.name == name:
                content = (self.store or Store.from_env()).get_blob(file.sha256, file.bytes)
                if len(content) != file.bytes:
                    raise DigestMismatch(
                        f"checkpoint file {name!r} has {len(content)} bytes, "
                        f"the manifest says {file.bytes}"
                    )
                return content
        known = ", ".join(file.name for file in self.files)
        raise KeyError(f"no file {name!r} in the checkpoint of step {self.step}; it has {known}")

    def check_weights(self, state: Mapping[str, Any]) -> str:
        """Returns the weights hash of `state`, computed now.

        Raises `WeightsMismatch` unless it is the hash this checkpoint was saved with.
        """
        return check_weights(state, self.weights_sha256)

    def to_json(self) -> dict[str, Any]:
        """The manifest as it travels."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "attempt": self.attempt,
            "weights_sha256": self.weights_sha256,
            "files": [
                {"name": file.name, "sha256": file.sha256, "bytes": file.bytes}
                for file in self.files
            ],
        }

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any], store: Store | None = None) -> Checkpoint:
        """Reads a manifest; raises `BadManifest` for one that is not well formed."""
        try:
            listed = manifest["files"]
            if not isinstance(listed, list) or not 1 <= len(listed) <= FILES_MAX:
                raise ValueError(f"1 to {FILES_MAX} files")
            files = tuple(
                File(_name(f["name"]), check_digest(f["sha256"]), _count(f["bytes"], "bytes"))
                for f in listed
            )
            if len({file.name for file in files}) != len(files):
                raise ValueError("two files of one name")
            return cls(
                step=_count(manifest["step"], "step"),
                epoch=_count(manifest["epoch"], "epoch"),
                attempt=_count(manifest["attempt"], "attempt"),
                weights_sha256=check_digest(manifest["weights_sha256"]),
                files=files,
                store=store,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadManifest(f"the checkpoint's manifest is malformed: {error!r}") from error


def latest(store: Store | None = None) -> Checkpoint | None:
    """Returns the newest complete checkpoint of this job, or None before the first."""
    store = store or Store.from_env()
    manifest = store.latest_manifest()
    return None if manifest is None else Checkpoint.from_json(manifest, store)


def save(
    step: int,
    epoch: int,
    files: Mapping[str, bytes],
    weights_sha256: str,
    *,
    attempt: int | None = None,
    store: Store | None = None,
) -> Checkpoint:
    """Saves a checkpoint; when it returns, the checkpoint is complete and durable.

    Files go first, each under its digest, the manifest last. Raises `Conflict`
    when this attempt has been replaced: the process must then stop.
    """
    store = store or Store.from_env()
    if not 1 <= len(files) <= FILES_MAX:
        raise ValueError(f"a checkpoint has 1 to {FILES_MAX} files, not {len(files)}")
    made = Checkpoint(
        step=_count(step, "step"),
        epoch=_count(epoch, "epoch"),
        attempt=attempt_from_env() if attempt is None else attempt,
        weights_sha256=check_digest(weights_sha256),
        files=tuple(
            File(_name(name), hashlib.sha256(content).hexdigest(), len(content))
            for name, content in sorted(files.items())
        ),
        store=store,
    )
    for file in made.files:
        store.put_blob(files[file.name])
    store.put_manifest(made.step, made.to_json())
    return made


def _name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"file name {name!r:.120}: letters, digits, `._-`, at most 100")
    return name


def _count(value: object, what: str) -> int:
    bound = BLOB_BYTES_MAX if what == "bytes" else 2**53
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= bound:
        raise ValueError(f"{what} {value!r:.40}: a whole number from 0 to {bound}")
    return value
