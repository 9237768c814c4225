"""What test vectors are made of: their files, the fixed keys, signatures that are kept, small sets.

The cases themselves are in tools/make_vectors.py.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature

from edgekit.core import release, set_files, trust
from edgekit.core.digest import Digest
from edgekit.core.layout import plan_layout
from edgekit.core.names import RelPath
from edgekit.core.sshsig import sign_ssh
from edgekit.core.strict_json import encode_canonical
from edgekit.exit_codes import ExitCode
from tools.vector_files import reading

EXPIRES: Final = "2036-01-01T00:00:00Z"
CREATED: Final = 1_700_000_000
MIN_EDGEKIT: Final = "0.1.0"
CODES: Final = {
    "success": ExitCode.OK,
    "format": ExitCode.FORMAT,
    "set-shape": ExitCode.SET_SHAPE,
    "trust": ExitCode.TRUST,
    "signature": ExitCode.SIGNATURE,
    "digest": ExitCode.DIGEST,
    "rollback": ExitCode.ROLLBACK,
    "fingerprint": ExitCode.FINGERPRINT,
}
_SIGNATURE: Final = re.compile(rb'"keyid":"([0-9a-f]{64})","sig":"([A-Za-z0-9+/]+=*)"')

Edit = Callable[[dict[str, Any]], object]
"""Changes a document in place, before it is encoded and signed."""


@dataclass(frozen=True)
class Vector:
    """One case. The fields but `name` and `body` are header lines; empty ones are left out.

    `root`, `base` are names of other files, `floor` is epoch, sequence and statement digest.
    """

    name: str
    expect: str
    step: str
    kind: str
    comment: str
    body: bytes
    root: str = ""
    floor: str = ""
    fingerprint: str = ""
    base: str = ""

    def encode(self) -> bytes:
        """The file: header lines, an empty line, the bytes (base64 where they are no text)."""
        text = self.body.isascii()
        header = {
            "expect": self.expect,
            "code": str(int(CODES[self.expect])),
            "step": self.step,
            "kind": self.kind,
            "root": self.root,
            "floor": self.floor,
            "fingerprint": self.fingerprint,
            "base": self.base,
            "encoding": "" if text else "base64",
            "comment": self.comment,
        }
        lines = "".join(f"{key}: {value}\n" for key, value in header.items() if value)
        return lines.encode() + b"\n" + (self.body if text else base64.b64encode(self.body))


def read_vector(path: Path) -> tuple[dict[str, str], bytes]:
    """Header and bytes of a vector file."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    with reading(path):
        header = dict(line.split(": ", 1) for line in head.decode("ascii").split("\n"))
        return header, base64.b64decode(body) if header.get("encoding") == "base64" else body


def read_set(path: Path) -> dict[str, bytes]:
    """Files of a `kind: set` vector: those of its base, changed as its own bytes say."""
    header, body = read_vector(path)
    files = read_set(path.with_name(header["base"])) if "base" in header else {}
    for name, text in json.loads(body).items():
        files.pop(name, None)
        if text is not None:
            files[name] = base64.b64decode(text, validate=True)
    return files


