"""Which texts the gateway keeps beside the audit log, and keeping them: policy, sealing, disk."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey

from edgekit.core.audit_texts import NONCE_BYTES, TextLabel, clear_text, recipient_id, seal_text
from edgekit.core.text_policy import TextMode, TextPolicy
from edgekit.errors import AuditUnavailableError, ConfigError, EdgekitError
from edgekit.system.audit_texts import TextStore


@dataclass(frozen=True, slots=True)
class TextKeeper:
    """The site's policy with what it takes to follow it. The default keeps no text.

    Raises ConfigError when the policy seals and nobody is there to seal to, or keeps texts and has
    nowhere to put them.
    """

    policy: TextPolicy = field(default_factory=TextPolicy)
    recipient: MLKEM1024PublicKey | None = None
    store: TextStore | None = None

    def __post_init__(self) -> None:
        modes = self.policy.modes()
        if TextMode.SEALED in modes and self.recipient is None:
            raise ConfigError(
                "texts are to be sealed, and there is no auditor's key to seal them to",
                needed="the file that audit.auditor_key names",
                hint="edgekit audit keygen DIR",
            )
        if self.store is None and any(mode.keeps_text for mode in modes):
            raise ConfigError("texts are to be kept, and there is no folder for them")

    def event(self) -> Mapping[str, Any]:
        """The audit event that says which policy holds from now on."""
        sealing = self.recipient if TextMode.SEALED in self.policy.modes() else None
        return {
            "type": "text_policy",
            "unit": "gateway",
            "default": self.policy.default.label,
            "keys": _spell(self.policy.keys),
            "models": _spell(self.policy.models),
            "recipient": "" if sealing is None else recipient_id(sealing),
        }

    async def keep(self, mode: TextMode, request_id: str, part: str, text: bytes) -> str | None:
        """Make a text durable as the mode asks; the SHA-384 of its file, None when none is kept.

        Raises AuditUnavailableError: what cannot be kept as promised is not served.
        """
        if not mode.keeps_text or self.store is None:
            return None
        label = TextLabel(request_id, part, time.time_ns() // 1000)
        if mode is TextMode.SEALED and self.recipient is not None:
            data = seal_text(label, text, self.recipient)
        else:
            data = clear_text(label, text, secrets.token_bytes(NONCE_BYTES))
        try:
            return await asyncio.to_thread(self.store.write, label, data)
        except EdgekitError as error:
            raise AuditUnavailableError(
                "a text cannot be kept", where=error.where, found=error.found
            ) from error


def _spell(rules: Mapping[str, TextMode]) -> str:
    """Rules as a record may hold them, however many there are."""
    return " ".join(f"{name}={mode.label}" for name, mode in sorted(rules.items()))
