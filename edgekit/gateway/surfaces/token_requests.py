"""`/tokenize` and `/detokenize` request bodies to jobs; the fields are vLLM's."""

from __future__ import annotations

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    DETOKENIZE_TARGET,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    TOKENIZE_TARGET,
    Job,
    digest_input,
    find_model,
)
from edgekit.gateway.problems import bad_field

MAX_TOKENS = 1 << 18
MAX_TOKEN_ID = (1 << 31) - 1


def parse_tokenize(body: Body, appliance: Appliance) -> Job:
    """A `/tokenize` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    text = body.text("prompt", max_chars=MAX_TEXT_CHARS)
    special = body.flag("add_special_tokens", default=True)
    pieces = body.flag("return_token_strs", default=False)
    body.finish()
    return Job(
        endpoint="/tokenize",
        model=find_model(appliance, name),
        asked_name=name,
        stream=False,
        include_usage=False,
        target=TOKENIZE_TARGET,
        # a client's text never names control tokens: those are the chat template's
        body={"content": text, "add_special": special, "parse_special": False, "with_pieces": True},
        params={"add_special_tokens": special},
        prompt=digest_input(text),
        echo={"pieces": pieces},
    )


def parse_detokenize(body: Body, appliance: Appliance) -> Job:
    """A `/detokenize` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    one = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
    many = {"type": "array", "items": one, "maxItems": MAX_TOKENS}
    tokens = body.raw("tokens", many, required=True)
    if not isinstance(tokens, list) or len(tokens) > MAX_TOKENS:
        raise bad_field("tokens", f"must be at most {MAX_TOKENS} token ids")
    if not all(type(t) in (int, float) and 0 <= t <= MAX_TOKEN_ID and t == int(t) for t in tokens):
        raise bad_field("tokens", f"must be integers from 0 to {MAX_TOKEN_ID}")
    tokens = [int(token) for token in tokens]
    body.finish()
    return Job(
        endpoint="/detokenize",
        model=find_model(appliance, name),
        asked_name=name,
        stream=False,
        include_usage=False,
        target=DETOKENIZE_TARGET,
        body={"tokens": tokens},
        params={"tokens": len(tokens)},
        prompt=digest_input(tokens),
    )
