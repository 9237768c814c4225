"""Who may sign a release and whether they did: every way to be refused, and the few to be accepted.

Roots and releases are built whole and right; each test changes one thing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from edgekit.core import trust
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import (
    EdgekitError,
    FingerprintError,
    FormatError,
    RollbackError,
    SignatureError,
    TrustError,
)
from edgekit.exit_codes import ExitCode
from edgekit.system.bundle_set import open_set, verify_set
from edgekit.system.signing import sign_payload
from edgekit.system.trust_store import HostTrust, TrustStore
from tests.support.sets import EXPIRES, RootBuilder, SetBuilder, signer, verify

FOUR = ("ann", "ben", "cid", "dora")


@dataclass
class ReleaseBuilder:
    """A release statement signed by its root's signers unless told otherwise."""

    root: RootBuilder
    epoch: int = 1
    sequence: int = 1
    version: str = "1.0.0"

    def payload(self) -> bytes:
        return trust.release_payload(
            name="demo", version=self.version, epoch=self.epoch, sequence=self.sequence,
            created=0, min_edgekit="0", expires=EXPIRES, files={"manifest.json": b"{}"},
        )

    def signatures(self, *names: str) -> list[Signature]:
        return [s for name in names or self.root.signers for s in signer(name).sign(self.payload())]

    def data(self, *names: str) -> bytes:
        return trust.encode_envelope(self.payload(), self.signatures(*names))

    def verified(self) -> trust.ReleaseStatement:
        return trust.verify_release(self.root.trusted(), self.data())


def is_of(signature: Signature, name: str, kind: str) -> bool:
    """Whether a signature claims to be of one of a person's two keys."""
    classical, post_quantum = signer(name).keys()
    return signature.keyid == {"classical": classical, "pq": post_quantum}[kind].keyid


def reopened(envelope: bytes) -> dict[str, Any]:
    """An envelope as plain JSON values, to be changed and encoded again."""
    table: dict[str, Any] = json.loads(envelope)
    return table


