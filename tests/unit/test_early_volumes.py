"""Volumes of the read that names a file: the same as those written later, and taken over unread."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event
from edgekit.core.layout import plan_layout
from edgekit.core.release import BLOCK_BYTES, VolumeTable
from edgekit.errors import DiskFullError, HostError
from edgekit.system import block_writer, early_volumes
from edgekit.system.digest_cache import DigestCache, FileDigests
from edgekit.system.early_volumes import write_early
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import BlobSource, write_volumes
from tests.support.sets import quiet
from tests.support.tiny_disk import tiny_disk

TWO = 2 * BLOCK_BYTES


def aged(path: Path, size: int) -> Path:
    """A file of random bytes, written some seconds ago as far as its times say."""
    path.write_bytes(os.urandom(size))
    then = time.time_ns() - 10_000_000_000
    os.utime(path, ns=(then, then))
    return path


@pytest.fixture(autouse=True)
def _old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.system.digest_cache.RACY_NANOSECONDS", 0)


def early(
    base: Path, *files: Path, index: VolumeIndex, algorithm: str = "sha384",
    volume_bytes: int = TWO,
) -> list[Event]:
    events: list[Event] = []
    folder = base / "early"
    folder.mkdir()
    with DigestCache(base) as digests:
        write_early(files, folder, algorithm=algorithm, volume_bytes=volume_bytes,
                    digests=digests, index=index, listener=events.append)
    return events


def written(
    folder: Path, *files: Path, index: VolumeIndex | None = None, algorithm: str = "sha384"
) -> tuple[VolumeTable, int]:
    """The table of a set of these files, and how many bytes were written for it."""
    events: list[Event] = []
    blobs = [BlobSource(Digest.of(p.read_bytes()), p.stat().st_size, p) for p in files]
    sizes, extents = plan_layout(
        [(b.digest, b.size) for b in blobs], volume_bytes=TWO, large_bytes=1)
    folder.mkdir()
    table = write_volumes(folder, blobs, sizes, extents, algorithm=algorithm,
                          listener=events.append, index=index)
    return table, sum(e.amount for e in events if isinstance(e, Advanced))


@pytest.mark.parametrize("algorithm", ["sha384", "sha256"])
@pytest.mark.parametrize(
    "size", [1, BLOCK_BYTES - 1, BLOCK_BYTES, TWO, TWO + 1, 3 * TWO, 9 * BLOCK_BYTES + 5])
def test_a_set_takes_over_what_was_written_early(
    tmp_path: Path, size: int, algorithm: str
) -> None:
    path, other = aged(tmp_path / "a", size), aged(tmp_path / "b", 77)
    plain, all_bytes = written(tmp_path / "plain", path, other, algorithm=algorithm)
    index = VolumeIndex(tmp_path)
    events = early(tmp_path, path, index=index, algorithm=algorithm)
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == size
    table, count = written(tmp_path / "set", path, other, index=index, algorithm=algorithm)
    assert table == plain
    assert (count, all_bytes) == (77, size + 77)
    for volume in table.volumes:
        same = (tmp_path / "plain" / volume.name).read_bytes()
        assert (tmp_path / "set" / volume.name).read_bytes() == same


def test_a_file_is_known_by_both_digests_afterwards_and_not_read_again(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", TWO + 9)
    early(tmp_path, path, index=VolumeIndex(tmp_path))
    data = path.read_bytes()
    with DigestCache(tmp_path) as digests:
        assert digests.known(path) == FileDigests(
            len(data), Digest.of(data), Digest.of(data, "sha256"))
        again = tmp_path / "again"
        again.mkdir()
        write_early([path, path], again, algorithm="sha384", volume_bytes=TWO, digests=digests,
                    index=VolumeIndex(tmp_path), listener=quiet)
    assert list(again.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_not_known(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", TWO)
    index = VolumeIndex(tmp_path)
    folder = tmp_path / "early"
    folder.mkdir()

    def change(event: Event) -> None:
        if isinstance(event, Advanced):
            os.utime(path)

    with DigestCache(tmp_path) as digests:
        write_early([path], folder, algorithm="sha384", volume_bytes=TWO, digests=digests,
                    index=index, listener=change)
        assert digests.known(path) is None


def test_volumes_of_other_bytes_are_not_taken_over(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", TWO)
    index = VolumeIndex(tmp_path)
    early(tmp_path, path, index=index)
    path.write_bytes(os.urandom(TWO))
    _, count = written(tmp_path / "set", path, index=index)
    assert count == TWO


def test_a_volume_that_was_changed_where_it_lies_is_not_taken_over(tmp_path: Path) -> None:
    path = aged(tmp_path / "a", TWO)
    index = VolumeIndex(tmp_path)
    early(tmp_path, path, index=index)
    (volume,) = (tmp_path / "early").glob("*/*")
    with volume.open("r+b") as file:
        file.write(b"other")
    os.utime(volume, ns=(1, 1))
    table, _ = written(tmp_path / "set", path, index=index)
    assert (tmp_path / "set/vol-0001.ekv").read_bytes() == path.read_bytes()
    assert table.volumes[0].digest == Digest.of(path.read_bytes())


def test_without_room_nothing_is_written_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_volumes, "free_bytes", lambda _path: TWO)
    path = aged(tmp_path / "a", TWO)
    assert early(tmp_path, path, index=VolumeIndex(tmp_path)) == []
    assert list((tmp_path / "early").iterdir()) == []


def test_where_a_file_has_one_name_nothing_is_written_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = aged(tmp_path / "a", TWO)
    index = VolumeIndex(tmp_path)
    assert early(tmp_path, path, index=index) == []
    assert list((tmp_path / "early").iterdir()) == []
    assert written(tmp_path / "set", path, index=index)[1] == TWO


def test_a_disk_that_fills_up_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_volumes, "free_bytes", lambda _path: 1 << 40)
    path = aged(tmp_path / "a", 3 * BLOCK_BYTES)
    with tiny_disk(tmp_path / "disk", 12) as disk:
        (disk / "early").mkdir()
        with DigestCache(tmp_path) as digests, pytest.raises(DiskFullError):
            write_early([path], disk / "early", algorithm="sha384", volume_bytes=TWO,
                        digests=digests, index=VolumeIndex(tmp_path), listener=quiet)
    with DigestCache(tmp_path) as digests:
        assert digests.known(path) is None


def test_a_failed_sync_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(block_writer.os, "fsync", fail)
    path = aged(tmp_path / "a", 10)
    with pytest.raises(HostError, match="writing a"):
        early(tmp_path, path, index=VolumeIndex(tmp_path))
