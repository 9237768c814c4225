"""The host's certificates: an authority made once at installation, a certificate for its names."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import SiteConfig
from edgekit.core.tls import (
    CertificateFacts,
    Identity,
    is_fresh,
    make_authority,
    make_certificate,
    read_certificate,
)
from edgekit.errors import ConfigError, NotInstalledError
from edgekit.system.credentials import SUFFIX, seal_credential
from edgekit.system.files import (
    durable_write,
    ensure_directory,
    read_bounded,
    translate_os_error,
)
from edgekit.system.site_config import load_site_config

MAX_PEM_BYTES = 1 << 20
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class TlsReport:
    """What clients of the network need to know. `authority` is PEM; empty with a site's own."""

    address: str
    authority: str
    fingerprint: str
    names: tuple[str, ...]
    not_after: str
    client_certificates: bool

    def table(self) -> dict[str, Any]:
        """Plain JSON values (`edgekit.tls/1`)."""
        return {"schema": "edgekit.tls/1", **asdict(self)}


def ensure_tls(layout: HostLayout, site: SiteConfig, appliance: Appliance) -> None:
    """Make the authority when there is none, and a certificate when names or days ran out.

    Raises ConfigError when the site's own files cannot be used, HostError.
    """
    if site.server.tls_certificate:
        for name in ("tls_certificate", "tls_key"):
            _site_file(site, name)
        _facts(Path(site.server.tls_certificate))
    if site.server.tls_client_ca:
        _site_file(site, "tls_client_ca")
    now, names = _now(appliance), _names(site)
    try:
        ensure_directory(layout.tls)
    except OSError as error:
        raise translate_os_error(error, "making the folder of certificates") from error
    if not layout.tls_authority.exists():
        authority = make_authority(names[0], now)
        _write(layout, "ca", authority)
    elif layout.tls_certificate.exists() and is_fresh(_facts(layout.tls_certificate), names, now):
        return
    authority = Identity(
        read_bounded(layout.tls / "ca.key", MAX_PEM_BYTES, "the authority's key"),
        read_bounded(layout.tls_authority, MAX_PEM_BYTES, "the authority's certificate"),
    )
    _write(layout, "server", make_certificate(authority, names, now))


def seal_tls_key(layout: HostLayout) -> str:
    """Encrypt the key of the host's own certificate for this machine, where systemd can.

    The name of the file that then holds it; the clear one is gone once the other is on disk. Raises
    HostError.
    """
    clear, sealed = layout.tls / "server.key", layout.tls / f"server.key{SUFFIX}"
    if clear.exists():
        secret = read_bounded(clear, MAX_PEM_BYTES, "the certificate's key")
        kept = sealed if seal_credential("tls-key", secret, sealed) else clear
        try:
            (clear if kept is sealed else sealed).unlink(missing_ok=True)
        except OSError as error:
            raise translate_os_error(error, "removing the certificate's other key") from error
    return sealed.name if sealed.exists() else clear.name


def show_tls(layout: HostLayout) -> TlsReport:
    """What `edgekit tls show` prints. Raises NotInstalledError, ConfigError, FormatError."""
    server = load_site_config(layout.site_config).server
    if not layout.tls_authority.exists():
        raise NotInstalledError(
            "no certificate was made yet", where=str(layout.tls), hint="edgekit install SET"
        )
    own = bool(server.tls_certificate)
    facts = _facts(Path(server.tls_certificate) if own else layout.tls_certificate)
    pem = read_bounded(layout.tls_authority, MAX_PEM_BYTES, "the authority's certificate")
    return TlsReport(
        address=server.lan,
        authority="" if own else pem.decode("ascii"),
        fingerprint=facts.fingerprint if own else read_certificate(pem).fingerprint,
        names=facts.names,
        not_after=facts.not_after.date().isoformat(),
        client_certificates=bool(server.tls_client_ca),
    )


def _write(layout: HostLayout, name: str, identity: Identity) -> None:
    durable_write(layout.tls / f"{name}.key", identity.key, mode=0o600)
    durable_write(layout.tls / f"{name}.pem", identity.certificate, mode=0o644)


def _facts(path: Path) -> CertificateFacts:
    return read_certificate(read_bounded(path, MAX_PEM_BYTES, "certificate"))


def _names(site: SiteConfig) -> tuple[str, ...]:
    """Host name, the names clients may use, and the address when it is one."""
    host, _, _ = site.server.lan.rpartition(":")
    address = host.strip("[]")
    listening = (address,) if address and address not in ANY_ADDRESS else ()
    return tuple(
        dict.fromkeys((socket.gethostname(), *site.server.allowed_hosts, *listening, "localhost"))
    )


def _now(appliance: Appliance) -> datetime:
    """The host's time, or the release's when the host's clock is behind it."""
    created = max((model.created for model in appliance.models), default=0)
    return datetime.fromtimestamp(max(datetime.now(UTC).timestamp(), created), UTC)


def _site_file(site: SiteConfig, name: str) -> None:
    path = Path(getattr(site.server, name))
    if not path.is_file():
        raise ConfigError("no such file", where=f"server.{name}", found=str(path))
