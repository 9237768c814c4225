"""Files are read past the page cache where that can be, and always as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.system.block_reader import (
    ALIGNMENT,
    BlockReader,
    FileReader,
    MediumReader,
    block_buffer,
    is_cached,
)

BLOCK = 1 << 20
SIZE = 2 * BLOCK + 777


def read_all(reader: BlockReader, buffer: memoryview) -> bytes:
    """A file of `SIZE` bytes in blocks, as `read_volumes` asks for them, the last one short."""
    data = b""
    for offset in range(0, SIZE, BLOCK):
        length = min(BLOCK, SIZE - offset)
        assert reader.read_into(buffer, length, offset) == length
        data += buffer[:length]
    return data


def cached(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return is_cached(descriptor, path.stat().st_size, 0)
    finally:
        os.close(descriptor)


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    """A file on the disk that the page cache knows nothing of."""
    path = tmp_path / "cold"
    path.write_bytes(os.urandom(SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if cached(path):
        pytest.skip("cannot run here: files of this file system are always in memory")
    return path


def test_what_is_read_once_stays_out_of_the_page_cache(cold: Path) -> None:
    reader = FileReader(cold)
    data = read_all(reader, block_buffer(BLOCK))
    reader.close()
    assert not cached(cold)
    assert data == cold.read_bytes()


def test_what_will_be_read_again_stays_in_the_page_cache(cold: Path) -> None:
    reader = FileReader(cold, keep=True)
    data = read_all(reader, block_buffer(BLOCK))
    reader.close()
    assert cached(cold)
    assert data == cold.read_bytes()


def test_what_the_page_cache_holds_is_taken_from_there(
    cold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the cache it cannot be read here, so all comes out of it."""
    whole = cold.read_bytes()
    reader = FileReader(cold)
    assert reader._direct is not None
    os.close(reader._direct)
    monkeypatch.setattr(reader, "_direct", -1)
    assert read_all(reader, block_buffer(BLOCK)) == whole
    os.close(reader._cached)


@pytest.mark.parametrize("kind", [FileReader, MediumReader])
def test_memory_that_does_not_begin_on_a_page_will_do(
    cold: Path, kind: type[FileReader] | type[MediumReader]
) -> None:
    reader = kind(cold)
    data = read_all(reader, block_buffer(BLOCK + ALIGNMENT)[7:])
    reader.close()
    assert data == cold.read_bytes()


@pytest.mark.parametrize("kind", [FileReader, MediumReader])
def test_a_file_system_without_direct_reads_is_read_all_the_same(
    kind: type[FileReader] | type[MediumReader],
) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        os.open("/proc/version", os.O_RDONLY | os.O_DIRECT)
    reader = kind(Path("/proc/version"))
    buffer = bytearray(ALIGNMENT)
    count = reader.read_into(memoryview(buffer), ALIGNMENT, 0)
    reader.close()
    assert bytes(buffer[:count]) == Path("/proc/version").read_bytes()


@pytest.mark.parametrize("kind", [FileReader, MediumReader])
def test_a_symbolic_link_is_not_followed(
    tmp_path: Path, kind: type[FileReader] | type[MediumReader]
) -> None:
    (tmp_path / "link").symlink_to("/proc/version")
    with pytest.raises(OSError, match="symbolic links"):
        kind(tmp_path / "link")


def test_beyond_the_end_nothing_is_cached(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 10)
    descriptor = os.open(path, os.O_RDONLY)
    assert not is_cached(descriptor, BLOCK, 0)
    assert not is_cached(descriptor, BLOCK, 1 << 45)
    os.close(descriptor)
