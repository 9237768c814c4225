"""Volumes on their way out: every digest is right, sources are compared, known ones are linked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event, Finished
from edgekit.core.layout import plan_layout
from edgekit.core.release import BLOCK_BYTES, VolumeTable
from edgekit.errors import DigestError, DiskFullError, SourceDigestError
from edgekit.system import volume_writer
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import BlobSource, write_volumes
from edgekit.system.volumes import read_volumes
from tests.support.sets import damaged, quiet
from tests.support.tiny_disk import tiny_disk

BLOCK, TWO, THREE = BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES

SHAPES: dict[str, tuple[list[int], int]] = {
    "within one block": ([10, 0, 20], TWO),
    "one that begins with the volume and ends in a block": ([BLOCK + 5, 7], TWO),
    "one that begins in the middle and spans blocks": ([5, BLOCK, 3], TWO),
    "one over three volumes, from the start": ([THREE - 9], BLOCK),
    "one over three volumes, from the middle": ([9, TWO + 1, 8], BLOCK),
    "large ones alone": ([THREE, 4, TWO + 3, THREE], TWO),
    "as many blocks as there are buffers, and more": ([BLOCK * 14], BLOCK * 20),
}
LARGE = TWO


def sources(folder: Path, sizes: list[int]) -> list[BlobSource]:
    folder.mkdir(exist_ok=True)
    blobs = []
    for number, size in enumerate(sizes):
        path = folder / f"source-{number}"
        data = os.urandom(size)
        path.write_bytes(data)
        blobs.append(BlobSource(Digest.of(data), size, path))
    return blobs


def write(
    folder: Path, blobs: list[BlobSource], volume_bytes: int, index: VolumeIndex | None = None,
    listener: Callable[[Event], None] = quiet, algorithm: str = "sha384",
) -> VolumeTable:
    folder.mkdir()
    sizes, extents = plan_layout(
        [(b.digest, b.size) for b in blobs], volume_bytes=volume_bytes, large_bytes=LARGE
    )
    return write_volumes(
        folder, blobs, sizes, extents, algorithm=algorithm, listener=listener, index=index
    )


def bytes_written(events: list[Event]) -> int:
    return sum(e.amount for e in events if isinstance(e, Advanced) and e.task == "write volumes")


def check(folder: Path, table: VolumeTable, blobs: list[BlobSource]) -> None:
    """Volumes, blocks and blobs hold what the table says, judged by other code than wrote them."""
    data = [(folder / volume.name).read_bytes() for volume in table.volumes]
    for volume, content in zip(table.volumes, data, strict=True):
        assert (volume.size, volume.digest) == (len(content), Digest.of(content))
        assert volume.blocks == tuple(
            Digest.of(content[start : start + BLOCK], table.algorithm).value
            for start in range(0, len(content), BLOCK)
        )
    extents = dict(table.blobs)
    for blob in blobs:
        runs = [data[e.volume][e.offset : e.offset + e.length] for e in extents[blob.digest]]
        assert b"".join(runs) == blob.path.read_bytes()


@pytest.mark.parametrize("algorithm", ["sha384", "sha256"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_digest_of_every_shape_is_right(
    tmp_path: Path, shape: tuple[list[int], int], algorithm: str
) -> None:
    blobs = sources(tmp_path / "in", shape[0])
    table = write(tmp_path / "out", blobs, shape[1], algorithm=algorithm)
    check(tmp_path / "out", table, blobs)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_source_that_rots_without_a_new_time_is_caught(
    tmp_path: Path, shape: tuple[list[int], int]
) -> None:
    """One flipped bit in any blob, at its start, its middle and its end."""
    blobs = sources(tmp_path / "in", shape[0])
    planned = fired = 0
    for blob in blobs:
        for offset in sorted({0, blob.size // 2, blob.size - 1} if blob.size else ()):
            planned += 1
            with damaged(blob.path, offset), pytest.raises(SourceDigestError) as caught:
                write(tmp_path / f"out-{planned}", blobs, shape[1])
            fired += caught.value.where == str(blob.path)
    print(f"rotten sources: planned {planned}, fired {fired}")
    assert fired == planned > 0


# --------------------------------------------------------------------------- volumes taken over


@pytest.fixture(autouse=True)
def _nothing_is_racy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares two seconds of waiting; the one test about it sets the time back."""
    monkeypatch.setattr("edgekit.system.volume_index.RACY_NANOSECONDS", 0)


