"""The cache of fetched content: whole blobs or none, on full disks and with company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.errors import DiskFullError, FormatError, SourceDigestError, SourceError
from edgekit.sources.blob_cache import BlobCache
from tests.support.tiny_disk import tiny_disk

DATA = b"weights" * 1000
DIGEST = Digest.of(DATA, "sha256")
OTHER = Digest.of(b"other", "sha256")


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


def put(cache: BlobCache, data: bytes = DATA) -> Digest:
    with cache.writer() as writer:
        writer.write(data)
    return writer.digest


def work(cache: BlobCache) -> list[str]:
    return [path.name for path in (cache.directory / "tmp").iterdir()]


def test_a_written_blob_is_there_read_only(cache: BlobCache) -> None:
    assert not cache.has(DIGEST, len(DATA))
    assert put(cache) == DIGEST
    assert cache.has(DIGEST, len(DATA), verify=True)
    assert cache.path(DIGEST).read_bytes() == DATA
    assert cache.path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert work(cache) == []
    cache.remove(DIGEST)
    cache.remove(DIGEST)
    assert not cache.has(DIGEST, len(DATA))


def test_an_exception_leaves_nothing(cache: BlobCache) -> None:
    def fail() -> None:
        with cache.writer() as writer:
            writer.write(DATA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert work(cache) == []
    assert not cache.has(DIGEST, len(DATA))


def test_other_bytes_than_expected(cache: BlobCache) -> None:
    with pytest.raises(SourceDigestError) as caught, cache.writer(OTHER, where="a.gguf") as writer:
        writer.write(DATA)
    assert caught.value.where == "a.gguf"
    assert (caught.value.found, caught.value.needed) == (str(DIGEST), str(OTHER))
    assert not cache.has(DIGEST, len(DATA))
    assert work(cache) == []


def test_size_limits(cache: BlobCache, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="more bytes"), cache.writer(max_bytes=5) as writer:
        writer.write(DATA)
    small = BlobCache(tmp_path / "small", max_blob_bytes=10)
    big = tmp_path / "big"
    big.write_bytes(DATA)
    for move in (False, True):
        with pytest.raises(SourceError):
            small.add_file(big, move=move)
    assert big.exists()
    assert work(cache) == work(small) == []


def test_only_sha256_names_a_blob(cache: BlobCache) -> None:
    with pytest.raises(FormatError):
        cache.path(Digest.of(DATA, "sha384"))


def test_wrong_size_and_rot_are_forgotten(cache: BlobCache) -> None:
    put(cache)
    assert not cache.has(DIGEST, 1)
    assert not cache.path(DIGEST).exists()
    put(cache)
    cache.path(DIGEST).chmod(0o644)
    cache.path(DIGEST).write_bytes(b"W" + DATA[1:])
    assert cache.has(DIGEST, len(DATA))
    assert not cache.has(DIGEST, len(DATA), verify=True)
    assert not cache.path(DIGEST).exists()


@pytest.mark.parametrize("move", [False, True])
def test_add_file(cache: BlobCache, tmp_path: Path, move: bool) -> None:
    source = tmp_path / "a.gguf"
    source.write_bytes(DATA)
    with pytest.raises(SourceDigestError):
        cache.add_file(source, OTHER, move=move)
    assert source.read_bytes() == DATA
    assert cache.add_file(source, DIGEST, move=move) == DIGEST
    assert source.exists() is not move
    assert cache.has(DIGEST, len(DATA), verify=True)
    assert work(cache) == []


def test_move_from_another_file_system(cache: BlobCache, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 2) as disk:
        source = disk / "a.gguf"
        source.write_bytes(DATA)
        assert cache.add_file(source, DIGEST, move=True) == DIGEST
        assert not source.exists()
    assert cache.has(DIGEST, len(DATA), verify=True)


def test_a_link_is_not_a_file(cache: BlobCache, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(SourceError, match="regular"):
        cache.add_file(tmp_path / "link")


def test_scratch_is_removed(cache: BlobCache) -> None:
    with cache.scratch() as folder:
        (folder / "x").mkdir()
        assert len(work(cache)) == 1
    assert work(cache) == []


def test_what_the_dead_left_is_removed_and_the_living_kept(cache: BlobCache) -> None:
    tmp = cache.directory / "tmp"
    (tmp / "f-1-dead").write_bytes(b"x")
    (tmp / "d-1-dead").mkdir()
    (tmp / "d-1-dead" / "x").write_bytes(b"x")
    with cache.writer() as writer, cache.scratch() as folder:
        writer.write(DATA)
        BlobCache(cache.directory)
        assert len(work(cache)) == 2
        assert folder.is_dir()
    assert cache.has(DIGEST, len(DATA), verify=True)


def test_many_writers_of_the_same_blob(cache: BlobCache) -> None:
    with ThreadPoolExecutor(6) as pool:
        tasks = [pool.submit(put, BlobCache(cache.directory)) for _ in range(30)]
    assert {task.result() for task in tasks} == {DIGEST}
    assert cache.has(DIGEST, len(DATA), verify=True)
    assert work(cache) == []


def test_a_full_disk_leaves_the_cache_usable(tmp_path: Path) -> None:
    """Both sides: a blob fits, one that does not changes nothing, then one fits again."""
    with tiny_disk(tmp_path / "disk", 4) as disk:
        cache = BlobCache(disk / "cache")
        first = put(cache, b"a" * (1 << 20))
        with pytest.raises(DiskFullError) as caught:
            put(cache, b"b" * (6 << 20))
        assert caught.value.exit_code == 43
        assert work(cache) == []
        assert cache.has(first, 1 << 20, verify=True)
        big = tmp_path / "big"
        big.write_bytes(b"c" * (6 << 20))
        with pytest.raises(DiskFullError):
            cache.add_file(big)
        assert work(cache) == []
        second = put(cache, b"d" * (2 << 20))
        assert cache.has(second, 2 << 20, verify=True)


def test_a_full_disk_while_working_in_a_scratch_folder(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 2) as disk:
        cache = BlobCache(disk / "cache")
        with pytest.raises(DiskFullError), cache.scratch() as folder:
            (folder / "x").write_bytes(bytes(4 << 20))
        assert work(cache) == []
        assert cache.has(put(cache), len(DATA))
