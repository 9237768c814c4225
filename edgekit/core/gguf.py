"""A bounded reader of GGUF headers: metadata and tensor table, never tensor data.

Engines have crashed, leaked and worse on lying headers (CVE-2026-7482, CVE-2025-53630), so every
count, length, offset and product is checked here before a native parser sees the file. Format:
ggml docs/gguf.md, versions 2 and 3, little endian; what ggml's own reader demands (ggml/src/
gguf.cpp: names below 64 bytes, tensors one after another in the table's order) is demanded too.
What the keys mean is judged in core/gguf_rules.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from edgekit.core.infill import KNOWN
from edgekit.errors import WeightsError

MAX_KEYS = 4096
MAX_TENSORS = 65_536
MAX_STRING_BYTES = 4 << 20
MAX_ARRAY_ITEMS = 4 << 20
MAX_HEADER_BYTES = 256 << 20
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 63
MAX_KEY_BYTES = 256
VOCABULARY = "tokenizer.ggml.tokens"
MAX_KEPT_ITEMS = 1024
"""Arrays of at most so many integers are kept: as many as a model may have layers."""

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_U32, _BOOL, _STRING, _ARRAY = 4, 7, 8, 9
_INTEGERS = frozenset((0, 1, 2, 3, 4, 5, 10, 11))

TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
"""ggml type number: name, elements per block, bytes per block (ggml.c type traits)."""


class ByteReader(Protocol):
    """Reads exactly `count` bytes or fewer at the end of the file."""

    def read(self, count: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, dimensions, type name, offset in the data part, and size in bytes."""

    name: str
    dimensions: tuple[int, ...]
    type: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A checked header. `metadata` holds scalars and strings; arrays are kept as their length.

    `types` has ggml's number of the type of every value, or of the items of an array. `numbers` has
    the items of short arrays of integers or booleans: what models say per layer. `marks` has
    the ids of the vocabulary's tokens for filling in text (`core.infill`).
    """

    metadata: dict[str, int | float | bool | str]
    array_lengths: dict[str, int]
    numbers: dict[str, tuple[int, ...]]
    types: dict[str, int]
    marks: dict[str, int]
    tensors: tuple[Tensor, ...]
    data_offset: int

    def text(self, key: str, default: str = "") -> str:
        """A string value, or the default."""
        value = self.metadata.get(key, default)
        return value if isinstance(value, str) else default

    def integer(self, key: str, default: int = 0) -> int:
        """A non-negative integer value, or the default."""
        value = self.metadata.get(key, default)
        return value if type(value) is int and value >= 0 else default

    def parameter_count(self) -> int:
        """Number of weights in all tensors."""
        total = 0
        for tensor in self.tensors:
            count = 1
            for dimension in tensor.dimensions:
                count *= dimension
            total += count
        return total


def read_gguf_header(file: ByteReader, file_size: int, name: str) -> GgufHeader:
    """Read and check a header; `file_size` in bytes is what every offset must stay inside.

    Raises WeightsError that names the file and what is wrong.
    """
    reader = _Reader(file, name)
    try:
        return _header(reader, file_size)
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise reader.fail(f"header is cut short or malformed ({error})") from error


class _Reader:
    def __init__(self, file: ByteReader, name: str) -> None:
        self._file = file
        self._name = name
        self.position = 0

    def fail(self, problem: str) -> WeightsError:
        return WeightsError(
            f"not a usable GGUF file: {problem}", where=self._name, found=f"at byte {self.position}"
        )

    def bytes(self, count: int) -> bytes:
        if self.position + count > MAX_HEADER_BYTES:
            raise self.fail("header is too large")
        data = self._file.read(count)
        if len(data) != count:
            raise self.fail("file ends inside the header")
        self.position += count
        return data

    def number(self, code: str) -> int:
        value: int = struct.unpack(code, self.bytes(struct.calcsize(code)))[0]
        return value

    def bounded(self, limit: int, what: str) -> int:
        value = self.number("<Q")
        if value > limit:
            raise self.fail(f"{what} {value} is above {limit}")
        return value

    def string(self, limit: int = MAX_STRING_BYTES) -> str:
        text = self.bytes(self.bounded(limit, "string length")).decode("utf-8")
        if "\0" in text and limit < MAX_STRING_BYTES:
            raise self.fail("a name holds a zero byte")
        return text


def _header(reader: _Reader, file_size: int) -> GgufHeader:
    if reader.bytes(4) != b"GGUF":
        raise reader.fail("wrong magic")
    version = reader.number("<I")
    if version not in (2, 3):
        raise reader.fail(f"version {version} is not 2 or 3")
    tensor_count = reader.bounded(MAX_TENSORS, "tensor count")
    key_count = reader.bounded(MAX_KEYS, "key count")
    metadata, arrays, types, marks = _metadata(reader, key_count)
    raw = [_tensor(reader) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if types.get("general.alignment", _U32) != _U32:
        raise reader.fail("alignment is not a number of 32 bits")
    if type(alignment) is not int or not 8 <= alignment <= 65536 or alignment & (alignment - 1):
        raise reader.fail("alignment is not a power of two from 8 to 65536")
    data_offset = -(-reader.position // alignment) * alignment
    _check_tensors(reader, raw, alignment, file_size - data_offset)
    lengths = {key: count for key, (count, _) in arrays.items()}
    numbers = {key: items for key, (_, items) in arrays.items() if items is not None}
    return GgufHeader(metadata, lengths, numbers, types, marks, tuple(raw), data_offset)


_Array = tuple[int, tuple[int, ...] | None]
"""Number of items, and the items when they are kept."""


def _metadata(
    reader: _Reader, count: int
) -> tuple[
    dict[str, int | float | bool | str], dict[str, _Array], dict[str, int], dict[str, int]
]:
    metadata: dict[str, int | float | bool | str] = {}
    arrays: dict[str, _Array] = {}
    types: dict[str, int] = {}
    marks: dict[str, int] = {}
    for _ in range(count):
        key = reader.string(MAX_KEY_BYTES)
        if key in types or not key:
            raise reader.fail(f"key {key[:60]!r} is empty or there twice")
        kind = reader.number("<I")
        if kind == _ARRAY:
            kept = marks if key == VOCABULARY else {}
            types[key], arrays[key] = _array(reader, kept)
        else:
            types[key], metadata[key] = kind, _scalar(reader, kind)
    return metadata, arrays, types, marks


def _scalar(reader: _Reader, kind: int) -> int | float | bool | str:
    if kind == _STRING:
        return reader.string()
    if kind == _BOOL:
        byte = reader.number("<B")
        if byte > 1:
            raise reader.fail(f"a boolean of {byte}")
        return byte == 1
    if kind not in _SCALARS:
        raise reader.fail(f"value type {kind} does not exist")
    value: int | float = struct.unpack(
        _SCALARS[kind], reader.bytes(struct.calcsize(_SCALARS[kind]))
    )[0]
    return value


def _array(reader: _Reader, marks: dict[str, int]) -> tuple[int, _Array]:
    """Check an array's items; their type, number and, if short and whole, values. No nesting.

    Where texts in `KNOWN` stand in it is noted in `marks`; the first of equals counts.
    """
    kind = reader.number("<I")
    count = reader.bounded(MAX_ARRAY_ITEMS, "array length")
    if kind == _STRING:
        for index in range(count):
            text = reader.bytes(reader.bounded(MAX_STRING_BYTES, "string length"))
            if text in KNOWN:
                marks.setdefault(KNOWN[text], index)
        return kind, (count, None)
    if kind != _BOOL and kind not in _SCALARS:
        raise reader.fail(f"array of type {kind}")
    code = "<B" if kind == _BOOL else _SCALARS[kind]
    data = reader.bytes(struct.calcsize(code) * count)
    if count > MAX_KEPT_ITEMS or (kind != _BOOL and kind not in _INTEGERS):
        return kind, (count, None)
    return kind, (count, struct.unpack(f"<{count}{code[1]}", data))


def _tensor(reader: _Reader) -> Tensor:
    name = reader.string(MAX_NAME_BYTES)
    rank = reader.number("<I")
    if not 1 <= rank <= MAX_DIMENSIONS or not name:
        raise reader.fail(f"tensor {name[:60]!r} has {rank} dimensions")
    dimensions = tuple(reader.bounded(1 << 40, "dimension") for _ in range(rank))
    kind = reader.number("<I")
    offset = reader.bounded(1 << 50, "tensor offset")
    if kind not in TENSOR_TYPES:
        raise reader.fail(f"tensor {name!r} has unknown type {kind}")
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = 1
    for dimension in dimensions:
        elements *= dimension
    if not 0 < elements < 1 << 50 or dimensions[0] % block:
        raise reader.fail(f"tensor {name!r} has an impossible shape for {type_name}")
    return Tensor(name, dimensions, type_name, offset, elements // block * block_bytes)


def _check_tensors(reader: _Reader, tensors: list[Tensor], alignment: int, data_bytes: int) -> None:
    """Names are unique; data lies inside the file, one tensor after another without a gap."""
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise reader.fail("two tensors have the same name")
    end = 0
    for tensor in tensors:
        if tensor.offset != -(-end // alignment) * alignment:
            raise reader.fail(
                f"tensor {tensor.name!r} overlaps another, is misaligned or leaves a gap"
            )
        end = tensor.offset + tensor.size
        if end > data_bytes:
            raise reader.fail(f"tensor {tensor.name!r} reaches beyond the end of the file")
    if tensors and data_bytes >= -(-end // alignment) * alignment + alignment:
        raise reader.fail(f"{data_bytes - end} bytes after the last tensor belong to none")
