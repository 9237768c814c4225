"""Patterns in the engine's words: what they match, the pattern matched before."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.core.schema_pattern import engine_pattern
from edgekit.errors import FormatError

PIECES = st.sampled_from([
    "a", "b", "-", "]", "[", "^", "$", "(", ")", "(?:", "|", "*", "+", "?", "{2}", "{0,3}", "{3,1}",
    ".", r"\d", r"\W", r"\s", r"\.", r"\\", r"\n", r"\u0061", r"\x22", '"', "[ab]", "[^ab]",
    "[a-c]", r"[\d-]", r"[^\s]", "[ -~]", "[-a]", r"[\]]", "é",
])
TEXTS = st.text(alphabet='ab-c0 "\\\n].^é~', max_size=6)


@given(st.lists(PIECES, max_size=6).map("".join), st.lists(TEXTS, min_size=5, max_size=20))
@example("[^a]", ['"', "\\", "\n", "b"])
def test_what_it_matches_the_pattern_matched(inner: str, texts: list[str]) -> None:
    with contextlib.suppress(FormatError):
        made = engine_pattern(f"^{inner}$")
        for text in texts:
            if re.fullmatch(made[1:-1], text):
                assert re.fullmatch(inner, text, re.ASCII), (inner, made, text)
                assert not re.search(r'["\\\x00-\x1f]', text)


@given(st.text(max_size=40) | st.text(max_size=40).map(lambda text: f"^{text}$"))
def test_any_text_ends_in_a_pattern_or_a_format_error(text: str) -> None:
    with contextlib.suppress(FormatError):
        made = engine_pattern(text)
        assert engine_pattern(made) == made  # its own words are read back


@pytest.mark.parametrize(
    ("pattern", "made"),
    [
        (r"^\d+$", r"^[\u0030-\u0039]+$"),
        ("^.$", r"^[^\u0000-\u001f\u0022\u005c]$"),
        (r"^[\s]$", r"^[\u0020]$"),
        (r"^\-(?:a|b)\.$", r"^-(a|b)\.$"),
        (r"^[a\-z]$", r"^[\u002d\u0061\u007a]$"),
        ("^[^\U0001f600]$", "^[^\\u0000-\\u001f\\u0022\\u005c\U0001f600]$"),
    ],
)
def test_words_of_the_engine(pattern: str, made: str) -> None:
    assert engine_pattern(pattern) == made
