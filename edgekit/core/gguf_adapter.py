"""What a LoRA adapter in a GGUF file must be before an engine may see it.

It names tensors of the model it was made for, and an engine multiplies by what it finds: every pair
is held against the model's own header. llama.cpp checks names and outer sizes, and for the
embedding not the inner one, which ends the process at the first request (src/llama-adapter.cpp,
src/llama-graph.cpp build_inp_embd, as of b11549).
"""

from __future__ import annotations

import math

from edgekit.core.adapter import MAX_RANKS, AdapterShape
from edgekit.core.gguf import GgufHeader, Tensor
from edgekit.errors import WeightsError

_A, _B = ".lora_a", ".lora_b"
_TYPES = ("F32", "F16", "BF16", "Q8_0")
"""What converters write; others are not multiplied by everywhere."""
_F32 = 6
_ALPHA = "adapter.lora.alpha"
_KEYS = frozenset(("adapter.type", _ALPHA, "adapter.lora.task_name", "adapter.lora.prompt_prefix"))
"""Beside `general.*`. Not an activated adapter's: it would change how a conversation is kept."""
_LOOKED_UP = "token_embd.weight"
"""Rows of it are looked up, so its pair is the other way round."""


def check_gguf_adapter(header: GgufHeader, base: GgufHeader, name: str) -> AdapterShape:
    """Check an adapter against the model it is for; what planning reads of it.

    `name` names the file. Raises WeightsError.
    """
    tensors = {tensor.name: tensor for tensor in base.tensors}
    problem = _kind_problem(header, base) or _key_problem(header) or _pair_problem(header, tensors)
    if problem is not None:
        raise WeightsError(f"not a usable adapter: {problem}", where=name, found=problem)
    second = [tensor for tensor in header.tensors if tensor.name.endswith(_B)]
    return AdapterShape(
        bytes=sum(tensor.size for tensor in header.tensors),
        rank=max(tensor.dimensions[0] for tensor in second),
        width=max(tensor.dimensions[1] for tensor in second),
    )


def _kind_problem(header: GgufHeader, base: GgufHeader) -> str | None:
    if header.text("general.type") != "adapter":
        return "it is no adapter by its own general.type"
    if header.text("adapter.type") != "lora":
        return "its adapter.type is not lora"
    found, needed = header.text("general.architecture"), base.text("general.architecture")
    if found != needed:
        return f"it is for the architecture {found[:40]!r}, the model is {needed[:40]}"
    return None


def _key_problem(header: GgufHeader) -> str | None:
    for key in header.types:
        if not key.startswith("general.") and key not in _KEYS:
            return f"the key {key[:60]!r} has no place in an adapter"
    alpha = header.metadata.get(_ALPHA)
    if header.types.get(_ALPHA) != _F32 or not isinstance(alpha, float):
        return f"{_ALPHA} is not a number of 32 bits"
    if not (math.isfinite(alpha) and 0 < alpha <= 1 << 20):
        return f"{_ALPHA} is not above 0"
    return None


def _pair_problem(header: GgufHeader, base: dict[str, Tensor]) -> str | None:
    """Each tensor is one of a pair, and each pair fits the tensor that it changes."""
    found = {tensor.name: tensor for tensor in header.tensors}
    if not found:
        return "it has no tensors"
    for tensor in header.tensors:
        stem, letter = tensor.name[: -len(_A)], tensor.name[-len(_A) :]
        if letter not in (_A, _B):
            return f"{tensor.name[:60]!r} is not one of a pair"
        if tensor.type not in _TYPES:
            return f"{tensor.name[:60]!r} is {tensor.type}, not one of {', '.join(_TYPES)}"
        if stem not in base:
            return f"the model has no tensor {stem[:60]!r}"
        if stem + (_B if letter == _A else _A) not in found:
            return f"{tensor.name[:60]!r} is half of a pair"
        if letter == _A and not _fits(base[stem], tensor, found[stem + _B]):
            return f"its pair for {stem[:60]!r} does not fit that tensor"
    return None


def _fits(changed: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether first and second, one after the other, map as the changed tensor does."""
    sizes, a, b = changed.dimensions, first.dimensions, second.dimensions
    if not len(sizes) == len(a) == len(b) or len(sizes) < 2:
        return False
    if sizes[2:] != a[2:] or sizes[2:] != b[2:]:
        return False
    inner, outer = (a[0], (b[1], a[1])) if changed.name == _LOOKED_UP else (a[1], (a[0], b[1]))
    return inner == b[0] and 1 <= inner <= MAX_RANKS["gguf"] and outer == sizes[:2]
