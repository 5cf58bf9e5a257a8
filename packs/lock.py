#!/usr/bin/env python3
"""Writes a pack's lock from its wish list: exact versions, hash of every wheel.

    python3 packs/lock.py packs/ray-torch

Reads requirements.in, asks pip (dry runs, nothing is installed) which wheels
it would take for CPython 3.11 on x86-64 and on arm64, and writes
requirements.txt. Run it to move to newer versions; the build only ever reads
the lock. No index host is written down: the hashes are what counts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MACHINES = ("x86_64", "aarch64")
GLIBC = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
"""Debian 12 has 2.36; a wheel for an older one runs there too."""


def wheels(wishes: list[str], machine: str) -> dict[str, tuple[str, str]]:
    """Name -> (version, sha256) of what pip would install on this machine type."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary=:all:", f"--target={scratch}"]
        command += ["--implementation=cp", "--python-version=3.11"]
        command += [f"--platform=manylinux_{v}_{machine}" for v in GLIBC]
        command += [f"--platform=manylinux2014_{machine}", f"--platform=linux_{machine}"]
        command += [f"--report={scratch}/report.json", *wishes]
        subprocess.run(command, check=True)
        report = json.loads(Path(scratch, "report.json").read_text())
    found = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        found[name] = (item["metadata"]["version"], digest)
    return found


def main(folder: Path) -> None:
    lines = (folder / "requirements.in").read_text().splitlines()
    wishes = [line for line in lines if line and not line.startswith("#")]
    first = wheels(wishes, MACHINES[0])
    pinned = [f"{name}=={version}" for name, (version, _) in first.items()]
    # The second machine type must take the same versions, or the lock would lie.
    rest = [wheels(wishes + pinned, machine) for machine in MACHINES[1:]]
    out = ["# Written by packs/lock.py from requirements.in. Do not edit.", ""]
    for name in sorted(first):
        version = first[name][0]
        digests = sorted({found[name][1] for found in (first, *rest) if name in found})
        out.append(f"{name}=={version} \\")
        out += [f"    --hash=sha256:{digest} \\" for digest in digests[:-1]]
        out.append(f"    --hash=sha256:{digests[-1]}")
    (folder / "requirements.txt").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
