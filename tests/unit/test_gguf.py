"""The GGUF reader against files that lie: a WeightsError every time, and never anything else."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit.core import gguf
from edgekit.core.carried_model import SHAPE_KEYS
from edgekit.core.gguf import GgufHeader, Tensor, read_gguf_header
from edgekit.core.gguf_shape import gguf_shape
from edgekit.core.names import RelPath
from edgekit.errors import WeightsError
from edgekit.exit_codes import ExitCode
from edgekit.system.weights import check_weights
from tests.support.gguf import (
    ARRAY,
    BOOL,
    F32,
    I32,
    TEXT,
    U8,
    U32,
    U64,
    GgufBuilder,
    TensorEntry,
    array,
    numbers_of,
    text,
    value,
)

DEMO = Path(__file__).resolve().parents[2] / "models/demo/gguf/edgekit-demo-q8_0.gguf"
HUGE = 2**64 - 1


def read(data: bytes, size: int | None = None) -> GgufHeader:
    return read_gguf_header(io.BytesIO(data), len(data) if size is None else size, "x.gguf")


def test_a_good_file_is_read() -> None:
    header = read(GgufBuilder().file())
    assert header.text("general.architecture") == "llama"
    assert header.metadata["llama.causal"] is True
    assert header.metadata["llama.rope.scale"] == 0.5
    assert header.array_lengths == {"tokenizer.ggml.tokens": 3, "tokenizer.ggml.scores": 3}
    assert [(t.name, t.dimensions, t.type, t.offset, t.size) for t in header.tensors] == [
        ("a.weight", (32,), "Q8_0", 0, 34), ("b.weight", (32,), "Q8_0", 64, 34)]
    assert header.parameter_count() == 64
    assert header.data_offset % 32 == 0
    assert gguf_shape(header) == {
        "layers": 4, "width": 64, "ffn": 128, "heads": 4, "kv_heads": 2, "key_width": 16,
        "value_width": 16, "context": 1024, "vocabulary": 3, "window": 0, "windowed": (0,) * 4,
        "key_row": (32,) * 4, "value_row": (32,) * 4, "state": (0,) * 4, "layer_bytes": (0,) * 4,
        "embedding_bytes": 0, "output_bytes": 0, "other_bytes": 68, "stale_bytes": 0}


def test_versions_two_and_three_are_read() -> None:
    assert read(GgufBuilder(version=2).file()) == read(GgufBuilder(version=3).file())


def test_facts_that_are_missing_or_of_another_type_are_zero() -> None:
    builder = GgufBuilder(keys={"general.architecture": value(U32, 7)})
    header = read(builder.file())
    assert header.text("general.architecture", "unknown") == "unknown"
    assert set(gguf_shape(header).values()) <= {0, (), 68}


def test_a_width_of_a_head_may_be_said_outright() -> None:
    builder = GgufBuilder().with_keys(
        llama__attention__key_length=value(U32, 80), llama__attention__value_length=value(U32, 96))
    shape = gguf_shape(read(builder.file()))
    assert (shape["key_width"], shape["value_width"]) == (80, 96)


@pytest.mark.parametrize("alignment", [8, 64, 65536])
def test_another_alignment_is_respected(alignment: int) -> None:
    builder = GgufBuilder(
        alignment=alignment, tensors=[TensorEntry()], data=bytes(34)).with_keys(
        general__alignment=value(U32, alignment))
    assert read(builder.file()).data_offset % alignment == 0


def test_the_demonstration_model_is_read() -> None:
    header = check_weights("gguf", {RelPath(DEMO.name): DEMO})
    assert header.family == "llama"
    assert header.parameter_count > 1_000_000
    assert all(header.shape[key] for key in SHAPE_KEYS)


def test_a_variant_of_several_gguf_files_is_refused() -> None:
    with pytest.raises(WeightsError, match="one file"):
        check_weights("gguf", {RelPath("a.gguf"): DEMO, RelPath("b.gguf"): DEMO})


def test_a_variant_without_files_is_refused() -> None:
    for kind in ("gguf", "safetensors"):
        with pytest.raises(WeightsError):
            check_weights(kind, {})


def keys(**changes: bytes) -> Callable[[], bytes]:
    return lambda: GgufBuilder().with_keys(**changes).file()


def tensors(*entries: TensorEntry, data: bytes = bytes(98)) -> Callable[[], bytes]:
    return lambda: GgufBuilder(tensors=list(entries), data=data).file()


def raw_key(data: bytes) -> Callable[[], bytes]:
    """One more key value, given as bytes."""
    count = len(GgufBuilder().keys) + 1
    return lambda: GgufBuilder(extra_keys=data, key_count=count).file()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "other magic": lambda: GgufBuilder(magic=b"GGML").file(),
    "magic of the other byte order": lambda: GgufBuilder(magic=b"FUGG").file(),
    "version 0": lambda: GgufBuilder(version=0).file(),
    "version 1": lambda: GgufBuilder(version=1).file(),
    "version 4": lambda: GgufBuilder(version=4).file(),
    "version of the other byte order": lambda: GgufBuilder(version=3 << 24).file(),
    "huge key count": lambda: GgufBuilder(key_count=HUGE).file(),
    "key count just above the limit": lambda: GgufBuilder(key_count=gguf.MAX_KEYS + 1).file(),
    "more keys than there are": lambda: GgufBuilder(key_count=gguf.MAX_KEYS).file(),
    "fewer keys than there are": lambda: GgufBuilder(key_count=3).file(),
    "huge tensor count": lambda: GgufBuilder(tensor_count=HUGE).file(),
    "tensor count just above the limit":
        lambda: GgufBuilder(tensor_count=gguf.MAX_TENSORS + 1).file(),
    "more tensors than there are": lambda: GgufBuilder(tensor_count=gguf.MAX_TENSORS).file(),
    "huge key length": raw_key(struct.pack("<Q", HUGE) + b"a"),
    "key length above 2^63": raw_key(struct.pack("<Q", 2**63) + b"a"),
    "key beyond the file": raw_key(struct.pack("<Q", 1 << 20) + b"a"),
    "empty key": raw_key(text("") + value(U8, 1)),
    "long key": raw_key(text("k" * 257) + value(U8, 1)),
    "key that is not UTF-8": raw_key(text(b"\xff\xfe") + value(U8, 1)),
    "key there twice": raw_key(text("llama.block_count") + value(U32, 4)),
    "key there as a value and an array": raw_key(
        text("llama.block_count") + array(U8, [b"1"])),
    "array there twice": raw_key(text("tokenizer.ggml.tokens") + array(U8, [b"1"])),
    "unknown value type": raw_key(text("k") + struct.pack("<IQ", 13, 0)),
    "huge value type": raw_key(text("k") + struct.pack("<IQ", 2**32 - 1, 0)),
    "huge text": raw_key(text("k") + struct.pack("<IQ", TEXT, HUGE)),
    "text above the limit": raw_key(
        text("k") + struct.pack("<IQ", TEXT, gguf.MAX_STRING_BYTES + 1)),
    "text that is not UTF-8": raw_key(text("k") + struct.pack("<I", TEXT) + text(b"\xc3\x28")),
    "text of half a character": raw_key(
        text("k") + struct.pack("<I", TEXT) + text(b"\xed\xa0\x80")),
    "huge array": raw_key(text("k") + array(U8, [], count=HUGE)),
    "array above the limit": raw_key(text("k") + array(U8, [], count=gguf.MAX_ARRAY_ITEMS + 1)),
    "array beyond the file": raw_key(text("k") + array(U64, [], count=gguf.MAX_ARRAY_ITEMS)),
    "array of texts beyond the file": raw_key(text("k") + array(TEXT, [text("a")], count=9999)),
    "array of a huge text": raw_key(text("k") + array(TEXT, [struct.pack("<Q", HUGE)])),
    "array of arrays": raw_key(text("k") + array(ARRAY, [array(U8, [b"1"])[4:]])),
    "array of an unknown type": raw_key(text("k") + array(99, [b"1"])),
    "alignment 0": keys(general__alignment=value(U32, 0)),
    "alignment 1": keys(general__alignment=value(U32, 1)),
    "alignment 3": keys(general__alignment=value(U32, 24)),
    "alignment negative": keys(general__alignment=value(I32, -32)),
    "alignment huge": keys(general__alignment=value(U64, 1 << 63)),
    "alignment of a float": keys(general__alignment=value(F32, 32.0)),
    "alignment of a boolean": keys(general__alignment=value(BOOL, 1)),
    "alignment of a text": keys(general__alignment=value(TEXT, "32")),
    "no dimensions": tensors(TensorEntry(dimensions=())),
    "five dimensions": tensors(TensorEntry(dimensions=(32, 1, 1, 1, 1))),
    "huge rank": tensors(TensorEntry(rank=2**32 - 1)),
    "dimension 0": tensors(TensorEntry(dimensions=(0,))),
    "second dimension 0": tensors(TensorEntry(dimensions=(32, 0))),
    "huge dimension": tensors(TensorEntry(dimensions=(HUGE,))),
    "product beyond 2^64": tensors(TensorEntry(dimensions=(1 << 40, 1 << 40, 1 << 40, 1 << 40))),
    "product that wraps to 32": tensors(TensorEntry(dimensions=(1 << 32, 1 << 32, 1, 32))),
    "not whole blocks": tensors(TensorEntry(dimensions=(31,))),
    "whole blocks only across rows": tensors(TensorEntry(dimensions=(16, 2))),
    "unknown tensor type": tensors(TensorEntry(kind=4)),
    "huge tensor type": tensors(TensorEntry(kind=2**32 - 1)),
    "misaligned offset": tensors(TensorEntry(offset=33)),
    "offset beyond the file": tensors(TensorEntry(offset=1 << 40)),
    "huge offset": tensors(TensorEntry(offset=HUGE)),
    "offset that wraps": tensors(TensorEntry(offset=HUGE - 31)),
    "data ends one byte too early": tensors(TensorEntry(), data=bytes(33)),
    "no data": tensors(TensorEntry(), data=b""),
    "overlap": tensors(TensorEntry("a"), TensorEntry("b", offset=32)),
    "overlap in another order": tensors(TensorEntry("a", offset=32), TensorEntry("b")),
    "the same place twice": tensors(TensorEntry("a"), TensorEntry("b")),
    "one tensor inside another": tensors(
        TensorEntry("a", dimensions=(96,)), TensorEntry("b", offset=64), data=bytes(999)),
    "name there twice": tensors(TensorEntry("a"), TensorEntry("a", offset=64)),
    "long tensor name": tensors(TensorEntry("n" * 129)),
    "tensor name that is not UTF-8": tensors(TensorEntry(b"\x80")),
    "value of the tensor type cut short": lambda: GgufBuilder().header()[:-9],
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_lies_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        read(data)
    assert caught.value.where == "x.gguf"
    assert str(caught.value.found).startswith("at byte ")
    assert caught.value.exit_code == ExitCode.MODEL_FORMAT
    assert time.monotonic() - started < 2


def test_a_file_cut_short_anywhere_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    good = GgufBuilder().file()
    fired = 0
    for length in range(len(good)):
        with pytest.raises(WeightsError):
            read(good[:length])
        fired += 1
    with capsys.disabled():
        print(f"\ntruncated GGUF: planned {len(good)}, fired {fired}")
    assert fired == len(good)


def test_the_demonstration_model_cut_short_in_its_header_is_refused() -> None:
    size = DEMO.stat().st_size
    with DEMO.open("rb") as file:
        header = read_gguf_header(file, size, "x.gguf")
        file.seek(0)
        start = file.read(header.data_offset)
    for length in range(0, len(start) - 32, 997):
        with pytest.raises(WeightsError):
            read(start[:length], size)


def test_a_header_above_its_limit_is_refused_without_being_kept() -> None:
    class Endless(io.RawIOBase):
        """A key value pair with a text of 4 MiB, again and again."""

        def __init__(self) -> None:
            self.left = struct.pack("<4sIQQ", b"GGUF", 3, 0, gguf.MAX_KEYS)
            self.number = self.given = 0

        def read(self, count: int = -1, /) -> bytes:
            while len(self.left) < count:
                body = text(f"k{self.number}") + struct.pack("<I", TEXT)
                self.left += body + text(b"a" * gguf.MAX_STRING_BYTES)
                self.number += 1
            data, self.left = self.left[:count], self.left[count:]
            self.given += len(data)
            return data

    file = Endless()
    with pytest.raises(WeightsError, match="header is too large"):
        read_gguf_header(file, 1 << 40, "x.gguf")
    assert file.given <= gguf.MAX_HEADER_BYTES


def outcome(data: bytes) -> None:
    """Any bytes at all: a header whose tensors lie inside the file, or a WeightsError."""
    try:
        header = read(data)
    except WeightsError:
        return
    assert all(
        header.data_offset + t.offset + t.size <= len(data) and t.offset >= 0 and t.size > 0
        for t in header.tensors
    )
    assert all(number >= 0 for number in numbers_of(gguf_shape(header)))


@given(st.binary(max_size=300))
@example(b"GGUF\x03\0\0\0" + b"\0" * 16)
@settings(max_examples=500)
def test_any_bytes_are_a_header_or_a_weights_error(data: bytes) -> None:
    outcome(data)


@given(st.binary(max_size=12), st.integers(0, 13), st.binary(max_size=12), st.binary(max_size=60))
@settings(max_examples=1000)
def test_any_key_and_value_is_a_header_or_a_weights_error(
    key: bytes, kind: int, content: bytes, rest: bytes
) -> None:
    start = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + text(key) + struct.pack("<I", kind)
    outcome(start + text(content) + rest)
    outcome(start + content + rest)


GOOD_FILE = GgufBuilder().file()


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD_FILE) - 1), st.integers(0, 255)), min_size=1,
             max_size=6),
    st.integers(0, 40),
)
@settings(max_examples=1000)
def test_any_changed_bytes_are_a_header_or_a_weights_error(
    changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(GOOD_FILE)
    for position, byte in changes:
        data[position] = byte
    outcome(bytes(data[: len(data) - cut]))


def test_every_single_changed_bit_is_a_header_or_a_weights_error() -> None:
    for position in range(len(GOOD_FILE) * 8):
        data = bytearray(GOOD_FILE)
        data[position // 8] ^= 1 << position % 8
        outcome(bytes(data))


@pytest.mark.parametrize(("order", "stale"), [
    ("NMN", 288), ("NMMN", 576), ("MNN", 0), ("NNM", 0), ("M", 0), ("NN", 0),
])
def test_originals_stay_mapped_only_between_tensors_that_are_read(order: str, stale: int) -> None:
    """Matrices of Q4_0 are copied in another order; the engine unmaps what lies outside."""
    tensors = tuple(
        Tensor(f"blk.0.{number}", (512,), "Q4_0", number * 288, 288) if kind == "M"
        else Tensor(f"blk.0.{number}", (72,), "F32", number * 288, 288)
        for number, kind in enumerate(order))
    header = GgufHeader({"general.architecture": "llama"}, {}, {}, {}, {}, tensors, 0)
    assert gguf_shape(header)["stale_bytes"] == stale
