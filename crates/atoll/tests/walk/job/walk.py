"""The digits without an end, until a machine is lost: the second attempt trains three epochs more."""

import os

from atoll import checkpoint
from atoll.reporting import attempt_from_env

saved = checkpoint.latest()
epochs = 100_000 if attempt_from_env() == 1 else saved.epoch + 3
os.environ["DIGITS_EPOCHS"] = str(epochs)

import train  # noqa: E402  (it reads the environment)

# What is looked at is the resume; how well an early epoch does differs between processors.
train.ACCURACY_MIN = 0.8
train.main()
