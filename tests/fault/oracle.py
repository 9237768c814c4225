"""Old, new or bad: what a host's files say after a fault, judged without asking edgekit's system.

Only the pure readers of edgekit are used (documents, signatures, the audit chain), never the code
that writes files or recovers.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.core import trust
from edgekit.core.api_keys import parse_keys
from edgekit.core.audit_chain import LogLine, parse_head
from edgekit.core.audit_checkpoint import unsafe_read_checkpoint
from edgekit.core.audit_keys import AuditKey, parse_audit_key
from edgekit.core.audit_verify import Evidence, Verifier
from edgekit.core.derived import parse_derived
from edgekit.errors import EdgekitError
from tests.fault.snapshot import Node, Snapshot

OPT, STATE, ETC = "opt/edgekit", "var/lib/edgekit", "etc/edgekit"
CURRENT, GENERATIONS = f"{OPT}/current", f"{OPT}/generations"
BLOBS, TRUST, AUDIT = f"{STATE}/blobs/sha384", f"{STATE}/trust", f"{STATE}/audit"
STICK = "media/stick"
"""A medium that the host's evidence goes to."""

UNLIKE = ("receipt.json", "plan.json")
"""Files of a generation that differ from run to run: times, memory that was free."""

_KNOWN = re.compile(
    r"(opt|opt/edgekit|opt/edgekit/(current|generations(/.+)?)|etc|etc/edgekit"
    r"|etc/edgekit/((api-keys|models|audit\.signer)\.json|local\.key|tls(/.+)?)|var|var/lib|var/lib/edgekit"
    r"|media|media/stick(/.+)?"
    r"|var/lib/edgekit/(texts(/.+)?|\.audit\.removed(/.+)?|blobs(/.+)?|trust(/.+)?|audit(/.+)?|staging(/.+)?|[a-z-]+\.json))"
)
_TEMPORARY = re.compile(r"(.+/)?\.[^/]+\.(tmp|new)")
_LITTER = re.compile(
    r"(.+/)?(\.[^/]+\.(tmp|new|partial|old)(/.*)?|[0-9a-f]{96}\.part|mac\.next)"
    rf"|{STICK}/[^/]+\.partial(/.*)?"
)


@dataclass(frozen=True)
class Release:
    """A whole installation of one release, as a run without faults leaves it."""

    generation: str
    files: dict[str, Node]
    blobs: dict[str, bytes]

    @classmethod
    def captured(cls, generation: str, tree: Snapshot, digests: frozenset[str]) -> Release:
        """From a healthy tree; `digests` are those of the release's own blobs."""
        prefix = f"{GENERATIONS}/{generation}/"
        files = {name.removeprefix(prefix): node for name, node in tree.items()
                 if name.startswith(prefix)}
        blobs = {digest: tree[f"{BLOBS}/{digest}"].data or b"" for digest in digests}
        return cls(generation, files, blobs)


@dataclass(frozen=True)
class Expected:
    """One of the two states that an operation may leave.

    `current` serves (None: nothing does); `whole` are complete beside it; the floor's sequence and
    the root's version are one of `floors` and `roots`. `rotten` are blobs that were bad before.
    Of `has` each names a path that is there, and what its content holds; of `lacks` none is.
    """

    current: str | None
    whole: frozenset[str]
    floors: frozenset[int]
    roots: frozenset[int] = frozenset({1})
    rotten: frozenset[str] = frozenset()
    has: frozenset[tuple[str, bytes]] = frozenset()
    lacks: frozenset[tuple[str, bytes]] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """`state` is old, new or bad; `why` names everything that was wrong."""

    state: str
    why: tuple[str, ...] = ()


