"""Records in the forms of other systems: parsable by those systems' rules, whatever is inside."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.siem import (
    ALERT,
    ERROR,
    INFO,
    WARNING,
    Origin,
    render_cef,
    render_journal,
    render_syslog,
    severity,
)

ORIGIN = Origin("edge-7", "ab" * 16)
RECORD: dict[str, Any] = {
    "type": "response", "seq": 12, "prev": "00" * 48, "t_utc": 1_790_000_000_123_456,
    "t_boot_ns": 5, "boot_id": "b" * 32, "actor": "e1a44298", "src": "[::1]:4711",
    "request_id": "req-1", "model": "demo", "status": 200, "tokens_in": 3, "tokens_out": 4,
    "latency_ms": 88, "finish_reason": "stop", "error": None, "params": {"top_p": "0.9"},
}
TEXTS = st.text(max_size=40) | st.sampled_from(['a|b=c\\d"e]f', "x\ny", "\x1b[2J", "\u202e", "\0"])

RFC5424 = re.compile(
    r"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S{1,255}) (\S{1,48}) (\S+) "
    r"(\S{1,32}) "
    r'\[(\S+?)((?: [^\s=\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] (.*)'
)
PARAM = re.compile(r' ([^=]+)="((?:[^"\\\]]|\\["\\\]])*)"')


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """By ArcSight's rules: seven header fields, `\\|` and `\\\\` escaped; then key=value pairs."""
    parts = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    header = [re.sub(r"\\([\\|])", r"\1", part) for part in parts[:7]]
    names = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", parts[7]))
    fields = {}
    for match, following in zip(names, [*names[1:], None], strict=True):
        value = parts[7][match.end() : following.start() if following else None]
        fields[match[1]] = re.sub(r"\\([\\=])", r"\1", value)
    return header, fields


def parse_journal(data: bytes) -> dict[str, str]:
    """By systemd's description of the native protocol."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            data = rest
        else:
            name, length = line, int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[9 + length :]
        fields[name.decode()] = value.decode()
    return fields


def test_cef_of_a_response() -> None:
    header, fields = parse_cef(render_cef(RECORD, ORIGIN))
    assert header[0] == "CEF:0"
    assert header[1:3] == ["edgekit", "edgekit"]
    assert header[4:] == ["response", "response", "2"]
    assert (fields["src"], fields["spt"]) == ("::1", "4711")
    assert fields["rt"] == "1790000000123"
    assert fields["cs1"], fields["cs1Label"] == ("demo", "model")
    assert (fields["suser"], fields["outcome"], fields["cn2"]) == ("e1a44298", "200", "4")
    rest = json.loads(fields["msg"])
    assert rest["params"] == {"top_p": "0.9"}
    assert rest["finish_reason"] == "stop"


def test_syslog_of_a_response() -> None:
    line = json.dumps(RECORD, sort_keys=True)
    match = RFC5424.fullmatch(render_syslog(RECORD, ORIGIN, line).decode())
    assert match
    assert match[1] == str(13 * 8 + INFO)
    assert match[2] == "2026-09-21T14:13:20.123456Z"
    assert match.group(3, 4, 5, 6) == ("edge-7", "edgekit-audit", "-", "response")
    assert dict(PARAM.findall(match[8])) == {
        "seq": "12", "logId": "ab" * 16, "actor": "e1a44298", "requestId": "req-1",
    }
    assert json.loads(match[9]) == RECORD


def test_journal_of_a_response() -> None:
    fields = parse_journal(render_journal(RECORD, ORIGIN, "the line"))
    assert fields["MESSAGE"].startswith("record 12: type=response request_id=req-1")
    assert (fields["PRIORITY"], fields["SYSLOG_FACILITY"]) == ("6", "13")
    assert (fields["EDGEKIT_SEQ"], fields["EDGEKIT_ACTOR"]) == ("12", "e1a44298")
    assert fields["EDGEKIT_RECORD"] == "the line"
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name in fields)


@given(TEXTS, TEXTS, TEXTS)
def test_no_text_breaks_out_of_its_field(one: str, two: str, three: str) -> None:
    record = {**RECORD, "model": one, "actor": two, "error": three, "params": {"stop": one}}
    line = json.dumps(record, sort_keys=True)
    cef = render_cef(record, ORIGIN)
    assert cef.isascii()
    assert cef.isprintable()
    header, fields = parse_cef(cef)
    assert len(header) == 7
    assert fields["cn1"] == "3"
    if one and not one.isspace() and "=" not in one and one.isascii() and one.isprintable():
        assert fields["cs1"].strip() == one.strip()
    for message in (line, cef):
        data = render_syslog(record, ORIGIN, message).decode()
        match = RFC5424.fullmatch(data)
        assert match
        assert data.isprintable()
        assert match[9] == message
    journal = parse_journal(render_journal(record, ORIGIN, line))
    assert journal["EDGEKIT_MODEL"] == one.encode("utf-8", errors="replace").decode()
    assert journal["MESSAGE"].isprintable()


def test_severities() -> None:
    assert severity(RECORD) == INFO
    assert severity({**RECORD, "status": 502}) == ERROR
    assert severity({"type": "denied"}) == WARNING
    assert severity({"type": "install_abort"}) == WARNING
    assert severity({"type": "audit_full"}) == ALERT
