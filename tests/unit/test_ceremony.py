"""Three people, three machines, one set: keys, a root, signatures one after the other."""

from __future__ import annotations

import itertools
import json
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from edgekit.cli.main import main
from edgekit.core import trust
from edgekit.core.signers import load_public_key
from edgekit.core.sshsig import NAMESPACE, allowed_signer, verify_ssh
from edgekit.errors import (
    DigestError,
    EdgekitError,
    FormatError,
    SetShapeError,
    SignatureError,
    TrustError,
)
from edgekit.exit_codes import ExitCode
from edgekit.operations import keys
from edgekit.system.bundle_set import open_set, verify_draft_set, verify_set
from edgekit.system.signing import create_signer, load_signer
from edgekit.system.trust_store import HostTrust
from tests.support.sets import RootBuilder, SetBuilder, damaged, quiet, replaced, signer

NOW = 1_795_000_000
PEOPLE = ("alice", "bob", "carol")
PAIRS = tuple(itertools.permutations(PEOPLE, 2))


@dataclass(frozen=True)
class Ceremony:
    """Sticks of three people below `base`, and the root that two of them signed."""

    base: Path
    root: Path

    def key(self, name: str) -> str:
        return f"file:{self.base / name / name}"

    def half(self, name: str) -> Path:
        return self.base / name / name / f"{name}.signer.json"

    def trusted(self) -> trust.TrustedRoot:
        return trust.restore_root(self.root.read_bytes())

    def draft(self, folder: Path) -> Path:
        """A set that nobody has signed."""
        built = SetBuilder(root_documents=(self.root.read_bytes(),), signed_by=())
        return built.write(folder)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Ceremony:
    """The ceremony of docs/how-to/sign-with-three-people.md, by the command line."""
    base = tmp_path_factory.mktemp("ceremony")
    ceremony = Ceremony(base, base / "1.root.json")
    for name, kind in zip(PEOPLE, ("ed25519", "ecdsa-p384", "ed25519"), strict=True):
        assert main(["keys", "new", f"{base}/{name}/{name}", "--classical", kind]) == 0
    options = [f"--signer={ceremony.half(name)}" for name in PEOPLE]
    assert main(["keys", "root", *options, "--threshold", "2", "--out", str(ceremony.root)]) == 0
    for name in ("alice", "carol"):
        assert main(["keys", "sign", str(ceremony.root), "--key", ceremony.key(name)]) == 0
    return ceremony


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------- the root