def first_build(tmp_path: Path, *sizes: int) -> list[BlobSource]:
    """A set in `tmp_path/first`, remembered in `tmp_path/cache`."""
    (tmp_path / "cache").mkdir()
    blobs = sources(tmp_path / "in", list(sizes or (9, TWO + 1, THREE)))
    remembered(tmp_path, "first", blobs)
    return blobs


def remembered(
    tmp_path: Path, name: str, blobs: list[BlobSource], algorithm: str = "sha384",
    volume_bytes: int = THREE,
) -> list[Event]:
    """Build and remember; everything that was told meanwhile."""
    events: list[Event] = []
    index = VolumeIndex(tmp_path / "cache")
    table = write(tmp_path / name, blobs, volume_bytes, index, events.append, algorithm)
    index.save(tmp_path / name, algorithm)
    check(tmp_path / name, table, blobs)
    return events


def inodes(folder: Path) -> list[int]:
    return [path.stat().st_ino for path in sorted(folder.iterdir())]


def test_an_unchanged_rebuild_reads_and_writes_nothing(tmp_path: Path) -> None:
    blobs = first_build(tmp_path)
    for name in ("second", "third"):
        assert [e for e in remembered(tmp_path, name, blobs) if isinstance(e, Advanced)] == []
        assert inodes(tmp_path / name) == inodes(tmp_path / "first")


def test_a_new_small_file_leaves_the_large_ones_where_they_are(tmp_path: Path) -> None:
    blobs = first_build(tmp_path)
    blobs[0] = sources(tmp_path / "other", [10])[0]
    assert bytes_written(remembered(tmp_path, "second", blobs)) == 10
    assert inodes(tmp_path / "second")[1:] == inodes(tmp_path / "first")[1:]


@pytest.mark.parametrize("change", ["algorithm", "volume size"])
def test_other_blocks_are_other_volumes(tmp_path: Path, change: str) -> None:
    blobs = first_build(tmp_path)
    events = (
        remembered(tmp_path, "second", blobs, algorithm="sha256") if change == "algorithm"
        else remembered(tmp_path, "second", blobs, volume_bytes=TWO)
    )
    assert bytes_written(events) == sum(blob.size for blob in blobs) - (
        0 if change == "algorithm" else 9
    )


def test_a_volume_that_changed_is_written_anew(tmp_path: Path) -> None:
    blobs = first_build(tmp_path)
    with damaged(tmp_path / "first/vol-0002.ekv", BLOCK + 1):
        events = remembered(tmp_path, "second", blobs)
        assert bytes_written(events) == blobs[1].size
        assert Finished("write volumes", "1 written, 2 taken over") in events


def test_a_volume_that_lost_its_end_is_written_anew(tmp_path: Path) -> None:
    blobs = first_build(tmp_path)
    os.truncate(tmp_path / "first/vol-0003.ekv", BLOCK)
    assert bytes_written(remembered(tmp_path, "second", blobs)) == blobs[2].size


@pytest.mark.parametrize("gone", ["first", "second"])
def test_one_of_two_sets_that_share_volumes_is_enough(tmp_path: Path, gone: str) -> None:
    blobs = first_build(tmp_path)
    remembered(tmp_path, "second", blobs)
    shutil.rmtree(tmp_path / gone)
    assert [e for e in remembered(tmp_path, "third", blobs) if isinstance(e, Advanced)] == []


