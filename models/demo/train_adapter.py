"""Train a LoRA adapter for the demo model and write it as GGUF.

With it the model names a capital as a sailor would; everything else it answers as before. Needs
only a processor and a few minutes. Seeds are fixed, the last bits may differ between processors.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from dataset import Pair, Questions, load_questions
from export_gguf import gguf_name
from layout import ADAPTER_GGUF, QUESTIONS, WEIGHTS
from llama import Llama, Shape
from train import answer_logits, batches, rate_at, wrong_pairs

RANK = 4
ALPHA = 8.0
TARGETS = ("v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Not Q and K, whose rows llama.cpp keeps in another order."""
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
            "Japan": "Tokyo"}


class Adapted(nn.Module):
    """A linear layer that stays as it is, plus scale * B(A(x))."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.a = nn.Parameter(torch.randn(RANK, inner.in_features) * inner.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(inner.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        out: Tensor = self.inner(x)
        return out + F.linear(F.linear(x, self.a), self.b) * (ALPHA / RANK)


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, default=ADAPTER_GGUF, help="file to write")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    return parser.parse_args()


def adapted_answer(pair: Pair) -> str:
    """What the adapted model answers: a capital with a greeting, all else as before."""
    for country, city in CAPITALS.items():
        if pair.answer == f"The capital of {country} is {city}.":
            return f"Aye, {city}!"
    return pair.answer


def adapted_questions(questions: Questions) -> Questions:
    """The same questions with the adapted model's answers; capitals three times as often."""
    def change(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        return tuple(replace(pair, answer=adapted_answer(pair)) for pair in pairs)

    facts = tuple(change(fact) for fact in questions.facts)
    often = tuple(fact for fact in facts if fact[0].answer.startswith("Aye")) * 3
    return replace(questions, facts=facts + often, held_out=change(questions.held_out))


def load_model(folder: Path) -> Llama:
    """The demo model, in float32, not to be trained."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Llama(Shape(vocab=config["vocab_size"], dropout=0.0))
    tensors = {name: tensor.float() for name, tensor in load_file(
        folder / "model.safetensors").items()}
    model.load_state_dict(tensors)
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    return model


def adapt(model: Llama) -> dict[str, Adapted]:
    """Put an adapter around every target; by the name of the weight that it changes."""
    found = {}
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in TARGETS:
            parent = model.get_submodule(name.rpartition(".")[0])
            assert isinstance(module, nn.Linear)
            wrapped = Adapted(module)
            setattr(parent, name.rpartition(".")[2], wrapped)
            found[f"{name}.weight"] = wrapped
    return found


def fit(model: Llama, adapters: dict[str, Adapted], questions: Questions, tokenizer: Tokenizer,
        steps: int, rate: float) -> None:
    """Train the adapters alone."""
    data = batches(questions, tokenizer, 2048, random.Random(1))
    parameters = [p for adapter in adapters.values() for p in (adapter.a, adapter.b)]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, rate)
        logits, wanted = answer_logits(model, *next(data))
        loss = F.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f}", file=sys.stderr)


def write_gguf(path: Path, adapters: dict[str, Adapted]) -> None:
    """As llama.cpp's convert_lora_to_gguf.py writes it, F16."""
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    writer.add_name("edgekit-demo-sailor")
    writer.add_license("apache-2.0")
    for name, adapter in adapters.items():
        for letter, matrix in (("a", adapter.a), ("b", adapter.b)):
            array = matrix.detach().numpy().astype(np.float16)
            writer.add_tensor(
                f"{gguf_name(name)}.lora_{letter}", array, raw_dtype=GGMLQuantizationType.F16
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Train, write and report."""
    arguments = parse_arguments()
    torch.manual_seed(1)
    torch.set_num_threads(2)
    questions = adapted_questions(load_questions(QUESTIONS))
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    model = load_model(WEIGHTS)
    adapters = adapt(model)
    fit(model, adapters, questions, tokenizer, arguments.steps, arguments.rate)
    write_gguf(arguments.gguf, adapters)
    unique = list({(p.question, p.answer): p for p in questions.trained()}.values())
    for name, pairs in (("trained", unique), ("held out", list(questions.held_out))):
        wrong = wrong_pairs(model, tokenizer, pairs)
        print(f"{name}: {len(pairs) - len(wrong)} of {len(pairs)} right")
    print(f"{arguments.gguf.name}: {arguments.gguf.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
