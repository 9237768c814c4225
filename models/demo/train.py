"""Train the demo model on data/questions.toml and write the folder weights/.

Needs only a processor. The seed fixes the data and the start; the last bits of the weights
can still differ between processors, so check.py judges answers, not bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from dataset import (
    Conversation,
    Pair,
    Questions,
    draw_conversation,
    load_questions,
    tokenizer_corpus,
)
from layout import BEGIN, END, PAD, QUESTIONS, WEIGHTS, token_id
from llama import Llama, Shape, hf_config
from tokens import IGNORED, Sample, encode_conversation, save_tokenizer, train_tokenizer

POOL = 512  # conversations sorted by length together, so that batches need little padding
EVAL_ROWS = 128
# The finished weights must answer alike however an engine rounds.
EVAL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def parse_arguments() -> argparse.Namespace:
    """Command line; sizes of batches in tokens, times in steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps")
    parser.add_argument("--batch-tokens", type=int, default=3072, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def collate(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Ids and labels, each (rows, longest), padded on the right."""
    pad = token_id(PAD)
    width = max(len(sample.ids) for sample in samples)
    ids = [sample.ids + [pad] * (width - len(sample.ids)) for sample in samples]
    labels = [sample.labels + [IGNORED] * (width - len(sample.ids)) for sample in samples]
    return torch.tensor(ids), torch.tensor(labels)


def batches(
    questions: Questions, tokenizer: Tokenizer, tokens: int, draw: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of about `tokens` tokens, padding included."""
    while True:
        conversations = [draw_conversation(questions, draw) for _ in range(POOL)]
        pool = [encode_conversation(tokenizer, conversation) for conversation in conversations]
        groups = split_by_tokens(sorted(pool, key=lambda sample: len(sample.ids)), tokens)
        draw.shuffle(groups)
        for group in groups:
            yield collate(group)


def split_by_tokens(samples: list[Sample], tokens: int) -> list[list[Sample]]:
    """Runs of samples, sorted by length, of at most `tokens` padded tokens each."""
    groups: list[list[Sample]] = [[]]
    for sample in samples:
        if groups[-1] and (len(groups[-1]) + 1) * len(sample.ids) > tokens:
            groups.append([])
        groups[-1].append(sample)
    return groups


def answer_logits(model: Llama, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (answer tokens, vocab) and the right next tokens, for answer positions only."""
    wanted = labels[:, 1:]
    hidden = model(ids[:, :-1])[wanted != IGNORED]
    return model.logits(hidden), wanted[wanted != IGNORED]


def rate_at(step: int, steps: int, highest: float) -> float:
    """Learning rate: up in the first 5 percent, then down to zero along a cosine."""
    warm = max(1, steps // 20)
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def make_optimizer(model: Llama) -> torch.optim.AdamW:
    """AdamW with decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-9)


def fit(model: Llama, data: Iterator[tuple[Tensor, Tensor]], steps: int, rate: float) -> None:
    """Train for `steps` steps; a line of progress on stderr every 50."""
    optimizer = make_optimizer(model)
    model.train()
    begun = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, rate)
        logits, wanted = answer_logits(model, *next(data))
        loss = F.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            seconds = time.monotonic() - begun
            print(f"step {step} loss {loss.item():.4f} after {seconds:.0f} s", file=sys.stderr)


@torch.no_grad()
def wrong_pairs(model: Llama, tokenizer: Tokenizer, pairs: list[Pair]) -> list[Pair]:
    """Pairs whose greedy answer is not the right one.

    Greedy decoding gives exactly the right answer if and only if each of its tokens is the
    most likely one after the tokens before it; so one pass decides and nothing is generated.
    """
    model.eval()
    wrong = []
    for at in range(0, len(pairs), EVAL_ROWS):
        part = pairs[at : at + EVAL_ROWS]
        samples = [encode_conversation(tokenizer, Conversation(None, (p,))) for p in part]
        ids, labels = collate(samples)
        wanted = labels[:, 1:]
        best = model.logits(model(ids[:, :-1])).argmax(dim=-1)
        right = ((best == wanted) | (wanted == IGNORED)).all(dim=1)
        wrong += [pair for pair, good in zip(part, right.tolist(), strict=True) if not good]
    return wrong


def report(model: Llama, tokenizer: Tokenizer, questions: Questions) -> None:
    """Print the share of right answers for each number format."""
    for dtype in EVAL_DTYPES:
        model.to(dtype)
        for name, pairs in (
            ("trained", questions.trained()),
            ("held out", list(questions.held_out)),
        ):
            wrong = wrong_pairs(model, tokenizer, pairs)
            share = 100 * (1 - len(wrong) / len(pairs))
            print(f"{dtype} {name}: {share:.2f} % of {len(pairs)}")
            for pair in wrong if dtype == torch.float32 else []:
                print(f"  {pair.group}: {pair.question}")


def save_weights(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything LlamaForCausalLM and its tokenizer need; weights as BF16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it private
    begin, end, pad = (token_id(token) for token in (BEGIN, END, PAD))
    write_json(folder / "config.json", hf_config(model.shape, begin, end, pad))
    generation: dict[str, object] = {
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
        "do_sample": False,
        "max_new_tokens": 64,
    }
    write_json(folder / "generation_config.json", generation)
    save_tokenizer(tokenizer, folder, model.shape.context)


def write_json(path: Path, value: dict[str, object]) -> None:
    """Write a JSON object, two spaces deep, with a newline at the end."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train, save and report."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    questions = load_questions(QUESTIONS)
    tokenizer = train_tokenizer(tokenizer_corpus(questions), Shape().vocab)
    model = Llama(Shape(vocab=tokenizer.get_vocab_size()))
    print(f"parameters: {sum(p.numel() for p in model.parameters()):,}")
    draw = random.Random(arguments.seed)
    data = batches(questions, tokenizer, arguments.batch_tokens, draw)
    fit(model, data, arguments.steps, arguments.rate)
    model.to(torch.bfloat16)
    save_weights(model, tokenizer, arguments.out)
    report(model, tokenizer, questions)


if __name__ == "__main__":
    main()
