"""A folder tree as a value: what the oracle judges, wherever the tree came from."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Node:
    """A file (`data`), a symbolic link (`target`), or a folder (neither). `mode` is 12 bits."""

    mode: int = 0
    data: bytes | None = None
    target: str | None = None


Snapshot = dict[str, Node]
"""Nodes by path relative to the root of the tree, folders included."""


def read_snapshot(root: Path, *, skip: tuple[str, ...] = ("run",)) -> Snapshot:
    """The tree below `root`, without the folders of `skip`."""
    found: Snapshot = {}
    _read(str(root), "", found, skip)
    return found


def _read(root: str, below: str, found: Snapshot, skip: tuple[str, ...]) -> None:
    with os.scandir(f"{root}/{below}") as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if name in skip:
                continue
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                found[name] = Node(target=str(Path(entry.path).readlink()))
            elif stat.S_ISDIR(status.st_mode):
                found[name] = Node(stat.S_IMODE(status.st_mode))
                _read(root, name, found, skip)
            else:
                data = Path(entry.path).read_bytes()
                found[name] = Node(stat.S_IMODE(status.st_mode), data)


def write_snapshot(tree: Snapshot, root: Path) -> None:
    """Make the tree below `root`, which must not exist."""
    root.mkdir()
    for name in sorted(tree):
        node, path = tree[name], root / name
        if node.target is not None:
            path.symlink_to(node.target)
        elif node.data is None:
            path.mkdir(node.mode)
        else:
            _write(path, node.data, node.mode)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def copy_tree(source: Path, target: Path) -> None:
    """A copy of `source` with its links, hard ones included; what was at `target` goes."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(stat.S_IMODE(source.stat().st_mode))
    copy_contents(source, target)


def copy_contents(source: Path, target: Path) -> None:
    """The same for what lies in `source`, into a folder that is there."""
    _copy(source, target, {})


def _copy(source: Path, target: Path, linked: dict[int, Path]) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            path, status = target / entry.name, entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                path.symlink_to(Path(entry.path).readlink())
            elif stat.S_ISDIR(status.st_mode):
                path.mkdir(stat.S_IMODE(status.st_mode))
                _copy(Path(entry.path), path, linked)
            elif status.st_ino in linked:
                path.hardlink_to(linked[status.st_ino])
            elif stat.S_ISREG(status.st_mode):
                _write(path, Path(entry.path).read_bytes(), stat.S_IMODE(status.st_mode))
                if status.st_nlink > 1:
                    linked[status.st_ino] = path
