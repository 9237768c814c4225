"""Where things lie on the isolated host (design: appliance). Paths only; nothing is touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.core.digest import Digest

DEFAULT_LISTEN = "127.0.0.1:11434"
"""Ollama's own address: clients find the appliance where they expect it."""


@dataclass(frozen=True, slots=True)
class HostLayout:
    """All of edgekit's places below a root; `/` on a real host, a folder for a private install."""

    HOST: ClassVar[Path] = Path("/")

    root: Path

    @property
    def is_private(self) -> bool:
        """True for an install into a folder, which no systemd knows about."""
        return self.root != Path("/")

    @property
    def opt(self) -> Path:
        """Installed releases."""
        return self.root / "opt/edgekit"

    @property
    def generations(self) -> Path:
        """One folder per installed release."""
        return self.opt / "generations"

    @property
    def current(self) -> Path:
        """The link that says which generation serves."""
        return self.opt / "current"

    @property
    def state(self) -> Path:
        """Everything that outlives a release."""
        return self.root / "var/lib/edgekit"

    @property
    def staging(self) -> Path:
        """Private folders of copies under way; the only place written before verification ends."""
        return self.state / "staging"

    @property
    def trust(self) -> Path:
        """Trusted root and floor."""
        return self.state / "trust"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.state / "audit"

    @property
    def audit_lock(self) -> Path:
        """Held by whatever exports the audit log or removes a part of it."""
        return self.run / "audit.lock"

    @property
    def gateway_state(self) -> Path:
        """What the gateway keeps: the key of keyed digests, and texts where the site keeps them."""
        return self.state if self.is_private else self.root / "var/lib/edgekit-gateway"

    @property
    def texts(self) -> Path:
        """Kept texts, one side file each."""
        return self.gateway_state / "texts"

    @property
    def forward_state(self) -> Path:
        """How far copies of audit records got."""
        folder = self.state if self.is_private else self.root / "var/lib/edgekit-forward"
        return folder / "forward.json"

    @property
    def configuration(self) -> Path:
        """Keys and settings of the site."""
        return self.root / "etc/edgekit"

    @property
    def site_config(self) -> Path:
        """What the operator decided; absent when everything has its default."""
        return self.configuration / "edgekit.toml"

    @property
    def applied_config(self) -> Path:
        """The last configuration that the appliance answered its questions with."""
        return self.state / "site-config.toml"

    @property
    def audit_public_key(self) -> Path:
        """The public half of the audit key, for every user to read and to carry away."""
        return self.configuration / "audit.signer.json"

    @property
    def api_keys(self) -> Path:
        """Hashed API keys."""
        return self.configuration / "api-keys.json"

    @property
    def derived_models(self) -> Path:
        """Models that were made on this host by a Modelfile each; read by the gateway.

        Those with a TEMPLATE lie beside it (`system.derived_models`).
        """
        return self.configuration / "models.json"

    @property
    def tls(self) -> Path:
        """This host's certificate authority and certificate."""
        return self.configuration / "tls"

    @property
    def tls_authority(self) -> Path:
        """What clients of the network trust."""
        return self.tls / "ca.pem"

    @property
    def tls_certificate(self) -> Path:
        """What the gateway shows them; its key is `server.key`."""
        return self.tls / "server.pem"

    @property
    def local_key(self) -> Path:
        """The clear API key of this host's root user, mode 0600; for `run` and health checks."""
        return self.configuration / "local.key"

    @property
    def units(self) -> Path:
        """Where the host's systemd looks for units."""
        return self.root / "etc/systemd/system"

    @property
    def containers(self) -> Path:
        """Where podman keeps images, which are copies of what a set carries."""
        return self.root / "var/lib/containers"

    @property
    def run(self) -> Path:
        """Locks and, in a private install, sockets."""
        return self.root / "run/edgekit"

    @property
    def lock(self) -> Path:
        """Held by whatever changes this host."""
        return self.run / "lock"

    def audit_socket(self) -> Path:
        """The audit writer's socket."""
        return (self.run if self.is_private else self.root / "run/edgekit-auditd") / "audit.sock"

    def gateway_control(self) -> Path:
        """The socket on which root hands keys to the gateway."""
        if self.is_private:
            return self.run / "gateway.sock"
        return self.root / "run/edgekit-gateway/control.sock"

    def engine_socket(self, name: str) -> Path:
        """An engine's socket."""
        if self.is_private:
            return self.run / f"engine-{name}.sock"
        return self.root / f"run/edgekit-engine-{name}" / "engine.sock"

    def lease_socket(self, name: str) -> Path:
        """Where the gateway asks for an engine that is loaded on demand."""
        return self.engine_socket(name).with_suffix(".lease")

    def generation(self, identity: str) -> Path:
        """The folder of one installed release."""
        return self.generations / identity

    def blob(self, digest: Digest) -> Path:
        """Where a blob lies, once, whatever uses it."""
        return self.state / "blobs" / digest.algorithm / digest.value
