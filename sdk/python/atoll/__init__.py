"""Training hooks for a job that runs on Atoll.

A job needs three things from here, and nothing more:

    import atoll
    from atoll import checkpoint

    saved = checkpoint.latest()                     # None on the first attempt
    atoll.report("step", step=120, epoch=4, loss=0.31)
    checkpoint.save(step=120, epoch=4, files={"state.npz": blob}, weights_sha256=digest)

The package is standard library only; torch is handed in (`weights_sha256`
takes any mapping of names to tensors). What it leaves to others: where blobs
are kept and which attempt may still write is the control plane's business
(`atoll.store` speaks its HTTP API); when a job is started again is its
business too. `atoll.pod` is the bootstrap of a pod, not part of a job's API.
"""

from atoll.reporting import report
from atoll.store import (
    Conflict,
    DigestMismatch,
    NotConfigured,
    Refused,
    Store,
    StoreError,
    Unreachable,
    store_configured,
)
from atoll.weights import WeightsMismatch, weights_sha256

__version__ = "0.1.0"

__all__ = [
    "Conflict",
    "DigestMismatch",
    "NotConfigured",
    "Refused",
    "Store",
    "StoreError",
    "Unreachable",
    "WeightsMismatch",
    "report",
    "store_configured",
    "weights_sha256",
]