class Person:
    """A signer of the vectors: two private keys below keys/, worthless because they are public."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.signers = [
            CryptoSigner(load_pem_private_key((folder / name).read_bytes(), None))
            for name in ("classical.pem", "ml-dsa-87.pem")
        ]
        pems = [load_pem_private_key(path.read_bytes(), None) for path in sorted(folder.iterdir())]
        self.ssh_key = next((key for key in pems if isinstance(key, Ed25519PrivateKey)), None)
        self.pq_key = next(key for key in pems if isinstance(key, MLDSA87PrivateKey))


class Workshop:
    """Signs payloads and makes roots, releases and sets; knows the signatures there are."""

    def __init__(self, folder: Path) -> None:
        self._known = _present_signatures(folder)
        names = ("ann", "ben", "cid", "eve", "fay")
        self.people = {name: Person(folder / "keys" / name) for name in names}

    def sign(self, payload: bytes, names: str, kinds: str = "classical pq") -> list[Signature]:
        """Signatures over a payload by people, named with spaces between."""
        message = trust.pre_authentication_encoding(payload)
        return [
            self._signature(signer, message)
            for name in names.split()
            for kind, signer in zip(("classical", "pq"), self.people[name].signers, strict=True)
            if kind in kinds.split()
        ]

    def _signature(self, signer: CryptoSigner, message: bytes) -> Signature:
        keyid = signer.public_key.keyid
        for value in sorted(self._known.get(keyid, ())):
            try:
                signer.public_key.verify_signature(Signature(keyid, value), message)
            except UnverifiedSignatureError:
                continue
            return Signature(keyid, value)
        made = signer.sign(message)
        self._known.setdefault(keyid, set()).add(made.signature)
        return made

    def bare_pq(self, payload: bytes, name: str) -> Signature:
        """An ML-DSA signature over the bare PAE, without TUF's prefix: wrong on purpose."""
        person = self.people[name]
        message, key = trust.pre_authentication_encoding(payload), person.pq_key
        keyid = person.signers[1].public_key.keyid
        for value in sorted(self._known.get(keyid, ())):
            try:
                key.public_key().verify(bytes.fromhex(value), message)
            except InvalidSignature:
                continue
            return Signature(keyid, value)
        made = key.sign(message).hex()
        self._known.setdefault(keyid, set()).add(made)
        return Signature(keyid, made)

    def root(
        self,
        signers: str = "ann ben cid",
        *,
        signed_by: str = "ann ben",
        kinds: str = "classical pq",
        version: int = 1,
        edit: Edit | None = None,
        **more: Any,
    ) -> bytes:
        """A root's envelope; 2 of 3 and hybrid unless told otherwise."""
        facts = {"threshold": 2, "policy": "hybrid", "developer": False, **more}
        pairs: dict[str, Any] = {}
        for name in signers.split():
            classical, post_quantum = self.people[name].signers
            pairs[name] = (classical.public_key, post_quantum.public_key)
        payload = trust.root_payload(version=version, signers=pairs, expires=EXPIRES, **facts)
        payload = edited(payload, edit)
        return trust.encode_envelope(payload, self.sign(payload, signed_by, kinds))

    def payload(
        self, files: dict[str, bytes] | None = None, sequence: int = 2, epoch: int = 1
    ) -> bytes:
        """A release statement about some files."""
        return trust.release_payload(
            name="demo",
            version="1.0.0",
            epoch=epoch,
            sequence=sequence,
            created=CREATED,
            min_edgekit=MIN_EDGEKIT,
            expires=EXPIRES,
            files=dict(files or {"manifest.json": b"{}", "volumes.json": b"{}"}),
        )

    @cached_property
    def release(self) -> bytes:
        """The release that most vectors of the kind `release` damage: by ann and ben."""
        return trust.encode_envelope(self.payload(), self.sign(self.payload(), "ann ben"))

    def set(
        self,
        *,
        entries: dict[str, bytes] | None = None,
        volume_bytes: int = 1 << 20,
        algorithm: str = "sha384",
        roots: tuple[bytes, ...] = (),
        signed_by: str = "ann",
        sums_by: str = "ann",
        manifest: Edit | None = None,
        volumes: Edit | None = None,
        extra: dict[str, bytes] | None = None,
        statement: Edit | None = None,
    ) -> dict[str, bytes]:
        """All files of a set under the developer root, faults put in before it is signed."""
        contents = entries or {"documents/hello.txt": b"hello\n"}
        blobs = {Digest.of(data): data for _, data in sorted(contents.items())}
        table, pieces = lay_out(blobs, volume_bytes, algorithm)
        table_bytes = edited(release.encode_volume_table(table), volumes)
        files = {
            set_files.MANIFEST: edited(make_manifest(contents), manifest),
            set_files.VOLUMES: table_bytes,
            set_files.README: b"A test vector of bundle format 1. There is nothing to install.\n",
            set_files.INSTALLER: b"#!/bin/sh\nexit 0\n",
            **(extra or {}),
        }
        for number, data in enumerate(roots or (self.developer_root,), 1):
            files[f"trust/{number}.root.json"] = data
        payload = edited(self.payload(files), statement)
        files[set_files.RELEASE] = trust.encode_envelope(payload, self.sign(payload, signed_by))
        sums = {name: Digest.of(data).value for name, data in (files | pieces).items()}
        files[set_files.SUMS] = set_files.render_sums(sums)
        key = self.people[sums_by].ssh_key
        assert key is not None
        files[set_files.SUMS_SIGNATURE] = sign_ssh(key, files[set_files.SUMS])
        return files | pieces

    @cached_property
    def developer_root(self) -> bytes:
        """One of one, to keep the sets small."""
        return self.root("ann", signed_by="ann", threshold=1, developer=True)


def _present_signatures(folder: Path) -> dict[str, set[str]]:
    """Signatures (hex) by key id that the files hold now, wherever in them they stand."""
    found: dict[str, set[str]] = {}
    for path in sorted([*folder.glob("*.txt"), *folder.glob("keys/*.json")]):
        texts = [path.read_bytes()]
        if path.suffix == ".txt":
            with reading(path):
                header, body = read_vector(path)
                texts = [body]
                if header["kind"] == "set":
                    texts = list(read_set(path).values())
        for keyid, value in (match for text in texts for match in _SIGNATURE.findall(text)):
            data = base64.b64decode(value + b"==")
            found.setdefault(keyid.decode(), set()).add(data.hex())
    return found


def edited(data: bytes, edit: Edit | None) -> bytes:
    """A canonical document, changed."""
    if edit is None:
        return data
    table = json.loads(data)
    edit(table)
    return encode_canonical(table)


def make_manifest(contents: dict[str, bytes]) -> bytes:
    """A manifest of files by path; those below `runtime/` are programs."""
    return release.encode_manifest(
        release.Manifest(
            name="demo",
            version="1.0.0",
            created=CREATED,
            users=1,
            requirements=release.Requirements("x86_64", (2, 17), (), 249),
            entries=tuple(
                release.Entry(
                    RelPath(path),
                    "runtime" if path.startswith("runtime/") else "document",
                    len(data),
                    Digest.of(data),
                    path.startswith("runtime/"),
                )
                for path, data in sorted(contents.items())
            ),
            engines=(),
            models=(),
            images=(),
            rehearsed_on="",
        )
    )


def lay_out(
    blobs: dict[Digest, bytes], volume_bytes: int, algorithm: str
) -> tuple[release.VolumeTable, dict[str, bytes]]:
    """The table and the volumes' bytes; volumes far smaller than any writer makes them."""
    sizes, extents = plan_layout(
        [(digest, len(data)) for digest, data in blobs.items()], volume_bytes=volume_bytes
    )
    whole = b"".join(blobs.values())
    volumes, pieces = [], {}
    for index, size in enumerate(sizes):
        data = whole[index * volume_bytes : index * volume_bytes + size]
        block = Digest.of(data, algorithm).value
        name = release.volume_name(index)
        volumes.append(release.Volume(name, size, Digest.of(data), (block,)))
        pieces[name] = data
    table = tuple(extents.items())
    return release.VolumeTable(algorithm, release.BLOCK_BYTES, tuple(volumes), table), pieces
