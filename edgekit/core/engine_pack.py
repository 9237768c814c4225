"""Engine packs as the manifest describes them: what starts, and what it asks of a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN, RelPath

KINDS = ("llama.cpp", "vllm")
ACCELERATORS = ("cpu", "cuda", "rocm", "vulkan")


@dataclass(frozen=True, slots=True)
class EnginePack:
    """An engine in the set: its tree's prefix in the entries and the program to start.

    What it asks of a host: `cpu_flags` as /proc/cpuinfo shows them, the C library (0, 0 when it
    brings its own), the `accelerator` it can drive, and for CUDA the toolkit it was built with and
    the compute capabilities (75 for 7.5) compiled in, all that the toolkit knows when empty.
    `python` is the host interpreter a wheelhouse needs, empty when the pack brings its own.
    `image` names the container image of an engine that is one; `program` is then its manifest.
    """

    kind: str
    provider: str
    version: str
    prefix: RelPath
    program: RelPath
    cpu_flags: tuple[str, ...] = ()
    glibc: tuple[int, int] = (0, 0)
    accelerator: str = "cpu"
    cuda: tuple[int, int] = (0, 0)
    capabilities: tuple[int, ...] = ()
    python: str = ""
    image: str = ""


def engine_table(pack: EnginePack) -> dict[str, Any]:
    """A pack as plain JSON values, for the manifest."""
    return {
        "kind": pack.kind,
        "provider": pack.provider,
        "version": pack.version,
        "prefix": str(pack.prefix),
        "program": str(pack.program),
        "cpu_flags": list(pack.cpu_flags),
        "glibc": list(pack.glibc),
        "accelerator": pack.accelerator,
        "cuda": list(pack.cuda),
        "capabilities": list(pack.capabilities),
        "python": pack.python,
        **({"image": pack.image} if pack.image else {}),
    }


def parse_engine(fields: Fields) -> EnginePack:
    """One pack of a manifest. Raises FormatError."""
    pack = EnginePack(
        kind=fields.text("kind", choices=KINDS),
        provider=fields.text("provider", pattern=NAME_PATTERN),
        version=fields.text("version", max_length=60),
        prefix=RelPath(fields.text("prefix", max_length=1024)),
        program=RelPath(fields.text("program", max_length=1024)),
        cpu_flags=fields.texts("cpu_flags", max_items=64, pattern=r"[a-z0-9_]{1,30}"),
        glibc=parse_pair(fields, "glibc"),
        accelerator=fields.text("accelerator", choices=ACCELERATORS),
        cuda=parse_pair(fields, "cuda"),
        capabilities=_capabilities(fields),
        python=fields.text("python", pattern=r"([0-9]{1,3}\.[0-9]{1,3})?"),
        image=fields.text("image", pattern=NAME_PATTERN) if "image" in fields else "",
    )
    fields.finish()
    if (pack.provider == "image") != bool(pack.image):
        raise fields.fail("image", "an engine from an image, and no other, names it")
    return pack


def _capabilities(fields: Fields) -> tuple[int, ...]:
    values = fields.take("capabilities", list)
    if len(values) > 32 or not all(type(value) is int and 0 < value < 1000 for value in values):
        raise fields.fail("capabilities", "expected at most 32 numbers such as 75 or 120")
    return tuple(values)


def parse_pair(fields: Fields, key: str) -> tuple[int, int]:
    """A version of two numbers."""
    pair = fields.take(key, list)
    if len(pair) != 2 or not all(type(part) is int and 0 <= part < 1000 for part in pair):
        raise fields.fail(key, "expected two small integers")
    return pair[0], pair[1]
