"""Writing an export of the audit log: a folder that has its name only when it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from edgekit.core.audit_export import ExportedFile
from edgekit.errors import DigestError, HostError
from edgekit.system.files import durable_write, fsync_directory, remove_tree, translate_os_error
from edgekit.system.volumes import hash_file

PARTIAL = ".partial"


def finish_packages(out: Path, prefix: str, last_file: str, counts: Callable[[str], bool]) -> None:
    """Of exports that were cut off: name those that are whole and count, and remove the others.

    `last_file` is written last of all; `counts` is asked for a package's name. Raises HostError.
    """
    try:
        for partial in sorted(out.glob(f"{prefix}-*{PARTIAL}")):
            target = partial.with_name(partial.name.removesuffix(PARTIAL))
            if (partial / last_file).is_file() and counts(target.name) and not target.exists():
                partial.rename(target)
            else:
                remove_tree(partial)
            fsync_directory(out)
    except OSError as error:
        raise translate_os_error(error, "finishing an earlier export") from error


class PackageWriter:
    """Files that grow line by line below `<name>.partial`. Use as a context: what is not committed
    is removed. Raises HostError, DiskFullError."""

    def __init__(self, out: Path, name: str) -> None:
        self._target = out / name
        self._folder = out / f"{name}{PARTIAL}"
        self._open: dict[str, tuple[BinaryIO, hashlib._Hash, int]] = {}
        self._done: list[ExportedFile] = []

    def __enter__(self) -> PackageWriter:
        if self._target.exists():
            raise HostError(
                "this range was exported here before",
                where=str(self._target),
                hint="give another folder, or remove that export",
            )
        try:
            remove_tree(self._folder)  # what an export that was cut off left behind
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise translate_os_error(error, "making the export's folder") from error
        return self

    def __exit__(self, *_: object) -> None:
        """What went wrong with the medium goes wrong here again, and was said already."""
        for file, _hasher, _size in self._open.values():
            with suppress(OSError):
                file.close()
        with suppress(OSError):
            if self._folder.exists():
                remove_tree(self._folder)

    def add_line(self, name: str, line: bytes) -> None:
        """One more line of a file, which is made with its first one."""
        try:
            if name not in self._open:
                self._open[name] = ((self._folder / name).open("wb"), hashlib.sha384(), 0)
            file, hasher, size = self._open[name]
            file.write(line + b"\n")
        except OSError as error:
            raise translate_os_error(error, f"writing {name}") from error
        hasher.update(line + b"\n")
        self._open[name] = (file, hasher, size + len(line) + 1)

    def add_file(self, name: str, data: bytes) -> None:
        """A whole small file."""
        durable_write(self._folder / name, data)
        self._done.append(ExportedFile(name, len(data), hashlib.sha384(data).hexdigest()))

    def end_files(self, but: str = "") -> None:
        """Make every file that grew durable, but one that still grows, and read it back.

        Raises DigestError when the medium gives back something else.
        """
        for name in [name for name in self._open if name != but]:
            file, hasher, size = self._open.pop(name)
            try:
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.close()
            except OSError as error:
                raise translate_os_error(error, f"writing {name}") from error
            found, read = hash_file(self._folder / name, "sha384")
            if (found.value, read) != (hasher.hexdigest(), size):
                raise DigestError(
                    "the medium did not keep what was written", where=str(self._folder / name)
                )
            self._done.append(ExportedFile(name, size, found.value))

    def files(self) -> tuple[ExportedFile, ...]:
        """What is whole and durable, in the order of names."""
        return tuple(sorted(self._done, key=lambda file: file.name))

    def sign_off(self, name: str, data: bytes) -> None:
        """The list of files, itself not on it."""
        durable_write(self._folder / name, data)

    def commit(self) -> Path:
        """Give the folder its name, durably."""
        try:
            fsync_directory(self._folder)
            self._folder.rename(self._target)
            fsync_directory(self._target.parent)
        except OSError as error:
            raise translate_os_error(error, "naming the export") from error
        return self._target
