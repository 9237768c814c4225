"""Models that attack, each a folder of named files; every one must be refused at both doors."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgekit.exit_codes import ExitCode
from tests.support.chat_templates import HOSTILE as TEMPLATES
from tests.support.chat_templates import LLAMA_3
from tests.support.gguf import (
    BOOL,
    F32,
    F64,
    I32,
    TEXT,
    U8,
    U32,
    U64,
    GgufBuilder,
    TensorEntry,
    array,
    default_keys,
    text,
    value,
)
from tests.support.safetensors import safetensors, tensor

CODE = ExitCode.REFUSED_CONTENT
LIE = ExitCode.MODEL_FORMAT
HUGE = 2**64 - 1


@dataclass(frozen=True)
class HostileModel:
    """A variant of the given format made of `files`, and the exit code it must be refused with."""

    name: str
    format: str
    files: dict[str, bytes]
    exit_code: ExitCode


class _Runs:
    """Pickled, it runs a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("owned",))


def good_tensors() -> list[TensorEntry]:
    """Embedding of three tokens and one tensor for each of two layers, all F32."""
    sizes = [("token_embd.weight", (64, 3)), ("blk.0.w", (8,)), ("blk.1.w", (8,))]
    tensors, offset = [], 0
    for name, dimensions in sizes:
        tensors.append(TensorEntry(name, dimensions=dimensions, kind=0, offset=offset))
        offset += dimensions[0] * (dimensions[1] if len(dimensions) == 2 else 1) * 4
    return tensors


GOOD_DATA = bytes(64 * 3 * 4 + 32 + 32)


def gguf(
    keys: dict[str, bytes] | None = None, *, without: tuple[str, ...] = (), **builder: Any
) -> bytes:
    """A small model that passes, with keys changed or left out and the builder told otherwise."""
    table = default_keys() | {"llama.block_count": value(U32, 2)} | dict(keys or {})
    for key in without:
        del table[key]
    given: dict[str, Any] = {"keys": table, "tensors": good_tensors(), "data": GOOD_DATA, **builder}
    return GgufBuilder(**given).file()


def good_folder() -> dict[str, bytes]:
    """A safetensors model that passes."""
    return {
        "model.safetensors": safetensors(),
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}).encode(),
        "config.json": b'{"model_type": "llama", "time_step_limit": [0.0, Infinity]}',
        "tokenizer_config.json": json.dumps({"chat_template": LLAMA_3}).encode(),
    }


def hostile_models() -> list[HostileModel]:
    """All of them."""
    return [*_pickles(), *_remote_code(), *_templates(), *_lying_gguf(), *_lying_safetensors(),
            *_lying_folders()]


def _pickles() -> Iterator[HostileModel]:
    body = pickle.dumps(_Runs(), protocol=2)
    for suffix in ("bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "dill", "npy", "npz",
                   "h5", "hdf5", "keras", "pb", "py", "pyc", "so", "msgpack", "ot", "nemo",
                   "llamafile", "zip", "7z", "tar", "exe", "PT", "safetensors.bin"):
        yield _folder(f"pickle named .{suffix}", {f"model.{suffix}": body}, CODE)
    for protocol in range(6):
        data = pickle.dumps(_Runs(), protocol=protocol)
        for name in ("model.safetensors", "model.gguf", "config.json", "tokenizer.model",
                     "vocab.txt", "LICENSE"):
            yield _folder(f"pickle of protocol {protocol} named {name}", {name: data}, CODE)
    for name, data in _containers(body).items():
        for target in ("model.safetensors", "model.gguf", "tokenizer.model"):
            yield _folder(f"{name} named {target}", {target: data}, CODE)