def test_a_root_counts_when_the_second_of_three_has_signed_it(
    held: Ceremony, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = tuple(keys.load_public_half(held.half(name)) for name in PEOPLE)
    path = tmp_path / "1.root.json"
    keys.make_root(halves, threshold=2, policy="hybrid", years=10, root_path=path, now=NOW)
    with pytest.raises(SignatureError):
        trust.restore_root(path.read_bytes())
    assert main(["keys", "sign", str(path), "--key", held.key("bob")]) == 0
    said = capsys.readouterr()
    assert "root 1: 1 of 2 (bob)" in said.out
    assert "NOT COMPLETE: 1 more of alice, carol must sign" in said.err
    assert "fingerprint  " not in said.out, "nobody may read a fingerprint that will change"
    with pytest.raises(SignatureError):
        trust.restore_root(path.read_bytes())
    assert main(["keys", "sign", str(path), "--key", held.key("carol")]) == 0
    said = capsys.readouterr()
    trusted = trust.restore_root(path.read_bytes())
    assert (trusted.signers("root"), trusted.threshold("root")) == (PEOPLE, 2)
    assert trust.format_fingerprint(trusted.fingerprint) in said.out
    assert said.err == ""


def test_everybody_sees_the_fingerprints_they_compare(
    held: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `keys new` reads aloud is what `keys sign` shows of the root."""
    people = keys.signer_fingerprints(held.trusted())
    for name in PEOPLE:
        assert people[name] == keys.load_public_half(held.half(name)).fingerprint
    assert len(set(people.values())) == 3


def test_a_complete_first_root_takes_no_further_signature(held: Ceremony) -> None:
    before = held.root.read_bytes()
    with pytest.raises(TrustError, match="would change its fingerprint"):
        keys.sign_root(held.root, held.key("bob"), None)
    assert held.root.read_bytes() == before


def test_signing_a_root_twice_is_one_signature(held: Ceremony, tmp_path: Path) -> None:
    halves = tuple(keys.load_public_half(held.half(name)) for name in PEOPLE)
    path = tmp_path / "1.root.json"
    keys.make_root(halves, threshold=2, policy="hybrid", years=10, root_path=path, now=NOW)
    for _ in range(2):
        signed = keys.sign_root(path, held.key("alice"), None)
    assert signed.tallies[0].signed == ("alice",)
    assert not signed.complete
    assert len(json.loads(path.read_bytes())["signatures"]) == 2


@pytest.mark.parametrize(
    ("names", "threshold", "policy", "error"),
    [
        (("alice",), 1, "hybrid", TrustError), (PEOPLE, 1, "hybrid", TrustError),
        (PEOPLE, 0, "hybrid", TrustError), (PEOPLE, -1, "hybrid", TrustError),
        (PEOPLE, 4, "hybrid", TrustError), (PEOPLE, 2, "any", FormatError),
        (("alice", "alice", "bob"), 2, "hybrid", TrustError),
    ],
)
def test_no_root_is_made_that_a_host_would_refuse(
    held: Ceremony, tmp_path: Path, names: tuple[str, ...], threshold: int, policy: str,
    error: type[EdgekitError],
) -> None:
    halves = tuple(keys.load_public_half(held.half(name)) for name in names)
    with pytest.raises(error):
        keys.make_root(halves, threshold=threshold, policy=policy, years=10,
                       root_path=tmp_path / "root.json", now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_one_key_under_two_names_makes_no_root(held: Ceremony, tmp_path: Path) -> None:
    alice = keys.load_public_half(held.half("alice"))
    bob = keys.load_public_half(held.half("bob"))
    twice = trust.PublicHalf("zoe", trust.SignerKeys(alice.keys.classical, bob.keys.post_quantum))
    with pytest.raises(FormatError):
        keys.make_root((alice, bob, twice), threshold=2, policy="hybrid", years=10,
                       root_path=tmp_path / "root.json", now=NOW)


def test_a_stranger_cannot_sign_a_root(held: Ceremony, tmp_path: Path) -> None:
    create_signer(tmp_path / "mallory")
    path = tmp_path / "root.json"
    shutil.copy(held.root, path)
    with pytest.raises(TrustError, match="does not name this signer"):
        keys.sign_root(path, f"file:{tmp_path}/mallory", None)
    assert path.read_bytes() == held.root.read_bytes()


# -------------------------------------------------------------------------------------- the halves


def test_a_public_half_holds_no_secret_and_private_keys_are_for_their_owner(
    held: Ceremony,
) -> None:
    for name in PEOPLE:
        folder = held.half(name).parent
        assert b"PRIVATE" not in held.half(name).read_bytes()
        for pem in folder.glob("*.pem"):
            assert stat.S_IMODE(pem.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    create_signer(tmp_path / "dan")
    before = contents(tmp_path)
    with pytest.raises(TrustError, match="never overwritten"):
        keys.new_signer(tmp_path / "dan", "ed25519")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["rsa", "", "ED25519", "ecdsa-p256"])
def test_an_unknown_kind_of_key_is_refused_before_anything_is_written(
    tmp_path: Path, kind: str
) -> None:
    with pytest.raises(TrustError, match="unknown kind of classical key"):
        keys.new_signer(tmp_path / "dan", kind)
    assert list(tmp_path.iterdir()) == []


def test_no_bit_flip_of_a_public_half_is_accepted(
    held: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    good = held.half("alice").read_bytes()
    accepted, planned = [], range(len(good))
    for position in planned:
        flipped = bytearray(good)
        flipped[position] ^= 1 << position % 8
        try:
            trust.verify_public_half(bytes(flipped))
        except EdgekitError:
            continue
        accepted.append(position)
    with capsys.disabled():
        print(f"\npublic half bit flips: planned {len(planned)}, accepted {len(accepted)}")
    assert accepted == []


def half_of(name: str, signed_by: str, kind: str = trust.SIGNER_PAYLOAD_TYPE) -> bytes:
    """A public half with one person's keys and another's signatures."""
    payload = trust.signer_payload(name, trust.SignerKeys(*signer(name).keys()))
    own, other = signer(name), signer(signed_by)
    signatures = [
        type(theirs)(mine.keyid, theirs.signature)
        for mine, theirs in zip(own.sign(payload, kind), other.sign(payload, kind), strict=True)
    ]
    return trust.encode_envelope(payload, signatures, kind)


def test_a_public_half_made_by_its_owner_is_accepted() -> None:
    assert trust.verify_public_half(half_of("ann", "ann")).name == "ann"


@pytest.mark.parametrize("signed_by", ["ben", "mallory"])
def test_a_public_half_without_proof_of_possession_is_refused(signed_by: str) -> None:
    with pytest.raises(SignatureError, match="does not prove"):
        trust.verify_public_half(half_of("ann", signed_by))


def test_a_public_half_spells_its_keys_in_one_way() -> None:
    """Its fingerprint names the keys, so no second text may stand for the same ones."""
    payload = trust.signer_payload("ann", trust.SignerKeys(*signer("ann").keys()))
    other = payload.replace(b"-----\\nMII", b"-----\\n\\nMII", 1)
    assert other != payload
    kind = trust.SIGNER_PAYLOAD_TYPE
    data = trust.encode_envelope(other, signer("ann").sign(other, kind), kind)
    with pytest.raises(FormatError, match="unusual way"):
        trust.verify_public_half(data)


def test_a_proof_of_possession_is_no_signature_of_a_root() -> None:
    """The payload type is signed too: a half's signatures count for nothing else."""
    root = RootBuilder()
    forged = [s for name in root.signers
              for s in signer(name).sign(root.payload(), trust.SIGNER_PAYLOAD_TYPE)]
    with pytest.raises(SignatureError):
        trust.restore_root(trust.encode_envelope(root.payload(), forged))


# ----------------------------------------------------------------------------------------- the set


def test_a_draft_is_right_in_everything_and_no_host_takes_it(
    held: Ceremony, tmp_path: Path
) -> None:
    folder = held.draft(tmp_path / "demo")
    draft = verify_draft_set(open_set((folder,)))
    assert (draft.statement.tally.missing, draft.statement.tally.signed) == (2, ())
    with pytest.raises(SignatureError):
        verify_set(open_set((folder,)), HostTrust(held.trusted()))
    assert not (folder / "SHA384SUMS.sig").exists()


@pytest.mark.parametrize(("first", "last"), PAIRS, ids=str)
def test_any_two_sign_one_after_the_other_and_the_last_signs_the_sums(
    held: Ceremony, tmp_path: Path, first: str, last: str
) -> None:
    folder = held.draft(tmp_path / "demo")
    signed = keys.sign_set(folder, held.key(first), quiet)
    assert (signed.signer, signed.complete) == (first, False)
    with pytest.raises(SignatureError):
        verify_set(open_set((folder,)), HostTrust(held.trusted()))
    verify_draft_set(open_set((folder,)))
    signed = keys.sign_set(folder, held.key(last), quiet)
    assert signed.complete
    verified = verify_set(open_set((folder,)), HostTrust(held.trusted()))
    assert verified.statement.signers == tuple(sorted((first, last)))
    assert verified.statement.policy == "hybrid"
    subprocess.run(["sha384sum", "-c", "--quiet", "SHA384SUMS"], cwd=folder, check=True)
    check_with_ssh_keygen(folder, held.trusted(), tmp_path, last)


def check_with_ssh_keygen(
    folder: Path, root: trust.TrustedRoot, work: Path, expected: str
) -> None:
    """The stranger's path of README.txt, with the real program."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("cannot run here: ssh-keygen is not installed")
    allowed = work / "allowed_signers"
    lines = [allowed_signer(name, load_public_key(pair.classical))
             for name, pair in root.keys("targets").items()]
    readme = (folder / "README.txt").read_text("utf-8")
    assert all(line in readme for line in lines)
    allowed.write_text("\n".join(lines) + "\n", "utf-8")
    options = ["-f", str(allowed), "-s", str(folder / "SHA384SUMS.sig")]
    found = subprocess.run(["ssh-keygen", "-Y", "find-principals", *options],
                           capture_output=True, text=True, check=True)
    assert found.stdout == f"{expected}\n"
    done = subprocess.run(["ssh-keygen", "-Y", "verify", *options, "-I", expected, "-n", NAMESPACE],
                          input=(folder / "SHA384SUMS").read_bytes(), capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stderr


def test_signing_again_repairs_a_run_that_was_cut_off(held: Ceremony, tmp_path: Path) -> None:
    """release.json is new, the sums are still those of before."""
    folder = held.draft(tmp_path / "demo")
    keys.sign_set(folder, held.key("alice"), quiet)
    stale = {name: (folder / name).read_bytes() for name in ("SHA384SUMS", "SHA384SUMS.sig")}
    keys.sign_set(folder, held.key("bob"), quiet)
    for name, data in stale.items():
        (folder / name).write_bytes(data)
    with pytest.raises(DigestError):
        verify_set(open_set((folder,)), HostTrust(held.trusted()))
    signed = keys.sign_set(folder, held.key("bob"), quiet)
    assert signed.tallies[0].signed == ("alice", "bob")
    verify_set(open_set((folder,)), HostTrust(held.trusted()))


@pytest.mark.parametrize("offset", [0, -1])
def test_nobody_signs_a_set_with_a_damaged_volume(
    held: Ceremony, tmp_path: Path, offset: int
) -> None:
    folder = held.draft(tmp_path / "demo")
    volume = folder / "vol-0001.ekv"
    before = contents(folder)
    with damaged(volume, offset % volume.stat().st_size), pytest.raises(DigestError):
        keys.sign_set(folder, held.key("alice"), quiet)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("name", "error"),
    [("manifest.json", DigestError), ("volumes.json", DigestError), ("README.txt", DigestError),
     ("edgekit", DigestError), ("trust/1.root.json", EdgekitError), ("release.json", EdgekitError)],
)
def test_nobody_signs_a_set_with_a_damaged_document(
    held: Ceremony, tmp_path: Path, name: str, error: type[EdgekitError]
) -> None:
    folder = held.draft(tmp_path / "demo")
    before = contents(folder)
    with damaged(folder / name, (folder / name).stat().st_size // 2), pytest.raises(error):
        keys.sign_set(folder, held.key("alice"), quiet)
    assert contents(folder) == before


def test_nobody_signs_a_set_with_a_file_that_does_not_belong(
    held: Ceremony, tmp_path: Path
) -> None:
    folder = held.draft(tmp_path / "demo")
    (folder / "extra.bin").write_bytes(b"x")
    with pytest.raises(SetShapeError, match="does not belong"):
        keys.sign_set(folder, held.key("alice"), quiet)


def test_a_stranger_cannot_sign_a_set(held: Ceremony, tmp_path: Path) -> None:
    create_signer(tmp_path / "alice")  # the name decides nothing
    folder = held.draft(tmp_path / "demo")
    before = contents(folder)
    with pytest.raises(TrustError, match="does not name this signer"):
        keys.sign_set(folder, f"file:{tmp_path}/alice", quiet)
    assert contents(folder) == before


def test_the_strangers_signature_must_be_of_one_of_the_roots_signers(
    held: Ceremony, tmp_path: Path
) -> None:
    folder = held.draft(tmp_path / "demo")
    for name in ("alice", "bob"):
        keys.sign_set(folder, held.key(name), quiet)
    sums = (folder / "SHA384SUMS").read_bytes()
    forged = create_signer(tmp_path / "mallory", "ecdsa-p384").sign_ssh(sums)
    with replaced(folder / "SHA384SUMS.sig", forged), pytest.raises(SignatureError):
        verify_set(open_set((folder,)), HostTrust(held.trusted()))


def test_every_bit_of_an_ecdsa_signature_of_the_sums_counts(held: Ceremony) -> None:
    bob = load_signer(held.key("bob"))
    message, public = b"sums", [load_public_key(bob.classical.public_key)]
    good = bob.sign_ssh(message)
    verify_ssh(good, message, public)
    for position in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(SignatureError):
            verify_ssh(bytes(flipped), message, public)
    with pytest.raises(SignatureError):
        verify_ssh(good, b"other", public)


# -------------------------------------------------------------------------------------- key URIs


def hybrid(held: Ceremony, **changes: str) -> str:
    folder = held.half("alice").parent
    parts = {"half": str(held.half("alice")), "classical": f"file:{folder}/classical.pem",
             "ml-dsa": f"file:{folder}/ml-dsa-87.pem", **changes}
    return f"hybrid:{parts['half']};classical={parts['classical']};ml-dsa={parts['ml-dsa']}"


def test_the_two_keys_of_a_signer_may_lie_in_two_places(held: Ceremony) -> None:
    assert load_signer(hybrid(held)).signer_keys().identities() == load_signer(
        held.key("alice")).signer_keys().identities()


@pytest.mark.parametrize(
    "uri",
    ["", "file:", "hybrid:", "alice", "hsm:2", "gcpkms:x", "file:/nowhere",
     "hybrid:{half}", "hybrid:{half};classical=file:{classical}",
     "hybrid:{half};classical=file:{classical};ml-dsa=hsm:2",
     "hybrid:{half};classical=awskms:x;ml-dsa=file:{pq}",
     "hybrid:{half};classical=file:{pq};ml-dsa=file:{classical}",
     "hybrid:{half};classical=file:{classical};ml-dsa=file:{pq};more=1",
     "hybrid:{bob};classical=file:{classical};ml-dsa=file:{pq}",
     "hybrid:{classical};classical=file:{classical};ml-dsa=file:{pq}"],
)
def test_a_key_uri_that_is_not_understood_is_refused(held: Ceremony, uri: str) -> None:
    folder = held.half("alice").parent
    text = uri.format(half=held.half("alice"), bob=held.half("bob"),
                      classical=folder / "classical.pem", pq=folder / "ml-dsa-87.pem")
    with pytest.raises(EdgekitError):
        load_signer(text)


def test_a_key_of_a_weaker_curve_is_refused(tmp_path: Path) -> None:
    create_signer(tmp_path / "dan")
    pem = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "dan/classical.pem").write_bytes(pem)
    with pytest.raises(TrustError, match="wrong kind"):
        load_signer(f"file:{tmp_path}/dan")


def test_exit_codes_of_the_ceremony(held: Ceremony, tmp_path: Path) -> None:
    folder = held.draft(tmp_path / "demo")
    assert main(["keys", "sign", str(folder), "--key", "file:/nowhere"]) == ExitCode.TRUST
    assert main(["keys", "sign", str(folder), "--key", held.key("alice")]) == ExitCode.OK
    assert main(["keys", "new", str(tmp_path / "UPPER")]) == ExitCode.FORMAT
