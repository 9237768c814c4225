"""`edgekit verify` and `edgekit inspect`: what is this set, who signed it, is every byte right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core import set_files, trust
from edgekit.core.attestation import verify_attestation
from edgekit.core.events import Listener
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import format_parameters
from edgekit.core.provenance import (
    Provenance,
    Summary,
    check_subjects,
    parse_provenance,
    parse_summary,
    set_subjects,
)
from edgekit.core.sbom import Sbom, parse_sbom
from edgekit.errors import FingerprintError, FormatError
from edgekit.system.bundle_set import UnverifiedSet, VerifiedSet, open_set, verify_set
from edgekit.system.files import read_bounded
from edgekit.system.trust_store import HostTrust, TrustStore
from edgekit.system.volumes import read_volumes


@dataclass(frozen=True, slots=True)
class Trusting:
    """Whom to trust for one command: the host's store, or a root named by its fingerprint."""

    layout: HostLayout
    fingerprint: str | None = None
    insecure_developer: bool = False
    must_match_host: bool = False
    """For commands that change the host: its own root and floor count, once it has them."""


def host_trust(trusting: Trusting, folders: tuple[Path, ...]) -> HostTrust:
    """The trust to verify against. With a fingerprint one of the set's own roots may serve.

    Raises TrustError, or FingerprintError also when the host trusts another root and must match.
    """
    stored = TrustStore(trusting.layout.trust).load()
    if trusting.fingerprint is None:
        return stored
    if trusting.must_match_host and stored.root is not None:
        if stored.root.fingerprint != trust.plain_fingerprint(trusting.fingerprint):
            raise FingerprintError(
                "this host already trusts another root",
                found=trust.format_fingerprint(stored.root.fingerprint),
                needed=trust.format_fingerprint(trust.plain_fingerprint(trusting.fingerprint)),
                hint="edgekit trust show; leave --fingerprint away to use the host's own root",
            )
        return stored
    data = _root_named(open_set(folders), trusting.fingerprint)
    root = trust.trust_first_root(
        data, trusting.fingerprint, insecure_developer=trusting.insecure_developer
    )
    return HostTrust(root)


def _root_named(opened: UnverifiedSet, expected: str) -> bytes:
    """The carried root with this fingerprint, else the oldest one, for the complaint."""
    names = sorted(name for name in opened.files if name.startswith(f"{set_files.TRUST}/"))
    roots = [read_bounded(opened.files[name], trust.MAX_ROOT_BYTES, name) for name in names]
    wanted = trust.plain_fingerprint(expected)
    return next((data for data in roots if trust.fingerprint(data) == wanted), [*roots, b""][0])


def verify_metadata(
    folders: tuple[Path, ...], trusting: Trusting, *, check_installer: bool = True
) -> VerifiedSet:
    """Steps V1 to V6: reads a few MB, whatever the set's size, and the installer on demand."""
    trusted = host_trust(trusting, folders)
    return verify_set(open_set(folders), trusted, check_installer=check_installer)


@dataclass(frozen=True, slots=True)
class Attested:
    """What a set says of itself beside its manifest; None for what it does not carry.

    `documents` are the verified bytes by file name: the bill of materials, and each statement out
    of its envelope.
    """

    sbom: Sbom | None
    provenance: Provenance | None
    summary: Summary | None
    documents: dict[str, bytes]

    def document(self, name: str) -> bytes:
        """One document. Raises FormatError when the set does not carry it."""
        data = self.documents.get(name)
        if data is None:
            raise FormatError(f"this set carries no {name}", hint="edgekit inspect SET")
        return data


def attested(verified: VerifiedSet) -> Attested:
    """The set's bill of materials and attestations, checked against its root and its own files.

    One of the root's signers made them; that the others stand by them follows from the release
    they all signed. Raises SignatureError or FormatError for an attestation by others, or about
    other bytes.
    """
    files = verified.metadata
    subjects = set_subjects(files, verified.table)
    statements = {
        name: verify_attestation(verified.root, files[name], name, threshold=1)
        for name in (set_files.PROVENANCE, set_files.SUMMARY)
        if name in files
    }
    for name, statement in statements.items():
        check_subjects(statement, subjects, name)
    made = statements.get(set_files.PROVENANCE)
    checked = statements.get(set_files.SUMMARY)
    sbom = files.get(set_files.SBOM)
    documents = {name: statement.payload for name, statement in statements.items()}
    return Attested(
        sbom=None if sbom is None else parse_sbom(sbom),
        provenance=None if made is None else parse_provenance(made),
        summary=None if checked is None else parse_summary(checked),
        documents=documents if sbom is None else documents | {set_files.SBOM: sbom},
    )


