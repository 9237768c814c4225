"""Environments that a host makes of wheels: of what, and what came of it. Pure.

Making one writes gigabytes, and what comes of it is a function of the pack's files and its wheels.
So a release notes what it has made (`edgekit.environments/1`), and a later one with the same pack
links those files, once they are seen to be what was noted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.names import RelPath
from edgekit.core.release import Entry
from edgekit.core.strict_json import parse_strict

SCHEMA = "edgekit.environments/1"
FILE = "environments.json"
"""In a generation's folder."""
MAX_BYTES = 1 << 20
MAX_ENVIRONMENTS = 64
_WAY = 1
"""Counts up when installing the same files makes another environment than before."""


@dataclass(frozen=True, slots=True)
class PlannedEnvironment:
    """A wheelhouse that becomes an environment inside its pack: wheels by file name and blob.

    `made_of` is the digest of everything that decides what comes of it.
    """

    prefix: RelPath
    wheels: tuple[tuple[str, Digest], ...]
    made_of: Digest


@dataclass(frozen=True, slots=True)
class MadeEnvironment:
    """What was made below `prefix`: `installed` is the digest of all files that installing added.
    """

    prefix: str
    made_of: str
    installed: str


def plan_environment(
    prefix: RelPath, tree: Iterable[Entry], wheels: Iterable[Entry]
) -> PlannedEnvironment:
    """The environment of a pack with these files and wheels."""
    houses = tuple((entry.path.parts[-1], entry.digest) for entry in wheels)
    parts = {
        "way": _WAY,
        "prefix": str(prefix),
        "tree": sorted((str(e.path), str(e.digest), e.executable) for e in tree),
        "wheels": sorted((name, str(digest)) for name, digest in houses),
    }
    return PlannedEnvironment(prefix, houses, Digest.of(json.dumps(parts).encode()))


def encode_environments(made: Iterable[MadeEnvironment]) -> bytes:
    """Readable deterministic JSON."""
    rows = [asdict(one) for one in made]
    return json.dumps({"schema": SCHEMA, "environments": rows}, indent=1).encode() + b"\n"


def parse_environments(data: bytes) -> tuple[MadeEnvironment, ...]:
    """Bytes of a release's file. Raises FormatError."""
    fields = Fields(parse_strict(data, max_bytes=MAX_BYTES, what=FILE))
    fields.text("schema", choices=(SCHEMA,))
    made = []
    for item in fields.items("environments", max_items=MAX_ENVIRONMENTS):
        one = MadeEnvironment(
            prefix=str(RelPath(item.text("prefix", max_length=1024))),
            made_of=str(Digest.parse(item.text("made_of"))),
            installed=str(Digest.parse(item.text("installed"))),
        )
        item.finish()
        made.append(one)
    fields.finish()
    return tuple(made)
