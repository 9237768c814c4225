"""What an export of the audit log says of itself: a signed list of its files, and where it ends.

An export is a folder: the exact lines of the log from the beginning of a segment on, the same
records in other systems' forms where asked for, and `export.json`, a DSSE envelope by the host's
audit key. It names every file by size and SHA-384, and the log's chain value and tree root after
the last record: so it is an anchor, too. Pure; the form is docs/spec/audit-log-v1.md section 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgekit.core.audit_keys import LOG_ID_PATTERN
from edgekit.core.dsse import parse_dsse
from edgekit.core.fields import Fields
from edgekit.core.hybrid_key import HybridKey
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_canonical
from edgekit.errors import AuditCheckpointError, AuditFormatError, FormatError

EXPORT_SCHEMA = "edgekit.audit-export/1"
EXPORT_TYPE = "application/vnd.edgekit.audit-export+json"
EXPORT_NAME = "export.json"
MAX_EXPORT_BYTES = 8 << 20
MAX_FILES = 20_000
FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"

_HASH = r"[0-9a-f]{96}"


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export: bytes and SHA-384 in hex."""

    name: str
    size: int
    sha384: str


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """Records `first` to `last` of a log, and what it had come to after the last of them.

    `created` is in microseconds since 1970, `host` the host's name.
    """

    log_id: str
    host: str
    created: int
    first: int
    last: int
    chain: bytes
    root: bytes
    files: tuple[ExportedFile, ...]

    @property
    def folder(self) -> str:
        """The name of the export's folder."""
        return f"edgekit-audit-{self.log_id[:12]}-{self.first}-{self.last}"


def encode_manifest(manifest: ExportManifest) -> bytes:
    """The payload to sign."""
    return encode_canonical(
        {
            "schema": EXPORT_SCHEMA,
            "log_id": manifest.log_id,
            "host": manifest.host,
            "created": manifest.created,
            "first": manifest.first,
            "last": manifest.last,
            "chain": manifest.chain.hex(),
            "root": manifest.root.hex(),
            "files": [
                {"name": file.name, "size": file.size, "sha384": file.sha384}
                for file in manifest.files
            ],
        }
    )


def verify_manifest(data: bytes, key: HybridKey) -> ExportManifest:
    """The manifest in an envelope that both of the audit key's parts signed.

    Raises AuditCheckpointError when they did not, AuditFormatError for bytes that are none.
    """
    try:
        envelope = parse_dsse(data.rstrip(b"\n"), MAX_EXPORT_BYTES, EXPORT_NAME, EXPORT_TYPE)
        if not key.has_signed(envelope):
            raise AuditCheckpointError(
                "the export is not signed by the host's audit key", needed=key.fingerprint[:24]
            )
        return _parse(envelope.payload)
    except FormatError as error:
        raise AuditFormatError("an export is malformed", found=str(error)) from error


def _parse(payload: bytes) -> ExportManifest:
    table = parse_canonical(payload, max_bytes=MAX_EXPORT_BYTES, what=EXPORT_NAME)
    fields = Fields(table, EXPORT_NAME)
    fields.text("schema", choices=(EXPORT_SCHEMA,))
    manifest = ExportManifest(
        fields.text("log_id", pattern=LOG_ID_PATTERN),
        fields.text("host", max_length=255),
        fields.integer("created", low=-MAX_INTEGER, high=MAX_INTEGER),
        fields.integer("first", low=1, high=MAX_INTEGER),
        fields.integer("last", low=1, high=MAX_INTEGER),
        bytes.fromhex(fields.text("chain", pattern=_HASH)),
        bytes.fromhex(fields.text("root", pattern=_HASH)),
        tuple(_files(fields.items("files", max_items=MAX_FILES))),
    )
    fields.finish()
    if manifest.last < manifest.first:
        raise AuditFormatError("the export ends before it begins")
    return manifest


def _files(tables: Iterable[Fields]) -> Iterator[ExportedFile]:
    for fields in tables:
        yield ExportedFile(
            fields.text("name", pattern=FILE_NAME),
            fields.integer("size", low=0, high=MAX_INTEGER),
            fields.text("sha384", pattern=_HASH),
        )
        fields.finish()


def render_readme(manifest: ExportManifest, signer: str) -> str:
    """README.txt: what this is, and how whoever receives it checks it."""
    return f"""\
Audit log of an edgekit host: records {manifest.first} to {manifest.last}
host {manifest.host}, log {manifest.log_id}

audit-*.jsonl      the records, byte for byte as the host wrote them
*.cef, *.syslog    the same records for other systems, where asked for
export.json        every file's SHA-384, signed by the host's audit key
*.signer.json      the public half of that key; trust the copy that you enrolled, not this one
*.checkpoint       the newest signed checkpoint, to hold later exports and the log against

Check it on any machine:

    edgekit audit verify --log . --pubkey ENROLLED.signer.json

The key's fingerprint, to compare with the one read on the host (edgekit audit verify):

    {signer}

Without edgekit: docs/spec/audit-log-v1.md of its source says what every byte means.
"""