def _containers(body: bytes) -> dict[str, bytes]:
    inner, outer, tar = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", body)
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("model.zip", inner.getvalue())
    with tarfile.open(fileobj=tar, mode="w") as bundle:
        member = tarfile.TarInfo("data.pkl")
        member.size = len(body)
        bundle.addfile(member, io.BytesIO(body))
    return {
        "PyTorch archive": inner.getvalue(),
        "zip in a zip": outer.getvalue(),
        "tar of a pickle": tar.getvalue(),
        "7z": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(80),
        "gzip": b"\x1f\x8b\x08" + bytes(80),
        "bzip2": b"BZh91AY&SY" + bytes(80),
        "xz": b"\xfd7zXZ\x00\x00" + bytes(80),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(80),
        "rar": b"Rar!\x1a\x07" + bytes(80),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(80),
        "NumPy of objects": b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}" + body,
        "ELF program": b"\x7fELF\x02\x01\x01" + bytes(80),
        "Windows program": b"MZ\x90\x00" + bytes(80),
    }


def _remote_code() -> Iterator[HostileModel]:
    cases: dict[str, tuple[str, Any]] = {
        "auto_map": ("config.json", {"auto_map": {"AutoModel": "modeling_x.X"}}),
        "auto_map of another repository":
            ("config.json", {"auto_map": {"AutoConfig": "evil/repo--configuration.X"}}),
        "auto_map of a tokenizer":
            ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}),
        "auto_map of a processor":
            ("processor_config.json", {"auto_map": {"AutoProcessor": "a.B"}}),
        "auto_map deep inside": ("config.json", {"text_config": {"x": [{"auto_map": {"a": "b"}}]}}),
        "auto_map in generation_config": ("generation_config.json", {"auto_map": {"a": "b"}}),
        "auto_map as text": ("config.json", {"auto_map": "modeling_x"}),
        "auto_map in a sub-folder": ("sub/config.json", {"auto_map": {"AutoModel": "a.B"}}),
        "custom_pipelines": ("config.json", {"custom_pipelines": {"x": {"impl": "a.B"}}}),
        "trust_remote_code": ("config.json", {"trust_remote_code": True}),
        "jsonpickle": ("config.json", {"py/object": "os.system"}),
        "jsonpickle of a call": ("config.json", {"x": {"py/reduce": ["os.system", "id"]}}),
        "Keras layer of code": ("config.json", {"layers": [{"class_name": "Lambda"}]}),
        "foreign module": ("modules.json", [{"idx": 0, "type": "evil.models.X"}]),
        "modules without types": ("modules.json", [{"idx": 0}]),
    }
    for name, (file, content) in cases.items():
        yield _beside(name, {file: json.dumps(content).encode()}, CODE)
    raw = {
        "auto_map behind a repeated key": b'{"auto_map": {}, "auto_map": {"a": "b"}}',
        "auto_map by escapes": b'{"auto\\u005fmap": {"a": "b"}}',
        "config that is not JSON": b"{'auto_map': 1}",
        "config nested too deeply": b"[" * 200_000,
        "config of a huge number": b'{"a": ' + b"9" * 10_000 + b"}",
        "config that is not UTF-8": b'{"a": "\xff"}',
    }
    for name, data in raw.items():
        yield _beside(name, {"config.json": data}, CODE)
    for file in ("modeling_x.py", "setup.py", "a/__init__.py", "x.pyd", "x.dll", "x.dylib", "x.sh",
                 "x.js", "x.wasm", "x.ipynb", "x.yaml", "Makefile", "x.html", ".gitattributes",
                 "x.tar.gz", "x.whl"):
        yield _beside(f"file {file}", {file: b"x"}, CODE)


