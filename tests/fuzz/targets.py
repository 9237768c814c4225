"""What is fuzzed: seeds to start from, words of the format, and the function that must hold."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

from edgekit.core import trust
from edgekit.core.chat_template import check_chat_template
from edgekit.core.gguf import read_gguf_header
from edgekit.core.gguf_rules import check_gguf_rules
from edgekit.core.gguf_shape import gguf_shape
from edgekit.core.modelfile import parse_modelfile, render_modelfile
from edgekit.core.names import RelPath
from edgekit.core.release import parse_manifest, parse_volume_table
from edgekit.core.safetensors import read_safetensors_header
from edgekit.core.strict_json import encode_canonical, parse_canonical, parse_strict
from edgekit.core.weights_policy import check_weights_file
from edgekit.errors import EdgekitError, FormatError
from edgekit.sources.wheel_file import check_wheel
from tests.fuzz.mutate import mutated, mutated_json
from tests.support import chat_templates
from tests.support.gguf import TEXT, U32, numbers_of, value
from tests.support.hostile_models import gguf, good_folder, hostile_models
from tests.support.hostile_wheels import hostile_wheels, read_members, record_of, zip_members
from tests.support.wheel_maker import WheelMaker
from tests.templates.cases import TEMPLATES

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """`check` takes any bytes and raises nothing but EdgekitError; `change` makes new ones.

    `check` also raises AssertionError when what it accepts is not what it promises.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], tuple[bytes, ...]]
    words: tuple[bytes, ...] = ()
    change: Callable[[bytes, random.Random], bytes] | None = None

    def input(self, rng: random.Random) -> bytes:
        """The next input."""
        seeds = self.seeds()
        seed = rng.choice(seeds)
        if self.change is not None and rng.random() < 0.6:
            return self.change(seed, rng)
        return mutated(seed, seeds, self.words, rng)


def _gguf(data: bytes) -> None:
    header = read_gguf_header(io.BytesIO(data), len(data), "fuzz")
    assert all(header.data_offset + t.offset + t.size <= len(data) for t in header.tensors)
    assert all(number >= 0 for number in numbers_of(gguf_shape(header)))
    check_gguf_rules(header, "fuzz")
    assert gguf_shape(header)["layers"] != 0


@cache
def _gguf_seeds() -> tuple[bytes, ...]:
    template = value(TEXT, chat_templates.GEMMA)
    hostile = [
        next(iter(model.files.values())) for model in hostile_models() if model.format == "gguf"
    ]
    return (
        gguf(),
        gguf(),
        gguf(version=2),
        gguf({"tokenizer.chat_template": template}),
        gguf({"split.count": value(U32, 1)}),
        *(data for data in hostile if len(data) < 4096),
    )


def _safetensors(data: bytes) -> None:
    header = read_safetensors_header(io.BytesIO(data), len(data), "fuzz")
    assert header.data_offset + sum(tensor.size for tensor in header.tensors) == len(data)
    assert header.parameter_count() >= 0
    assert "__metadata__" not in header.names()


@cache
def _safetensors_seeds() -> tuple[bytes, ...]:
    return tuple(
        data
        for model in hostile_models()
        for name, data in model.files.items()
        if name.endswith(".safetensors") and len(data) < 2048
    )


def _change_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header changed as JSON, or as bytes with a length that is right again."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    try:
        header = mutated_json(header, rng)
    except (ValueError, RecursionError):
        header = mutated(header, (header,), _SAFETENSORS_WORDS, rng)
    return len(header).to_bytes(8, "little") + header + rest


_SAFETENSORS_WORDS = (
    b'"dtype":',
    b'"shape":[',
    b'"data_offsets":[0,32]',
    b"__metadata__",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"\\u0000",
    b"-1",
    b"1e9",
    b"NaN",
    b"F8_E4M3",
)


def _chat_template(data: bytes) -> None:
    check_chat_template(data.decode("utf-8", "replace"), "fuzz")


def _modelfile(data: bytes) -> None:
    """What a Modelfile says, its template's prompts included, is said again as it was."""
    made = parse_modelfile(data, file="fuzz")
    again = parse_modelfile(render_modelfile(made).encode(), file="fuzz")
    assert again == replace(made, ignored=())
    if made.template:
        made.template.prompt([("system", "x"), ("user", "y"), ("assistant", "z")], date(2026, 1, 1))


