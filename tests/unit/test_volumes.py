"""Volumes in and out, the documents that describe them, and how much memory that takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.core import trust
from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event
from edgekit.core.host_layout import HostLayout
from edgekit.core.layout import plan_layout
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    Volume,
    VolumeTable,
    encode_manifest,
    encode_volume_table,
    parse_manifest,
    parse_volume_table,
    volume_name,
)
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import DigestError, DiskFullError, EdgekitError, FormatError
from edgekit.system.blob_store import copy_blobs, discard_staging, present_blobs
from edgekit.system.bundle_set import VerifiedSet
from edgekit.system.volume_writer import BlobSource, write_volumes
from edgekit.system.volumes import BlobSink, hash_view, read_volumes
from tests.support.sets import Hole, SetBuilder, damaged, quiet, verify
from tests.support.tiny_disk import tiny_disk

REPOSITORY = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def written(folder: Path, contents: list[bytes], volume_bytes: int = BLOCK_BYTES) -> VolumeTable:
    """These blobs, written as volumes into a folder."""
    blobs = []
    for number, content in enumerate(contents):
        path = folder / f"source-{number}"
        path.write_bytes(content)
        blobs.append(BlobSource(Digest.of(content), len(content), path))
    unique = list({blob.digest: blob for blob in blobs}.values())
    sizes, extents = plan_layout(
        [(blob.digest, blob.size) for blob in unique], volume_bytes=volume_bytes
    )
    return write_volumes(folder, unique, sizes, extents, algorithm="sha384", listener=quiet)


def copied(folder: Path, table: VolumeTable, wanted: frozenset[Digest], out: Path) -> int:
    """Verify and assemble blobs out of volumes; the number of bytes read."""
    sink = BlobSink(out, table, wanted)
    try:
        return read_volumes(
            table, lambda index: folder / table.volumes[index].name, wanted=wanted, sink=sink,
            listener=quiet, task="copy",
        )
    finally:
        sink.close()


# ------------------------------------------------------------------------------------- round trips

ROUND_TRIPS: dict[str, list[bytes]] = {
    "nothing": [],
    "one empty blob": [b""],
    "one byte": [b"x"],
    "exactly one block": [bytes(BLOCK_BYTES)],
    "one byte over a block": [b"y" * (BLOCK_BYTES + 1)],
    "three volumes": [os.urandom(2 * BLOCK_BYTES + 17)],
    "small ones around a large one": [b"a", b"", os.urandom(BLOCK_BYTES), b"b" * 4096, b"c"],
    "the same content twice": [b"same", b"same"],
}


@pytest.mark.parametrize("contents", ROUND_TRIPS.values(), ids=ROUND_TRIPS.keys())
def test_what_goes_into_volumes_comes_out_again(tmp_path: Path, contents: list[bytes]) -> None:
    table = written(tmp_path, contents)
    out = tmp_path / "out"
    out.mkdir()
    wanted = frozenset(Digest.of(content) for content in contents)
    read = copied(tmp_path, table, wanted, out)
    assert read == sum(volume.size for volume in table.volumes) == sum(map(len, set(contents)))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        Digest.of(content).value: content for content in contents
    }


def test_blocks_without_a_wanted_blob_are_not_read(tmp_path: Path) -> None:
    contents = [os.urandom(BLOCK_BYTES) for _ in range(3)]
    table = written(tmp_path, contents)
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "vol-0001.ekv").unlink()
    (tmp_path / "vol-0003.ekv").write_bytes(b"damaged")
    assert copied(tmp_path, table, frozenset({Digest.of(contents[1])}), out) == BLOCK_BYTES
    assert [path.read_bytes() for path in out.iterdir()] == [contents[1]]


def test_the_same_blobs_give_the_same_volumes(tmp_path: Path) -> None:
    tables = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tables.append(written(tmp_path / name, [b"one" * 1000, b"two", b""]))
    assert encode_volume_table(tables[0]) == encode_volume_table(tables[1])
    volumes = [(tmp_path / name / "vol-0001.ekv").read_bytes() for name in ("first", "second")]
    assert volumes[0] == volumes[1] == b"one" * 1000 + b"two"


def test_progress_adds_up_to_the_bytes_read(tmp_path: Path) -> None:
    table = written(tmp_path, [os.urandom(BLOCK_BYTES + 5)])
    events: list[Event] = []
    read_volumes(table, lambda index: tmp_path / table.volumes[index].name, wanted=None, sink=None,
                 listener=events.append, task="verify")
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == BLOCK_BYTES + 5


def test_nothing_of_a_damaged_block_reaches_the_sink(tmp_path: Path) -> None:
    table = written(tmp_path, [os.urandom(BLOCK_BYTES), b"z" * 100])
    seen: list[tuple[int, int]] = []
    with damaged(tmp_path / "vol-0002.ekv", 50), pytest.raises(DigestError):
        read_volumes(
            table, lambda index: tmp_path / table.volumes[index].name, wanted=None,
            sink=lambda volume, offset, _: seen.append((volume, offset)), listener=quiet, task="x",
        )
    assert (1, 0) not in seen


def test_a_source_that_shrinks_while_it_is_bundled_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"short")
    blob = BlobSource(Digest.of(b"longer"), 6, path)
    sizes, extents = plan_layout([(blob.digest, 6)], volume_bytes=BLOCK_BYTES)
    with pytest.raises(EdgekitError, match="became shorter"):
        write_volumes(tmp_path, [blob], sizes, extents, algorithm="sha384", listener=quiet)


@pytest.mark.parametrize("algorithm", ["sha384", "sha256"])
def test_blocks_may_be_hashed_with_either_algorithm(tmp_path: Path, algorithm: str) -> None:
    built = SetBuilder(digest_algorithm=algorithm)
    verified = verify(built.host(), built.write(tmp_path / "demo"))
    block = (tmp_path / "demo/vol-0001.ekv").read_bytes()
    assert verified.table.volumes[0].blocks == (Digest.of(block, algorithm).value,)


# -------------------------------------------------------------------------------- resumed copying


def big_set(tmp_path: Path) -> VerifiedSet:
    """Three blobs in four volumes."""
    built = SetBuilder(entries={
        "a.bin": Hole(BLOCK_BYTES), "b.bin": b"b" * (BLOCK_BYTES + 9), "c.bin": b"c" * BLOCK_BYTES,
        "d.bin": b"",
    })
    return verify(built.host(), built.write(tmp_path / "demo"))


def digests(verified: VerifiedSet) -> tuple[Digest, ...]:
    return tuple(sorted(entry.digest for entry in verified.manifest.entries))


def test_blobs_land_read_only_under_their_digest_and_nothing_else_stays(tmp_path: Path) -> None:
    verified, layout = big_set(tmp_path), HostLayout(tmp_path / "host")
    old_mask = os.umask(0o077)
    try:
        copy_blobs(verified, digests(verified), layout, quiet)
    finally:
        os.umask(old_mask)
    for entry in verified.manifest.entries:
        path = layout.blob(entry.digest)
        assert Digest.of(path.read_bytes()) == entry.digest
        assert path.stat().st_mode & 0o777 == 0o444
    assert list(layout.staging.iterdir()) == []
    sizes = {entry.digest: entry.size for entry in verified.manifest.entries}
    assert present_blobs(layout, sizes) == set(sizes)


def test_a_copy_that_was_interrupted_does_not_read_complete_blobs_again(tmp_path: Path) -> None:
    verified, layout = big_set(tmp_path), HostLayout(tmp_path / "host")
    third = tmp_path / "demo/vol-0004.ekv"
    aside = third.rename(tmp_path / "aside")
    third.mkdir()  # the stick is pulled: its last volume cannot be read
    with pytest.raises(EdgekitError):
        copy_blobs(verified, digests(verified), layout, quiet)
    assert present_blobs(layout, {e.digest: e.size for e in verified.manifest.entries}) == set()
    third.rmdir()
    aside.rename(third)
    staging = layout.staging / verified.statement.generation
    staging.mkdir(parents=True, exist_ok=True)
    first = next(e for e in verified.manifest.entries if str(e.path) == "a.bin")
    (staging / first.digest.value).write_bytes(bytes(BLOCK_BYTES))
    (staging / ("0" * 96 + ".part")).write_bytes(b"half a blob of an older try")
    read: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Advanced):
            read.append(event.amount)

    copy_blobs(verified, digests(verified), layout, listen)
    assert sum(read) == 2 * BLOCK_BYTES + 9
    assert all(layout.blob(digest).exists() for digest in digests(verified))
    assert list(layout.staging.iterdir()) == []


def test_a_damaged_volume_leaves_nothing_of_the_copy(tmp_path: Path) -> None:
    verified, layout = big_set(tmp_path), HostLayout(tmp_path / "host")
    with damaged(tmp_path / "demo/vol-0003.ekv", 3), pytest.raises(DigestError):
        copy_blobs(verified, digests(verified), layout, quiet)
    assert list(layout.staging.iterdir()) == []
    assert not any(layout.blob(digest).exists() for digest in digests(verified))
    discard_staging(layout, "never-there")


def test_a_full_disk_keeps_complete_blobs_for_the_next_run(tmp_path: Path) -> None:
    verified = big_set(tmp_path)
    with tiny_disk(tmp_path / "host", 20) as disk:
        layout = HostLayout(disk)
        with pytest.raises(DiskFullError):
            copy_blobs(verified, digests(verified), layout, quiet)
        staging = layout.staging / verified.statement.generation
        whole = [path for path in staging.iterdir() if path.suffix != ".part"]
        for path in whole:
            assert Digest.of(path.read_bytes()).value == path.name
        assert len(whole) >= 1


# -------------------------------------------------------------------------------------- documents


def document(tmp_path: Path, name: str) -> bytes:
    built = SetBuilder(entries={"a.bin": b"a" * 100, "b.bin": Hole(BLOCK_BYTES), "c.txt": b""})
    return (built.write(tmp_path / "demo") / name).read_bytes()


def test_a_manifest_survives_encoding_and_parsing(tmp_path: Path) -> None:
    data = document(tmp_path, "manifest.json")
    assert encode_manifest(parse_manifest(data)) == data


def test_a_volume_table_survives_encoding_and_parsing(tmp_path: Path) -> None:
    data = document(tmp_path, "volumes.json")
    assert encode_volume_table(parse_volume_table(data)) == data


Change = Callable[[dict[str, Any]], None]


def put(*path_and_value: Any) -> Change:
    """A change that sets one place of a document."""
    *path, last, value = path_and_value

    def change(table: dict[str, Any]) -> None:
        place: Any = table
        for part in path:
            place = place[part]
        place[last] = value

    return change


def repeat_first(key: str) -> Change:
    return lambda table: table[key].append(table[key][0])


def swap(key: str) -> Change:
    return lambda table: table[key].reverse()


BAD_TABLES: dict[str, Change] = {
    "another format": put("format", 2),
    "another algorithm": put("algorithm", "md5"),
    "other digests than the algorithm says": put("algorithm", "sha256"),
    "another block size": put("block_bytes", 4096),
    "blocks of nothing": put("block_bytes", 0),
    "an unknown key": put("extra", 1),
    "a base set": put("base", "sha384:" + "0" * 96),
    "parity": put("parity", []),
    "recipients": put("recipients", []),
    "volume of no bytes": put("volumes", 0, "size", 0),
    "volume above FAT32": put("volumes", 0, "size", MAX_VOLUME_BYTES + 1),
    "volume name with a path": put("volumes", 0, "name", "../vol-0001.ekv"),
    "volume name of another": put("volumes", 0, "name", "vol-0002.ekv"),
    "volume name upper case": put("volumes", 0, "name", "VOL-0001.ekv"),
    "block missing": put("volumes", 0, "blocks", []),
    "block too many": lambda table: table["volumes"][0]["blocks"].append("0" * 96),
    "block not hex": put("volumes", 0, "blocks", ["G" * 96]),
    "volume digest short": put("volumes", 0, "digest", "sha384:00"),
    "volumes in another order": swap("volumes"),
    "volume twice": repeat_first("volumes"),
    "no volumes": put("volumes", []),
    "blob twice": repeat_first("blobs"),
    "blob in two places": lambda table: table["blobs"].append(
        table["blobs"][0] | {"extents": [[1, 50, 50]]}) or put(
            "blobs", 1, "extents", [[0, 100, BLOCK_BYTES - 100], [1, 0, 50]])(table),
    "blob digest unknown": put("blobs", 0, "digest", "md5:00"),
    "overlap": put("blobs", 1, "extents", [[0, 99, BLOCK_BYTES - 99], [1, 0, 100]]),
    "gap": put("blobs", 0, "extents", [[0, 0, 99]]),
    "gap at the end": put("blobs", 1, "extents", [[0, 100, BLOCK_BYTES - 100], [1, 0, 99]]),
    "gap at the start": put("blobs", 0, "extents", [[0, 1, 99]]),
    "beyond the volume": put("blobs", 1, "extents", [[0, 100, BLOCK_BYTES]]),
    "volume that does not exist": put("blobs", 1, "extents", [[2, 0, 1]]),
    "volume left out": put("blobs", 1, "extents", [[0, 100, BLOCK_BYTES - 100]]),
    "no extents": put("blobs", 1, "extents", []),
    "empty extent": put("blobs", 2, "extents", [[0, 0, 0]]),
    "empty extent in the middle": put("blobs", 2, "extents", [[0, 100, 0]]),
    "negative offset": put("blobs", 0, "extents", [[0, -1, 101]]),
    "huge offset": put("blobs", 0, "extents", [[0, 2**62, 1]]),
    "extent of two": put("blobs", 0, "extents", [[0, 0]]),
    "extent of texts": put("blobs", 0, "extents", [["0", "0", "100"]]),
    "extent of booleans": put("blobs", 0, "extents", [[False, False, 100]]),
    "extents not a list": put("blobs", 0, "extents", {}),
}


@pytest.mark.parametrize("change", BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_volume_table_that_is_not_exact_is_refused(tmp_path: Path, change: Change) -> None:
    table = json.loads(document(tmp_path, "volumes.json"))
    # blobs: 100 bytes, one block that spans two volumes, nothing
    assert [len(blob["extents"]) for blob in table["blobs"]] == [1, 2, 0]
    change(table)
    with pytest.raises(FormatError):
        parse_volume_table(encode_canonical(table))


BAD_MANIFESTS: dict[str, Change] = {
    "another format": put("format", 2),
    "an unknown key": put("extra", 1),
    "no users": put("users", 0),
    "created in the past of time": put("created", -1),
    "name with capitals": put("name", "Demo"),
    "version of one number": put("version", "1"),
    "glibc of text": put("requirements", "glibc", ["2", "36"]),
    "glibc of one number": put("requirements", "glibc", [2]),
    "another architecture": put("requirements", "arch", "sparc"),
    "a cpu flag with a space": put("requirements", "cpu_flags", ["avx 2"]),
    "path that climbs": put("entries", 0, "path", "../a.bin"),
    "absolute path": put("entries", 0, "path", "/a.bin"),
    "path with a backslash": put("entries", 0, "path", "a\\b"),
    "path with a drive": put("entries", 0, "path", "c:/x"),
    "path with a newline": put("entries", 0, "path", "a\nb"),
    "path not in NFC": put("entries", 0, "path", "a\u0308"),
    "path with a direction mark": put("entries", 0, "path", "a\u202eb"),
    "path with a dot part": put("entries", 0, "path", "a/./b"),
    "path with an empty part": put("entries", 0, "path", "a//b"),
    "path above 1,024 bytes": put("entries", 0, "path", "/".join(["a" * 200] * 6)),
    "part above 255 bytes": put("entries", 0, "path", "a" * 256),
    "paths out of order": swap("entries"),
    "path twice": repeat_first("entries"),
    "path twice but for case": put("entries", 1, "path", "A.BIN"),
    "unknown role": put("entries", 0, "role", "rootkit"),
    "negative size": put("entries", 0, "size", -1),
    "size above 2^50": put("entries", 0, "size", 2**50 + 1),
    "size of text": put("entries", 0, "size", "100"),
    "executable of number": put("entries", 0, "executable", 1),
    "digest of another algorithm": put("entries", 0, "digest", "md5:" + "0" * 32),
    "digest of capitals": put("entries", 0, "digest", "sha384:" + "A" * 96),
    "no entries at all": lambda table: table.pop("entries"),
    "entries not a list": put("entries", {}),
}


@pytest.mark.parametrize("change", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_a_manifest_that_breaks_a_rule_is_refused(tmp_path: Path, change: Change) -> None:
    table = json.loads(document(tmp_path, "manifest.json"))
    change(table)
    with pytest.raises(FormatError):
        parse_manifest(encode_canonical(table))


def test_a_manifest_that_names_a_file_it_does_not_carry_says_which(tmp_path: Path) -> None:
    manifest = parse_manifest(document(tmp_path, "manifest.json"))
    entry = manifest.entry(manifest.entries[0].path)
    assert entry == manifest.entries[0]
    with pytest.raises(FormatError, match="does not carry"):
        manifest.entry(type(entry.path)("nowhere.txt"))


def test_a_floor_survives_encoding_and_parsing() -> None:
    for floor in (trust.Floor(), trust.Floor(3, 2**53, "sha384:" + "a" * 96)):
        assert trust.parse_floor(trust.encode_floor(floor)) == floor


def test_no_single_bit_flip_of_a_floor_is_accepted() -> None:
    good = trust.encode_floor(trust.Floor(3, 7, "sha384:" + "a" * 96))
    for position in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(FormatError):
            trust.parse_floor(bytes(flipped))


# ------------------------------------------------------------------------------------------ memory

MEASURE = """
import re, sys
from pathlib import Path
from edgekit.core.digest import Digest
from edgekit.core.layout import plan_layout
from edgekit.core.release import BLOCK_BYTES, Volume, VolumeTable, volume_name
from edgekit.system.volume_writer import BlobSource, write_volumes
from edgekit.system.volumes import hash_file, hash_view, read_volumes