def _templates() -> Iterator[HostileModel]:
    for name, template in TEMPLATES.items():
        yield HostileModel(f"GGUF template: {name}", "gguf", {
            "m.gguf": gguf({"tokenizer.chat_template": value(TEXT, template)})}, CODE)
    attack = TEMPLATES["llama drama"]
    config = {
        "template in tokenizer_config": {"chat_template": attack},
        "named template": {"chat_template": [
            {"name": "default", "template": LLAMA_3}, {"name": "tool_use", "template": attack}]},
        "table of templates": {"chat_template": {"default": attack}},
        "template that is a number": {"chat_template": 1},
        "template without text": {"chat_template": [{"name": "a"}]},
        "too many templates": {"chat_template": {str(n): "" for n in range(40)}},
    }
    for name, content in config.items():
        yield _beside(name, {"tokenizer_config.json": json.dumps(content).encode()}, CODE)
    yield _beside("template in chat_template.json",
                  {"chat_template.json": json.dumps({"chat_template": attack}).encode()}, CODE)
    yield _beside("template in chat_template.jinja", {"chat_template.jinja": attack.encode()}, CODE)
    yield _beside("template in a folder", {"additional_chat_templates/x.jinja": attack.encode()},
                  CODE)
    yield _beside("template behind a long comment",
                  {"chat_template.jinja": b"{#" + b" " * 8000 + b"#}" + attack.encode()}, CODE)
    yield _beside("template that is too large", {"chat_template.jinja": b"a" * 300_000}, CODE)
    yield _beside("template that is not UTF-8", {"chat_template.jinja": b"\xff" * 9000}, CODE)
    for name, key in {"named template": "tokenizer.chat_template.tool_use",
                      "template under another ending": "tokenizer.chat_template_x"}.items():
        yield HostileModel(f"GGUF {name}", "gguf", {"m.gguf": gguf(
            {"tokenizer.chat_template": value(TEXT, "{{ messages }}"), key: value(TEXT, attack)})},
            CODE)


def _lying_gguf() -> Iterator[HostileModel]:
    for name, data in {**_gguf_headers(), **_gguf_tensors(), **_gguf_keys()}.items():
        code = CODE if data[:4] != b"GGUF" or data[4:5] not in (b"\2", b"\3") else LIE
        if name in ("huge tensor count", "huge key count", "empty header"):
            code = CODE
        yield HostileModel(f"GGUF {name}", "gguf", {"m.gguf": data}, code)
    good = gguf()
    yield HostileModel("GGUF in two files", "gguf", {"a.gguf": good, "b.gguf": good}, LIE)


def _gguf_headers() -> dict[str, bytes]:
    good = gguf()
    return {
        "of the other byte order": b"FUGG" + good[4:],
        "of version 1": gguf(version=1),
        "of version 4": gguf(version=4),
        "huge tensor count": gguf(tensor_count=HUGE),
        "huge key count": gguf(key_count=HUGE),
        "more tensors than there are": gguf(tensor_count=60_000),
        "more keys than there are": gguf(key_count=4_000),
        "empty header": b"GGUF" + struct.pack("<I", 3),
        "header alone": struct.pack("<4sIQQ", b"GGUF", 3, 0, 0) + bytes(64),
        "cut short in its keys": good[:200],
        "cut short in its data": good[:-1],
        "with a zip behind its data": good + b"PK\x03\x04" + bytes(200),
        "with an array above every limit": gguf({"k": array(U8, [], count=HUGE)}),
        "with an array whose bytes wrap": gguf({"k": array(U64, [], count=2**61 + 1)}),
        "with a text above every limit": gguf({"k": struct.pack("<IQ", TEXT, HUGE)}),
        "with an array in an array": gguf({"k": array(9, [array(U8, [b"1"])[4:]])}),
        "with an unknown value type": gguf({"k": struct.pack("<IQ", 99, 0)}),
        "with a boolean of 2": gguf({"k": value(BOOL, 2)}),
        "with a zero byte in a key": gguf({"a\0b": value(U8, 1)}),
        "with a long key": gguf({"k" * 300: value(U8, 1)}),
        "with alignment 0": gguf({"general.alignment": value(U32, 0)}),
        "with alignment 48": gguf({"general.alignment": value(U32, 48)}),
        "with an alignment of 64 bits": gguf({"general.alignment": value(U64, 32)}),
        "with alignment 2^31": gguf({"general.alignment": value(U32, 1 << 31)}),
    }


