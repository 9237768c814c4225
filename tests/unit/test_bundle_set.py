"""A set on its medium: any damage to any file is refused, with the code and the name of the file.

One small set of three volumes is made once; each test harms it and puts it back.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core import set_files, trust
from edgekit.core.host_layout import HostLayout
from edgekit.core.release import BLOCK_BYTES
from edgekit.core.sshsig import verify_ssh
from edgekit.errors import (
    DigestError,
    EdgekitError,
    FormatError,
    HostError,
    SetShapeError,
    SignatureError,
)
from edgekit.exit_codes import ExitCode
from edgekit.operations.verify import Trusting, verify_everything, verify_metadata
from edgekit.system.bundle_set import VerifiedSet, open_set, verify_set
from edgekit.system.trust_store import TrustStore
from edgekit.system.volumes import read_volumes
from tests.support.sets import Hole, RootBuilder, SetBuilder, damaged, quiet

ENTRIES: dict[str, bytes | Hole] = {
    "documents/empty.txt": b"",
    "documents/small.txt": b"small\n",
    "models/a.bin": Hole(BLOCK_BYTES + 4096),
    "models/b.bin": b"b" * (BLOCK_BYTES - 100),
}
METADATA = (
    "README.txt", "edgekit", "SHA384SUMS", "SHA384SUMS.sig", "trust/1.root.json", "release.json",
    "manifest.json", "volumes.json",
)
VOLUMES = ("vol-0001.ekv", "vol-0002.ekv", "vol-0003.ekv")

EXPECTED_CODE = {
    "release.json": {ExitCode.FORMAT, ExitCode.SIGNATURE},
    "SHA384SUMS.sig": {ExitCode.SIGNATURE},
}
"""What a flipped bit in a file says; everything else says DIGEST."""


class Fixture:
    """A set, the host that trusts it, and a second valid set by the same people."""

    def __init__(self, base: Path) -> None:
        self.folder = SetBuilder(entries=ENTRIES, volume_bytes=2 * BLOCK_BYTES).write(base / "one")
        self.small = SetBuilder(entries=ENTRIES).write(base / "demo")
        other = {**ENTRIES, "models/b.bin": b"c" * (BLOCK_BYTES - 100)}
        self.other = SetBuilder(entries=other).write(base / "other")
        self.layout = HostLayout(base / "host")
        TrustStore(self.layout.trust).save_root(SetBuilder().roots[0].trusted())
        self.host = TrustStore(self.layout.trust).load()

    def verify(self, *folders: Path) -> VerifiedSet:
        return verify_everything(folders or (self.small,), Trusting(self.layout), quiet)

    def metadata(self, *folders: Path) -> VerifiedSet:
        return verify_set(open_set(folders or (self.small,)), self.host)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    return Fixture(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def copied(sets: Fixture, tmp_path: Path) -> Path:
    """A copy of the set that a test may take apart."""
    return Path(shutil.copytree(sets.small, tmp_path / "copy"))


def named_in(error: EdgekitError, name: str) -> bool:
    """Whether the person reading the error learns which file it is about."""
    return any(name in (text or "")
               for text in (error.message, error.where, error.found, error.hint))


def test_an_undamaged_set_is_accepted(sets: Fixture) -> None:
    names = {path.relative_to(sets.small).as_posix() for path in sets.small.rglob("*.*")}
    assert names | {"edgekit", "SHA384SUMS"} == {*METADATA, *VOLUMES}
    verified = sets.verify()
    assert [volume.name for volume in verified.table.volumes] == list(VOLUMES)
    assert verified.opened.foreign == ()
    assert [v.size for v in sets.verify(sets.folder).table.volumes] == [2 * BLOCK_BYTES, 4002]


@pytest.mark.parametrize("name", METADATA)
def test_a_flipped_bit_anywhere_in_a_document_is_refused(sets: Fixture, name: str) -> None:
    path = sets.small / name
    size = path.stat().st_size
    dice = random.Random(name)
    planned = {0, size - 1, *(dice.randrange(size) for _ in range(120))}
    codes = set()
    for offset in planned:
        with damaged(path, offset, dice.randrange(8)), pytest.raises(EdgekitError) as caught:
            sets.metadata()
        codes.add(caught.value.exit_code)
        assert named_in(caught.value, name), (offset, caught.value.message)
    assert codes <= EXPECTED_CODE.get(name, {ExitCode.DIGEST})
    sets.metadata()


def test_every_bit_of_the_strangers_signature_counts(sets: Fixture) -> None:
    sums = (sets.small / "SHA384SUMS").read_bytes()
    good = (sets.small / "SHA384SUMS.sig").read_bytes()
    keys = trust.ssh_keys(sets.host.require_root())
    verify_ssh(good, sums, keys)
    for position in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(SignatureError):
            verify_ssh(bytes(flipped), sums, keys)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_flipped_bit_anywhere_in_a_volume_names_volume_and_block(
    sets: Fixture, name: str
) -> None:
    path = sets.small / name
    size = path.stat().st_size
    dice = random.Random(name)
    for offset in {0, size - 1, *(dice.randrange(size) for _ in range(4))}:
        with damaged(path, offset, dice.randrange(8)), pytest.raises(DigestError) as caught:
            sets.verify()
        assert caught.value.message == f"volume {name} is damaged"
        assert str(caught.value.where).startswith(f"block 0, bytes 0 to {size - 1}, blobs ")
        assert caught.value.hint == f"copy {name} again"


def test_the_block_that_is_damaged_is_the_one_that_is_named(sets: Fixture) -> None:
    with damaged(sets.folder / "vol-0001.ekv", BLOCK_BYTES), pytest.raises(DigestError) as caught:
        sets.verify(sets.folder)
    assert str(caught.value.where).startswith(
        f"block 1, bytes {BLOCK_BYTES} to {2 * BLOCK_BYTES - 1}, "
    )


def test_a_damaged_volume_does_not_hinder_looking_into_the_set(sets: Fixture) -> None:
    with damaged(sets.small / "vol-0002.ekv", 77):
        assert sets.metadata().manifest.name == "demo"


# ------------------------------------------------------------------------------- lengths and names


@pytest.mark.parametrize("name", [*METADATA, *VOLUMES])
def test_a_missing_file_is_refused_by_name(sets: Fixture, copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(SetShapeError) as caught:
        sets.metadata(copied)
    assert named_in(caught.value, name)
    assert caught.value.exit_code == ExitCode.SET_SHAPE


@pytest.mark.parametrize("name", [*METADATA, *VOLUMES])
@pytest.mark.parametrize("change", [-1, +1])
def test_a_file_one_byte_too_short_or_too_long_is_refused_by_name(
    sets: Fixture, copied: Path, name: str, change: int
) -> None:
    path = copied / name
    if change < 0:
        os.truncate(path, path.stat().st_size - 1)
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(EdgekitError) as caught:
        sets.metadata(copied)
    assert named_in(caught.value, name)
    allowed = {
        "release.json": FormatError, "SHA384SUMS": DigestError, "SHA384SUMS.sig": SignatureError}
    assert isinstance(caught.value, allowed.get(name, SetShapeError))


def test_a_document_above_its_size_limit_is_not_even_read(sets: Fixture, copied: Path) -> None:
    os.truncate(copied / "README.txt", set_files.MAX_SMALL_FILE_BYTES + 1)
    with pytest.raises(SetShapeError, match="too large"):
        sets.metadata(copied)


def test_swapped_volumes_are_refused(sets: Fixture, copied: Path) -> None:
    first, second = copied / "vol-0001.ekv", copied / "vol-0002.ekv"
    first.rename(copied / "aside")
    second.rename(first)
    (copied / "aside").rename(second)
    sets.metadata(copied)
    with pytest.raises(DigestError, match=r"volume vol-0001\.ekv is damaged"):
        sets.verify(copied)


@pytest.mark.parametrize("name", ["vol-0004.ekv", "vol-9999.ekv", "trust/2.root.json"])
def test_a_file_that_could_belong_to_a_set_but_not_to_this_one_is_refused(
    sets: Fixture, copied: Path, name: str
) -> None:
    (copied / name).write_bytes((copied / "trust/1.root.json").read_bytes())
    with pytest.raises(EdgekitError) as caught:
        sets.metadata(copied)
    assert isinstance(caught.value, SetShapeError) or "root versions" in caught.value.message


@pytest.mark.parametrize(
    "name", ["install.sh", "vol-1.ekv", "VOL-0001.EKV", "autorun.inf", "trust/evil",
             "release.json~", "trust/0.root.json", "trust/10000.root.json"]
)
def test_a_foreign_file_is_refused_by_name_and_never_read(
    sets: Fixture, copied: Path, name: str
) -> None:
    (copied / name).write_bytes(b"boo")
    (copied / name).chmod(0)
    with pytest.raises(SetShapeError, match="does not belong") as caught:
        sets.metadata(copied)
    assert named_in(caught.value, name)


def test_a_foreign_folder_is_refused(sets: Fixture, copied: Path) -> None:
    (copied / "more").mkdir()
    with pytest.raises(SetShapeError, match="does not belong"):
        sets.metadata(copied)


@pytest.mark.parametrize(
    "name", ["._vol-0001.ekv", ".DS_Store", "Thumbs.db", "desktop.ini", ".Trashes", ".Trash-1000",
             ".Spotlight-V100", ".fseventsd", "System Volume Information", "$RECYCLE.BIN",
             "lost+found", "trust/._1.root.json"]
)
@pytest.mark.parametrize("is_folder", [False, True])
def test_what_operating_systems_drop_on_sticks_is_ignored(
    sets: Fixture, copied: Path, name: str, is_folder: bool
) -> None:
    if is_folder:
        (copied / name).mkdir()
    else:
        (copied / name).write_bytes(b"\0" * 4096)
    assert sets.metadata(copied).manifest.name == "demo"


# --------------------------------------------------------------------------------- kinds of files


def make_link(path: Path) -> None:
    path.rename(path.with_name(".DS_Store"))
    path.symlink_to(".DS_Store")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("name", [*METADATA, VOLUMES[0]])
@pytest.mark.parametrize("make", [make_link, make_pipe, make_folder, make_dangling_link])
def test_anything_but_a_regular_file_is_refused_at_once(
    sets: Fixture, copied: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(copied / name)
    with pytest.raises(SetShapeError, match="not a regular file") as caught:
        open_set((copied,))
    assert named_in(caught.value, name)


def test_a_link_to_the_folder_of_roots_is_refused(sets: Fixture, copied: Path) -> None:
    (copied / "trust").rename(copied / ".Trashes")
    (copied / "trust").symlink_to(".Trashes")
    with pytest.raises(SetShapeError):
        sets.metadata(copied)


def test_a_volume_that_becomes_a_link_after_the_look_is_not_followed(
    sets: Fixture, copied: Path
) -> None:
    verified = sets.metadata(copied)
    make_link(copied / VOLUMES[1])
    with pytest.raises(EdgekitError):
        read_volumes(verified.table, verified.volume_path, wanted=None, sink=None,
                     listener=quiet, task="verify")


def test_a_volume_that_shrinks_while_it_is_read_is_refused(sets: Fixture, copied: Path) -> None:
    verified = sets.metadata(copied)
    os.truncate(copied / VOLUMES[2], 5)
    with pytest.raises(DigestError, match="ends too early"):
        read_volumes(verified.table, verified.volume_path, wanted=None, sink=None,
                     listener=quiet, task="verify")


def test_a_verified_set_cannot_be_made_by_hand(sets: Fixture) -> None:
    good = sets.metadata()
    with pytest.raises(TypeError, match="verify_set"):
        VerifiedSet(good.opened, good.root, (), good.statement, good.manifest, good.table, {},
                    object())


@pytest.mark.parametrize("lost", ["", "trust"])
def test_a_medium_that_goes_while_it_is_listed_is_said(
    sets: Fixture, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    scandir = os.scandir

    def pulled(path: Path) -> object:
        if Path(path) == sets.small / lost:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", pulled)
    with pytest.raises(HostError, match="reading"):
        open_set((sets.small,))


# --------------------------------------------------------------------------------- several folders


OTHERS = {
    "SHA384SUMS": (DigestError, "SHA384SUMS is damaged"),
    "SHA384SUMS.sig": (
        SignatureError, "SHA384SUMS.sig is not a signature of SHA384SUMS by a signer of this set"),
    "release.json": (DigestError, "manifest.json is damaged"),
    "manifest.json": (DigestError, "manifest.json is damaged"),
    "volumes.json": (DigestError, "volumes.json is damaged"),
    "vol-0002.ekv": (DigestError, "volume vol-0002.ekv is damaged"),
    "vol-0003.ekv": (DigestError, "volume vol-0003.ekv is damaged"),
}
"""The files in which the two sets differ, and what each says in the wrong one."""


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_valid_set_is_refused(sets: Fixture, copied: Path, name: str) -> None:
    sets.verify(sets.other)
    (copied / name).write_bytes((sets.other / name).read_bytes())
    with pytest.raises(OTHERS[name][0]) as caught:
        sets.verify(copied)
    assert caught.value.message == OTHERS[name][1]


def test_the_two_valid_sets_differ_in_those_files_and_no_others(sets: Fixture) -> None:
    differ = {
        name for name in (*METADATA, *VOLUMES)
        if (sets.small / name).read_bytes() != (sets.other / name).read_bytes()
    }
    assert differ == set(OTHERS)


@pytest.mark.parametrize("swap", [False, True])
def test_a_set_may_lie_on_two_sticks_in_either_order(
    sets: Fixture, copied: Path, tmp_path: Path, swap: bool
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    for name in ("vol-0001.ekv", "vol-0003.ekv"):
        (copied / name).rename(second / name)
    folders = (second, copied) if swap else (copied, second)
    assert len(sets.verify(*folders).table.volumes) == 3
    with pytest.raises(SetShapeError, match=r"vol-0001\.ekv is missing"):
        sets.verify(copied)


def test_metadata_may_lie_on_every_stick(sets: Fixture, copied: Path, tmp_path: Path) -> None:
    second = Path(shutil.copytree(copied, tmp_path / "second"))
    for name in VOLUMES:
        (second / name).unlink()
    assert sets.verify(second, copied).manifest.name == "demo"


def test_the_same_volume_on_two_sticks_is_refused(sets: Fixture, copied: Path) -> None:
    with pytest.raises(SetShapeError, match="two media") as caught:
        sets.metadata(copied, sets.small)
    assert caught.value.found == "vol-0001.ekv"


def test_a_read_only_set_is_verified_and_left_as_it_is(sets: Fixture, copied: Path) -> None:
    def state() -> list[tuple[str, int, int, int]]:
        return sorted(
            (str(path), path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_size)
            for path in [copied, *copied.rglob("*")]
        )

    for path in copied.rglob("*"):
        path.chmod(0o444 if path.is_file() else 0o555)
    copied.chmod(0o555)
    before = state()
    sets.verify(copied)
    assert state() == before
    for path in (copied, copied / "trust"):
        path.chmod(0o755)


@pytest.mark.parametrize("folder", ["nowhere", "empty", "file"])
def test_a_folder_without_a_set_says_so(sets: Fixture, tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EdgekitError) as caught:
        sets.metadata(tmp_path / folder)
    assert str(tmp_path / folder) in str(caught.value.where)


# ---------------------------------------------------------------------------------- first contact


def test_a_root_named_by_its_fingerprint_is_enough_to_verify(
    sets: Fixture, tmp_path: Path
) -> None:
    data = (sets.small / "trust/1.root.json").read_bytes()
    trusting = Trusting(HostLayout(tmp_path), trust.fingerprint(data))
    assert verify_metadata((sets.small,), trusting).root.version == 1
    assert list(tmp_path.iterdir()) == []


def test_a_fingerprint_may_name_any_root_the_set_carries(tmp_path: Path) -> None:
    four = ("ann", "ben", "cid", "dora")
    second = RootBuilder(version=2, signers=("cid", "dora"), signed_by=four)
    folder = SetBuilder(roots=(RootBuilder(), second)).write(tmp_path / "demo")
    for root in (RootBuilder(), second):
        trusting = Trusting(HostLayout(tmp_path / "host"), trust.fingerprint(root.data()))
        assert verify_metadata((folder,), trusting).root.version == 2
    (folder / "trust/1.root.json").unlink()
    assert trust.fingerprint(second.data()) == trusting.fingerprint
    with pytest.raises(SetShapeError, match=r"1\.root\.json is missing"):
        verify_metadata((folder,), trusting)


def test_a_set_without_the_named_root_is_refused(sets: Fixture, copied: Path) -> None:
    (copied / "trust/1.root.json").unlink()
    for folder in (copied, sets.small):
        with pytest.raises(EdgekitError) as caught:
            verify_metadata((folder,), Trusting(HostLayout(copied / "host"), "00" * 48))
        assert caught.value.exit_code == ExitCode.FINGERPRINT
