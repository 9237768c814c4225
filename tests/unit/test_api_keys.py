"""API keys: what a token looks like, what a file keeps, what is refused."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.api_keys import KeyRing, encode_keys, make_api_key, parse_keys
from edgekit.errors import FormatError

KEY, TOKEN = make_api_key(b"\x01\x02\x03\x04", b"\xff" * 32, scopes=("chat",), note="n", created=1)


def test_token_and_file_are_as_documented() -> None:
    assert TOKEN == "ek_01020304_" + "_" * 42 + "8"
    assert KEY.sha384 == hashlib.sha384(TOKEN.encode()).hexdigest()
    assert TOKEN.encode() not in encode_keys(KeyRing((KEY,)))


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=32, max_size=32))
def test_every_made_key_is_found_after_a_round_trip(ident: bytes, secret: bytes) -> None:
    key, token = make_api_key(ident, secret, scopes=("chat", "admin"), note="", created=0)
    ring = parse_keys(encode_keys(KeyRing((key,))))
    assert ring.find(token) == key


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_any_changed_character_is_refused(place: int, char: str) -> None:
    changed = TOKEN[:place] + char + TOKEN[place + 1 :]
    assert (KeyRing((KEY,)).find(changed) is not None) == (changed == TOKEN)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "ek_",
        TOKEN + "A",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN[:-1],
        TOKEN.upper(),
        TOKEN.replace("_", "é", 1),
    ],
)
def test_malformed_tokens_are_refused(token: str) -> None:
    assert KeyRing((KEY,)).find(token) is None


def test_wrong_number_of_random_bytes() -> None:
    with pytest.raises(FormatError):
        make_api_key(b"123", b"x" * 32, scopes=(), note="", created=0)
    with pytest.raises(FormatError):
        make_api_key(b"1234", b"x" * 31, scopes=(), note="", created=0)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "xyz"},
        {"sha384": "00"},
        {"scopes": ["root"]},
        {"scopes": "chat"},
        {"created": -1},
        {"extra": 1},
        {"note": "a\nb"},
    ],
)
def test_malformed_files_are_refused(change: dict[str, object]) -> None:
    table = json.loads(encode_keys(KeyRing((KEY,))))
    table["keys"][0].update(change)
    with pytest.raises(FormatError):
        parse_keys(json.dumps(table).encode())


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(FormatError, match="same id"):
        parse_keys(encode_keys(KeyRing((KEY, KEY))))
