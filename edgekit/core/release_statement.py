"""Release statements: what a set is, and the digests of the files that describe it (step V3).

A statement is a TUF targets document in an envelope. `verify_release` is the one maker of a
`ReleaseStatement`; whoever is still to sign works with a `DraftStatement`, which installs nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tuf.api.dsse import Targets

from edgekit.core.digest import Digest
from edgekit.core.envelope import parse_envelope
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN
from edgekit.core.release import VERSION_PATTERN
from edgekit.core.root import MAX_EPOCH, MAX_SEQUENCE, TrustedRoot
from edgekit.core.signers import Tally, tally_signers, verify_threshold
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FormatError

MAX_RELEASE_BYTES = 512 << 10
MAX_FILES = 1000
RELEASE_FIELD = "x-edgekit-release"


@dataclass(frozen=True, slots=True)
class ReleaseContent:
    """What a release statement says, whoever signed it.

    `files` are (name inside the set, length in bytes, SHA-384 hex). `created` and `expires` are
    Unix seconds. `digest` identifies the statement: the SHA-384 of the signed payload.
    """

    name: str
    version: str
    epoch: int
    sequence: int
    created: int
    expires: int
    min_edgekit: str
    files: tuple[tuple[str, int, str], ...]
    digest: Digest

    @property
    def generation(self) -> str:
        """The id of the generation this release installs as."""
        return f"{self.name}-{self.version}-{self.digest.short}"


@dataclass(frozen=True, slots=True)
class ReleaseStatement(ReleaseContent):
    """A verified release statement. `signers` are those whose signatures counted."""

    signers: tuple[str, ...]
    policy: str


@dataclass(frozen=True, slots=True)
class DraftStatement(ReleaseContent):
    """A statement that may lack signatures. It vouches for nothing; `tally` says who is missing."""

    tally: Tally


def verify_release(trusted: TrustedRoot, data: bytes) -> ReleaseStatement:
    """Step V3: the release statement against root's targets role and policy.

    Raises SignatureError or FormatError. Nothing of the payload is parsed before that.
    """
    envelope = parse_envelope(data, MAX_RELEASE_BYTES, "release.json")
    signers = verify_threshold(_tally(trusted, envelope))
    content = _parse_content(envelope.payload, trusted)
    return ReleaseStatement(**_values(content), signers=signers, policy=trusted.policy)


def read_draft_release(trusted: TrustedRoot, data: bytes) -> DraftStatement:
    """Step V3 without the threshold, for those who are asked to sign. Raises FormatError."""
    envelope = parse_envelope(data, MAX_RELEASE_BYTES, "release.json")
    content = _parse_content(envelope.payload, trusted)
    return DraftStatement(**_values(content), tally=_tally(trusted, envelope))


def release_payload(
    *,
    name: str,
    version: str,
    epoch: int,
    sequence: int,
    created: int,
    min_edgekit: str,
    expires: str,
    files: Mapping[str, bytes | tuple[int, str]],
) -> bytes:
    """Canonical bytes of a release statement; `files` maps names to bytes or (length, sha384)."""
    targets = {}
    for path, content in files.items():
        length, value = (
            (len(content), Digest.of(content).value) if isinstance(content, bytes) else content
        )
        targets[path] = {"length": length, "hashes": {"sha384": value}}
    return encode_canonical(
        {
            "_type": "targets",
            "spec_version": "1.0.31",
            "version": sequence,
            "expires": expires,
            "targets": targets,
            RELEASE_FIELD: {
                "name": name,
                "version": version,
                "epoch": epoch,
                "sequence": sequence,
                "created": created,
                "min_edgekit": min_edgekit,
            },
        }
    )


def _values(content: ReleaseContent) -> dict[str, Any]:
    return {field.name: getattr(content, field.name) for field in fields(content)}


def _tally(trusted: TrustedRoot, envelope: Any) -> Tally:
    return tally_signers(
        trusted.keys("targets"),
        trusted.threshold("targets"),
        trusted.policy,
        envelope,
        "release.json",
    )


def _parse_content(payload: bytes, trusted: TrustedRoot) -> ReleaseContent:
    table = parse_canonical(payload, max_bytes=MAX_RELEASE_BYTES, what="release statement")
    try:
        targets = Targets.from_dict(dict(table))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("release.json is no release statement", found=str(error)[:200]) from error
    if targets.delegations is not None:
        raise FormatError("release statement may not delegate")
    holder = Fields(targets.unrecognized_fields, "release")
    release = holder.table(RELEASE_FIELD)
    holder.finish()
    content = ReleaseContent(
        name=release.text("name", pattern=NAME_PATTERN),
        version=release.text("version", pattern=VERSION_PATTERN),
        epoch=release.integer("epoch", low=1, high=MAX_EPOCH),
        sequence=release.integer("sequence", low=1, high=MAX_SEQUENCE),
        created=release.integer("created", low=0, high=1 << 40),
        expires=int(targets.expires.timestamp()),
        min_edgekit=release.text("min_edgekit", max_length=40),
        files=_files(targets),
        digest=Digest.of(payload),
    )
    release.finish()
    if targets.version != content.sequence:
        raise FormatError("release statement has two sequence numbers")
    _check_times(content, trusted)
    return content


def _check_times(content: ReleaseContent, trusted: TrustedRoot) -> None:
    """A release is not made after its end or its root's.

    `created` raises hosts' time floors, so nobody may push them past what the root's signers said.
    """
    last = min(content.expires, trusted.expires)
    if content.created > last:
        raise FormatError(
            "release statement was made after it, or its root, expired",
            found=format_date(content.created),
            needed=f"{format_date(last)} or earlier",
        )


def format_date(seconds: int) -> str:
    """A day as people write it, `2026-11-23`, from Unix seconds."""
    return f"{dt.datetime.fromtimestamp(min(seconds, 253402300799), dt.UTC):%Y-%m-%d}"


def _files(targets: Targets) -> tuple[tuple[str, int, str], ...]:
    if len(targets.targets) > MAX_FILES:
        raise FormatError("release statement lists too many files", needed=f"at most {MAX_FILES}")
    found: list[tuple[str, int, str]] = []
    for path, target in sorted(targets.targets.items()):
        if set(target.hashes) != {"sha384"} or target.unrecognized_fields:
            raise FormatError(
                "release statement lists a file without exactly one SHA-384", found=path[:100]
            )
        Digest("sha384", target.hashes["sha384"])
        found.append((path, int(target.length), str(target.hashes["sha384"])))
    return tuple(found)
