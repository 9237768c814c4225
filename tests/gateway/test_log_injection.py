"""Whatever a client puts into a request: one record, on one line, escaped and capped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgekit.core.audit_record import MAX_LINE_BYTES
from edgekit.operations.audit import verify_audit
from edgekit.system.audit_files import read_lines
from tests.gateway.conftest import Site

OPENAI = "/v1/chat/completions"
HOSTILE = (
    'x"}\n{"seq":99,"type":"forged"}',
    "\r\n\t\x00\x07\x1b[2J\x7f",
    "\u202egnp.exe \u2066\u2069\u200f",
    "\u2028\u2029\u0085\ufeff",
    "\\u000a\\n",
)
HUGE = "A" * (3 << 20)
"""With four of them a body is over its limit; one fits."""


def say(text: Any, **fields: Any) -> dict[str, Any]:
    return {
        "model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 2, **fields
    }  # fmt: skip


@pytest.mark.parametrize("text", [*HOSTILE, HUGE], ids=lambda text: ascii(text[:16]))
def test_every_field_of_a_request_ends_up_in_one_line(site: Site, text: str) -> None:
    site.post(OPENAI, say(text, user=text, stop=[text[:20]]))
    site.post(OPENAI, say("hello", model=text))
    site.post(OPENAI, {**say("hello"), text[:200]: 1})
    site.post(OPENAI, say("hello", response_format={"type": text}))
    site.http.request("POST", f"/v1/{text[:50].encode().hex()}%0a%22%7d%E2%80%AE", json={})
    site.http.post(OPENAI, content=text.encode("utf-8", errors="replace"))
    lines = [line.data for line in read_lines(site.work / "audit")]
    assert verify_audit(site.work / "audit").records == len(lines)
    own = [r for r in map(json.loads, lines) if r.get("unit") == "gateway"]
    assert len(own) >= 5
    for line in lines:
        assert len(line) <= MAX_LINE_BYTES
        assert all(0x20 <= byte < 0x7F for byte in line)
    assert not any(record["type"] == "forged" for record in map(json.loads, lines))


def test_a_body_of_ten_megabytes_is_one_capped_record(site: Site) -> None:
    response = site.post(OPENAI, say("A" * (10 << 20)))
    assert response.status_code == 413
    (denied,) = [r for r in site.records() if r["type"] == "denied"]
    assert denied["status"] == 413
    assert len(json.dumps(denied)) < 2000
