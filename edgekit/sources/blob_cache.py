"""The blob cache: content fetched on the connected side, kept by its SHA-256.

    DIRECTORY/sha256/ab/abcdef...   finished blobs, mode 0444
    DIRECTORY/tmp/...               unfinished work of living processes

A blob appears by one rename after its bytes were hashed and fsynced, so what is under `sha256` is
whole. Unfinished work is locked by its process; what a dead process left is removed by the next.
Any number of processes and threads may use one directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.core.digest import Digest, new_hasher
from edgekit.errors import FormatError, SourceDigestError, SourceError
from edgekit.system.files import fsync_directory, translate_os_error, write_all

ALGORITHM = "sha256"
CHUNK_BYTES = 4 << 20
MAX_BLOB_BYTES = 1 << 40


class BlobWriter:
    """Bytes on their way into the cache. `size` and `digest` are those of what was written."""

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self._descriptor = descriptor
        self._hasher = new_hasher(ALGORITHM)
        self._max_bytes = max_bytes
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises SourceError beyond the size limit, OSError from the file system."""
        self.size += len(data)
        if self.size > self._max_bytes:
            raise SourceError("more bytes than expected", found=f"{self.size} bytes or more",
                              needed=f"at most {self._max_bytes} bytes")
        self._hasher.update(data)
        write_all(self._descriptor, data)

    @property
    def digest(self) -> Digest:
        """The SHA-256 of everything written so far."""
        return Digest(ALGORITHM, self._hasher.hexdigest())


class BlobCache:
    """A directory of blobs by SHA-256, made when absent.

    Everything here raises DiskFullError when the file system fills up (the cache stays usable and
    keeps what it had), PrivilegeError or HostError for other failures of the file system.
    """

    def __init__(self, directory: Path, *, max_blob_bytes: int = MAX_BLOB_BYTES) -> None:
        self.directory = directory
        self._blobs = directory / ALGORITHM
        self._work = directory / "tmp"
        self._max_blob_bytes = max_blob_bytes
        with _translated("opening the cache"):
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._work.mkdir(exist_ok=True)
            self._remove_abandoned()

    def path(self, digest: Digest) -> Path:
        """Where a blob is, or would be. Raises FormatError unless the digest is a SHA-256."""
        if digest.algorithm != ALGORITHM:
            raise FormatError("the cache knows blobs by SHA-256 only", found=str(digest))
        return self._blobs / digest.value[:2] / digest.value

    def has(self, digest: Digest, size: int, *, verify: bool = False) -> bool:
        """True when the blob is here with this size in bytes.

        A blob of another size is removed. With `verify` its bytes are hashed again, and a blob that
        rotted is removed too.
        """
        path = self.path(digest)
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            return False
        if found == size and (not verify or hash_file(path)[0] == digest):
            return True
        path.unlink(missing_ok=True)
        return False

    def confirm(self, path: Path, found: Digest) -> None:
        """Compare what a file turned out to be with its name, if it is a blob of this cache.

        Raises SourceDigestError for one that rotted, after removing it.
        """
        if path.is_relative_to(self._blobs) and path.name != found.value:
            path.unlink(missing_ok=True)
            raise SourceDigestError("a file in the cache rotted, and was removed", where=str(path),
                                    found=str(found), needed=f"{ALGORITHM}:{path.name}",
                                    hint="run the same command again; it is fetched anew")

    def remove(self, digest: Digest) -> None:
        """Forget a blob; absent is fine."""
        with _translated("removing a blob"):
            self.path(digest).unlink(missing_ok=True)

    def add_file(
        self, source: Path, expected: Digest | None = None, *, move: bool = False,
        where: str | None = None,
    ) -> Digest:
        """Take a regular file's bytes in and return their digest.

        With `move` the file itself becomes the blob where the file system allows it, and is gone
        afterwards; use it only for a file nobody else writes. Raises SourceDigestError, naming
        `where`, for other bytes than `expected`; the source is then left as it was.
        """
        if not stat.S_ISREG(source.lstat().st_mode):
            raise SourceError("not a regular file", where=where or str(source))
        with _translated(f"caching {source.name}"):
            if move and source.stat().st_dev == self._work.stat().st_dev:
                return self._adopt(source, expected, where)
            with self.writer(expected, where=where) as writer:
                digest = hash_file(source, writer.write)[0]
            if move:
                source.unlink()
            return digest

    @contextmanager
    def writer(
        self, expected: Digest | None = None, *, max_bytes: int | None = None,
        where: str | None = None,
    ) -> Iterator[BlobWriter]:
        """A new blob, in place when the block ends; on any exception nothing of it is left.

        `max_bytes` bounds what may be written. Raises SourceDigestError, naming `where`, when the
        bytes are not those of `expected`.
        """
        limit = self._max_blob_bytes if max_bytes is None else min(max_bytes, self._max_blob_bytes)
        with _translated("writing to the cache"):
            temporary, descriptor = self._new_work_file()
            try:
                writer = BlobWriter(descriptor, limit)
                yield writer
                _check_digest(writer.digest, expected, where)
                self._land(temporary, descriptor, writer.digest)
            finally:
                # After a successful rename the name is gone already.
                temporary.unlink(missing_ok=True)
                os.close(descriptor)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory on the cache's file system, removed when the block ends."""
        with _translated("making a working directory"):
            path, descriptor = self._new_work_directory()
        try:
            with _translated("working in the cache"):
                yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)

    def _adopt(self, source: Path, expected: Digest | None, where: str | None) -> Digest:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            if size > self._max_blob_bytes:
                raise SourceError("file is too large", where=where or str(source),
                                  needed=f"at most {self._max_blob_bytes} bytes")
            digest = hash_file(source)[0]
            _check_digest(digest, expected, where or str(source))
            self._land(source, descriptor, digest)
        finally:
            os.close(descriptor)
        return digest

    def _land(self, temporary: Path, descriptor: int, digest: Digest) -> None:
        """Mode, fsync, rename, fsync of the directory: in this order, whatever was there before."""
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
        target = self.path(digest)
        target.parent.mkdir(exist_ok=True)
        temporary.replace(target)
        fsync_directory(target.parent)

    def _new_work_file(self) -> tuple[Path, int]:
        while True:
            path = self._work / f"f-{os.getpid()}-{secrets.token_hex(8)}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
            # Another process took the unlocked file for abandoned; make another one.
            os.close(descriptor)

    def _new_work_directory(self) -> tuple[Path, int]:
        while True:
            path = self._work / f"d-{os.getpid()}-{secrets.token_hex(8)}"
            path.mkdir(mode=0o700)
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return path, descriptor
                os.close(descriptor)

    def _remove_abandoned(self) -> None:
        for path in self._work.iterdir():
            with suppress(OSError):
                self._remove_if_unlocked(path)

    @staticmethod
    def _remove_if_unlocked(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def hash_file(
    path: Path, each: Callable[[memoryview], None] = lambda _chunk: None
) -> tuple[Digest, int]:
    """SHA-256 and size in bytes of a file; `each` sees every chunk in order. Raises OSError."""
    hasher = new_hasher(ALGORITHM)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    size = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            chunk = buffer[:count]
            hasher.update(chunk)
            each(chunk)
            size += count
    return Digest(ALGORITHM, hasher.hexdigest()), size


def _check_digest(found: Digest, expected: Digest | None, where: str | None) -> None:
    if expected is not None and found != expected:
        raise SourceDigestError("content is not what the lock recorded", where=where,
                                found=str(found), needed=str(expected))


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise SourceError(f"{what}: the file is larger than the file system allows") from error
        raise translate_os_error(error, what) from error