@cache
def _modelfile_seeds() -> tuple[bytes, ...]:
    head = "FROM a\nSYSTEM be brief\nPARAMETER stop x\nMESSAGE user hi\nADAPTER b\n"
    return tuple(f'{head}TEMPLATE """{text}"""\n'.encode() for text in TEMPLATES)


_MODELFILE_WORDS = tuple(
    word.encode()
    for word in (
        '"""', "\n", "{{", "}}", "{{- ", " -}}", "{{ end }}", "{{ else }}", "{{ if .Prompt }}",
        "{{ range .Messages }}", "$x := ", "$x", "(", ")", " | ", "printf ", '"%s%d"', "slice ",
        "index ", "json ", "eq ", "and ", "1", "-1", ".Response", ".Content", "TEMPLATE ", "nil",
    )
)


@cache
def _template_seeds() -> tuple[bytes, ...]:
    texts = [*chat_templates.REAL.values(), *chat_templates.HOSTILE.values()]
    return tuple(text.encode() for text in texts if len(text) < 4096)


_TEMPLATE_WORDS = tuple(
    word.encode()
    for word in (
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "{%- for x in y %}",
        "{% endfor %}",
        "{% if a %}",
        "{% endif %}",
        "{% set a = b %}",
        "namespace(",
        ".__class__",
        "|attr(",
        "|map(",
        "['",
        "']",
        "{% macro m(a) %}",
        "{% endmacro %}",
        "loop.index0",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "~",
        "'",
        '"',
        "\\x5f",
        "{% raw %}",
        "{% endraw %}",
        "not ",
        " is ",
        " in ",
        "9" * 30,
        "1_0",
        "0x",
        "{% generation %}",
        "{% call m() %}",
        "{% filter upper %}",
        "{% set a.b = c %}",
        "\ud7ff",
    )
)


def _wheel(data: bytes) -> None:
    path = _scratch() / f"edgekit-fuzz-{os.getpid()}.whl"
    try:
        path.write_bytes(data)
        facts = check_wheel(path, filename="pkg-1.0-py3-none-any.whl")
    finally:
        path.unlink()
    assert facts.name == "pkg"


def _scratch() -> Path:
    """A memory disk where there is one."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


@cache
def _wheel_seeds() -> tuple[bytes, ...]:
    points = b"[console_scripts]\npkg = pkg:main\n"
    members = {"pkg-1.0.dist-info/entry_points.txt": points, "pkg-1.0.data/purelib/x.py": b""}
    with tempfile.TemporaryDirectory() as folder:
        good = WheelMaker().write(Path(folder) / "a").read_bytes()
        more = WheelMaker(members=members).write(Path(folder) / "b").read_bytes()
        hostile = [
            wheel.write(Path(folder) / str(number)).read_bytes()
            for number, wheel in enumerate(hostile_wheels())
        ]
    return (good, good, more, more, *(data for data in hostile if len(data) < 4096))


def _change_wheel(data: bytes, rng: random.Random) -> bytes:
    """A member's bytes or name changed inside an archive that is right, RECORD told or not."""
    try:
        files = read_members(data)
    except (
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        NotImplementedError,
        zlib.error,
        RuntimeError,
        OSError,
        IndexError,
    ):
        files = read_members(_wheel_seeds()[0])
    name = rng.choice(sorted(files))
    body = mutated(files.pop(name), tuple(files.values()) or (b"",), _WHEEL_WORDS, rng)
    if rng.random() < 0.2:
        changed = mutated(name.encode("utf-8", "replace"), (b"a",), _WHEEL_WORDS, rng)
        name = changed[:300].decode("utf-8", "replace").replace("\0", "") or "x"
    files[name] = body
    record = "pkg-1.0.dist-info/RECORD"
    if name != record and rng.random() < 0.7:
        files[record] = record_of(files)
    return zip_members(files)


_WHEEL_WORDS = (
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    b"PK\6\7",
    b"../",
    b"pkg/",
    b"RECORD",
    b"\x01\x00\x10\x00",
    b"\xff\xff\xff\xff",
    b"pkg-1.0.dist-info/",
    b"\x08\x00",
)


