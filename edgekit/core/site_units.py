"""What the site's configuration changes about units: systemd drop-ins. Pure.

A drop-in lies in the host's own unit folder, so it stays when the generation changes. The file has
one name, `50-edgekit-site.conf`; whatever else lies in those folders is the operator's and is
neither read nor touched.
"""

from __future__ import annotations

from edgekit.core.site_config import SiteConfig

DROP_IN = "50-edgekit-site.conf"
SOCKET_UNIT = "edgekit-gateway.socket"

_HEAD = "# written by edgekit from edgekit.toml: change that, then run `edgekit config apply`\n"


def site_drop_ins(site: SiteConfig) -> dict[str, str]:
    """The drop-in's text by the unit it belongs to; units that need none are not in it."""
    texts = {}
    if site.server.listen:
        # the empty line forgets the address that the release's own unit has
        texts[SOCKET_UNIT] = f"[Socket]\nListenStream=\nListenStream={site.server.listen}\n"
    return {unit: _HEAD + text for unit, text in texts.items()}
