"""Generations on disk: built beside the running one, complete before they count (I4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgekit.core.appliance import encode_appliance
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan
from edgekit.errors import EdgekitError
from edgekit.system.environments import install_wheels
from edgekit.system.files import (
    durable_write,
    ensure_directory,
    fsync_directory,
    fsync_tree,
    link_or_copy,
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
        for environment in plan.environments:
            wheels = {name: plan.layout.blob(digest) for name, digest in environment.wheels}
            install_wheels(partial / str(environment.prefix), wheels)
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
