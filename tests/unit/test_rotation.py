"""Signers come, leave and are revoked: the next root travels alone, and nothing is taken back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.main import main
from edgekit.core import trust
from edgekit.core.host_layout import HostLayout
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import (
    EdgekitError,
    FingerprintError,
    FormatError,
    RollbackError,
    SignatureError,
    TrustError,
)
from edgekit.operations import keys
from edgekit.operations.host_trust import load_host_trust, trust_warnings
from edgekit.operations.trust import import_roots, show_trust
from edgekit.system.signing import create_signer
from edgekit.system.trust_store import HostTrust, TrustStore
from tests.support.sets import RootBuilder, SetBuilder, signer, verify

NOW = 1_795_000_000
THREE = ("ann", "ben", "cid")


def half(name: str) -> trust.PublicHalf:
    return trust.PublicHalf(name, trust.SignerKeys(*signer(name).keys()))


def revocation(name: str, since: int = 0) -> trust.Revocation:
    identities = tuple(sorted(half(name).keys.identities()))
    return trust.Revocation(name, "laptop stolen", since, identities)


def first() -> RootBuilder:
    return RootBuilder(signers=THREE)


def second(**changes: Any) -> RootBuilder:
    """Ann leaves, Dora comes; Ben and Cid vouch for it, Dora and Ben sign themselves."""
    facts: dict[str, Any] = {"version": 2, "signers": ("ben", "cid", "dora"),
                             "signed_by": ("ben", "cid", "dora"), **changes}
    return RootBuilder(**facts)


def host_of(folder: Path, *roots: RootBuilder) -> HostLayout:
    """A private root that trusts the first of these roots, and was taken through the others."""
    layout = HostLayout(folder)
    paths = written(folder / "documents", *roots)
    import_roots(paths, trust.fingerprint(roots[0].data()), layout)
    return layout


def written(folder: Path, *roots: RootBuilder) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{root.version}.root.json" for root in roots)
    for path, root in zip(paths, roots, strict=True):
        path.write_bytes(root.data())
    return paths


def stored(layout: HostLayout) -> trust.TrustedRoot:
    return TrustStore(layout.trust).load().require_root()


# --------------------------------------------------------------------------- making the next root


def rotated(change: trust.Rotation, current: RootBuilder | None = None) -> trust.TrustedRoot:
    payload = trust.next_root_payload(
        (current or first()).trusted(), change, "2036-01-01T00:00:00Z")
    return trust.read_draft_root(trust.encode_envelope(payload, [])).content


def test_a_rotation_changes_what_it_says_and_nothing_else() -> None:
    root = rotated(trust.Rotation(drop=("ann",), add=(half("dora"),)))
    assert (root.version, root.signers("root"), root.signers("targets")) == (
        2, ("ben", "cid", "dora"), ("ben", "cid", "dora"))
    assert (root.threshold("root"), root.policy, root.developer) == (2, "hybrid", False)
    assert (root.revoked, root.minimum) == ((), (0, 0))


def test_to_revoke_is_to_drop_and_to_remember_the_keys() -> None:
    root = rotated(trust.Rotation(revoke=((half("ann"), "laptop stolen"),), since_sequence=7))
    assert root.signers("root") == ("ben", "cid")
    (entry,) = root.revoked
    assert (entry.signer, entry.reason, entry.since_sequence) == ("ann", "laptop stolen", 7)
    assert set(entry.keys) == set(half("ann").keys.identities())
    assert root.revocation_of(half("ann").keys) == entry
    assert root.revocation_of(half("ben").keys) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (trust.Rotation(drop=("eve",)), "no such signer"),
        (trust.Rotation(drop=("ann", "ben")), "unusable threshold"),
        (trust.Rotation(threshold=1), "unusable threshold"),
        (trust.Rotation(threshold=4), "unusable threshold"),
        (trust.Rotation(add=(half("ann"),)), "taken or revoked"),
        (trust.Rotation(revoke=((half("ann"), "x"),), add=(half("ann"),)), "taken or revoked"),
        (trust.Rotation(revoke=((half("ann"), "x"),),
                        add=(trust.PublicHalf("zoe", half("ann").keys),)), "keys are revoked"),
        (trust.Rotation(policy="any"), "no known policy"),
    ],
)
def test_a_change_that_makes_no_usable_root_is_refused(
    change: trust.Rotation, words: str
) -> None:
    with pytest.raises(EdgekitError, match=words):
        rotated(change)


def test_a_rotation_carries_every_earlier_revocation_on() -> None:
    current = second(revoked=(revocation("ann"),))
    assert rotated(trust.Rotation(), current).revoked == (revocation("ann"),)
    both = rotated(trust.Rotation(revoke=((half("ben"), "lost"),)), current).revoked
    assert [entry.signer for entry in both] == ["ann", "ben"]


def test_the_minimum_never_goes_down() -> None:
    current = RootBuilder(signers=THREE, minimum=(2, 5))
    assert rotated(trust.Rotation(), current).minimum == (2, 5)
    assert rotated(trust.Rotation(minimum=(2, 6)), current).minimum == (2, 6)
    with pytest.raises(TrustError, match="never goes down"):
        rotated(trust.Rotation(minimum=(2, 4)), current)


def test_a_demo_becomes_guarded_by_rotation() -> None:
    demo = RootBuilder(signers=("dev",), threshold=1, developer=True)
    root = rotated(trust.Rotation(add=(half("ann"), half("ben")), threshold=2), demo)
    assert (root.developer, root.threshold("root")) == (False, 2)
    assert rotated(trust.Rotation(), demo).developer


# -------------------------------------------------------------------------- the next root by itself


def test_old_and_new_signers_sign_the_next_root_on_their_own_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/how-to/rotate-and-revoke.md, by the command line."""
    people = {name: tmp_path / name for name in ("alice", "bob", "carol", "dan")}
    for folder in people.values():
        assert main(["keys", "new", str(folder)]) == 0
    halves = {name: str(folder / f"{name}.signer.json") for name, folder in people.items()}
    one, two = str(tmp_path / "1.root.json"), str(tmp_path / "2.root.json")
    assert main(["keys", "root", "--signer", halves["alice"], "--signer", halves["bob"],
                 "--signer", halves["carol"], "--out", one]) == 0
    for name in ("alice", "bob"):
        assert main(["keys", "sign", one, "--key", f"file:{people[name]}"]) == 0
    assert main(["keys", "rotate", "--root", one, "--revoke", "alice=laptop stolen", "--add",
                 halves["dan"], "--out", two]) == 0
    said = capsys.readouterr()
    assert "revoked      alice: laptop stolen" in said.out
    layout = HostLayout(tmp_path / "host")
    fingerprint = trust.fingerprint(Path(one).read_bytes())
    assert main(["trust", "import", one, "--fingerprint", fingerprint, "--root",
                 str(layout.root)]) == 0
    for name, complete in (("bob", False), ("dan", False), ("carol", True)):
        assert main(["trust", "import", two, "--root", str(layout.root)]) == 21
        assert stored(layout).version == 1
        capsys.readouterr()
        assert main(["keys", "sign", two, "--previous", one, "--key",
                     f"file:{people[name]}"]) == 0
        assert ("complete     " in capsys.readouterr().out) == complete
    assert main(["keys", "sign", two, "--previous", one, "--key", f"file:{people['alice']}"]) == 20
    assert "revoked and sign nothing" in capsys.readouterr().err
    assert main(["trust", "import", two, "--root", str(layout.root)]) == 0
    assert "never again alice: laptop stolen" in capsys.readouterr().out
    assert stored(layout).signers("targets") == ("bob", "carol", "dan")


