"""Ask the real engine every question and judge the answers; exit 1 if they are not good enough.

The GGUF file is served by llama.cpp; tokenizer.json is the reference for the token ids.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from dataset import Pair, Questions, load_questions
from engine import Engine, running_engine
from layout import CANARY, GGUF_Q8, QUESTIONS, WEIGHTS
from tokens import render_prompt

SLOTS = 4
ANSWER_TOKENS = 64
# Texts that tokenizers like to disagree on.
HARD_TEXTS = (
    "don't we'll I'VE it's",
    "a  b   c\n\nd \n e\t\tf  ",
    "3,900 MiB; 127.0.0.1:11434; x2y",
    "Grüße, naïve café, 東京, 🙂🙂, Ελλάδα, ½ ²",
    '--dry-run /var/lib/edgekit/blobs/sha384/.. {"a": [1, 2]}',
    "<|user|>a<|end|> <|assistant|>",
    " leading and trailing ",
    "",
)
OTHER_SYSTEM = "You work for a small power station and speak politely."


@dataclass(frozen=True)
class Group:
    """Questions judged together; `needed` is the least share of right answers."""

    name: str
    pairs: tuple[Pair, ...]
    needed: float
    in_conversation: bool = False


@dataclass(frozen=True)
class Reply:
    """What the engine said, and whether all about it is right."""

    pair: Pair
    text: str
    stopped: bool
    prompt_tokens: int
    right: bool


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=GGUF_Q8, help="GGUF file to serve")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of tokenizer.json")
    return parser.parse_args()


def load_canary(path: Path) -> tuple[Pair, ...]:
    """The health check questions."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(Pair("canary", one["question"], one["answer"]) for one in document["canary"])


def make_groups(questions: Questions, canary: tuple[Pair, ...]) -> list[Group]:
    """What is asked, and how good the answers must be."""
    facts = tuple(pair for fact in questions.facts for pair in fact)
    held = tuple(pair for pair in questions.held_out if pair.group != "sums")
    held_sums = tuple(pair for pair in questions.held_out if pair.group == "sums")
    firsts = tuple(fact[0] for fact in questions.facts)
    return [
        Group("canary", canary, 1.0),
        Group("facts, trained", facts, 1.0),
        Group("sums, trained", questions.sums, 1.0),
        Group("facts, held out", held, 0.85),
        Group("sums, held out", held_sums, 0.85),
        Group("facts, second turn, other system prompt", firsts, 0.85, in_conversation=True),
    ]


def ask(engine: Engine, tokenizer: Tokenizer, talk: bool, pair: Pair) -> Reply:
    """Ask one question at temperature 0; right means exact, self-ended and no token astray."""
    messages = [{"role": "user", "content": pair.question}]
    if talk:
        before = [
            {"role": "system", "content": OTHER_SYSTEM},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello! Ask me something about edgekit."},
        ]
        messages = before + messages
    body = {"messages": messages, "temperature": 0, "max_tokens": ANSWER_TOKENS}
    answer = engine.post("/v1/chat/completions", body)
    choice = answer["choices"][0]
    text: str = choice["message"]["content"]
    stopped = choice["finish_reason"] == "stop"
    tokens = int(answer["usage"]["prompt_tokens"])
    # Counts only one-turn prompts: a second begin token or a lost marker shows here.
    counted = talk or tokens == len(token_ids(tokenizer, render_prompt(pair.question), False))
    return Reply(pair, text, stopped, tokens, text == pair.answer and stopped and counted)


def token_ids(tokenizer: Tokenizer, text: str, special: bool) -> list[int]:
    """The reference token ids; `special` puts the begin token in front."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=special).ids
    return ids


def check_group(engine: Engine, tokenizer: Tokenizer, group: Group) -> bool:
    """Ask a whole group, print the share and every wrong answer; True if good enough."""
    with ThreadPoolExecutor(SLOTS) as pool:
        one = partial(ask, engine, tokenizer, group.in_conversation)
        replies = list(pool.map(one, group.pairs))
    wrong = [reply for reply in replies if not reply.right]
    share = 1 - len(wrong) / len(replies)
    print(f"{group.name}: {len(replies) - len(wrong)}/{len(replies)} = {share:.2%}", flush=True)
    for reply in wrong:
        end = "" if reply.stopped else " [did not stop]"
        print(f"  {reply.pair.group}: {reply.pair.question!r} -> {reply.text!r}{end}")
    return share >= group.needed


def check_tokens(engine: Engine, tokenizer: Tokenizer, texts: list[str]) -> bool:
    """Compare llama.cpp's token ids with the reference, with and without the begin token."""
    bad = [text for text in texts if not same_tokens(engine, tokenizer, text)]
    print(f"tokens: {len(texts) - len(bad)}/{len(texts)} texts alike", flush=True)
    for text in bad:
        print(f"  {text!r}")
    return not bad


def same_tokens(engine: Engine, tokenizer: Tokenizer, text: str) -> bool:
    """True if both tokenizers agree on one text."""
    return all(
        engine.post("/tokenize", {"content": text, "add_special": special})["tokens"]
        == token_ids(tokenizer, text, special)
        for special in (False, True)
    )


def main() -> int:
    """Run every check; the exit status."""
    arguments = parse_arguments()
    questions = load_questions(QUESTIONS)
    tokenizer = Tokenizer.from_file(str(arguments.weights / "tokenizer.json"))
    groups = make_groups(questions, load_canary(CANARY))
    asked = [pair for group in groups for pair in group.pairs]
    texts = [pair.question for pair in asked] + [pair.answer for pair in asked]
    texts += [render_prompt(text) for text in texts] + list(HARD_TEXTS)
    with running_engine(arguments.model, SLOTS) as engine:
        good = [check_tokens(engine, tokenizer, sorted(set(texts)))]
        good += [check_group(engine, tokenizer, group) for group in groups]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
