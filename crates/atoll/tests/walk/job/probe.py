"""Says which of the addresses given as `host:port` take a TCP connection from here, and what each `http://` URL answers.

Prints one line: `PROBE` and a JSON object of `connected`, the HTTP status or the error by argument. A URL is asked
without any token.
"""

import json
import socket
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 4.0


def ask(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"


def look(address: str) -> str:
    if address.startswith("http://"):
        return ask(address)
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S).close()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "connected"


addresses = sys.argv[1:]
with ThreadPoolExecutor(len(addresses)) as pool:
    found = dict(zip(addresses, pool.map(look, addresses), strict=True))
print("PROBE", json.dumps(found), flush=True)