def mib(field):  # not getrusage: its peak is inherited from the process that started this one
    text = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", text).group(1)) // 1024

folder, what, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
digest = Digest.of(b"any name will do")
if what == "write":
    digest = hash_file(folder / "source", "sha384")[0]
sizes, extents = plan_layout([(digest, size)], volume_bytes=3000 << 20)
block = hash_view(memoryview(bytes(BLOCK_BYTES)), "sha384")
before = mib("VmRSS")
if what == "write":
    blob = BlobSource(digest, size, folder / "source")
    write_volumes(folder, [blob], sizes, extents, algorithm="sha384", listener=lambda event: None)
else:
    volumes = tuple(
        Volume(volume_name(i), n, digest, (block,) * (n // BLOCK_BYTES))
        for i, n in enumerate(sizes)
    )
    table = VolumeTable("sha384", BLOCK_BYTES, volumes, ((digest, extents[digest]),))
    done = read_volumes(table, lambda index: folder / volume_name(index), wanted=None,
                        sink=lambda volume, offset, data: None, listener=lambda event: None,
                        task="verify")
    assert done == size, done
print(mib("VmHWM") - before)
"""


def peak_mib(folder: Path, what: str, size: int) -> int:
    """MiB of memory that one pass adds to a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), what, str(size)], cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        check=False, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_reading_three_gigabytes_takes_less_than_256_mebibytes(tmp_path: Path) -> None:
    size = 3072 * MIB
    for name, length in (("vol-0001.ekv", 3000 * MIB), ("vol-0002.ekv", 72 * MIB)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(length)
    assert peak_mib(tmp_path, "read", size) <= 256


def test_writing_takes_less_than_256_mebibytes_whatever_the_size(tmp_path: Path) -> None:
    peaks = []
    for size in (64 * MIB, 768 * MIB):
        with (tmp_path / "source").open("wb") as file:
            file.truncate(size)
        peaks.append(peak_mib(tmp_path, "write", size))
        for volume in tmp_path.glob("vol-*"):
            volume.unlink()
    assert max(peaks) <= 256
    assert peaks[1] <= peaks[0] + 64


@pytest.mark.parametrize("gibibytes", [2, 4, 8])
def test_a_blob_keeps_its_offsets_beyond(tmp_path: Path, gibibytes: int) -> None:
    """Bytes that begin exactly at the power of two are found in their volume, and land there."""
    tail, head = os.urandom(9), b"h" * 512
    full = MAX_VOLUME_BYTES // BLOCK_BYTES * BLOCK_BYTES
    start = gibibytes << 30
    digest, other = Digest.of(b"a name"), Digest.of(head)
    zeros = hash_view(memoryview(bytes(BLOCK_BYTES)), "sha384")
    sizes, extents = plan_layout(
        [(digest, start + len(tail)), (other, len(head))], volume_bytes=full, large_bytes=1 << 60
    )
    volumes = []
    for number, size in enumerate(sizes):
        blocks = [zeros] * (size // BLOCK_BYTES)
        path = tmp_path / volume_name(number)
        with path.open("wb") as file:
            file.truncate(size)
            if number == len(sizes) - 1:
                blocks.append(Digest.of(tail + head).value)
                file.seek(size - len(tail + head))
                file.write(tail + head)
        volumes.append(Volume(path.name, size, digest, tuple(blocks)))
    table = VolumeTable("sha384", BLOCK_BYTES, tuple(volumes), tuple(extents.items()))
    assert parse_volume_table(encode_volume_table(table)) == table
    sink = BlobSink(tmp_path, table, frozenset({digest, other}))
    read = read_volumes(table, lambda index: tmp_path / table.volumes[index].name,
                        wanted=frozenset({other}), sink=sink, listener=quiet, task="copy")
    sink.close()
    assert read == len(tail + head)
    part = tmp_path / f"{digest.value}.part"
    assert part.stat().st_size == start + len(tail)
    with part.open("rb") as file:
        file.seek(start)
        assert file.read() == tail
    assert (tmp_path / other.value).read_bytes() == head
    last = tmp_path / volume_name(len(sizes) - 1)
    with damaged(last, sizes[-1] - 1), pytest.raises(DigestError) as caught:
        read_volumes(table, lambda index: tmp_path / table.volumes[index].name,
                     wanted=frozenset({other}), sink=None, listener=quiet, task="copy")
    first = sizes[-1] - len(tail + head)
    assert f"block {first // BLOCK_BYTES}, bytes {first} to {sizes[-1] - 1}" in str(
        caught.value.where)