def _gguf_tensors() -> dict[str, bytes]:
    def changed(position: int = 1, **changes: Any) -> bytes:
        tensors = good_tensors()
        for name, content in changes.items():
            setattr(tensors[position], name, content)
        return gguf(tensors=tensors)

    return {
        "tensor beyond the file (CVE-2026-7482)": changed(2, dimensions=(1 << 20,)),
        "offset beyond the file (CVE-2026-7482)": changed(2, offset=1 << 40),
        "offset that wraps": changed(2, offset=HUGE - 31),
        "offset into the header": changed(2, offset=2**64 - 64),
        "misaligned offset": changed(2, offset=801),
        "overlap": changed(2, offset=768),
        "gap": changed(2, offset=832),
        "tensors out of order": gguf(tensors=good_tensors()[::-1]),
        "shape that wraps to nothing (CVE-2025-53630)": changed(dimensions=(1 << 32, 1 << 32)),
        "shape that wraps to 8": changed(dimensions=(1 << 32, 1 << 32, 1, 8)),
        "size that wraps by padding": changed(dimensions=((1 << 40) - 8, 1 << 22)),
        "dimension 0 (88-byte crash)": changed(dimensions=(8, 0)),
        "negative dimension": changed(dimensions=(HUGE,)),
        "no dimensions": changed(dimensions=()),
        "five dimensions": changed(dimensions=(8, 1, 1, 1, 1)),
        "huge rank": changed(rank=2**32 - 1),
        "removed tensor type": changed(kind=4),
        "unknown tensor type": changed(kind=200),
        "not whole blocks": changed(kind=8),
        "name there twice": changed(name="blk.1.w"),
        "name of 64 bytes": changed(name="n" * 64),
        "empty name": changed(name=""),
        "zero byte in a name": changed(name="blk.0\0.w"),
        "layer that is missing": changed(name="other"),
        "layer beyond block_count": changed(name="blk.7.w"),
        "no embedding": changed(0, name="x"),
        "embedding with fewer rows than tokens": changed(0, dimensions=(96, 2)),
        "embedding of one dimension": changed(0, dimensions=(192,)),
    }


