"""Time without a clock to trust, floors that only rise, and the one logged way below them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core import trust
from edgekit.core.digest import Digest
from edgekit.core.host_layout import HostLayout
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import FormatError, RollbackError, TrustError
from edgekit.operations.host_trust import load_host_trust, trust_warnings, trusted_time
from edgekit.operations.install import InstallOptions, plan
from edgekit.system.bundle_set import open_set, verify_set
from edgekit.system.trust_store import HostTrust, TrustStore
from tests.support.sets import RootBuilder, SetBuilder
from tests.unit.test_rotation import installed

DAY = 86_400
FLOOR = trust.COMPILED_IN
STATEMENT = "sha384:" + "a" * 96


def stamp(seconds: int) -> str:
    """TUF's spelling of a moment."""
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


# ---------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize(
    ("clock", "seconds", "verdict"),
    [
        (0, FLOOR, "behind"), (FLOOR - 1, FLOOR, "behind"), (FLOOR - 365 * DAY, FLOOR, "behind"),
        (FLOOR, FLOOR, "believed"), (FLOOR + 1, FLOOR + 1, "believed"),
        (FLOOR + 30 * DAY, FLOOR + 30 * DAY, "believed"),
        (FLOOR + 30 * DAY + 1, FLOOR, "ahead"), (FLOOR + 365 * DAY, FLOOR, "ahead"),
        (2**40, FLOOR, "ahead"),
    ],
)
def test_the_clock_is_believed_where_the_floor_bears_it_out(
    clock: int, seconds: int, verdict: str
) -> None:
    assert trust.trust_time(FLOOR, clock) == trust.TrustedTime(seconds, verdict)


def test_this_program_is_not_older_than_it_says() -> None:
    """The date compiled in is one that has been, or every new host would see a clock behind."""
    assert dt.datetime.now(dt.UTC).timestamp() > trust.COMPILED_IN
    assert trust.Floor().time_floor == trust.COMPILED_IN
    assert trust.Floor(time=FLOOR - 5).time_floor == FLOOR
    assert trust.Floor(time=FLOOR + 5).time_floor == FLOOR + 5


@pytest.mark.parametrize(
    ("clock", "word"),
    [(0, "the clock says 1970-01-01, but it is at least 2026-11-01"), (FLOOR, ""),
     (FLOOR + 400 * DAY, "the clock says 2027-12-06, more than 30 days after 2026-11-01")],
)
def test_a_suspicious_clock_is_reported(tmp_path: Path, clock: int, word: str) -> None:
    layout = HostLayout(tmp_path)
    TrustStore(layout.trust).save_root(RootBuilder().trusted())
    warnings = trust_warnings(layout, load_host_trust(layout), clock)
    assert [word in text for text in warnings] == ([True] if word else [])


# -------------------------------------------------------------------------------------- the floor


