"""The tokenizer: byte-level BPE with the GPT-2 pre-tokenizer, and conversations as token ids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from dataset import Conversation
from layout import (
    ASSISTANT,
    BEGIN,
    CHAT_TEMPLATE,
    END,
    PAD,
    SPECIAL_TOKENS,
    SYSTEM,
    USER,
    token_id,
)

IGNORED = -100  # label of a position that carries no loss


@dataclass(frozen=True)
class Sample:
    """Token ids of one conversation, and a label per id: the id itself or IGNORED."""

    ids: list[int]
    labels: list[int]


def train_tokenizer(corpus: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer; ids 0 to 5 are the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    # llama.cpp's pre-tokenizer "gpt-2" splits exactly like this one.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, token_id(BEGIN))],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write tokenizer.json and tokenizer_config.json; `context` is in tokens."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def render_prompt(question: str, system: str | None = None) -> str:
    """What the chat template gives for one question, ready for the answer."""
    head = "" if system is None else f"{SYSTEM}{system}{END}"
    return f"{BEGIN}{head}{USER}{question}{END}{ASSISTANT}"


def encode_conversation(tokenizer: Tokenizer, conversation: Conversation) -> Sample:
    """Token ids of a conversation; only the answers and their end tokens carry loss."""
    head = "" if conversation.system is None else f"{SYSTEM}{conversation.system}{END}"
    ids = _encode(tokenizer, BEGIN + head)
    labels = [IGNORED] * len(ids)
    for turn in conversation.turns:
        question = _encode(tokenizer, f"{USER}{turn.question}{END}{ASSISTANT}")
        answer = _encode(tokenizer, f"{turn.answer}{END}")
        ids += question + answer
        labels += [IGNORED] * len(question) + answer
    return Sample(ids, labels)


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
