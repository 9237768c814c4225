"""What content edgekit carries as weights, and what it refuses.

An allow list: a suffix that is not on it is refused, and what the suffix promises must be what the
first bytes show. Formats that run code when they are loaded (pickle and what wraps it, Python
files, configurations that name Python classes to import) are refused by name, so that the message
can say why. The same rules hold when a lock is made, when a bundle is built, and at installation.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from edgekit.core.chat_template import (
    MAX_TEMPLATE_BYTES,
    check_chat_template,
    json_chat_templates,
)
from edgekit.core.names import RelPath
from edgekit.errors import RefusedContentError

MAX_JSON_BYTES = 64 << 20
HEAD_BYTES = 4096
MAX_SAFETENSORS_HEADER = 100_000_000
"""safetensors' own limit on its JSON header, in bytes."""
MAX_GGUF_ITEMS = 1 << 20

ALLOWED_SUFFIXES = (".gguf", ".safetensors", ".json", ".txt", ".model", ".jinja", ".md")
ALLOWED_NAMES = ("license", "licence", "notice", "copying", "use_policy", "authors")

_RUNS_CODE = {
    ".bin": "PyTorch pickle",
    ".pt": "PyTorch pickle",
    ".pth": "PyTorch pickle",
    ".ckpt": "PyTorch pickle",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".dill": "pickle",
    ".npy": "NumPy file that may hold pickled objects",
    ".npz": "NumPy archive that may hold pickled objects",
    ".h5": "HDF5 with Keras layers",
    ".hdf5": "HDF5 with Keras layers",
    ".keras": "Keras archive",
    ".pb": "TensorFlow graph",
    ".py": "Python source",
    ".pyc": "Python bytecode",
    ".so": "shared library",
    ".msgpack": "Flax state",
    ".ot": "Rust pickle",
    ".nemo": "archive",
    ".llamafile": "program",
}
_MAGICS = (
    (b"PK\x03\x04", "zip archive"),
    (b"PK\x05\x06", "zip archive"),
    (b"PK\x07\x08", "zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (b"\x1f\x8b", "gzip stream"),
    (b"BZh", "bzip2 stream"),
    (b"\xfd7zXZ\x00", "xz stream"),
    (b"\x28\xb5\x2f\xfd", "zstd stream"),
    (b"Rar!", "rar archive"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"\x93NUMPY", "NumPy file"),
    (b"\x7fELF", "ELF program"),
    (b"MZ", "Windows program"),
    (b"\xca\xfe\xba\xbe", "program"),
    (b"\xcf\xfa\xed\xfe", "program"),
    *((bytes((0x80, protocol)), "pickle") for protocol in range(2, 6)),
)
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "py/object", "py/reduce")
"""Keys by which transformers, and jsonpickle, import Python from the repository of the weights."""
_OLD_PICKLE = re.compile(rb"c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|\((?:dp|lp|tp|i|c)\w*\n")
"""How a pickle of protocol 0, which is text, begins: with an import or with a container."""


def check_weights_name(path: RelPath) -> None:
    """Refuse by name alone, before a byte is fetched. Raises RefusedContentError."""
    name = path.parts[-1].lower()
    suffix = _suffix(name)
    kind = _RUNS_CODE.get(suffix)
    if kind is not None:
        raise _refused(path, f"{suffix} is a {kind}", needed="safetensors or GGUF weights")
    if suffix not in ALLOWED_SUFFIXES and not _is_legal_text(name):
        raise _refused(
            path,
            f"{suffix or 'a name without suffix'} is not on the list of content edgekit carries",
            needed=" ".join(ALLOWED_SUFFIXES),
        )


def head_bytes(path: RelPath, size: int) -> int:
    """How many first bytes of a file of `size` bytes `check_weights_file` wants to see."""
    suffix = _suffix(path.parts[-1].lower())
    if suffix == ".json":
        return min(size, MAX_JSON_BYTES)
    if suffix == ".jinja":
        return min(size, MAX_TEMPLATE_BYTES)
    return min(size, HEAD_BYTES)


