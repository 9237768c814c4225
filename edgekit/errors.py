"""The whole error tree.

Every error edgekit raises on purpose is an `EdgekitError`: it has an exit code, a short slug, and
says what was found, what was needed, and where one exists the command to run next. Texts are lower
case without a full stop. Low-level exceptions are translated where they arise, never further up.

    EdgekitError
    |- FormatError 10: RecipeError 11, LockError 12, SetShapeError 13, WeightsError 14,
    |                  ConfigError 15
    |- TrustError 20: SignatureError 21, DigestError 22, RollbackError 23, FingerprintError 24
    |- HostError 30: IncompatibleHostError 31, InsufficientError 32, MissingToolError 33,
    |                PrivilegeError 34, PortInUseError 35
    |- InstallError 40: BusyError 41, NotInstalledError 42, DiskFullError 43,
    |                   ModelNotFoundError 44
    |- EngineError 50: EngineNotReadyError 51, WrongAnswerError 52
    |- AuditError 60: AuditAlteredError 60, AuditMissingError 61, AuditTruncatedError 62,
    |                 AuditFormatError 63, AuditUnavailableError 64, AuditKeyError 65,
    |                 AuditSealError 66, AuditCheckpointError 67
    `- SourceError 70: UnreachableError 71, SourceDigestError 72, RefusedContentError 73
"""

from __future__ import annotations

from typing import ClassVar

from edgekit.exit_codes import ExitCode


class EdgekitError(Exception):
    """Base of all expected failures.

    `where` names the file or object, `found` and `needed` are the two sides of the complaint, and
    `hint` is a command (or a short instruction for the courier) that helps. All but `message` may
    be None.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    slug: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        found: str | None = None,
        needed: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.found = found
        self.needed = needed
        self.hint = hint

    def details(self) -> dict[str, str]:
        """The parts that are present, in the order they are shown."""
        parts = {"where": self.where, "needed": self.needed, "found": self.found}
        return {name: text for name, text in parts.items() if text is not None}


class FormatError(EdgekitError):
    """Bytes are not in the format they claim."""

    exit_code = ExitCode.FORMAT
    slug = "format"


class RecipeError(FormatError):
    """A recipe or profile is wrong; `where` is file, key and line."""

    exit_code = ExitCode.RECIPE
    slug = "recipe"


class LockError(FormatError):
    """A lock is missing, stale, or not of this recipe."""

    exit_code = ExitCode.LOCK
    slug = "lock"


class SetShapeError(FormatError):
    """A file of the set is missing, foreign or has the wrong size."""

    exit_code = ExitCode.SET_SHAPE
    slug = "set-shape"


class WeightsError(FormatError):
    """A weights file is malformed or of a refused kind."""

    exit_code = ExitCode.MODEL_FORMAT
    slug = "weights"


class ConfigError(FormatError):
    """The site's configuration is wrong; `where` is file, key and line."""

    exit_code = ExitCode.CONFIG
    slug = "config"


class TrustError(EdgekitError):
    """No usable trusted root on this host."""

    exit_code = ExitCode.TRUST
    slug = "trust"


class SignatureError(TrustError):
    """Signatures do not reach the threshold of trusted signers."""

    exit_code = ExitCode.SIGNATURE
    slug = "signature"


class DigestError(TrustError):
    """Content differs from what was signed."""

    exit_code = ExitCode.DIGEST
    slug = "digest"


class RollbackError(TrustError):
    """The set is older than what this host has accepted."""

    exit_code = ExitCode.ROLLBACK
    slug = "rollback"


class FingerprintError(TrustError):
    """The root offered is not the one named by its fingerprint."""

    exit_code = ExitCode.FINGERPRINT
    slug = "fingerprint"


class HostError(EdgekitError):
    """The host cannot be probed or used."""

    exit_code = ExitCode.HOST
    slug = "host"


class IncompatibleHostError(HostError):
    """The set is for another kind of host."""

    exit_code = ExitCode.INCOMPATIBLE_HOST
    slug = "incompatible-host"


