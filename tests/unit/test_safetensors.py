"""The safetensors reader: what is right is read; tests/unit/test_hostile_models.py has the lies."""

from __future__ import annotations

import io
import json
import time

import pytest

from edgekit.core import safetensors as reader
from edgekit.core.safetensors import SafetensorsHeader, read_safetensors_header
from edgekit.errors import WeightsError
from tests.support.safetensors import safetensors, tensor


def read(data: bytes, size: int | None = None) -> SafetensorsHeader:
    return read_safetensors_header(
        io.BytesIO(data), len(data) if size is None else size, "x.safetensors")


def test_a_good_file_is_read() -> None:
    header = read(safetensors())
    assert [(t.name, t.dtype, t.shape, t.offset, t.size) for t in header.tensors] == [
        ("a", "F32", (8,), 0, 32), ("b", "F32", (8,), 32, 32)]
    assert header.metadata == {"format": "pt"}
    assert header.names() == {"a", "b"}
    assert header.parameter_count() == 16
    assert len(safetensors()) - header.data_offset == 64


@pytest.mark.parametrize("table", [
    {"b": tensor(32, 64), "a": tensor()},
    {"a": tensor(0, 64, shape=[4, 4])},
    {"a": tensor(0, 4, shape=[]), "b": tensor(4, 64, "U8", [60])},
    {"a": tensor(0, 0, shape=[0]), "b": tensor(0, 64, shape=[16]), "c": tensor(64, 64, shape=[0])},
    {"a": tensor(0, 64, "F4", [128])},
    {"a": tensor(0, 64, "F8_E4M3", [64])},
    {"a": tensor(0, 48, "F6_E2M3", [64]), "b": tensor(48, 64, "BF16", [8])},
])
def test_other_forms_that_are_right(table: dict[str, object]) -> None:
    header = read(safetensors(table))
    assert header.names() == set(table)


def test_spaces_may_follow_the_header() -> None:
    raw = json.dumps({"a": tensor(0, 64, shape=[16])}).encode()
    assert read(safetensors(raw=raw + b" " * 7)).parameter_count() == 16


def test_a_file_cut_short_anywhere_is_refused() -> None:
    good = safetensors()
    for length in range(len(good)):
        with pytest.raises(WeightsError) as caught:
            read(good[:length])
        assert caught.value.where == "x.safetensors"


def test_every_changed_bit_of_the_header_is_judged() -> None:
    good = safetensors()
    header = read(good)
    for position in range(header.data_offset * 8):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        try:
            changed = read(bytes(data))
        except WeightsError:
            continue
        assert sum(t.size for t in changed.tensors) == 64


def test_a_header_is_not_read_before_its_length_is_judged() -> None:
    class Refuses(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            assert count == 8
            return super().read(count)

    with pytest.raises(WeightsError):
        read_safetensors_header(Refuses(b"\xff" * 100), 100, "x")


def test_a_header_of_too_many_parts_is_refused_quickly() -> None:
    raw = b'{"a":[' + b"0," * (reader.MAX_SEPARATORS + 1) + b"0]}"
    started = time.monotonic()
    with pytest.raises(WeightsError, match="too many parts"):
        read(safetensors(raw=raw))
    assert time.monotonic() - started < 2
