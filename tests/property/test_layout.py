"""Laws of the layout: every byte of every volume belongs to exactly one blob, and comes back."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.carried_model import SHAPE_KEYS, CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.layout import content_key, plan_layout, volume_pieces
from edgekit.core.lock import (
    Lock,
    LockedBlob,
    LockedFile,
    LockedImage,
    LockedVariant,
    LockedWheel,
    LockedWheelhouse,
    encode_lock,
    parse_lock,
)
from edgekit.core.names import RelPath
from edgekit.core.release import (
    BLOCK_BYTES,
    ROLES,
    CarriedImage,
    Entry,
    Extent,
    Manifest,
    Requirements,
    Volume,
    VolumeTable,
    encode_manifest,
    encode_volume_table,
    parse_manifest,
    parse_volume_table,
    volume_name,
)
from edgekit.core.trust import Floor, encode_floor, parse_floor
from edgekit.errors import FormatError

SIZES = st.lists(st.integers(0, 70), max_size=40)
VOLUME_BYTES = st.integers(1, 32)
LARGE_BYTES = st.integers(1, 90)


def named(number: int) -> Digest:
    """A digest that stands for the blob with this number."""
    return Digest.of(str(number).encode())


@given(SIZES, VOLUME_BYTES, LARGE_BYTES)
def test_every_byte_of_every_volume_belongs_to_exactly_one_blob(
    blobs: list[int], volume_bytes: int, large_bytes: int
) -> None:
    sizes, extents = plan_layout(
        [(named(number), size) for number, size in enumerate(blobs)],
        volume_bytes=volume_bytes, large_bytes=large_bytes,
    )
    assert list(extents) == [named(number) for number in range(len(blobs))]
    owned = [[0] * size for size in sizes]
    for number, size in enumerate(blobs):
        runs = extents[named(number)]
        assert sum(run.length for run in runs) == size
        for run in runs:
            for offset in range(run.offset, run.offset + run.length):
                owned[run.volume][offset] += 1
    assert all(count == 1 for volume in owned for count in volume)


@given(SIZES, VOLUME_BYTES, LARGE_BYTES)
def test_small_blobs_share_full_volumes_and_each_large_one_has_its_own(
    blobs: list[int], volume_bytes: int, large_bytes: int
) -> None:
    sizes, extents = plan_layout(
        [(named(number), size) for number, size in enumerate(blobs)],
        volume_bytes=volume_bytes, large_bytes=large_bytes,
    )
    assert sum(sizes) == sum(blobs)
    assert all(0 < size <= volume_bytes for size in sizes)
    small = sum(size for size in blobs if size < large_bytes)
    shared = -(-small // volume_bytes)
    assert all(size == volume_bytes for size in sizes[: max(0, shared - 1)])
    owners: dict[int, set[int]] = {}
    for number, size in enumerate(blobs):
        for run in extents[named(number)]:
            assert (run.volume < shared) == (size < large_bytes)
            owners.setdefault(run.volume, set()).add(number)
    assert all(len(owners[volume]) == 1 for volume in range(shared, len(sizes)))


@given(SIZES, VOLUME_BYTES, LARGE_BYTES)
def test_concatenated_pieces_are_the_blobs_again(
    blobs: list[int], volume_bytes: int, large_bytes: int
) -> None:
    contents = {named(n): os.urandom(size) for n, size in enumerate(blobs)}
    sizes, extents = plan_layout(
        [(digest, len(data)) for digest, data in contents.items()],
        volume_bytes=volume_bytes, large_bytes=large_bytes,
    )
    volumes = [
        b"".join(contents[p.digest][p.start : p.start + p.length] for p in pieces)
        for pieces in volume_pieces(extents, len(sizes))
    ]
    assert [len(volume) for volume in volumes] == sizes
    for digest, data in contents.items():
        runs = [volumes[r.volume][r.offset : r.offset + r.length] for r in extents[digest]]
        assert b"".join(runs) == data


@given(SIZES, VOLUME_BYTES, LARGE_BYTES, st.integers(0, 69))
def test_a_small_blob_that_changes_leaves_the_volumes_of_large_ones_as_they_are(
    blobs: list[int], volume_bytes: int, large_bytes: int, other: int
) -> None:
    def keys(small: int) -> set[str]:
        """Content keys of the volumes that hold a large blob, beside a small one of this size."""
        named_sizes = [(named(-1 - small), small), *((named(n), s) for n, s in enumerate(blobs))]
        sizes, extents = plan_layout(
            named_sizes, volume_bytes=volume_bytes, large_bytes=large_bytes
        )
        large = {digest for digest, size in named_sizes if size >= large_bytes}
        return {
            content_key(pieces, "sha384")
            for pieces in volume_pieces(extents, len(sizes)) if pieces[0].digest in large
        }

    assert keys(0) == keys(min(other, large_bytes - 1))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_blob_is_laid_out_once_however_often_it_is_named(numbers: list[int]) -> None:
    sizes, extents = plan_layout([(named(n), n) for n in numbers], volume_bytes=4)
    assert sum(sizes) == sum(set(numbers))
    assert set(extents) == {named(n) for n in numbers}


@st.composite
def tables(draw: st.DrawFn) -> VolumeTable:
    """Volume tables as bundling makes them, with any digests."""
    blobs = draw(st.lists(st.integers(0, 3 * BLOCK_BYTES), max_size=12))
    algorithm = draw(st.sampled_from(["sha384", "sha256"]))
    block = "0" * {"sha384": 96, "sha256": 64}[algorithm]
    volume_bytes = BLOCK_BYTES * draw(st.integers(1, 3))
    sizes, extents = plan_layout(
        [(named(number), size) for number, size in enumerate(blobs)], volume_bytes=volume_bytes
    )
    volumes = tuple(
        Volume(volume_name(index), size, named(index), (block,) * -(-size // BLOCK_BYTES))
        for index, size in enumerate(sizes)
    )
    return VolumeTable(algorithm, BLOCK_BYTES, volumes, tuple(extents.items()))


@given(tables())
def test_a_volume_table_survives_encoding_and_parsing(table: VolumeTable) -> None:
    assert parse_volume_table(encode_volume_table(table)) == table


@given(tables(), st.data())
def test_an_extent_that_moves_by_one_byte_is_never_accepted(
    table: VolumeTable, data: st.DataObject
) -> None:
    movable = [
        (blob, run) for blob, (_, runs) in enumerate(table.blobs) for run in range(len(runs))
    ]
    if not movable:
        return
    blob, run = data.draw(st.sampled_from(movable))
    digest, runs = table.blobs[blob]
    old = runs[run]
    offset, length = data.draw(st.sampled_from([(1, 0), (-1, 0), (0, 1), (0, -1)]))
    if old.offset + offset < 0:
        return
    moved = (*runs[:run], Extent(old.volume, old.offset + offset, old.length + length),
             *runs[run + 1 :])
    blobs = (*table.blobs[:blob], (digest, moved), *table.blobs[blob + 1 :])
    try:
        VolumeTable(table.algorithm, table.block_bytes, table.volumes, blobs)
    except FormatError:
        return
    raise AssertionError("accepted")


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**53), st.sampled_from(["", str(named(1))]))
def test_a_floor_survives_encoding_and_parsing(epoch: int, sequence: int, statement: str) -> None:
    floor = Floor(epoch, sequence, statement)
    assert parse_floor(encode_floor(floor)) == floor


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
SHA256 = st.binary(max_size=4).map(lambda data: Digest.of(data, "sha256"))
FILE_SIZES = st.integers(1, 1 << 50)
FILES = st.builds(LockedFile, NAMES.map(RelPath), FILE_SIZES, SHA256)
WHEELS = st.builds(
    LockedWheel, NAMES, st.just("1.0+cpu"), NAMES.map(lambda name: f"{name}-1.0-py3-none-any.whl"),
    FILE_SIZES, SHA256,
)
BLOBS = st.builds(
    LockedBlob, st.just("application/vnd.oci.image.layer.v1.tar+gzip"), FILE_SIZES, SHA256
)
LOCKS = st.builds(
    Lock,
    st.just(named(0)),
    st.lists(st.builds(
        LockedVariant, NAMES, st.integers(0, 31), st.sampled_from([None, "a" * 40]),
        st.lists(FILES, max_size=3).map(tuple),
    ), max_size=3).map(tuple),
    st.lists(st.builds(
        LockedWheelhouse, NAMES, st.lists(WHEELS, max_size=3).map(tuple)
    ), max_size=2).map(tuple),
    st.lists(st.builds(
        LockedImage, NAMES, NAMES.map(lambda name: f"registry.example/{name}:1"), BLOBS,
        st.lists(BLOBS, max_size=2).map(tuple),
    ), max_size=2).map(tuple),
)


PATHS = NAMES.map(RelPath)
SHA384 = st.binary(max_size=4).map(Digest.of)
ENTRIES = st.builds(
    Entry, PATHS, st.sampled_from(ROLES), st.integers(0, 1 << 50), SHA384, st.booleans()
)
FACTS = st.fixed_dictionaries({key: st.integers(0, 2**50 - 1) for key in SHAPE_KEYS})
VARIANTS = st.builds(
    CarriedVariant, st.sampled_from(["gguf", "safetensors"]), st.just("Q8_0"),
    st.lists(PATHS, min_size=1, max_size=2).map(tuple), st.integers(0, 1 << 50),
    FACTS.map(lambda facts: tuple(sorted(facts.items()))),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
MODELS = st.builds(
    CarriedModel, NAMES, st.integers(1, 1 << 24), TEXTS, TEXTS, st.integers(0, 1 << 50),
    st.lists(VARIANTS, max_size=2).map(tuple),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
)
MANIFESTS = st.builds(
    Manifest, NAMES, st.just("1.2.3-rc.1"), st.integers(0, 1 << 40), st.integers(1, 10_000),
    st.builds(
        Requirements, st.sampled_from(["x86_64", "aarch64"]),
        st.tuples(st.integers(0, 999), st.integers(0, 999)),
        st.lists(st.from_regex(r"[a-z0-9_]{1,30}", fullmatch=True), max_size=3).map(tuple),
        st.integers(0, 10_000),
    ),
    st.lists(ENTRIES, max_size=4, unique_by=lambda entry: str(entry.path)).map(
        lambda entries: tuple(sorted(entries, key=lambda entry: str(entry.path)))
    ),
    st.lists(st.builds(
        EnginePack, st.sampled_from(["llama.cpp", "vllm"]), NAMES, TEXTS, PATHS, PATHS
    ), max_size=2).map(tuple),
    st.lists(MODELS, max_size=2, unique_by=lambda model: model.name).map(tuple),
    st.lists(st.builds(
        CarriedImage, NAMES, TEXTS, SHA256, st.lists(PATHS, max_size=2).map(tuple)
    ), max_size=2, unique_by=lambda image: image.name).map(tuple),
    TEXTS,
)


@given(MANIFESTS)
def test_a_manifest_survives_encoding_and_parsing(manifest: Manifest) -> None:
    assert parse_manifest(encode_manifest(manifest)) == manifest


@given(LOCKS)
def test_a_lock_survives_encoding_and_parsing(lock: Lock) -> None:
    assert parse_lock(encode_lock(lock), file="x.lock.json") == lock
