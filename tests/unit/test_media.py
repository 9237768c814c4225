"""Sets on sticks: every kind of damage is named and located, and a written stick is proven.

One set of four volumes is made once (8 MiB blocks, one per volume but the third, which has two);
each test harms a copy of it. The stick that lies is a reader given as a parameter.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.cli.media_commands import finding_lines
from edgekit.core import findings, set_files
from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event
from edgekit.core.findings import Contents, Copy, Finding, Flaw, Kind, Seen, Wanted
from edgekit.core.host_layout import HostLayout
from edgekit.core.release import BLOCK_BYTES
from edgekit.errors import (
    DigestError,
    DiskFullError,
    HostError,
    InsufficientError,
    SetShapeError,
    SignatureError,
)
from edgekit.exit_codes import ExitCode
from edgekit.operations.media_check import MediaReport, check_media
from edgekit.operations.media_write import parse_volume_numbers, write_media
from edgekit.operations.verify import Trusting, verify_everything
from edgekit.system.block_reader import MediumReader, OpenReader
from edgekit.system.process import run
from edgekit.system.trust_store import TrustStore
from tests.support.sets import Hole, RootBuilder, SetBuilder, quiet
from tests.support.tiny_disk import tiny_disk

MIB = 1 << 20
ENTRIES: dict[str, bytes | Hole] = {
    "documents/small.txt": b"small\n",
    "models/a.bin": b"a" * (2 * BLOCK_BYTES - 6),
    "models/b.bin": b"b" * (2 * BLOCK_BYTES),
    "models/c.bin": b"c" * 4096,
}
"""Volumes of two blocks: 1 has small.txt and a.bin, 2 has b.bin, 3 has c.bin in one short block."""

VOLUMES = ("vol-0001.ekv", "vol-0002.ekv", "vol-0003.ekv")
METADATA = (
    "README.txt", "SHA384SUMS", "SHA384SUMS.sig", "edgekit", "manifest.json", "release.json",
    "trust/1.root.json", "volumes.json",
)


class Fixture:
    """A set, a machine that trusts its signers, and one that trusts nobody."""

    def __init__(self, base: Path) -> None:
        self.folder = SetBuilder(entries=ENTRIES, volume_bytes=2 * BLOCK_BYTES).write(base / "set")
        self.trusting = Trusting(HostLayout(base / "host"))
        TrustStore(self.trusting.layout.trust).save_root(SetBuilder().roots[0].trusted())
        self.nobody = Trusting(HostLayout(base / "courier"))

    def check(
        self, *folders: Path, partial: bool = False, open_reader: OpenReader = MediumReader,
        trusting: Trusting | None = None,
    ) -> MediaReport:
        return check_media(folders, trusting or self.trusting, quiet, partial=partial,
                           open_reader=open_reader)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    return Fixture(tmp_path_factory.mktemp("media"))


@pytest.fixture
def copied(sets: Fixture, tmp_path: Path) -> Path:
    """A copy of the set that a test may harm; volumes are real copies."""
    return Path(shutil.copytree(sets.folder, tmp_path / "copy"))


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def only(report: MediaReport) -> Finding:
    (finding,) = report.findings
    return finding


def flip(path: Path, offset: int) -> None:
    """Change one bit of the byte at an offset, for good."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def reader_that(harm: Callable[[Path, int, memoryview], None]) -> OpenReader:
    """A medium on which `harm` happens to what is read; it may raise OSError."""

    class Harmed(MediumReader):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self._path = path

        def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
            count = super().read_into(buffer, length, offset)
            harm(self._path, offset, buffer[:count])
            return count

    return Harmed


# ------------------------------------------------------------------------------------- checking


def test_an_intact_set_has_no_findings(sets: Fixture) -> None:
    report = sets.check(sets.folder)
    assert (report.findings, report.exit_code, report.signers) == ((), 0, ("ann", "ben"))
    assert report.volumes == VOLUMES
    assert report.read_bytes > 4 * BLOCK_BYTES


