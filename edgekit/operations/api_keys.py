"""`edgekit key`: add, list and revoke the API keys of this host, in force without a restart."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass

from edgekit.core.api_keys import (
    ID_BYTES,
    MAX_BYTES,
    MAX_KEYS,
    MAX_NOTE_CHARS,
    SCOPES,
    SECRET_BYTES,
    ApiKey,
    KeyLimits,
    KeyRing,
    encode_keys,
    make_api_key,
    parse_keys,
)
from edgekit.core.host_layout import HostLayout
from edgekit.errors import EngineNotReadyError, FormatError, TrustError
from edgekit.operations.host_records import audit_event, local_key, require_generation
from edgekit.system.files import durable_write, exclusive_lock, read_bounded
from edgekit.system.gateway_control import push_keys


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a change: the key, its token when it is new, and whether it is in force.

    `in_force` is false when no gateway runs; the next one reads the file.
    """

    key: ApiKey
    token: str
    in_force: bool


def list_keys(layout: HostLayout) -> KeyRing:
    """The keys of this host. Raises NotInstalledError, PrivilegeError, FormatError."""
    require_generation(layout)
    return _load(layout)


def add_key(layout: HostLayout, *, scopes: tuple[str, ...], note: str, limits: KeyLimits) -> Change:
    """Make a key; its token is in the answer and nowhere else.

    Raises FormatError, NotInstalledError, PrivilegeError, AuditUnavailableError.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise FormatError(
            "no such scope", found=", ".join(unknown) or "none", needed=", ".join(SCOPES)
        )
    if len(note) > MAX_NOTE_CHARS or not note.isprintable():
        raise FormatError("the note is too long or not printable", needed=f"{MAX_NOTE_CHARS}")
    with exclusive_lock(layout.lock, "this host"):
        require_generation(layout)
        ring = _load(layout)
        if len(ring.keys) >= MAX_KEYS:
            raise FormatError("there are too many keys", needed=f"at most {MAX_KEYS}")
        key, token = make_api_key(
            _fresh_id(ring),
            secrets.token_bytes(SECRET_BYTES),
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            note=note,
            created=int(time.time()),
            limits=limits,
        )
        in_force = _replace(layout, KeyRing((*ring.keys, key)), "key_add", key)
    return Change(key, token, in_force)


def revoke_key(layout: HostLayout, identity: str) -> Change:
    """Remove a key for good: its next request is refused; what it already asked is answered.

    Raises FormatError when there is no such key, TrustError for the host's own key,
    NotInstalledError, PrivilegeError, AuditUnavailableError.
    """
    with exclusive_lock(layout.lock, "this host"):
        require_generation(layout)
        ring = _load(layout)
        key = next((key for key in ring.keys if key.id == identity), None)
        if key is None:
            raise FormatError("no such API key", found=identity, hint="edgekit key list")
        if ring.find(local_key(layout)) is key:
            raise TrustError(
                "this is the key of the host itself: health checks and `edgekit run` need it",
                found=identity,
                hint="edgekit key list",
            )
        left = KeyRing(tuple(other for other in ring.keys if other is not key))
        in_force = _replace(layout, left, "key_revoke", key)
    return Change(key, "", in_force)


def _load(layout: HostLayout) -> KeyRing:
    return parse_keys(read_bounded(layout.api_keys, MAX_BYTES, "API keys file"))


def _replace(layout: HostLayout, ring: KeyRing, kind: str, key: ApiKey) -> bool:
    """Record the change, write the file, tell the gateway; whether one was there."""
    audit_event(
        layout,
        {
            "type": kind,
            "key": key.id,
            "scopes": ",".join(key.scopes),
            "actor": f"uid {os.getuid()}",
        },
    )
    data = encode_keys(ring)
    durable_write(layout.api_keys, data, mode=0o600)
    try:
        push_keys(layout.gateway_control(), data)
    except EngineNotReadyError:
        return False
    return True


def _fresh_id(ring: KeyRing) -> bytes:
    taken = {key.id for key in ring.keys}
    while (identity := secrets.token_bytes(ID_BYTES)).hex() in taken:
        pass
    return identity
