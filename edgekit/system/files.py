"""The file door: durable writes, locks, free space, links. Everything that must survive a power cut
goes through here, in one order: temporary file, write, fsync, rename, fsync of the directory.

A failed fsync is never retried: the kernel may already have dropped the dirty pages, so the file is
removed and the error raised.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.errors import BusyError, DiskFullError, EdgekitError, HostError, PrivilegeError

READ_BYTES = 1 << 20
MANY_FILES = 10_000
"""From so many on, a tree is written by one call for its whole file system."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_GONE = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESHUTDOWN}
_GONE_HINT = "if it was a stick, put it back and run the command again; dmesg names a failing disk"


def translate_os_error(error: OSError, what: str) -> EdgekitError:
    """The edgekit error that says what an OSError means for the person at the keyboard."""
    where = str(error.filename) if error.filename else what
    text = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return DiskFullError(
            f"{what}: the file system is full", where=where, found=text, hint="df -h"
        )
    if error.errno in _DENIED:
        return PrivilegeError(
            f"{what}: not permitted",
            where=where,
            found=text,
            hint="mount it for writing, or give another --root"
            if error.errno == errno.EROFS
            else "run as root, or give another --root",
        )
    hint = _GONE_HINT if error.errno in _GONE else None
    return HostError(f"{what} failed", where=where, found=text, hint=hint)


def durable_write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `data` so that after a crash it holds the old or the new bytes.

    Raises DiskFullError, PrivilegeError or HostError; on failure the old file is untouched and no
    temporary file is left (after a crash one `.<name>.tmp` may be, and is overwritten next time).
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.fchmod(descriptor, mode)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise translate_os_error(error, f"writing {path.name}") from error


def discard_temporaries(folder: Path) -> None:
    """Remove what `durable_write` and `switch_link` leave behind in a folder when they are cut off.

    Only while nobody else writes there. Raises HostError.
    """
    try:
        for pattern in (".*.tmp", ".*.new"):
            for path in folder.glob(pattern):
                path.unlink()
    except OSError as error:
        raise translate_os_error(error, f"tidying {folder.name}") from error


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all bytes, however many short writes it takes. Raises OSError."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def pwrite_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all bytes at `offset`, however many short writes it takes. Raises OSError."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def ensure_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make a folder and those above it that are missing, each durable in the one above.

    `mode` is the folder's own; those above get 0755. Raises OSError.
    """
    if path.is_dir():
        return
    ensure_directory(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make a rename or unlink in this directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """fsync every file and directory below `root`, leaves first. Raises OSError.

    A tree of very many files (an environment of wheels has 60,000) is written by one syncfs(2): a
    flush of the disk per file takes minutes. It reports write errors since Linux 5.8.
    """
    if sum(len(names) for _, _, names in os.walk(root)) > MANY_FILES:
        _sync_file_system(root)
        return
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(directory, name)
            if path.is_symlink():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_directory(Path(directory))


def _sync_file_system(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def replace_files(source: Path, target: Path) -> None:
    """Move every file below `source`, all fsynced, to its place below `target`, durably.

    Each replaces what was there in one step; other files of `target` stay. What is no file where
    one belongs, or no folder where one belongs, is removed before. Raises OSError or HostError.
    """
    for directory, _, names in os.walk(source):
        below = target / Path(directory).relative_to(source)
        if below.is_symlink() or below.is_file():
            below.unlink()
        ensure_directory(below)
        for name in names:
            place = below / name
            if place.is_dir() and not place.is_symlink():
                remove_tree(place)
            Path(directory, name).rename(place)
        fsync_directory(below)


def all_files(folder: Path) -> frozenset[str]:
    """Names of all files and links below a folder, as seen from it."""
    return frozenset(
        os.path.relpath(os.path.join(directory, name), folder)  # noqa: PTH118 - 60,000 of them
        for directory, folders, names in os.walk(folder)
        for name in (*names, *_links(directory, folders))
    )


def remove_others(folder: Path, kept: frozenset[str]) -> None:
    """Remove files and links below a folder but those named in `kept`, and folders left empty.

    Not durable by itself. Raises OSError.
    """
    for name in all_files(folder) - kept:
        (folder / name).unlink()
    for directory, _, _ in os.walk(folder, topdown=False):
        if directory != str(folder):
            with suppress(OSError):  # it has something
                Path(directory).rmdir()


def _links(directory: str, folders: list[str]) -> Iterator[str]:
    # unlike Path's, it raises nothing where a disk is damaged
    return (name for name in folders if os.path.islink(os.path.join(directory, name)))  # noqa: PTH114, PTH118


def switch_link(link: Path, target: str) -> None:
    """Point a symbolic link elsewhere in one atomic step and make it durable (invariant I5).

    Raises HostError; after a failure the link points where it pointed before.
    """
    temporary = link.with_name(f".{link.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        fsync_directory(link.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise translate_os_error(error, f"switching {link.name}") from error


def link_or_copy(source: Path, target: Path, *, mode: int | None = None) -> None:
    """Hard-link `source` to `target`, or copy where links cannot be (other file system, mode).

    With `mode` the target gets its own inode and that mode. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode is None:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
                raise
        else:
            return
    shutil.copyfile(source, target)
    target.chmod(0o444 if mode is None else mode)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary writer may still use on the file system that holds, or will hold, path."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    usage = os.statvfs(existing)
    return usage.f_bavail * usage.f_frsize