def check_weights_file(path: RelPath, head: bytes, size: int) -> None:
    """Refuse a file whose name or content edgekit does not carry.

    `head` is at least the first `head_bytes(path, size)` bytes, `size` the whole file's in bytes.
    Raises RefusedContentError that names the file and the reason.
    """
    check_weights_name(path)
    suffix = _suffix(path.parts[-1].lower())
    if suffix == ".gguf":
        problem = _gguf_problem(head, size)
    elif suffix == ".safetensors":
        problem = _safetensors_problem(head, size)
    else:
        problem = _magic_problem(head)
        if problem is None and suffix == ".json":
            problem = _json_problem(path, head, size)
        elif problem is None and suffix == ".jinja":
            problem = _template_problem(path, head, size)
        elif problem is None and suffix == ".model":
            problem = _tokenizer_problem(head)
        elif problem is None:
            problem = _text_problem(head)
    if problem is not None:
        raise _refused(path, problem)


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix}" if dot and stem else ""


def _is_legal_text(name: str) -> bool:
    """LICENSE, NOTICE and their kin, alone or with a plain ending such as LICENSE-APACHE."""
    return (
        any(name == known or name.startswith((f"{known}-", f"{known}_")) for known in ALLOWED_NAMES)
        and "." not in name
    )


def _magic_problem(head: bytes) -> str | None:
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return f"its first bytes are those of a {kind}"
    if head[257:262] == b"ustar":
        return "its first bytes are those of a tar archive"
    if _OLD_PICKLE.match(head):
        return "its first bytes are those of a pickle"
    return None


def _gguf_problem(head: bytes, size: int) -> str | None:
    if head[:4] != b"GGUF" or size < 24 or len(head) < 24:
        return "not a GGUF file"
    version = int.from_bytes(head[4:8], "little")
    if version not in (2, 3):
        return f"GGUF version {version} (2 and 3 are known, little-endian)"
    counts = int.from_bytes(head[8:16], "little"), int.from_bytes(head[16:24], "little")
    if max(counts) > MAX_GGUF_ITEMS:
        return f"a GGUF header with {counts[0]} tensors and {counts[1]} keys"
    return None


def _safetensors_problem(head: bytes, size: int) -> str | None:
    if size < 10 or len(head) < 9:
        return "too short to be a safetensors file"
    header = int.from_bytes(head[:8], "little")
    if not 2 <= header <= min(MAX_SAFETENSORS_HEADER, size - 8):
        return f"a safetensors header of {header} bytes in a file of {size} bytes"
    return None if head[8:9] == b"{" else "a safetensors header that is not JSON"


def _json_problem(path: RelPath, head: bytes, size: int) -> str | None:
    if size > MAX_JSON_BYTES:
        return f"JSON of {size} bytes (at most {MAX_JSON_BYTES})"
    if len(head) != size:
        return f"only {len(head)} of its {size} bytes could be read"
    try:
        value = json.loads(head.decode("utf-8"), object_pairs_hook=_unique)
        templates = list(json_chat_templates(value))
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({str(error)[:100]})"
    for name, text in templates:
        check_chat_template(text, f"{path} ({name})")
    if path.parts[-1].lower() == "modules.json" and _imports_foreign_module(value):
        return "it imports modules that are not sentence_transformers' own"
    return _code_problem(value)


def _template_problem(path: RelPath, head: bytes, size: int) -> str | None:
    if size > MAX_TEMPLATE_BYTES or len(head) != size:
        return f"a chat template of {size} bytes (at most {MAX_TEMPLATE_BYTES})"
    try:
        check_chat_template(head.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return None


def _imports_foreign_module(value: Any) -> bool:
    """sentence_transformers imports each module by the dotted name under `type`."""
    items = value if isinstance(value, list) else [value]
    names = [item.get("type") if isinstance(item, dict) else None for item in items]
    return not all(
        isinstance(name, str) and name.startswith("sentence_transformers.") for name in names
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A repeated key may be read differently by the engine, so an `auto_map` could hide in it."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is given twice")
    return table


def _code_problem(value: Any) -> str | None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key in _CODE_KEYS:
                if item.get(key):
                    return f"its key {key} imports Python code"
            if item.get("class_name") == "Lambda":
                return "it describes a Keras layer made of Python code"
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return None


def _tokenizer_problem(head: bytes) -> str | None:
    """SentencePiece (a protobuf whose first field is 1) or a tiktoken table of text lines."""
    return None if head[:1] == b"\x0a" else _text_problem(head)


def _text_problem(head: bytes) -> str | None:
    if b"\0" in head:
        return "binary content under a text name"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return None


def _refused(path: RelPath, reason: str, needed: str | None = None) -> RefusedContentError:
    return RefusedContentError(
        f"{path} is refused: {reason}", where=str(path), found=reason, needed=needed
    )
