"""The secrets of an audit log's writer: the key that signs checkpoints and the epoch's MAC key.

They lie beside the log, in a folder that the writer alone may read. The signing key stays; the MAC
key moves on with every epoch, and the one before is overwritten. `mac.key` has two sectors: the new
key is durable in one before the other is wiped, so a crash leaves one or both, never none. A key
that does not come from the one before waits in `mac.next` until the log says that it counts.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from edgekit.core.audit_checkpoint import CHECKPOINT_TYPE, Checkpoint, encode_checkpoint
from edgekit.core.audit_keys import KEY_BYTES, AuditKey, encode_audit_key, parse_audit_key
from edgekit.core.envelope import encode_envelope
from edgekit.errors import AuditFormatError
from edgekit.system.audit_files import signer_folder, unavailable
from edgekit.system.audit_secrets import MAC_KEY_NAME, SECTOR, read_mac_key
from edgekit.system.files import fsync_directory, write_all
from edgekit.system.signing import PairSigner, create_signer, load_signer

NEXT_KEY_NAME = "mac.next"

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Keyring:
    """Signs checkpoints and keeps the MAC key. Made by `create_keyring` or `load_keyring`."""

    def __init__(self, folder: Path, signer: PairSigner, key: AuditKey, slot: int) -> None:
        self._folder = folder
        self._signer = signer
        self._slot = slot
        self.key = key

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The checkpoint's envelope with both signatures. Raises TrustError."""
        payload = encode_checkpoint(checkpoint)
        signatures = self._signer.sign(payload, CHECKPOINT_TYPE)
        return encode_envelope(payload, signatures, CHECKPOINT_TYPE)

    def keep(self, key: AuditKey) -> None:
        """Keep this key from now on and wipe the one before. Raises OSError."""
        descriptor = os.open(self._folder / MAC_KEY_NAME, _FLAGS)
        try:
            new = 1 - self._slot
            _write_sector(descriptor, new, encode_audit_key(key))
            _write_sector(descriptor, self._slot, b"")
        finally:
            os.close(descriptor)
        self.key, self._slot = key, new

    def prepare(self, key: AuditKey) -> None:
        """Make a new key durable before the log says that it counts from the next epoch on.

        Raises OSError.
        """
        path = self._folder / NEXT_KEY_NAME
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(descriptor, encode_audit_key(key))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fsync_directory(self._folder)
        give_to_owner(self._folder, path)

    def prepared(self) -> AuditKey | None:
        """The key that `prepare` left, if it is whole. Raises OSError."""
        try:
            data = (self._folder / NEXT_KEY_NAME).read_bytes()
            key = parse_audit_key(data.rstrip(b"\n"))
        except (FileNotFoundError, AuditFormatError):
            return None
        return key if key.log_id == self.key.log_id else None

    def forget_prepared(self) -> None:
        """It is kept by now, or never counted. Raises OSError."""
        path = self._folder / NEXT_KEY_NAME
        if path.exists():
            path.unlink()
            fsync_directory(self._folder)

    def finish_change(self) -> None:
        """Write again what a cut or a failed sync left of `keep`. Raises AuditUnavailableError."""
        path = self._folder / MAC_KEY_NAME
        try:
            descriptor = os.open(path, _FLAGS)
            try:
                if os.pread(descriptor, SECTOR, (1 - self._slot) * SECTOR).strip(b"\0"):
                    _write_sector(descriptor, self._slot, encode_audit_key(self.key))
                    _write_sector(descriptor, 1 - self._slot, b"")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unavailable("cannot write the audit log's MAC key", path, error) from error


def create_keyring(directory: Path, log_id: str) -> Keyring:
    """Make the keys of a new log; the folder belongs to the log folder's owner. Raises OSError."""
    folder = signer_folder(directory, log_id)
    signer = create_signer(folder)
    key = AuditKey(log_id, 0, secrets.token_bytes(KEY_BYTES))
    flags = _FLAGS | os.O_CREAT | os.O_EXCL
    descriptor = os.open(folder / MAC_KEY_NAME, flags, 0o600)
    try:
        write_all(descriptor, bytes(2 * SECTOR))
        _write_sector(descriptor, 0, encode_audit_key(key))
    finally:
        os.close(descriptor)
    fsync_directory(folder)
    fsync_directory(directory)
    give_to_owner(directory, folder, *folder.iterdir())
    return Keyring(folder, signer, key, 0)


def load_keyring(directory: Path, log_id: str) -> Keyring:
    """The keys of a log that exists. Raises TrustError, or AuditFormatError for a damaged file."""
    folder = signer_folder(directory, log_id)
    signer = load_signer(f"file:{folder}")
    key, slot = read_mac_key(folder / MAC_KEY_NAME)
    if key.log_id != log_id:
        raise AuditFormatError("the audit log's MAC key is another log's", where=str(folder))
    keyring = Keyring(folder, signer, key, slot)
    keyring.finish_change()
    return keyring


def give_to_owner(directory: Path, *paths: Path) -> None:
    """What root makes between two runs of the writer must stay the writer's. Raises OSError."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _write_sector(descriptor: int, slot: int, data: bytes) -> None:
    padded = data.ljust(SECTOR, b"\0")
    if os.pwrite(descriptor, padded, slot * SECTOR) != SECTOR:
        raise OSError(f"short write to {MAC_KEY_NAME}")
    os.fdatasync(descriptor)
