"""Writing a set's folder: volumes first, then the documents that vouch for them, signatures last.

Everything is decided before: what the set holds, who signs, which roots it carries. The order makes
an interrupted folder worthless on purpose: without `release.json` no host takes it for a set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.core import attestation, provenance, set_files, trust
from edgekit.core.digest import Digest
from edgekit.core.events import Listener
from edgekit.core.layout import plan_layout
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    Manifest,
    VolumeTable,
    encode_manifest,
    encode_volume_table,
)
from edgekit.core.set_readme import render_readme
from edgekit.core.signers import load_public_key
from edgekit.core.sshsig import allowed_signer
from edgekit.errors import FormatError
from edgekit.system.bundle_set import expected_sums, open_set, verify_set
from edgekit.system.files import durable_write, read_bounded
from edgekit.system.signing import PairSigner, sign_payload
from edgekit.system.trust_store import HostTrust
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import BlobSource, write_volumes


@dataclass(frozen=True, slots=True)
class SetDraft:
    """All of a set, decided but not written.

    `blobs` are the distinct contents of the manifest's entries in the order they are laid out.
    `roots` are the root documents to carry, oldest first; the last one is what the set is signed
    under. `expires` is TUF's timestamp. `volume_bytes` is cut down to whole blocks. `sbom` is the
    bill of materials, maybe empty; with `build` the set carries provenance and, once complete, a
    summary. `signers` may be fewer than that root's threshold, or none: the rest sign later
    (`write_signatures`).
    """

    manifest: Manifest
    blobs: tuple[BlobSource, ...]
    installer: Path
    epoch: int
    sequence: int
    expires: str
    digest_algorithm: str
    roots: tuple[bytes, ...]
    signers: tuple[PairSigner, ...]
    volume_bytes: int = MAX_VOLUME_BYTES
    sbom: bytes = b""
    build: provenance.Build | None = None


def write_set(
    folder: Path, draft: SetDraft, listener: Listener, index: VolumeIndex | None = None
) -> None:
    """Write every file of the set into an empty folder; volumes `index` knows are linked.

    Raises SourceDigestError for a source that changed, DiskFullError, PrivilegeError or HostError,
    FormatError for volumes smaller than a block.
    The caller owns the folder and removes it on failure.
    """
    block_multiple = draft.volume_bytes // BLOCK_BYTES * BLOCK_BYTES
    if not block_multiple:
        raise FormatError("volumes are at least one block", needed=f"{BLOCK_BYTES} bytes")
    sizes, extents = plan_layout(
        [(blob.digest, blob.size) for blob in draft.blobs], volume_bytes=block_multiple
    )
    table = write_volumes(
        folder,
        draft.blobs,
        sizes,
        extents,
        algorithm=draft.digest_algorithm,
        listener=listener,
        index=index,
    )
    write_documents(folder, draft, table)


def write_documents(folder: Path, draft: SetDraft, table: VolumeTable) -> None:
    """Write everything but the volumes, which lie in the folder already, as the table says.

    Raises for a draft with a `build` all that `verify_set` raises.
    """
    root = trust.restore_root(draft.roots[-1])
    installer = read_bounded(draft.installer, set_files.MAX_INSTALLER_BYTES, "installer")
    durable_write(folder / set_files.INSTALLER, installer, mode=0o755)
    files: dict[str, bytes | tuple[int, str]] = {
        set_files.INSTALLER: (len(installer), Digest.of(installer).value)
    }
    documents = _documents(draft, root, table)
    missing = _write_signed(folder, draft, root, table, files, documents)
    if draft.build is not None and not missing:
        # The summary says that the set verified, so the set must be there and do so first.
        verify_set(open_set((folder,)), HostTrust(root))
        documents[set_files.SUMMARY] = _summary(draft, draft.build, root, documents, table)
        _write_signed(folder, draft, root, table, files, documents)


def _write_signed(
    folder: Path,
    draft: SetDraft,
    root: trust.TrustedRoot,
    table: VolumeTable,
    files: dict[str, bytes | tuple[int, str]],
    documents: dict[str, bytes],
) -> int:
    """Write the documents, then what vouches for them and for the `files` already written.

    Returns how many signatures are missing.
    """
    release = _sign_release(draft, {**files, **documents})
    statement = trust.read_draft_release(root, release)
    for name, data in documents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        durable_write(folder / name, data)
    last = draft.signers[-1] if draft.signers else None
    write_signatures(folder, release, statement, table, last)
    return statement.tally.missing


def write_signatures(
    folder: Path,
    release: bytes,
    statement: trust.ReleaseContent,
    table: VolumeTable,
    last: PairSigner | None,
) -> None:
    """Write `release.json` and the two stranger's files that cover it.

    SHA384SUMS holds the digest of `release.json`, so every further signature makes it anew, and
    whoever signs last signs it too (`last`, None when nobody has signed yet). Interrupted between
    the files, no host takes the set; running it again with the same signer repairs that.
    """
    sums = expected_sums(statement, table, release)
    durable_write(folder / set_files.SUMS, sums)
    if last is not None:
        durable_write(folder / set_files.SUMS_SIGNATURE, last.sign_ssh(sums))
    durable_write(folder / set_files.RELEASE, release)


def _documents(draft: SetDraft, root: trust.TrustedRoot, table: VolumeTable) -> dict[str, bytes]:
    """The small files of the set, by name, all but the summary."""
    readme = render_readme(
        draft.manifest,
        root,
        [
            allowed_signer(name, load_public_key(keys.classical))
            for name, keys in sorted(root.keys("targets").items())
        ],
    )
    roots = [trust.restore_root(data) for data in draft.roots]
    documents = {
        set_files.MANIFEST: encode_manifest(draft.manifest),
        set_files.VOLUMES: encode_volume_table(table),
        set_files.README: readme.encode(),
        **{f"{set_files.TRUST}/{each.version}.root.json": each.data for each in roots},
    }
    if draft.sbom:
        documents[set_files.SBOM] = draft.sbom
    if draft.build is not None and draft.signers:
        subjects = provenance.set_subjects(documents, table)
        statement = provenance.encode_provenance(draft.build, subjects)
        documents[set_files.PROVENANCE] = _attest(statement, draft.signers)
    return documents


def _summary(
    draft: SetDraft,
    build: provenance.Build,
    root: trust.TrustedRoot,
    documents: dict[str, bytes],
    table: VolumeTable,
) -> bytes:
    statement = provenance.encode_summary(
        build,
        provenance.set_subjects(documents, table),
        policy=root.policy,
        root=Digest("sha384", root.fingerprint),
        provenance=documents[set_files.PROVENANCE],
    )
    return _attest(statement, draft.signers)


def _attest(statement: bytes, signers: tuple[PairSigner, ...]) -> bytes:
    """The statement in an envelope with both signatures of every signer."""
    message = attestation.pre_authentication_encoding(statement)
    return attestation.encode_attestation(
        statement,
        [key.sign(message) for each in signers for key in (each.classical, each.post_quantum)],
    )


def _sign_release(draft: SetDraft, files: dict[str, bytes | tuple[int, str]]) -> bytes:
    payload = trust.release_payload(
        name=draft.manifest.name,
        version=draft.manifest.version,
        epoch=draft.epoch,
        sequence=draft.sequence,
        created=draft.manifest.created,
        min_edgekit=__version__,
        expires=draft.expires,
        files=files,
    )
    return sign_payload(payload, draft.signers)
