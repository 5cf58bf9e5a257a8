"""Unpacking bundles that somebody hostile made."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import unittest
from pathlib import Path

from atoll.bundle import Bounds, HostileBundle, unpack
from atoll.pod import fetch_source
from atoll.store import DigestMismatch, Retry, Store
from tests.store_server import StoreServer


BOUNDS = Bounds()


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class BundleTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.target = self.root / "job" / "src"

    def unpack(self, raw: bytes, bounds: Bounds = BOUNDS) -> int:
        return unpack(io.BytesIO(raw), self.target, bounds)

    def test_files_and_folders_come_out(self) -> None:
        raw = archive(
            member("./", b"", type=tarfile.DIRTYPE),
            member("./train.py", b"print()", mode=0o4777),
            member("lib", b"", type=tarfile.DIRTYPE),
            member("lib/a/b.txt", b"deep", mode=0o600),
            member("run.sh", b"", mode=0o755),
        )
        for shape in (raw, gzip.decompress(raw)):
            self.assertEqual(self.unpack(shape), 11)
            self.assertEqual((self.target / "lib/a/b.txt").read_bytes(), b"deep")
            self.assertEqual((self.target / "train.py").stat().st_mode & 0o7777, 0o755)
            self.assertEqual((self.target / "lib/a/b.txt").stat().st_mode & 0o7777, 0o644)
            __import__("shutil").rmtree(self.target)

    def refused(self, raw: bytes, bounds: Bounds = BOUNDS) -> None:
        with self.assertRaises(HostileBundle):
            self.unpack(raw, bounds)
        self.assertFalse(self.target.exists(), "a refused bundle leaves nothing")
        self.assertEqual(list(self.target.parent.iterdir()), [], "not even its staging folder")
        self.assertEqual(list(self.root.iterdir()), [self.target.parent], "nor anything beside it")

    def test_hostile_members_are_refused(self) -> None:
        link = dict(linkname="/etc/passwd")
        cases = {
            "absolute": [member("/tmp/atoll-absolute")],
            "climbing": [member("../evil")],
            "climbing inside": [member("a/../../evil")],
            "symlink": [member("l", b"", type=tarfile.SYMTYPE, **link)],
            "hard link": [member("l", b"", type=tarfile.LNKTYPE, **link)],
            "file through a symlink": [
                member("l", b"", type=tarfile.SYMTYPE, linkname=".."),
                member("l/evil"),
            ],
            "character device": [member("d", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
            "block device": [member("d", b"", type=tarfile.BLKTYPE)],
            "fifo": [member("f", b"", type=tarfile.FIFOTYPE)],
            "unknown type": [member("u", b"", type=b"Z")],
            "twice": [member("a"), member("./a")],
            "file as folder": [member("a"), member("a/b")],
            "folder over file": [member("a"), member("a", b"", type=tarfile.DIRTYPE)],
            "file over folder": [member("a/b"), member("a")],
            "root as file": [member(".")],
            "backslash": [member("..\\evil")],
            "deep": [member("/".join("d" * 33))],
            "long": [member("n" * 1025)],
        }
        for what, members in cases.items():
            with self.subTest(what):
                self.refused(archive(member("good"), *members))

    def test_bounds_hold(self) -> None:
        many = archive(*(member(f"f{n}") for n in range(11)))
        self.refused(many, Bounds(members=10))
        self.refused(archive(member("big", b"x" * 11)), Bounds(file_bytes=10))
        self.refused(archive(member("a", b"x" * 6), member("b", b"x" * 6)), Bounds(total_bytes=10))
        bomb = archive(member("zeros", bytes(20_000_000)))
        self.assertLess(len(bomb), 100_000)
        self.refused(bomb, Bounds(file_bytes=1_000_000))

    def test_damaged_archives_are_refused(self) -> None:
        good = archive(member("a", os.urandom(100_000)))
        plain = gzip.decompress(good)
        for raw in (b"not a tar" * 100, good[:-5000], plain[:50_000], b"\x1f\x8b" + b"\0" * 600):
            self.refused(raw)

    def test_the_bundle_is_fetched_by_digest_and_replaces_an_earlier_one(self) -> None:
        quick = Retry(deadline_s=20.0, base_s=0.001, cap_s=0.01)
        with StoreServer() as server:
            store = Store(server.url, server.token, quick)
            digest = server.put(archive(member("train.py", b"one")))
            server.drop_next = 2
            fetch_source(store, digest, self.target)
            newer = server.put(archive(member("train.py", b"two")))
            fetch_source(store, newer, self.target)
            self.assertEqual((self.target / "train.py").read_bytes(), b"two")
            server.blobs[newer] = server.blobs[digest]
            with self.assertRaises(DigestMismatch):
                fetch_source(store, newer, self.target)


if __name__ == "__main__":
    unittest.main()
