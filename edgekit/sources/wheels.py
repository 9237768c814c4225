"""Wheelhouses: resolved by uv for the target, fetched by pip under the hashes, checked here.

uv resolves because it evaluates environment markers for the target's Python and platform (pip
evaluates them for the Python it runs on). pip fetches because it can keep wheels as files. Both use
the index, certificates and links of the user's own pip configuration. A lock is made from wheels in
hand: each one was read, checked and found loadable on the target before it is written down.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgekit.core.events import Advanced, Finished, Listener, Started, ignore_events
from edgekit.core.lock import LockedWheel
from edgekit.core.recipe import Target
from edgekit.errors import (
    DiskFullError,
    EdgekitError,
    MissingToolError,
    RefusedContentError,
    SourceDigestError,
    SourceError,
    UnreachableError,
)
from edgekit.sources.blob_cache import BlobCache, hash_file
from edgekit.sources.wheel_file import check_wheel, split_wheel_name
from edgekit.system.process import redact, run
from edgekit.system.volumes import worker_count

RESOLVE_TIMEOUT_S = 600.0
FETCH_TIMEOUT_S = 4 * 3600.0

_UV_GLIBC_MINORS = (17, 28, *range(31, 41))
"""The manylinux platforms that uv knows by name."""
_OLDEST_MINOR = {"x86_64": 5, "aarch64": 17}
_OFFLINE = ("connection refused", "failed to establish a new connection", "dns error",
            "name or service not known", "temporary failure in name resolution", "timed out",
            "network is unreachable", "error sending request", "connection reset",
            "client error (connect)", "newconnectionerror")


@dataclass(frozen=True, slots=True)
class _Pin:
    """One exact distribution and the SHA-256 values of the wheels that will do."""

    name: str
    version: str
    sha256: tuple[str, ...]


def lock_wheels(
    requirements: Sequence[str], target: Target, cache: BlobCache,
    listener: Listener = ignore_events, *, without: Sequence[str] = (),
    allow_scripts: Collection[str] = (), earlier: Sequence[LockedWheel] = (),
) -> tuple[LockedWheel, ...]:
    """The closed set of wheels that these exact requirements need on the target, by name.

    `without` are distributions that are left out although something names them, `allow_scripts`
    programs that a wheel may bring. `earlier` is what the same call with the same arguments found
    before: what the index still has of it, and the cache, is not fetched again. The wheels are
    left in the cache. Raises RefusedContentError
    (source packages, what a wheel must not hold), SourceError (no solution, or a wheel that needs a
    newer C library than the target's), UnreachableError, MissingToolError, DiskFullError.
    """
    task = "resolve wheels"
    listener(Started(task))
    with cache.scratch() as folder, ThreadPoolExecutor(worker_count()) as threads:
        # the rules may have become stricter since; the index is asked meanwhile
        checked = {
            wheel: threads.submit(
                _check, cache.path(wheel.sha256), wheel.filename, target, allow_scripts
            )
            for wheel in earlier if cache.has(wheel.sha256, wheel.size)
        }
        pins = _resolve(requirements, target, folder, without)
        listener(Finished(task, f"{len(pins)} wheels"))
        pinned = {(pin.name, pin.version, digest) for pin in pins for digest in pin.sha256}
        locked = [w for w in checked if (w.name, w.version, w.sha256.value) in pinned]
        for wheel in locked:
            checked[wheel].result()
        known = {wheel.name for wheel in locked}
        if missing := [pin for pin in pins if pin.name not in known]:
            files = _download(missing, target, folder)
            listener(Started("check wheels", sum(file.stat().st_size for file in files)))
            locked += [_take(file, target, cache, listener, allow_scripts) for file in files]
            listener(Finished("check wheels"))
    return tuple(sorted(locked, key=lambda wheel: wheel.name))


def fetch_wheels(
    locked: Iterable[LockedWheel], target: Target, cache: BlobCache,
    listener: Listener = ignore_events, *, allow_scripts: Collection[str] = (),
) -> dict[str, Path]:
    """Every locked wheel's place in the cache by its file name, fetching what is not there yet.

    Raises SourceDigestError naming a wheel of which other bytes arrived, and as `lock_wheels`.
    """
    wheels = tuple(locked)
    missing = [wheel for wheel in wheels if not cache.has(wheel.sha256, wheel.size)]
    if missing:
        task = "fetch wheels"
        listener(Started(task, sum(wheel.size for wheel in missing)))
        pins = [_Pin(w.name, w.version, (w.sha256.value,)) for w in missing]
        with cache.scratch() as folder:
            _download(pins, target, folder)
            for wheel in missing:
                _adopt(wheel, folder / "wheels" / wheel.filename, target, cache, allow_scripts)
                listener(Advanced(task, wheel.size))
        listener(Finished(task))
    return {wheel.filename: cache.path(wheel.sha256) for wheel in wheels}


def _take(
    file: Path, target: Target, cache: BlobCache, listener: Listener, scripts: Collection[str]
) -> LockedWheel:
    _check(file, file.name, target, scripts)
    digest, size = hash_file(file)
    name, version = split_wheel_name(file.name)
    cache.add_file(file, digest, move=True)
    listener(Advanced("check wheels", size))
    return LockedWheel(name, version, file.name, size, digest)


def _adopt(
    wheel: LockedWheel, file: Path, target: Target, cache: BlobCache, scripts: Collection[str]
) -> None:
    if not file.is_file():
        raise SourceDigestError("the index sent another wheel than the lock recorded",
                                where=wheel.filename, needed=str(wheel.sha256))
    if hash_file(file) != (wheel.sha256, wheel.size):
        raise _other_bytes(wheel.filename)
    _check(file, wheel.filename, target, scripts)
    cache.add_file(file, wheel.sha256, move=True, where=wheel.filename)


def _check(file: Path, filename: str, target: Target, scripts: Collection[str]) -> None:
    facts = check_wheel(file, filename=filename, allow_scripts=scripts)
    if facts.glibc is not None and facts.glibc > target.glibc:
        raise SourceError(f"{filename} needs a newer C library than the target has",
                          where=filename, found="glibc {}.{}".format(*facts.glibc),
                          needed="at most glibc {}.{}".format(*target.glibc))


def _resolve(
    requirements: Sequence[str], target: Target, folder: Path, without: Sequence[str]
) -> list[_Pin]:
    (folder / "requirements.in").write_text("".join(f"{line}\n" for line in requirements))
    # A requirement that holds nowhere replaces every other one of that name.
    (folder / "overrides.txt").write_text(
        "".join(f"{name} ; sys_platform == 'nowhere'\n" for name in without)
    )
    output = folder / "pylock.toml"
    python = "{}.{}".format(*target.python)
    done = run(
        [_find_uv(), "pip", "compile", "requirements.in", "--overrides", "overrides.txt",
         "--format", "pylock.toml",
         "--output-file", str(output), "--python-platform", _uv_platform(target),
         "--python-version", python, "--only-binary", ":all:", "--no-header", "--quiet"],
        timeout_s=RESOLVE_TIMEOUT_S, cwd=folder, env=_uv_environment(folder), check=False,
    )
    if done.returncode != 0:
        raise _explain(done.stderr, "resolving the wheels")
    packages = tomllib.loads(output.read_text()).get("packages", [])
    return [_pin(package) for package in packages]


def _pin(package: Mapping[str, Any]) -> _Pin:
    """One package of a pylock.toml (PEP 751); anything but a wheel is refused."""
    name, version = str(package.get("name")), package.get("version")
    wheels = package.get("wheels")
    if not wheels or not isinstance(version, str):
        raise RefusedContentError(f"{name} comes as a source package", where=name,
                                  needed="a wheel for the target")
    hashes = tuple(str(wheel.get("hashes", {}).get("sha256", "")) for wheel in wheels)
    if not all(re.fullmatch(r"[0-9a-f]{64}", value) for value in hashes):
        # A folder of wheels has no hashes to give; what lies there is hashed here.
        hashes = tuple(_local_hash(wheel, name) for wheel in wheels)
    return _Pin(name, version, hashes)


def _local_hash(wheel: Mapping[str, Any], name: str) -> str:
    place = wheel.get("path") or unquote(urlsplit(str(wheel.get("url", ""))).path)
    if not place or not Path(place).is_file():
        raise SourceError(f"the index gives no SHA-256 of {name}", where=name)
    return hash_file(Path(place))[0].value


def _download(pins: Sequence[_Pin], target: Target, folder: Path) -> list[Path]:
    """Fetch the pinned wheels into `folder`/wheels; exactly one file each."""
    wanted = folder / "requirements.txt"
    lines = [" ".join([f"{pin.name}=={pin.version}", *(f"--hash=sha256:{h}" for h in pin.sha256)])
             for pin in pins]
    wanted.write_text("\n".join(lines) + "\n")
    wheels = folder / "wheels"
    wheels.mkdir()
    done = run(
        [*_find_pip(), "download", "--require-hashes", "--no-deps", "--only-binary=:all:",
         "--dest", str(wheels), "--no-input", "--disable-pip-version-check", "--retries", "3",
         *_pip_tags(target), "--requirement", str(wanted)],
        timeout_s=FETCH_TIMEOUT_S, cwd=folder, env=_pip_environment(folder), check=False,
    )
    if done.returncode != 0:
        raise _explain(done.stderr + done.stdout, "fetching the wheels")
    files = sorted(wheels.iterdir())
    found = {split_wheel_name(file.name)[0] for file in files}
    if len(files) != len(pins) or found != {pin.name for pin in pins}:
        raise SourceError("the index sent other wheels than were asked for",
                          found=" ".join(file.name for file in files)[:500])
    return files


def _pip_tags(target: Target) -> list[str]:
    tags = ["--implementation", "cp", "--python-version", "{}.{}".format(*target.python)]
    newest = target.glibc[1] if target.glibc[0] == 2 else 99
    for minor in range(newest, _OLDEST_MINOR[target.arch] - 1, -1):
        tags += ["--platform", f"manylinux_2_{minor}_{target.arch}"]
    if newest >= 17:
        # Stands for manylinux2010 and manylinux1 too: pip knows those.
        tags += ["--platform", f"manylinux2014_{target.arch}"]
    return [*tags, "--platform", f"linux_{target.arch}"]


def _uv_platform(target: Target) -> str:
    """The newest platform uv has a name for that is not newer than the target."""
    newest = target.glibc[1] if target.glibc[0] == 2 else 99
    fitting = [minor for minor in _UV_GLIBC_MINORS if minor <= newest]
    if not fitting:
        raise SourceError("no wheels exist for a C library this old",
                          found="glibc {}.{}".format(*target.glibc), needed="glibc 2.17")
    return f"{target.arch}-manylinux_2_{fitting[-1]}"


def _find_uv() -> str:
    own = str(Path(sys.executable).parent)
    found = shutil.which("uv", path=os.pathsep.join([own, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise MissingToolError("uv is not installed", needed="uv, to resolve wheels for the target",
                               hint="pip install uv")
    return found


def _find_pip() -> list[str]:
    if not getattr(sys, "frozen", False) and importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise MissingToolError("pip is not installed", needed="pip, to fetch wheels",
                               hint="apt-get install python3-pip")
    return [found]


def _pip_environment(folder: Path) -> dict[str, str]:
    """Big wheels are spooled through the temporary folder, so it is put beside the cache."""
    return {**os.environ, "TMPDIR": str(folder)}


def _uv_environment(folder: Path) -> dict[str, str]:
    """This process's environment with the user's pip settings in uv's words.

    What the user set for uv itself wins.
    """
    settings = pip_settings(folder)
    wanted = {
        "UV_FIND_LINKS": ",".join(settings.get("find-links", "").split()),
        "UV_NO_INDEX": "1" if settings.get("no-index", "").lower() in ("1", "true", "yes") else "",
        "UV_INSECURE_HOST": settings.get("trusted-host", ""),
        "SSL_CERT_FILE": settings.get("cert", ""),
        # pip takes the best version of all indexes, so what is resolved must be, too.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    if not any(name in os.environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")):
        wanted["UV_DEFAULT_INDEX"] = settings.get("index-url", "")
        wanted["UV_INDEX"] = settings.get("extra-index-url", "")
    environment = {name: " ".join(value.split()) for name, value in wanted.items() if value}
    return {**environment, **os.environ}


def pip_settings(folder: Path) -> dict[str, str]:
    """pip's settings for downloading: its environment before its files, as pip reads them."""
    done = run([*_find_pip(), "config", "list"], timeout_s=60, cwd=folder, check=False)
    ranks = {"global": 0, "install": 1, "download": 2, ":env:": 3}
    found: dict[str, tuple[int, str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _, literal = line.partition("=")
        section, _, name = key.strip().rpartition(".")
        rank = ranks.get(section, -1)
        if rank >= found.get(name, (0, ""))[0]:
            found[name] = (rank, _literal(literal))
    return {name: value for name, (_, value) in found.items()}


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _explain(output: bytes, what: str) -> EdgekitError:
    text = redact(output.decode("utf-8", "replace")).strip()
    low = text.lower()
    found = text[-600:]
    if "do not match the hashes" in low or "hash mismatch" in low:
        match = re.search(r"^\s+(\S+) from ", text, re.MULTILINE)
        return _other_bytes(match[1] if match else found)
    if "no space left on device" in low:
        return DiskFullError(f"{what}: the file system is full", hint="df -h")
    if any(phrase in low for phrase in _OFFLINE):
        return UnreachableError(f"{what}: the package index cannot be reached", found=found,
                                hint="pip config list; pip index versions pip")
    if "no wheels" in low or "no usable wheels" in low or "building source" in low:
        return RefusedContentError(f"{what}: a package has no wheel for the target", found=found)
    return SourceError(f"{what} failed", found=found)


def _other_bytes(where: str) -> SourceDigestError:
    return SourceDigestError("the index sent other bytes of a wheel than the lock recorded",
                             where=where, hint="run the same command again; if it stays, "
                             "ask who changed the index")
