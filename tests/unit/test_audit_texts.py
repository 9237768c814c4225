"""Kept texts: only the auditor opens them, and nothing about the record changes when they go."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.audit_texts import (
    TextLabel,
    clear_text,
    load_auditor_key,
    load_recipient,
    open_text,
    parse_text,
    recipient_id,
    seal_text,
)
from edgekit.core.text_policy import SETTINGS, TextMode, TextPolicy
from edgekit.errors import (
    AuditAlteredError,
    AuditError,
    AuditFormatError,
    FormatError,
    HostError,
    TrustError,
)
from edgekit.system.audit_texts import TextStore

KEY = MLKEM1024PrivateKey.generate()
LABEL = TextLabel("req-0011", "prompt", 1_790_000_000_000_000)
TEXT = "what is the launch code? é\n".encode()


def digest(data: bytes) -> str:
    return hashlib.sha384(data).hexdigest()


def test_sealed_text_opens_with_the_key_alone() -> None:
    data = seal_text(LABEL, TEXT, KEY.public_key())
    assert TEXT not in data
    assert open_text(data, digest(data), KEY) == TEXT
    kept = parse_text(data)
    assert (kept.label, kept.recipient) == (LABEL, recipient_id(KEY.public_key()))
    with pytest.raises(TrustError, match="another key"):
        open_text(data, digest(data), MLKEM1024PrivateKey.generate())
    with pytest.raises(TrustError, match="another key"):
        open_text(data, digest(data), None)


def test_same_text_twice_shows_nothing() -> None:
    one, two = (seal_text(LABEL, TEXT, KEY.public_key()) for _ in range(2))
    assert one != two
    clear = [clear_text(LABEL, TEXT, nonce) for nonce in (b"a" * 32, b"b" * 32)]
    assert digest(clear[0]) != digest(clear[1])
    assert [open_text(data, digest(data), None) for data in clear] == [TEXT, TEXT]


@settings(max_examples=150)
@given(st.data())
def test_changed_side_file_never_gives_a_text(data: st.DataObject) -> None:
    good = seal_text(LABEL, TEXT, KEY.public_key())
    position = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    bad = good[:position] + bytes([good[position] ^ flip]) + good[position + 1 :]
    with pytest.raises(AuditAlteredError):
        open_text(bad, digest(good), KEY)
    # even where somebody could change the record's digest as well
    with pytest.raises((AuditError, TrustError)):
        open_text(bad, digest(bad), KEY)


def test_body_under_another_label_does_not_open() -> None:
    one = seal_text(LABEL, TEXT, KEY.public_key())
    other = seal_text(TextLabel("req-0022", "prompt", 5), b"x", KEY.public_key())
    moved = other.partition(b"\n")[0] + b"\n" + one.partition(b"\n")[2]
    with pytest.raises(AuditAlteredError, match="does not open"):
        open_text(moved, digest(moved), KEY)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}\nx", seal_text(LABEL, b"", KEY.public_key())[1:], b"x" * 5000]
)
def test_what_is_no_side_file_is_refused(data: bytes) -> None:
    with pytest.raises(AuditFormatError):
        parse_text(data)


def test_keys_of_other_kinds_are_refused() -> None:
    other = Ed25519PrivateKey.generate()
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for pem in (public, private, b"", b"-----BEGIN PUBLIC KEY-----\n"):
        with pytest.raises(FormatError):
            load_recipient(pem)
        with pytest.raises(TrustError):
            load_auditor_key(pem)


@pytest.mark.parametrize(
    ("key", "model", "mode"),
    [
        ("k0", "m0", TextMode.HASH),
        ("k1", "m0", TextMode.FULL),
        ("k0", "m1", TextMode.SEALED),
        ("k1", "m1", TextMode.SEALED),
        ("k2", "m1", TextMode.NONE),
        ("k1", "m1:latest", TextMode.SEALED),
    ],
)
def test_policy_takes_the_more_private_rule(key: str, model: str, mode: TextMode) -> None:
    policy = TextPolicy(
        TextMode.HASH,
        {"k1": TextMode.FULL, "k2": TextMode.NONE},
        {"m1": TextMode.SEALED},
    )
    assert policy.mode(key, model) is mode


def test_default_policy_keeps_no_text() -> None:
    assert TextPolicy().modes() == {TextMode.HASH}
    assert [name for name, mode in SETTINGS.items() if mode is TextMode.FULL] == ["insecure-full"]


def test_store_writes_reads_and_erases(tmp_path: Path) -> None:
    store = TextStore(tmp_path / "texts")
    assert store.read("req-0011", "prompt") is None
    data = seal_text(LABEL, TEXT, KEY.public_key())
    assert store.write(LABEL, data) == digest(data)
    assert store.read("req-0011", "prompt") == data
    assert store.read("req-0011", "output") is None
    (path,) = store.files()
    assert path.parent.name == "2026-09-21"
    assert path.stat().st_mode & 0o777 == 0o600
    store.erase([path])
    store.erase([path])
    assert store.read("req-0011", "prompt") is None


@pytest.mark.parametrize("name", ["", "../../x", "a/b", "x\n"])
def test_store_takes_no_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError):
        TextStore(tmp_path).write(TextLabel(name, "prompt", 0), b"")
