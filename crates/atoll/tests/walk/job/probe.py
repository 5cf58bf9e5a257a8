"""Says which of the addresses given as `host:port` take a TCP connection from here.

Prints one line: `PROBE` and a JSON object of `connected` or the error by address.
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 4.0


def look(address: str) -> str:
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
