"""What edgekit carries as weights and what it refuses, by name and by first bytes."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.names import RelPath
from edgekit.core.weights_policy import (
    MAX_JSON_BYTES,
    check_weights_file,
    check_weights_name,
    head_bytes,
)
from edgekit.errors import RefusedContentError


def check(name: str, data: bytes, size: int | None = None) -> None:
    path = RelPath(name)
    size = len(data) if size is None else size
    check_weights_file(path, data[: head_bytes(path, size)], size)


def gguf(version: int = 3, tensors: int = 1, keys: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + bytes(64)


def safetensors(header: bytes = b'{"a":{}}', claimed: int | None = None) -> bytes:
    length = len(header) if claimed is None else claimed
    return struct.pack("<Q", length) + header + bytes(32)


@pytest.mark.parametrize(("name", "data"), [
    ("model.gguf", gguf()),
    ("MODEL.GGUF", gguf(version=2)),
    ("model-00001-of-00002.safetensors", safetensors()),
    ("config.json", b'{"hidden_size": 64, "rms_norm_eps": 1e-05}'),
    ("model.safetensors.index.json", b'{"weight_map": {}}'),
    ("sub/tokenizer.json", b'{"auto_map": {}}'),
    ("tokenizer.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"),
    ("tokenizer.model", b"IQ== 0\nIg== 1\n"),
    ("merges.txt", "Ġ t\n".encode() * 3000),
    ("chat_template.jinja", b"{{ messages }}"),
    ("README.md", b"# hello"),
    ("LICENSE", b"Apache"),
    ("LICENSE-MIT", b"MIT"),
    ("NOTICE", b"notice"),
    ("LICENSE.txt", b"text"),
])
def test_carried(name: str, data: bytes) -> None:
    check(name, data)


@pytest.mark.parametrize(("name", "reason"), [
    ("pytorch_model.bin", "pickle"), ("consolidated.00.pth", "pickle"), ("a.pt", "pickle"),
    ("a.ckpt", "pickle"), ("a.pkl", "pickle"), ("a.PICKLE", "pickle"), ("a.npy", "pickled"),
    ("a.npz", "pickled"), ("tf_model.h5", "HDF5"), ("a.keras", "Keras"),
    ("modeling_evil.py", "Python"), ("__pycache__/a.pyc", "Python"), ("lib.so", "shared library"),
    ("model.onnx", "not on the list"), ("run.sh", "not on the list"), ("Makefile", "without"),
    ("model.gguf.zip", "not on the list"), (".gitattributes", "without"), ("a.7z", "not on"),
    ("LICENSE.py", "Python"), ("licenses/x", "without"),
])
def test_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(RefusedContentError) as caught:
        check_weights_name(RelPath(name))
    assert reason in caught.value.message
    assert caught.value.where == name


@pytest.mark.parametrize(("name", "data", "reason"), [
    ("model.gguf", pickle.dumps({"a": 1}), "not a GGUF"),
    ("model.gguf", b"GGUF", "not a GGUF"),
    ("model.gguf", gguf(version=1), "version 1"),
    ("model.gguf", b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "version"),
    ("model.gguf", gguf(tensors=1 << 40), "tensors"),
    ("m.safetensors", b"PK\x03\x04" + bytes(100), "header"),
    ("m.safetensors", safetensors(claimed=1 << 40), "header of"),
    ("m.safetensors", safetensors(claimed=41), "header of"),
    ("m.safetensors", safetensors(b'["a"]   '), "not JSON"),
    ("m.safetensors", b"\x02", "too short"),
    ("tokenizer.model", pickle.dumps([1], protocol=4), "pickle"),
    ("tokenizer.model", b"PK\x03\x04" + bytes(40), "zip"),
    ("vocab.txt", b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z"),
    ("vocab.txt", b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    ("vocab.txt", b"\x1f\x8b\x08" + bytes(40), "gzip"),
    ("README.md", bytes(257) + b"ustar\x00" + bytes(300), "tar"),
    ("LICENSE", b"\x7fELF" + bytes(100), "ELF"),
    ("vocab.txt", b"abc\0def", "binary"),
    ("vocab.txt", b"\xff\xfe\xfa", "UTF-8"),
    ("config.json", b'{"auto_map": {"AutoModel": "modeling.Evil"}}', "auto_map"),
    ("tokenizer_config.json", b'{"a": [{"auto_map": {"x": "y"}}]}', "auto_map"),
    ("config.json", b'{"custom_pipelines": {"x": {"impl": "a.b"}}}', "custom_pipelines"),
    ("config.json", b'{"a": 1, "a": {"auto_map": 1}}', "given twice"),
    ("config.json", b'{"a": ', "JSON"),
    ("config.json", b"[" * 200_000, "JSON"),
    ("config.json", pickle.dumps({}), "pickle"),
])
def test_refused_by_content(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(RefusedContentError) as caught:
        check(name, data)
    assert reason in caught.value.message
    assert name in caught.value.message


def test_json_must_be_seen_whole() -> None:
    data = json.dumps({"x": "y" * 5000, "auto_map": {"a": "b"}}).encode()
    path = RelPath("config.json")
    assert head_bytes(path, len(data)) == len(data)
    with pytest.raises(RefusedContentError, match="could be read"):
        check_weights_file(path, data[:4096], len(data))
    with pytest.raises(RefusedContentError, match="at most"):
        check_weights_file(path, data, MAX_JSON_BYTES + 1)


@given(st.binary(max_size=300), st.sampled_from(
    ["a.gguf", "a.safetensors", "a.json", "a.model", "a.txt", "LICENSE"]))
def test_any_bytes_are_judged_without_a_crash(data: bytes, name: str) -> None:
    try:
        check(name, data)
    except RefusedContentError:
        return
    assert not data.startswith((b"PK\x03\x04", b"\x80\x04", b"\x7fELF"))
