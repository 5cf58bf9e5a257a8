"""Unpacks a job's bundle: a tar archive that somebody else made.

Only plain files and folders come out, below the target and nowhere else. A
member with an absolute path, with `..`, a link, a device, a second member of
the same path, or one too many or too large refuses the whole bundle before
anything is left behind: the target appears by one rename, or not at all.
Ownership, set-id bits and times are not taken from the archive.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO


class HostileBundle(Exception):
    """The bundle holds something that a job folder never does."""


@dataclass(frozen=True)
class Bounds:
    """The largest bundle that is unpacked (a job's code, not its data)."""

    members: int = 10_000
    file_bytes: int = 256 * 1024 * 1024
    total_bytes: int = 1024 * 1024 * 1024
    path_chars: int = 1024
    depth: int = 32


def unpack(archive: BinaryIO, target: Path, bounds: Bounds = Bounds()) -> int:
    """Unpacks a tar (plain or gzip) to `target`, which must not exist; returns its bytes.

    Raises `HostileBundle`, and then leaves nothing at `target`.
    """
    if target.exists():
        raise FileExistsError(f"{target} is already there")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    try:
        size = _unpack_into(_plain(archive), staging, bounds)
        os.chmod(staging, 0o755)
        staging.rename(target)
        return size
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise HostileBundle(f"not a readable tar archive: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _plain(archive: BinaryIO) -> BinaryIO:
    magic = archive.read(2)
    archive.seek(0)
    return gzip.GzipFile(fileobj=archive) if magic == b"\x1f\x8b" else archive  # type: ignore[return-value]


def _unpack_into(stream: BinaryIO, root: Path, bounds: Bounds) -> int:
    total, count, seen = 0, 0, set[str]()
    # Stream mode: never seeks, so a lying size cannot point anywhere else.
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            count += 1
            if count > bounds.members:
                raise HostileBundle(f"more than {bounds.members} members")
            path = member_path(member.name, bounds)
            if path is None:
                if not member.isdir():
                    raise HostileBundle("a file in the place of the root")
                continue
            if member.isdir():
                _folder(member, root / path)
                continue
            if not member.isreg() or member.issparse():
                raise HostileBundle(f"{member.name!r:.200} is neither a plain file nor a folder")
            if str(path) in seen:
                raise HostileBundle(f"{member.name!r:.200} comes twice")
            seen.add(str(path))
            total += member.size
            if member.size > bounds.file_bytes or total > bounds.total_bytes:
                raise HostileBundle(f"{member.name!r:.200} makes the bundle too large")
            _write(tar, member, root / path)
    return total


def _folder(member: tarfile.TarInfo, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise HostileBundle(f"{member.name!r:.200} collides with another member") from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o755 if member.mode & 0o100 else 0o644
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise HostileBundle(f"{member.name!r:.200} collides with another member") from error
    with os.fdopen(descriptor, "wb") as out:
        content = tar.extractfile(member)
        if content is None:
            raise HostileBundle(f"{member.name!r:.200} has no content")
        shutil.copyfileobj(content, out, 256 * 1024)
        if out.tell() != member.size:
            raise HostileBundle(f"{member.name!r:.200} is cut short")


def member_path(name: str, bounds: Bounds) -> PurePosixPath | None:
    """The place of a member below the root, None for the root itself. Pure."""
    if len(name) > bounds.path_chars or "\0" in name or "\\" in name:
        raise HostileBundle(f"member name {name!r:.200} is not allowed")
    path = PurePosixPath(name)
    if path.is_absolute():
        raise HostileBundle(f"{name!r:.200} is an absolute path")
    if ".." in path.parts:
        raise HostileBundle(f"{name!r:.200} climbs out of the bundle")
    if len(path.parts) > bounds.depth:
        raise HostileBundle(f"{name!r:.200} is too deep")
    return path if path.parts else None