def test_a_volume_with_another_time_is_read_and_taken_over(tmp_path: Path) -> None:
    blobs = first_build(tmp_path)
    for path in (tmp_path / "first").iterdir():
        os.utime(path, ns=(0, 0))
    events = remembered(tmp_path, "second", blobs)
    assert bytes_written(events) == 0
    read = sum(e.amount for e in events if isinstance(e, Advanced))
    assert read == sum(blob.size for blob in blobs)


def test_a_volume_of_this_moment_is_read_before_it_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.system.volume_index.RACY_NANOSECONDS", 3600 * 10**9)
    blobs = first_build(tmp_path, 9)
    events = remembered(tmp_path, "second", blobs)
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == 9
    assert bytes_written(events) == 0


def test_a_blob_with_one_volume_gone_is_written_and_compared_as_a_whole(tmp_path: Path) -> None:
    blobs = first_build(tmp_path, THREE * 2 + 5)
    (tmp_path / "first/vol-0002.ekv").unlink()
    assert bytes_written(remembered(tmp_path, "second", blobs)) == THREE * 2 + 5
    (tmp_path / "second/vol-0002.ekv").unlink()
    with damaged(blobs[0].path, 1), pytest.raises(SourceDigestError):
        remembered(tmp_path, "third", blobs)


def test_an_earlier_set_on_another_file_system_is_no_help_and_no_harm(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 200) as disk:
        (tmp_path / "cache").mkdir()
        blobs = sources(tmp_path / "in", [9, TWO])
        index = VolumeIndex(tmp_path / "cache")
        write(disk / "first", blobs, THREE, index)
        index.save(disk / "first", "sha384")
        assert bytes_written(remembered(tmp_path, "second", blobs)) == TWO + 9


def test_a_full_disk_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    blobs = sources(tmp_path / "in", [9])
    with tiny_disk(tmp_path / "disk", 100) as disk:
        with pytest.raises(DiskFullError, match="not enough free disk") as caught:
            write(disk / "out", blobs, THREE)
        assert list((disk / "out").iterdir()) == []
        assert caught.value.needed == f"{(volume_writer.SPACE_RESERVE_BYTES + 9) >> 20} MiB"


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "cut off": lambda text: text[:-9],
    "a list": lambda _: "[]",
    "another format": lambda text: text.replace('"format": 1', '"format": 2'),
    "size of text": lambda text: text.replace('"vol-0001.ekv",\n9,', '"vol-0001.ekv",\n"9",'),
    "a block too few": lambda text: text.replace('"vol-0003.ekv",\n25165824', '"x",\n1'),
    "digest too short": lambda text: text.replace('"sha384"', '"sha256"'),
    "stamp of text": lambda text: text.replace('"stamp": [', '"stamp": ["x",'),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_malformed_index_counts_as_empty(tmp_path: Path, broken: Callable[[str], str]) -> None:
    blobs = first_build(tmp_path)
    file = tmp_path / "cache/volumes.json"
    text = file.read_text()
    assert broken(text) != text
    file.write_text(broken(text))
    assert bytes_written(remembered(tmp_path, "second", blobs)) == sum(b.size for b in blobs)


def test_volumes_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    first_build(tmp_path)
    for path in (tmp_path / "first").iterdir():
        path.unlink()
    other = sources(tmp_path / "other", [3])
    remembered(tmp_path, "second", other)
    known = json.loads((tmp_path / "cache/volumes.json").read_bytes())["volumes"]
    assert [item["paths"] for item in known.values()] == [[str(tmp_path / "second/vol-0001.ekv")]]


def test_a_volume_changed_with_its_time_set_back_is_found_by_whoever_reads(tmp_path: Path) -> None:
    blobs = first_build(tmp_path, 9)
    path = tmp_path / "first/vol-0001.ekv"
    before = path.stat()
    with damaged(path, 0):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        second = write(tmp_path / "second", blobs, THREE, VolumeIndex(tmp_path / "cache"))
        with pytest.raises(DigestError, match="is damaged"):
            read_volumes(second, lambda _: tmp_path / "second/vol-0001.ekv", wanted=None,
                         sink=None, listener=quiet, task="verify")
