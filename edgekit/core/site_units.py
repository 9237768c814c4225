"""What the site's configuration changes about units: systemd drop-ins. Pure.

A drop-in lies in the host's own unit folder, so it stays when the generation changes. The file has
one name, `50-edgekit-site.conf`; whatever else lies in those folders is the operator's and is
neither read nor touched.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.core.site_config import SiteConfig

DROP_IN = "50-edgekit-site.conf"
SOCKET_UNIT = "edgekit-gateway.socket"
GATEWAY_UNIT = "edgekit-gateway.service"

_HEAD = "# written by edgekit from edgekit.toml: change that, then run `edgekit config apply`\n"


def site_drop_ins(site: SiteConfig, tls: Path, own_key: str = "server.key") -> dict[str, str]:
    """The drop-in's text by the unit it belongs to; units that need none are not in it.

    `tls` is the folder of this host's own certificate, `own_key` the file of its key there.
    """
    texts = {}
    server = site.server
    # the empty line forgets the address that the release's own unit has
    lines = ["ListenStream=", f"ListenStream={server.listen}"] if server.listen else []
    if server.lan:
        lines.append(f"ListenStream={server.lan}")
        lines += [f"IPAddressAllow={network}" for network in server.lan_clients]
        # the address may come up later than the appliance, or change
        lines.append("FreeBind=yes")
        texts[GATEWAY_UNIT] = _section("Service", _credentials(site, tls, own_key))
    if lines:
        texts[SOCKET_UNIT] = _section("Socket", lines)
    return {unit: _HEAD + text for unit, text in texts.items()}


def _section(name: str, lines: list[str]) -> str:
    return "\n".join([f"[{name}]", *lines, ""])


def _credentials(site: SiteConfig, tls: Path, own_key: str) -> list[str]:
    """Root reads the files for the gateway: its own user could not. `*.cred` are encrypted."""
    server = site.server
    files = {
        "tls-certificate": server.tls_certificate or str(tls / "server.pem"),
        "tls-key": server.tls_key or str(tls / own_key),
    }
    if server.tls_client_ca:
        files["tls-client-ca"] = server.tls_client_ca
    return [
        f"LoadCredential{'Encrypted' if path.endswith('.cred') else ''}={name}:{path}"
        for name, path in files.items()
    ]
