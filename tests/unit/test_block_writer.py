"""Files are written past the page cache where that can be, and always as they were given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgekit.system.block_reader import block_buffer, is_cached
from edgekit.system.block_writer import BlockWriter
from tests.support.tiny_disk import tiny_disk

BLOCK = 1 << 20


def filled(size: int = BLOCK) -> memoryview:
    buffer = block_buffer(BLOCK)
    buffer[:] = os.urandom(BLOCK)
    return buffer[:size]


def write_all(path: Path, blocks: list[memoryview]) -> bytes:
    writer = BlockWriter(path)
    for number, block in enumerate(blocks):
        writer.write(block, number * BLOCK)
    writer.end().result()
    return b"".join(blocks)


def has_direct(folder: Path) -> bool:
    probe = folder / "probe"
    probe.touch()
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("size", [1, 4095, 4096, BLOCK - 1, BLOCK])
def test_a_file_is_what_was_written(tmp_path: Path, size: int) -> None:
    data = write_all(tmp_path / "a", [filled(), filled(), filled(size)])
    assert (tmp_path / "a").read_bytes() == data


def test_whole_blocks_stay_out_of_the_page_cache(tmp_path: Path) -> None:
    if not has_direct(tmp_path):
        pytest.skip("cannot run here: files of this file system are always in memory")
    write_all(tmp_path / "a", [filled(), filled()])
    with (tmp_path / "a").open("rb") as file:
        assert not is_cached(file.fileno(), BLOCK, 0)
        file.read()
        assert is_cached(file.fileno(), BLOCK, 0)


def test_a_file_system_that_does_not_know_it_gets_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = os.pwrite
    direct: list[int] = []

    def without(descriptor: int, data: memoryview, offset: int) -> int:
        if os.get_blocking(descriptor) and _is_direct(descriptor):
            direct.append(descriptor)
            raise OSError(errno.EINVAL, "no such thing here")
        return given(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", without)
    data = write_all(tmp_path / "a", [filled(), filled(9)])
    assert (tmp_path / "a").read_bytes() == data
    assert bool(direct) == has_direct(tmp_path)


def _is_direct(descriptor: int) -> bool:
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
    flags = next(line.split()[1] for line in text.splitlines() if line.startswith("flags:"))
    return bool(int(flags, 8) & os.O_DIRECT)


def test_what_a_full_disk_refused_is_said_at_the_end(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 4) as disk:
        writer = BlockWriter(disk / "a")
        for number in range(8):
            writer.write(filled(), number * BLOCK)
        with pytest.raises(OSError, match="No space") as error:
            writer.end().result()
    assert error.value.errno == errno.ENOSPC


def test_a_file_that_is_there_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kept")
    with pytest.raises(FileExistsError):
        BlockWriter(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "kept"


def test_one_that_is_abandoned_is_closed(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    writer = BlockWriter(tmp_path / "a")
    writer.write(filled(), 0)
    writer.abandon()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_file_system_that_fails_at_close_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    writer, close = BlockWriter(tmp_path / "a"), os.close
    failed: list[int] = []

    def fail_once(descriptor: int) -> None:
        close(descriptor)
        if not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, "at close")

    monkeypatch.setattr(os, "close", fail_once)
    writer.abandon()  # what went wrong before is what is told
    assert failed
    assert set(Path("/proc/self/fd").iterdir()) == before
