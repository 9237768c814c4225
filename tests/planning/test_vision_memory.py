"""The plan's memory of a vision projector's graph beside the real engine's own report."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.core.carried_model import CarriedVariant
from edgekit.core.launch import serving_arguments
from edgekit.core.names import RelPath
from edgekit.core.planning.llama_memory import PICTURES_BYTES, vision_bytes
from edgekit.core.planning.llama_shape import LlamaShape
from edgekit.core.planning.values import MIB, Serving
from edgekit.system.weights import check_weights
from tests.planning.engine import LAUNCHER, _wait
from tests.support.gguf import TEXT, U32, GgufBuilder, TensorEntry, value
from tests.unit.test_mmproj import DEMO, KEYS, Sizes

TEXT_WIDTH = 256
"""Of the demo model."""


@dataclass(frozen=True)
class Eye:
    """A projector's shape; with a `factor` it is Gemma 3's."""

    side: int
    patch: int
    width: int
    ffn: int
    heads: int
    factor: int = 0

    def sizes(self) -> Sizes:
        patches = (self.side // self.patch) ** 2
        sizes: Sizes = {
            "v.patch_embd.weight": (self.patch, self.patch, 3, self.width),
            "v.position_embd.weight": (self.width, patches),
        }
        for layer in range(2):
            stem = f"v.blk.{layer}"
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                sizes[f"{stem}.{name}.weight"] = (self.width, self.width)
                sizes[f"{stem}.{name}.bias"] = (self.width,)
            for name in ("ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "ffn_down.bias"):
                sizes[f"{stem}.{name}"] = (self.width,)
            sizes[f"{stem}.ffn_up.weight"] = (self.width, self.ffn)
            sizes[f"{stem}.ffn_up.bias"] = (self.ffn,)
            sizes[f"{stem}.ffn_down.weight"] = (self.ffn, self.width)
        if self.factor:
            return sizes | {
                "mm.input_projection.weight": (TEXT_WIDTH, self.width),
                "mm.soft_emb_norm.weight": (self.width,), "v.post_ln.weight": (self.width,),
                "v.post_ln.bias": (self.width,), "v.patch_embd.bias": (self.width,),
            }
        return sizes | {
            "mm.0.weight": (self.width, TEXT_WIDTH), "mm.0.bias": (TEXT_WIDTH,),
            "mm.2.weight": (TEXT_WIDTH, TEXT_WIDTH), "mm.2.bias": (TEXT_WIDTH,),
        }

    def write(self, path: Path) -> None:
        keys = {**KEYS, **{f"clip.vision.{key}": value(U32, number) for key, number in {
            "image_size": self.side, "patch_size": self.patch, "embedding_length": self.width,
            "feed_forward_length": self.ffn, "block_count": 2,
            "attention.head_count": self.heads}.items()}}
        if self.factor:
            keys["clip.projector_type"] = value(TEXT, "gemma3")
            keys["clip.vision.projector.scale_factor"] = value(U32, self.factor)
        entries, offset = [], 0
        for name, size in self.sizes().items():
            entries.append(TensorEntry(name, size, 0, offset))
            offset += -(-4 * math.prod(size) // 32) * 32
        path.write_bytes(GgufBuilder(keys=keys, tensors=entries, data=bytes(offset)).file())


EYES = [
    Eye(336, 14, 256, 1024, 4), Eye(336, 14, 1024, 4096, 16), Eye(336, 14, 1024, 512, 16),
    Eye(672, 14, 256, 1024, 4), Eye(224, 32, 128, 256, 2), Eye(448, 14, 512, 2048, 8),
    Eye(896, 14, 256, 1024, 4, 4), Eye(448, 14, 512, 2048, 8, 2),
]


@pytest.mark.parametrize("eye", EYES, ids=str)
def test_the_graph_is_at_most_what_was_planned_and_more_than_half(
    eye: Eye, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = tmp_path / "v.gguf", tmp_path / "log"
    eye.write(path)
    files = {RelPath("m.gguf"): DEMO, RelPath("v.gguf"): path}
    header = check_weights("gguf", files, RelPath("v.gguf"))
    variant = CarriedVariant("gguf", "Q8_0", tuple(files), 9, tuple(header.shape.items()))
    shape = LlamaShape(variant)
    graph = vision_bytes(shape, slots=1) - shape.number("vision_bytes") - PICTURES_BYTES
    with log.open("wb") as output:
        engine = subprocess.Popen(
            [sys.executable, str(LAUNCHER), "--model", str(DEMO), "--alias", "m", "--socket",
             str(tmp_path / "e.sock"), "--mmproj", str(path),
             *serving_arguments(Serving(1, 1024, 1, 512, "f16"))],
            stdout=output, stderr=output)
    try:
        _wait(engine, tmp_path / "e.sock", log)
    finally:
        engine.kill()
        engine.wait()
    lines = log.read_text("utf-8", "replace")
    match = re.search(r"reserve_compute_meta: +CPU compute buffer size = +([\d.]+) MiB", lines)
    assert match is not None, lines[-2000:]
    share = float(match[1]) * MIB / graph
    with capsys.disabled():
        print(f"\n{eye}: planned {graph / MIB:.2f} MiB, took {match[1]} MiB, {share:.2f}")
    assert 0.5 < share <= 1
