"""The one door for weights: the same checks before a set is made and before a host uses it.

Only names, headers and small texts are read, never tensor data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core import peft_adapter
from edgekit.core.adapter import AdapterShape
from edgekit.core.chat_template import json_chat_templates, template_capabilities
from edgekit.core.config_shape import config_shape
from edgekit.core.gguf import GgufHeader, read_gguf_header
from edgekit.core.gguf_adapter import check_gguf_adapter
from edgekit.core.gguf_mmproj import check_gguf_mmproj
from edgekit.core.gguf_rules import check_gguf_rules, default_template
from edgekit.core.gguf_shape import Shape, gguf_shape
from edgekit.core.names import RelPath
from edgekit.core.safetensors import SafetensorsHeader, read_safetensors_header
from edgekit.core.weights_policy import check_weights_file, head_bytes
from edgekit.errors import WeightsError
from edgekit.system.files import translate_os_error

INDEX_SUFFIX = ".index.json"
_RANKING_HEADS = ("cls.weight", "cls.output.weight")
"""Tensors that make one score of a vector. Source: llama.cpp src/llama-graph.cpp build_pooling."""


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What planning and the API need: architecture, number of weights, shape in elements.

    `capabilities` are what the chat template can format (`core.chat_template`), and `insert` where
    the vocabulary has tokens for filling in text (`core.infill`); `pooling` says
    whether the weights say how token vectors become one, as embedding models do.
    """

    family: str
    parameter_count: int
    shape: Shape
    capabilities: tuple[str, ...] = ()
    pooling: bool = False
    ranks: bool = False


def check_weights(
    format_: str, files: dict[RelPath, Path], mmproj: RelPath | None = None
) -> WeightsHeader:
    """Check all files of a variant: names, first bytes, headers, chat templates, remote code.

    `files` maps names to where the bytes lie, `mmproj` is the vision projector among them. Raises
    RefusedContentError for what edgekit does not carry, WeightsError for a header that lies,
    HostError for a file that cannot be read.
    """
    for name, path in files.items():
        check_stored_weights(name, path)
    try:
        if format_ == "gguf":
            own = {name: path for name, path in files.items() if name != mmproj}
            return _check_gguf(own, {n: p for n, p in files.items() if n == mmproj})
        return _check_safetensors(files)
    except OSError as error:
        raise translate_os_error(error, "reading weights") from error


def check_adapter(
    format_: str, files: dict[RelPath, Path], base: dict[RelPath, Path]
) -> AdapterShape:
    """Check an adapter's files against the weights it is for, which have been checked.

    `files` and `base` map names to where the bytes lie. Raises RefusedContentError, WeightsError
    or HostError.
    """
    for name, path in files.items():
        check_stored_weights(name, path)
    check = _gguf_adapter if format_ == "gguf" else _peft_adapter
    try:
        return check(files, base)
    except OSError as error:
        raise translate_os_error(error, "reading an adapter") from error


def _gguf_adapter(files: dict[RelPath, Path], base: dict[RelPath, Path]) -> AdapterShape:
    if len(files) != 1:
        raise _mixed("a GGUF adapter is one file", files)
    (name, path), (model, weights) = next(iter(files.items())), next(iter(base.items()))
    header, own = _gguf_header(name, path), _gguf_header(model, weights)
    return check_gguf_adapter(header, own, str(name))


def _peft_adapter(files: dict[RelPath, Path], base: dict[RelPath, Path]) -> AdapterShape:
    by_name = {name.parts[-1]: (name, path) for name, path in files.items()}
    if len(files) != 2 or set(by_name) != {peft_adapter.CONFIG, peft_adapter.TENSORS}:
        needed = f"{peft_adapter.CONFIG} and {peft_adapter.TENSORS}"
        raise _mixed(f"a safetensors adapter is {needed}", files)
    name, path = by_name[peft_adapter.TENSORS]
    shapes = {
        tensor.name: tensor.shape
        for own, place in base.items() if _suffix(own) == ".safetensors"
        for tensor in _safetensors_header(own, place).tensors
    }
    vocabulary = _config_shape(base).get("vocabulary", 0)
    assert isinstance(vocabulary, int)
    return peft_adapter.check_peft_adapter(
        _json(*by_name[peft_adapter.CONFIG]), _safetensors_header(name, path), shapes, vocabulary,
        str(name),
    )


def check_stored_weights(name: RelPath, stored: Path) -> None:
    """Check the bytes in `stored` against the weights policy, as a file named `name`.

    Raises RefusedContentError naming it, or HostError when `stored` cannot be read.
    """
    try:
        with stored.open("rb") as file:
            size = stored.stat().st_size
            head = file.read(head_bytes(name, size))
    except OSError as error:
        raise translate_os_error(error, f"reading {name}") from error
    check_weights_file(name, head, size)


