"""The file door: what it promises when disks fill, locks are held and links cannot be made."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import (
    BusyError,
    DiskFullError,
    EdgekitError,
    HostError,
    PrivilegeError,
)
from edgekit.exit_codes import ExitCode
from edgekit.system.files import (
    durable_write,
    exclusive_lock,
    free_bytes,
    fsync_tree,
    link_or_copy,
    pwrite_all,
    read_bounded,
    remove_tree,
    switch_link,
    translate_os_error,
    write_all,
)
from tests.support.tiny_disk import tiny_disk

REPOSITORY = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------------- durable writes


def test_a_file_is_written_whole_with_its_mode(tmp_path: Path) -> None:
    old_mask = os.umask(0o077)
    try:
        durable_write(tmp_path / "a", b"content", mode=0o644)
        durable_write(tmp_path / "b", b"", mode=0o600)
    finally:
        os.umask(old_mask)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["a", "b"]


def test_a_file_is_replaced_and_whoever_has_it_open_keeps_the_old_one(tmp_path: Path) -> None:
    durable_write(tmp_path / "a", b"old")
    with (tmp_path / "a").open("rb") as reader:
        durable_write(tmp_path / "a", b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_content_and_no_debris(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 1) as disk:
        durable_write(disk / "a", b"old")
        with pytest.raises(DiskFullError) as caught:
            durable_write(disk / "a", bytes(2 << 20))
        assert caught.value.exit_code == ExitCode.DISK_FULL
        assert (disk / "a").read_bytes() == b"old"
        assert names(disk) == ["a"]
        durable_write(disk / "a", b"fits again")


def test_a_write_that_cannot_replace_leaves_the_old_content_and_no_debris(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").write_bytes(b"old")
    with pytest.raises(HostError):
        durable_write(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["inside"]


def test_what_an_older_crash_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").write_bytes(b"half a file, much longer than the new one")
    durable_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_write_into_a_folder_that_is_not_there_says_where(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        durable_write(tmp_path / "nowhere/a", b"new")
    assert "nowhere" in str(caught.value.where)


def test_a_killed_writer_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    """The process is killed at many moments; a reader never sees anything in between."""
    program = (
        "import sys; from pathlib import Path; from edgekit.system.files import durable_write\n"
        "path = Path(sys.argv[1])\nprint(flush=True)\n"
        "while True:\n"
        "    for letter in b'ab':\n"
        "        durable_write(path, bytes([letter]) * 300_000)\n"
    )
    path = tmp_path / "a"
    path.write_bytes(b"a" * 300_000)
    for wait_ms in (1, 4, 9, 16):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            threading.Event().wait(wait_ms / 1000)
            writer.kill()
        content = path.read_bytes()
        assert content in (b"a" * 300_000, b"b" * 300_000)
        assert set(names(tmp_path)) <= {"a", ".a.tmp"}


def test_short_writes_are_continued() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(reader, 1000):
            received.extend(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    write_all(writer, bytes(range(256)) * 1000)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(received) == bytes(range(256)) * 1000


def test_bytes_land_at_their_offset(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    pwrite_all(descriptor, memoryview(b"there"), 1 << 33)
    assert os.pread(descriptor, 5, 1 << 33) == b"there"
    os.close(descriptor)


# ------------------------------------------------------------------------------------------- locks


HOLD = """
import sys
from pathlib import Path
from edgekit.system.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "this host"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[bytes]:
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=REPOSITORY, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_held_lock_is_refused_at_once_and_names_the_process(tmp_path: Path) -> None:
    with holder(tmp_path / "run/lock") as process:
        with (
            pytest.raises(BusyError) as caught, exclusive_lock(tmp_path / "run/lock", "this host"),
        ):
            raise AssertionError("two processes hold one lock")
        assert caught.value.found == f"process {process.pid}"
        assert caught.value.message == "another edgekit command is changing this host"
        assert caught.value.exit_code == ExitCode.BUSY
        process.kill()
        process.wait()
        with exclusive_lock(tmp_path / "run/lock", "this host"):
            assert (tmp_path / "run/lock").read_text() == str(os.getpid())


def test_a_lock_is_free_again_after_its_block_even_when_that_fails(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive_lock(tmp_path / "lock", "this host"):
            raise ZeroDivisionError


def test_a_lock_is_exclusive_within_one_process_too(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "lock", "this host"),
        pytest.raises(BusyError),
        exclusive_lock(tmp_path / "lock", "this host"),
    ):
        raise AssertionError("held twice")


