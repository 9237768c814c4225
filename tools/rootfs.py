"""Build and cache the sealed host's root file system: a minimal Debian without Python.

    python -m tools.rootfs CACHE [PACKAGE ...]    build or take from the cache, print the folder
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tools.sealed_resources import (
    SealedHostError,
    locked,
    private_namespaces,
    sigterm_as_exit,
    tail,
)

SUITE: Final = "bookworm"
NEWER_SUITE: Final = "trixie"
"""A Debian release with a newer systemd (257) than the one edgekit is frozen on (252)."""
BASE_PACKAGES: Final = ("systemd", "systemd-sysv", "dbus")

Report = Callable[[str], None]

# Arguments: scratch and result folder, archive, suite, base rootfs or "", packages to add ...
# The scratch folder is in memory where there is room: dpkg waits for the disk after every file,
# which makes two thirds of the time on a disk. The mount lives in a private namespace and so
# disappears with the process, however that ends.
_BUILD_SCRIPT: Final = r"""
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
scratch=$1 result=$2 archive=$3 suite=$4 base=$5; shift 5
root=$scratch/root
available_kib=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
if [ "$available_kib" -gt $((2 * 1024 * 1024)) ]; then mount -t tmpfs tmpfs "$scratch"; fi
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
if [ -n "${http_proxy-}" ]; then export http_proxy; fi

mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/force-unsafe-io"
if [ -n "$base" ]; then
    cp -a "$base/." "$root/"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    echo "deb $archive $suite main" > "$root/etc/apt/sources.list"
    mount -t proc proc "$root/proc"
    chroot "$root" apt-get -q update
    chroot "$root" apt-get -q -y --no-install-recommends install "$@"
    umount "$root/proc"
else
    debootstrap --force-check-gpg --variant=minbase --include=@BASE@ "$suite" "$root" "$archive"
fi

rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
rm -rf "$root"/var/log/* "$root"/etc/apt/sources.list "$root"/etc/resolv.conf "$root"/etc/hostname
rm -f "$root/etc/dpkg/dpkg.cfg.d/force-unsafe-io" "$root/var/lib/dbus/machine-id"
: > "$root/etc/machine-id"
echo "127.0.0.1 localhost" > "$root/etc/hosts"
mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system"
printf '[Journal]\nStorage=volatile\n' > "$root/etc/systemd/journald.conf.d/volatile.conf"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
# The kernel is the outer machine's: there are no modules for it here.
for unit in apt-daily.timer apt-daily-upgrade.timer console-getty.service \
        systemd-modules-load.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cp -a "$root/." "$result"
sync -f "$result"
""".replace("@BASE@", ",".join(BASE_PACKAGES))


def default_cache_dir() -> Path:
    """Where the demo and the tests share built rootfs folders; not created here."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edgekit" / "sealed-host"


def build_rootfs(
    cache_dir: Path, *, packages: tuple[str, ...] = (), suite: str = SUITE,
    report: Report = lambda _: None,
) -> Path:
    """Give a folder with a bootable minimal Debian plus `packages`, from the cache or built now.

    `suite` is a Debian release by its name.

    The folder is shared by all hosts and must not be written to. It is put into place by one
    rename when complete; a build that is killed leaves only a `.partial` folder, which the next
    build of the same rootfs removes. Builds of the same rootfs at the same time wait for each
    other. With packages the rootfs without them is built first and cached, too.

    Raises SealedHostError if the archive cannot be reached or verified, a package does not
    exist, or the result contains Python.
    """
    final = cache_dir / f"rootfs-{_rootfs_key(suite, packages)}"
    if final.is_dir():
        return final
    base = build_rootfs(cache_dir, suite=suite, report=report) if packages else None
    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(cache_dir / f"{final.name}.lock", wait=True):
        if not final.is_dir():
            what = ", ".join((*BASE_PACKAGES, *packages))
            report(f"building a Debian {suite} rootfs with {what} (once, about half a minute)")
            started = time.monotonic()
            _build_into(final, suite, base, packages)
            report(f"built the rootfs in {time.monotonic() - started:.0f} s")
    return final


def _rootfs_key(suite: str, packages: tuple[str, ...]) -> str:
    recipe = "\0".join((_BUILD_SCRIPT, suite, os.uname().machine, *sorted(set(packages))))
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _build_into(
    final: Path, suite: str, base: Path | None, packages: tuple[str, ...]
) -> None:
    """Build beside `final` and rename; the caller holds the lock, so leftovers are nobody's."""
    archive = debian_archive()
    if archive is None:
        raise SealedHostError(f"apt's configuration names no Debian {SUITE} archive")
    result = final.with_name(f"{final.name}.partial")
    scratch = final.with_name(f"{final.name}.partial-scratch")
    for folder in (result, scratch):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        arguments = (str(scratch), str(result), archive, suite, str(base or ""), *packages)
        _run_build([*private_namespaces(), "bash", "-c", _BUILD_SCRIPT, "build", *arguments])
        if found := _pythons(result):
            raise SealedHostError(f"the rootfs must not contain Python, but has {found[0]}")
        result.chmod(0o755)
        result.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(result, ignore_errors=True)


def _run_build(command: list[str]) -> None:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate()
    finally:
        process.kill()  # unshare takes everything it started with it
        process.wait()
    if process.returncode != 0:
        raise SealedHostError(f"the rootfs could not be built\n{tail(output)}")


def _pythons(rootfs: Path) -> list[Path]:
    places = ("usr/bin", "usr/local/bin", "usr/lib", "usr/local/lib", "opt")
    return [path for place in places for path in sorted((rootfs / place).glob("python[0-9]*"))]


def debian_archive() -> str | None:
    """The archive apt itself uses for the Debian suite, or None if it has none.

    It has the other suites as well: an archive is one folder per suite over one pool of packages.
    """
    fields = "$(REPO_URI) $(ORIGIN)"
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", fields, "Created-By: Packages",
         "Component: main", f"Release: {SUITE}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    entries = [line.split() for line in answer.stdout.splitlines()]
    # Other vendors use Debian's suite names, too; without downloaded lists apt knows no origin.
    for origin in ("Debian", "$(ORIGIN)"):
        if found := [entry[0] for entry in entries if entry[1:] == [origin]]:
            return found[0]
    return None


def main(argv: Sequence[str] = sys.argv[1:]) -> int:
    """Build or take from the cache `argv[0]`, with the packages that follow; print the folder.

    A program of its own, so that it can run beside another and be stopped: SIGTERM and SIGINT
    leave nothing behind.
    """
    with sigterm_as_exit():
        try:
            print(build_rootfs(Path(argv[0]), packages=tuple(argv[1:])))
        except SealedHostError as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
