"""What `status` says of the audit log: what is kept of texts, and whether copies get out."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.core.site_config import parse_site_config
from edgekit.operations.status import forward_warnings, text_warnings


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