def resigned(root: RootBuilder, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A root whose payload was changed before its signers signed it."""
    table = json.loads(root.payload())
    change(table)
    return sign_payload(encode_canonical(table), tuple(signer(name) for name in root.signers))


# ------------------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize("policy", trust.POLICIES)
def test_a_release_signed_by_everybody_is_accepted_and_names_its_signers(policy: str) -> None:
    statement = ReleaseBuilder(RootBuilder(policy=policy)).verified()
    assert (statement.signers, statement.policy) == (("ann", "ben"), policy)


def test_an_unsigned_release_is_refused() -> None:
    release = ReleaseBuilder(RootBuilder())
    with pytest.raises(SignatureError) as caught:
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), [])
        )
    assert caught.value.found == "none that counts"
    assert caught.value.needed == "2 of ann, ben (policy hybrid)"
    assert caught.value.exit_code == ExitCode.SIGNATURE


def test_signatures_of_strangers_do_not_count() -> None:
    release = ReleaseBuilder(RootBuilder())
    with pytest.raises(SignatureError):
        trust.verify_release(release.root.trusted(), release.data("cid", "dora"))


def test_a_stranger_who_claims_a_trusted_key_id_does_not_count() -> None:
    release = ReleaseBuilder(RootBuilder())
    forged = [
        Signature(own.keyid, foreign.signature)
        for own, foreign in zip(
            release.signatures("ann", "ben"), release.signatures("cid", "dora"), strict=True
        )
    ]
    with pytest.raises(SignatureError):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), forged)
        )


@pytest.mark.parametrize(
    ("policy", "missing", "accepted"),
    [
        ("hybrid", "classical", False), ("hybrid", "pq", False),
        ("cnsa2", "classical", True), ("cnsa2", "pq", False),
        ("classical", "classical", False), ("classical", "pq", True),
    ],
)
@pytest.mark.parametrize("how", ["left out", "wrong"])
def test_which_half_of_a_pair_may_be_missing_is_the_policys_decision(
    policy: str, missing: str, accepted: bool, how: str
) -> None:
    release = ReleaseBuilder(RootBuilder(policy=policy))
    signatures = []
    for signature in release.signatures():
        if not is_of(signature, "ben", missing):
            signatures.append(signature)
        elif how == "wrong":
            signatures.append(Signature(signature.keyid, "00" * (len(signature.signature) // 2)))
    data = trust.encode_envelope(release.payload(), signatures)
    if accepted:
        assert trust.verify_release(release.root.trusted(), data).signers == ("ann", "ben")
        return
    with pytest.raises(SignatureError) as caught:
        trust.verify_release(release.root.trusted(), data)
    assert caught.value.found == "ann"


def test_a_threshold_of_two_is_not_met_by_one_of_three() -> None:
    release = ReleaseBuilder(RootBuilder(signers=("ann", "ben", "cid")))
    with pytest.raises(SignatureError):
        trust.verify_release(release.root.trusted(), release.data("ben"))
    statement = trust.verify_release(release.root.trusted(), release.data("ben", "cid"))
    assert statement.signers == ("ben", "cid")


def test_two_halves_of_two_people_are_nobody() -> None:
    release = ReleaseBuilder(RootBuilder(developer=True, threshold=1))
    halves = [s for s in release.signatures()
              if is_of(s, "ann", "classical") or is_of(s, "ben", "pq")]
    assert len(halves) == 2
    with pytest.raises(SignatureError):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), halves)
        )


def test_two_signatures_that_claim_one_key_are_refused() -> None:
    release = ReleaseBuilder(RootBuilder())
    ann = release.signatures("ann")
    with pytest.raises(FormatError, match="claim the same key"):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), [*ann, *ann])
        )


def test_one_signature_under_another_key_id_does_not_count_twice() -> None:
    release = ReleaseBuilder(RootBuilder())
    ann = release.signatures("ann")
    again = [Signature(f"{number:064x}", s.signature) for number, s in enumerate(ann)]
    with pytest.raises(SignatureError):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), [*ann, *again])
        )


# ------------------------------------------------------------------------------------------ roots


@pytest.mark.parametrize(
    ("developer", "threshold"), [(False, -1), (False, 0), (False, 1), (False, 3), (True, 0)]
)
def test_no_root_is_made_with_an_unusable_threshold(developer: bool, threshold: int) -> None:
    with pytest.raises(TrustError, match="unusable threshold"):
        RootBuilder(developer=developer, threshold=threshold).payload()


@pytest.mark.parametrize("role", ["root", "targets"])
@pytest.mark.parametrize("threshold", [-1, 0, 1, 3, 2**62, True, "2", None])
def test_no_root_is_read_with_an_unusable_threshold(role: str, threshold: object) -> None:
    def change(table: dict[str, Any]) -> None:
        table["roles"][role]["threshold"] = threshold

    with pytest.raises(FormatError):
        trust.restore_root(resigned(RootBuilder(), change))


def other_hex(text: str) -> str:
    return text.upper()


def other_pem(text: str) -> str:
    lines = text.strip().split("\n")
    return "\n".join([lines[0], "".join(lines[1:-1]), lines[-1], ""])


@pytest.mark.parametrize(
    ("kind", "spell"),
    [(0, str), (1, str), (0, other_hex), (1, other_pem)],
    ids=["same hex", "same pem", "other hex", "other pem"],
)
def test_one_public_key_under_two_key_ids_is_refused(
    kind: int, spell: Callable[[str], str]
) -> None:
    ann, ben = signer("ann").keys()[kind], signer("ben").keys()[kind]

    def change(table: dict[str, Any]) -> None:
        public = table["keys"][ann.keyid]["keyval"]["public"]
        table["keys"][ben.keyid]["keyval"]["public"] = spell(public)

    with pytest.raises(FormatError, match="one public key twice"):
        trust.restore_root(resigned(RootBuilder(signers=("ann", "ben", "cid")), change))


def swap_schemes(table: dict[str, Any]) -> None:
    pair = signer("ann").keys()
    classical, post_quantum = (table["keys"][key.keyid] for key in pair)
    classical["keyval"], post_quantum["keyval"] = post_quantum["keyval"], classical["keyval"]


def rsa_key(table: dict[str, Any]) -> None:
    key = SSlibKey.from_crypto(generate_private_key(65537, 2048).public_key())
    table["keys"][signer("ann").keys()[0].keyid] = {**key.to_dict(), trust.SIGNER_FIELD: "ann"}


def two_classical(table: dict[str, Any]) -> None:
    table["keys"][signer("ann").keys()[1].keyid] = {
        **signer("erin").keys()[0].to_dict(), trust.SIGNER_FIELD: "ann"}


def weaker_ml_dsa(table: dict[str, Any]) -> None:
    key = table["keys"][signer("ann").keys()[1].keyid]
    key["scheme"] = "ml-dsa-65/1"


def no_signer_name(table: dict[str, Any]) -> None:
    del table["keys"][signer("ann").keys()[0].keyid][trust.SIGNER_FIELD]


def foreign_key_id(table: dict[str, Any]) -> None:
    table["roles"]["targets"]["keyids"].append("0" * 64)


def half_a_signer(table: dict[str, Any]) -> None:
    table["roles"]["targets"]["keyids"].remove(signer("ann").keys()[1].keyid)


def unknown_policy(table: dict[str, Any]) -> None:
    table[trust.POLICY_FIELD] = "any"


def no_policy(table: dict[str, Any]) -> None:
    del table[trust.POLICY_FIELD]


def developer_as_text(table: dict[str, Any]) -> None:
    table[trust.DEVELOPER_FIELD] = "no"


def not_a_root(table: dict[str, Any]) -> None:
    table["_type"] = "targets"


def no_roles(table: dict[str, Any]) -> None:
    table["roles"] = []


def short_key(table: dict[str, Any]) -> None:
    table["keys"][signer("ann").keys()[0].keyid]["keyval"]["public"] = "ab"


@pytest.mark.parametrize(
    "change",
    [swap_schemes, rsa_key, two_classical, weaker_ml_dsa, no_signer_name, foreign_key_id,
     half_a_signer, unknown_policy, no_policy, developer_as_text, not_a_root, no_roles, short_key],
)
def test_a_root_that_breaks_a_rule_is_refused_whoever_signed_it(
    change: Callable[[dict[str, Any]], None],
) -> None:
    root = RootBuilder(signers=("ann", "ben", "cid"))
    data = resigned(root, change)
    with pytest.raises(FormatError):
        trust.restore_root(data)
    with pytest.raises(FormatError):
        trust.trust_first_root(data, trust.fingerprint(data))


def test_a_key_is_the_same_key_however_its_pem_is_wrapped() -> None:
    text = str(signer("ann").keys()[1].keyval["public"])
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wrapped = load_pem_public_key(other_pem(text).encode()).public_bytes(*spki)
    assert wrapped == load_pem_public_key(text.encode()).public_bytes(*spki)
    assert other_pem(text) != text


def test_a_root_that_does_not_sign_itself_is_refused() -> None:
    data = RootBuilder(signed_by=("ann", "cid")).data()
    with pytest.raises(SignatureError):
        trust.trust_first_root(data, trust.fingerprint(data))


def test_a_developer_root_must_be_asked_for_by_name() -> None:
    data = RootBuilder(signers=("dev",), threshold=1, developer=True).data()
    with pytest.raises(TrustError, match="developer root") as caught:
        trust.trust_first_root(data, trust.fingerprint(data))
    assert "--insecure-developer-root" in str(caught.value.hint)
    assert trust.trust_first_root(
        data, trust.fingerprint(data), insecure_developer=True
    ).developer


def test_a_developer_root_never_follows_a_guarded_one() -> None:
    guarded = RootBuilder()
    with pytest.raises(TrustError, match="developer root may not follow"):
        trust.extend_root(guarded.trusted(), RootBuilder(version=2, developer=True).data())


def test_a_guarded_root_may_follow_a_developer_one() -> None:
    first = RootBuilder(signers=("dev",), threshold=1, developer=True)
    second = RootBuilder(version=2, signed_by=("dev", "ann", "ben"))
    assert not trust.extend_root(first.trusted(), second.data()).developer


@pytest.mark.parametrize(
    "spell",
    [str, str.upper, trust.format_fingerprint, lambda text: "\n" + text.replace("a", "A") + " ",
     lambda text: ":".join(text[i : i + 2] for i in range(0, 96, 2))],
)
def test_a_fingerprint_may_be_typed_in_any_grouping(spell: Callable[[str], str]) -> None:
    data = RootBuilder().data()
    assert trust.trust_first_root(data, spell(trust.fingerprint(data))).version == 1


@pytest.mark.parametrize(
    "spell",
    [lambda _: "", lambda text: text[:-1], lambda text: text + "0", lambda text: text[:32],
     lambda text: ("1" if text[0] == "0" else "0") + text[1:], lambda _: "0" * 96],
)
def test_any_other_fingerprint_is_refused(spell: Callable[[str], str]) -> None:
    data = RootBuilder().data()
    with pytest.raises(FingerprintError) as caught:
        trust.trust_first_root(data, spell(trust.fingerprint(data)))
    assert caught.value.exit_code == ExitCode.FINGERPRINT


# --------------------------------------------------------------------------------------- rotation


def test_a_root_signed_by_the_old_and_the_new_is_accepted() -> None:
    second = RootBuilder(version=2, signers=("cid", "dora"), signed_by=FOUR)
    extended = trust.extend_root(RootBuilder().trusted(), second.data())
    assert (extended.version, extended.signers("targets")) == (2, ("cid", "dora"))


def test_a_root_that_the_old_signers_did_not_sign_is_refused() -> None:
    second = RootBuilder(version=2, signers=("cid", "dora"))
    with pytest.raises(SignatureError):
        trust.extend_root(RootBuilder().trusted(), second.data())


def test_a_root_that_its_own_signers_did_not_sign_is_refused() -> None:
    second = RootBuilder(version=2, signers=("cid", "dora"), signed_by=("ann", "ben", "cid"))
    with pytest.raises(SignatureError):
        trust.extend_root(RootBuilder().trusted(), second.data())


@pytest.mark.parametrize("version", [1, 3, 100])
def test_root_versions_go_up_by_one(version: int) -> None:
    with pytest.raises(TrustError, match="follow each other"):
        trust.extend_root(RootBuilder().trusted(), RootBuilder(version=version).data())


def test_a_set_carries_a_host_over_several_rotations(tmp_path: Path) -> None:
    roots = (
        RootBuilder(),
        RootBuilder(version=2, signers=("ben", "cid"), signed_by=("ann", "ben", "cid")),
        RootBuilder(version=3, signers=("cid", "dora"), signed_by=("ben", "cid", "dora")),
    )
    built = SetBuilder(roots=roots)
    verified = verify(built.host(), built.write(tmp_path / "demo"))
    assert verified.root.version == 3
    assert verified.new_roots == (roots[1].data(), roots[2].data())
    assert verified.statement.signers == ("cid", "dora")
    assert verify(HostTrust(roots[1].trusted()), tmp_path / "demo").root.version == 3


def test_a_set_signed_by_retired_signers_is_refused_once_the_host_has_moved_on(
    tmp_path: Path,
) -> None:
    old = SetBuilder().write(tmp_path / "demo")
    second = RootBuilder(version=2, signers=("cid", "dora"), signed_by=FOUR)
    with pytest.raises(SignatureError, match=r"release\.json is not signed by enough"):
        verify(HostTrust(second.trusted()), old)


def test_a_gap_in_the_chain_of_roots_leaves_the_host_where_it_was(tmp_path: Path) -> None:
    built = SetBuilder(
        roots=(RootBuilder(),
               RootBuilder(version=2, signers=("cid", "dora"), signed_by=FOUR))
    )
    folder = built.write(tmp_path / "demo")
    (folder / "trust/2.root.json").rename(folder / "trust/3.root.json")
    with pytest.raises(SignatureError):
        verify(built.host(), folder)


@pytest.mark.parametrize(("rotations", "refused"), [(256, False), (257, True), (300, True)])
def test_a_set_carries_at_most_256_rotations(
    tmp_path: Path, rotations: int, refused: bool
) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "release.json").write_bytes(b"{}")
    first = RootBuilder(policy="classical")
    for version in range(2, rotations + 2):
        data = RootBuilder(version=version, policy="classical").data()
        (tmp_path / f"trust/{version}.root.json").write_bytes(data)
    host = HostTrust(first.trusted())
    with pytest.raises(EdgekitError) as caught:
        verify_set(open_set((tmp_path,)), host)
    assert ("too many root rotations" in caught.value.message) == refused


# --------------------------------------------------------------------------------------- rollback


@pytest.mark.parametrize("offered", [(1, 1), (1, 9), (2, 4)])
def test_an_older_release_is_refused(offered: tuple[int, int]) -> None:
    statement = ReleaseBuilder(RootBuilder(), *offered).verified()
    with pytest.raises(RollbackError) as caught:
        trust.check_floor(statement, trust.Floor(2, 5, "sha384:" + "0" * 96))
    assert caught.value.found == f"epoch {offered[0]}, sequence {offered[1]}"
    assert caught.value.exit_code == ExitCode.ROLLBACK


@pytest.mark.parametrize("offered", [(2, 6), (3, 1)])
def test_a_newer_release_is_accepted(offered: tuple[int, int]) -> None:
    statement = ReleaseBuilder(RootBuilder(), *offered).verified()
    trust.check_floor(statement, trust.Floor(2, 5, "sha384:" + "0" * 96))


def test_the_same_number_must_be_the_same_statement() -> None:
    accepted = ReleaseBuilder(RootBuilder(), 2, 5).verified()
    floor = trust.Floor(2, 5, str(accepted.digest))
    trust.check_floor(accepted, floor)
    with pytest.raises(RollbackError, match="same sequence number"):
        trust.check_floor(ReleaseBuilder(RootBuilder(), 2, 5, "1.0.1").verified(), floor)


def test_the_floor_is_checked_when_a_set_is_verified(tmp_path: Path) -> None:
    built = SetBuilder(sequence=4)
    folder = built.write(tmp_path / "demo")
    with pytest.raises(RollbackError):
        verify(HostTrust(built.roots[0].trusted(), trust.Floor(1, 5, "")), folder)


def test_a_damaged_copy_of_the_floor_never_lowers_it(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    store.save_floor(trust.Floor(3, 7, "sha384:" + "a" * 96))
    (tmp_path / "floor-b.json").write_bytes(trust.encode_floor(trust.Floor(3, 6, "")))
    assert store.load().floor.sequence == 7
    (tmp_path / "floor-b.json").write_bytes(b"")
    assert store.load().floor.sequence == 7
    (tmp_path / "floor-a.json").write_bytes(b"garbage")
    with pytest.raises(TrustError, match="both copies"):
        store.load()


def test_a_host_without_a_root_trusts_nobody_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="trusts nobody yet") as caught:
        TrustStore(tmp_path).load().require_root()
    assert "edgekit trust import" in str(caught.value.hint)


# --------------------------------------------------------------------------------- envelope's form


def add_space(data: bytes) -> bytes:
    return data.replace(b'":"', b'": "', 1)


def reorder(data: bytes) -> bytes:
    return json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode()


def duplicate_key(data: bytes) -> bytes:
    return data[:-1] + b',"signatures":[]}'


def escape(data: bytes) -> bytes:
    return data.replace(b"payloadType", b"payload\\u0054ype", 1)


def with_float(data: bytes) -> bytes:
    return data[:-1] + b',"zz":1.0}'


def with_unknown_key(data: bytes) -> bytes:
    return data[:-1] + b',"zz":1}'


def nested(data: bytes) -> bytes:
    return data[:-1] + b',"zz":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    "spoil",
    [add_space, reorder, duplicate_key, escape, with_float, with_unknown_key, nested,
     lambda data: data + b"\n", lambda data: b"\xef\xbb\xbf" + data, lambda data: data + data,
     lambda data: data.decode().encode("utf-16"), lambda _: b"", lambda _: b"null",
     lambda _: b"[]", lambda data: data.ljust(trust.MAX_RELEASE_BYTES + 1)],
)
def test_an_envelope_that_is_not_canonical_json_is_refused(
    spoil: Callable[[bytes], bytes],
) -> None:
    release = ReleaseBuilder(RootBuilder())
    with pytest.raises(FormatError):
        trust.verify_release(release.root.trusted(), spoil(release.data()))


@pytest.mark.parametrize("spoil", [add_space, reorder, with_float, with_unknown_key])
def test_a_payload_that_is_not_canonical_is_refused_even_when_it_is_signed(
    spoil: Callable[[bytes], bytes],
) -> None:
    release = ReleaseBuilder(RootBuilder())
    data = sign_payload(spoil(release.payload()), (signer("ann"), signer("ben")))
    with pytest.raises(FormatError):
        trust.verify_release(release.root.trusted(), data)


@pytest.mark.parametrize("number", [b"1.0", b"1e3", b"-0.5", b"NaN", b"Infinity", b"9" * 20])
def test_no_document_holds_a_number_that_is_not_a_64_bit_integer(number: bytes) -> None:
    with pytest.raises(FormatError):
        parse_canonical(b'{"a":' + number + b"}", max_bytes=100, what="document")


def test_nothing_of_a_payload_is_parsed_before_its_signatures_count() -> None:
    root = RootBuilder().trusted()
    with pytest.raises(SignatureError):
        trust.verify_release(root, trust.encode_envelope(b"{ this is not JSON", []))


@pytest.mark.parametrize(
    ("key", "value"),
    [("payload", "!!!!"), ("payload", "YQ"), ("payload", "YR=="), ("payload", "YQ==\u00e9"),
     ("payload", 7), ("payload", None), ("payloadType", "application/json"), ("payloadType", ""),
     ("signatures", {}), ("signatures", [[]]), ("signatures", [{"keyid": "a", "sig": ""}]),
     ("signatures", [{"keyid": "A" * 64, "sig": ""}]), ("signatures", [{"sig": ""}]),
     ("signatures", [{"keyid": "0" * 64, "sig": "Y Q="}]),
     ("signatures", [{"keyid": "0" * 64, "sig": "", "more": 1}])],
)
def test_an_envelope_with_a_malformed_field_is_refused(key: str, value: object) -> None:
    release = ReleaseBuilder(RootBuilder())
    table = reopened(release.data()) | {key: value}
    with pytest.raises(FormatError):
        trust.verify_release(release.root.trusted(), encode_canonical(table))


@pytest.mark.parametrize(("extra", "refused"), [(60, False), (61, True), (1000, True)])
def test_an_envelope_holds_at_most_64_signatures(extra: int, refused: bool) -> None:
    release = ReleaseBuilder(RootBuilder())
    table = reopened(release.data())
    strangers = [{"keyid": f"{number:064x}", "sig": "AAAA"} for number in range(extra)]
    data = encode_canonical(table | {"signatures": [*table["signatures"], *strangers]})
    if not refused:
        assert trust.verify_release(release.root.trusted(), data).signers == ("ann", "ben")
        return
    with pytest.raises(FormatError, match="more than 64 items"):
        trust.verify_release(release.root.trusted(), data)


# ------------------------------------------------------------------------------------- confusion


def test_a_root_is_not_taken_for_a_release() -> None:
    root = RootBuilder()
    with pytest.raises(FormatError, match="no release statement"):
        trust.verify_release(root.trusted(), root.data())


def test_a_release_is_not_taken_for_a_root() -> None:
    release = ReleaseBuilder(RootBuilder())
    with pytest.raises(FormatError, match="not a TUF root"):
        trust.extend_root(release.root.trusted(), release.data())


def test_signatures_without_the_payload_type_in_them_do_not_count() -> None:
    release = ReleaseBuilder(RootBuilder())
    bare = [
        key.sign(release.payload())
        for name in release.root.signers
        for key in (signer(name).classical, signer(name).post_quantum)
    ]
    with pytest.raises(SignatureError):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), bare)
        )


def test_signatures_of_one_release_do_not_count_for_another() -> None:
    first, second = ReleaseBuilder(RootBuilder()), ReleaseBuilder(RootBuilder(), sequence=2)
    with pytest.raises(SignatureError):
        trust.verify_release(
            first.root.trusted(), trust.encode_envelope(second.payload(), first.signatures())
        )


def test_a_signature_of_one_kind_does_not_count_for_the_other() -> None:
    release = ReleaseBuilder(RootBuilder())
    signatures = release.signatures()
    crossed = [
        Signature(signatures[index ^ 1].keyid, signature.signature)
        for index, signature in enumerate(signatures)
    ]
    with pytest.raises(SignatureError):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), crossed)
        )


def test_a_file_with_another_algorithm_or_two_of_them_is_refused() -> None:
    release = ReleaseBuilder(RootBuilder())
    for hashes in ({"sha256": "0" * 64}, {"sha384": "0" * 96, "sha256": "0" * 64},
                   {"sha384": "0" * 64}, {"sha384": 7}, {}):
        table = json.loads(release.payload())
        table["targets"]["manifest.json"]["hashes"] = hashes
        data = sign_payload(encode_canonical(table), (signer("ann"), signer("ben")))
        with pytest.raises(FormatError):
            trust.verify_release(release.root.trusted(), data)


def test_signers_are_what_the_root_says_and_not_what_keys_are_called() -> None:
    """A guest's own key pair under a trusted person's name is still a stranger's."""
    guest = CryptoSigner.generate_ed25519()
    release = ReleaseBuilder(RootBuilder(policy="classical"))
    message = trust.pre_authentication_encoding(release.payload())
    forged = [
        Signature(signer(name).keys()[0].keyid, guest.sign(message).signature)
        for name in release.root.signers
    ]
    with pytest.raises(SignatureError):
        trust.verify_release(
            release.root.trusted(), trust.encode_envelope(release.payload(), forged)
        )


# -------------------------------------------------------------------------------------- bit flips


def accepted_payload(root: trust.TrustedRoot, data: bytes) -> str | None:
    """The digest of the payload that a host would act on, or None when it refuses."""
    try:
        return str(trust.verify_release(root, data).digest)
    except EdgekitError:
        return None


def test_no_single_bit_flip_of_a_release_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    release = ReleaseBuilder(RootBuilder(signers=("dev",), threshold=1, developer=True))
    root, good = release.root.trusted(), release.data()
    assert accepted_payload(root, good) is not None
    fired, accepted = 0, []
    flipped = bytearray(good)
    for position in range(len(good)):
        for bit in range(8):
            flipped[position] ^= 1 << bit
            if accepted_payload(root, bytes(flipped)) is not None:
                accepted.append((position, bit))
            flipped[position] ^= 1 << bit
            fired += 1
    with capsys.disabled():
        print(f"\nrelease bit flips: planned {len(good) * 8}, fired {fired}, "
              f"accepted {len(accepted)}")
    assert fired == len(good) * 8
    assert accepted == []


def test_a_spare_signature_may_be_damaged_but_the_payload_stays_the_same() -> None:
    """2 of 3: a flip may cost one signer, never change what is installed."""
    release = ReleaseBuilder(RootBuilder(signers=("ann", "ben", "cid")))
    root, good = release.root.trusted(), release.data()
    wanted = accepted_payload(root, good)
    outcomes = set()
    for position in range(0, len(good), 11):
        flipped = bytearray(good)
        flipped[position] ^= 1 << position % 8
        outcomes.add(accepted_payload(root, bytes(flipped)))
    assert outcomes == {wanted, None}
    payload = base64.b64encode(release.payload())
    start = good.index(payload)
    for position in range(start, start + len(payload)):
        flipped = bytearray(good)
        flipped[position] ^= 1
        assert accepted_payload(root, bytes(flipped)) is None
