"""What the keys of a GGUF model must agree on; tests/unit/test_hostile_models.py has the lies."""

from __future__ import annotations

import io

import pytest

from edgekit.core.gguf import read_gguf_header
from edgekit.core.gguf_rules import check_gguf_rules
from edgekit.errors import RefusedContentError
from tests.support.chat_templates import HOSTILE, REAL
from tests.support.gguf import F32, I32, TEXT, U32, U64, array, text, value
from tests.support.hostile_models import gguf


def check(keys: dict[str, bytes]) -> None:
    data = gguf(keys)
    check_gguf_rules(read_gguf_header(io.BytesIO(data), len(data), "x.gguf"), "x.gguf")


@pytest.mark.parametrize("keys", [
    {},
    {"general.type": value(TEXT, "model")},
    {"split.count": value(U32, 1)},
    {"llama.context_length": value(U64, 1 << 20)},
    {"llama.attention.head_count": array(U32, [b"\2\0\0\0", b"\4\0\0\0"])},
    {"llama.feed_forward_length": array(I32, [bytes(4)] * 2)},
    {"tokenizer.ggml.token_type": array(I32, [bytes(4)] * 3)},
    {"tokenizer.ggml.scores": array(F32, [bytes(4)] * 3)},
    {"tokenizer.ggml.merges": array(TEXT, [text("a b")])},
    {"tokenizer.ggml.bos_token_id": value(U32, 2)},
    {"tokenizer.ggml.padding_token_id": value(U32, 2**32 - 1)},
    {"tokenizer.ggml.padding_token_id": value(I32, -1)},
    {"tokenizer.chat_templates": array(TEXT, [text("rag")]),
     "tokenizer.chat_template.rag": value(TEXT, REAL["mistral"])},
    *({"tokenizer.chat_template": value(TEXT, template)} for template in REAL.values()),
])
def test_models_that_are_right_pass(keys: dict[str, bytes]) -> None:
    check(keys)


def test_a_template_is_named_by_its_key() -> None:
    with pytest.raises(RefusedContentError) as caught:
        check({"tokenizer.chat_template.rag": value(TEXT, HOSTILE["lipsum"])})
    assert caught.value.where == "x.gguf (tokenizer.chat_template.rag)"
