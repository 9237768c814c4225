"""Generations on disk: built beside the running one, complete before they count (I4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgekit.core import environment
from edgekit.core.appliance import encode_appliance
from edgekit.core.digest import Digest
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan
from edgekit.core.release import Entry
from edgekit.errors import EdgekitError
from edgekit.system.environments import (
    added_digest,
    all_files,
    install_wheels,
    share_environment,
)
from edgekit.system.files import (
    durable_write,
    ensure_directory,
    fsync_directory,
    fsync_tree,
    link_or_copy,
    read_bounded,
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
    rename, so that nothing is ever missing from it. Raises DiskFullError or HostError; on failure
    the half-built folder is removed.
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
        made = [_make_environment(plan, planned, partial) for planned in plan.environments]
        if made:
            documents = {**documents, environment.FILE: environment.encode_environments(made)}
        _write_documents(partial, plan, documents)
        _label(partial)
        fsync_tree(partial)
        if final.is_dir():
            replace_files(partial, final)
            remove_tree(partial)
        else:
            partial.rename(final)
            fsync_directory(final.parent)
    except OSError as error:
        remove_tree(partial)
        raise translate_os_error(error, "building the generation") from error
    except EdgekitError:
        remove_tree(partial)
        raise


def _make_environment(
    plan: InstallPlan, planned: environment.PlannedEnvironment, partial: Path
) -> environment.MadeEnvironment:
    """Link what another release made of the same files, or make it.

    A release that is built again makes its own: what it has may be what is to be repaired.
    """
    layout, pack = plan.layout, partial / str(planned.prefix)
    for name in installed(layout):
        for one in _made(layout, name) if name != plan.generation else ():
            if (one.prefix, one.made_of) != (str(planned.prefix), str(planned.made_of)):
                continue
            source = layout.generation(name) / one.prefix
            if share_environment(source, pack, Digest.parse(one.installed)):
                return one
    before = all_files(pack)
    install_wheels(pack, {name: layout.blob(digest) for name, digest in planned.wheels})
    return environment.MadeEnvironment(
        str(planned.prefix), str(planned.made_of), str(added_digest(pack, before))
    )


def damaged_environments(
    layout: HostLayout, generation: str, tree: Iterable[Entry]
) -> tuple[Path, ...]:
    """Packs of a release, with these files, in which not all is as it was installed."""
    names = [str(entry.path) for entry in tree]
    found = []
    for one in _made(layout, generation):
        prefix = f"{one.prefix}/"
        carried = frozenset(n.removeprefix(prefix) for n in names if n.startswith(prefix))
        pack = layout.generation(generation) / one.prefix
        try:
            whole = added_digest(pack, carried) == Digest.parse(one.installed)
        except EdgekitError:
            whole = False
        if not whole:
            found.append(pack)
    return tuple(found)


def _made(layout: HostLayout, generation: str) -> tuple[environment.MadeEnvironment, ...]:
    """What a release says it made; nothing when it says nothing that can be understood."""
    path = layout.generation(generation) / environment.FILE
    try:
        return environment.parse_environments(
            read_bounded(path, environment.MAX_BYTES, environment.FILE)
        )
    except EdgekitError:
        return ()


def _write_documents(folder: Path, plan: InstallPlan, documents: dict[str, bytes]) -> None:
    durable_write(folder / "appliance.json", encode_appliance(plan.appliance))
    for name, data in documents.items():
        durable_write(folder / name, data)
    if plan.units:
        (folder / "units").mkdir()
        for name, text in plan.units:
            durable_write(folder / "units" / name, text.encode())


def label_generation(layout: HostLayout, generation: str) -> bool:
    """Label programs and units where a policy is loaded: a relabelled host has lost that.

    Returns whether there was anything to do. Raises HostError.
    """
    try:
        return _label(layout.generation(generation))
    except OSError as error:
        raise translate_os_error(error, "labelling the generation") from error


def mislabelled(layout: HostLayout, generation: str) -> tuple[Path, ...]:
    """Programs and units that a loaded policy takes for plain data. Raises HostError."""
    try:
        return tuple(
            path for path, example in _examples(layout.generation(generation))
            if not is_labelled_like(path, example)
        )
    except OSError as error:
        raise translate_os_error(error, "reading labels") from error


def _label(folder: Path) -> bool:
    lost = [pair for pair in _examples(folder) if not is_labelled_like(*pair)]
    for path, example in lost:
        label_like(path, example)
    return bool(lost)


def _examples(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each program and unit of a generation, with the place whose label it needs, if any."""
    if not has_policy():
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