class InsufficientError(HostError):
    """Not enough memory or disk; `needed` and `found` are set."""

    exit_code = ExitCode.INSUFFICIENT
    slug = "insufficient"


class MissingToolError(HostError):
    """A program this command needs is not installed."""

    exit_code = ExitCode.MISSING_TOOL
    slug = "missing-tool"


class PrivilegeError(HostError):
    """The command needs more rights than it has."""

    exit_code = ExitCode.PERMISSION
    slug = "permission"


class PortInUseError(HostError):
    """Another program listens on the API's address."""

    exit_code = ExitCode.PORT_IN_USE
    slug = "port-in-use"


class InstallError(EdgekitError):
    """The installation failed; the host is as it was before."""

    exit_code = ExitCode.INSTALL
    slug = "install"


class BusyError(InstallError):
    """Another edgekit command holds the host's lock."""

    exit_code = ExitCode.BUSY
    slug = "busy"


class NotInstalledError(InstallError):
    """No release is installed under this root."""

    exit_code = ExitCode.NOT_INSTALLED
    slug = "not-installed"


class DiskFullError(InstallError):
    """A file system filled up; what was there before is intact."""

    exit_code = ExitCode.DISK_FULL
    slug = "disk-full"


class ModelNotFoundError(InstallError):
    """No model of this name is on this host."""

    exit_code = ExitCode.MODEL_NOT_FOUND
    slug = "model_not_found"


class EngineError(EdgekitError):
    """The engine does not start."""

    exit_code = ExitCode.ENGINE
    slug = "engine"


class EngineNotReadyError(EngineError):
    """The engine did not become ready in time."""

    exit_code = ExitCode.ENGINE_NOT_READY
    slug = "engine-not-ready"


class WrongAnswerError(EngineError):
    """The engine answers, but not what the set says it must."""

    exit_code = ExitCode.WRONG_ANSWER
    slug = "wrong-answer"


class AuditError(EdgekitError):
    """The audit log is not what it should be."""

    exit_code = ExitCode.AUDIT_ALTERED
    slug = "audit"


class AuditAlteredError(AuditError):
    """An audit record was changed."""

    exit_code = ExitCode.AUDIT_ALTERED
    slug = "audit-altered"


class AuditMissingError(AuditError):
    """Audit records are missing or out of order."""

    exit_code = ExitCode.AUDIT_MISSING
    slug = "audit-missing"


class AuditTruncatedError(AuditError):
    """The audit log is shorter than it once was."""

    exit_code = ExitCode.AUDIT_TRUNCATED
    slug = "audit-truncated"


class AuditFormatError(AuditError):
    """An audit record cannot be parsed."""

    exit_code = ExitCode.AUDIT_FORMAT
    slug = "audit-format"


class AuditUnavailableError(AuditError):
    """The audit writer cannot be reached or cannot write."""

    exit_code = ExitCode.AUDIT_UNAVAILABLE
    slug = "audit-unavailable"


class AuditKeyError(AuditError):
    """An audit record was not sealed with the key of its epoch."""

    exit_code = ExitCode.AUDIT_KEY
    slug = "audit-key"


class AuditSealError(AuditError):
    """An epoch, its heartbeat or its checkpoint is missing."""

    exit_code = ExitCode.AUDIT_SEAL
    slug = "audit-seal"


class AuditCheckpointError(AuditError):
    """A checkpoint has a bad signature, or does not fit the log or another checkpoint."""

    exit_code = ExitCode.AUDIT_CHECKPOINT
    slug = "audit-checkpoint"


class SourceError(EdgekitError):
    """A source did not give what the recipe asks for."""

    exit_code = ExitCode.SOURCE
    slug = "source"


class UnreachableError(SourceError):
    """A hub, index or registry cannot be reached."""

    exit_code = ExitCode.UNREACHABLE
    slug = "unreachable"


class SourceDigestError(SourceError):
    """A source sent other bytes than the lock recorded."""

    exit_code = ExitCode.SOURCE_DIGEST
    slug = "source-digest"


class RefusedContentError(SourceError):
    """A source offers content edgekit refuses to carry."""

    exit_code = ExitCode.REFUSED_CONTENT
    slug = "refused-content"
