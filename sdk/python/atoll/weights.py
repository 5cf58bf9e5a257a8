"""The hash that names a set of weights.

It binds names, types, shapes and raw values, so two models with equal hashes
hold the same parameters bit for bit. It is computed from the tensors a process
really holds; never copy it from a manifest, or it proves nothing.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Mapping
from typing import Any

_DOMAIN = b"atoll/weights/1\0"


class WeightsMismatch(Exception):
    """The weights in memory are not the ones that the checkpoint names."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(
            f"the loaded weights hash to {found}, the checkpoint says {expected}: "
            "the checkpoint's file does not hold the weights it was saved with; "
            "resume from another checkpoint or start from the beginning"
        )
        self.expected = expected
        self.found = found


def weights_sha256(state: Mapping[str, Any]) -> str:
    """Returns the SHA-256 (64 hex digits) of a mapping of names to tensors.

    Layout hashed: the domain `atoll/weights/1\\0`, then for each name in byte
    order: name, type and shape, each with its length (u64, little-endian), then
    the raw values, little-endian, in row-major order, with their length.

    Takes torch tensors (a `state_dict()`) and numpy arrays. A DDP wrapper's
    `module.` prefix is part of the names: hash the inner module's state.
    """
    if sys.byteorder != "little":
        raise RuntimeError("weights_sha256 is defined on little-endian machines only")
    digest = hashlib.sha256(_DOMAIN)
    for name in sorted(state, key=lambda name: name.encode()):
        kind, shape, raw = _raw(name, state[name])
        for part in (name.encode(), kind.encode(), repr(shape).encode(), raw):
            digest.update(struct.pack("<Q", len(part)))
            digest.update(part)
    return digest.hexdigest()


def _raw(name: str, value: Any) -> tuple[str, tuple[int, ...], memoryview]:
    """Type, shape and little-endian bytes of one tensor or array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous().numpy()
    if not hasattr(value, "tobytes") or not hasattr(value, "dtype"):
        raise TypeError(
            f"weights entry {name!r} is a {type(value).__name__}; "
            "weights_sha256 takes tensors and arrays only"
        )
    array = value if value.flags["C_CONTIGUOUS"] else value.copy(order="C")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    kind = str(array.dtype)
    raw = memoryview(array.tobytes())
    return kind, tuple(int(n) for n in array.shape), raw


def check_weights(state: Mapping[str, Any], expected: str) -> str:
    """Returns the hash of `state`; raises `WeightsMismatch` unless it is `expected`."""
    found = weights_sha256(state)
    if found != expected:
        raise WeightsMismatch(expected, found)
    return found