def tree_bytes(*roots: Path) -> int:
    """Bytes of all files below the roots; a file with several names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for root in roots:
        for directory, _, names in os.walk(root):
            for name in names:
                status = os.lstat(Path(directory, name))
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def file_system_of(path: Path) -> int:
    """The number of the file system that holds, or will hold, path; links within one are cheap."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    return existing.stat().st_dev


def check_room(path: Path, needed: int, what: str) -> None:
    """Refuse when fewer than `needed` bytes are free where `path` is. Raises DiskFullError."""
    found = free_bytes(path)
    if found < needed:
        raise DiskFullError(
            f"not enough free disk for {what}",
            where=str(path),
            needed=f"{needed >> 20} MiB",
            found=f"{found >> 20} MiB",
            hint="df -h",
        )


@contextmanager
def usual_umask() -> Iterator[None]:
    """022 for the length of the block: daemons must read what root makes, whatever root's umask.

    Private files say their mode themselves.
    """
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def exclusive_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an advisory lock on `path` for the length of the block; never waits.

    The kernel drops the lock when the process dies, so a stale file is harmless. Raises BusyError
    when another process holds it, naming its pid.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise translate_os_error(error, f"locking {what}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise BusyError(
                f"another edgekit command is changing {what}",
                found=f"process {holder}",
                hint="wait for it to end, then run the same command again",
            ) from None
        with suppress(OSError):  # the number is for people; the lock is held without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def read_bounded(path: Path, max_bytes: int, what: str) -> bytes:
    """The whole file, which must be a regular file of at most `max_bytes` bytes.

    Never follows a symbolic link in the last component. Raises HostError or PrivilegeError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise HostError(f"{what} is not a regular file", where=str(path))
            data = bytearray()
            # In pieces: one read would take memory for the limit, however small the file is.
            while len(data) <= max_bytes and (piece := file.read(READ_BYTES)):
                data += piece
    except OSError as error:
        raise translate_os_error(error, f"reading {what}") from error
    if len(data) > max_bytes:
        raise HostError(
            f"{what} is too large", where=str(path), needed=f"at most {max_bytes} bytes"
        )
    return bytes(data)


def remove_tree(path: Path) -> None:
    """Remove a directory tree edgekit owns, durably; absent is fine. Raises HostError."""
    try:
        shutil.rmtree(path)
        fsync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise translate_os_error(error, f"removing {path.name}") from error
