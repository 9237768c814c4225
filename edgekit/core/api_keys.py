"""API keys: tokens are shown once, files keep only their SHA-384.

A token is `ek_<id>_<secret>`: 8 hex digits that name it, 43 URL-safe characters (32 random bytes)
that prove it. Possession of the keys file gives no access; 256 random bits need no slow hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.core.fields import Fields
from edgekit.core.strict_json import parse_strict
from edgekit.errors import FormatError

SCHEMA = "edgekit.api-keys/1"
SCOPES = ("chat", "embed", "metrics", "admin")
MAX_NOTE_CHARS = 200
MAX_LIMIT = 1_000_000_000
MAX_KEYS = 1000
MAX_BYTES = 1 << 20
ID_BYTES = 4
SECRET_BYTES = 32

LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent")

_TOKEN = re.compile(r"ek_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_NO_SECRET = "0" * 96


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much one key may ask for; 0 is no limit of its own.

    Tokens are those of prompts and answers together. `concurrent` requests run or wait at once.
    """

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent: int = 0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as the file keeps it. `sha384` is of the whole token; `created` is in Unix s."""

    id: str
    sha384: str
    scopes: tuple[str, ...]
    note: str
    created: int
    limits: KeyLimits = KeyLimits()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys a gateway accepts; ids are unique."""

    keys: tuple[ApiKey, ...]

    def find(self, token: str) -> ApiKey | None:
        """The key this token belongs to, or None.

        The comparison takes the same time whether the id is unknown or the secret is wrong.
        """
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        named = next((key for key in self.keys if key.id == parts[1]), None)
        digest = hashlib.sha384(token.encode("ascii")).hexdigest()
        if hmac.compare_digest(digest, named.sha384 if named else _NO_SECRET):
            return named
        return None


def make_api_key(
    id_bytes: bytes,
    secret_bytes: bytes,
    *,
    scopes: tuple[str, ...],
    note: str,
    created: int,
    limits: KeyLimits = KeyLimits(),
) -> tuple[ApiKey, str]:
    """A key and its token from 4 and 32 fresh random bytes. Raises FormatError on other lengths."""
    if len(id_bytes) != ID_BYTES or len(secret_bytes) != SECRET_BYTES:
        raise FormatError("wrong number of random bytes for an API key")
    secret = base64.urlsafe_b64encode(secret_bytes).rstrip(b"=").decode()
    token = f"ek_{id_bytes.hex()}_{secret}"
    digest = hashlib.sha384(token.encode()).hexdigest()
    return ApiKey(id_bytes.hex(), digest, scopes, note, created, limits), token


def encode_keys(ring: KeyRing) -> bytes:
    """Readable deterministic JSON of the keys file."""
    table: dict[str, Any] = {"schema": SCHEMA, "keys": [asdict(key) for key in ring.keys]}
    return json.dumps(table, indent=1, sort_keys=True).encode() + b"\n"


def parse_keys(data: bytes) -> KeyRing:
    """Bytes of the keys file to keys. Raises FormatError."""
    fields = Fields(parse_strict(data, max_bytes=MAX_BYTES, what="API keys file"))
    fields.text("schema", choices=(SCHEMA,))
    keys = tuple(_parse_key(item) for item in fields.items("keys", max_items=MAX_KEYS))
    fields.finish()
    if len({key.id for key in keys}) != len(keys):
        raise FormatError("two API keys have the same id")
    return KeyRing(keys)


def _parse_key(fields: Fields) -> ApiKey:
    key = ApiKey(
        id=fields.text("id", pattern=r"[0-9a-f]{8}"),
        sha384=fields.text("sha384", pattern=r"[0-9a-f]{96}"),
        scopes=fields.texts("scopes", max_items=len(SCOPES)),
        note=fields.text("note", default="", max_length=MAX_NOTE_CHARS),
        created=fields.integer("created", low=0, high=1 << 40),
        limits=_parse_limits(fields.table("limits", {})),
    )
    unknown = [scope for scope in key.scopes if scope not in SCOPES]
    if unknown:
        raise fields.fail("scopes", f"{unknown[0]!r} is not one of {', '.join(SCOPES)}")
    fields.finish()
    return key


def _parse_limits(fields: Fields) -> KeyLimits:
    limits = KeyLimits(
        **{name: fields.integer(name, low=0, high=MAX_LIMIT, default=0) for name in LIMITS}
    )
    fields.finish()
    return limits
