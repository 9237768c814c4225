"""What a vision projector (mmproj) in a GGUF file must be before an engine may see it.

llama.cpp's vision code takes counts and sizes from the keys and indexes tensors by them; few are
held against each other there (tools/mtmd/clip.cpp as of b11549). Known are projectors that see one
square of fixed size: of these the memory was measured. Others are refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.core.gguf import GgufHeader, Tensor
from edgekit.errors import WeightsError

PROJECTORS = ("mlp", "gemma3")
"""llava's, and that of Gemma 3."""
MAX_SIDE = 2048
MAX_PATCH = 128
MAX_WIDTH = 1 << 14
MAX_LAYERS = 256
MAX_PATCHES = 1 << 14
_F32 = 6
_INTEGERS = (0, 1, 2, 3, 4, 5, 10, 11)
_RANGES = {
    "image_size": (1, MAX_SIDE),
    "patch_size": (1, MAX_PATCH),
    "embedding_length": (1, MAX_WIDTH),
    "feed_forward_length": (1, 1 << 17),
    "block_count": (1, MAX_LAYERS),
    "attention.head_count": (1, 1024),
    "projection_dim": (1, 1 << 17),
}
_FACTOR = "projector.scale_factor"
_LAYER = re.compile(r"v\.blk\.([0-9]{1,6})\.")
_KEYS = re.compile(r"general\.|clip\.(?!has_audio|audio)")


@dataclass(frozen=True, slots=True)
class VisionShape:
    """What planning reads: bytes of tensors, patches of an image, widths, and its tokens."""

    bytes: int
    patches: int
    patch: int
    width: int
    ffn: int
    tokens: int

    def table(self) -> dict[str, int]:
        """As part of a variant's shape."""
        return {
            "vision_bytes": self.bytes,
            "vision_patches": self.patches,
            "vision_patch": self.patch,
            "vision_width": self.width,
            "vision_ffn": self.ffn,
            "vision_tokens": self.tokens,
        }


def check_gguf_mmproj(header: GgufHeader, base: GgufHeader, name: str) -> VisionShape:
    """Check a projector against the model it is for; what planning reads of it.

    `name` names the file. Raises WeightsError.
    """
    problem = _kind_problem(header) or _range_problem(header) or _tensor_problem(header, base)
    if problem is not None:
        raise WeightsError(f"not a usable vision projector: {problem}", where=name, found=problem)
    return _shape(header)


def _number(header: GgufHeader, key: str) -> int:
    return header.integer(f"clip.vision.{key}")


def _projector(header: GgufHeader) -> str:
    return header.text("clip.projector_type") or header.text("clip.vision.projector_type")


def _kind_problem(header: GgufHeader) -> str | None:
    if header.text("general.architecture") != "clip":
        return "its general.architecture is not clip"
    if header.text("general.type", "mmproj") not in ("mmproj", "clip-vision"):
        return "it is no projector by its own general.type"
    for key in header.types:
        if _KEYS.match(key) is None:
            return f"the key {key[:60]!r} has no place in a vision projector"
    if header.metadata.get("clip.has_vision_encoder") is not True:
        return "it has no vision encoder"
    if _projector(header) not in PROJECTORS:
        known = ", ".join(PROJECTORS)
        return f"its projector is {_projector(header)[:40]!r}; known are {known}"
    return None