def test_without_the_root_before_it_nobody_claims_the_next_one_complete(tmp_path: Path) -> None:
    path, one = tmp_path / "2.root.json", tmp_path / "1.root.json"
    one.write_bytes(first().data())
    path.write_bytes(second(signed_by=("ben", "cid")).data())
    create_signer(tmp_path / "eve")
    with pytest.raises(TrustError):
        keys.sign_root(path, f"file:{tmp_path}/eve", None)
    draft = trust.read_draft_root(path.read_bytes())
    assert draft.own_tally().missing == 0
    assert draft.previous_tally(first().trusted()).signed == ("ben", "cid")


@pytest.mark.parametrize("other", [1, 3])
def test_the_root_before_it_is_the_one_before_it(tmp_path: Path, other: int) -> None:
    create_signer(tmp_path / "eve")
    path, wrong = tmp_path / "2.root.json", tmp_path / "wrong.json"
    path.write_bytes(second().data())
    wrong.write_bytes(second(version=other + 1).data())
    with pytest.raises(TrustError, match="follow each other"):
        keys.sign_root(path, f"file:{tmp_path}/eve", wrong)


# ------------------------------------------------------------------------------ importing it alone


def chain() -> tuple[RootBuilder, ...]:
    return (
        first(), second(),
        RootBuilder(version=3, signers=("cid", "dora"), signed_by=("ben", "cid", "dora")),
    )


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))), ids=str)
def test_numbered_roots_are_followed_from_wherever_the_host_is(
    tmp_path: Path, start: int, order: tuple[int, ...]
) -> None:
    layout = host_of(tmp_path / "host", *chain()[:start])
    paths = written(tmp_path / "new", *chain())
    imported = import_roots(tuple(paths[number - 1] for number in order), None, layout)
    assert (imported.root.version, imported.accepted) == (3, 3 - start)
    assert stored(layout).version == 3


