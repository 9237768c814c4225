"""What `status` says of the audit log: what is kept of texts, and whether copies get out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import parse_site_config
from edgekit.operations.status import (
    forward_warnings,
    log_room,
    room_warnings,
    text_warnings,
)


@pytest.mark.parametrize(("lines", "said"), [
    ("", []),
    ('texts = "sealed"', []),
    ('texts = "insecure-full"', ["prompts and answers are kept in the clear (audit.texts)"]),
    ('texts_by_key = ["e1a44298=insecure-full"]\ntexts_by_model = ["demo=insecure-full"]',
     ["prompts and answers are kept in the clear for demo, e1a44298 (audit.texts_by_...)"]),
    ('texts_by_key = ["e1a44298=none"]', []),
])
def test_texts_in_the_clear_are_a_warning(lines: str, said: list[str]) -> None:
    site = parse_site_config(f"schema = 1\n[audit]\n{lines}\n".encode(), file="edgekit.toml")
    assert text_warnings(site.audit) == said


@pytest.mark.parametrize(("state", "words"), [
    ({"dropped": 0}, []),
    ({"dropped": 7}, ["7 records were never forwarded"]),
    ({"dropped": 0, "unit": {"active": "active"}}, []),
    ({"dropped": 0, "unit": {"active": "failed"}}, ["not forwarded to syslog"]),
])
def test_copies_that_do_not_get_out_are_a_warning(
    state: dict[str, Any], words: list[str]
) -> None:
    said = forward_warnings({"to": "syslog", **state})
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))


@pytest.mark.parametrize(("mib", "percent", "level", "words"), [
    (1, 10, "ok", []),
    (1, 80, "warn", ["the audit log is 80 % full (edgekit audit export, then prune)"]),
    (1, 99, "full", ["the audit log is 99 % full (edgekit audit export, then prune)"]),
])
def test_how_full_the_log_is(
    tmp_path: Path, mib: int, percent: int, level: str, words: list[str]
) -> None:
    layout = HostLayout(tmp_path)
    layout.audit.mkdir(parents=True)
    size = (mib << 20) * percent // 100 + 50
    (layout.audit / "audit-0000000000000001.jsonl").write_bytes(bytes(size))
    site = parse_site_config(f"schema = 1\n[audit]\nmax_mib = {mib}\n".encode(), file="x")
    room = log_room(layout, site.audit)
    assert room == {
        "used_bytes": size, "limit_bytes": mib << 20, "percent": percent, "level": level
    }
    assert room_warnings(room) == words