def _check_gguf(files: dict[RelPath, Path], projector: dict[RelPath, Path]) -> WeightsHeader:
    name = next(iter(files), None)
    if name is None or len(files) != 1:
        raise WeightsError(
            "a GGUF variant is one file in this version",
            where=str(name),
            found=f"{len(files)} files",
        )
    header = _gguf_header(name, files[name])
    check_gguf_rules(header, str(name))
    shape = gguf_shape(header)
    able = ["insert"] if "infill_middle" in shape else []
    for own, path in projector.items():
        shape |= check_gguf_mmproj(_gguf_header(own, path), header, str(own)).table()
        able.append("vision")
    return WeightsHeader(
        family=header.text("general.architecture"),
        parameter_count=header.parameter_count(),
        shape=shape,
        capabilities=(*template_capabilities(default_template(header)), *able),
        pooling=f"{header.text('general.architecture')}.pooling_type" in header.metadata,
        ranks=any(tensor.name in _RANKING_HEADS for tensor in header.tensors),
    )


def _gguf_header(name: RelPath, path: Path) -> GgufHeader:
    with path.open("rb") as file:
        return read_gguf_header(file, path.stat().st_size, str(name))


def _check_safetensors(files: dict[RelPath, Path]) -> WeightsHeader:
    """Headers of all shards, and that the index, where there is one, tells the truth of them.

    The shape is what the configuration says; empty without one, which vLLM could not serve.
    """
    headers = {
        name: _safetensors_header(name, path)
        for name, path in files.items()
        if _suffix(name) == ".safetensors"
    }
    if not headers:
        raise _mixed("a safetensors variant has no .safetensors file", files)
    if any(_suffix(name) == ".gguf" for name in files):
        raise _mixed("a safetensors variant has a GGUF file", files)
    _check_names(headers)
    for name, path in files.items():
        if str(name).lower().endswith(INDEX_SUFFIX):
            _check_index(name, _json(name, path), headers)
    return WeightsHeader(
        family=_family(files),
        parameter_count=sum(header.parameter_count() for header in headers.values()),
        shape=_config_shape(files),
        capabilities=template_capabilities(_template(files)),
    )


def _safetensors_header(name: RelPath, path: Path) -> SafetensorsHeader:
    with path.open("rb") as file:
        return read_safetensors_header(file, path.stat().st_size, str(name))


def _check_names(headers: dict[RelPath, SafetensorsHeader]) -> None:
    """No tensor is in two files of one folder: which one counts would depend on the engine."""
    seen: set[tuple[str, str]] = set()
    for name, header in headers.items():
        folder = "/".join(name.parts[:-1])
        names = {(folder, tensor) for tensor in header.names()}
        if seen & names:
            raise WeightsError(
                "a tensor is in two files", where=str(name), found=min(seen & names)[1][:60]
            )
        seen |= names


def _check_index(name: RelPath, index: Any, headers: dict[RelPath, SafetensorsHeader]) -> None:
    table = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(table, dict):
        raise WeightsError("an index without a weight_map", where=str(name))
    folder = name.parts[:-1]
    here = {shard.parts[-1]: header for shard, header in headers.items()
            if shard.parts[:-1] == folder}
    names = {shard: header.names() for shard, header in here.items()}
    for tensor, shard in table.items():
        if not isinstance(shard, str) or tensor not in names.get(shard, ()):
            raise WeightsError(
                "the index names a tensor that is not where it says",
                where=str(name),
                found=f"{tensor[:60]} in {str(shard)[:60]}",
            )
    if len(table) != sum(map(len, names.values())):
        raise WeightsError("the index leaves out a tensor", where=str(name))


def _template(files: dict[RelPath, Path]) -> str:
    """The chat template of a Hugging Face folder: a file of its own, or in the configuration."""
    for name, path in files.items():
        if name.parts[-1] == "chat_template.jinja":
            return path.read_text(encoding="utf-8")
    for name, path in files.items():
        if name.parts[-1] in ("tokenizer_config.json", "chat_template.json"):
            for _, text in json_chat_templates(_json(name, path)):
                return text
    return ""


def _config_shape(files: dict[RelPath, Path]) -> Shape:
    for name, path in files.items():
        if name.parts[-1] == "config.json":
            return dict(config_shape(_json(name, path), str(name)))
    return {}


def _family(files: dict[RelPath, Path]) -> str:
    for name, path in files.items():
        if name.parts[-1] == "config.json":
            config = _json(name, path)
            value = config.get("model_type") if isinstance(config, dict) else None
            return value[:60] if isinstance(value, str) else ""
    return ""


def _json(name: RelPath, path: Path) -> Any:
    """JSON that `check_stored_weights` has already bounded and found to be without repeated keys.

    Not edgekit's strict form: real configurations hold `Infinity` and integers beyond 64 bits.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError("not valid JSON", where=str(name), found=str(error)[:100]) from error


def _suffix(name: RelPath) -> str:
    return "." + name.parts[-1].lower().rpartition(".")[2]


def _mixed(message: str, files: dict[RelPath, Path]) -> WeightsError:
    first = next(iter(files), None)
    listed = ", ".join(str(name) for name in files)[:200]
    return WeightsError(message, where=str(first), found=listed or "no files")
