"""Audit records as a site's log systems take them: CEF, RFC 5424, journald's own protocol. Pure.

The record is what counts; these forms are for looking at it elsewhere. A syslog message in the form
`json` ends with the record's exact line, from which the chain can be checked again. Names follow
AU-3 and, in CEF, ArcSight's dictionary; whatever has no name there is in `msg`, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edgekit import __version__

Record = Mapping[str, Any]

APP_NAME = "edgekit-audit"
FACILITY = 13
"""`log audit` of RFC 5424."""

STRUCTURED_ID = "edgekit@32473"
"""32473 is the enterprise number that RFC 5612 sets aside for use without a registration."""

JOURNAL_MESSAGE_ID = "9d6a5c1e0b7f4c43a2e58f0d3b1c7a64"
NIL = "-"

ALERT, ERROR, WARNING, NOTICE, INFO = 1, 3, 4, 5, 6
_CEF_SEVERITY = {ALERT: 10, ERROR: 8, WARNING: 6, NOTICE: 4, INFO: 2}
_SEVERITIES = {
    "audit_full": ALERT,
    "break_glass": ALERT,
    "retention": NOTICE,
    "text_erased": NOTICE,
    "text_policy": NOTICE,
    "denied": WARNING,
    "auth_fail": WARNING,
    "orphaned": WARNING,
    "recovered": WARNING,
    "clock_jump": WARNING,
    "crash": ERROR,
}
_CEF_NAMES = {
    "seq": "externalId",
    "actor": "suser",
    "src": "src",
    "endpoint": "request",
    "path": "request",
    "method": "requestMethod",
    "reason": "reason",
    "error": "reason",
    "status": "outcome",
    "bytes_in": "in",
    "unit": "deviceProcessName",
}
_CEF_LABELLED = {
    "model": "cs1",
    "request_id": "cs2",
    "generation": "cs3",
    "prev": "cs4",
    "tokens_in": "cn1",
    "tokens_out": "cn2",
    "latency_ms": "cn3",
}
_SPOKEN = ("type", "request_id", "actor", "model", "status", "reason", "error")


@dataclass(frozen=True, slots=True)
class Origin:
    """Which host a record comes from."""

    host: str
    log_id: str


def severity(record: Record) -> int:
    """The syslog severity: 1 (act now) to 6 (information)."""
    kind = str(record["type"])
    status = record.get("status")
    if kind == "response" and isinstance(status, int) and status >= 500:
        return ERROR
    ended_badly = kind.endswith(("_abort", "_failed"))
    return _SEVERITIES.get(kind, WARNING if ended_badly else INFO)


def render_cef(record: Record, origin: Origin) -> str:
    """One line in Common Event Format, version 0."""
    kind = str(record["type"])
    header = "|".join(
        _cef_header(part)
        for part in ("edgekit", "edgekit", __version__, kind, kind.replace("_", " "))
    )
    fields = {"rt": record["t_utc"] // 1000, "dvchost": origin.host, **_cef_fields(record)}
    rest = {k: v for k, v in record.items() if k not in _CEF_NAMES and k not in _CEF_LABELLED}
    fields["msg"] = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    extension = " ".join(f"{name}={_cef_value(value)}" for name, value in fields.items())
    return f"CEF:0|{header}|{_CEF_SEVERITY[severity(record)]}|{extension}"


def _cef_fields(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, cef in _CEF_NAMES.items():
        value = record.get(name)
        if value not in (None, ""):
            fields[cef] = value
    if isinstance(source := fields.get("src"), str):
        address, _, port = source.rpartition(":")
        fields["src"], fields["spt"] = address.strip("[]") or source, port
    for name, cef in _CEF_LABELLED.items():
        value = record.get(name)
        if value not in (None, ""):
            fields[cef], fields[f"{cef}Label"] = value, name
    return fields


def _cef_header(text: str) -> str:
    return _one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def _cef_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return _one_line(text).replace("\\", "\\\\").replace("=", "\\=")


def _one_line(text: str) -> str:
    """Text of strangers: what a terminal or a line reader would act on becomes an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isascii() and char.isprintable() else json.dumps(char)[1:-1] for char in text
    )


def render_syslog(record: Record, origin: Origin, message: str) -> bytes:
    """One RFC 5424 message. `message` is the record's line, or its CEF form; both are ASCII."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=record["t_utc"])
    data = {
        "seq": str(record["seq"]),
        "logId": origin.log_id,
        "actor": str(record.get("actor", "")),
        "requestId": str(record.get("request_id", "")),
    }
    structured = "".join(f' {k}="{_param(v)}"' for k, v in data.items() if v)
    header = " ".join(
        (
            f"<{FACILITY * 8 + severity(record)}>1",
            moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            _name(origin.host, 255),
            APP_NAME,
            NIL,
            _name(str(record["type"]), 32),
        )
    )
    return f"{header} [{STRUCTURED_ID}{structured}] {message}".encode("ascii")


def _param(text: str) -> str:
    escaped = _one_line(text)
    return escaped.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _name(text: str, limit: int) -> str:
    kept = "".join(char for char in text if "!" <= char <= "~")[:limit]
    return kept or NIL


def render_journal(record: Record, origin: Origin, line: str) -> bytes:
    """One datagram of journald's native protocol: a sentence, a field for each of the record's
    (`journalctl EDGEKIT_ACTOR=...`), and the record's exact line in `EDGEKIT_RECORD`."""
    fields: dict[str, str] = {
        "MESSAGE": _sentence(record),
        "MESSAGE_ID": JOURNAL_MESSAGE_ID,
        "PRIORITY": str(severity(record)),
        "SYSLOG_FACILITY": str(FACILITY),
        "SYSLOG_IDENTIFIER": APP_NAME,
        "EDGEKIT_LOG_ID": origin.log_id,
        "EDGEKIT_RECORD": line,
    }
    for name, value in sorted(record.items()):
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        fields[f"EDGEKIT_{name.upper()}"] = text
    return b"".join(_journal_field(name, text) for name, text in fields.items())


def _journal_field(name: str, text: str) -> bytes:
    data = text.encode("utf-8", errors="replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _sentence(record: Record) -> str:
    parts = [f"{name}={record[name]}" for name in _SPOKEN if record.get(name) not in (None, "")]
    return _one_line(f"record {record['seq']}: " + " ".join(parts))
