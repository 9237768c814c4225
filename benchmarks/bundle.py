"""`edgekit bundle`, the whole command, on new and on unchanged weights.

The recipe is that of the demo with two models of `--bytes` together: 73 % and 27 %. Frozen parts
and wheels are in the cache before, and their digests; those of new weights are not, and no volumes.
Without `--locked` the lock is made anew each time, from the same folder. Nothing is rehearsed: no
engine answers from random weights.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

from benchmarks.measure import Contender, Row, compare, python_child, shell

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "bundles/demo-small.toml"
FOLDER_LINE = 'source = { folder = "../models/demo/gguf" }'
BLOCK_ELEMENTS, BLOCK_BYTES = 32, 34
"""Of Q8_0."""

EMBEDDING_BYTES = 224
"""Six blocks, and what is left of 32."""

CHUNK_BYTES = 1 << 20
EDGEKIT = f'"{sys.executable}" -m edgekit'
UNCHANGED = f'{EDGEKIT} bundle "$1" --cache "$2" '
NEW = 'cp "$2/others.json" "$2/digests.json"; rm -f "$2/volumes.json"; ' + UNCHANGED
LOCKED = UNCHANGED + "--locked "
KEYS = f'{EDGEKIT} keys init "$1/developer" --root-out "$1/root.json" --insecure-developer'
SIGNED = (
    '--key "file:$3/developer" --trust-root "$3/root.json" --insecure-no-rehearsal --out "$4" '
    ">/dev/null"
)


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows for warm caches; the reference hashes the weights with SHA-384, then `cp -r`, `sync`."""
    place = folder / "bundle"
    if not place.exists():
        try:
            _prepare(place, total)
        except subprocess.CalledProcessError:
            print("the demo's engine cannot be fetched here: bundle skipped", file=sys.stderr)
            shutil.rmtree(place)
            return []
    # A kept place may be that of an older edgekit.
    for cache in ("cache", "cache-new"):
        again = place / "again"
        shutil.rmtree(again, ignore_errors=True)
        _run(UNCHANGED + SIGNED, place / "sha384.toml", place / cache, place, again)
    _forget_weights(place / "cache-new", place / "weights")
    weights = place / "weights"
    contenders = [
        python_child(
            "hash once, cp -r, sync", "hash-and-copy", weights, "{target}", reads=weights
        )
    ]
    contenders += [
        _bundle(f"edgekit bundle, {a}, new files", NEW, place, a, "cache-new")
        for a in ("sha256", "sha384")
    ]
    contenders += [
        _bundle("edgekit bundle, unchanged", UNCHANGED, place, "sha384", "cache"),
        _bundle("edgekit bundle --locked, unchanged", LOCKED, place, "sha384", "cache"),
    ]
    return compare(contenders, amount=total, rounds=rounds, folder=folder)


def _bundle(name: str, script: str, place: Path, algorithm: str, cache: str) -> Contender:
    recipe = place / f"{algorithm}.toml"
    return shell(
        name, script + SIGNED, recipe, place / cache, place, "{target}", reads=place / "weights"
    )


def _forget_weights(cache: Path, weights: Path) -> None:
    """Put what the cache remembers of other files into others.json beside it."""
    table = json.loads((cache / "digests.json").read_bytes())
    inside = f"{weights.resolve()}/"
    table["files"] = {p: item for p, item in table["files"].items() if not p.startswith(inside)}
    (cache / "others.json").write_text(json.dumps(table))


def _prepare(place: Path, total: int) -> None:
    weights = place / "weights"
    weights.mkdir(parents=True)
    _make_model(weights / "large.gguf", total * 73 // 100, seed=1)
    _make_model(weights / "small.gguf", total * 27 // 100, seed=2)
    for algorithm in ("sha384", "sha256"):
        (place / f"{algorithm}.toml").write_text(_recipe(weights, algorithm))
    _run(KEYS, place)
    # Frozen parts and wheels come into the cache, and a set whose volumes are known.
    _run(UNCHANGED + SIGNED, place / "sha384.toml", place / "cache", place, place / "first")
    shutil.copytree(place / "cache", place / "cache-new", symlinks=True)


def _recipe(weights: Path, algorithm: str) -> str:
    text = RECIPE.read_text("utf-8").replace('digest = "sha384"', f'digest = "{algorithm}"')
    terms = RECIPE.parent / "../models/demo/LICENSE"
    text = text.replace('"../models/demo/LICENSE"', f'"{terms.resolve()}"')
    head, model, tail = text.partition("[[model]]")
    model, engine, tail = (model + tail).partition("[[engine]]")
    models = []
    for name in ("large", "small"):
        one = model.replace("edgekit-demo-q8_0.gguf", f"{name}.gguf")
        one = one.replace('name = "edgekit-demo"', f'name = "{name}"')
        models.append(one.replace(FOLDER_LINE, f'source = {{ folder = "{weights}" }}'))
    return head + "".join(models) + engine + tail


def _make_model(path: Path, size: int, seed: int) -> None:
    """A GGUF file of about `size` bytes that has a right header and random weights."""
    blocks = size // BLOCK_BYTES
    header = _header(blocks * BLOCK_ELEMENTS)
    random = Random(seed)
    with path.open("wb") as file:
        file.write(header + bytes(-len(header) % 32) + bytes(EMBEDDING_BYTES))
        for start in range(0, blocks * BLOCK_BYTES, CHUNK_BYTES):
            file.write(random.randbytes(min(CHUNK_BYTES, blocks * BLOCK_BYTES - start)))


def _header(elements: int) -> bytes:
    """A small embedding, one large tensor, both Q8_0, and what a llama must say of itself."""
    numbers = {
        "general.alignment": 32,
        "llama.block_count": 1,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": 1024,
    }
    keys = [_text("general.architecture") + struct.pack("<I", 8) + _text("llama")]
    keys += [_text(key) + struct.pack("<II", 4, number) for key, number in numbers.items()]
    tokens = [_text(token) for token in ("a", "b", "</s>")]
    keys.append(_text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + b"".join(tokens))
    keys.append(_text("tokenizer.ggml.scores") + struct.pack("<IIQfff", 9, 6, 3, 0, 0, 0))
    tensors = _text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 3, 8, 0)
    tensors += _text("blk.0.ffn_up.weight") + struct.pack("<IQIQ", 1, elements, 8, EMBEDDING_BYTES)
    return b"GGUF" + struct.pack("<IQQ", 3, 2, len(keys)) + b"".join(keys) + tensors


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _run(script: str, *arguments: Path) -> None:
    subprocess.run(
        ["sh", "-ec", script, "sh", *map(str, arguments)],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=None,
    )