class Oracle:
    """Knows the releases; judges trees."""

    def __init__(self, releases: dict[str, Release]) -> None:
        self._releases = releases

    def release(self, label: str) -> Release:
        """A release by its label."""
        return self._releases[label]

    def judge(self, tree: Snapshot, old: Expected, new: Expected) -> Verdict:
        """New when everything of the new state holds, else old when the old does, else bad."""
        general = tuple(self._general(tree))
        if general:
            return Verdict("bad", general)
        not_new = tuple(self._differences(tree, new))
        if not not_new:
            return Verdict("new")
        not_old = tuple(self._differences(tree, old))
        if not not_old:
            return Verdict("old")
        return Verdict("bad", (*(f"not old: {text}" for text in not_old),
                               *(f"not new: {text}" for text in not_new)))

    def unsettled(self, tree: Snapshot) -> tuple[str, ...]:
        """What a command that ended well may not leave behind."""
        found = [f"litter: {name}" for name in tree if _LITTER.fullmatch(name)]
        found += [f"staged: {name}" for name in tree if name.startswith(f"{STATE}/staging/")]
        found += [f"marker: {name}" for name in tree
                  if re.fullmatch(rf"{STATE}/installing\.json", name)]
        return (*found, *_open_attempts(tree))

    # ------------------------------------------------------------------------------------ parts

    def _general(self, tree: Snapshot) -> Iterator[str]:
        """What is wrong in either state."""
        for name in tree:
            if not _KNOWN.fullmatch(name) and not _TEMPORARY.fullmatch(name):
                yield f"unknown path {name}"
        yield from _audit_problems(tree)
        yield from _key_problems(tree)
        yield from _derived_problems(tree)
        yield from _stick_problems(tree)
        for name, node in tree.items():
            if re.fullmatch(rf"{STATE}/installing\.json", name) and not _is_json(node):
                yield f"{name} is no JSON"

    def _differences(self, tree: Snapshot, expected: Expected) -> Iterator[str]:
        """Why the tree is not this state."""
        wanted = None
        if expected.current is not None:
            wanted = f"generations/{self._releases[expected.current].generation}"
        link = tree.get(CURRENT)
        if (link.target if link else None) != wanted:
            yield f"current is {link.target if link else None}, not {wanted}"
        for label in sorted(expected.whole):
            yield from self._not_whole(tree, self._releases[label], expected.rotten)
        yield from _trust_problems(tree, expected)
        for wanted, held in ((True, expected.has), (False, expected.lacks)):
            for path, content in held:
                if _holds(tree, path, content) != wanted:
                    yield f"{path} {content!r} is {'not there' if wanted else 'there'}"

    def _not_whole(
        self, tree: Snapshot, release: Release, rotten: frozenset[str]
    ) -> Iterator[str]:
        folder = f"{GENERATIONS}/{release.generation}"
        for name, node in release.files.items():
            found = tree.get(f"{folder}/{name}")
            if name == "receipt.json":
                if found is not None and not _is_json(found):
                    yield f"{release.generation}/{name} is no JSON"
            elif name in UNLIKE:
                if not _is_json(found):
                    yield f"{release.generation}/{name} is no JSON"
            elif found != node and not (found and _digest(found) in rotten):
                yield f"{release.generation}/{name} is {_said(found)}, not {_said(node)}"
        for digest, data in release.blobs.items():
            found = tree.get(f"{BLOBS}/{digest}")
            if digest not in rotten and (found is None or found.data != data):
                yield f"blob {digest[:8]} is {_said(found)}"
            elif found is not None and found.mode != 0o444:
                yield f"blob {digest[:8]} has mode {found.mode:o}"


def _digest(node: Node) -> str:
    return hashlib.sha384(node.data or b"").hexdigest()


def _said(node: Node | None) -> str:
    if node is None:
        return "missing"
    if node.data is None:
        return "no file"
    return f"{len(node.data)} bytes {hashlib.sha384(node.data).hexdigest()[:8]} mode {node.mode:o}"


def _is_json(node: Node | None) -> bool:
    try:
        json.loads(node.data if node and node.data is not None else b"?")
    except ValueError:
        return False
    return True


def _trust_problems(tree: Snapshot, expected: Expected) -> Iterator[str]:
    roots = [_root_version(tree[name].data or b"") for name in
             (f"{TRUST}/root.json", f"{TRUST}/root-b.json") if name in tree]
    version = max((found for found in roots if found), default=0)
    if roots and not version:
        yield "no copy of the root is good"
    elif version not in expected.roots:
        yield f"root {version}, not {sorted(expected.roots)}"
    floors = [_floor_sequence(tree[name].data or b"") for name in
              (f"{TRUST}/floor-a.json", f"{TRUST}/floor-b.json") if name in tree]
    sequence = max((found for found in floors if found is not None), default=0)
    if floors and all(found is None for found in floors):
        yield "no copy of the floor is good"
    elif sequence not in expected.floors:
        yield f"floor {sequence}, not {sorted(expected.floors)}"


@functools.lru_cache(maxsize=64)
def _root_version(data: bytes) -> int:
    try:
        return trust.restore_root(data).version
    except EdgekitError:
        return 0


@functools.lru_cache(maxsize=256)
def _floor_sequence(data: bytes) -> int | None:
    try:
        return trust.parse_floor(data).sequence
    except EdgekitError:
        return None


def _derived_problems(tree: Snapshot) -> Iterator[str]:
    node = tree.get(f"{ETC}/models.json")
    if node is not None:
        try:
            parse_derived(node.data or b"")
        except EdgekitError as error:
            yield f"models.json: {error.message}"