def test_a_damaged_block_is_named_with_bytes_and_entries(sets: Fixture, copied: Path) -> None:
    flip(copied / "vol-0001.ekv", 2 * BLOCK_BYTES - 1)
    report = sets.check(copied)
    assert only(report).line() == (
        "volume vol-0001.ekv is damaged: block 1 (bytes 8388608 to 16777215), part of "
        "models/a.bin; copy vol-0001.ekv again"
    )
    assert report.exit_code == ExitCode.DIGEST
    assert report.table()["copy_again"] == ["vol-0001.ekv"]
    assert report.table()["findings"][0]["bytes"] == [BLOCK_BYTES, 2 * BLOCK_BYTES - 1]


def test_a_block_of_two_entries_names_both(sets: Fixture, copied: Path) -> None:
    flip(copied / "vol-0001.ekv", 0)
    assert only(sets.check(copied)).entries == ("documents/small.txt", "models/a.bin")


@pytest.mark.parametrize("trusted", [True, False])
def test_random_flips_are_located_exactly(sets: Fixture, copied: Path, trusted: bool) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    planned: set[tuple[str, int]] = set()
    for _ in range(chance.randrange(1, 5)):
        name = chance.choice(VOLUMES)
        offset = chance.randrange((copied / name).stat().st_size)
        if (name, offset // BLOCK_BYTES) not in planned:  # a second flip could undo the first
            planned.add((name, offset // BLOCK_BYTES))
            flip(copied / name, offset)
    report = sets.check(copied, trusting=None if trusted else sets.nobody)
    fired = {(f.file, f.block) for f in report.findings}
    print(f"seed {seed}: planned {sorted(planned)}, fired {sorted(fired, key=str)}")
    assert fired == planned
    assert (report.signers is None) is not trusted
    assert all(finding.entries for finding in report.findings)


@pytest.mark.parametrize("name", [*METADATA, *VOLUMES])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_flip_in_any_file_names_that_file(
    sets: Fixture, copied: Path, name: str, trusted: bool
) -> None:
    flip(copied / name, (copied / name).stat().st_size // 2)
    report = sets.check(copied, trusting=None if trusted else sets.nobody)
    if name == set_files.SUMS and not trusted:  # it or the files: nobody can tell
        assert "SHA384SUMS" in {finding.file for finding in report.findings}
        assert {f.file for f in report.findings} <= {"SHA384SUMS", "SHA384SUMS.sig"}
        assert report.stopped
        return
    assert (only(report).kind, only(report).file) == (Kind.DAMAGED, name)
    assert report.exit_code == ExitCode.DIGEST


@pytest.mark.parametrize("name", [*METADATA, *VOLUMES])
@pytest.mark.parametrize("trusted", [True, False])
def test_any_missing_file_is_named(
    sets: Fixture, copied: Path, name: str, trusted: bool
) -> None:
    (copied / name).unlink()
    report = sets.check(copied, trusting=None if trusted else sets.nobody)
    assert (only(report).kind, only(report).file) == (Kind.MISSING, name)
    assert report.exit_code == ExitCode.SET_SHAPE


def test_a_missing_volume_names_what_is_lost(sets: Fixture, copied: Path) -> None:
    (copied / "vol-0002.ekv").unlink()
    assert only(sets.check(copied)).line() == (
        "volume vol-0002.ekv is missing, with models/b.bin; copy vol-0002.ekv from the packager's "
        "set, or add --one-of-many if it lies on another stick"
    )


def test_a_truncated_volume_says_what_is_cut_off(sets: Fixture, copied: Path) -> None:
    os.truncate(copied / "vol-0001.ekv", BLOCK_BYTES + 5)
    report = sets.check(copied)
    assert only(report).kind == Kind.TRUNCATED
    assert only(report).words == (
        "volume vol-0001.ekv is too short: 8388613 bytes instead of 16777216, cut off in "
        "models/a.bin"
    )
    assert report.exit_code == ExitCode.SET_SHAPE
    flip(copied / "vol-0001.ekv", 5)
    kinds = [finding.kind for finding in sets.check(copied).findings]
    assert kinds == [Kind.TRUNCATED, Kind.DAMAGED]


def test_a_grown_volume_is_named(sets: Fixture, copied: Path) -> None:
    with (copied / "vol-0003.ekv").open("ab") as file:
        file.write(b"more")
    report = sets.check(copied)
    assert (only(report).kind, report.exit_code) == (Kind.GROWN, ExitCode.SET_SHAPE)
    assert "4100 bytes instead of 4096" in only(report).words


def test_a_volume_on_two_sticks_is_named(sets: Fixture, copied: Path) -> None:
    for name in VOLUMES[1:]:
        (copied / name).unlink()
    report = sets.check(sets.folder, copied)
    assert (only(report).kind, only(report).file) == (Kind.DUPLICATE, "vol-0001.ekv")
    assert str(copied) in only(report).words
    flip(copied / "vol-0001.ekv", 5)
    bad = sets.check(sets.folder, copied).findings[1]
    assert (bad.kind, bad.folder) == (Kind.DAMAGED, str(copied))
    assert f"in {copied}" in bad.words


@pytest.mark.parametrize("name", ["notes.txt", "vol-0009.ekv", "trust/9.root.json", "folder"])
def test_a_foreign_file_is_named_and_nothing_else(
    sets: Fixture, copied: Path, name: str
) -> None:
    if name == "folder":
        (copied / name).mkdir()
    else:
        (copied / name).write_bytes(b"not ours")
    report = sets.check(copied)
    assert (only(report).kind, report.exit_code) == (Kind.FOREIGN, ExitCode.SET_SHAPE)
    assert name.rpartition("/")[2] in only(report).words


def test_a_name_that_could_confuse_a_terminal_is_escaped(sets: Fixture, copied: Path) -> None:
    (copied / "a\x1b[2Jb\udcff").write_bytes(b"")
    line = only(sets.check(copied)).line()
    assert line.startswith(r"a\x1b[2Jb\udcff does not belong")
    assert line.encode()


def test_a_link_in_place_of_a_volume_is_not_followed(
    sets: Fixture, copied: Path, tmp_path: Path
) -> None:
    (copied / "vol-0003.ekv").rename(tmp_path / "elsewhere")
    (copied / "vol-0003.ekv").symlink_to(tmp_path / "elsewhere")
    report = sets.check(copied)
    assert (only(report).kind, report.exit_code) == (Kind.NOT_A_FILE, ExitCode.SET_SHAPE)


def test_an_unfinished_copy_is_called_that(sets: Fixture, copied: Path) -> None:
    for name in (".vol-0002.ekv.tmp", "trust/.1.root.json.tmp"):
        (copied / name).write_bytes(b"half")
    kinds = [finding.kind for finding in sets.check(copied).findings]
    assert kinds == [Kind.UNFINISHED, Kind.UNFINISHED]


def test_sidecar_files_are_ignored(sets: Fixture, copied: Path) -> None:
    (copied / ".DS_Store").write_bytes(b"mac")
    (copied / "trust/._1.root.json").write_bytes(b"mac")
    (copied / "System Volume Information").mkdir()
    assert sets.check(copied).findings == ()


def test_unreadable_blocks_are_named_and_the_rest_is_read(sets: Fixture, copied: Path) -> None:
    flip(copied / "vol-0002.ekv", 2 * BLOCK_BYTES - 1)

    def bad_sector(path: Path, offset: int, _data: memoryview) -> None:
        if path.name == "vol-0002.ekv" and offset == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    report = sets.check(copied, open_reader=reader_that(bad_sector))
    assert [(f.kind, f.file, f.block) for f in report.findings] == [
        (Kind.UNREADABLE, "vol-0002.ekv", 0), (Kind.DAMAGED, "vol-0002.ekv", 1)
    ]
    assert report.findings[0].line() == (
        "volume vol-0002.ekv cannot be read (input/output error): block 0 (bytes 0 to 8388607), "
        "part of models/b.bin; copy vol-0002.ekv to another stick"
    )


def test_everything_at_once_is_all_found(sets: Fixture, copied: Path) -> None:
    flip(copied / "vol-0001.ekv", 1)
    flip(copied / "vol-0001.ekv", BLOCK_BYTES + 1)
    (copied / "vol-0002.ekv").unlink()
    os.truncate(copied / "vol-0003.ekv", 10)
    flip(copied / "README.txt", 3)
    (copied / "edgekit").unlink()
    (copied / "notes.txt").write_bytes(b"")
    report = sets.check(copied)
    assert [(f.kind, f.file) for f in report.findings] == [
        (Kind.DAMAGED, "README.txt"), (Kind.MISSING, "edgekit"), (Kind.FOREIGN, "notes.txt"),
        (Kind.DAMAGED, "vol-0001.ekv"), (Kind.DAMAGED, "vol-0001.ekv"),
        (Kind.MISSING, "vol-0002.ekv"), (Kind.TRUNCATED, "vol-0003.ekv"),
    ]
    assert report.exit_code == ExitCode.DIGEST  # damage wins over shape


@pytest.mark.parametrize("names", [("manifest.json",), ("volumes.json", "manifest.json")])
def test_damaged_documents_are_named_and_the_volumes_left_unread(
    sets: Fixture, copied: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        flip(copied / name, 40)
    flip(copied / "vol-0001.ekv", 0)
    report = sets.check(copied)
    assert [f.file for f in report.findings] == sorted(names)
    assert report.stopped
    assert report.read_bytes < BLOCK_BYTES


def test_a_courier_with_sha384sums_alone_still_learns_which_volume(
    sets: Fixture, copied: Path
) -> None:
    for name in ("release.json", "manifest.json", "volumes.json", "SHA384SUMS.sig"):
        (copied / name).unlink()
    flip(copied / "vol-0002.ekv", 99)
    report = sets.check(copied, trusting=sets.nobody)
    assert [f.file for f in report.findings if f.kind == Kind.DAMAGED] == ["vol-0002.ekv"]
    assert (report.signers, report.stopped) == (None, False)
    assert len(report.findings) == 5


def test_a_set_of_a_newer_format_is_still_compared_with_sha384sums(
    sets: Fixture, copied: Path
) -> None:
    (copied / "manifest.json").write_bytes(b'{"format":2}')
    lines = (copied / "SHA384SUMS").read_text().splitlines()
    changed = Digest.of(b'{"format":2}').value + "  manifest.json"
    lines = [changed if line.endswith("  manifest.json") else line for line in lines]
    (copied / "SHA384SUMS").write_text("".join(f"{line}\n" for line in lines))
    (copied / "SHA384SUMS.sig").unlink()
    flip(copied / "vol-0002.ekv", 5)
    report = sets.check(copied, trusting=sets.nobody)
    assert [(f.file, f.kind) for f in report.findings] == [
        ("SHA384SUMS.sig", Kind.MISSING), ("vol-0002.ekv", Kind.DAMAGED)
    ]


def test_without_trust_and_sha384sums_nothing_can_be_checked(sets: Fixture, copied: Path) -> None:
    (copied / "SHA384SUMS").write_text("nonsense\n")
    report = sets.check(copied, trusting=sets.nobody)
    assert (only(report).file, report.stopped) == ("SHA384SUMS", True)


@pytest.mark.parametrize("where", range(5))
def test_a_wrong_line_in_sha384sums_is_not_blamed_on_the_file_it_names(
    sets: Fixture, copied: Path, where: int
) -> None:
    sums = copied / "SHA384SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    lines[where] = ("1" if lines[where][0] == "0" else "0") + lines[where][1:]
    sums.write_text("".join(lines))
    report = sets.check(copied, trusting=sets.nobody)
    assert [f.file for f in report.findings] == ["SHA384SUMS", "SHA384SUMS.sig"]
    (copied / "SHA384SUMS.sig").unlink()
    assert sets.check(copied).findings[0].file == "SHA384SUMS"


def test_strangers_are_not_called_damage(sets: Fixture, tmp_path: Path) -> None:
    theirs = SetBuilder(roots=(RootBuilder(signers=("eve", "mallory")),)).write(tmp_path / "x")
    with pytest.raises(SignatureError):
        sets.check(theirs)
    assert sets.check(theirs, trusting=sets.nobody).findings == ()


def test_a_folder_without_a_set_says_so(sets: Fixture, tmp_path: Path) -> None:
    with pytest.raises(SetShapeError, match="no bundle set here"):
        sets.check(tmp_path)


@pytest.mark.parametrize("trusted", [True, False])
def test_one_stick_of_many(sets: Fixture, copied: Path, trusted: bool) -> None:
    for name in ("vol-0001.ekv", "vol-0003.ekv"):
        (copied / name).unlink()
    trusting = None if trusted else sets.nobody
    report = sets.check(copied, partial=True, trusting=trusting)
    assert [(f.kind, f.file) for f in report.findings] == [
        (Kind.ELSEWHERE, "vol-0001.ekv"), (Kind.ELSEWHERE, "vol-0003.ekv")
    ]
    assert report.findings[0].line() == "volume vol-0001.ekv is not on this stick"
    assert report.exit_code == ExitCode.OK
    flip(copied / "vol-0002.ekv", 0)
    report = sets.check(copied, partial=True, trusting=trusting)
    assert report.exit_code == ExitCode.DIGEST


def test_a_read_only_stick_is_checked(sets: Fixture, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 48) as disk:
        shutil.copytree(sets.folder, disk / "set")
        flip(disk / "set/vol-0003.ekv", 0)
        run(["mount", "-o", "remount,ro", str(disk)], timeout_s=20)
        assert only(sets.check(disk / "set")).file == "vol-0003.ekv"
        with pytest.raises(HostError, match="the stick cannot be written to"):
            write_media((sets.folder,), disk, None, sets.trusting, quiet)


def test_many_bad_blocks_are_told_in_a_few_lines() -> None:
    wanted = Wanted("vol-0001.ekv", 100 * BLOCK_BYTES)
    flaws = [Flaw("vol-0001.ekv", "/s", n, n * BLOCK_BYTES, n) for n in range(9, 0, -1)]
    seen = Seen({"vol-0001.ekv": (Copy("/s", 100 * BLOCK_BYTES),)})
    found = findings.list_findings([wanted], seen, flaws, None)
    assert [finding.block for finding in found] == list(range(1, 10))
    lines = finding_lines(found)
    assert len(lines) == 6
    assert lines[-1] == "  and 4 more in vol-0001.ekv; --json lists all"


def test_entries_are_found_at_every_edge(sets: Fixture) -> None:
    verified = verify_everything((sets.folder,), sets.trusting, quiet)
    contents = Contents(verified.table, verified.manifest)
    assert contents.entries_in(0, 0, 5) == ("documents/small.txt",)
    assert contents.entries_in(0, 5, 6) == ("documents/small.txt", "models/a.bin")
    assert contents.entries_in(0, 6, 6) == ("models/a.bin",)
    assert contents.entries_in(1, 2 * BLOCK_BYTES - 1, 2 * BLOCK_BYTES - 1) == ("models/b.bin",)


# -------------------------------------------------------------------------------------- writing


def test_a_written_stick_verifies_and_holds_nothing_else(sets: Fixture, stick: Path) -> None:
    (stick / "holiday.jpg").write_bytes(b"mine")
    written = write_media((sets.folder,), stick, None, sets.trusting, quiet)
    assert written.folder == stick / "demo-1.0.0"
    assert verify_everything((written.folder,), sets.trusting, quiet).manifest.name == "demo"
    names = {str(p.relative_to(written.folder)) for p in written.folder.rglob("*") if p.is_file()}
    assert names == {*METADATA, *VOLUMES} == set(written.copied)
    assert (stick / "holiday.jpg").read_bytes() == b"mine"
    assert os.access(written.folder / "edgekit", os.X_OK)
    assert (written.copied[0], written.copied[-1]) == ("SHA384SUMS", "release.json")


def test_a_machine_without_trust_may_write(sets: Fixture, stick: Path) -> None:
    written = write_media((sets.folder,), stick, None, sets.nobody, quiet)
    assert written.signers is None
    assert sets.check(written.folder).findings == ()


def test_a_set_splits_over_sticks(sets: Fixture, tmp_path: Path) -> None:
    folders = []
    for number, chosen in enumerate(({1, 3}, {2})):
        stick = tmp_path / str(number)
        stick.mkdir()
        written = write_media((sets.folder,), stick, frozenset(chosen), sets.trusting, quiet)
        folders.append(written.folder)
        assert sets.check(written.folder, partial=True).exit_code == ExitCode.OK
        assert sets.check(written.folder).exit_code == ExitCode.SET_SHAPE
    assert sets.check(*folders).findings == ()
    verify_everything(tuple(folders), sets.trusting, quiet)


def test_an_interrupted_copy_is_resumed(sets: Fixture, stick: Path) -> None:
    done = 0

    def interrupt(event: Event) -> None:
        nonlocal done
        if isinstance(event, Advanced) and event.task == "write":
            done += event.amount
            if done > 3 * BLOCK_BYTES:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_media((sets.folder,), stick, None, sets.trusting, interrupt)
    folder = stick / "demo-1.0.0"
    assert not (folder / "release.json").exists()
    assert not list(folder.rglob(".*"))
    stamp = (folder / "vol-0001.ekv").stat().st_mtime_ns
    for name in (".vol-0002.ekv.tmp", ".README.txt.tmp"):
        (folder / name).write_bytes(b"left by a power cut")
    written = write_media((sets.folder,), stick, None, sets.trusting, quiet)
    assert written.copied == ("vol-0002.ekv", "vol-0003.ekv", "release.json")
    assert (folder / "vol-0001.ekv").stat().st_mtime_ns == stamp
    assert sets.check(folder).findings == ()
    assert write_media((sets.folder,), stick, None, sets.trusting, quiet).copied == ()


def test_a_damaged_file_on_the_stick_is_copied_again(sets: Fixture, stick: Path) -> None:
    folder = write_media((sets.folder,), stick, None, sets.trusting, quiet).folder
    flip(folder / "vol-0002.ekv", 77)
    os.truncate(folder / "README.txt", 5)
    written = write_media((sets.folder,), stick, None, sets.trusting, quiet)
    assert written.copied == ("README.txt", "vol-0002.ekv")
    assert sets.check(folder).findings == ()


def test_a_stick_that_lies_is_found_and_named(sets: Fixture, stick: Path) -> None:
    def lie(path: Path, offset: int, data: memoryview) -> None:
        if path == stick / "demo-1.0.0/vol-0001.ekv" and offset == BLOCK_BYTES:
            data[123] ^= 1

    with pytest.raises(DigestError, match=r"volume vol-0001\.ekv was written but") as caught:
        write_media((sets.folder,), stick, None, sets.trusting, quiet,
                    open_reader=reader_that(lie))
    assert "block 1 (bytes 8388608 to 16777215), part of models/a.bin" in str(caught.value.found)
    assert "do not carry this stick" in str(caught.value.hint)


def test_a_stick_that_forgets_old_files_while_new_ones_are_written_is_found(
    sets: Fixture, stick: Path
) -> None:
    """What sticks with a forged capacity do: later writes land on earlier files."""
    folder = write_media((sets.folder,), stick, frozenset({1}), sets.trusting, quiet).folder

    def forget(event: Event) -> None:
        if isinstance(event, Advanced) and event.task == "write":
            (folder / "vol-0001.ekv").write_bytes(bytes(2 * BLOCK_BYTES))

    with pytest.raises(DigestError, match=r"vol-0001\.ekv"):
        write_media((sets.folder,), stick, None, sets.trusting, forget)


def test_a_small_stick_is_refused_before_the_first_byte(sets: Fixture, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 18) as disk:
        with pytest.raises(InsufficientError) as caught:
            write_media((sets.folder,), disk, None, sets.trusting, quiet)
        assert "--volumes 1-1" in str(caught.value.hint)
        assert list(disk.iterdir()) == []
        write_media((sets.folder,), disk, frozenset({1}), sets.trusting, quiet)


def test_a_stick_that_fills_up_keeps_what_is_complete(sets: Fixture, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 40) as disk:

        def fill(event: Event) -> None:
            if isinstance(event, Advanced) and event.amount == BLOCK_BYTES:
                (disk / "filler").write_bytes(bytes(20 * MIB))

        with pytest.raises(DiskFullError):
            write_media((sets.folder,), disk, None, sets.trusting, fill)
        assert not list((disk / "demo-1.0.0").rglob(".*"))
        (disk / "filler").unlink()
        written = write_media((sets.folder,), disk, None, sets.trusting, quiet)
        assert (written.copied, "vol-0001.ekv" in written.kept) == (
            ("vol-0002.ekv", "vol-0003.ekv", "release.json"), True
        )


@pytest.mark.parametrize("what", ["volume", "document", "foreign"])
def test_what_lies_on_the_stick_already_is_never_touched(
    sets: Fixture, stick: Path, tmp_path: Path, what: str
) -> None:
    folder = stick / "demo-1.0.0"
    if what == "foreign":
        folder.mkdir()
        (folder / "thesis.doc").write_bytes(b"mine")
    else:
        other = SetBuilder(sequence=2, entries=ENTRIES).write(tmp_path / "other")
        name = {"volume": "vol-0001.ekv", "document": "release.json"}[what]
        folder.mkdir()
        shutil.copyfile(other / name, folder / name)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SetShapeError) as caught:
        write_media((sets.folder,), stick, None, sets.trusting, quiet)
    assert "another stick" in str(caught.value.hint)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_source_is_refused_and_not_put_on_the_stick(
    sets: Fixture, copied: Path, stick: Path
) -> None:
    flip(copied / "vol-0002.ekv", BLOCK_BYTES)
    with pytest.raises(DigestError, match=r"vol-0002\.ekv is damaged in the set you copy from"):
        write_media((copied,), stick, None, sets.trusting, quiet)
    assert not list(stick.rglob("*vol-0002*"))
    assert not list(stick.rglob("release.json"))


def test_a_source_that_is_not_whole_is_refused_at_once(
    sets: Fixture, copied: Path, stick: Path
) -> None:
    (copied / "vol-0003.ekv").unlink()
    with pytest.raises(SetShapeError, match="not whole") as caught:
        write_media((copied,), stick, None, sets.trusting, quiet)
    assert "vol-0003.ekv is missing" in str(caught.value.found)
    assert list(stick.iterdir()) == []
    write_media((copied,), stick, frozenset({1, 2}), sets.trusting, quiet)


def test_a_stick_that_is_not_mounted_is_said(sets: Fixture, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no such folder"):
        write_media((sets.folder,), tmp_path / "nowhere", None, sets.trusting, quiet)


def test_a_volume_the_set_does_not_have_is_refused(sets: Fixture, stick: Path) -> None:
    with pytest.raises(SetShapeError, match="no volume 4"):
        write_media((sets.folder,), stick, frozenset({4}), sets.trusting, quiet)


@pytest.mark.parametrize(
    ("text", "numbers"), [("1-3", {1, 2, 3}), ("2", {2}), ("2,5-6", {2, 5, 6}), (" 1 , 2", {1, 2})]
)
def test_volume_numbers(text: str, numbers: set[int]) -> None:
    assert parse_volume_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "3-1", "a", "1-", "1;2", "-1"])
def test_what_is_no_volume_number(text: str) -> None:
    with pytest.raises(ValueError, match="no volume numbers"):
        parse_volume_numbers(text)


# --------------------------------------------------------------------------------- command line


def test_the_commands_print_and_end_as_documented(
    sets: Fixture, stick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(sets.nobody.layout.root)]
    assert main(["media", "write", str(sets.folder), str(stick), "--volumes", "2", *root]) == 0
    assert capsys.readouterr().out.endswith("safe to remove: eject the stick, then pull it out\n")
    folder = stick / "demo-1.0.0"
    assert main(["media", "check", "--one-of-many", str(folder), *root]) == 0
    out = capsys.readouterr().out
    assert "demo-1.0.0 is intact: 1 volume," in out
    assert "signatures were NOT checked" in out
    assert main(["media", "check", str(folder), *root]) == ExitCode.SET_SHAPE
    assert "demo-1.0.0: copy again vol-0001.ekv, vol-0003.ekv" in capsys.readouterr().out
    flip(folder / "vol-0002.ekv", 0)
    assert main(["media", "check", str(folder), "--json", *root]) == ExitCode.DIGEST
    table = json.loads(capsys.readouterr().out)
    assert table["schema"] == "edgekit.media-check/1"
    assert (table["intact"], table["signatures_checked"]) == (False, False)
    assert {finding["kind"] for finding in table["findings"]} == {"missing", "damaged"}
    assert main(["media", "write", str(sets.folder), str(stick), "--volumes", "x", *root]) == 2