def test_a_stale_lock_file_does_not_hinder_anybody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"999999 and rubbish \xff")
    with exclusive_lock(tmp_path / "lock", "this host"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_lock_that_cannot_be_made_is_an_error_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostError), exclusive_lock(tmp_path / "file/lock", "this host"):
        raise AssertionError("locked a file below a file")


# ------------------------------------------------------------------------------------------- links


def test_a_link_is_switched_and_never_missing_on_the_way(tmp_path: Path) -> None:
    link = tmp_path / "current"
    switch_link(link, "generations/a")
    assert str(link.readlink()) == "generations/a"
    targets, stop, place = set(), threading.Event(), str(link)

    def look() -> None:
        while not stop.is_set():
            try:
                targets.add(os.readlink(place))  # noqa: PTH115 - as often as it can
            except FileNotFoundError:
                targets.add("missing")

    thread = threading.Thread(target=look)
    thread.start()
    for turn in range(1500):
        switch_link(link, "generations/" + "ab"[turn % 2])
    stop.set()
    thread.join()
    assert targets <= {"generations/a", "generations/b"}
    assert names(tmp_path) == ["current"]


def test_what_an_interrupted_switch_left_behind_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".current.new").symlink_to("half")
    switch_link(tmp_path / "current", "generations/a")
    assert names(tmp_path) == ["current"]


def test_a_switch_that_fails_leaves_the_link_where_it_pointed(tmp_path: Path) -> None:
    switch_link(tmp_path / "current", "generations/a")
    (tmp_path / ".current.new").mkdir()
    with pytest.raises(EdgekitError):
        switch_link(tmp_path / "current", "generations/b")
    assert str((tmp_path / "current").readlink()) == "generations/a"


def test_a_switch_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(EdgekitError):
        switch_link(tmp_path / "current", "generations/a")
    assert (tmp_path / "current").is_dir()
    assert names(tmp_path) == ["current"]


def test_a_file_is_linked_and_not_copied_where_that_is_possible(tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"bytes")
    link_or_copy(source, tmp_path / "deep/down/file")
    assert (tmp_path / "deep/down/file").stat().st_ino == source.stat().st_ino


def test_a_file_with_a_mode_of_its_own_is_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"bytes")
    source.chmod(0o444)
    link_or_copy(source, tmp_path / "program", mode=0o555)
    assert (tmp_path / "program").stat().st_ino != source.stat().st_ino
    assert (tmp_path / "program").stat().st_mode & 0o777 == 0o555
    assert source.stat().st_mode & 0o777 == 0o444


def test_a_file_on_another_file_system_is_copied_read_only(tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"bytes")
    with tiny_disk(tmp_path / "disk", 1) as disk:
        link_or_copy(source, disk / "file")
        assert (disk / "file").read_bytes() == b"bytes"
        assert (disk / "file").stat().st_mode & 0o777 == 0o444


def test_a_link_over_something_that_is_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"new")
    (tmp_path / "there").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "blob", tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"old"


# ----------------------------------------------------------------------------------------- reading


def test_a_file_is_read_up_to_its_limit_and_not_one_byte_more(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5, "a") == b"12345"
    with pytest.raises(HostError, match="too large"):
        read_bounded(tmp_path / "a", 4, "a")


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize("make", [link, nothing, Path.mkdir, os.mkfifo])
def test_anything_but_a_regular_file_is_not_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a")
    with pytest.raises(HostError):
        read_bounded(tmp_path / "a", 5, "a")


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EACCES, PrivilegeError),
     (errno.EPERM, PrivilegeError), (errno.EROFS, PrivilegeError), (errno.EIO, HostError),
     (errno.ENOENT, HostError)],
)
def test_what_the_system_says_becomes_what_a_person_can_act_on(
    number: int, kind: type[EdgekitError]
) -> None:
    error = translate_os_error(OSError(number, "text", "/some/file"), "writing x")
    assert type(error) is kind
    assert (error.where, error.found) == ("/some/file", os.strerror(number))
    assert translate_os_error(OSError("odd"), "writing x").where == "writing x"


def test_free_space_is_told_for_places_that_do_not_exist_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/yet/there") == pytest.approx(free_bytes(tmp_path), rel=0.1)


def test_removing_a_tree_is_idempotent(tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/file").write_bytes(b"")
    (tmp_path / "tree/link").symlink_to(tmp_path)
    fsync_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EIO, "put it back and run the command again"),
        (errno.ENODEV, "put it back and run the command again"),
        (errno.EROFS, "mount it for writing"),
        (errno.EACCES, "run as root"),
        (errno.ENOSPC, "df -h"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(number: int, hint: str) -> None:
    assert hint in str(translate_os_error(OSError(number, "x"), "reading a").hint)
