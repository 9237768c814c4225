"""A signer whose classical key never leaves a PKCS#11 token: SoftHSM, checked by ssh-keygen.

The token holds an ECDSA P-384 key that it made itself; the ML-DSA-87 key is a file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.core import trust
from edgekit.core.signers import load_public_key
from edgekit.core.sshsig import allowed_signer
from edgekit.system.bundle_set import open_set, verify_set
from edgekit.system.trust_store import HostTrust
from tests.support.sets import RootBuilder, SetBuilder, signer

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, LABEL, KEY_ID = "1234", "alice", 2

# PKCS#11 keeps state in the process, so the key is made in one of its own.
MAKE_KEY = """
import sys, pkcs11, pkcs11.util.ec
library, label, pin, identity, curve = sys.argv[1:]
token = pkcs11.lib(library).get_token(token_label=label)
with token.open(rw=True, user_pin=pin) as session:
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS:
                            pkcs11.util.ec.encode_named_curve_parameters(curve)}, local=True)
    parameters.generate_keypair(store=True, id=pkcs11.util.biginteger(int(identity)),
                                label="edgekit")
"""


@dataclass(frozen=True)
class Token:
    """A fresh SoftHSM token and the way to run edgekit with it."""

    folder: Path

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.folder),
            "SOFTHSM2_CONF": str(self.folder / "softhsm2.conf"), "PYKCS11LIB": str(LIBRARY),
            "EDGEKIT_PIN_FILE": str(self.folder / "pin"), **changes,
        }

    def edgekit(self, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "edgekit", *map(str, arguments)]
        return subprocess.run(argv, env=self.environment(**changes), check=False, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=120)

    def key(self, name: str = "alice") -> str:
        folder = self.folder / name
        return (f"hybrid:{folder}/{name}.signer.json;classical=hsm:{KEY_ID}?label={LABEL};"
                f"ml-dsa=file:{folder}/ml-dsa-87.pem")


def make_token(folder: Path, curve: str) -> Token:
    (folder / "tokens").mkdir(parents=True)
    (folder / "pin").write_text(PIN + "\n")
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    token = Token(folder)
    for argv in (
        ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN,
         "--so-pin", "4321"],
        [sys.executable, "-c", MAKE_KEY, str(LIBRARY), LABEL, PIN, str(KEY_ID), curve],
    ):
        subprocess.run(argv, env=token.environment(), check=True, capture_output=True, timeout=60)
    return token


@pytest.fixture
def token(tmp_path: Path) -> Token:
    """A token with a P-384 key. Skips where SoftHSM or its Python binding is not installed."""
    if shutil.which("softhsm2-util") is None or not LIBRARY.is_file():
        pytest.skip("cannot run here: Debian package softhsm2 is not installed")
    if importlib.util.find_spec("pkcs11") is None:
        pytest.skip("cannot run here: Python package python-pkcs11 is not installed")
    return make_token(tmp_path / "hsm", "secp384r1")


def test_a_signer_in_a_token_signs_a_root_and_a_set_last(token: Token, tmp_path: Path) -> None:
    """2 of alice (token) and bob (files), everything by the command line, as three people do it."""
    work = token.folder
    made = token.edgekit("keys", "new", work / "alice", "--classical",
                         f"hsm:{KEY_ID}?label={LABEL}")
    assert made.returncode == 0, made.stderr
    assert sorted(p.name for p in (work / "alice").iterdir()) == [
        "alice.signer.json", "ml-dsa-87.pem"]
    token.edgekit("keys", "new", work / "bob")
    root = work / "1.root.json"
    done = token.edgekit("keys", "root", "--signer", work / "alice/alice.signer.json",
                         "--signer", work / "bob/bob.signer.json", "--out", root)
    assert done.returncode == 0, done.stderr
    for key in (token.key(), f"file:{work}/bob"):
        done = token.edgekit("keys", "sign", root, "--key", key)
        assert done.returncode == 0, done.stderr
    trusted = trust.restore_root(root.read_bytes())
    assert trusted.keys("root")["alice"].classical.scheme == "ecdsa-sha2-nistp384"

    folder = SetBuilder(root_documents=(root.read_bytes(),), signed_by=()).write(tmp_path / "demo")
    for key in (f"file:{work}/bob", token.key()):
        done = token.edgekit("keys", "sign", folder, "--key", key)
        assert done.returncode == 0, done.stderr
    verified = verify_set(open_set((folder,)), HostTrust(trusted))
    assert verified.statement.signers == ("alice", "bob")

    allowed = work / "allowed_signers"
    allowed.write_text("".join(
        allowed_signer(name, load_public_key(keys.classical)) + "\n"
        for name, keys in trusted.keys("targets").items()))
    sums = (folder / "SHA384SUMS").read_bytes()
    found = subprocess.run(
        ["ssh-keygen", "-Y", "find-principals", "-f", str(allowed), "-s",
         str(folder / "SHA384SUMS.sig")], check=True, capture_output=True, text=True)
    assert found.stdout == "alice\n"
    checked = subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "alice", "-n", "edgekit-set",
         "-s", str(folder / "SHA384SUMS.sig")], input=sums, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert b"with ECDSA key" in checked.stdout


def made_alice(token: Token) -> None:
    done = token.edgekit("keys", "new", token.folder / "alice", "--classical",
                         f"hsm:{KEY_ID}?label={LABEL}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"EDGEKIT_PIN_FILE": "{folder}/wrong"}, 20, "PinIncorrect"),
        ({"EDGEKIT_PIN_FILE": ""}, 20, "EDGEKIT_PIN_FILE"),
        ({"PYKCS11LIB": ""}, 33, "PYKCS11LIB"),
        ({"PYKCS11LIB": "/nowhere.so"}, 33, "/nowhere.so"),
    ],
    ids=["wrong PIN", "no PIN and no terminal", "no library named", "no such library"],
)
def test_a_token_that_cannot_be_used_says_why_and_signs_nothing(
    token: Token, changes: dict[str, str], code: int, word: str
) -> None:
    made_alice(token)
    (token.folder / "wrong").write_text("9999\n")
    root = token.folder / "1.root.json"
    half = trust.verify_public_half((token.folder / "alice/alice.signer.json").read_bytes())
    bob = signer("bob").keys()
    payload = trust.root_payload(
        version=1, signers={"alice": (half.keys.classical, half.keys.post_quantum), "bob": bob},
        threshold=2, policy="hybrid", developer=False, expires="2036-01-01T00:00:00Z")
    root.write_bytes(trust.encode_envelope(payload, []))
    before = root.read_bytes()
    settings = {key: text.format(folder=token.folder) for key, text in changes.items()}
    done = token.edgekit("keys", "sign", root, "--key", token.key(), **settings)
    assert done.returncode == code, done.stderr
    assert word in done.stderr
    assert PIN not in done.stderr
    assert root.read_bytes() == before


def test_another_token_under_the_same_label_is_noticed(token: Token, tmp_path: Path) -> None:
    """The public half says which key it must be; a token with another key signs nothing."""
    made_alice(token)
    other = make_token(tmp_path / "other", "secp384r1")
    root = token.folder / "1.root.json"
    root.write_bytes(RootBuilder(signed_by=()).data())
    table = json.loads((token.folder / "alice/alice.signer.json").read_bytes())
    assert table["payloadType"] == trust.SIGNER_PAYLOAD_TYPE
    done = token.edgekit("keys", "sign", root, "--key", token.key())
    assert done.returncode == 20
    assert "does not name this signer" in done.stderr
    half = trust.verify_public_half((token.folder / "alice/alice.signer.json").read_bytes())
    payload = trust.root_payload(
        version=1, signers={"alice": (half.keys.classical, half.keys.post_quantum),
                            "bob": signer("bob").keys()},
        threshold=2, policy="hybrid", developer=False, expires="2036-01-01T00:00:00Z")
    root.write_bytes(trust.encode_envelope(payload, []))
    done = token.edgekit("keys", "sign", root, "--key", token.key(),
                         SOFTHSM2_CONF=str(other.folder / "softhsm2.conf"))
    assert done.returncode == 20
    assert "a signature that does not verify" in done.stderr


def test_a_key_of_a_weaker_curve_is_refused(token: Token, tmp_path: Path) -> None:
    weak = make_token(tmp_path / "weak", "secp256r1")
    done = weak.edgekit("keys", "new", weak.folder / "alice", "--classical",
                        f"hsm:{KEY_ID}?label={LABEL}")
    assert done.returncode == 20
    assert "needed  ECDSA P-384" in done.stderr
    assert not (weak.folder / "alice").exists()