def test_ten_comes_after_nine(tmp_path: Path) -> None:
    roots = [RootBuilder(version=version) for version in range(1, 12)]
    layout = host_of(tmp_path / "host", roots[0])
    paths = written(tmp_path / "new", *roots)
    assert import_roots(tuple(sorted(paths)), None, layout).root.version == 11


def unsigned() -> RootBuilder:
    return second(signed_by=())


def by_the_new_alone() -> RootBuilder:
    return second(signers=("dora", "erin"), signed_by=("dora", "erin"))


def by_the_old_alone() -> RootBuilder:
    return second(signers=("dora", "erin"), signed_by=THREE)


def by_one_old_and_the_new() -> RootBuilder:
    return second(signers=("dora", "erin"), signed_by=("ann", "dora", "erin"))


def a_version_too_far() -> RootBuilder:
    return second(version=3, signers=THREE, signed_by=THREE)


def the_same_version() -> RootBuilder:
    return RootBuilder(signers=("ann", "ben"))


def a_developer_root() -> RootBuilder:
    return second(signers=("ann",), threshold=1, developer=True, signed_by=THREE)


def with_the_revoked_counting_for_the_old() -> RootBuilder:
    """Ann and Ben vouch for it, but it revokes Ann: one of two is left."""
    return second(revoked=(revocation("ann"),), signed_by=("ann", "ben", "dora"))


@pytest.mark.parametrize(
    "make",
    [unsigned, by_the_new_alone, by_the_old_alone, by_one_old_and_the_new, a_version_too_far,
     the_same_version, a_developer_root, with_the_revoked_counting_for_the_old],
)
def test_a_root_that_the_trusted_one_does_not_vouch_for_changes_nothing(
    tmp_path: Path, make: Callable[[], RootBuilder]
) -> None:
    layout = host_of(tmp_path / "host", first())
    before = {path.name: path.read_bytes() for path in layout.trust.iterdir()}
    with pytest.raises((SignatureError, TrustError)):
        import_roots(written(tmp_path / "new", make()), None, layout)
    assert {path.name: path.read_bytes() for path in layout.trust.iterdir()} == before


def test_nothing_of_a_next_root_is_parsed_before_the_old_signers_vouch_for_it() -> None:
    with pytest.raises(SignatureError):
        trust.extend_root(first().trusted(), trust.encode_envelope(b"{ this is not JSON", []))


