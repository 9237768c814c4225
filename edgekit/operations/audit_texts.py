"""`edgekit audit keygen`, `text` and `erase`: the auditor's key, and the texts it opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from edgekit.core.audit_query import Entry, Query, render_moment
from edgekit.core.audit_texts import (
    MAX_PEM_BYTES,
    PARTS,
    load_auditor_key,
    open_text,
    recipient_id,
)
from edgekit.core.host_layout import HostLayout
from edgekit.errors import HostError, TrustError
from edgekit.operations.audit_search import search_audit
from edgekit.operations.host_records import audit_event
from edgekit.system.audit_texts import TextStore
from edgekit.system.files import durable_write, read_bounded

PRIVATE_NAME, PUBLIC_NAME = "auditor.pem", "auditor.pub.pem"
MAX_NAMED = 20
"""Requests that one `text_erased` record names; of more it says how many and how old."""


@dataclass(frozen=True, slots=True)
class KeptPart:
    """One text of a request: `text` is None when its file is gone."""

    part: str
    digest: str
    text: bytes | None


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: requests and files."""

    requests: int
    files: int


def make_auditor_key(folder: Path) -> str:
    """A new key pair in `folder`; returns how records will name it.

    Raises TrustError when a key is already there: what was sealed to it would be lost.
    """
    if (folder / PRIVATE_NAME).exists() or (folder / PUBLIC_NAME).exists():
        raise TrustError(
            "a key is already there and is never overwritten",
            where=str(folder),
            hint="give an empty folder",
        )
    key = MLKEM1024PrivateKey.generate()
    public = key.public_key()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    durable_write(folder / PRIVATE_NAME, private_pem, mode=0o600)
    public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    durable_write(folder / PUBLIC_NAME, public_pem)
    return recipient_id(public)


def read_texts(
    log_dir: Path, texts_dir: Path, request_id: str, key_file: Path | None
) -> list[KeptPart]:
    """The texts that were kept of a request, each held to the digest in its record.

    Raises HostError when the log has no such request or kept none of its texts, TrustError when it
    takes another key, AuditAlteredError when a file is not the one that was recorded.
    """
    key = None
    if key_file is not None:
        key = load_auditor_key(read_bounded(key_file, MAX_PEM_BYTES, "the auditor's key"))
    found = search_audit(log_dir, Query(requests=frozenset({request_id})), 1).entries
    parts = [(part, d) for entry in found for part, d in _recorded(entry)]
    if not parts:
        raise HostError(
            "no texts were kept of this request" if found else "the log has no such request",
            found=request_id[:80],
            hint="edgekit audit search",
        )
    store, read = TextStore(texts_dir), []
    for part, digest in parts:
        data = store.read(request_id, part)
        read.append(KeptPart(part, digest, None if data is None else open_text(data, digest, key)))
    return read


def erase_texts(
    layout: HostLayout, requests: frozenset[str], before: int | None, reason: str
) -> Erased:
    """Erase the kept texts of these requests, and all that are older than a moment (us).

    The record that says so is durable first; the records of the requests stay, and so does the
    chain. Raises HostError when there is nothing to erase, AuditUnavailableError.
    """
    store = TextStore(layout.texts)
    files = list(_files_of(store, requests)) if requests else []
    if before is not None:
        files += (path for path in store.files() if store.label(path).t_utc < before)
    names = sorted({path.name.partition(".")[0] for path in files})
    if not files:
        raise HostError("there is no text to erase", where=str(layout.texts))
    record: dict[str, Any] = {
        "type": "text_erased",
        "requests": len(names),
        "files": len(files),
        "request_ids": ",".join(names) if len(names) <= MAX_NAMED else "",
        "before": "" if before is None else render_moment(before),
        "reason": reason[:200],
        "actor": f"uid {os.getuid()}",
    }
    audit_event(layout, record)
    store.erase(files)
    return Erased(len(names), len(files))


def _recorded(entry: Entry) -> Iterator[tuple[str, str]]:
    for part in PARTS:
        digest = entry.value(f"{part}_file")
        if isinstance(digest, str):
            yield part, digest


def _files_of(store: TextStore, requests: frozenset[str]) -> Iterator[Path]:
    for request_id in sorted(requests):
        for part in PARTS:
            path = store.find(request_id, part)
            if path is not None:
                yield path
