"""`edgekit gc` and `edgekit remove`: giving disk back, reference first, then what it named (I8)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.host_layout import HostLayout
from edgekit.core.release import MAX_MANIFEST_BYTES, parse_manifest
from edgekit.errors import EdgekitError, NotInstalledError, PrivilegeError
from edgekit.operations.activation import deactivate, services_for
from edgekit.operations.host_records import (
    audit_event,
    load_pins,
    previous_generation,
    require_generation,
    save_pins,
)
from edgekit.operations.unfinished import read_marker
from edgekit.system import generations
from edgekit.system.files import (
    exclusive_lock,
    fsync_directory,
    read_bounded,
    remove_tree,
    translate_os_error,
)

GATEWAY_STATE = ("var/lib/edgekit-gateway", "var/lib/private/edgekit-gateway")
FORWARD_STATE = ("var/lib/edgekit-forward", "var/lib/private/edgekit-forward")
AUDIT_STATE = ("var/lib/edgekit/audit", "var/lib/private/edgekit/audit")


@dataclass(frozen=True, slots=True)
class Collected:
    """What gc removed: generations, number of blobs, bytes given back."""

    generations: tuple[str, ...]
    blobs: int
    freed_bytes: int


def collect_garbage(layout: HostLayout) -> Collected:
    """Remove what neither the current, the previous nor a pinned generation needs.

    Nor what work that was cut off still needs. Raises NotInstalledError, BusyError, FormatError
    when a kept manifest is damaged (then nothing is removed).
    """
    with exclusive_lock(layout.lock, "this host"):
        current = require_generation(layout)
        previous = previous_generation(layout, current)
        unfinished = read_marker(layout)
        waiting = (unfinished.generation, unfinished.previous) if unfinished else ()
        here = generations.installed(layout)
        wanted = {current, previous, *load_pins(layout), *waiting}
        kept = [name for name in here if name in wanted]
        needed = {digest for name in kept for digest in _blobs_of(layout, name)}
        dropped = tuple(name for name in here if name not in kept)
        audit_event(
            layout,
            {"type": "gc", "removed": ",".join(dropped)[:1000], "actor": f"uid {os.getuid()}"},
        )
        for name in dropped:
            generations.remove_generation(layout, name)
        remove_tree(layout.staging)
        blobs, freed = _remove_blobs(layout, needed)
    return Collected(dropped, blobs, freed)


def pin_generation(layout: HostLayout, generation: str, *, pinned: bool) -> frozenset[str]:
    """Let gc keep a generation, or no longer; all pinned ones afterwards.

    Raises NotInstalledError when there is none of that name, BusyError.
    """
    with exclusive_lock(layout.lock, "this host"):
        pins = load_pins(layout)
        if pinned and generation not in generations.installed(layout):
            raise NotInstalledError(
                "no such release is installed here",
                found=generation,
                needed=", ".join(sorted(generations.installed(layout))) or "none is",
                hint="edgekit status",
            )
        changed = pins | {generation} if pinned else pins - {generation}
        word = "pin" if pinned else "unpin"
        record = {"type": word, "generation": generation, "actor": f"uid {os.getuid()}"}
        audit_event(layout, record)
        save_pins(layout, changed)
    return changed


def remove_appliance(layout: HostLayout, *, with_audit_log: bool) -> None:
    """Stop and remove everything edgekit put on this host; the audit log stays unless told.

    Raises PrivilegeError, BusyError, HostError. Safe to run again after an interruption.
    """
    if not layout.is_private and os.geteuid() != 0:
        raise PrivilegeError("removing needs root", hint="sudo edgekit remove")
    with exclusive_lock(layout.lock, "this host"):
        if layout.audit.exists():
            audit_event(layout, {"type": "remove", "actor": f"uid {os.getuid()}"})
        if layout.opt.exists():
            deactivate(layout, services_for(layout))
        for folder in (layout.opt, layout.configuration, layout.staging, layout.trust):
            remove_tree(folder)
        remove_tree(layout.state / "blobs")
        for name in (*GATEWAY_STATE, *FORWARD_STATE):
            _remove_link_or_tree(layout.root / name)
        if with_audit_log:
            for name in AUDIT_STATE:
                _remove_whole(layout.root / name)
        for leftover in (*layout.state.glob("*.json"), layout.applied_config):
            _unlink(leftover)


def _blobs_of(layout: HostLayout, generation: str) -> set[Digest]:
    path = layout.generation(generation) / "manifest.json"
    manifest = parse_manifest(read_bounded(path, MAX_MANIFEST_BYTES, "manifest.json"))
    return {entry.digest for entry in manifest.entries}


def _remove_blobs(layout: HostLayout, needed: set[Digest]) -> tuple[int, int]:
    """Remove blobs nobody needs; (number, bytes)."""
    count = freed = 0
    try:
        for path in sorted((layout.state / "blobs").glob("*/*")):
            if _digest_of(path) in needed:
                continue
            freed += path.stat().st_size
            count += 1
            path.unlink()
    except OSError as error:
        raise translate_os_error(error, "removing blobs") from error
    return count, freed


def _digest_of(path: Path) -> Digest | None:
    """The digest a blob's path names; None for a file that is no blob."""
    try:
        return Digest(path.parent.name, path.name)
    except EdgekitError:
        return None


def _remove_whole(path: Path) -> None:
    """Remove an audit log so that what is left under its name is never a part of it."""
    aside = path.with_name(f".{path.name}.removed")
    remove_tree(aside)
    if path.is_dir() and not path.is_symlink():
        try:
            path.rename(aside)
            fsync_directory(path.parent)
        except OSError as error:
            raise translate_os_error(error, f"removing {path.name}") from error
        remove_tree(aside)
    else:
        _remove_link_or_tree(path)


def _remove_link_or_tree(path: Path) -> None:
    if path.is_symlink():
        _unlink(path)
    else:
        remove_tree(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise translate_os_error(error, f"removing {path.name}") from error
