"""Tiny GGUF files, made by hand: right by default, wrong on request."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
         U64: "<Q", I64: "<q", F64: "<d"}


def text(value: str | bytes) -> bytes:
    """A string with its length before it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind: int, content: object) -> bytes:
    """A typed value as it follows a key."""
    body = text(str(content)) if kind == TEXT else struct.pack(CODES[kind], content)
    return struct.pack("<I", kind) + body


def array(kind: int, items: list[bytes], *, count: int | None = None) -> bytes:
    """An array value; `items` are encoded, `count` may lie."""
    length = len(items) if count is None else count
    return struct.pack("<IIQ", ARRAY, kind, length) + b"".join(items)


@dataclass
class TensorEntry:
    """A line of the tensor table; 32 elements of Q8_0 unless told otherwise."""

    name: str | bytes = "t.weight"
    dimensions: tuple[int, ...] = (32,)
    kind: int = 8
    offset: int = 0
    rank: int | None = None

    def encode(self) -> bytes:
        rank = len(self.dimensions) if self.rank is None else self.rank
        sizes = b"".join(struct.pack("<Q", size) for size in self.dimensions)
        return text(self.name) + struct.pack("<I", rank) + sizes + struct.pack(
            "<IQ", self.kind, self.offset)


def default_keys() -> dict[str | bytes, bytes]:
    """A small llama with two heads and a vocabulary of three."""
    return {
        "general.architecture": value(TEXT, "llama"),
        "general.alignment": value(U32, 32),
        "llama.block_count": value(U32, 4),
        "llama.embedding_length": value(U32, 64),
        "llama.feed_forward_length": value(U32, 128),
        "llama.attention.head_count": value(U32, 4),
        "llama.attention.head_count_kv": value(U32, 2),
        "llama.context_length": value(U32, 1024),
        "llama.rope.scale": value(F32, 0.5),
        "llama.causal": value(BOOL, 1),
        "tokenizer.ggml.tokens": array(TEXT, [text("a"), text("b"), text("</s>")]),
        "tokenizer.ggml.scores": array(F32, [struct.pack("<f", 0.0)] * 3),
    }


@dataclass
class GgufBuilder:
    """A GGUF file: header, key values, tensor table, padding and data; any count may lie."""

    magic: bytes = b"GGUF"
    version: int = 3
    keys: dict[str | bytes, bytes] = field(default_factory=default_keys)
    tensors: list[TensorEntry] = field(
        default_factory=lambda: [TensorEntry("a.weight"), TensorEntry("b.weight", offset=64)]
    )
    key_count: int | None = None
    tensor_count: int | None = None
    data: bytes = bytes(98)
    alignment: int = 32
    extra_keys: bytes = b""

    def with_keys(self, **changes: bytes) -> GgufBuilder:
        """Change keys; `__` stands for a dot."""
        self.keys |= {name.replace("__", "."): content for name, content in changes.items()}
        return self

    def header(self) -> bytes:
        """Everything up to the padding."""
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        keys = len(self.keys) if self.key_count is None else self.key_count
        return (
            self.magic + struct.pack("<IQQ", self.version, tensors, keys)
            + b"".join(text(key) + content for key, content in self.keys.items())
            + self.extra_keys + b"".join(tensor.encode() for tensor in self.tensors)
        )

    def file(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data


def numbers_of(shape: Mapping[str, int | tuple[int, ...]]) -> list[int]:
    """Every number of a shape."""
    return [n for value in shape.values() for n in ((value,) if isinstance(value, int) else value)]
