"""The keys of a host's audit log that people outside get: the public half, and a MAC key.

The public half may be given to anyone; whoever has it can check every checkpoint. A MAC key is for
one auditor: with it every single record from its epoch on can be checked, and also be forged. When
nobody should have it any more, the log goes on with a new one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edgekit.core.audit_keys import AuditKey, encode_audit_key
from edgekit.core.audit_record import REKEY
from edgekit.core.host_layout import HostLayout
from edgekit.core.hybrid_key import MAX_HALF_BYTES, verify_hybrid_key
from edgekit.errors import FormatError, HostError, PrivilegeError
from edgekit.operations.host_records import audit_event
from edgekit.system.audit_files import public_half_path, read_head
from edgekit.system.audit_secrets import load_mac_key
from edgekit.system.files import durable_write, read_bounded

MAX_REASON = 200


def publish_audit_key(layout: HostLayout) -> str:
    """Put the public half where every user of the host may read it; returns its fingerprint.

    Raises AuditError for a host without a log, HostError.
    """
    half = public_half_path(layout.audit, read_head(layout.audit).log_id)
    data = read_bounded(half, MAX_HALF_BYTES, "public half")
    key, place = verify_hybrid_key(data), layout.audit_public_key
    if not place.exists() or read_bounded(place, MAX_HALF_BYTES, "public half") != data:
        durable_write(place, data)
    return key.fingerprint


def hand_over_mac_key(layout: HostLayout, out: Path) -> AuditKey:
    """Write the running epoch's MAC key to a new file, mode 0600, once that is recorded.

    Right after the first installation this is the first key, and covers the whole log. Raises
    PrivilegeError for who may not read it, HostError when the file is there, AuditUnavailableError.
    """
    if out.exists():
        raise HostError("the file is there already", where=str(out), hint="give a new name")
    key = load_mac_key(layout.audit, read_head(layout.audit).log_id)
    if key is None:
        raise PrivilegeError("the audit log's MAC key is root's", hint="sudo edgekit audit key")
    data = encode_audit_key(key)
    audit_event(layout, {
        "type": "key_handover", "epoch": key.epoch, "to": str(out),
        "key_sha384": hashlib.sha384(data).hexdigest(), "actor": f"uid {os.getuid()}",
    })  # fmt: skip
    durable_write(out, data, mode=0o600)
    return key


def replace_mac_key(layout: HostLayout, reason: str) -> AuditKey:
    """End the running epoch and seal the next ones under a new random key; returns that key.

    Keys that were handed over check the log up to there and no further. Recorded by the record
    that asks for it and by the end of its epoch. Raises PrivilegeError, FormatError for a reason
    that is none, AuditUnavailableError when it cannot be recorded: then the key is the old one, or
    the new one if the log says `rekeyed`.
    """
    if not layout.is_private and os.geteuid() != 0:
        raise PrivilegeError("a new MAC key is root's to ask for", hint="sudo edgekit audit rekey")
    if not (0 < len(reason) <= MAX_REASON and reason.isprintable()):
        raise FormatError(
            "a new key has a reason", needed=f"a line of at most {MAX_REASON} characters"
        )
    log_id = read_head(layout.audit).log_id
    audit_event(layout, {"type": REKEY, "reason": reason, "actor": f"uid {os.getuid()}"})
    key = load_mac_key(layout.audit, log_id)
    if key is None:
        raise PrivilegeError("the audit log's MAC key is root's", hint="sudo edgekit audit rekey")
    return key
