"""Counts, and saves a checkpoint at every count, until it finds `/job/end`. A later attempt counts on."""

import hashlib
import pathlib
import time

from atoll import checkpoint
from atoll.reporting import attempt_from_env

saved = checkpoint.latest()
step = 0 if saved is None else saved.step
print("begins", attempt_from_env(), step, flush=True)
while not pathlib.Path("/job/end").exists():
    step += 1
    # Large enough that a checkpoint is often under way.
    weights = hashlib.sha256(str(step).encode()).digest() * (1 << 16)
    checkpoint.save(step, step, {"weights": weights}, hashlib.sha256(weights).hexdigest())
    time.sleep(0.1)
