"""A schema must not hold up the engine for everyone."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from edgekit.gateway.schema_limits import (
    MAX_ALTERNATIVES,
    MAX_PROPERTIES,
    MAX_REPETITIONS,
    repetitions_of,
)
from tests.gateway.conftest import Site

ADDRESS = r"^(\d{1,3}\.){3}\d{1,3}$"
MOMENT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"


def text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("abc", 0),
        ("a*b+c?", 3),
        (r"\*\+[*+?{2}]", 0),
        ("a{2,5}", 1),
        ("a{0,2000}", 1),
        ("(ab){7}", 1),
        ("(a*){7}", 8),
        ("(a*)*", 2),
        ("(.{0,30}){0,30}", 31),
        ("((.{0,9}){0,9}){0,9}", 91),
        ("(a*){3,}", 4),
        ("((a*", 1),
        (ADDRESS, 5),
        (MOMENT, 10),
    ],
)
def test_repetitions_are_counted_written_out(pattern: str, count: int) -> None:
    assert repetitions_of(pattern) == count


STOPPING = [
    text("^(.{0,30}){0,30}$"),  # llama.cpp's server did not come back from these
    text("^(.?){0,200}$"),
    text("^" + "a*" * 200 + "$"),
    {"anyOf": [text("^" + "a*" * MAX_REPETITIONS + "$")] * 20},
    text("^" + "a" * 511 + "$"),
    {"enum": list(range(MAX_ALTERNATIVES + 1))},
    {"type": "object", "properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}},
]


OPEN = [r"\d+", "^abc", "abc$", r"^abc\$", "", "^", "$", r"^\\\$", "(^a$)"]
UNKEPT = [  # llama.cpp answers as if these were not there, or not at all
    r"^\bx$", r"^\p{L}$", r"^(a)\1$", "^(?=a)$", "^(?<n>a)$", "^(?i)a$", "^a^b$", "^a$b$", "^]$",
    "^}$", "^{3}$", "^a{1,2,3}$", "^a{5,2}$", "^a{x}$", "^*$", "^a**$", "^a+?$", "^a{2}{3}$",
    "^(*a)$", "^(a$", "^a)$", "^[]a]$", "^[a$", "^[[a]]$", r"^[\D]$", r"^\cA$", r"^\u12$", '^"$',
    r'^\"$', "^a|*$", r"^\n$", r"^\\\\$", '^["]$', "^[z-a]$", r"^\u0022$",
]


@pytest.mark.parametrize("pattern", OPEN)
def test_a_pattern_that_is_not_for_the_whole_text_is_refused(site: Site, pattern: str) -> None:
    answer = site.post("/api/generate", {"model": "demo", "prompt": "x", "format": text(pattern)})
    assert answer.status_code == 400
    assert "must begin with ^ and end with $" in answer.json()["error"]
    assert not site.engine.requests


@pytest.mark.parametrize("pattern", UNKEPT)
def test_what_the_engine_would_not_keep_to_is_refused(site: Site, pattern: str) -> None:
    answer = site.post("/api/generate", {"model": "demo", "prompt": "x", "format": text(pattern)})
    assert answer.status_code == 400, answer.text
    assert not site.engine.requests


KEPT = [
    r"^\d{3}$", r"^\w{2}-\W$", r"^\S\s\S$", r"^\D{2}$", r"^[\d.]{4}$", r"^[\w\-]{3}$",
    r"^[^\s\d]{3}$", "^[0-9]{3}$", r"^a\$$", "^(ja|nein)$", "^(?:ab){2}$", r"^\/\-\_\+$",
    r"^\u0041\x42$", "^[a-c]{2,4}$", r"^\.\*\[\]\{\}\(\)\^\|$", "^$", "^(|a)$", "^a|b$",
    r"^[\]\\]{2}$", "^é[à-ÿ]{2}$", "^[ -~]{5}$", "^.{5}$", "^[^a-z]{5}$", "^[^a]{3}$",
    ADDRESS, MOMENT.replace("+)?", "{1,3})?"),
]


def test_a_pattern_for_the_whole_text_is_kept_to(real_site: Site) -> None:
    for pattern in KEPT:
        answer = real_site.post("/api/generate", {
            "model": "demo", "prompt": "x", "format": text(pattern), "stream": False,
            "options": {"num_predict": 60, "temperature": 0}})
        assert answer.status_code == 200, (pattern, answer.text)
        written = json.loads(answer.json()["response"])
        assert re.fullmatch(pattern, written), (pattern, written)


@pytest.mark.parametrize("schema", STOPPING, ids=[str(schema)[:40] for schema in STOPPING])
def test_schemas_that_stop_an_engine_reach_none(site: Site, schema: dict[str, Any]) -> None:
    chat: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    function = {"name": "f", "parameters": schema}
    tool = {"name": "f", "input_schema": schema}
    for path, body in (
        ("/v1/chat/completions", {**chat, "response_format": wanted}),
        ("/v1/chat/completions", {**chat, "tools": [{"type": "function", "function": function}]}),
        ("/v1/responses", {"model": "demo", "input": "x",
                           "text": {"format": {"type": "json_schema", "schema": schema}}}),
        ("/v1/responses", {"model": "demo", "input": "x",
                           "tools": [{"type": "function", **function}]}),
        ("/v1/messages", {**chat, "max_tokens": 5, "tools": [tool]}),
        ("/v1/messages", {**chat, "max_tokens": 5, "output_config": {"format": {
            "type": "json_schema", "schema": schema}}}),
        ("/api/chat", {**chat, "format": schema}),
        ("/api/generate", {"model": "demo", "prompt": "x", "format": schema, "raw": True}),
    ):  # fmt: skip
        answer = site.post(path, body)
        assert answer.status_code == 400, path
        assert answer.json()["error"]
    assert not site.engine.requests


@pytest.mark.parametrize(
    "schema",
    [
        text(ADDRESS),
        text(MOMENT),
        text("^" + "(a|b)*" * MAX_REPETITIONS + "$"),
        text(f"^(.*){{0,{MAX_REPETITIONS - 1}}}$"),
        {"enum": [f"value {i}" for i in range(MAX_ALTERNATIVES)]},
        {"type": "object", "properties": {f"p{i}": {} for i in range(MAX_PROPERTIES)}},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_the_worst_that_is_let_through_does_not_hold_up_the_engine(
    real_site: Site, schema: dict[str, Any]
) -> None:
    began = time.monotonic()
    answer = real_site.post(
        "/api/generate",
        {
            "model": "demo",
            "prompt": "x",
            "format": schema,
            "stream": False,
            "options": {"num_predict": 60, "temperature": 0},
        },
    )
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < 5  # a second on a machine that is left alone
