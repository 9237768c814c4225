"""Generations on disk: built beside the running one, complete before they count (I4)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgekit.core import environment
from edgekit.core.appliance import encode_appliance
from edgekit.core.digest import Digest
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan
from edgekit.core.release import Entry
from edgekit.errors import EdgekitError
from edgekit.system.environments import added_digest, install_wheels, share_environment
from edgekit.system.files import (
    all_files,
    durable_write,
    ensure_directory,
    fsync_directory,
    fsync_tree,
    link_or_copy,
    read_bounded,
    remove_others,
    remove_tree,
    replace_files,
    switch_link,
    translate_os_error,
)
from edgekit.system.selinux import PROGRAMS, UNITS, has_policy, is_labelled_like, label_like


def current_generation(layout: HostLayout) -> str | None:
    """The id of the generation that serves, or None."""
    try:
        target = layout.current.readlink()
    except OSError:
        return None
    return target.name


def installed(layout: HostLayout) -> tuple[str, ...]:
    """Ids of all generations on disk, half-built ones left out."""
    if not layout.generations.is_dir():
        return ()
    names = (path.name for path in layout.generations.iterdir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def build_generation(plan: InstallPlan, documents: dict[str, bytes]) -> None:
    """Make the generation's folder out of blobs, units and documents; idempotent.

    A folder that is there already may be serving: its files are replaced one by one, each by a
    rename, so that nothing is ever missing from it. Environments that had to be installed replace
    damaged ones of the same files in other releases, too; before, so that an installation that is
    cut off does it again. Raises DiskFullError or HostError; on failure the half-built folder is
    removed.
    """
    final = plan.layout.generation(plan.generation)
    partial = _partial(plan.layout, plan.generation)
    remove_tree(partial)
    try:
        ensure_directory(final.parent)
        partial.mkdir()
        for entry in plan.tree:
            path = partial / str(entry.path)
            link_or_copy(
                plan.layout.blob(entry.digest), path, mode=0o555 if entry.executable else None
            )
        made, installed_now = [], []
        for planned in plan.environments:
            one = _share_environment(plan, planned, partial)
            if one is None:
                one = _make_environment(plan, planned, partial)
                installed_now.append(one)
            made.append(one)
        if made:
            documents = {**documents, environment.FILE: environment.encode_environments(made)}
        _write_documents(partial, plan, documents)
        _require_labels(plan.layout, partial)
        fsync_tree(partial)
        for one in installed_now:
            _mend_others(plan, one, partial)
        if final.is_dir():
            _replace(partial, final, made)
        else:
            partial.rename(final)
            fsync_directory(final.parent)
    except OSError as error:
        remove_tree(partial)
        raise translate_os_error(error, "building the generation") from error
    except EdgekitError:
        remove_tree(partial)
        raise


def _replace(
    partial: Path, final: Path, made: Iterable[environment.MadeEnvironment]
) -> None:
    """Put what was built into the place of what is there, and leave nothing else where it made
    environments. Cut off, these are still seen to be damaged.
    """
    kept = {one.prefix: all_files(partial / one.prefix) for one in made}
    replace_files(partial, final)
    remove_tree(partial)
    for prefix, names in kept.items():
        remove_others(final / prefix, names)
        fsync_tree(final / prefix)


def _mend_others(plan: InstallPlan, one: environment.MadeEnvironment, partial: Path) -> None:
    """Put an environment that was installed now into other releases whose own, made of the same
    files, is damaged. One that cannot be mended stays as it is: `scrub` names it.
    """
    carried, staging = _carried(one.prefix, plan.tree), partial / ".mending"
    for name, other in _others(plan, one.prefix, one.made_of):
        folder = plan.layout.generation(name)
        if _is_whole(folder / one.prefix, carried, other):
            continue
        try:
            for file in all_files(partial / one.prefix):
                path = staging / one.prefix / file
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(partial / one.prefix / file, path, follow_symlinks=False)
            noted = [one if row == other else row for row in _made(plan.layout, name)]
            durable_write(staging / environment.FILE, environment.encode_environments(noted))
            _replace(staging, folder, (one,))
        except (OSError, EdgekitError):
            remove_tree(staging)


def _others(
    plan: InstallPlan, prefix: str, made_of: str
) -> Iterator[tuple[str, environment.MadeEnvironment]]:
    """What other releases made of the same files at the same place, by generation."""
    for name in installed(plan.layout):
        if name == plan.generation:
            continue
        try:
            noted = _made(plan.layout, name)
        except EdgekitError:
            continue
        yield from ((name, one) for one in noted if (one.prefix, one.made_of) == (prefix, made_of))


def _share_environment(
    plan: InstallPlan, planned: environment.PlannedEnvironment, partial: Path
) -> environment.MadeEnvironment | None:
    """Link what another release made of the same files; None when there is nothing to link.

    A release that is built again makes its own: what it has may be what is to be repaired.
    """
    for name, one in _others(plan, str(planned.prefix), str(planned.made_of)):
        source = plan.layout.generation(name) / one.prefix
        if share_environment(source, partial / one.prefix, Digest.parse(one.installed)):
            return one
    return None


def _make_environment(
    plan: InstallPlan, planned: environment.PlannedEnvironment, partial: Path
) -> environment.MadeEnvironment:
    layout, pack = plan.layout, partial / str(planned.prefix)
    before = all_files(pack)
    install_wheels(pack, {name: layout.blob(digest) for name, digest in planned.wheels})
    return environment.MadeEnvironment(
        str(planned.prefix), str(planned.made_of), str(added_digest(pack, before))
    )


def damaged_environments(
    layout: HostLayout, generation: str, tree: Iterable[Entry]
) -> tuple[Path, ...]:
    """Packs of a release, with these files, in which not all is as it was installed.

    A note that cannot be read is damaged itself, and is what is named.
    """
    folder, entries = layout.generation(generation), tuple(tree)
    try:
        noted = _made(layout, generation)
    except EdgekitError:
        return (folder / environment.FILE,)
    return tuple(
        folder / one.prefix for one in noted
        if not _is_whole(folder / one.prefix, _carried(one.prefix, entries), one)
    )


def _is_whole(
    pack: Path, carried: frozenset[str], one: environment.MadeEnvironment
) -> bool:
    try:
        return added_digest(pack, carried) == Digest.parse(one.installed)
    except EdgekitError:
        return False


def _carried(prefix: str, tree: Iterable[Entry]) -> frozenset[str]:
    """The files of a pack that came with the set, as seen from the pack."""
    names, start = (str(entry.path) for entry in tree), f"{prefix}/"
    return frozenset(name.removeprefix(start) for name in names if name.startswith(start))


def _made(layout: HostLayout, generation: str) -> tuple[environment.MadeEnvironment, ...]:
    """What a release says it made; nothing when it is of before such notes. Raises EdgekitError."""
    path = layout.generation(generation) / environment.FILE
    try:
        path.lstat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise translate_os_error(error, f"reading {path.name}") from error
    return environment.parse_environments(
        read_bounded(path, environment.MAX_BYTES, environment.FILE)
    )


def _write_documents(folder: Path, plan: InstallPlan, documents: dict[str, bytes]) -> None:
    durable_write(folder / "appliance.json", encode_appliance(plan.appliance))
    for name, data in documents.items():
        durable_write(folder / name, data)
    if plan.units:
        (folder / "units").mkdir()
        for name, text in plan.units:
            durable_write(folder / "units" / name, text.encode())


def label_generation(layout: HostLayout, generation: str) -> tuple[int, list[OSError]]:
    """Label programs and units where a policy is loaded: a relabelled host has lost that.

    Returns how many had to be labelled and were, and why others could not be.
    """
    return _label(layout, layout.generation(generation))


def mislabelled(layout: HostLayout, generation: str) -> tuple[Path, ...]:
    """Programs and units that a loaded policy takes for plain data. Raises HostError."""
    try:
        return tuple(
            path for path, example in _examples(layout, layout.generation(generation))
            if not is_labelled_like(path, example)
        )
    except OSError as error:
        raise translate_os_error(error, "reading labels") from error


def _require_labels(layout: HostLayout, folder: Path) -> None:
    """Label a release that is built; a file system without labels of its own may keep it."""
    for error in _label(layout, folder)[1]:
        if error.errno != errno.ENOTSUP:
            raise error


def _label(layout: HostLayout, folder: Path) -> tuple[int, list[OSError]]:
    given, refused = 0, []
    try:
        pairs = list(_examples(layout, folder))
    except OSError as error:
        return 0, [error]
    for path, example in pairs:
        try:
            if not is_labelled_like(path, example):
                label_like(path, example)
                given += 1
        except OSError as error:
            refused.append(error)
    return given, refused


def _examples(layout: HostLayout, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each program and unit of a generation, with the place whose label it needs, if any.

    Below a private root none needs any: no systemd starts what lies there.
    """
    if layout.is_private or not has_policy():
        return
    for path in sorted(folder.rglob("*")):
        if path.parent == folder / "units":
            yield path, UNITS
        elif path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o111:
            yield path, PROGRAMS


def switch_current(layout: HostLayout, generation: str) -> None:
    """The one commit point (I5): `current` names the generation, durably."""
    switch_link(layout.current, f"generations/{generation}")


def clear_current(layout: HostLayout) -> None:
    """Undo the first switch ever: nothing serves."""
    try:
        layout.current.unlink(missing_ok=True)
        fsync_directory(layout.current.parent)
    except OSError as error:
        raise translate_os_error(error, "clearing current") from error


def remove_generation(layout: HostLayout, generation: str) -> None:
    """Remove a generation that does not serve, and its half-built form. Raises HostError."""
    remove_tree(layout.generation(generation))
    remove_partial(layout, generation)


def remove_partial(layout: HostLayout, generation: str) -> None:
    """Remove the half-built form of a generation; absent is fine. Raises HostError."""
    remove_tree(_partial(layout, generation))


def _partial(layout: HostLayout, generation: str) -> Path:
    return layout.generation(f".{generation}.partial")
