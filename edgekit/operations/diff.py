"""`edgekit diff A B`: what another set brings, before anybody carries or installs it.

Both sets are verified first (V1 to V3, V5, V6; metadata only), so a diff is exactly as safe as an
installation. The floor (V4) is not asked: looking at an old set accepts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.core.carried_model import CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.release import Manifest
from edgekit.operations.verify import Trusting, host_trust
from edgekit.system.bundle_set import VerifiedSet, open_set, verify_set
from edgekit.system.trust_store import HostTrust


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `what` kind of thing, its name, and both sides in words; None is absence."""

    what: str
    name: str
    before: str | None
    after: str | None

    def table(self) -> dict[str, Any]:
        """The change as plain JSON values."""
        return {"what": self.what, "name": self.name, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class SetDiff:
    """What changed from A to B. Bytes are those of distinct blobs, whatever uses them."""

    a: str
    b: str
    changes: tuple[Change, ...]
    new_bytes: int
    shared_bytes: int
    gone_bytes: int

    def table(self) -> dict[str, Any]:
        """The diff as plain JSON values (`edgekit.diff/1`)."""
        return {
            "schema": "edgekit.diff/1",
            "a": self.a,
            "b": self.b,
            "same": not self.changes,
            "changes": [change.table() for change in self.changes],
            "bytes": {
                "new": self.new_bytes,
                "shared": self.shared_bytes,
                "gone": self.gone_bytes,
            },
        }


def diff_sets(a: Path, b: Path, trusting: Trusting) -> SetDiff:
    """Verify both sets and compare them; reads a few MB of each. Raises what `verify` raises."""
    return compare(*(_verified(folder, trusting) for folder in (a, b)))


def _verified(folder: Path, trusting: Trusting) -> VerifiedSet:
    host = HostTrust(host_trust(trusting, (folder,)).root)
    return verify_set(open_set((folder,)), host)


def compare(a: VerifiedSet, b: VerifiedSet) -> SetDiff:
    """What changed from A to B, grouped by kind. Pure."""
    changes: list[Change] = []
    for what, describe in (
        ("release", _release),
        ("signer", _signers),
        ("requirement", _requirements),
        ("model", _models),
        ("variant", _variants),
        ("adapter", _adapters),
        ("engine", _engines),
        ("image", _images),
        ("wheel", _wheels),
        ("file", _files),
    ):
        changes += _changes(what, describe(a), describe(b))
    before, after = _blobs(a.manifest), _blobs(b.manifest)
    return SetDiff(
        a.statement.generation,
        b.statement.generation,
        tuple(changes),
        sum(size for digest, size in after.items() if digest not in before),
        sum(size for digest, size in after.items() if digest in before),
        sum(size for digest, size in before.items() if digest not in after),
    )


def _changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[Change]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change(what, name, before.get(name), after.get(name))


def _release(verified: VerifiedSet) -> dict[str, str]:
    statement = verified.statement
    return {
        "name": statement.name,
        "version": statement.version,
        "epoch": str(statement.epoch),
        "sequence": str(statement.sequence),
        "policy": statement.policy,
        "root version": str(verified.root.version),
        "oldest edgekit that reads it": statement.min_edgekit,
        "users": str(verified.manifest.users),
    }


def _signers(verified: VerifiedSet) -> dict[str, str]:
    return dict.fromkeys(verified.statement.signers, "signed")


def _requirements(verified: VerifiedSet) -> dict[str, str]:
    needs = verified.manifest.requirements
    return {
        "architecture": needs.arch,
        "glibc": ".".join(map(str, needs.glibc)),
        "systemd": str(needs.systemd),
        **{f"cpu flag {flag}": "needed" for flag in needs.cpu_flags},
    }


def _models(verified: VerifiedSet) -> dict[str, str]:
    return {
        model.name: f"{model.family}, {model.parameter_count} parameters, {model.license}, "
        f"{model.context} tokens, {', '.join(model.capabilities)}, "
        f"canaries {_content(map(repr, model.canaries))}"
        for model in verified.manifest.models
    }


def _variants(verified: VerifiedSet) -> dict[str, str]:
    blobs = _blobs_by_path(verified.manifest)

    def describe(variant: CarriedVariant) -> str:
        digests = (str(blobs[str(path)]) for path in variant.files if str(path) in blobs)
        return f"{variant.bytes} bytes, content {_content(digests)}"

    return {
        f"{model.name} {variant.format} {variant.quantization}": describe(variant)
        for model in verified.manifest.models
        for variant in model.variants
    }


def _adapters(verified: VerifiedSet) -> dict[str, str]:
    blobs = _blobs_by_path(verified.manifest)
    return {
        f"{model.name} {adapter.format} {adapter.name}": f"{adapter.license}, content "
        f"{_content(str(blobs[str(path)]) for path in adapter.files if str(path) in blobs)}, "
        f"canaries {_content(map(repr, adapter.canaries))}"
        for model in verified.manifest.models
        for adapter in model.adapters
    }


def _engines(verified: VerifiedSet) -> dict[str, str]:
    def tree(prefix: str) -> Iterable[str]:
        for entry in verified.manifest.entries:
            if str(entry.path).startswith(f"{prefix}/"):
                yield f"{entry.path} {entry.digest} {entry.executable}"

    return {
        f"{engine.kind} ({engine.provider})": f"{engine.version}, "
        f"content {_content(tree(str(engine.prefix)))}"
        for engine in verified.manifest.engines
    }


def _images(verified: VerifiedSet) -> dict[str, str]:
    return {
        image.name: f"{image.reference} {image.manifest.algorithm}:{image.manifest.short}"
        for image in verified.manifest.images
    }


def _wheels(verified: VerifiedSet) -> dict[str, str]:
    """Wheels by project; a wheel's file name begins `project-version-` (PEP 427)."""
    found: dict[str, list[str]] = {}
    for entry in verified.manifest.entries:
        if entry.role == "wheel":
            project, _, rest = PurePosixPath(str(entry.path)).name.partition("-")
            found.setdefault(project, []).append(f"{rest} {entry.digest.short}")
    return {project: ", ".join(sorted(wheels)) for project, wheels in found.items()}


def _files(verified: VerifiedSet) -> dict[str, str]:
    """What no wheel, model, engine or image accounts for, one by one, and the installer."""
    manifest = verified.manifest
    named = {str(path) for model in manifest.models for path in model.files}
    named |= {str(path) for image in manifest.images for path in image.blobs}
    prefixes = tuple(f"{engine.prefix}/" for engine in manifest.engines)
    files = {
        str(entry.path): f"{entry.size} bytes, {entry.digest.short}"
        + (", executable" if entry.executable else "")
        for entry in manifest.entries
        if entry.role != "wheel"
        and str(entry.path) not in named
        and not str(entry.path).startswith(prefixes)
    }
    for name, size, value in verified.statement.files:
        if name == "edgekit":
            files[name] = f"{size} bytes, {value[:12]}"
    return files


def _content(parts: Iterable[str]) -> str:
    """A short name for content, equal for equal content."""
    return Digest.of("\n".join(parts).encode()).short


def _blobs_by_path(manifest: Manifest) -> dict[str, Digest]:
    return {str(entry.path): entry.digest for entry in manifest.entries}


def _blobs(manifest: Manifest) -> dict[Digest, int]:
    return {entry.digest: entry.size for entry in manifest.entries}
