"""The digest cache: it saves work when nothing changed, and never gives a digest of other bytes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.digest import Digest
from edgekit.errors import HostError
from edgekit.system.digest_cache import DigestCache, FileDigests

OTHER = Digest.of(b"a digest no file has, so that an answer from the cache can be told")
SHA256 = Digest.of(b"", "sha256")


def aged(path: Path, data: bytes, seconds: float = 10) -> Path:
    """A file written some seconds ago, as far as its modification time says."""
    path.write_bytes(data)
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))
    return path


def entry(path: Path, digest: Digest, sha256: Digest = SHA256) -> list[object]:
    status = path.stat()
    return [
        status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest.value,
        sha256.value,
    ]


def remember(folder: Path, path: Path, digest: Digest) -> None:
    """A cache file as an earlier run would have left it."""
    table = {"format": 2, "files": {str(path): entry(path, digest)}}
    (folder / "digests.json").write_text(json.dumps(table))


def digest_of(folder: Path, path: Path) -> Digest:
    with DigestCache(folder) as cache:
        found = cache.digests(path)
    assert found.size == path.stat().st_size
    return found.sha384


@pytest.mark.parametrize("size", [0, 1, 64 << 10, (1 << 20) + 1, (5 << 20) + 17])
def test_one_read_gives_both_digests_and_tells_of_every_byte(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    told: list[int] = []
    with DigestCache(tmp_path) as cache:
        found = cache.digests(tmp_path / "a", told.append)
    assert found == FileDigests(size, Digest.of(data), Digest.of(data, "sha256"))
    assert sum(told) == size


def test_an_unknown_file_is_hashed(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", b"hello")
    assert digest_of(tmp_path, path) == Digest.of(b"hello")


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", b"hello")
    remember(tmp_path, path, OTHER)
    assert digest_of(tmp_path, path) == OTHER


def test_what_was_hashed_is_remembered_by_the_next_run(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", b"hello")
    time.sleep(2.1)  # the change time cannot be set, only waited for
    assert digest_of(tmp_path, path) == Digest.of(b"hello")
    files = json.loads((tmp_path / "digests.json").read_bytes())["files"]
    assert files == {
        str(path): entry(path, Digest.of(b"hello"), Digest.of(b"hello", "sha256"))
    }
    remember(tmp_path, path, OTHER)
    assert digest_of(tmp_path, path) == OTHER


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    digest_of(tmp_path, path)
    assert not (tmp_path / "digests.json").exists()


def test_a_file_whose_modification_time_was_set_back_is_not_remembered(tmp_path: Path) -> None:
    digest_of(tmp_path, aged(tmp_path / "a", b"hello"))
    assert not (tmp_path / "digests.json").exists()


def rewrite_same_size(path: Path) -> None:
    path.write_bytes(b"olleh")


def rewrite_and_restore_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"olleh")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_another(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"olleh")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    "change", [rewrite_same_size, rewrite_and_restore_time, replace_by_another]
)
def test_a_changed_file_is_hashed_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = aged(tmp_path / "a", b"hello")
    remember(tmp_path, path, OTHER)
    time.sleep(0.02)  # one tick of the file system's clock
    change(path)
    assert digest_of(tmp_path, path) == Digest.of(b"olleh")


def test_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    gone, stays = aged(tmp_path / "gone", b"1"), aged(tmp_path / "stays", b"2")
    time.sleep(2.1)
    with DigestCache(tmp_path) as cache:
        cache.digests(gone)
    gone.unlink()
    digest_of(tmp_path, stays)
    assert list(json.loads((tmp_path / "digests.json").read_bytes())["files"]) == [str(stays)]


def test_a_file_that_is_absent_is_an_error_and_the_others_are_kept(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", b"hello")
    time.sleep(2.1)
    with DigestCache(tmp_path) as cache:
        cache.digests(path)
        with pytest.raises(HostError):
            cache.digests(tmp_path / "absent")
    assert (tmp_path / "digests.json").exists()


def truncated(text: str) -> str:
    return text[:-5]


def changed(place: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def change(text: str) -> str:
        table = json.loads(text)
        place(table)
        return json.dumps(table)

    return change


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "truncated": truncated,
    "a list": lambda _: "[]",
    "nothing in it": lambda _: "{}",
    "the first format": changed(lambda table: table.update(format=1)),
    "files of text": changed(lambda table: table.update(files="x")),
    "entry of text": changed(lambda table: table["files"].update(x="x")),
    "entry too short": changed(lambda table: table["files"].update(x=[1])),
    "size of text": changed(
        lambda table: table["files"].update(x=["1", 1, 1, 1, "0" * 96, "0" * 64])),
    "digest too short": changed(
        lambda table: table["files"].update(x=[1, 1, 1, 1, "0" * 96, "00"])),
    "nested too deep": lambda _: "[" * 200_000,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_malformed_cache_counts_as_empty(tmp_path: Path, broken: Callable[[str], str]) -> None:
    path = aged(tmp_path / "a", b"hello")
    remember(tmp_path, path, OTHER)
    file = tmp_path / "digests.json"
    file.write_text(broken(file.read_text()))
    assert digest_of(tmp_path, path) == Digest.of(b"hello")


def test_a_cache_that_cannot_be_saved_costs_only_time(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", b"hello")
    time.sleep(2.1)
    assert digest_of(tmp_path / "no such folder", path) == Digest.of(b"hello")