def test_no_part_of_the_floor_ever_goes_down(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    store.save_floor(trust.Floor(2, 5, STATEMENT, 100))
    for lower in (trust.Floor(2, 4, "", 90), trust.Floor(1, 9, "", 0), trust.Floor()):
        store.save_floor(lower)
        assert store.load().floor == trust.Floor(2, 5, STATEMENT, 100)
    store.save_floor(trust.Floor(2, 4, "", 110))
    assert store.load().floor == trust.Floor(2, 5, STATEMENT, 110)
    store.save_floor(trust.Floor(3, 1, STATEMENT, 50))
    assert store.load().floor == trust.Floor(3, 1, STATEMENT, 110)


@pytest.mark.parametrize("names", [("floor-a.json",), ("floor-b.json",)])
def test_a_crash_between_the_two_copies_loses_nothing(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    store = TrustStore(tmp_path)
    store.save_floor(trust.Floor(1, 5, STATEMENT, 100))
    for name in names:
        (tmp_path / name).write_bytes(trust.encode_floor(trust.Floor(1, 6, STATEMENT, 90)))
    assert store.load().floor == trust.Floor(1, 6, STATEMENT, 100)


def test_every_bit_of_a_stored_floor_counts(tmp_path: Path) -> None:
    good = trust.encode_floor(trust.Floor(1, 5, STATEMENT, 100))
    for position in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(FormatError):
            trust.parse_floor(bytes(flipped))


def test_a_floor_stored_before_there_was_a_time_is_read() -> None:
    body = {"epoch": 1, "sequence": 5, "statement": STATEMENT}
    check = Digest.of(encode_canonical(body)).value
    old = encode_canonical({"floor": body, "check": check})
    assert trust.parse_floor(old) == trust.Floor(1, 5, STATEMENT, 0)


def test_the_installed_release_stands_in_for_damaged_copies_and_a_lost_write(
    tmp_path: Path,
) -> None:
    """Invariant I6: a crash right after the commit, or two rotten files, do not lower the floor."""
    layout = HostLayout(tmp_path)
    root = RootBuilder(signers=("ann", "ben", "cid"))
    store = TrustStore(layout.trust)
    store.save_root(root.trusted())
    store.save_floor(trust.Floor(1, 4, STATEMENT, 10))
    installed(layout, root, "ann", "ben", sequence=5)
    assert load_host_trust(layout).floor.pair == (1, 5)
    for name in ("floor-a.json", "floor-b.json"):
        (layout.trust / name).write_bytes(b"rotten")
    assert load_host_trust(layout).floor.pair == (1, 5)
    with pytest.raises(TrustError, match="both copies"):
        store.load()


# --------------------------------------------------------------------------------------- expiry


class Host:
    """A private root that trusts one root, a set for it, and a clock that tests turn."""

    def __init__(
        self, base: Path, *, root_expires: int = FLOOR + 900 * DAY,
        set_expires: int = FLOOR + 900 * DAY, created: int = 1_700_000_000, sequence: int = 3,
    ) -> None:
        self.layout = HostLayout(base / "host")
        self.root = RootBuilder(expires=stamp(root_expires))
        self.store = TrustStore(self.layout.trust)
        self.store.save_root(self.root.trusted())
        built = SetBuilder(roots=(self.root,), expires=stamp(set_expires), created=created,
                           sequence=sequence)
        self.folder = built.write(base / "demo")

    def plan(self, now: int, *, downgrade: str | None = None) -> bool:
        """Plan an installation; whether the set was below the floor."""
        options = InstallOptions((self.folder,), self.layout, now=now,
                                 insecure_downgrade=downgrade)
        return plan(options).verified.below_floor


@pytest.mark.parametrize("what", ["root 1", "this set"])
@pytest.mark.parametrize(
    ("left", "floor", "clock", "refused"),
    [
        (10, 0, 0, False), (10, 0, 9, False), (10, 0, 11, True), (10, 0, 29, True),
        (10, 0, 31, False), (10, 0, 4000, False), (10, 0, -9000, False),
        (10, 11, 0, True), (10, 11, -9000, True), (10, 11, 4000, True), (10, 9, 4000, False),
    ],
)
def test_what_has_expired_installs_nothing_new_and_no_clock_alone_decides_that(
    tmp_path: Path, what: str, left: int, floor: int, clock: int, refused: bool
) -> None:
    """Days after the compiled-in date: end of the document, the host's floor, the wall clock."""
    end = FLOOR + left * DAY
    host = (Host(tmp_path, root_expires=end) if what == "root 1"
            else Host(tmp_path, set_expires=end))
    host.store.save_floor(trust.Floor(1, 2, STATEMENT, FLOOR + floor * DAY))
    now = max(0, FLOOR + clock * DAY)
    if refused:
        with pytest.raises(TrustError, match=f"{what} has expired"):
            host.plan(now)
        return
    assert host.plan(now) is False


def test_a_sets_own_date_counts_as_time_that_has_passed(tmp_path: Path) -> None:
    """A root that was over when the set was made installs it on no host, whatever its clock."""
    host = Host(tmp_path, root_expires=FLOOR + 50 * DAY, created=FLOOR + 40 * DAY)
    assert host.plan(0) is False
    later = RootBuilder(version=1, expires=stamp(FLOOR + 30 * DAY))
    host.store = TrustStore(host.layout.trust)
    (host.layout.trust / "root.json").write_bytes(later.data())
    (host.layout.trust / "root-b.json").write_bytes(later.data())
    with pytest.raises(FormatError, match="its root, expired"):
        host.plan(0)


@pytest.mark.parametrize("ends", ["set", "root"])
def test_nobody_pushes_time_past_what_the_signers_said(ends: str) -> None:
    """A release dated in the far future would make every host refuse everything after it."""
    far = FLOOR + 100 * DAY
    root = RootBuilder(expires=stamp(far if ends == "root" else far + 999 * DAY))
    for created, accepted in ((far, True), (far + 1, False), (2**40, False)):
        payload = trust.release_payload(
            name="demo", version="1.0.0", epoch=1, sequence=1, created=created, min_edgekit="0.1",
            expires=stamp(far if ends == "set" else far + 999 * DAY), files={})
        data = trust.encode_envelope(payload, [])
        if accepted:
            assert trust.read_draft_release(root.trusted(), data).created == created
            continue
        with pytest.raises(FormatError, match="was made after it"):
            trust.read_draft_release(root.trusted(), data)


def test_what_runs_keeps_running_and_says_that_it_expired(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    root = RootBuilder(signers=("ann", "ben", "cid"), expires="2031-06-01T00:00:00Z")
    store = TrustStore(layout.trust)
    store.save_root(root.trusted())
    installed(layout, root, "ann", "ben")
    store.save_floor(trust.Floor(1, 2, STATEMENT, FLOOR + 2000 * DAY))
    warnings = trust_warnings(layout, load_host_trust(layout), FLOOR + 2000 * DAY)
    assert len(warnings) == 2
    assert "root 1 expired on 2031-06-01: nothing new installs" in warnings[0]
    assert "the installed release expired on 2031-01-01; it keeps running" in warnings[1]
    assert trusted_time(load_host_trust(layout), 0).seconds == FLOOR + 2000 * DAY


# ------------------------------------------------------------------------------- breaking the glass


@pytest.mark.parametrize(
    ("offered", "floor", "minimum", "below"),
    [
        ((1, 4), (1, 5), (0, 0), True), ((1, 1), (1, 5), (0, 0), True),
        ((1, 4), (1, 5), (1, 4), True), ((1, 6), (1, 5), (0, 0), False),
        ((2, 1), (1, 5), (0, 0), False),
    ],
)
def test_a_downgrade_within_the_epoch_is_let_through(
    offered: tuple[int, int], floor: tuple[int, int], minimum: tuple[int, int], below: bool
) -> None:
    assert trust.check_downgrade(content(*offered), trust.Floor(*floor, STATEMENT),
                                 minimum) is below


@pytest.mark.parametrize(
    ("offered", "floor", "minimum", "words"),
    [
        ((1, 9), (2, 1), (0, 0), "epoch that is over"), ((1, 3), (1, 5), (1, 4), "root forbids"),
        ((1, 5), (1, 5), (0, 0), "same sequence number"), ((9, 1), (1, 5), (0, 0), "skips epochs"),
    ],
)
def test_not_even_a_downgrade_goes_everywhere(
    offered: tuple[int, int], floor: tuple[int, int], minimum: tuple[int, int], words: str
) -> None:
    with pytest.raises(RollbackError, match=words):
        trust.check_downgrade(content(*offered), trust.Floor(*floor, STATEMENT), minimum)


def content(epoch: int, sequence: int) -> trust.ReleaseContent:
    payload = trust.release_payload(
        name="demo", version="1.0.0", epoch=epoch, sequence=sequence, created=0,
        min_edgekit="0.1", expires="2036-01-01T00:00:00Z", files={})
    return trust.read_draft_release(RootBuilder().trusted(), trust.encode_envelope(payload, []))


def test_a_downgrade_is_asked_for_by_name_and_says_why(tmp_path: Path) -> None:
    host = Host(tmp_path, sequence=3)
    host.store.save_floor(trust.Floor(1, 7, STATEMENT, FLOOR))
    with pytest.raises(RollbackError):
        host.plan(FLOOR)
    for reason in ("", " " * 201, "two\nlines"):
        with pytest.raises(TrustError, match="says why"):
            host.plan(FLOOR, downgrade=reason)
    assert host.plan(FLOOR, downgrade="7 does not start on this board") is True
    assert host.store.load().floor.pair == (1, 7)


def test_a_downgrade_of_a_set_that_is_not_older_is_an_ordinary_installation(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path, sequence=8)
    host.store.save_floor(trust.Floor(1, 7, STATEMENT, FLOOR))
    assert host.plan(FLOOR, downgrade="just in case") is False


def test_a_downgrade_needs_every_other_check(tmp_path: Path) -> None:
    """Signatures, revocation and expiry are as they were: only V4 gives way."""
    host = Host(tmp_path, sequence=3)
    above = trust.Floor(1, 7, STATEMENT, FLOOR)
    retired = RootBuilder(version=2, signers=("cid", "dora"),
                          signed_by=("ann", "ben", "cid", "dora"))
    with pytest.raises(TrustError, match="not signed by enough"):
        verify_set(open_set((host.folder,)), HostTrust(retired.trusted(), above),
                   insecure_downgrade=True)
    host.store.save_floor(replace(above, time=FLOOR + 1000 * DAY))
    with pytest.raises(TrustError, match="has expired"):
        host.plan(FLOOR, downgrade="why not")


def test_the_command_line_knows_the_downgrade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(tmp_path, sequence=3)
    host.store.save_floor(trust.Floor(1, 7, STATEMENT, FLOOR))
    assert main(["install", str(host.folder), "--root", str(host.layout.root)]) == 23
    assert "older than what the host" in capsys.readouterr().err
    code = main(["install", str(host.folder), "--root", str(host.layout.root),
                 "--insecure-downgrade", ""])
    assert (code, "says why" in capsys.readouterr().err) == (20, True)