def _strict_json(data: bytes) -> None:
    found = parse_strict(data, max_bytes=1 << 20, what="fuzz")
    assert parse_canonical(encode_canonical(found), max_bytes=1 << 22, what="fuzz") == found


def _floats(data: bytes) -> None:
    """Both forms of strict JSON, the loose one first so that the strict one decides."""
    with contextlib.suppress(FormatError):
        parse_strict(data, max_bytes=1 << 20, what="fuzz", floats=True, max_depth=64)
    _strict_json(data)


@cache
def _corpus() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(CORPUS.iterdir()))


_JSON_WORDS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b'"a":',
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"NaN",
    b"Infinity",
    b"-0",
    b"1e999",
    b"1.5",
    b"9" * 30,
    b"\xff",
    b"\xef\xbb\xbf",
    b"[" * 40,
    b" ",
    b"\n",
    b"\\",
    b"0" * 20,
)


def _envelope(data: bytes) -> None:
    """Roots and release statements: what is accepted is signed by the corpus's own signers."""
    try:
        found = trust.restore_root(data)
    except EdgekitError:
        trust.verify_release(_trusted(), data)
    else:
        assert found.policy in ("hybrid", "classical")


@cache
def _trusted() -> trust.TrustedRoot:
    return trust.restore_root((CORPUS / "root.json").read_bytes())


@cache
def _envelope_seeds() -> tuple[bytes, ...]:
    names = ("root.json", "release.json", "classical-root.json", "classical-root.json")
    return tuple((CORPUS / name).read_bytes() for name in names)


def _change_envelope(data: bytes, rng: random.Random) -> bytes:
    """The envelope's JSON changed, or the payload's within it."""
    if rng.random() < 0.4:
        return mutated_json(data, rng)
    table = json.loads(data)
    payload = mutated_json(base64.b64decode(table["payload"]), rng)
    table["payload"] = base64.b64encode(payload).decode()
    return encode_canonical(table)


def _documents(data: bytes) -> None:
    """Manifest and volume table; either may accept."""
    try:
        parse_manifest(data)
    except FormatError:
        parse_volume_table(data)


@cache
def _document_seeds() -> tuple[bytes, ...]:
    return ((CORPUS / "manifest.json").read_bytes(), (CORPUS / "volumes.json").read_bytes())


def _policy(data: bytes) -> None:
    """The weights policy, under the name that the first byte chooses."""
    names = (
        "a.json",
        "tokenizer_config.json",
        "modules.json",
        "a.jinja",
        "a.model",
        "a.txt",
        "a.gguf",
        "a.safetensors",
        "LICENSE",
    )
    name = names[data[0] % len(names)] if data else "a.json"
    check_weights_file(RelPath(name), data[1:], len(data[1:]))


@cache
def _policy_seeds() -> tuple[bytes, ...]:
    files = [
        *good_folder().values(),
        *(data for model in hostile_models() for data in model.files.values() if len(data) < 2048),
    ]
    return tuple(bytes((number % 256,)) + data for number, data in enumerate(files))


def _change_json(data: bytes, rng: random.Random) -> bytes:
    return mutated_json(data, rng)


TARGETS: dict[str, Target] = {
    "gguf": Target(
        _gguf,
        _gguf_seeds,
        (
            b"GGUF",
            b"general.alignment",
            b"\x09\0\0\0\x08\0\0\0",
            b"llama.block_count",
            b"tokenizer.ggml.tokens",
        ),
    ),
    "safetensors": Target(
        _safetensors, _safetensors_seeds, _SAFETENSORS_WORDS, _change_safetensors
    ),
    "chat_template": Target(_chat_template, _template_seeds, _TEMPLATE_WORDS),
    "modelfile": Target(_modelfile, _modelfile_seeds, _MODELFILE_WORDS),
    "wheel": Target(_wheel, _wheel_seeds, _WHEEL_WORDS, _change_wheel),
    "strict_json": Target(_floats, _corpus, _JSON_WORDS, _change_json),
    "envelope": Target(_envelope, _envelope_seeds, _JSON_WORDS, _change_envelope),
    "manifest": Target(_documents, _document_seeds, _JSON_WORDS, _change_json),
    "policy": Target(_policy, _policy_seeds, _JSON_WORDS),
}
