"""Write docs/spec/vectors: one file per case, one fault per file, made from fixed keys.

`python -m tools.make_vectors` writes them; with `--check` nothing is written, and the exit status
is 1 when a file differs from what would be written. Two of the three kinds of signatures are
randomised, so a signature that a present file holds is used again as long as it verifies.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import Signature

from edgekit.core import release, trust
from edgekit.core.digest import Digest
from edgekit.core.strict_json import encode_canonical
from tools.vector_files import BrokenVectorError, differences
from tools.vector_workshop import Edit, Vector, Workshop, edited, lay_out, make_manifest

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs/spec/vectors"

def files(folder: Path) -> dict[str, bytes]:
    """Every generated file by its path below `folder`."""
    shop = Workshop(folder)
    found = {f"keys/{name}": data for name, data in _trusted_roots(shop).items()}
    for make in (_envelopes, _signatures, _roots, _floors, _manifests, _paths, _tables, _sets):
        for vector in make(shop):
            if f"{vector.name}.txt" in found:
                raise ValueError(f"two vectors are called {vector.name}")
            found[f"{vector.name}.txt"] = vector.encode()
    return found


def _trusted_roots(shop: Workshop) -> dict[str, bytes]:
    """What the host trusts, by the name that vectors call it."""

    def without_cid(table: dict[str, Any]) -> None:
        keyids = [k for k, key in table["keys"].items() if key[trust.SIGNER_FIELD] != "cid"]
        table["roles"]["targets"] = {"keyids": keyids, "threshold": 2}

    return {
        "root-guarded.json": shop.root(),
        "root-developer.json": shop.developer_root,
        "root-cnsa2.json": shop.root("ann ben", policy="cnsa2", kinds="pq"),
        "root-classical.json": shop.root("ann ben", policy="classical", kinds="classical"),
        "root-ecdsa.json": shop.root("ann fay", signed_by="ann fay"),
        "root-two-roles.json": shop.root(edit=without_cid),
    }


GUARDED = "keys/root-guarded.json"
DEVELOPER = "keys/root-developer.json"


def _envelopes(shop: Workshop) -> Iterator[Vector]:
    good = shop.release
    table = json.loads(good)

    def case(name: str, comment: str, body: bytes, **more: str) -> Vector:
        facts = {"expect": "format", "root": GUARDED, **more}
        return Vector(name, step="V3", kind="release", comment=comment, body=body, **facts)

    def changed(**fields: Any) -> bytes:
        return encode_canonical({**table, **fields})

    def payload(edit: Edit) -> bytes:
        data = edited(base64.b64decode(table["payload"]), edit)
        return trust.encode_envelope(data, shop.sign(data, "ann ben"))

    text = table["payload"]
    assert text.endswith("="), "no padding to damage"
    loose = text.rstrip("=")
    twin = loose[:-1] + chr(ord(loose[-1]) + 1) + text[len(loose) :]
    one = table["signatures"][0]
    many = [{**one, "keyid": f"{number:064x}"} for number in range(65)]
    latin = "application/vnd.tuf+js\u00f6n"
    yield case("success-release", "two of three signers", good, expect="success")
    yield case("envelope-white-space", "a space after a colon", good.replace(b":", b": ", 1))
    yield case("envelope-newline-at-end", "a newline after the object", good + b"\n")
    backwards = json.dumps(dict(reversed(table.items())), separators=(",", ":")).encode()
    yield case("envelope-keys-unsorted", "keys in another order", backwards)
    twice = b'{"payload":"","payload":' + good.removeprefix(b'{"payload":')
    yield case("envelope-key-twice", "the key payload occurs twice", twice)
    yield case("envelope-key-unknown", "a key that format 1 does not have", changed(zz=0))
    yield case("envelope-key-missing", "no payloadType", encode_canonical(
        {key: value for key, value in table.items() if key != "payloadType"}))
    other = "application/vnd.in-toto+json"
    yield case("envelope-type-other", "another payload type", changed(payloadType=other))
    yield case("envelope-type-not-ascii", "a payload type beyond ASCII, escaped as it must be",
               changed(payloadType=latin))
    raw = json.dumps({**table, "payloadType": latin}, ensure_ascii=False, separators=(",", ":"))
    yield case("envelope-not-escaped", "the same, as bare UTF-8", raw.encode())
    yield case("envelope-not-utf8", "a byte that is no UTF-8", good.replace(b"vnd", b"v\xffd"))
    yield case("envelope-byte-order-mark", "a mark before the object", b"\xef\xbb\xbf" + good)
    yield case("envelope-base64-unpadded", "base64 without padding", changed(payload=loose))
    yield case("envelope-base64-loose-bits", "base64 whose unused bits are not zero",
               changed(payload=twin))
    yield case("envelope-keyid-twice", "two signatures with one key id",
               changed(signatures=[*table["signatures"], one]))
    yield case("limit-signatures-65", "more signatures than 64", changed(signatures=many))
    yield case("release-epoch-zero", "signed well, but the epoch is 0",
               payload(lambda t: t[trust.RELEASE_FIELD].update(epoch=0)))
    yield case("release-key-unknown", "signed well, but with a key that format 1 does not have",
               payload(lambda t: t.update(zz=0)))
    yield case("release-sha256-file", "signed well, but a file has a SHA-256 and no SHA-384",
               payload(lambda t: t["targets"]["manifest.json"].update(
                   hashes={"sha256": Digest.of(b"{}", "sha256").value})))
    yield case("release-not-canonical", "signed well, but the payload has a newline at its end",
               _spoiled_payload(shop, base64.b64decode(text) + b"\n"))


def _spoiled_payload(shop: Workshop, payload: bytes) -> bytes:
    return trust.encode_envelope(payload, shop.sign(payload, "ann ben"))


def _signatures(shop: Workshop) -> Iterator[Vector]:
    payload = shop.payload()
    ann, ben = shop.sign(payload, "ann"), shop.sign(payload, "ben")

    def case(
        name: str, comment: str, signatures: Iterable[Signature],
        expect: str = "signature", root: str = GUARDED, data: bytes = payload,
    ) -> Vector:
        body = trust.encode_envelope(data, list(signatures))
        return Vector(name, expect, "V3", "release", comment, body, root)

    yield case("success-release-cnsa2", "policy cnsa2: ML-DSA-87 signatures alone",
               [ann[1], ben[1]], "success", "keys/root-cnsa2.json")
    yield case("success-release-classical", "policy classical: Ed25519 signatures alone",
               [ann[0], ben[0]], "success", "keys/root-classical.json")
    yield case("success-release-ecdsa", "one of two signers has an ECDSA P-384 key",
               [*ann, *shop.sign(payload, "fay")], "success", "keys/root-ecdsa.json")
    yield case("success-release-stranger-beside", "a stranger's signature beside enough good ones",
               [*ann, *ben, *shop.sign(payload, "eve", "classical")], "success")
    yield case("signature-none", "no signature at all", [])
    yield case("signature-one-of-two", "one signer where two are needed", ann)
    yield case("signature-stranger", "the second signer is not in the root",
               [*ann, *shop.sign(payload, "eve")])
    yield case("signature-no-post-quantum", "hybrid, and the second signer's ML-DSA is missing",
               [*ann, ben[0]])
    yield case("signature-no-classical", "hybrid, and the second signer's Ed25519 is missing",
               [*ann, ben[1]])
    yield case("signature-policy-cnsa2", "policy cnsa2 and only Ed25519 signatures",
               [ann[0], ben[0]], root="keys/root-cnsa2.json")
    yield case("signature-payload-changed", "the payload has another sequence than was signed",
               [*ann, *ben], data=shop.payload(sequence=3))
    yield case("signature-key-ids-swapped", "each signature under the other signer's key id",
               [ann[1], ben[1], Signature(ann[0].keyid, ben[0].signature),
                Signature(ben[0].keyid, ann[0].signature)])
    yield case("signature-bare-pae", "the second ML-DSA signature is over the bare PAE",
               [*ann, ben[0], shop.bare_pq(payload, "ben")])
    key = shop.people["ben"].ssh_key
    assert key is not None
    yield case("signature-bare-payload", "the second Ed25519 signature is over the bare payload",
               [*ann, ben[1], Signature(ben[0].keyid, key.sign(payload).hex())])
    cut = Signature(ben[1].keyid, ben[1].signature[:-2])
    yield case("signature-cut-short", "the second ML-DSA signature lacks its last byte",
               [*ann, ben[0], cut])
    yield case("signature-other-role", "the second signer is in the root role only",
               [*ann, *shop.sign(payload, "cid")], root="keys/root-two-roles.json")


def _roots(shop: Workshop) -> Iterator[Vector]:
    def case(name: str, comment: str, body: bytes, expect: str, **more: str) -> Vector:
        facts = {"root": GUARDED, **more}
        return Vector(name, expect, "V2", "root", comment, body, **facts)

    def keys_of(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return (key for _, key in sorted(table["keys"].items()) if key["scheme"] == "ed25519")

    def key_twice(table: dict[str, Any]) -> None:
        first, second = list(keys_of(table))[:2]
        second["keyval"] = {"public": first["keyval"]["public"].upper()}

    def nobodys_key(table: dict[str, Any]) -> None:
        del next(keys_of(table))[trust.SIGNER_FIELD]

    def role(threshold: int) -> Edit:
        return lambda table: table["roles"]["targets"].update(threshold=threshold)

    second = shop.root("ann ben", version=2)
    yield case("success-root", "root 2, signed by two signers of both roots", second, "success")
    yield case("root-version-skipped", "root 3 after root 1", shop.root(version=3), "trust")
    yield case("root-version-same", "root 1 after root 1", shop.root(), "trust")
    yield case("root-not-by-the-old", "signed by too few of the old root's signers",
               shop.root("ann eve", signed_by="ann eve", version=2), "signature")
    yield case("root-not-by-itself", "signed by too few of its own signers",
               shop.root("ann eve", version=2), "signature")
    yield case("root-developer-after-guarded", "a developer root follows a guarded one",
               shop.root(version=2, developer=True), "trust")
    yield case("root-threshold-one", "a guarded root with a threshold of 1",
               shop.root(version=2, edit=role(1)), "format")
    yield case("root-threshold-four", "a threshold that its signers cannot reach",
               shop.root(version=2, edit=role(4)), "format")
    yield case("root-key-twice", "one public key for two signers, once in capitals",
               shop.root(version=2, edit=key_twice), "format")
    yield case("root-key-of-nobody", "a key without a signer",
               shop.root(version=2, edit=nobodys_key), "format")
    yield case("root-policy-unknown", "a policy that format 1 does not have",
               shop.root(version=2, edit=lambda t: t.update({trust.POLICY_FIELD: "any"})), "format")
    first = shop.root()
    named = trust.fingerprint(first)
    yield case("success-first-root", "a host's first root, named by its fingerprint", first,
               "success", root="", fingerprint=named)
    yield case("root-fingerprint-other", "another root than the one that was named", second,
               "fingerprint", root="", fingerprint=named)
    developer = shop.developer_root
    yield case("root-developer-first", "a developer root that was not asked for as one", developer,
               "trust", root="", fingerprint=trust.fingerprint(developer))


def _floors(shop: Workshop) -> Iterator[Vector]:
    digest = str(Digest.of(shop.payload()))
    other = str(Digest.of(b"another statement"))
    for name, expect, comment, floor in (
        ("success-floor-below", "success", "the floor is below", f"1 1 {other}"),
        ("success-floor-same", "success", "the same statement again", f"1 2 {digest}"),
        ("floor-sequence", "rollback", "an older sequence", f"1 3 {other}"),
        ("floor-epoch", "rollback", "a newer sequence of an older epoch", f"2 1 {other}"),
        ("floor-other-statement", "rollback", "the floor's pair again", f"1 2 {other}"),
    ):
        yield Vector(name, expect, "V4", "release", comment, shop.release, GUARDED, floor)


def _unchanged(_table: dict[str, Any]) -> None:
    """Leave a document as it is."""


def _document(kind: str, name: str, comment: str, body: bytes, expect: str = "format") -> Vector:
    return Vector(name, expect, "V5", kind, comment, body)


def _manifests(_: Workshop) -> Iterator[Vector]:
    good = make_manifest({"documents/hello.txt": b"hello\n"})

    def entry(table: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = table["entries"][0]
        return found

    def case(name: str, comment: str, edit: Edit, expect: str = "format") -> Vector:
        return _document("manifest", name, comment, edited(good, edit), expect)

    def largest(table: dict[str, Any]) -> None:
        name = "n" * 60
        table.update(name=name, users=10_000, created=1 << 40, rehearsed_on="r" * 200)
        entry(table).update(size=1 << 50, path="/".join(["p" * 255] * 3 + ["q" * 254, "r"]))

    deep: Any = 0
    for _level in range(15):
        deep = [deep]
    yield case("success-manifest", "one entry", _unchanged, "success")
    yield case("success-manifest-largest", "the largest values that are allowed", largest,
               "success")
    yield case("manifest-format-2", "another format", lambda t: t.update(format=2))
    yield case("manifest-key-unknown", "a key that format 1 does not have",
               lambda t: t.update(zz=0))
    yield case("manifest-key-missing", "no users", lambda t: t.pop("users"))
    yield case("manifest-boolean-count", "true where an integer belongs",
               lambda t: t.update(users=True))
    yield case("manifest-size-negative", "a size below 0", lambda t: entry(t).update(size=-1))
    yield case("manifest-digest-capitals", "a digest in capitals",
               lambda t: entry(t).update(digest="sha384:" + "A" * 96))
    yield case("manifest-digest-unknown", "a digest of another algorithm",
               lambda t: entry(t).update(digest="sha512:" + "0" * 128))
    yield case("manifest-role-unknown", "a role that format 1 does not have",
               lambda t: entry(t).update(role="script"))
    yield case("manifest-control-character", "an escape character in a text",
               lambda t: t.update(rehearsed_on="\x1b[2J"))
    unsorted = [{"path": path, **_rest(good)} for path in ("documents/b", "documents/a")]
    yield case("manifest-entries-unsorted", "entries out of order",
               lambda t: t.update(entries=unsorted))
    yield _document("manifest", "manifest-fraction", "a number with a point",
                    good.replace(b'"users":1,', b'"users":1.0,'))
    yield case("limit-integer", "2 to the power of 63",
               lambda t: t.update(created=1 << 63))
    yield case("limit-entry-size", "a size above 1 PiB",
               lambda t: entry(t).update(size=(1 << 50) + 1))
    yield case("limit-name", "a name of 61 characters", lambda t: t.update(name="n" * 61))
    yield case("limit-nesting", "17 levels", lambda t: t.update(zz=[deep]))


def _rest(manifest: bytes) -> dict[str, Any]:
    """The first entry of a manifest, without its path."""
    found: dict[str, Any] = json.loads(manifest)["entries"][0]
    del found["path"]
    return found


def _paths(_: Workshop) -> Iterator[Vector]:
    good = make_manifest({"documents/hello.txt": b"hello\n"})

    def case(name: str, comment: str, *paths: str, expect: str = "format") -> Vector:
        entries = [{"path": path, **_rest(good)} for path in paths]
        body = edited(good, lambda table: table.update(entries=entries))
        return _document("manifest", name, comment, body, expect)

    yield case("success-path-beyond-ascii", "letters beyond ASCII in NFC, escaped in JSON",
               "documents/gr\u00fc\u00dfe.txt", expect="success")
    yield case("path-parent", "a part that is two dots", "documents/../../etc/passwd")
    yield case("path-dot", "a part that is one dot", "documents/./a")
    yield case("path-absolute", "a slash at the start", "/etc/passwd")
    yield case("path-empty-part", "two slashes", "documents//a")
    yield case("path-slash-at-end", "a slash at the end", "documents/")
    yield case("path-empty", "no characters", "")
    yield case("path-backslash", "a backslash", "documents\\a")
    yield case("path-colon", "a colon", "c:/a")
    yield case("path-not-nfc", "a letter and its accent as two characters", "documents/u\u0308")
    yield case("path-right-to-left", "a character that turns the direction of text",
               "documents/\u202etxt.sh")
    yield case("path-zero-byte", "the character 0", "documents/a\0")
    yield case("path-half-surrogate", "half of a surrogate pair", "documents/\ud800")
    yield case("path-case-clash", "two paths that are equal without case",
               "documents/A", "documents/a")
    yield case("limit-path-part", "a part of 256 bytes", "documents/" + "a" * 256)
    yield case("limit-path", "1,025 bytes", "/".join(["a" * 204] * 5) + "a")


def _tables(_: Workshop) -> Iterator[Vector]:
    blobs = {Digest.of(data): data for data in (b"hello\n", b"world\n")}
    good = release.encode_volume_table(lay_out(blobs, 8, "sha384")[0])

    def case(name: str, comment: str, edit: Edit, expect: str = "format") -> Vector:
        return _document("volumes", name, comment, edited(good, edit), expect)

    def blob(number: int, *extents: list[int]) -> Edit:
        return lambda table: table["blobs"][number].update(extents=list(extents))

    def volume(number: int, **fields: Any) -> Edit:
        return lambda table: table["volumes"][number].update(**fields)

    yield case("success-volumes", "two blobs in two volumes, the second one split", _unchanged,
               "success")
    yield case("volumes-overlap", "two blobs share a byte", blob(1, [0, 5, 3], [1, 0, 4]))
    yield case("volumes-gap", "a byte belongs to no blob", blob(1, [0, 7, 1], [1, 0, 4]))
    yield case("volumes-tail", "the last byte belongs to no blob", blob(1, [0, 6, 2], [1, 0, 3]))
    yield case("volumes-beyond-the-end", "an extent leaves its volume",
               blob(1, [0, 6, 2], [1, 0, 5]))
    yield case("volumes-extent-empty", "an extent of no bytes",
               blob(1, [0, 6, 2], [1, 0, 0], [1, 0, 4]))
    yield case("volumes-extent-elsewhere", "an extent in a volume that is not listed",
               blob(1, [0, 6, 2], [2, 0, 4]))
    yield case("volumes-extent-negative", "an offset below 0", blob(0, [0, -1, 7]))
    yield case("volumes-blob-twice", "one blob listed twice",
               lambda t: t["blobs"].append({**t["blobs"][0], "extents": []}))
    yield case("volumes-name-wrong", "volumes that do not count from 1",
               volume(1, name="vol-0003.ekv"))
    yield case("volumes-block-missing", "a volume without its block", volume(1, blocks=[]))
    yield case("volumes-block-bytes", "another block size", lambda t: t.update(block_bytes=4096))
    yield case("volumes-algorithm", "another algorithm", lambda t: t.update(algorithm="md5"))
    yield case("volumes-parity", "a reserved field is not null", lambda t: t.update(parity={}))
    yield case("limit-volume-size", "a volume larger than 3,900 MiB",
               volume(1, size=(3900 << 20) + 1))


def _sets(shop: Workshop) -> Iterator[Vector]:
    good = shop.set()
    minimal = "success-set.txt"

    def case(
        name: str, expect: str, step: str, comment: str, found: dict[str, bytes], **more: str
    ) -> Vector:
        facts = {"root": DEVELOPER, "base": "" if name == "success-set" else minimal, **more}
        before = good if facts["base"] else {}
        body = {
            key: None if key not in found else base64.b64encode(found[key]).decode()
            for key in sorted(before | found)
            if before.get(key) != found.get(key)
        }
        text = json.dumps(body, indent=1).encode() + b"\n"
        return Vector(name, expect, step, "set", comment, text, **facts)

    def shape(name: str, expect: str, step: str, comment: str, **changes: bytes | None) -> Vector:
        found = dict(good)
        for key, data in changes.items():
            found.pop(key, None)
            if data is not None:
                found[key] = data
        return case(name, expect, step, comment, found)

    def flipped(name: str) -> dict[str, bytes | None]:
        return {name: good[name][:-2] + bytes([good[name][-2] ^ 1]) + good[name][-1:]}

    various = {
        "documents/empty.txt": b"",
        "documents/gr\u00fc\u00dfe.txt": b"hello\n",
        "documents/hello.txt": b"hello\n",
        "runtime/edgekit": b"#!/bin/sh\nexit 0\n",
    }
    yield case("success-set", "success", "V7", "one blob in one volume", good)
    yield case("success-set-various", "success", "V7",
               "an empty file, two entries with one blob, a blob split over two volumes, a program",
               shop.set(entries=various, volume_bytes=16))
    yield case("success-set-sha256", "success", "V7", "SHA-256 blocks",
               shop.set(algorithm="sha256"))
    dropped = {"._vol-0001.ekv": b"\0", ".DS_Store": b"\0", "Thumbs.db": b"\0",
               "desktop.ini": b"\0", "trust/._1.root.json": b"\0"}
    yield shape("success-set-sidecars", "success", "V7", "files that operating systems drop",
                **dropped)
    yield case("success-set-attest", "success", "V7",
               "a document below attest/ whose meaning no reader knows",
               shop.set(extra={"attest/note.json": b"{}"}))
    second = shop.root("ann ben", signed_by="ann", threshold=1, developer=True, version=2)
    yield case("success-set-rotation", "success", "V7", "root 2 beside root 1, signed by ben",
               shop.set(roots=(shop.developer_root, second), signed_by="ben", sums_by="ben"))
    loose = shop.root("ben", signed_by="ben", threshold=1, developer=True, version=2)
    yield case("set-rotation-unsigned", "signature", "V2", "root 2 is not signed by root 1",
               shop.set(roots=(shop.developer_root, loose), signed_by="ben", sums_by="ben"))
    yield replace(case("set-floor", "rollback", "V4", "an older sequence than the host's", good),
                  floor=f"1 3 {Digest.of(b'another statement')}")
    yield shape("shape-release-missing", "set-shape", "V1", "no release.json",
                **{"release.json": None})
    yield shape("shape-manifest-missing", "set-shape", "V5", "no manifest.json",
                **{"manifest.json": None})
    yield shape("shape-manifest-longer", "set-shape", "V5", "manifest.json has a byte more",
                **{"manifest.json": good["manifest.json"] + b"\n"})
    for name in ("manifest.json", "volumes.json", "edgekit", "README.txt", "trust/1.root.json"):
        short = name.split("/")[-1].split(".")[-2] if "." in name else name
        yield shape(f"set-{short.lower()}-changed", "digest", "V5", f"a bit of {name} is flipped",
                    **flipped(name))
    yield case("set-versions-differ", "format", "V5", "manifest and statement differ in version",
               shop.set(manifest=lambda t: t.update(version="1.0.1")))
    yield case("set-blob-size", "format", "V5", "an entry of another size than its blob",
               shop.set(manifest=lambda t: t["entries"][0].update(size=7)))
    yield case("set-blob-missing", "format", "V5", "an entry whose blob is in no volume",
               shop.set(manifest=lambda t: t["entries"][0].update(digest=str(Digest.of(b"?")))))
    extra = {"length": 0, "hashes": {"sha384": Digest.of(b"").value}}
    yield case("set-lists-a-stranger", "format", "V5", "the statement lists a name no set has",
               shop.set(statement=lambda t: t["targets"].update({"zz.sh": extra})))
    yield case("set-lists-no-manifest", "format", "V5", "the statement lists no manifest.json",
               shop.set(statement=lambda t: t["targets"].pop("manifest.json")))
    yield shape("shape-volume-missing", "set-shape", "V6", "no vol-0001.ekv",
                **{"vol-0001.ekv": None})
    yield shape("shape-volume-short", "set-shape", "V6", "vol-0001.ekv lacks a byte",
                **{"vol-0001.ekv": b"hello"})
    yield shape("shape-volume-foreign", "set-shape", "V6", "a volume that the table does not list",
                **{"vol-0002.ekv": b"hello\n"})
    yield shape("shape-foreign", "set-shape", "V6", "a file that no set has",
                **{"install.sh": b"#!/bin/sh\n"})
    yield shape("shape-attest-unlisted", "set-shape", "V6",
                "a document below attest/ that the statement does not list",
                **{"attest/note.json": b"{}"})
    yield shape("shape-sums-missing", "set-shape", "V6", "no SHA384SUMS", SHA384SUMS=None)
    yield shape("set-sums-changed", "digest", "V6", "SHA384SUMS with an empty line at its end",
                SHA384SUMS=good["SHA384SUMS"] + b"\n")
    yield case("set-sums-by-a-stranger", "signature", "V6", "SHA384SUMS.sig by another key",
               shop.set(sums_by="eve"))
    yield shape("set-volume-changed", "digest", "V7", "a bit of vol-0001.ekv is flipped",
                **flipped("vol-0001.ekv"))


def check(folder: Path) -> list[str]:
    """Paths of files that differ from what would be written, are missing or are left over."""
    return differences(folder, files(folder), "*.txt", "keys/*.json")


def main() -> int:
    """Write or check the vectors; 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description="write the test vectors of bundle format 1")
    parser.add_argument("--check", action="store_true", help="write nothing, report differences")
    if parser.parse_args().check:
        try:
            different = check(FOLDER)
        except BrokenVectorError as error:
            print(error)
            return 1
        print("".join(f"{name} is not what make_vectors writes\n" for name in different), end="")
        return 1 if different else 0
    for name, data in files(FOLDER).items():
        (FOLDER / name).write_bytes(data)
    print(f"{len(list(FOLDER.glob('*.txt')))} vectors in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
