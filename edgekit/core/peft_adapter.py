"""What a LoRA adapter as PEFT saves it must be before vLLM may see it.

Two files: `adapter_config.json`, of which every key that could change what is computed must be
switched off or known, and `adapter_model.safetensors`, of which every pair is held against the
tensor of the model that it changes. vLLM itself would take pickles, patterns that are regular
expressions, and pairs that fit nothing until a request uses them (vllm/lora, as of 0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.core.adapter import AdapterShape
from edgekit.core.planning.vllm_memory import LORA_RANKS, LORA_VOCABULARY
from edgekit.core.safetensors import SafetensorsHeader, SafetensorsTensor
from edgekit.errors import WeightsError

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_ROOT = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_TYPES = ("F32", "F16", "BF16")
_FREE = frozenset((
    "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core", "peft_version",
    "qalora_group_size", "revision",
))
"""Keys that say where it comes from or how it was trained."""
_ENDS = ("embed_tokens", "lm_head")
"""Modules of which vLLM does not start with a pair: the embedding and the logits."""
_INITS = (True, False, "gaussian", "orthogonal", "mica")
"""Ways to begin the training that leave the model's own weights as they are, and that have no table
of their own in the configuration.
"""
_KNOWN: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": _INITS,
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "use_rslora": (True, False),
}
_OFF: tuple[object, ...] = (None, False, [], {}, "")
MAX_ALPHA = 1 << 20


def check_peft_adapter(
    config: Any,
    header: SafetensorsHeader,
    base: Mapping[str, tuple[int, ...]],
    vocabulary: int,
    name: str,
) -> AdapterShape:
    """Check an adapter against the model it is for; what planning reads of it.

    `config` is its configuration, `base` the shapes of the model's tensors by name, `name` names
    the adapter's file of tensors. Raises WeightsError.
    """
    problem = _config_problem(config) or _pair_problem(header, base, config["r"])
    if problem is None and vocabulary > LORA_VOCABULARY:
        problem = f"vLLM takes none for a vocabulary of more than {LORA_VOCABULARY}"
    if problem is not None:
        raise WeightsError(f"not a usable adapter: {problem}", where=name, found=problem)
    second = [tensor for tensor in header.tensors if tensor.name.endswith(_B)]
    return AdapterShape(
        bytes=sum(tensor.size for tensor in header.tensors),
        rank=config["r"],
        width=max(tensor.shape[0] for tensor in second),
    )


def _config_problem(config: Any) -> str | None:
    if not isinstance(config, dict):
        return f"{CONFIG} is not a table"
    if config.get("peft_type") != "LORA":
        return "its peft_type is not LORA"
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= LORA_RANKS[-1]:
        return f"r is not a number from 1 to {LORA_RANKS[-1]}"
    if type(alpha) is bool or not (isinstance(alpha, int | float) and 0 < alpha <= MAX_ALPHA):
        return f"lora_alpha is not a number above 0 and at most {MAX_ALPHA}"
    modules = config.get("target_modules")
    if not modules or not (
        isinstance(modules, str)
        or (isinstance(modules, list) and all(isinstance(one, str) for one in modules))
    ):
        return "target_modules names no modules"  # vLLM does not load it without
    named = [modules] if isinstance(modules, str) else modules
    if any(one.rpartition(".")[2] in _ENDS for one in named):
        return f"its target_modules name one of {', '.join(_ENDS)}"
    for key, value in config.items():
        if key in _FREE or key in ("r", "lora_alpha", "target_modules"):
            continue
        # compared with the type: 0 and 0.0 are not False
        allowed = [(type(one), one) for one in _KNOWN.get(key, _OFF)]
        if (type(value), value) not in allowed:
            return f"its key {key[:60]!r} asks for something that edgekit does not know"
    return None


def _pair_problem(
    header: SafetensorsHeader, base: Mapping[str, tuple[int, ...]], rank: int
) -> str | None:
    """Each tensor is one of a pair, and each pair fits the tensor that it changes."""
    found = {tensor.name: tensor for tensor in header.tensors}
    for tensor in header.tensors:
        label = repr(tensor.name[:80])
        stem, letter = tensor.name[: -len(_A)], tensor.name[-len(_A) :]
        if letter not in (_A, _B) or not stem.startswith(_ROOT):
            return f"{label} is not one of a pair"
        if ".experts." in stem:
            return f"{label} is for experts"
        if stem.rpartition(".")[2] in _ENDS:
            return f"{label} is for the embedding or the logits"
        if tensor.dtype not in _TYPES:
            return f"{label} is {tensor.dtype}, not one of {', '.join(_TYPES)}"
        if stem + (_B if letter == _A else _A) not in found:
            return f"{label} is half of a pair"
        changed = base.get(f"{stem.removeprefix(_ROOT)}.weight")
        if changed is None:
            return f"the model has no tensor for {label}"
        if letter == _A and not _fits(changed, tensor, found[stem + _B], rank):
            return f"the pair of {label} does not fit the model's tensor, or is not of rank {rank}"
    return None


def _fits(
    changed: tuple[int, ...], first: SafetensorsTensor, second: SafetensorsTensor, rank: int
) -> bool:
    """Whether first and second, one after the other, map as the changed tensor does."""
    return len(changed) == 2 and (first.shape, second.shape) == (
        (rank, changed[1]), (changed[0], rank)
    )