def test_a_chain_with_one_bad_link_is_not_followed_half_way(tmp_path: Path) -> None:
    layout = host_of(tmp_path / "host", first())
    bad = RootBuilder(version=3, signers=("erin", "fay"))
    with pytest.raises(SignatureError):
        import_roots(written(tmp_path / "new", second(), bad), None, layout)
    assert stored(layout).version == 1


def test_the_first_root_needs_its_fingerprint(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path / "host")
    paths = written(tmp_path, first(), second())
    with pytest.raises(TrustError, match="needs its fingerprint"):
        import_roots(paths, None, layout)
    with pytest.raises(FingerprintError):
        import_roots(paths, "0" * 96, layout)
    assert TrustStore(layout.trust).load().root is None
    assert import_roots(paths, trust.fingerprint(first().data()), layout).root.version == 2


def test_a_fingerprint_does_not_set_trust_aside(tmp_path: Path) -> None:
    layout = host_of(tmp_path / "host", first())
    other = RootBuilder(signers=("eve", "fay"))
    paths = written(tmp_path / "other", other)
    with pytest.raises(TrustError, match="already trusts another root"):
        import_roots(paths, trust.fingerprint(other.data()), layout)
    again = written(tmp_path / "again", first())
    with pytest.raises(FingerprintError):
        import_roots(again, trust.fingerprint(other.data()), layout)
    assert import_roots(again, trust.fingerprint(first().data()), layout).accepted == 0
    assert stored(layout).fingerprint == trust.fingerprint(first().data())


# --------------------------------------------------------------------------------------- revocation


def test_a_set_that_rests_on_a_revoked_signer_is_refused(tmp_path: Path) -> None:
    old = SetBuilder(roots=(first(),), signed_by=("ann", "ben")).write(tmp_path / "old")
    verify(HostTrust(first().trusted()), old)
    after = trust.extend_root(first().trusted(), second(revoked=(revocation("ann"),)).data())
    with pytest.raises(SignatureError) as caught:
        verify(HostTrust(after), old)
    assert caught.value.found == "ben"


def test_a_set_that_enough_others_signed_is_accepted_without_the_revoked(tmp_path: Path) -> None:
    folder = SetBuilder(roots=(first(),), signed_by=THREE).write(tmp_path / "old")
    after = trust.extend_root(first().trusted(), second(revoked=(revocation("ann"),)).data())
    assert verify(HostTrust(after), folder).statement.signers == ("ben", "cid")


@pytest.mark.parametrize("leaves", ["dropped", "revoked"])
@pytest.mark.parametrize("told_by", ["host", "set"])
def test_the_list_for_strangers_needs_a_signer_of_the_newest_root(
    tmp_path: Path, leaves: str, told_by: str
) -> None:
    """Ben and Cid are enough for the statement; Ann, who signed last, signed SHA384SUMS."""
    revoked = (revocation("ann"),) if leaves == "revoked" else ()
    newer = second(revoked=revoked)
    after = trust.extend_root(first().trusted(), newer.data())
    carried = (first(), newer) if told_by == "set" else (first(),)
    folder = SetBuilder(roots=carried, signed_by=("ben", "cid", "ann")).write(tmp_path / "old")
    host = HostTrust(first().trusted() if told_by == "set" else after)
    release = (folder / "release.json").read_bytes()
    assert trust.verify_release(after, release).signers == ("ben", "cid")
    with pytest.raises(SignatureError, match=r"SHA384SUMS\.sig is not a signature .* by a signer"):
        verify(host, folder)
    sums = (folder / "SHA384SUMS").read_bytes()
    (folder / "SHA384SUMS.sig").write_bytes(signer("cid").sign_ssh(sums))
    verify(host, folder)


def test_what_was_revoked_stays_revoked() -> None:
    two = trust.extend_root(first().trusted(), second(revoked=(revocation("ann"),)).data())
    signers = ("ben", "cid", "dora")
    kept = RootBuilder(version=3, signers=signers, revoked=(revocation("ann"),))
    assert trust.extend_root(two, kept.data()).revoked == (revocation("ann"),)
    for taken_back in ((), (revocation("ann", since=9),), (revocation("erin"),)):
        forgotten = RootBuilder(version=3, signers=signers, revoked=taken_back)
        with pytest.raises(TrustError, match="take back a revocation"):
            trust.extend_root(two, forgotten.data())


