"""Debian's next stable openssl, which checks ML-DSA: fetched by apt, run beside an older C library.

The packages come from the archive that apt uses, verified by apt with Debian's keys, and lie in a
folder of their own; this machine's packages are not touched.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.rootfs import debian_archive, default_cache_dir

SUITE = "trixie"
PACKAGES = ("openssl", "libssl3t64", "libc6", "zlib1g", "libzstd1")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
WRAPPER = f"""#!/bin/sh
exec /opt/openssl/{LIBRARIES}/ld-linux-x86-64.so.2 --library-path /opt/openssl/{LIBRARIES} \\
  /opt/openssl/usr/bin/openssl "$@"
"""

_FETCH = """
set -eu
mkdir -p state/lists/partial cache/archives/partial debs root
touch state/status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $1 $2 main" > sources.list
cat > apt.conf <<EOF
Dir::Etc::SourceList "$PWD/sources.list"; Dir::Etc::SourceParts "-"; Dir::State "$PWD/state";
Dir::State::status "$PWD/state/status"; Dir::Cache "$PWD/cache"; Acquire::Languages "none";
APT::Sandbox::User "root";
EOF
shift 2
apt-get -q -c apt.conf update
cd debs
apt-get -q -c ../apt.conf download "$@"
for package in *.deb; do dpkg-deb -x "$package" ../root; done
"""


class CannotFetchError(Exception):
    """Apt, its keys or the archive are not there."""


def newer_openssl() -> Path:
    """A folder with the program and its libraries, from the cache or the archive."""
    place = default_cache_dir() / f"openssl-{SUITE}"
    if place.is_dir():
        return place
    archive = debian_archive()
    if archive is None:
        raise CannotFetchError("apt knows no Debian archive")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        done = subprocess.run(
            ["sh", "-c", _FETCH, "sh", archive, SUITE, *PACKAGES], cwd=folder,
            capture_output=True, text=True, check=False, timeout=180,
        )
        if done.returncode != 0:
            raise CannotFetchError(done.stderr.strip()[-300:])
        shutil.move(Path(folder, "root"), place)
    return place


def lend_newer_openssl(upper: Path) -> None:
    """Put the program where a machine's other layer finds it as /usr/bin/openssl."""
    shutil.copytree(newer_openssl(), upper / "opt/openssl", symlinks=True)
    wrapper = upper / "usr/bin/openssl"
    wrapper.unlink(missing_ok=True)
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