def verify_everything(
    folders: tuple[Path, ...], trusting: Trusting, listener: Listener
) -> VerifiedSet:
    """Steps V1 to V7: every byte of the set is read once and checked; nothing is written."""
    verified = verify_metadata(folders, trusting)
    read_volumes(
        verified.table,
        verified.volume_path,
        wanted=None,
        sink=None,
        listener=listener,
        task="verify",
    )
    return verified


def inspection(verified: VerifiedSet) -> dict[str, Any]:
    """What is inside, as plain JSON values (`edgekit.inspect/1`).

    Raises as `attested`.
    """
    manifest, statement = verified.manifest, verified.statement
    by_role: dict[str, dict[str, int]] = {}
    for entry in manifest.entries:
        row = by_role.setdefault(entry.role, {"files": 0, "bytes": 0})
        row["files"] += 1
        row["bytes"] += entry.size
    return {
        "schema": "edgekit.inspect/1",
        "name": manifest.name,
        "version": manifest.version,
        "epoch": statement.epoch,
        "sequence": statement.sequence,
        "created": manifest.created,
        "statement": str(statement.digest),
        "generation": statement.generation,
        "signed_by": list(statement.signers),
        "policy": statement.policy,
        "developer_root": verified.root.developer,
        "root_version": verified.root.version,
        "requirements": {
            "arch": manifest.requirements.arch,
            "glibc": ".".join(map(str, manifest.requirements.glibc)),
            "cpu_flags": list(manifest.requirements.cpu_flags),
        },
        "bytes": manifest.total_bytes(),
        "volumes": [{"name": v.name, "bytes": v.size} for v in verified.table.volumes],
        "roles": by_role,
        "engines": [
            {"kind": e.kind, "provider": e.provider, "version": e.version} for e in manifest.engines
        ],
        "rehearsed_on": manifest.rehearsed_on,
        "models": [
            {
                "name": m.name,
                "license": m.license,
                "family": m.family,
                "parameters": format_parameters(m.parameter_count),
                "context": m.context,
                "variants": [
                    {"format": v.format, "quantization": v.quantization, "bytes": v.bytes}
                    for v in m.variants
                ],
                "adapters": [
                    {"name": a.name, "format": a.format, "license": a.license}
                    for a in m.adapters
                ],
            }
            for m in manifest.models
        ],
        "images": [
            {"name": i.name, "reference": i.reference, "manifest": str(i.manifest)}
            for i in manifest.images
        ],
        "licenses": [
            {"path": str(entry.path), "bytes": entry.size}
            for entry in manifest.entries
            if entry.role == "license"
        ],
        **_attested_table(attested(verified)),
    }


def _attested_table(found: Attested) -> dict[str, Any]:
    """Bill of materials, provenance and summary; null for what the set does not carry."""
    table: dict[str, Any] = {"sbom": None, "provenance": None, "summary": None}
    if found.sbom is not None:
        table["sbom"] = {
            "serial_number": found.sbom.serial_number,
            "components": found.sbom.counts(),
            "licenses": {name: list(users) for name, users in found.sbom.licenses().items()},
        }
    if found.provenance is not None:
        table["provenance"] = {
            "builder": found.provenance.builder,
            "edgekit": found.provenance.edgekit,
            "recipe": found.provenance.recipe,
            "lock": found.provenance.lock,
            "inputs": found.provenance.inputs,
            "signed_by": list(found.provenance.signers),
        }
    if found.summary is not None:
        table["summary"] = {
            "verifier": found.summary.verifier,
            "result": found.summary.result,
            "levels": list(found.summary.levels),
            "policy": found.summary.policy,
            "signed_by": list(found.summary.signers),
        }
    return table