def _gguf_keys() -> dict[str, bytes]:
    third = [text(word) for word in ("a", "b", "c")]
    cases: dict[str, dict[str, bytes]] = {
        "architecture of a path": {"general.architecture": value(TEXT, "../../x")},
        "architecture of a number": {"general.architecture": value(U32, 7)},
        "long architecture": {"general.architecture": value(TEXT, "a" * 100)},
        "adapter": {"general.type": value(TEXT, "adapter")},
        "part of a split file": {"split.count": value(U32, 3), "split.no": value(U32, 0)},
        "huge block_count": {"llama.block_count": value(U32, 2**31)},
        "block_count above the layers": {"llama.block_count": value(U32, 3)},
        "block_count below the layers": {"llama.block_count": value(U32, 1)},
        "negative block_count": {"llama.block_count": value(I32, -1)},
        "block_count of a float": {"llama.block_count": value(F32, 2.0)},
        "block_count of a text": {"llama.block_count": value(TEXT, "2")},
        "block_count of a boolean": {"llama.block_count": value(BOOL, 1)},
        "block_count of an array": {"llama.block_count": array(U8, [b"\2"])},
        "context of 0": {"llama.context_length": value(U32, 0)},
        "huge context": {"llama.context_length": value(U64, 2**60)},
        "huge head_count": {"llama.attention.head_count": value(U32, 2**31)},
        "negative head_count_kv": {"llama.attention.head_count_kv": value(I32, -8)},
        "head_count of too few layers": {"llama.attention.head_count": array(U8, [b"\2"])},
        "head_count of texts": {"llama.attention.head_count": array(TEXT, third[:2])},
        "huge embedding_length": {"llama.embedding_length": value(U64, 2**40)},
        "other embedding_length": {"llama.embedding_length": value(U32, 32)},
        "huge expert_count": {"llama.expert_count": value(U32, 2**30)},
        "infinite scale": {"llama.rope.scale": value(F32, float("inf"))},
        "scale that is no number": {"llama.rope.scale": value(F64, float("nan"))},
        "tokens of numbers": {"tokenizer.ggml.tokens": array(U8, [b"1"] * 3)},
        "tokens of a text": {"tokenizer.ggml.tokens": value(TEXT, "a")},
        "no tokens": {"tokenizer.ggml.tokens": array(TEXT, [])},
        "fewer scores than tokens": {"tokenizer.ggml.scores": array(F32, [bytes(4)] * 2)},
        "scores of bytes": {"tokenizer.ggml.scores": array(U8, [b"1"] * 3)},
        "fewer token types than tokens": {"tokenizer.ggml.token_type": array(I32, [bytes(4)])},
        "token types of texts": {"tokenizer.ggml.token_type": array(TEXT, third)},
        "merges of numbers": {"tokenizer.ggml.merges": array(U32, [bytes(4)])},
        "merges of a text": {"tokenizer.ggml.merges": value(TEXT, "a b")},
        "special token beyond the tokens": {"tokenizer.ggml.bos_token_id": value(U32, 3)},
        "special token far beyond": {"tokenizer.ggml.eos_token_id": value(U32, 2**31)},
        "negative special token": {"tokenizer.ggml.eos_token_id": value(I32, -2)},
        "special token of a text": {"tokenizer.ggml.eos_token_id": value(TEXT, "a")},
        "template of a number": {"tokenizer.chat_template": value(U32, 1)},
        "template of an array": {"tokenizer.chat_template": array(TEXT, third)},
    }
    files = {name: gguf(keys) for name, keys in cases.items()}
    for key in ("general.architecture", "llama.block_count", "llama.context_length",
                "llama.embedding_length", "tokenizer.ggml.tokens"):
        files[f"without {key}"] = gguf(without=(key,))
    return files


def _lying_safetensors() -> Iterator[HostileModel]:
    for name, data in _safetensors_headers().items():
        yield HostileModel(f"safetensors {name}", "safetensors", {"model.safetensors": data}, LIE)
    for name, data in {
        "empty": b"",
        "of a header above the file": safetensors(claimed=10_000),
        "of a header above 2^63": safetensors(claimed=HUGE),
        "of a header above 100 MB": safetensors(claimed=100_000_001),
        "of a header of no bytes": safetensors(claimed=0),
        "of a list": safetensors(raw=b"[1]   "),
        "with space before its header": safetensors(raw=b' {"a": 1}'),
    }.items():
        yield HostileModel(f"safetensors {name}", "safetensors", {"model.safetensors": data}, CODE)


