"""TUF's attacks, one after the other, against every signed object: none is accepted.

Each case is an attacker's whole move and must raise; its id names the class. What is right without
the attack is accepted in `test_without_an_attack`, so that no case is refused for another reason.
Offline some classes mean something else than on a network: *freeze* is a set past its end, and the
*malicious mirror* is the medium.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import Signature

from edgekit.core import set_files, trust
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import DigestError, EdgekitError, RollbackError, SignatureError, TrustError
from edgekit.system.bundle_set import open_set, verify_draft_set, verify_set
from edgekit.system.signing import sign_payload
from edgekit.system.trust_store import HostTrust
from tests.support.sets import RootBuilder, SetBuilder, replaced, signer

CLASSES = (
    "arbitrary software", "rollback", "fast-forward", "freeze", "endless data",
    "extraneous dependencies", "mix-and-match", "wrong software", "malicious medium",
    "key compromise", "root rotation abuse", "threshold abuse",
)
THREE = ("ann", "ben", "cid")
SMALL = ("README.txt", "edgekit", "manifest.json", "volumes.json", "trust/1.root.json")
STATEMENT = "sha384:" + "a" * 96
DAY = 86_400


@dataclass(frozen=True)
class Attack:
    """One attack: what it is called, the refusal it must meet, and the move itself."""

    kind: str
    name: str
    refusal: type[EdgekitError]
    move: Callable[[Path], object]

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


# ------------------------------------------------------------------------------- what is attacked


def root_one() -> RootBuilder:
    return RootBuilder(signers=THREE)


def payload(**changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "name": "demo", "version": "1.0.0", "epoch": 1, "sequence": 5, "created": 0,
        "min_edgekit": "0.1", "expires": "2036-01-01T00:00:00Z", "files": {}, **changes}
    return trust.release_payload(**facts)


def signed(data: bytes, *names: str) -> bytes:
    return sign_payload(data, tuple(signer(name) for name in names))


def release(*names: str, **changes: Any) -> bytes:
    return signed(payload(**changes), *names)


def accept(data: bytes, root: RootBuilder | None = None) -> trust.ReleaseStatement:
    return trust.verify_release((root or root_one()).trusted(), data)


def extend(second: RootBuilder, first: RootBuilder | None = None) -> trust.TrustedRoot:
    return trust.extend_root((first or root_one()).trusted(), second.data())


def edited(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    table = json.loads(data)
    change(table)
    return encode_canonical(table)


@cache
def prototype(base: Path, which: str) -> Path:
    """Three valid sets by the same signers: an older, the current, and one of other software."""
    version, sequence, name = {
        "old": ("1.0.0", 1, "demo"), "new": ("1.1.0", 2, "demo"), "other": ("1.0.0", 2, "other"),
    }[which]
    built = SetBuilder(roots=(root_one(),), version=version, sequence=sequence, name=name,
                       entries={"documents/a.txt": which.encode(), "documents/b.txt": b"b"})
    return built.write(base / which)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacks")


def copy_of(base: Path, which: str) -> Path:
    """A set that the attacker holds in their hands."""
    target = base / "stick"
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(prototype(base, which), target))


def check(folder: Path, floor: trust.Floor | None = None) -> object:
    return verify_set(open_set((folder,)), HostTrust(root_one().trusted(), floor or trust.Floor()))


# ----------------------------------------------------------------------------------- the 12 classes


def arbitrary_software() -> Iterator[Attack]:
    kind = CLASSES[0]
    for name, data in {
        "nobody signed": release,
        "strangers signed": lambda: release("eve", "fay"),
        "signatures of another release": lambda: trust.encode_envelope(
            payload(sequence=6), [s for n in THREE for s in signer(n).sign(payload())]),
        "signatures over the bare payload": lambda: trust.encode_envelope(
            payload(), [k.sign(payload()) for n in THREE
                        for k in (signer(n).classical, signer(n).post_quantum)]),
        "signatures under trusted key ids": lambda: trust.encode_envelope(
            payload(), [Signature(mine.keyid, theirs.signature)
                        for n, m in (("ann", "eve"), ("ben", "fay"))
                        for mine, theirs in zip(signer(n).sign(payload()),
                                                signer(m).sign(payload()), strict=True)]),
        "signatures of zeros": lambda: trust.encode_envelope(
            payload(), [Signature(s.keyid, "00" * (len(s.signature) // 2))
                        for n in THREE for s in signer(n).sign(payload())]),
        "empty signatures": lambda: trust.encode_envelope(
            payload(), [Signature(s.keyid, "") for n in THREE for s in signer(n).sign(payload())]),
        "a proof of possession": lambda: trust.encode_envelope(
            payload(), [s for n in THREE
                        for s in signer(n).sign(payload(), trust.SIGNER_PAYLOAD_TYPE)]),
    }.items():
        yield Attack(kind, name, SignatureError, lambda _, data=data: accept(data()))
    for name, document in {"a root as release": root_one().data,
                           "an empty file": lambda: b"", "null": lambda: b"null"}.items():
        yield Attack(kind, name, EdgekitError, lambda _, data=document: accept(data()))
    for name in SMALL:
        yield Attack(kind, f"another {name}", EdgekitError,
                     lambda base, name=name: swap(base, name, b"#!/bin/sh\nrm -rf /\n"))


def swap(base: Path, name: str, data: bytes) -> object:
    folder = copy_of(base, "new")
    with replaced(folder / name, data):
        return check(folder)


def rollback() -> Iterator[Attack]:
    kind = CLASSES[1]
    for offered, floor in (((1, 4), (1, 5)), ((1, 1), (1, 5)), ((1, 2**53), (2, 1)),
                           ((1, 5), (2, 5)), ((3, 1), (3, 2)), ((1, 5), (1, 5))):
        yield Attack(
            kind, f"{offered} below {floor}", RollbackError,
            lambda _, o=offered, f=floor: trust.check_floor(
                accept(release(*THREE, epoch=o[0], sequence=o[1])), trust.Floor(*f, STATEMENT)))
    yield Attack(kind, "an older set", RollbackError,
                 lambda base: check(copy_of(base, "old"), trust.Floor(1, 2, STATEMENT)))
    yield Attack(kind, "another set with the same number", RollbackError,
                 lambda base: check(copy_of(base, "new"), trust.Floor(1, 2, STATEMENT)))
    yield Attack(kind, "below the root's minimum", RollbackError, lambda _: trust.check_floor(
        accept(release(*THREE, sequence=4)), trust.Floor(), (1, 5)))
    yield Attack(kind, "a downgrade into an epoch that is over", RollbackError,
                 lambda _: trust.check_downgrade(
                     accept(release(*THREE, sequence=9)), trust.Floor(2, 1, STATEMENT), (0, 0)))
    yield Attack(kind, "a downgrade below the root's minimum", RollbackError,
                 lambda _: trust.check_downgrade(
                     accept(release(*THREE, sequence=3)), trust.Floor(1, 9, STATEMENT), (1, 4)))
    for version in (1, 2):
        yield Attack(kind, f"root {version} after root 2", EdgekitError,
                     lambda _, v=version: extend(RootBuilder(version=v, signers=THREE),
                                                 RootBuilder(version=2, signers=THREE)))


def fast_forward() -> Iterator[Attack]:
    kind = CLASSES[2]
    for epoch in (3, 100, 2**31 - 1):
        yield Attack(kind, f"epoch {epoch} after 1", RollbackError,
                     lambda _, e=epoch: trust.check_floor(
                         accept(release(*THREE, epoch=e)), trust.Floor(1, 5, STATEMENT)))
    for field, value in (("epoch", 2**31), ("epoch", 0), ("epoch", -1), ("sequence", 2**53 + 1),
                         ("sequence", 2**63), ("sequence", 0), ("sequence", -1)):
        yield Attack(kind, f"{field} {value}", EdgekitError,
                     lambda _, f=field, v=value: accept(release(*THREE, **{f: v})))
    yield Attack(kind, "two sequence numbers in one statement", EdgekitError, lambda _: accept(
        signed(edited(payload(), lambda table: table.update(version=9)), *THREE)))
    for version in (3, 257, 2**31):
        yield Attack(kind, f"root {version} after root 1", TrustError,
                     lambda _, v=version: extend(RootBuilder(version=v, signers=THREE)))
    for created in (2_082_758_401, 2**40):
        yield Attack(kind, f"created {created}, after the end", EdgekitError,
                     lambda _, c=created: accept(release(*THREE, created=c)))


def freeze() -> Iterator[Attack]:
    kind = CLASSES[3]
    start = trust.COMPILED_IN

    def past(root_days: int, set_days: int, now_days: int) -> None:
        root = RootBuilder(signers=THREE, expires=day(root_days))
        statement = accept(release(*THREE, expires=day(set_days)), root)
        trust.check_not_expired(
            root.trusted(), statement,
            trust.trust_time(start + now_days * DAY, start + now_days * DAY))

    for root_days, set_days, now_days in ((1, 99, 2), (99, 1, 2), (1, 1, 2), (50, 99, 51),
                                          (99, 50, 51), (98, 99, 10_000)):
        yield Attack(kind, f"root {root_days} d, set {set_days} d, now {now_days} d", TrustError,
                     lambda _, a=(root_days, set_days, now_days): past(*a))
    for text in ("", "never", "2036-01-01", 7, None):
        yield Attack(kind, f"expires {text!r}", EdgekitError, lambda _, t=text: accept(
            signed(edited(payload(), lambda table: table.update(expires=t)), *THREE)))


def day(days: int) -> str:
    moment = dt.datetime.fromtimestamp(trust.COMPILED_IN + days * DAY, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def endless_data() -> Iterator[Attack]:
    kind = CLASSES[4]
    for name in (*SMALL, "release.json", "SHA384SUMS", "SHA384SUMS.sig"):
        yield Attack(kind, f"{name} of 1 TiB", EdgekitError, lambda base, n=name: grow(base, n))
    yield Attack(kind, "a volume one byte longer", EdgekitError,
                 lambda base: longer(base, "vol-0001.ekv"))
    yield Attack(kind, "65 signatures", EdgekitError, lambda _: accept(
        edited(release(*THREE), lambda t: t["signatures"].extend(
            {"keyid": f"{n:064x}", "sig": "AAAA"} for n in range(59)))))
    yield Attack(kind, "nesting of 100,000", EdgekitError,
                 lambda _: accept(b"[" * 100_000 + b"]" * 100_000))
    yield Attack(kind, "1,001 files", EdgekitError, lambda _: accept(
        release(*THREE, files={f"f{n}": (1, "0" * 96) for n in range(1001)})))
    yield Attack(kind, "257 revocations", EdgekitError, lambda _: RootBuilder(
        signers=THREE, revoked=tuple(
            trust.Revocation("eve", "x", 0, (f"{n:096x}",)) for n in range(257))).trusted())
    yield Attack(kind, "a root of 513 KiB", EdgekitError,
                 lambda _: trust.restore_root(b" " * (513 << 10)))


def grow(base: Path, name: str) -> object:
    folder = copy_of(base, "new")
    with (folder / name).open("r+b") as file:
        file.truncate(1 << 40)
    return check(folder)


def longer(base: Path, name: str) -> object:
    folder = copy_of(base, "new")
    with (folder / name).open("ab") as file:
        file.write(b"x")
    return check(folder)


def extraneous_dependencies() -> Iterator[Attack]:
    kind = CLASSES[5]
    for name in ("extra.bin", "vol-0009.ekv", "edgekit.sh", "trust/9.root.json", "attest/x.json",
                 "release.json.bak", "manifest2.json"):
        yield Attack(kind, f"{name} beside the set", EdgekitError,
                     lambda base, n=name: add(base, n))
    for name in ("../etc/passwd", "/etc/passwd", "extra.bin", "vol-0001.ekv", "release.json"):
        yield Attack(kind, f"a statement that lists {name}", EdgekitError,
                     lambda base, n=name: listed(base, n))
    for key in ("delegations", "custom", "x-edgekit-more"):
        yield Attack(kind, f"a statement with {key}", EdgekitError, lambda _, k=key: accept(signed(
            edited(payload(), lambda t: t.update({k: {"keys": {}, "roles": []}})), *THREE)))
    for key in ("x-edgekit-more", "custom"):
        yield Attack(kind, f"a root with {key}", EdgekitError, lambda _, k=key: trust.restore_root(
            signed(edited(root_one().payload(), lambda t: t.update({k: 1})), *THREE)))


def add(base: Path, name: str) -> object:
    folder = copy_of(base, "new")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    return check(folder)


def listed(base: Path, name: str) -> object:
    """Enough signers signed a statement that reaches beyond the set."""
    folder = copy_of(base, "new")
    statement = accept((folder / "release.json").read_bytes())
    files = {path: (length, value) for path, length, value in statement.files}
    data = release(*THREE, version="1.1.0", sequence=2, files={**files, name: b"x"})
    with replaced(folder / "release.json", data):
        return check(folder)


def mix_and_match() -> Iterator[Attack]:
    kind = CLASSES[6]
    for one, other in (("new", "old"), ("old", "new"), ("new", "other")):
        for name in ("manifest.json", "volumes.json", "README.txt", "release.json", "SHA384SUMS",
                     "SHA384SUMS.sig"):
            yield Attack(kind, f"{name} of {other} in {one}", EdgekitError,
                         lambda base, a=(one, other, name): mixed(base, *a))
    yield Attack(kind, "the root of strangers", EdgekitError, lambda base: swap(
        base, "trust/1.root.json", RootBuilder(signers=("eve", "fay")).data()))


def mixed(base: Path, one: str, other: str, name: str) -> object:
    folder = copy_of(base, one)
    with replaced(folder / name, (prototype(base, other) / name).read_bytes()):
        return check(folder)


def wrong_software() -> Iterator[Attack]:
    kind = CLASSES[7]
    for change in ({"name": "other"}, {"version": "1.1.1"}, {"name": "demo2", "version": "9.9.9"}):
        yield Attack(kind, f"a statement about {change}", EdgekitError,
                     lambda base, c=change: renamed(base, c))
    for change in ({"name": "../x"}, {"name": "A"}, {"name": ""}, {"version": "1"},
                   {"version": "1.0.0/.."}, {"name": "x" * 61}):
        yield Attack(kind, f"a statement about {change}", EdgekitError,
                     lambda _, c=change: accept(release(*THREE, **c)))
    yield Attack(kind, "a set for a newer edgekit", EdgekitError,
                 lambda base: renamed(base, {"min_edgekit": "99.0.0"}))


def renamed(base: Path, change: dict[str, str]) -> object:
    folder = copy_of(base, "new")
    statement = accept((folder / "release.json").read_bytes())
    files = {path: (length, value) for path, length, value in statement.files}
    facts: dict[str, Any] = {"version": "1.1.0", "sequence": 2, "files": files, **change}
    with replaced(folder / "release.json", release(*THREE, **facts)):
        return check(folder)


def malicious_medium() -> Iterator[Attack]:
    kind = CLASSES[8]
    for name in (*SMALL, "release.json", "SHA384SUMS", "SHA384SUMS.sig", "vol-0001.ekv"):
        yield Attack(kind, f"{name} is gone", EdgekitError, lambda base, n=name: without(base, n))
        yield Attack(kind, f"{name} is a link", EdgekitError, lambda base, n=name: linked(base, n))
        yield Attack(kind, f"{name} is cut short", EdgekitError, lambda base, n=name: cut(base, n))
    yield Attack(kind, "sums signed by a stranger", SignatureError, lambda base: swap(
        base, "SHA384SUMS.sig", signer("eve").sign_ssh(
            (prototype(base, "new") / "SHA384SUMS").read_bytes())))
    yield Attack(kind, "sums that leave a file out", DigestError, lambda base: swap(
        base, "SHA384SUMS", b"".join((prototype(base, "new") / "SHA384SUMS").read_bytes()
                                     .splitlines(keepends=True)[1:])))


def without(base: Path, name: str) -> object:
    folder = copy_of(base, "new")
    (folder / name).unlink()
    return check(folder)


def linked(base: Path, name: str) -> object:
    folder = copy_of(base, "new")
    elsewhere = base / "elsewhere"
    elsewhere.write_bytes((folder / name).read_bytes())
    (folder / name).unlink()
    (folder / name).symlink_to(elsewhere)
    return check(folder)


def cut(base: Path, name: str) -> object:
    folder = copy_of(base, "new")
    data = (folder / name).read_bytes()
    with replaced(folder / name, data[:-1]):
        return check(folder)


def key_compromise() -> Iterator[Attack]:
    kind = CLASSES[9]
    for policy, half in (("hybrid", 0), ("hybrid", 1), ("cnsa2", 0), ("classical", 1)):
        for count in (1, 2, 3):
            yield Attack(kind, f"{policy}, {count} stolen keys of kind {half}", SignatureError,
                         lambda _, a=(policy, half, count): stolen(*a))
    for name in THREE:
        yield Attack(kind, f"all of {name}", SignatureError,
                     lambda _, n=name: accept(release(n)))
        yield Attack(kind, f"all of {name}, and a root of their own", SignatureError,
                     lambda _, n=name: extend(
                         RootBuilder(version=2, signers=(n, "eve"), signed_by=(n, "eve"))))
    yield Attack(kind, "two who were revoked", SignatureError, lambda _: trust.verify_release(
        after_revoking("ann", "ben"), release("ann", "ben")))
    yield Attack(kind, "one revoked, one not", SignatureError, lambda _: trust.verify_release(
        after_revoking("ann"), release("ann", "ben")))
    yield Attack(kind, "a revoked key in the next root", EdgekitError, lambda _: trust.extend_root(
        after_revoking("ann"), RootBuilder(version=3, signers=("ann", "ben", "dora"),
                                           signed_by=("ben", "dora"),
                                           revoked=(revocation("ann"),)).data()))
    yield Attack(kind, "a set that rests on the revoked", SignatureError, lambda base: verify_set(
        open_set((SetBuilder(roots=(root_one(),), signed_by=("ann", "ben")).write(
            base / "stolen"),)), HostTrust(after_revoking("ann"))))


def stolen(policy: str, half: int, count: int) -> object:
    """Keys of one kind of several people, without the kind that the policy asks for."""
    root = RootBuilder(signers=THREE, policy=policy)
    signatures = [signer(name).sign(payload())[half] for name in THREE[:count]]
    return accept(trust.encode_envelope(payload(), signatures), root)


def revocation(name: str) -> trust.Revocation:
    identities = trust.SignerKeys(*signer(name).keys()).identities()
    return trust.Revocation(name, "stolen", 0, tuple(sorted(identities)))


def after_revoking(*names: str) -> trust.TrustedRoot:
    left = tuple(name for name in (*THREE, "dora") if name not in names)
    return RootBuilder(version=2, signers=left, signed_by=left,
                       revoked=tuple(map(revocation, names))).trusted()


def root_rotation_abuse() -> Iterator[Attack]:
    kind = CLASSES[10]
    for name, second in {
        "signed by nobody": RootBuilder(version=2, signers=THREE, signed_by=()),
        "signed by the new alone": RootBuilder(version=2, signers=("eve", "fay")),
        "signed by the old alone": RootBuilder(version=2, signers=("eve", "fay"),
                                               signed_by=THREE),
        "signed by one of the old": RootBuilder(version=2, signers=("eve", "fay"),
                                                signed_by=("ann", "eve", "fay")),
        "signed by one of the new": RootBuilder(version=2, signers=("eve", "fay"),
                                                signed_by=(*THREE, "eve")),
        "the same version": RootBuilder(signers=THREE),
        "a version skipped": RootBuilder(version=3, signers=THREE),
        "a developer root after a guarded one": RootBuilder(
            version=2, signers=("ann",), threshold=1, developer=True, signed_by=THREE),
        "the revoked vouch for their own revocation": RootBuilder(
            version=2, signers=("cid", "dora"), signed_by=("ann", "ben", "dora", "cid"),
            revoked=(revocation("ann"), revocation("ben"))),
    }.items():
        yield Attack(kind, name, TrustError, lambda _, s=second: extend(s))
    forgiving = RootBuilder(version=2, signers=("ben", "cid", "dora"), minimum=(2, 2),
                            revoked=(revocation("ann"),))
    for name, third in {
        "a revocation taken back": {"minimum": (2, 2)},
        "a revocation reworded": {"minimum": (2, 2), "revoked": (
            trust.Revocation("ann", "never mind", 9, revocation("ann").keys),)},
        "the minimum lowered": {"minimum": (2, 1), "revoked": (revocation("ann"),)},
        "the minimum taken away": {"revoked": (revocation("ann"),)},
    }.items():
        facts: dict[str, Any] = dict(third)
        yield Attack(kind, name, TrustError, lambda _, f=facts: extend(
            RootBuilder(version=3, signers=("ben", "cid", "dora"), **f), forgiving))
    yield Attack(kind, "a set that carries a root nobody vouched for", SignatureError,
                 lambda base: verify_set(open_set((SetBuilder(roots=(
                     root_one(), RootBuilder(version=2, signers=("eve", "fay")))).write(
                         base / "abuse"),)), HostTrust(root_one().trusted())))
    yield Attack(kind, "a release as root", EdgekitError, lambda _: trust.extend_root(
        root_one().trusted(), release(*THREE)))


def threshold_abuse() -> Iterator[Attack]:
    kind = CLASSES[11]
    for role in ("root", "targets"):
        for value in (-1, 0, 1, 4, True, "2", None, 2**62, [], {}):
            yield Attack(kind, f"{role} threshold {value!r}", EdgekitError,
                         lambda _, r=role, v=value: trust.restore_root(signed(edited(
                             root_one().payload(),
                             lambda t: t["roles"][r].update(threshold=v)), *THREE)))
    for name, change in {
        "one signature twice": lambda t: t["signatures"].extend(t["signatures"]),
        "one signature under two key ids": lambda t: t["signatures"].extend(
            {**s, "keyid": f"{n:064x}"} for n, s in enumerate(list(t["signatures"]))),
    }.items():
        yield Attack(kind, name, EdgekitError, lambda _, c=change: accept(
            edited(release("ann"), c)))
    yield Attack(kind, "one key for two people", EdgekitError, lambda _: trust.restore_root(
        signed(edited(root_one().payload(), share_a_key), *THREE)))
    yield Attack(kind, "two halves of two people", SignatureError, lambda _: accept(
        trust.encode_envelope(payload(), [signer("ann").sign(payload())[0],
                                          signer("ben").sign(payload())[1]])))
    yield Attack(kind, "a draft taken for a set", SignatureError, lambda base: check(
        SetBuilder(roots=(root_one(),), signed_by=("ann",)).write(base / "draft")))


def share_a_key(table: dict[str, Any]) -> None:
    for number in (0, 1):
        mine, theirs = (signer(name).keys()[number].keyid for name in ("ann", "ben"))
        table["keys"][theirs]["keyval"] = table["keys"][mine]["keyval"]


ATTACKS = tuple(
    attack
    for make in (arbitrary_software, rollback, fast_forward, freeze, endless_data,
                 extraneous_dependencies, mix_and_match, wrong_software, malicious_medium,
                 key_compromise, root_rotation_abuse, threshold_abuse)
    for attack in make()
)
_FIRED: list[str] = []


def test_without_an_attack(sets: Path) -> None:
    for which in ("old", "new", "other"):
        check(prototype(sets, which))
    assert accept(release(*THREE)).signers == THREE
    assert accept(release("ben", "cid")).signers == ("ben", "cid")
    assert extend(RootBuilder(version=2, signers=THREE)).version == 2
    statement = accept(release(*THREE))
    trust.check_floor(statement, trust.Floor(1, 4, STATEMENT), (1, 5))
    trust.check_floor(accept(release(*THREE, epoch=2)), trust.Floor(1, 4, STATEMENT))
    trust.check_floor(accept(release(*THREE, epoch=9)), trust.Floor(1, 4, STATEMENT), (8, 1))
    trust.check_floor(accept(release(*THREE, epoch=9)), trust.Floor())
    assert trust.verify_release(after_revoking("ann"), release("ben", "cid")).signers == (
        "ben", "cid")
    folder = SetBuilder(roots=(root_one(),), signed_by=("ann",)).write(sets / "one")
    assert verify_draft_set(open_set((folder,))).statement.tally.missing == 1
    assert set_files.is_set_file("release.json")


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack(sets: Path, attack: Attack) -> None:
    with pytest.raises(attack.refusal):
        attack.move(sets)
    _FIRED.append(str(attack))


def test_every_planned_attack_fired(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = [item.name for item in request.session.items
            if item.name.startswith("test_attack[") and "test_trust_attacks" in item.nodeid]
    with capsys.disabled():
        print(f"\ntrust attacks: planned {len(mine)} of {len(ATTACKS)} over "
              f"{len({a.kind for a in ATTACKS})} classes, fired and refused {len(_FIRED)}")
    assert len(_FIRED) == len(mine)
    assert len(set(map(str, ATTACKS))) == len(ATTACKS) >= 120
    assert {attack.kind for attack in ATTACKS} == set(CLASSES)
    assert min(sum(a.kind == kind for a in ATTACKS) for kind in CLASSES) >= 8
