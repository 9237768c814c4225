"""Tokens for filling in text: found in headers, carried by sets, used in prompts."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.appliance import encode_appliance, parse_appliance
from edgekit.core.carried_model import INFILL_KEYS, SHAPE_KEYS, CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.gguf import GgufHeader, read_gguf_header
from edgekit.core.gguf_shape import gguf_shape
from edgekit.core.infill import KEYS, SPELLINGS, InfillTokens, find_infill_tokens
from edgekit.core.names import RelPath
from edgekit.core.release import Entry, Manifest, Requirements, encode_manifest, parse_manifest
from edgekit.errors import FormatError
from tests.gateway.conftest import make_appliance
from tests.support.gguf import TEXT, U32, GgufBuilder, array, default_keys, text, value

WORDS = ["a", "<|fim_middle|>", "<|fim_prefix|>", "</s>", "<|fim_suffix|>", "<PRE>", "<SUF>"]


def header(words: list[str], **ids: int) -> GgufHeader:
    keys = {**default_keys(), "tokenizer.ggml.tokens": array(TEXT, [text(w) for w in words])}
    keys.pop("tokenizer.ggml.scores")
    keys |= {f"tokenizer.ggml.{name}_token_id": value(U32, number) for name, number in ids.items()}
    data = GgufBuilder(keys=keys).file()
    return read_gguf_header(io.BytesIO(data), len(data), "x.gguf")


def found(*args: object, **ids: int) -> tuple[int, ...]:
    shape = gguf_shape(header(*args, **ids))  # type: ignore[arg-type]
    return tuple(number for key in INFILL_KEYS if isinstance(number := shape.get(key), int))


def test_a_vocabulary_is_searched_for_the_usual_spellings() -> None:
    assert found(WORDS) == (2, 4, 1)
    for prefix, suffix, middle in zip(*SPELLINGS.values(), strict=True):
        assert found(["x", middle, prefix, suffix]) == (2, 3, 1)


def test_ids_that_the_file_names_come_first() -> None:
    assert found(WORDS, fim_pre=5, fim_suf=6, fim_mid=3) == (5, 6, 3)
    assert found(WORDS, prefix=5, suffix=6) == (5, 6, 1)  # the keys' older names


def test_an_id_beyond_the_vocabulary_is_none() -> None:
    assert found(WORDS, fim_pre=2**32 - 1) == (2, 4, 1)
    assert found(["<PRE>", "<SUF>"], fim_mid=2) == ()


@pytest.mark.parametrize("missing", ["<|fim_middle|>", "<|fim_prefix|>", "<|fim_suffix|>"])
def test_two_of_three_are_not_enough(missing: str) -> None:
    words = [word for word in WORDS[:5] if word != missing]
    assert found(words) == ()


def test_of_equal_tokens_the_first_counts() -> None:
    assert found([*WORDS, "<|fim_prefix|>"]) == (2, 4, 1)


def test_a_boolean_is_no_id() -> None:
    assert find_infill_tokens({KEYS["prefix"][0]: True}, {"<SUF>": 1, "<MID>": 2}, 3) is None


def test_the_first_token_is_one() -> None:
    assert find_infill_tokens({}, {"<PRE>": 0, "<SUF>": 1, "<MID>": 2}, 3) == InfillTokens(0, 1, 2)


def test_a_prompt_has_the_texts_behind_their_marks() -> None:
    assert InfillTokens(7, 8, 9).prompt("in", "out") == ["", 7, "in", 8, "out", 9]


@pytest.mark.parametrize("ids", [{}, {"infill_prefix": 1, "infill_suffix": 2},
                                 {"infill_prefix": 1, "infill_suffix": 2, "infill_middle": (3,)}])
def test_a_manifest_whose_model_inserts_has_the_tokens_for_it(ids: dict[str, Any]) -> None:
    numbers = dict.fromkeys(SHAPE_KEYS, 1)
    good = manifest({**numbers, **dict.fromkeys(INFILL_KEYS, 3)})
    assert parse_manifest(encode_manifest(good)) == good
    with pytest.raises(FormatError, match="cannot insert"):
        parse_manifest(encode_manifest(manifest({**numbers, **ids})))


def manifest(shape: dict[str, Any]) -> Manifest:
    path = RelPath("models/x.gguf")
    variant = CarriedVariant("gguf", "Q8_0", (path,), 10, tuple(sorted(shape.items())))
    model = CarriedModel("m", 512, "MIT", "llama", 1, (variant,), (), ("completion", "insert"))
    digest = Digest.parse("sha384:" + "ab" * 48)
    needs = Requirements(arch="x86_64", glibc=(2, 28), cpu_flags=(), systemd=249)
    return Manifest(
        name="s", version="1.0.0", created=1, users=1, requirements=needs, engines=(), images=(),
        entries=(Entry(path, "weights", 10, digest),), models=(model,), rehearsed_on="",
    )


def test_an_appliance_remembers_the_tokens() -> None:
    plain = make_appliance(Path("/x"), 1, engine_socket="x")
    assert parse_appliance(encode_appliance(plain)) == plain
    models = (replace(plain.models[0], infill=InfillTokens(7, 8, 9)),)
    able = replace(plain, models=models)
    assert parse_appliance(encode_appliance(able)) == able
