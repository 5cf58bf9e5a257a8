"""Runs until it is stopped."""

import time

print("idling", flush=True)
while True:
    time.sleep(60)
