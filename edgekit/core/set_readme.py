"""README.txt of a set: how to check it with stock tools, and how to install it."""

from __future__ import annotations

from edgekit.core.release import Manifest
from edgekit.core.trust import TrustedRoot, format_fingerprint

_TEXT = """\
{name} {version}
{rule}

This folder is one bundle set. Copy all of it; the files belong together.

FOR THE COURIER
  After copying, check that nothing was damaged on the way (any Linux machine):

      sha384sum -c SHA384SUMS

  Every line must end in OK. If one says FAILED, copy that one file again.

FOR THE OPERATOR
  0. The first time, before you run the program on this stick as root, check who made it,
     with OpenSSH and without edgekit: see the last part of this file. Later, use the
     edgekit that is already on the host: /opt/edgekit/current/runtime/edgekit

  1. Trust the people who made this, once per host. Compare the fingerprint with the one
     they read to you, not with this file:

      ./edgekit trust import trust/{root}.root.json{developer_flag} \\
          --fingerprint '...'

  2. Install. Nothing on the host changes unless every check passes:

      ./edgekit install .

  The host needs {arch}, systemd {systemd} or newer and glibc {glibc} or newer, which
  `ldd --version` prints. An older glibc stops the program at its start with a line that names
  GLIBC and a number; nothing has changed then.

  If the stick is mounted noexec, copy the file edgekit to a folder that is not, and give
  this folder's path instead of the dot.

  Fingerprint of trust/{root}.root.json (SHA-384), for comparing:
{fingerprint}
{warning}
FOR A STRANGER WITHOUT EDGEKIT
  Who signed the list of checksums (OpenSSH 8.1 or newer). Put the signers' lines, received
  from them and not from here, into the file ~/allowed_signers; a file in this folder would
  not belong to the set. In this folder, the first command names the one who signed last, and
  the second takes that name after -I:

      ssh-keygen -Y find-principals -f ~/allowed_signers -s SHA384SUMS.sig
      ssh-keygen -Y verify -f ~/allowed_signers -I {signer} -n edgekit-set \\
          -s SHA384SUMS.sig < SHA384SUMS
      sha384sum -c SHA384SUMS

  The signers' lines, for comparing:
{allowed}
"""


def render_readme(manifest: Manifest, root: TrustedRoot, allowed_signers: list[str]) -> str:
    """The text; `allowed_signers` are lines of an allowed_signers file."""
    heading = f"{manifest.name} {manifest.version}"
    groups = format_fingerprint(root.fingerprint)
    lines = [groups[start : start + 60].strip() for start in range(0, len(groups), 60)]
    warning = ""
    if root.developer:
        warning = (
            "\n  WARNING: this set is signed with DEVELOPER keys. One key signs everything and "
            "nobody\n  guards it. Do not use it for anything but a demonstration.\n"
        )
    return _TEXT.format(
        name=manifest.name,
        version=manifest.version,
        rule="=" * len(heading),
        root=root.version,
        developer_flag=" --insecure-developer-root" if root.developer else "",
        fingerprint="\n".join(f"      {line}" for line in lines),
        warning=warning,
        arch=manifest.requirements.arch,
        systemd=manifest.requirements.systemd,
        glibc=".".join(str(number) for number in manifest.requirements.glibc),
        signer=allowed_signers[0].split(" ")[0],
        allowed="\n".join(f"      {line}" for line in allowed_signers),
    )