@pytest.mark.parametrize("name", ["ann", "zoe"])
def test_no_root_lists_a_key_that_it_revokes(name: str) -> None:
    """Not even under another name, and not even one of the two keys."""
    ann, zoe = half("ann").keys, half("zoe").keys
    for pair in ((ann.classical, zoe.post_quantum), (zoe.classical, ann.post_quantum)):
        payload = trust.root_payload(
            version=1, signers={name: pair, "ben": signer("ben").keys()}, threshold=2,
            policy="hybrid", developer=False, expires="2036-01-01T00:00:00Z",
            revoked=(revocation("ann"),))
        with pytest.raises(FormatError, match="that it revokes"):
            trust.read_draft_root(trust.encode_envelope(payload, []))


def test_a_majority_is_replaced_by_dropping_first_and_revoking_in_the_root_after() -> None:
    one = first()
    two = RootBuilder(version=2, signers=("cid", "dora", "erin"), signed_by=(*THREE, "dora"))
    three = RootBuilder(version=3, signers=("cid", "dora", "erin"),
                        revoked=(revocation("ann"), revocation("ben")))
    at_once = RootBuilder(version=2, signers=("cid", "dora", "erin"),
                          revoked=(revocation("ann"), revocation("ben")),
                          signed_by=(*THREE, "dora", "erin"))
    with pytest.raises(SignatureError):
        trust.extend_root(one.trusted(), at_once.data())
    reached = trust.extend_root(trust.extend_root(one.trusted(), two.data()), three.data())
    assert [entry.signer for entry in reached.revoked] == ["ann", "ben"]


@pytest.mark.parametrize(
    "entry",
    [{}, {"signer": 7}, {"reason": 7}, {"keys": []}, {"keys": ["0"]}, {"keys": ["0" * 96] * 3},
     {"signer": "A\n"}, {"signer": "../x"}, {"since_sequence": -1}, {"since_sequence": 2**60},
     {"more": 1}],
    ids=str,
)
def test_a_malformed_revocation_is_refused(entry: dict[str, object]) -> None:
    good: dict[str, object] = {"signer": "ann", "reason": "x", "since_sequence": 0,
                               "keys": ["0" * 96]}
    parse_with_revocation(good)
    with pytest.raises(FormatError):
        parse_with_revocation({**good, **entry} if entry else {})


def parse_with_revocation(entry: dict[str, object]) -> trust.DraftRoot:
    table = json.loads(first().payload())
    table[trust.REVOKED_FIELD] = [entry]
    return trust.read_draft_root(trust.encode_envelope(encode_canonical(table), []))


@pytest.mark.parametrize(
    "text", ["ann", "ann=", "=x", "eve=x", "ann=" + "x" * 201, "ann=a\nb", "x.signer.json=y"])
def test_a_revocation_on_the_command_line_says_who_and_why(tmp_path: Path, text: str) -> None:
    (root,) = written(tmp_path, first())
    with pytest.raises(EdgekitError):
        keys.parse_revocation(text, root)


def test_somebody_who_left_earlier_is_revoked_by_their_public_half(tmp_path: Path) -> None:
    create_signer(tmp_path / "eve")
    (root,) = written(tmp_path, first())
    found, reason = keys.parse_revocation(f"{tmp_path}/eve/eve.signer.json=found out", root)
    assert (found.name, reason) == ("eve", "found out")


# -------------------------------------------------------------------------- what the operator hears


