"""Writing a set's folder: volumes first, then the documents that vouch for them, signatures last.

Everything is decided before: what the set holds, who signs, which roots it carries. The order makes
an interrupted folder worthless on purpose: without `release.json` no host takes it for a set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.core import set_files, trust
from edgekit.core.events import Listener
from edgekit.core.layout import plan_layout
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    Manifest,
    encode_manifest,
    encode_volume_table,
)
from edgekit.core.set_readme import render_readme
from edgekit.core.sshsig import allowed_signer, sign_ssh
from edgekit.errors import FormatError
from edgekit.system.bundle_set import expected_sums
from edgekit.system.files import durable_write, read_bounded
from edgekit.system.signing import FileSigner, sign_payload
from edgekit.system.volumes import BlobSource, write_volumes


@dataclass(frozen=True, slots=True)
class SetDraft:
    """All of a set, decided but not written.

    `blobs` are the distinct contents of the manifest's entries in the order they are laid out.
    `roots` are the root documents to carry, oldest first; the last one is what the set is signed
    under. `expires` is TUF's timestamp. `volume_bytes` is cut down to whole blocks.
    """

    manifest: Manifest
    blobs: tuple[BlobSource, ...]
    installer: Path
    epoch: int
    sequence: int
    expires: str
    digest_algorithm: str
    roots: tuple[bytes, ...]
    signers: tuple[FileSigner, ...]
    volume_bytes: int = MAX_VOLUME_BYTES


def write_set(folder: Path, draft: SetDraft, listener: Listener) -> None:
    """Write every file of the set into an empty folder.

    Raises DiskFullError, PrivilegeError or HostError, SignatureError when the signers do not
    satisfy the newest root, FormatError for volumes smaller than a block. The caller owns the
    folder and removes it on failure.
    """
    block_multiple = draft.volume_bytes // BLOCK_BYTES * BLOCK_BYTES
    if not block_multiple:
        raise FormatError("volumes are at least one block", needed=f"{BLOCK_BYTES} bytes")
    sizes, extents = plan_layout(
        [(blob.digest, blob.size) for blob in draft.blobs], volume_bytes=block_multiple
    )
    table = write_volumes(
        folder, draft.blobs, sizes, extents, algorithm=draft.digest_algorithm, listener=listener
    )
    roots = [trust.restore_root(data) for data in draft.roots]
    signed = _unsigned_documents(draft, roots) | {set_files.VOLUMES: encode_volume_table(table)}
    installer = read_bounded(draft.installer, set_files.MAX_INSTALLER_BYTES, "installer")
    release = _sign_release(draft, signed | {set_files.INSTALLER: installer})
    statement = trust.verify_release(roots[-1], release)
    sums = expected_sums(statement, table, release)
    (folder / set_files.TRUST).mkdir()
    for name, data in signed.items():
        durable_write(folder / name, data)
    durable_write(folder / set_files.INSTALLER, installer, mode=0o755)
    durable_write(folder / set_files.SUMS, sums)
    signature = sign_ssh(draft.signers[0].ssh_key, sums)
    durable_write(folder / set_files.SUMS_SIGNATURE, signature)
    durable_write(folder / set_files.RELEASE, release)


def _unsigned_documents(draft: SetDraft, roots: list[trust.TrustedRoot]) -> dict[str, bytes]:
    """The small files of the set that do not depend on its volumes, by name."""
    readme = render_readme(
        draft.manifest,
        roots[-1],
        [allowed_signer(signer.name, signer.ssh_key.public_key()) for signer in draft.signers],
    )
    return {
        set_files.MANIFEST: encode_manifest(draft.manifest),
        set_files.README: readme.encode(),
        **{f"{set_files.TRUST}/{root.version}.root.json": root.data for root in roots},
    }


def _sign_release(draft: SetDraft, files: dict[str, bytes]) -> bytes:
    payload = trust.release_payload(
        name=draft.manifest.name,
        version=draft.manifest.version,
        epoch=draft.epoch,
        sequence=draft.sequence,
        created=draft.manifest.created,
        min_edgekit=__version__,
        expires=draft.expires,
        files=dict(files),
    )
    return sign_payload(payload, draft.signers)
