"""Names inside a bundle set's folder, and what may lie beside them (bundle-v1 section 4)."""

from __future__ import annotations

import re

from edgekit.core.release import MAX_MANIFEST_BYTES, MAX_VOLUMES_BYTES
from edgekit.core.trust import MAX_RELEASE_BYTES, MAX_ROOT_BYTES

RELEASE = "release.json"
MANIFEST = "manifest.json"
VOLUMES = "volumes.json"
README = "README.txt"
INSTALLER = "edgekit"
SUMS = "SHA384SUMS"
SUMS_SIGNATURE = "SHA384SUMS.sig"
TRUST = "trust"
ATTEST = "attest"
SBOM = "attest/sbom.cdx.json"
PROVENANCE = "attest/provenance.dsse.json"
SUMMARY = "attest/summary.dsse.json"
FOLDERS = (TRUST, ATTEST)
"""Folders inside a set's folder; each holds files only."""

MAX_SMALL_FILE_BYTES = 1 << 20
MAX_INSTALLER_BYTES = 512 << 20
MAX_SUMS_BYTES = 4 << 20
MAX_SBOM_BYTES = 16 << 20
MAX_ATTESTATION_BYTES = 4 << 20

VOLUME_PATTERN = r"vol-[0-9]{4}\.ekv"
ROOT_PATTERN = r"trust/[1-9][0-9]{0,3}\.root\.json"
ATTEST_PATTERN = r"attest/[a-z0-9](?:[a-z0-9.-]{0,50}[a-z0-9-])?\.json"

_FIXED = frozenset((RELEASE, MANIFEST, VOLUMES, README, INSTALLER, SUMS, SUMS_SIGNATURE))

_SIDECARS = re.compile(
    r"\._.*|\.DS_Store|\.Trash.*|\.Spotlight-V100|\.fseventsd|System Volume Information"
    r"|\$RECYCLE\.BIN|Thumbs\.db|desktop\.ini|lost\+found",
    re.IGNORECASE,
)


def is_sidecar(name: str) -> bool:
    """True for files that operating systems drop on sticks; they are ignored, never read."""
    return _SIDECARS.fullmatch(name) is not None


def is_volume(name: str) -> bool:
    """True for a volume's file name."""
    return re.fullmatch(VOLUME_PATTERN, name) is not None


def is_set_file(name: str) -> bool:
    """True for a name that some file of a set has, relative to the set's folder."""
    return (
        name in _FIXED
        or is_volume(name)
        or re.fullmatch(ROOT_PATTERN, name) is not None
        or re.fullmatch(ATTEST_PATTERN, name) is not None
    )


def max_bytes_of(name: str) -> int:
    """Step V1: the size cap of a metadata file, in bytes."""
    caps = {
        RELEASE: MAX_RELEASE_BYTES,
        MANIFEST: MAX_MANIFEST_BYTES,
        VOLUMES: MAX_VOLUMES_BYTES,
        INSTALLER: MAX_INSTALLER_BYTES,
        SUMS: MAX_SUMS_BYTES,
        SBOM: MAX_SBOM_BYTES,
        PROVENANCE: MAX_ATTESTATION_BYTES,
        SUMMARY: MAX_ATTESTATION_BYTES,
    }
    if re.fullmatch(ROOT_PATTERN, name):
        return MAX_ROOT_BYTES
    return caps.get(name, MAX_SMALL_FILE_BYTES)


def render_sums(lines: dict[str, str]) -> bytes:
    """The SHA384SUMS file: `<hex>  <name>`, sorted by name, as sha384sum -c reads it."""
    return "".join(f"{value}  {name}\n" for name, value in sorted(lines.items())).encode()