def _key_problems(tree: Snapshot) -> Iterator[str]:
    for name in (f"{ETC}/api-keys.json", f"{ETC}/local.key"):
        node = tree.get(name)
        if node is None:
            continue
        if node.mode != 0o600:
            yield f"{name} has mode {node.mode:o}"
        try:
            if name.endswith(".json"):
                parse_keys(node.data or b"")
            elif not (node.data or b"").startswith(b"ek_") or not (node.data or b"").endswith(
                b"\n"
            ):
                yield f"{name} is no key"
        except EdgekitError as error:
            yield f"{name}: {error.message}"


def _holds(tree: Snapshot, path: str, content: bytes) -> bool:
    return any(re.fullmatch(path, name) and content in (node.data or b"")
               for name, node in tree.items())


def _stick_problems(tree: Snapshot) -> Iterator[str]:
    """What has its name on the medium is whole."""
    for name, node in tree.items():
        data = node.data or b""
        try:
            if re.fullmatch(rf"{STICK}/.+\.checkpoint", name):
                unsafe_read_checkpoint(data)
            elif name == f"{STICK}/mac.key":
                parse_audit_key(data)
                if node.mode != 0o600:
                    yield f"{name} has mode {node.mode:o}"
            elif re.fullmatch(rf"{STICK}/[^/.]+/export\.json", name):
                payload = json.loads(base64.b64decode(json.loads(data)["payload"]))
                for file in payload["files"]:
                    found = tree.get(f"{name.rpartition('/')[0]}/{file['name']}")
                    if found is None or _digest(found) != file["sha384"]:
                        yield f"{name}: {file['name']} is {_said(found)}"
        except (EdgekitError, ValueError, KeyError) as error:
            yield f"{name}: {error}"


def _audit_lines(tree: Snapshot) -> Iterator[LogLine]:
    """Every whole line in the order of its segment; an unfinished last line is left out."""
    for name in sorted(tree):
        if re.fullmatch(rf"{AUDIT}/audit-[0-9]{{16}}\.jsonl", name):
            offset = 0
            data = tree[name].data or b""
            for line in data.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield LogLine(name.rpartition("/")[2], offset, line[:-1])
                offset += len(line)


def _audit_problems(tree: Snapshot) -> Iterator[str]:
    """The log up to its head must be intact; what a crash left after the head is recovered."""
    kept = tree.get(f"{AUDIT}/head.json")
    lines = list(_audit_lines(tree))
    if kept is None:
        if lines:
            yield "audit: records without a head"
        return
    sequence = 0
    try:
        head = parse_head((kept.data or b"").rstrip(b" \n"))
    except EdgekitError as error:
        yield f"audit: {error.message}"
        return
    first = int(lines[0].segment[6:22]) if lines else 1
    if first > 1 and not any(record["type"] == "retention" and record["last"] >= first - 1
                             for record in _audit_records(tree)):
        yield f"audit: no record says why the log begins with {first}"
    try:
        evidence = Evidence(keys=_mac_keys(tree), head=head, first=first)
        for verified in Verifier(evidence).check(lines):
            sequence = verified.seq
    except EdgekitError as error:
        if sequence < head.seq:
            yield f"audit: {error.message} after {sequence} of {head.seq} records"


def _mac_keys(tree: Snapshot) -> tuple[AuditKey, ...]:
    """Those that the writer keeps: one or both sectors, and one that waits."""
    keys = []
    for name, node in tree.items():
        if re.fullmatch(rf"{AUDIT}/audit-[0-9a-f]+/mac\.(key|next)", name):
            data = node.data or b""
            for start in range(0, len(data), 512):
                with contextlib.suppress(EdgekitError):
                    keys.append(parse_audit_key(data[start : start + 512].rstrip(b"\0")))
    return tuple(keys)


def _open_attempts(tree: Snapshot) -> Iterator[str]:
    """Attempts that no record closes."""
    attempts: dict[str, list[str]] = {}
    try:
        records = _audit_records(tree)
    except ValueError as error:  # a record that was written in part and ends a line all the same
        yield f"audit: a record is no JSON: {error}"
        return
    for record in records:
        verb, _, step = str(record["type"]).partition("_")
        if verb in ("install", "rollback"):
            attempts.setdefault(str(record["attempt"]), []).append(step)
    for name, steps in attempts.items():
        if steps[-1] not in ("commit", "abort"):
            yield f"audit: attempt {name} is {steps}"


def _audit_records(tree: Snapshot) -> list[dict[str, object]]:
    return [json.loads(line.data) for line in _audit_lines(tree)]