def _safetensors_headers() -> dict[str, bytes]:
    def one(**changes: Any) -> bytes:
        return safetensors({"a": tensor(0, 64, shape=[16]) | changes})

    good = json.dumps(tensor(0, 64, shape=[16])).encode()
    return {
        "cut short": safetensors()[:-1],
        "with bytes behind the data": safetensors() + b"x",
        "with a zip behind the data": safetensors() + b"PK\x03\x04" + bytes(40),
        "with a hole": safetensors({"a": tensor(), "b": tensor(36, 68)}, data=bytes(68)),
        "with a hole at the start": safetensors({"a": tensor(4, 36)}, data=bytes(36)),
        "with an overlap": safetensors({"a": tensor(), "b": tensor(16, 48)}),
        "with the same place twice": safetensors({"a": tensor(), "b": tensor()}, data=bytes(32)),
        "with an offset beyond the file": safetensors({"a": tensor(0, 32), "b": tensor(320, 352)}),
        "with a huge offset": one(data_offsets=[0, 2**62]),
        "with an offset above 64 bits": one(data_offsets=[0, 2**70]),
        "with negative offsets": one(data_offsets=[-64, 0]),
        "with offsets the wrong way round": one(data_offsets=[64, 0]),
        "with three offsets": one(data_offsets=[0, 32, 64]),
        "with offsets of floats": one(data_offsets=[0.0, 64.0]),
        "with offsets of booleans": one(data_offsets=[False, True]),
        "with offsets of texts": one(data_offsets=["0", "64"]),
        "with a shape that needs more": one(shape=[17]),
        "with a shape that needs less": one(shape=[15]),
        "with a shape that wraps": one(shape=[2**32, 2**32, 16]),
        "with a negative dimension": one(shape=[-4, -4]),
        "with a huge dimension": one(shape=[2**60]),
        "with a shape of a number": one(shape=16),
        "with nine dimensions": one(shape=[16] + [1] * 8),
        "with an unknown data type": one(dtype="O"),
        "with a data type of a number": one(dtype=4),
        "with a data type of a list": one(dtype=["F32"]),
        "with half a byte": one(dtype="F4", shape=[127]),
        "with one more field": one(load="os.system"),
        "without offsets": safetensors({"a": {"dtype": "F32", "shape": [16]}}),
        "with a tensor of a list": safetensors({"a": [1, 2]}),
        "with a tensor given twice": safetensors(raw=b'{"a":' + good + b',"a":' + good + b"}"),
        "with metadata of a number": safetensors({"__metadata__": {"a": 1}, "a": tensor(0, 64)}),
        "with metadata of a list": safetensors({"__metadata__": [], "a": tensor(0, 64)}),
        "with a hidden tensor name": safetensors({"__class__": tensor(0, 64, shape=[16])}),
        "with an empty name": safetensors({"": tensor(0, 64, shape=[16])}),
        "with a long name": safetensors({"a" * 600: tensor(0, 64, shape=[16])}),
        "without tensors": safetensors({}, data=b""),
        "without tensors, with data": safetensors({}),
        "with not a number": safetensors(raw=b'{"a": NaN}'),
        "that is not JSON": safetensors(raw=b"{'a': 1}"),
        "that is not UTF-8": safetensors(raw=b'{"\xff": 1}'),
        "nested deeply": safetensors(raw=b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        "with a second document": safetensors(raw=b'{"a":' + good + b"}{}"),
    }


def _lying_folders() -> Iterator[HostileModel]:
    index = "model.safetensors.index.json"
    for name, content in {
        "index that leaves the folder": {"weight_map": {"a": "../model.safetensors"}},
        "index of a pickle": {"weight_map": {"a": "pytorch_model.bin", "b": "model.safetensors"}},
        "index of an absolute path": {"weight_map": {"a": "/etc/passwd"}},
        "index of a tensor that is not there": {"weight_map": {"z": "model.safetensors"}},
        "index that leaves a tensor out": {"weight_map": {"a": "model.safetensors"}},
        "index of numbers": {"weight_map": {"a": 1, "b": 2}},
        "index without a map": {"metadata": {}},
        "index of a list": ["a"],
    }.items():
        yield _beside(name, {index: json.dumps(content).encode()}, LIE)
    yield _beside("tensor in two shards", {"model-2.safetensors": safetensors()}, LIE,
                  without=(index,))
    yield _beside("GGUF beside safetensors", {"m.gguf": gguf()}, LIE)
    yield HostileModel("folder without weights", "safetensors", {"config.json": b"{}"}, LIE)
    yield HostileModel("safetensors said to be GGUF", "gguf",
                       {"model.safetensors": safetensors()}, LIE)


def _folder(name: str, files: dict[str, bytes], exit_code: ExitCode) -> HostileModel:
    return HostileModel(name, "safetensors", files, exit_code)


def _beside(
    name: str, files: dict[str, bytes], exit_code: ExitCode, without: tuple[str, ...] = ()
) -> HostileModel:
    """A good model with these files in it."""
    good = {key: data for key, data in good_folder().items() if key not in without}
    return HostileModel(name, "safetensors", {**good, **files}, exit_code)
