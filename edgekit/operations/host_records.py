"""What a host remembers about its installations: audit events, settings, receipts, keys."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.api_keys import (
    ID_BYTES,
    SCOPES,
    SECRET_BYTES,
    KeyRing,
    encode_keys,
    make_api_key,
)
from edgekit.core.appliance import MAX_BYTES as MAX_APPLIANCE_BYTES
from edgekit.core.appliance import Appliance, at_site, parse_appliance
from edgekit.core.derived import DerivedModel
from edgekit.core.fields import Fields
from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import MAX_CONFIG_BYTES
from edgekit.core.strict_json import parse_strict
from edgekit.errors import EdgekitError, NotInstalledError
from edgekit.system.audit_client import append_event
from edgekit.system.audit_log import append_offline
from edgekit.system.derived_models import load_made_here
from edgekit.system.files import (
    durable_write,
    ensure_directory,
    read_bounded,
    translate_os_error,
)
from edgekit.system.generations import current_generation
from edgekit.system.site_config import load_site_config

RECEIPT = "receipt.json"
MAX_KEY_BYTES = 1000
MAX_RECEIPT_BYTES = 1 << 20
_MAX_PINS_BYTES = 1 << 20


def audit_event(layout: HostLayout, record: Mapping[str, Any]) -> None:
    """Make an event durable in the audit log: through the writer when it runs, else directly.

    Raises AuditUnavailableError: what cannot be recorded is not done.
    """
    socket_path = layout.audit_socket()
    if socket_path.exists():
        try:
            append_event(str(socket_path), record)
        except EdgekitError:
            append_offline(layout.audit, [record])  # the socket of a writer that is gone
    else:
        append_offline(layout.audit, [record])


def load_appliance(layout: HostLayout, generation: str) -> Appliance:
    """Settings of an installed generation at this site. Raises HostError or FormatError."""
    path = layout.generation(generation) / "appliance.json"
    appliance = parse_appliance(read_bounded(path, MAX_APPLIANCE_BYTES, "appliance.json"))
    return at_site(appliance, load_site_config(layout.site_config))


def load_derived(layout: HostLayout) -> tuple[DerivedModel, ...]:
    """The models that were made on this host. Raises HostError or FormatError."""
    return load_made_here(layout.derived_models)


def require_generation(layout: HostLayout) -> str:
    """The id of the generation that serves. Raises NotInstalledError."""
    generation = current_generation(layout)
    if generation is None:
        raise NotInstalledError(
            "no release is installed here", where=str(layout.root), hint="edgekit install SET"
        )
    return generation


def local_key(layout: HostLayout) -> str:
    """The clear API key of this host's root. Raises PrivilegeError or HostError."""
    return read_bounded(layout.local_key, MAX_KEY_BYTES, "local key").decode("ascii").strip()


def is_committed(layout: HostLayout, generation: str) -> bool:
    """Whether an installation of this generation ran to its end: the receipt is written last."""
    return (layout.generation(generation) / RECEIPT).is_file()


def previous_generation(layout: HostLayout, generation: str) -> str | None:
    """What served, committed, before this generation was installed; None when nothing did."""
    name = receipt_table(layout, generation).get("previous")
    if isinstance(name, str) and name and is_committed(layout, name):
        return name
    return None


def receipt_table(layout: HostLayout, generation: str) -> dict[str, Any]:
    """A generation's receipt, empty when it has none. Raises HostError or FormatError."""
    path = layout.generation(generation) / RECEIPT
    if not path.is_file():
        return {}
    table = parse_strict(
        read_bounded(path, MAX_RECEIPT_BYTES, RECEIPT),
        max_bytes=MAX_RECEIPT_BYTES,
        what=RECEIPT,
        floats=True,
    )
    return table if isinstance(table, dict) else {}


def set_previous(layout: HostLayout, generation: str, previous: str) -> None:
    """Make `previous` what going back from an installed generation leads to.

    Written before `current` moves to that generation, so the pointer never leads where no way back
    is known. Raises HostError, FormatError.
    """
    table = receipt_table(layout, generation)
    durable_write(
        layout.generation(generation) / RECEIPT, pretty_json({**table, "previous": previous})
    )


def load_pins(layout: HostLayout) -> frozenset[str]:
    """Generations that gc must keep. Raises FormatError when the list is damaged."""
    path = _pins(layout)
    if not path.is_file():
        return frozenset()
    data = read_bounded(path, _MAX_PINS_BYTES, path.name)
    fields = Fields(parse_strict(data, max_bytes=_MAX_PINS_BYTES, what=path.name))
    names = fields.texts("pinned", max_items=1000)
    fields.finish()
    return frozenset(names)


def save_pins(layout: HostLayout, pins: frozenset[str]) -> None:
    """Remember durably which generations gc must keep. Raises HostError."""
    durable_write(_pins(layout), pretty_json({"pinned": sorted(pins)}))


def _pins(layout: HostLayout) -> Path:
    return layout.state / "pins.json"


def keep_config(layout: HostLayout) -> None:
    """Remember the configuration in force as one that works. Raises HostError."""
    if layout.site_config.exists():
        data = read_bounded(layout.site_config, MAX_CONFIG_BYTES, "the configuration")
        durable_write(layout.applied_config, data)
        return
    try:
        layout.applied_config.unlink(missing_ok=True)
    except OSError as error:
        raise translate_os_error(error, "forgetting the configuration") from error


def ensure_api_keys(layout: HostLayout, *, renew: bool) -> str:
    """Make the first user key and root's local key; the user key's token, or "" when they exist.

    With `renew` existing ones are replaced: nobody was ever shown them.
    """
    if not renew and layout.api_keys.exists() and layout.local_key.exists():
        return ""
    now = int(time.time())
    user, token = make_api_key(
        secrets.token_bytes(ID_BYTES),
        secrets.token_bytes(SECRET_BYTES),
        scopes=("chat", "embed"),
        note="first key, made by install",
        created=now,
    )
    local, local_token = make_api_key(
        secrets.token_bytes(ID_BYTES),
        secrets.token_bytes(SECRET_BYTES),
        scopes=SCOPES,
        note="this host's root",
        created=now,
    )
    try:
        ensure_directory(layout.configuration)
    except OSError as error:
        raise translate_os_error(error, "making the configuration's folder") from error
    durable_write(layout.api_keys, encode_keys(KeyRing((user, local))), mode=0o600)
    durable_write(layout.local_key, local_token.encode() + b"\n", mode=0o600)
    return token


def discard_api_keys(layout: HostLayout) -> None:
    """Remove keys that nobody was ever shown; absent ones are fine. Raises HostError."""
    try:
        for path in (layout.api_keys, layout.local_key):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise translate_os_error(error, "removing the API keys") from error


def pretty_json(table: dict[str, Any]) -> bytes:
    """Readable deterministic JSON with a final newline."""
    return json.dumps(table, indent=1, sort_keys=True).encode() + b"\n"