def installed(layout: HostLayout, root: RootBuilder, *names: str, sequence: int = 5) -> None:
    """A generation's documents, as an installation leaves them."""
    payload = trust.release_payload(
        name="demo", version="1.0.0", epoch=1, sequence=sequence, created=NOW - 86400,
        min_edgekit="0.1", expires="2031-01-01T00:00:00Z", files={"manifest.json": b"{}"})
    data = trust.encode_envelope(payload, [s for n in names for s in signer(n).sign(payload)])
    statement = trust.verify_release(root.trusted(), data)
    folder = layout.generation(statement.generation)
    folder.mkdir(parents=True)
    (folder / "release.json").write_bytes(data)
    (folder / "root.json").write_bytes(root.data())
    (folder / "receipt.json").write_text('{"generation": "demo"}', "utf-8")
    layout.current.symlink_to(f"generations/{statement.generation}")


@pytest.mark.parametrize(("since", "word"), [(0, "after"), (5, "after"), (6, "before")])
def test_status_warns_when_who_signed_the_running_release_is_revoked(
    tmp_path: Path, since: int, word: str
) -> None:
    layout = host_of(tmp_path / "host", first())
    installed(layout, first(), "ann", "ben")
    assert trust_warnings(layout, load_host_trust(layout), NOW) == []
    import_roots(
        written(tmp_path / "new", second(revoked=(revocation("ann", since),))), None, layout)
    (warning,) = trust_warnings(layout, load_host_trust(layout), NOW)
    assert "signed by ann, who is revoked (laptop stolen)" in warning
    assert f"is {word} the keys became suspect" in warning
    assert show_trust(layout, NOW).warnings == (warning,)


def test_status_says_so_when_the_installed_documents_are_damaged(tmp_path: Path) -> None:
    layout = host_of(tmp_path / "host", first())
    installed(layout, first(), "ann", "ben")
    path = next(layout.generations.iterdir()) / "release.json"
    path.write_bytes(path.read_bytes()[:-9])
    (warning,) = trust_warnings(layout, load_host_trust(layout), NOW)
    assert "cannot be told" in warning


def test_trust_show_says_it_in_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = host_of(
        tmp_path / "host", first(), second(revoked=(revocation("ann"),), minimum=(1, 4)))
    capsys.readouterr()
    assert main(["trust", "show", "--root", str(layout.root)]) == 0
    said = capsys.readouterr().out
    for words in (
        "this host believes root 2, until 2036-01-01",
        "a set installs when 2 of these signed it: ben, cid, dora",
        "the next root counts when 2 of these signed it: ben, cid, dora",
        "a classical and an ML-DSA-87 signature of each (policy hybrid)",
        "ann never counts again: laptop stolen",
        "nor, whatever the operator says, than epoch 1, sequence 4",
    ):
        assert words in said, words


# ----------------------------------------------------------------------------------- kept on disk


def test_a_newer_copy_of_the_root_counts_whichever_file_it_is_in(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    store.save_root(first().trusted())
    two = trust.extend_root(first().trusted(), second().data())
    for name in ("root.json", "root-b.json"):
        store.save_root(two)
        (tmp_path / name).write_bytes(first().data())
        assert store.load().require_root().version == 2


@pytest.mark.parametrize("name", ["root.json", "root-b.json"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_one_damaged_copy_of_the_root_does_no_harm_and_two_are_reported(
    tmp_path: Path, name: str, damage: bytes | None
) -> None:
    store = TrustStore(tmp_path)
    store.save_root(first().trusted())
    good = (tmp_path / name).read_bytes()
    broken = good.replace(b'"payload":"ey', b'"payload":"fy') if damage is None else damage
    (tmp_path / name).write_bytes(broken)
    assert store.load().require_root() == first().trusted()
    for each in ("root.json", "root-b.json"):
        (tmp_path / each).write_bytes(broken)
    with pytest.raises(TrustError, match="both copies of the trusted root"):
        store.load()


def test_a_release_below_the_roots_minimum_is_refused_on_any_host(tmp_path: Path) -> None:
    built = SetBuilder(roots=(first(), second(minimum=(1, 4))), sequence=3)
    with pytest.raises(RollbackError, match="root forbids"):
        verify(built.host(), built.write(tmp_path / "demo"))
