"""Progress reports: what a job tells the network about itself.

Inside a pod a report goes to the store; outside one (no `ATOLL_STORE`) it is
printed as one JSON line, so that the same script runs on a laptop. The control
plane takes nothing in a report for granted: it only shows it, except that the
weights hash after a resume is compared with the checkpoint's.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from atoll.store import Store, _json, check_digest, store_configured

KINDS = ("started", "resumed", "step", "checkpoint", "result")
"""What may be reported."""

_MESSAGE_CHARS_MAX = 1000


def attempt_from_env() -> int:
    """The attempt this process belongs to (`ATOLL_ATTEMPT`, 1 when not set)."""
    raw = os.environ.get("ATOLL_ATTEMPT", "1")
    if not raw.isascii() or not raw.isdigit() or int(raw) < 1:
        raise ValueError(f"ATOLL_ATTEMPT must be a whole number from 1, not {raw!r:.40}")
    return int(raw)


def report(
    kind: str,
    *,
    step: int,
    epoch: int,
    attempt: int | None = None,
    loss: float | None = None,
    accuracy: float | None = None,
    weights_sha256: str | None = None,
    resumed_from_step: int | None = None,
    message: str | None = None,
    store: Store | None = None,
) -> None:
    """Reports progress. `step` counts optimiser steps since the job's first attempt.

    After a resume the first report must be of kind `resumed` and carry
    `resumed_from_step` and the `weights_sha256` of what the model really holds
    (`atoll.weights_sha256(model.state_dict())` after loading). `attempt` is
    `ATOLL_ATTEMPT` unless given; Ray actors do not inherit the driver's
    environment, so hand it to them as an argument.

    Raises `StoreError` when the store refuses or cannot be reached.
    """
    body = build(
        kind,
        step=step,
        epoch=epoch,
        attempt=attempt_from_env() if attempt is None else attempt,
        loss=loss,
        accuracy=accuracy,
        weights_sha256=weights_sha256,
        resumed_from_step=resumed_from_step,
        message=message,
    )
    if store is not None:
        store.report(body)
    elif store_configured():
        Store.from_env().report(body)
    else:
        sys.stdout.write("atoll-report " + _json(body).decode() + "\n")
        sys.stdout.flush()


def build(kind: str, *, step: int, epoch: int, attempt: int, **optional: Any) -> dict[str, Any]:
    """Checks a report and returns its JSON object. Pure."""
    if kind not in KINDS:
        raise ValueError(f"report kind {kind!r}: one of {', '.join(KINDS)}")
    if step < 0 or epoch < 0 or attempt < 1:
        raise ValueError(f"step {step} and epoch {epoch} start at 0, attempt {attempt} at 1")
    if kind == "resumed" and (
        optional.get("resumed_from_step") is None or optional.get("weights_sha256") is None
    ):
        raise ValueError("a `resumed` report carries resumed_from_step and weights_sha256")
    if optional.get("weights_sha256") is not None:
        check_digest(optional["weights_sha256"])
    if optional.get("message") is not None:
        optional["message"] = str(optional["message"])[:_MESSAGE_CHARS_MAX]
    body = {"kind": kind, "step": step, "epoch": epoch, "attempt": attempt}
    return body | {name: value for name, value in optional.items() if value is not None}