def _range_problem(header: GgufHeader) -> str | None:
    for key, (low, high) in _RANGES.items():
        full = f"clip.vision.{key}"
        value = header.metadata.get(full)
        if header.types.get(full) not in _INTEGERS or not low <= int(value or 0) <= high:
            return f"{full} is not a number from {low} to {high}"
    for key in ("image_mean", "image_std"):
        full = f"clip.vision.{key}"
        if header.array_lengths.get(full) != 3 or header.types[full] != _F32:
            return f"{full} is not three numbers of 32 bits"
    if header.types.get("clip.vision.attention.layer_norm_epsilon") != _F32:
        return "clip.vision.attention.layer_norm_epsilon is not a number of 32 bits"
    for key in ("feature_layer", "image_grid_pinpoints"):
        if f"clip.vision.{key}" in header.types:
            return f"clip.vision.{key} is there: several layers or squares are not known"
    side, patch = _number(header, "image_size"), _number(header, "patch_size")
    if side % patch or (side // patch) ** 2 > MAX_PATCHES:
        return f"an image of {side} is not up to {MAX_PATCHES} whole patches of {patch}"
    if _number(header, "embedding_length") % _number(header, "attention.head_count"):
        return "its width is not a whole number per head"
    return _factor_problem(header, side // patch)


def _factor_problem(header: GgufHeader, per_side: int) -> str | None:
    """Gemma 3 pools so many patches of each side into one token."""
    if _projector(header) != "gemma3":
        return None
    full = f"clip.vision.{_FACTOR}"
    factor = _number(header, _FACTOR)
    if header.types.get(full) not in _INTEGERS or not factor or per_side % factor:
        return f"{full} does not divide {per_side} patches"
    return None


def _tensor_problem(header: GgufHeader, base: GgufHeader) -> str | None:
    tensors = {tensor.name: tensor for tensor in header.tensors}
    layers = _number(header, "block_count")
    found = {int(m[1]) for name in tensors if (m := _LAYER.match(name)) is not None}
    if found != set(range(layers)):
        return f"clip.vision.block_count is {layers}, the tensors are of {len(found)} layers"
    text = base.integer(f"{base.text('general.architecture')}.embedding_length")
    for name, sizes in _needed(header, tensors, text).items():
        if name not in tensors or tensors[name].dimensions not in sizes:
            have = tensors[name].dimensions if name in tensors else "missing"
            return f"{name} is {have}, not {' or '.join(map(str, sizes))}"
    return None


Sizes = dict[str, tuple[tuple[int, ...], ...]]


def _needed(header: GgufHeader, tensors: dict[str, Tensor], text: int) -> Sizes:
    """Every tensor that the graph reads, with the sizes that it may have."""
    width, ffn = _number(header, "embedding_length"), _number(header, "feed_forward_length")
    patch = _number(header, "patch_size")
    patches = (_number(header, "image_size") // patch) ** 2
    whole = patches + ("v.class_embd" in tensors)
    sizes: Sizes = {
        "v.patch_embd.weight": ((patch, patch, 3, width),),
        "v.position_embd.weight": ((width, whole),),
    }
    for name in ("v.class_embd", "v.patch_embd.bias", "v.pre_ln.weight", "v.pre_ln.bias",
                 "v.post_ln.weight", "v.post_ln.bias"):
        if name in tensors:
            sizes[name] = ((width,),)
    for layer in range(_number(header, "block_count")):
        sizes |= _layer(f"v.blk.{layer}", width, ffn)
    return sizes | _projection(header, tensors, width, text)


def _layer(stem: str, width: int, ffn: int) -> Sizes:
    square = {f"{stem}.attn_{name}": width for name in ("q", "k", "v", "out")}
    sizes: Sizes = {f"{name}.weight": ((width, width),) for name in square}
    sizes |= {f"{name}.bias": ((width,),) for name in square}
    for norm in ("ln1", "ln2"):
        sizes |= {f"{stem}.{norm}.weight": ((width,),), f"{stem}.{norm}.bias": ((width,),)}
    # converters of older projectors call them the other way round
    rows = ((width, ffn), (ffn, width))
    sizes |= {f"{stem}.ffn_up.weight": rows, f"{stem}.ffn_down.weight": rows}
    return sizes | {f"{stem}.ffn_{name}.bias": ((width,), (ffn,)) for name in ("up", "down")}


def _projection(header: GgufHeader, tensors: dict[str, Tensor], width: int, text: int) -> Sizes:
    """What makes vectors of the model's own width."""
    if _projector(header) == "gemma3":
        return {
            "mm.input_projection.weight": ((text, width),),
            "mm.soft_emb_norm.weight": ((width,),),
            "v.post_ln.weight": ((width,),),
            "v.post_ln.bias": ((width,),),
        }
    first = tensors.get("mm.0.weight")
    hidden = first.dimensions[1] if first is not None and len(first.dimensions) == 2 else 0
    if not 0 < hidden <= 1 << 17:
        hidden = text
    return {
        "mm.0.weight": ((width, hidden),),
        "mm.0.bias": ((hidden,),),
        "mm.2.weight": ((hidden, text),),
        "mm.2.bias": ((text,),),
    }


def _shape(header: GgufHeader) -> VisionShape:
    patch = _number(header, "patch_size")
    per_side = _number(header, "image_size") // patch
    factor = _number(header, _FACTOR) if _projector(header) == "gemma3" else 1
    return VisionShape(
        bytes=sum(tensor.size for tensor in header.tensors),
        patches=per_side**2,
        patch=patch,
        width=_number(header, "embedding_length"),
        ffn=_number(header, "feed_forward_length"),
        tokens=(per_side // factor) ** 2,
    )
