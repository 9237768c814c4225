"""A bounded reader of safetensors headers, never of tensor data.

A file is eight bytes of header length, a JSON header, and the data of all tensors one after another
without a hole (huggingface/safetensors, "Format"). The same things are refused as by the reference
reader, and more: every count is bounded, and a name is given once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgekit.core.gguf import ByteReader
from edgekit.core.strict_json import parse_strict
from edgekit.errors import FormatError, WeightsError

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 65_536
MAX_NAME_CHARACTERS = 512
MAX_DIMENSIONS = 8
MAX_METADATA = 4096
MAX_METADATA_CHARACTERS = 1 << 20
MAX_SEPARATORS = 64 * MAX_TENSORS
"""Commas and colons of the header: bounds what its JSON can become in memory."""

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}
"""Name of a data type to bits per element (safetensors' Dtype)."""


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """A tensor's name, data type, shape in elements, offset in the data part, size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A checked header; tensors in the order of their data, `data_offset` in bytes."""

    tensors: tuple[SafetensorsTensor, ...]
    metadata: dict[str, str]
    data_offset: int

    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(tensor.name for tensor in self.tensors)

    def parameter_count(self) -> int:
        """Number of elements in all tensors; packed weights count as what they are packed in."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def read_safetensors_header(file: ByteReader, file_size: int, name: str) -> SafetensorsHeader:
    """Read and check a header; `file_size` in bytes is what the tensors must fill exactly.

    Raises WeightsError that names the file and what is wrong.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) != 8 or not 2 <= length <= min(MAX_HEADER_BYTES, file_size - 8):
        raise _fail(name, f"a header of {length} bytes in a file of {file_size} bytes")
    table = _table(file.read(length), length, name)
    metadata = _metadata(table.pop("__metadata__", {}), name)
    if not 1 <= len(table) <= MAX_TENSORS:
        raise _fail(name, f"{len(table)} tensors (1 to {MAX_TENSORS})")
    tensors = [_tensor(key, value, name) for key, value in table.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.size))
    _check_layout(tensors, file_size - 8 - length, name)
    return SafetensorsHeader(tuple(tensors), metadata, 8 + length)


def _table(data: bytes, length: int, name: str) -> dict[str, Any]:
    if len(data) != length:
        raise _fail(name, "the file ends inside its header")
    if data[:1] != b"{" or data.count(b",") + data.count(b":") > MAX_SEPARATORS:
        raise _fail(name, "the header does not begin with a brace, or has too many parts")
    try:
        value = parse_strict(data, max_bytes=MAX_HEADER_BYTES, what="its header", max_depth=4)
    except FormatError as error:
        raise _fail(name, f"{error.message} ({(error.found or '')[:100]})") from error
    if not isinstance(value, dict):
        raise _fail(name, "the header is not a table")
    return value


def _metadata(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_METADATA:
        raise _fail(name, "__metadata__ is not a table of texts")
    for text in value.values():
        if not isinstance(text, str) or len(text) > MAX_METADATA_CHARACTERS:
            raise _fail(name, "__metadata__ is not a table of texts")
    return value


def _tensor(key: str, value: Any, name: str) -> SafetensorsTensor:
    label = repr(key[:60])
    if not key or len(key) > MAX_NAME_CHARACTERS or "\0" in key or key.startswith("__"):
        raise _fail(name, f"tensor {label} has an unusable name")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _fail(name, f"tensor {label} is not given by dtype, shape and data_offsets")
    bits = DTYPE_BITS.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if bits is None:
        raise _fail(name, f"tensor {label} has an unknown data type")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _fail(name, f"tensor {label} has an impossible shape")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _fail(name, f"tensor {label} has impossible offsets")
    size = offsets[1] - offsets[0]
    if math.prod(shape) * bits != size * 8:
        raise _fail(name, f"tensor {label} has {size} bytes, which is not what its shape needs")
    return SafetensorsTensor(key, value["dtype"], tuple(shape), offsets[0], size)


def _is_sizes(value: Any) -> bool:
    """A list of numbers of elements or bytes."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 50 for n in value)


def _check_layout(tensors: list[SafetensorsTensor], data_bytes: int, name: str) -> None:
    """The tensors fill the data from its first to its last byte, each byte once."""
    end = 0
    for tensor in tensors:
        if tensor.offset != end:
            raise _fail(name, f"tensor {tensor.name[:60]!r} overlaps another or leaves a hole")
        end += tensor.size
    if end != data_bytes:
        raise _fail(name, f"tensors of {end} bytes in {data_bytes} bytes of data")


def _fail(name: str, problem: str) -> WeightsError:
    return WeightsError(f"not a usable safetensors file: {problem}", where=name, found=problem)
