"""Questions and answers, and the conversations made from them."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIXES = (
    "Please tell me: ",
    "Can you tell me: ",
    "I have a question. ",
    "Question: ",
    "Quick question: ",
    "Hi, ",
    "Hello! ",
    "Excuse me, ",
    "And ",
    "So, ",
    "Please, ",
)
SUFFIXES = (" Thanks.", " Thank you!", " please", " Please answer briefly.", " ?", "??", "\n", " ")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SUM_SHARE = 0.2  # of all turns: a hundred sums need more room than one fact
SYSTEM_SHARE = 0.4  # of all conversations


@dataclass(frozen=True)
class Pair:
    """One question with its one right answer; `group` names the fact."""

    group: str
    question: str
    answer: str


@dataclass(frozen=True)
class Questions:
    """What questions.toml holds, with the sums written out."""

    facts: tuple[tuple[Pair, ...], ...]
    sums: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    system_prompts: tuple[str, ...]

    def trained(self) -> list[Pair]:
        """Every pair the model is trained on, facts first."""
        return [pair for fact in self.facts for pair in fact] + list(self.sums)


@dataclass(frozen=True)
class Conversation:
    """An optional system prompt and at least one turn."""

    system: str | None
    turns: tuple[Pair, ...]


def load_questions(path: Path) -> Questions:
    """Read questions.toml; `KeyError` if a field is missing."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return Questions(
        facts=tuple(tuple(_pairs(fact, "questions")) for fact in document["fact"]),
        sums=tuple(_sums(document["sums"], "questions")),
        held_out=tuple(
            [pair for fact in document["fact"] for pair in _pairs(fact, "held_out")]
            + _sums(document["sums"], "held_out")
        ),
        system_prompts=tuple(document["system_prompts"]),
    )


def _pairs(fact: dict[str, Any], field: str) -> list[Pair]:
    return [Pair(fact["id"], question, fact["answer"]) for question in fact[field]]


def _sums(sums: dict[str, Any], field: str) -> list[Pair]:
    digits = range(sums["largest"] + 1)
    return [
        Pair("sums", text.format(a=a, b=b), sums["answer"].format(a=a, b=b, c=a + b))
        for a in digits
        for b in digits
        for text in sums[field]
    ]


def tokenizer_corpus(questions: Questions) -> list[str]:
    """Every text the tokenizer should know, also in lower case."""
    texts = list(questions.system_prompts) + list(PREFIXES) + list(SUFFIXES)
    for pair in questions.trained():
        texts += [pair.question, pair.answer, pair.question.lower()]
    return texts


def draw_conversation(questions: Questions, draw: random.Random) -> Conversation:
    """One random conversation, mostly of one turn, at most of sixteen."""
    longest = draw.choices((1, 4, 8, 16), weights=(60, 30, 8, 2))[0]
    turns = tuple(_draw_turn(questions, draw) for _ in range(draw.randint(1, longest)))
    return Conversation(_draw_system(questions, draw), turns)


def _draw_turn(questions: Questions, draw: random.Random) -> Pair:
    if draw.random() < SUM_SHARE:
        pair = draw.choice(questions.sums)
    else:
        pair = draw.choice(draw.choice(questions.facts))
    return Pair(pair.group, _vary(pair.question, draw), pair.answer)


def _draw_system(questions: Questions, draw: random.Random) -> str | None:
    if draw.random() > SYSTEM_SHARE:
        return None
    if draw.random() < 0.6:
        return draw.choice(questions.system_prompts)
    # Shuffled words: the model must not care what a system prompt says.
    words = " ".join(draw.choice(questions.trained()).question for _ in range(2)).split()
    draw.shuffle(words)
    return " ".join(words)


def _vary(question: str, draw: random.Random) -> str:
    """The question as another person would type it: case, punctuation, courtesy, typos."""
    text = question
    if draw.random() < 0.5:
        text = text.rstrip("?.!")
    if len(text.split()) > 2 and draw.random() < 0.3:
        text = draw.choice(PREFIXES) + text
    if draw.random() < 0.15:
        text += draw.choice(SUFFIXES)
    if draw.random() < 0.4:
        text = text.lower()
    elif draw.random() < 0.05:
        text = text.upper()
    if draw.random() < 0.3:
        text = _mistype(text, draw)
    return text


def _mistype(text: str, draw: random.Random) -> str:
    """Damage one word of four or more letters; digits are never touched."""
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not places:
        return text
    at = draw.choice(places)
    words[at] = _damage(words[at], draw)
    return " ".join(words)


def _damage(word: str, draw: random.Random) -> str:
    at = draw.randrange(len(word) - 1)
    kind = draw.randrange(4)
    if kind == 0:  # two letters swapped
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:  # one letter lost
        return word[:at] + word[at + 1 :]
    if kind == 2:  # one letter twice
        return word[:at] + word[at] + word[at:]
    return word[:at] + draw.choice(LETTERS) + word[at + 1 :]
