"""Tokens that ask a model for the text between two others ("fill in the middle"). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SPELLINGS = {
    "prefix": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>",
        "\u2581<PRE>", "<|code_prefix|>", "<|prefix|>",
    ),
    "suffix": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>",
        "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>",
    ),
    "middle": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>",
        "\u2581<MID>", "<|code_middle|>", "<|middle|>",
    ),
}
"""How vocabularies write them. Source: llama.cpp src/llama-vocab.cpp (special_fim_*), b11549."""

KEYS = {
    "prefix": ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"),
    "suffix": ("tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"),
    "middle": ("tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"),
}
"""GGUF keys that name them whatever their spelling, and the older names of those keys."""

KNOWN = {text.encode(): text for texts in SPELLINGS.values() for text in texts}


@dataclass(frozen=True, slots=True)
class InfillTokens:
    """Ids of the tokens before the text in front, the text behind, and the answer."""

    prefix: int
    suffix: int
    middle: int

    def prompt(self, before: str, after: str) -> list[int | str]:
        """The prompt, its texts still to be made into tokens; it begins as every prompt does.

        Order: prefix, suffix, middle, as llama.cpp's own `/infill` has it by default, which cuts
        both texts to what one batch holds. This prompt is not cut.
        """
        # only a text at the beginning gets the token that begins every prompt, if there is one
        return ["", self.prefix, before, self.suffix, after, self.middle]


def find_infill_tokens(
    ids: Mapping[str, object], vocabulary: Mapping[str, int], size: int
) -> InfillTokens | None:
    """The tokens of a model, or None where one of the three is missing.

    `ids` has the file's metadata by key, `vocabulary` the ids of the tokens in `KNOWN` that it has,
    `size` is the number of all tokens.
    """
    found = [
        _first((ids.get(key) for key in KEYS[name]), size)
        or _first((vocabulary.get(text) for text in SPELLINGS[name]), size)
        for name in SPELLINGS
    ]
    prefix, suffix, middle = (number[0] if number else -1 for number in found)
    return InfillTokens(prefix, suffix, middle) if min(prefix, suffix, middle) >= 0 else None


def _first(candidates: Iterable[object], size: int) -> tuple[int] | None:
    for number in candidates:
        if type(number) is int and 0 <= number < size:
            return (number,)
    return None
